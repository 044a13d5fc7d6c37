"""Products and tiles in small kernels by hand: when they are there, and what must be noticed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.gpu.ptx import machine
from tests.gpu.ptx.test_machine import run
from tests.gpu.ptx.text import Unknown
from tests.gpu.simulator import Misuse

# Warps.


def test_a_warp_multiplies_what_it_loads_and_stores():
    """Ones by the numbers of the threads; the sums go through shared memory."""
    got = run(
        """
	cvt.rn.f32.u32 %r6, %r1;
	cvt.rn.bf16x2.f32 %r7, %r6, %r6;
	st.shared.b32 [%r4], %r7;
	bar.warp.sync -1;
	and.b32 %r8, %r1, 7;
	mad.lo.s32 %r10, %r8, 16, %r9;
	ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r11}, [%r10];
	mov.b32 %r12, 0x3F803F80;
	mov.b32 %r13, 0;
	mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r14,%r15,%r16,%r17}, {%r12,%r12,%r12,%r12}, {%r11,%r13}, {%r13,%r13,%r13,%r13};
	cvt.rn.bf16x2.f32 %r18, %r15, %r14;
	stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r10+128], {%r18};
	bar.warp.sync -1;
	ld.shared.b32 %r5, [%r4+128];
	""",  # noqa: E501
        threads=32,
        grid=1,
    )
    # Row k of the second factor holds 4 k + n // 2.
    sums = (112 + 8 * np.arange(4)).astype(np.float32).view(np.uint32)
    np.testing.assert_array_equal(got.reshape(8, 4), [sums | sums >> 16] * 8)


def test_a_warp_loads_what_another_wrote_behind_a_barrier():
    body = """
	st.shared.b32 [%r4], %r1;
	xor.b32 %r10, %r1, 32;
	and.b32 %r10, %r10, 32;
	mad.lo.s32 %r10, %r10, 4, %r9;
	bar.sync 0;
	ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, [%r10];
	"""
    assert run(body)[:64:32].tolist() == [32 | 0, 0]
    with pytest.raises(Misuse, match="another warp wrote"):
        run(body.replace("bar.sync 0;", ""))


# Groups of four warps.

FACTORS = """
	st.shared.b32 [%r4], 0x3F803F80;
	fence.proxy.async.shared::cta;
	bar.sync 0;
	mov.b64 %rd5, 0xC000000000000000;
	mov.b64 %rd6, 0xC000000000000010;
	mov.b32 %r5, 0;
	mov.b32 %r6, 0;
	mov.b32 %r7, 0;
	mov.b32 %r8, 0;
	setp.eq.s32 %p1, %r5, 0;
	wgmma.fence.sync.aligned;
	"""
PRODUCT = """
	wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r5,%r6,%r7,%r8}, %rd5, %rd6, %p1, 1, 1, 0, 0;
	"""  # noqa: E501
COMMIT = "wgmma.commit_group.sync.aligned;"
WAIT = "wgmma.wait_group.sync.aligned 0;"
ALL = FACTORS + PRODUCT + COMMIT + WAIT


@pytest.mark.parametrize(
    "body, expected",
    [
        (ALL, 16),
        (FACTORS + PRODUCT + PRODUCT + COMMIT + WAIT, 32),
        (FACTORS + (PRODUCT + COMMIT) * 2 + WAIT, 32),
        (ALL + PRODUCT + COMMIT + WAIT, 32),
        (FACTORS + PRODUCT + COMMIT + WAIT.replace("0", "1"), np.nan),
        (FACTORS + PRODUCT + COMMIT, np.nan),
        (FACTORS + PRODUCT + WAIT, np.nan),
        (ALL + PRODUCT, np.nan),
        (ALL + (PRODUCT + COMMIT) * 2 + WAIT.replace("0", "1"), np.nan),
        (ALL.replace("%p1, 1, 1", "0, 1, 1") + PRODUCT + COMMIT + WAIT, 32),
        (FACTORS + "mov.b32 %r5, 0f40000000;" + PRODUCT + COMMIT + WAIT, 18),
    ],
)
def test_sums_are_there_when_they_were_waited_for(body, expected):
    got = run(body, threads=128).view(np.float32)
    np.testing.assert_array_equal(got, np.full(256, expected, np.float32))


SECOND = "mov.b32 %r10, 0; st.shared.b32 [%r4], %r10;"
WRONG = {
    "without fence.proxy.async": ALL.replace("fence.proxy.async.shared::cta;", ""),
    "without a barrier between": ALL.replace("bar.sync 0;", ""),
    "before they were waited for": FACTORS + PRODUCT + COMMIT + "bar.sync 0;" + SECOND + WAIT,
    "what was written, without a barrier": ALL.replace("bar.sync 0;", "").replace(
        WAIT, "bar.sync 0;"
    ),
    "that another warp read": ALL.replace(WAIT, "bar.sync 0;" + WAIT) + SECOND,
    "different descriptors": ALL.replace("setp", "cvt.u64.u32 %rd5, %r1; setp"),
    "part of a warp": ALL.replace("\twgmma.mma", "setp.lt.s32 %p2, %r1, 32; @%p2 wgmma.mma"),
    "past its end": ALL.replace("0xC000000000000000", "0xC000000000000040"),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_with_a_product_is_said(message):
    with pytest.raises(Misuse, match=message):
        run(WRONG[message], threads=128)


def test_what_others_wrote_is_fenced_after_the_barrier_too():
    """By one warp; but not in the other block."""
    fence = "fence.proxy.async.shared::cta;"
    one = "bar.sync 0; setp.lt.s32 %p2, NUMBER, LIMIT; @%p2 " + fence
    late = ALL.replace(fence, "").replace("bar.sync 0;", one)
    by_a_warp = late.replace("NUMBER", "%r1").replace("LIMIT", "32")
    assert (run(by_a_warp, threads=128).view(np.float32) == 16).all()
    with pytest.raises(Misuse, match="without fence"):
        run(late.replace("NUMBER", "%r2").replace("LIMIT", "1"), threads=128)


@pytest.mark.parametrize(
    "wrong", [PRODUCT.replace("1, 1, 0", "-1, 1, 0"), PRODUCT.replace("n8", "n16")]
)
def test_products_that_triton_does_not_make(wrong):
    with pytest.raises(Unknown, match="wgmma.mma_async"):
        run(ALL + wrong, threads=128)


# The copy engine. A warp makes a map of 4 rows of 8 numbers that it wrote, at rd1, and loads a
# tile of them.

START = """
	st.global.b32 [ %rd2 + 0 ], { %r1 };
	st.shared.b32 [%r4], 0;
	bar.warp.sync -1;
	setp.eq.s32 %p1, %r1, 0;
	mov.b64 %rd5, 0;
	cvt.u64.u32 %rd6, %r9;
	"""
FIELDS = [
    "global_address.shared::cta.b1024.b64 [ %rd6 + 0 ], %rd1;",
    "rank.shared::cta.b1024.b32 [ %rd6 + 0 ], 0x1;",
    "box_dim.shared::cta.b1024.b32 [ %rd6 + 0 ], 0x0, 8;",
    "box_dim.shared::cta.b1024.b32 [ %rd6 + 0 ], 0x1, 4;",
    "global_dim.shared::cta.b1024.b32 [ %rd6 + 0 ], 0x0, 8;",
    "global_dim.shared::cta.b1024.b32 [ %rd6 + 0 ], 0x1, 4;",
    "global_stride.shared::cta.b1024.b64 [ %rd6 + 0 ], 0x0, 32;",
    "element_stride.shared::cta.b1024.b32 [ %rd6 + 0 ], 0x0, 1;",
    "element_stride.shared::cta.b1024.b32 [ %rd6 + 0 ], 0x1, 1;",
    "elemtype.shared::cta.b1024.b32 [ %rd6 + 0 ], 0x7;",
    "swizzle_mode.shared::cta.b1024.b32 [ %rd6 + 0 ], 0x1;",
]
PUBLISH = """
	bar.warp.sync -1;
	add.s64 %rd7, %rd1, 256;
	tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [ %rd7 + 0 ], [ %rd6 + 0 ], 0x80;
	"""  # noqa: E501
ACQUIRE = """
	fence.proxy.tensormap::generic.acquire.gpu [ %rd7 + 0 ], 0x80;
	cp.async.bulk.commit_group;
	cp.async.bulk.wait_group.read 0;
	"""
LOAD = """
	add.s32 %r10, %r9, 512;
	@%p1 mbarrier.init.shared::cta.b64 [%r10], 1;
	bar.sync 0;
	@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r10], 128;
	fence.proxy.async.shared::cta;
	bar.sync 0;
	mov.b32 %r11, COLUMN;
	mov.b32 %r12, ROW;
	mov.b32 %r13, 0;
	@%p1 cp.async.bulk.tensor.2d.shared::cta.global.mbarrier::complete_tx::bytes [%r9], [%rd7, {%r11, %r12}], [%r10];
	"""  # noqa: E501
ASK = """
$L1:
	mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r10], %r13;
	@!%p2 bra.uni $L1;
	@%p1 mbarrier.inval.shared::cta.b64 [%r10];
	"""
READ = "ld.shared.b32 %r5, [%r4];"
MAP = START + "".join(f"@%p1 tensormap.replace.tile.{field}" for field in FIELDS) + PUBLISH


def load(body: str, column: int = 0, row: int = 0):
    placed = body.replace("COLUMN", str(column)).replace("ROW", str(row))
    return run(placed, threads=32, grid=1, words=128)[:32].reshape(4, 8)


@pytest.mark.parametrize("column, row", [(0, 0), (3, 1), (-2, -1), (8, 0)])
def test_the_copy_engine_brings_a_tile(column, row):
    got = load(MAP + ACQUIRE + LOAD + ASK + READ, column, row)
    around = np.pad(np.arange(32).reshape(4, 8), 8)
    np.testing.assert_array_equal(got, around[8 + row :, 8 + column :][:4, :8])


def test_a_tile_is_there_when_the_barrier_says_so():
    ask_twice = "".join(ASK.partition("@%p1")[0].replace("L1", name) for name in ("L2", "L3"))
    got = load(MAP + ACQUIRE + LOAD + ask_twice + ASK + READ)
    np.testing.assert_array_equal(got.ravel(), np.arange(32))
    got = load(MAP + ACQUIRE + LOAD + "bar.sync 0;" + READ + ASK)
    np.testing.assert_array_equal(got, 2**32 - 1)


WRONG_TILES = {
    "nobody acquired": MAP + LOAD + ASK + READ,
    "another warp wrote": MAP + ACQUIRE + LOAD + READ + ASK,
    "without fence.proxy.async": MAP
    + ACQUIRE
    + LOAD.replace("fence.proxy.async.shared::cta;", "")
    + ASK
    + READ,
    "does not end": MAP + ACQUIRE + LOAD.replace("128;", "144;") + ASK + READ,
    "no barrier here": MAP + ACQUIRE + LOAD + ASK + ASK.replace("L1", "L2") + READ,
}


@pytest.mark.parametrize("message", WRONG_TILES)
def test_what_is_wrong_with_a_tile_is_said(message, monkeypatch):
    monkeypatch.setattr(machine, "_PATIENCE", 100)
    with pytest.raises(Misuse, match=message):
        load(WRONG_TILES[message])


def test_the_engine_keeps_the_map_that_was_acquired():
    """What is written over it later counts when it is acquired again."""
    spoil = "st.global.b32 [ %rd7 + 16 ], { %r1 }; bar.sync 0;"
    got = load(MAP + ACQUIRE + spoil + LOAD + ASK + READ)
    np.testing.assert_array_equal(got.ravel(), np.arange(32))
