"""Kernels compiled ahead of time: they compile for every target, and do not spill."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import pytest

from compiler import helpers
from compiler.backends.triton import Backend
from compiler.kernels.kernel import Load
from compiler.tilings import Tilings
from compiler.triton_source import aot, attempts, build, checks
from compiler.triton_source.aot import require_triton
from compiler.triton_source.tiles import TARGETS, Product, choose
from schemas.errors import BackendError, UsageError
from schemas.precision import PRECISIONS
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs
from tests.backends.hand_kernels import every_kind

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def compiled(kernels, target="sm_90", precision="fp32"):
    """Compiles kernels as one launch; returns the launches and the usage of each binary."""
    program = runs.program(Backend(target, precision), tuple(kernels))
    found = []
    for launch in program.launches:
        ptx = program.text[f"{launch.code}.ptx"]
        found.append((launch, checks.usage(program.code[launch.code], ptx)))
    return found


def assert_sound(launch, usage, target) -> None:
    assert usage.spills == 0 and usage.stack == 0, (launch.name, usage)
    assert usage.registers <= 255 and launch.meta["shared"] <= TARGETS[target].shared
    assert usage.parameters == len(launch.args) + 2  # and Triton's two scratch pointers
    assert launch.meta["global_scratch"] == launch.meta["profile_scratch"] == 0
    assert launch.meta["threads"] == 32 * launch.meta["num_warps"]
    json.dumps(launch.meta)


@pytest.mark.parametrize("target, waits", [("sm_80", False), ("sm_90", True), ("sm_100", True)])
def test_kernels_wait_for_the_launch_before(target, waits):
    """Once, and before they touch memory: a product, a group, a sum that joins its parts."""
    sums = hand.in_parts(hand.column_sums(1 << 15, 64), 16)
    launches = ((large("conv_forward", "bf16"),), (hand.update(5000), hand.dropout(4000)), (sums,))
    program = runs.program(Backend(target, "bf16"), *launches)
    assert len(program.launches) == 3
    for launch in program.launches:
        assert launch.meta["waits"] == checks.waits(program.code[launch.code]) == waits
        assert program.text[f"{launch.code}.ptx"].count("griddepcontrol.wait") == waits


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("name", ["conv", "unpool", "softmax", "total", "dropout"])
def test_every_kind_for_nvidia(target, name):
    for launch, usage in compiled([every_kind()[name]], target):
        assert_sound(launch, usage, target)


def test_every_kind_for_amd():
    kinds = every_kind()
    launches = [(kinds[name],) for name in ("conv", "max_pool", "softmax", "dropout")]
    program = runs.program(Backend("gfx942"), *launches)
    for launch in program.launches:
        assert program.code[launch.code][:4] == b"\x7fELF"
        assert f"{launch.code}.amdgcn" in program.text
        assert launch.meta["threads"] == 64 * launch.meta["num_warps"]
        assert launch.meta["shared"] <= TARGETS["gfx942"].shared


LARGE = {
    "conv_forward": hand.conv_forward(128, 32, 32, 64, 64, 3, 1, 1),
    "conv_data_gradient": hand.conv_data_gradient(128, 32, 32, 64, 64, 3, 1, 1),
    "conv_weight_gradient": hand.conv_weight_gradient(128, 32, 32, 64, 64, 3, 1, 1),
    "inner_product": hand.inner_product(256, 4096, 4096),
}


def large(name, precision):
    return hand.narrowed(LARGE[name]) if precision == "bf16" else LARGE[name]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", LARGE)
def test_products_of_real_size(name, precision):
    ((launch, usage),) = compiled([large(name, precision)], precision=precision)
    assert_sound(launch, usage, "sm_90")
    assert usage.copies > 0  # the sum's loop loads ahead
    if precision == "fp32":
        assert usage.wgmma == usage.mma == 0
    else:
        assert usage.wgmma > 0 and usage.mma == 0
    if precision == "bf16":
        assert usage.wide_copies == usage.copies


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sums_in_parts(precision):
    sums = hand.in_parts(hand.column_sums(1 << 15, 64), 16)
    ((launch, usage),) = compiled([sums], precision=precision)
    assert_sound(launch, usage, "sm_90")
    gradient = hand.in_parts(large("conv_weight_gradient", precision), 16)
    ((launch, usage),) = compiled([gradient], precision=precision)
    assert_sound(launch, usage, "sm_90")
    # The parts lie without gaps, and 16 loads of them are on their way at a time.
    assert usage.loads == usage.wide_loads == 16


@pytest.mark.parametrize("precision", PRECISIONS)
def test_results_that_are_spread_over_windows(precision):
    product = hand.spread(hand.inner_product(1024, 1024, 1024), 2, 2)
    ((launch, usage),) = compiled([product], precision=precision)
    assert_sound(launch, usage, "sm_90")


def test_sums_in_parts_for_amd():
    gradient = hand.in_parts(large("conv_weight_gradient", "fp32"), 16)
    (launch,) = runs.program(Backend("gfx942"), (gradient,)).launches
    assert launch.meta["shared"] <= TARGETS["gfx942"].shared


@pytest.mark.parametrize("target", ["sm_80", "sm_100"])
def test_bf16_products_for_other_gpus(target):
    ((launch, usage),) = compiled([large("conv_weight_gradient", "bf16")], target, "bf16")
    assert_sound(launch, usage, target)
    assert usage.copies == usage.wide_copies > 0


@pytest.mark.parametrize(
    ("target", "instruction"), [("sm_80", "mma.sync"), ("sm_100", "tcgen05.mma")]
)
def test_tf32_products_for_other_gpus(target, instruction):
    program = runs.program(Backend(target, "tf32"), (LARGE["conv_forward"],))
    (launch,) = program.launches
    ptx = program.text[f"{launch.code}.ptx"]
    assert_sound(launch, checks.usage(program.code[launch.code], ptx), target)
    assert instruction in ptx


def test_bf16_products_for_amd():
    program = runs.program(Backend("gfx942", "bf16"), (large("conv_forward", "bf16"),))
    (launch,) = program.launches
    assert launch.meta["shared"] <= TARGETS["gfx942"].shared
    assert "v_mfma_f32_32x32x8_bf16" in program.text[f"{launch.code}.amdgcn"]


def test_a_factor_that_lies_as_f32_is_rounded_on_its_way():
    first = hand.conv_forward(32, 56, 56, 3, 64, 7, 2, 3)  # the picture is an input of the net
    ((launch, usage),) = compiled([first], precision="bf16")
    assert_sound(launch, usage, "sm_90")
    assert usage.wgmma > 0 and usage.mma == 0


def test_channels_are_read_sixteen_bytes_at_a_time():
    ((_, usage),) = compiled([LARGE["conv_forward"]])
    assert usage.wide_copies == usage.copies
    ((_, usage),) = compiled([hand.update(1 << 20)])
    assert usage.wide_loads == usage.loads - 1  # all but the learning rate
    ((_, usage),) = compiled([hand.max_pool(8, 32, 32, 64, 2, 2)])
    assert usage.wide_loads == usage.loads


@pytest.mark.parametrize("size, channels, stride", [(56, 128, 1), (56, 128, 2), (14, 512, 1)])
def test_depthwise_convolutions_do_not_spill(size, channels, stride):
    """If it may choose, ptxas keeps two of 70 registers in memory, and has seven blocks run."""
    conv = hand.conv_forward(64, size, size, channels, channels, 3, stride, 1, groups=channels)
    (total,), (store,) = conv.reduces, conv.stores
    (add,) = store.value.args
    factor = Load("bias of factors", add.args[1].offset, "f32")
    scaled = hand.op("add", hand.op("mul", add.args[0], factor), add.args[1])
    scaled = replace(store, value=hand.op("relu", scaled, slope=0.0))
    kernel = hand.narrowed(replace(conv, body=(total, scaled)))
    ((launch, usage),) = compiled([kernel], precision="bf16")
    assert_sound(launch, usage, "sm_90")


def test_a_group_does_not_spill():
    maps = [hand.update(5000), hand.dropout(4000), every_kind()["map"], every_kind()["unpool"]]
    for launch, usage in compiled(maps):
        assert_sound(launch, usage, "sm_90")
    products = [hand.inner_product(64, 64, 256), hand.inner_product(64, 64, 128, True)]
    ((launch, usage),) = compiled(products)
    assert_sound(launch, usage, "sm_90")
    assert len(launch.kernels) == 2


def test_what_spills_is_given_more_registers(monkeypatch):
    maps, spilling = (hand.update(5000), hand.dropout(4000)), [(70, 8), (80, 0)]
    monkeypatch.setattr(attempts, "resources", lambda cubin: spilling.pop(0))
    program = runs.program(Backend("sm_90"), maps)
    (launch,) = program.launches
    (ptx,) = (text for name, text in program.text.items() if name.endswith(".ptx"))
    assert not spilling and len(launch.kernels) == 2
    assert f".maxnreg {attempts.roomier(70, launch.meta['threads'])}" in ptx


def test_a_processor_has_one_block_less():
    assert attempts.roomier(70, 128) == 80 and attempts.roomier(80, 256) == 128
    assert attempts.roomier(128, 256) == attempts.roomier(168, 256) == 255
    assert attempts.roomier(255, 128) is attempts.roomier(128, 512) is None


def test_a_group_that_spills_falls_apart(monkeypatch):
    maps = (hand.update(500), hand.dropout(400))
    monkeypatch.setattr("compiler.triton_source.attempts.resources", lambda cubin: (255, 16))
    program = runs.program(Backend("sm_90"), maps, maps)
    assert [k.name for launch in program.launches for k in launch.kernels] == [
        "update",
        "dropout",
    ] * 2
    assert len(program.launches) == 4 and len(program.code) == 2


@pytest.mark.parametrize(("rows", "columns", "goes"), [(64, 64, "ip1"), (2048, 1024, "ip0")])
def test_a_group_that_spills_loses_only_what_holds_most(monkeypatch, rows, columns, goes):
    """Of two that hold 64 numbers in the end, it is the one that adds up as many all the time."""
    first = hand.inner_product(rows, columns, 64)
    products = first, hand.spread(hand.inner_product(64, 128, 64), 2, 2)
    kernels = (hand.update(500), *(replace(k, name=f"ip{i}") for i, k in enumerate(products)))
    monkeypatch.setattr(build, "divide", lambda functions, processors: [[0, 1, 2]])
    spilling = [(255, 16), (255, 0), (255, 0)]
    monkeypatch.setattr(attempts, "resources", lambda cubin: spilling.pop(0))
    program = runs.program(Backend("sm_90"), kernels)
    (stay,) = {"ip0", "ip1"} - {goes}
    assert [[k.name for k in launch.kernels] for launch in program.launches] == [
        ["update", stay],
        [goes],
    ]


def test_a_group_of_more_shared_memory_than_there_is_falls_apart(monkeypatch):
    given = attempts.compile_if_it_fits

    def greedy(*args):
        made = given(*args)
        return replace(made, meta={**made.meta, "shared": TARGETS["sm_90"].shared + 1})

    monkeypatch.setattr(attempts, "compile_if_it_fits", greedy)
    program = runs.program(Backend("sm_90"), (hand.update(500), hand.dropout(400)))
    assert [len(launch.kernels) for launch in program.launches] == [1, 1]


def several(monkeypatch, tmp_path, processes):
    """Returns the code of kernels that so many processes compile, with an empty cache."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / str(processes)))
    monkeypatch.setenv("TRITON_DISABLE_LINE_INFO", "1")  # it has the name of a temporary file
    monkeypatch.setattr(attempts, "processors", lambda: processes)
    monkeypatch.setattr(attempts, "_WORTH", 1)
    launches = [(hand.update(500),), (hand.dropout(400),), (LARGE["inner_product"],)]
    return runs.program(Backend("sm_90"), *launches).code


def test_processes_make_what_one_makes(monkeypatch, tmp_path):
    assert several(monkeypatch, tmp_path, 3) == several(monkeypatch, tmp_path, 1)


def test_a_process_that_fails_leaves_its_kernels_to_others(monkeypatch, tmp_path):
    expected = several(monkeypatch, tmp_path, 1)
    monkeypatch.setattr(helpers, "_START", "raise SystemExit(3)")
    assert several(monkeypatch, tmp_path, 2) == expected


def test_kernels_that_do_not_compile_are_all_named(monkeypatch):
    given = attempts.compile_if_it_fits

    def partly(m, *args):
        return given(m, *args) if m.entry == "loss" else "PTXASError: no such instruction"

    monkeypatch.setattr(attempts, "compile_if_it_fits", partly)
    with pytest.raises(BackendError) as error:
        runs.program(Backend("sm_90"), (hand.update(500), hand.dropout(400)), (hand.total(99),))
    for name in ("update", "dropout"):
        assert f"{name}: PTXASError: no such instruction" in str(error.value)
    assert "sm_90" in str(error.value) and "loss" not in str(error.value)


@pytest.mark.parametrize("error", ["PTXASError", "RuntimeError"])
def test_what_the_compiler_refuses_is_told_with_its_reason(monkeypatch, error):
    from triton.runtime.errors import PTXASError

    def refuses(*args):
        raise {"PTXASError": PTXASError, "RuntimeError": RuntimeError}[error]("too large")

    monkeypatch.setattr(aot, "compile_module", refuses)
    with pytest.raises(BackendError, match=f"update: {error}: .*too large"):
        runs.program(Backend("sm_90"), (hand.update(500),))


def test_errors_of_the_machine_are_passed_on(monkeypatch):
    def busy(*args):
        raise OSError("busy")

    monkeypatch.setattr(aot, "compile_module", busy)
    with pytest.raises(OSError, match="busy"):
        runs.program(Backend("sm_90"), (hand.update(500), hand.dropout(400)))


def test_offsets_beyond_32_bits():
    kernel = hand.max_pool(1 << 12, 128, 128, 64, 2, 2)
    assert "tl.int64" in Backend("sm_90").render(kernel)
    assert "tl.int64" not in Backend("sm_90").render(hand.max_pool(8, 32, 32, 64, 2, 2))
    ((launch, usage),) = compiled([kernel])
    assert_sound(launch, usage, "sm_90")


def test_tiles_follow_the_problem():
    target = TARGETS["sm_90"]
    small = choose(Product(64, 10, 500, 1, 500, target, "fp32"))
    large = choose(Product(1 << 17, 256, 576, 1, 64, target, "tf32"))
    assert small.n == 16 and small.m <= 64
    assert large.m * large.n >= 128 * 128
    assert (
        choose(Product(1 << 17, 256, 576, 1, 64, target, "bf16")).k == 64
    )  # as many bytes as 32 of tf32
    assert choose(Product(576, 64, 1 << 12, 1, 32, target, "bf16")).m >= 64  # what wgmma takes
    assert choose(Product(1 << 17, 64, 576, 1, 48, target, "fp32")).k == 16  # whole runs of 48


def test_other_gpus():
    """Those that no Triton knows would end the process."""
    for target in ("sm_86", "sm_87", "sm_89", "sm_103", "sm_120", "sm_121"):
        program = runs.program(Backend(target), (hand.inner_product(64, 64, 64),))
        assert all(program.code.values())
    for target in ("sm_70", "sm_81", "sm_88", "sm_91", "sm_900", "sm_125", "gfx90a"):
        with pytest.raises(UsageError, match=f"the triton backend has no target '{target}'"):
            Backend(target)


def test_without_triton(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "triton", None)
    with pytest.raises(BackendError) as error:
        require_triton()
    assert error.value.hint == "pip install 'netdef[cuda]'"


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_erf_needs_no_library_beside_tritons_own(target):
    program = runs.program(Backend(target), (hand.chain(1000, "erf"),))
    (launch,) = program.launches
    assert program.code[launch.code]
    if target == "sm_90":
        assert "call" not in program.text[f"{launch.code}.ptx"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_candidates_of_a_search_compile(precision):
    """The first and the last of them; none spills."""
    kernel = large("conv_forward", precision)
    made = Backend("sm_90", precision)
    tunable = made.tunable(kernel)
    assert tunable is not None and len(tunable.tilings) > 4
    for tiling in (tunable.tilings[1], tunable.tilings[-1]):
        program = runs.program(made.tuned(Tilings("sm_90", {tunable.key: tiling})), (kernel,))
        (launch,) = program.launches
        assert launch.meta["num_warps"] == tiling["warps"]
        ptx = program.text[f"{launch.code}.ptx"]
        assert_sound(launch, checks.usage(program.code[launch.code], ptx), "sm_90")
