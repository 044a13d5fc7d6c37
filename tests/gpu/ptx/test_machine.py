"""The emulator of PTX: small kernels by hand, and what it must notice."""

from __future__ import annotations

import numpy as np
import pytest

from tests.gpu.ptx.machine import Emulated
from tests.gpu.ptx.memory import Global
from tests.gpu.ptx.text import Unknown, read
from tests.gpu.simulator import Memory, Misuse

HEAD = """
.version 8.7
.target sm_90a
.extern .shared .align 16 .b8 global_smem[];
.visible .entry k(
	.param .u64 .ptr .global .align 1 k_param_0
)
.reqntid {threads}
{{
	.reg .b32 	%r<99>;
	ld.param.b64 	%rd1, [k_param_0];
	mov.u32 	%r1, %tid.x;
	mov.u32 	%r2, %ctaid.x;
	mad.lo.s32 	%r3, %r2, {threads}, %r1;
	mad.wide.s32 	%rd2, %r3, 4, %rd1;
	mov.b32 	%r9, global_smem;
	mad.lo.s32 	%r4, %r1, 4, %r9;
	{body}
	ret;
}}
"""
END = "st.global.b32 [ %rd2 + 0 ], { %r5 };"


def run(body: str, threads: int = 64, grid: int = 2, words: int | None = None, seed: int = 0):
    """Runs a kernel; every thread has `%r5` stored at its number (`%r3`, at `%rd2`)."""
    memory = Memory("device")
    count = words or threads * grid
    address = memory.allocate(4 * count)
    block = memory.blocks[address]
    numbers = np.ctypeslib.as_array(block._memory)[address - _first(block) :][: 4 * count]
    numbers[:] = 0
    emulated = Emulated(read(HEAD.format(threads=threads, body=body + END)))
    emulated.run(grid, 1024, [address], Global(memory.blocks.values()), seed)
    block.check_guards()
    return numbers.view(np.uint32).copy()


def _first(block):
    import ctypes

    return ctypes.addressof(block._memory)


def bits(value: float) -> str:
    return f"0f{np.float32(value).view(np.uint32):08X}"


ONE = {
    "mul.hi.s32 %r5, -7, 0x40000000;": (-7 * 2**30 >> 32) % 2**32,
    "mul.hi.u32 %r5, -7, 0x40000000;": (2**32 - 7) * 2**30 >> 32,
    "div.s32 %r5, -7, 2;": -3 % 2**32,
    "rem.s32 %r5, -7, 2;": -1 % 2**32,
    "shr.s32 %r5, -8, 1;": -4 % 2**32,
    "shr.s32 %r5, -8, 40;": -1 % 2**32,
    "shr.u32 %r5, -8, 40;": 0,
    "shl.b32 %r5, 3, 31;": 2**31,
    "bfe.u32 %r5, 0xABCD, 4, 8;": 0xBC,
    "bfe.s32 %r5, 0xABCD, 4, 8;": 0xFFFFFFBC,
    "bfi.b32 %r5, 0xABC, 0x11223344, 8, 8;": 0x1122BC44,
    "bfi.b32 %r5, 0xFF, 0x11223344, 28, 8;": 0xF1223344,
    "bfi.b32 %r5, 0xABC, 0x11223344, 0, 32;": 0xABC,
    "bfi.b32 %r5, 0xABC, 0x11223344, 32, 8;": 0x11223344,
    "bfi.b32 %r5, 0xABC, 0x11223344, 8, 0;": 0x11223344,
    "prmt.b32 %r5, 0x33221100, 0x77665544, 0x7513U;": 0x77551133,
    "prmt.b32 %r5, 0x80, 0, 0x8888U;": 0xFFFFFFFF,
    "cvt.s8.s32 %rs1, 200; cvt.s32.s16 %r5, %rs1;": (200 - 256) % 2**32,
    "mov.b16 %rs1, 0x0180; cvt.s32.s8 %r5, %rs1;": -128 % 2**32,
    f"cvt.rzi.s32.f32 %r5, {bits(-2.7)};": -2 % 2**32,
    f"cvt.rzi.s32.f32 %r5, {bits(float('nan'))};": 0,
    f"cvt.rzi.s32.f32 %r5, {bits(1e20)};": 2**31 - 1,
    f"cvt.rn.bf16x2.f32 %r5, {bits(1.0)}, {bits(-2.0)};": 0x3F80C000,
    f"cvt.rn.bf16.f32 %rs1, {bits(1 + 2**-8)}; cvt.u32.u16 %r5, %rs1;": 0x3F80,
    f"cvt.rn.bf16.f32 %rs1, {bits(1 + 3 * 2**-8)}; cvt.u32.u16 %r5, %rs1;": 0x3F82,
    "mov.b16 %rs1, 0x4040; cvt.f32.bf16 %r5, %rs1;": 0x40400000,
    f"fma.rn.f32 %r5, {bits(1 + 2**-23)}, {bits(1 - 2**-23)}, {bits(-1.0)};": 0xA8800000,
    f"max.f32 %r5, {bits(float('nan'))}, {bits(1.0)};": 0x3F800000,
    f"max.NaN.f32 %r6, {bits(float('nan'))}, {bits(1.0)}; abs.f32 %r5, %r6;": 0x7FC00000,
    "mul.ftz.f32 %r5, 0f00800000, 0f3F000000;": 0,
    f"setp.lt.f32 %p1, {bits(float('nan'))}, {bits(1.0)}; selp.b32 %r5, 1, 0, %p1;": 0,
    f"setp.ltu.f32 %p1, {bits(float('nan'))}, {bits(1.0)}; selp.b32 %r5, 1, 0, %p1;": 1,
    f"setp.ne.f32 %p1, {bits(float('nan'))}, {bits(1.0)}; selp.b32 %r5, 1, 0, %p1;": 0,
    "mov.b32 %r6, 0x3F80C000; setp.gt.bf16x2 %p1|%p2, %r6, 0;"
    "selp.b32 %r7, 1, 0, %p1; selp.b32 %r8, 2, 0, %p2; or.b32 %r5, %r7, %r8;": 2,
    "mov.b16 %rs1, 7; mov.b16 %rs2, 9; mov.b32 %r5, {%rs1, %rs2};": 0x00090007,
    "mov.b64 %rd5, 0x100000002; mov.b64 {%r6, %r5}, %rd5;": 1,
    "mul.hi.u64 %rd5, -1, -1; cvt.u32.u64 %r5, %rd5;": 0xFFFFFFFE,
    "add.s16x2 %r5, 0x0001FFFF, 0x00010001;": 0x00020000,
    "mov.b32 %r6, k_param_0; ld.param.b64 %rd5, [%r6]; setp.eq.b64 %p1, %rd5, %rd1;"
    "selp.b32 %r5, 1, 0, %p1;": 1,
    "shfl.sync.bfly.b32 %r6, %r1, 1, 31, -1; xor.b32 %r5, %r6, %r1;": 1,
    "shfl.sync.idx.b32 %r6, %r1, 3, 31, -1; and.b32 %r5, %r6, 31;": 3,
    "and.b32 %r6, %r1, 31; redux.sync.min.s32 %r5, %r6, -1;": 0,
    "neg.s32 %r6, %r1; redux.sync.min.s32 %r7, %r6, -1; and.b32 %r5, %r7, 31;": 1,
}


@pytest.mark.parametrize("body", ONE)
def test_instructions(body):
    np.testing.assert_array_equal(run(body), ONE[body])


def test_threads_part_and_meet_again():
    """Each goes round as often as its number says, then all exchange what they have."""
    got = run("""
	mov.b32 %r5, 0;
	and.b32 %r6, %r1, 7;
$L1:
	setp.eq.s32 %p1, %r6, 0;
	@%p1 bra $L2;
	add.s32 %r5, %r5, %r6;
	sub.s32 %r6, %r6, 1;
	bra.uni $L1;
$L2:
	st.shared.b32 [%r4], %r5;
	bar.sync 0;
	xor.b32 %r7, %r4, 252;
	ld.shared.b32 %r5, [%r7];
	""")
    sums = np.array([n * (n + 1) // 2 for n in range(8)])[::-1]
    np.testing.assert_array_equal(got, np.tile(sums, 16))


def test_a_copy_arrives_when_it_is_waited_for():
    """Before that, what is read there is no number."""
    body = """
	st.global.b32 [ %rd2 + 0 ], { %r1 };
	mov.b32 %r6, 4;
	cp.async.ca.shared.global [ %r4 + 0 ], [ %rd2 + 0 ], 0x4, %r6;
	cp.async.commit_group;
	cp.async.wait_group WAIT;
	ld.shared.b32 %r5, [%r4];
	"""
    np.testing.assert_array_equal(run(body.replace("WAIT", "0"))[:64], np.arange(64))
    np.testing.assert_array_equal(run(body.replace("WAIT", "1")), 2**32 - 1)


def test_a_copy_of_no_bytes_reads_nothing():
    got = run("""
	mov.b32 %r6, 0;
	add.s64 %rd3, %rd2, 0x100000000;
	cp.async.ca.shared.global [ %r4 + 0 ], [ %rd3 + 0 ], 0x4, %r6;
	cp.async.commit_group;
	cp.async.wait_group 0;
	ld.shared.b32 %r5, [%r4];
	""")
    np.testing.assert_array_equal(got, 0)


# The first word counts arrivals: blocks take numbers, or wait for each other.
COUNT = "setp.eq.s32 %p1, %r1, 0; @%p1 atom.global.gpu.acq_rel.add.u32 %r5, [ %rd1 + 0 ], 1;"
STORE = "mad.wide.s32 %rd2, %r2, 4, %rd1; add.s64 %rd2, %rd2, 4; setp.eq.s32 %p2, %r1, 0; @%p2 "


@pytest.mark.parametrize("seed", range(3))
def test_blocks_come_in_any_order(seed):
    got = run(COUNT + STORE, threads=32, grid=2000, words=2001, seed=seed)
    assert got[0] == 2000
    assert sorted(got[1:]) == list(range(2000))
    assert list(got[1:]) != list(range(2000))


def test_blocks_wait_for_each_other():
    spin = """
$L1:
	ld.global.gpu.acquire.b32 %r6, [ %rd1 + 0 ];
	setp.ne.b32 %p3, %r6, 5;
	@%p3 bra $L1;
	mov.b32 %r5, %r6;
	"""
    got = run(COUNT + spin + STORE, threads=32, grid=5, words=6)
    np.testing.assert_array_equal(got, 5)


WRONG = {
    "behind the end": "add.s64 %rd2, %rd2, 512;",
    "in no block": "mov.b64 %rd2, 64;",
    "no multiple of 16": "ld.global.v4.b32 { %r5, %r6, %r7, %r8 }, [ %rd2 + 0 ];",
    "touched at": "add.s32 %r4, %r4, 1020; ld.shared.b32 %r5, [%r4];",
    "another warp wrote, without": """
	st.shared.b32 [%r4], %r1;
	xor.b32 %r7, %r4, 128;
	ld.shared.b32 %r5, [%r7];""",
    "written that another warp read": """
	xor.b32 %r7, %r4, 128;
	ld.shared.b32 %r5, [%r7];
	st.shared.b32 [%r4], %r1;""",
    "written that another warp wrote": """
	st.shared.b32 [%r4], %r1;
	xor.b32 %r7, %r4, 128;
	st.shared.b32 [%r7], %r1;""",
    "the same place": "st.shared.b32 [global_smem], %r1;",
    "part of a warp": """
	setp.lt.s32 %p1, %r1, 3;
	@%p1 shfl.sync.bfly.b32 %r5, %r1, 1, 31, -1;""",
    "different barriers": """
	setp.eq.s32 %p1, %r1, 0;
	@%p1 bra $L1;
	bar.sync 0;
	bar.sync 0;
$L2:
	bra.uni $L3;
$L1:
	bar.sync 0;
$L3:""",
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_said(message):
    with pytest.raises(Misuse, match=message):
        run(WRONG[message])


def test_what_is_not_known_is_no_silence():
    with pytest.raises(Unknown, match="vote"):
        run("vote.sync.ballot.b32 %r5, %p1, -1;")
