"""Rendered kernels under Triton's interpreter against the NumPy oracle."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.backends.triton import Backend
from compiler.kernels.index import Axis, index
from compiler.kernels.kernel import Acc, Kernel, Load, Op, Reduce, Store
from compiler.prims.maps import SCALARS
from compiler.triton_source.build import divide
from compiler.triton_source.contract import problem, roles, suits
from compiler.triton_source.maps import _CALLS, INFIX
from compiler.triton_source.render import render_kernel
from compiler.triton_source.same import renamed
from compiler.triton_source.tiles import TARGETS, choose
from schemas.errors import UsageError
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs
from tests.backends.hand_programs import check, tuned

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)

REAL = Backend("sm_90", binary=False)  # the tiles that a GPU gets, as source only
few = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("name", hand.every_kind())
def test_every_kind(device, name):
    check(device, REAL, (hand.every_kind()[name],))


@pytest.mark.parametrize("name", ["conv_deep", "max_pool", "softmax", "total"])
def test_interpreter_target(device, name):
    check(device, Backend("interpreter"), (hand.every_kind()[name],))


def test_kinds_of_the_hand_kernels():
    kinds = {name: kernel.kind for name, kernel in hand.every_kind().items()}
    assert {"map", "reduce", "row", "contract"} == set(kinds.values())
    assert suits(hand.every_kind()["conv"]) and not suits(hand.every_kind()["conv_depthwise"])


@few
@given(
    n=st.integers(1, 3),
    h=st.integers(3, 8),
    w=st.integers(3, 8),
    ci=st.sampled_from([1, 2, 3, 16, 17]),
    co=st.sampled_from([1, 2, 5, 16, 19]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 4),
    pad=st.integers(0, 2),
    which=st.sampled_from(["forward", "data", "weight"]),
)
def test_convolutions(device, n, h, w, ci, co, kernel, stride, pad, which):
    make = {
        "forward": hand.conv_forward,
        "data": hand.conv_data_gradient,
        "weight": hand.conv_weight_gradient,
    }[which]
    check(device, REAL, (make(n, h, w, ci, co, kernel, stride, pad),))


@few
@given(
    m=st.sampled_from([1, 2, 7, 16, 33]),
    n=st.sampled_from([1, 3, 16, 31]),
    k=st.sampled_from([1, 5, 32, 96, 100]),
    batch=st.integers(1, 2),
    transposed=st.booleans(),
)
def test_products(device, m, n, k, batch, transposed):
    check(device, REAL, (hand.inner_product(m, n, k, transposed, batch),))


@few
@given(
    n=st.integers(1, 2),
    h=st.integers(2, 9),
    w=st.integers(2, 9),
    c=st.sampled_from([1, 3, 4]),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 5),
    which=st.sampled_from([hand.max_pool, hand.average_pool, hand.unpool]),
    data=st.data(),
)
def test_pooling(device, n, h, w, c, kernel, stride, which, data):
    kernel = min(kernel, h, w)
    pad = data.draw(st.integers(0, kernel - 1))
    check(device, REAL, (which(n, h, w, c, kernel, stride, pad),))


@few
@given(n=st.sampled_from([1, 2, 40]), c=st.sampled_from([1, 2, 7, 64, 1000, 8193]))
def test_rows(device, n, c):
    if n * c < 100_000:
        check(device, REAL, (hand.softmax(n, c),))
        check(device, REAL, (hand.column_sums(c, n),))


@few
@given(
    parts=st.sampled_from([2, 3, 5]),
    n=st.integers(1, 2),
    h=st.integers(2, 6),
    ci=st.sampled_from([2, 3, 17]),
    co=st.sampled_from([2, 5, 33]),
    stride=st.integers(1, 3),
)
def test_sums_in_parts(device, parts, n, h, ci, co, stride):
    gradient = hand.conv_weight_gradient(parts * n, h, h + 1, ci, co, 2, stride, 1)
    sums, product = hand.column_sums(parts * n * 300, co), hand.inner_product(ci, co, parts * 32)
    # They count who has come in the same words, which are 0 again after each launch.
    launches = [[hand.in_parts(k, parts) for k in row] for row in ((gradient, sums), (product,))]
    check(device, REAL, *map(tuple, launches))


@pytest.mark.parametrize("parts, rows, stride", [(2, 1, 1), (3, 2, 1), (5, 1, 2), (7, 1, 1)])
def test_parts_of_rows(device, parts, rows, stride):
    height = stride * parts * rows - stride + 1  # of a map whose gradient has parts * rows rows
    gradient = hand.conv_weight_gradient(3, height, 6, 5, 17, 3, stride, 1)
    assert gradient.reduces[0].axes[1].size == parts * rows
    check(device, REAL, (hand.in_parts(gradient, parts, cut=1),))


@few
@given(
    m=st.sampled_from([2, 7, 33]),
    n=st.sampled_from([3, 16, 31]),
    k=st.sampled_from([32, 100]),
    batch=st.integers(1, 2),
    window=st.sampled_from([(1, 2), (2, 2), (3, 1)]),
    parts=st.sampled_from([1, 4]),
)
def test_results_that_are_spread_over_windows(device, m, n, k, batch, window, parts):
    product = hand.spread(hand.inner_product(m, n, k, batch=batch), *window)
    assert product.kind == "contract"
    check(device, REAL, (hand.in_parts(product, parts) if parts > 1 else product,))


@pytest.mark.parametrize("shape", [(7, 10, 3), (1, 10, 70), (9, 1, 70)])
def test_results_of_few_products_that_are_spread_over_windows(device, shape):
    product = hand.spread(hand.inner_product(*shape), 2, 2)
    assert product.kind == "contract" and not suits(product)
    check(device, REAL, (product,))


def test_parts_of_matrices_vectors_and_one_number(device):
    matrices, vector = hand.inner_product(3, 4, 35, batch=2), hand.every_kind()["vector_product"]
    for kernel in (matrices, vector, hand.column_sums(100, 1)):
        check(device, REAL, (hand.in_parts(kernel, 5),))


def test_the_first_of_equal_elements_wins(device):
    i, j = Axis("i", 3), Axis("j", 100)
    flat = Op("mul", (Load("x", index(i), "f32"), Load("zero", index(j), "f32")), "f32")
    position = Op("cast", (Load("names", index(j), "i32"),), "i32")
    value = Op("maximum", (flat, flat), "f32")
    for space in ((i,), ()):
        axes = (j,) if space else (i, j)
        kernel = Kernel(
            "first",
            space,
            (
                Reduce(0, "argmax", axes, value, "i32", position),
                Store("best", index(i) if space else index(0), Acc(0, "i32"), "i32"),
            ),
        )
        executable = device.load(runs.program(REAL, (kernel,)))
        executable.write("names", np.arange(100, dtype=np.int32) + 5)
        executable.run()
        assert (executable.read("best") == 5).all()
        executable.close()


UNARY = ["neg", "exp", "tanh", "sigmoid", "erf", "abs", "sign", "floor", "stop"]
BINARY = ["add", "sub", "mul", "div", "maximum", "minimum"]


@pytest.mark.parametrize("name", UNARY)
def test_unary_maps(device, name):
    check(device, REAL, (hand.chain(77, name),), tolerance=1e-6)


@pytest.mark.parametrize("name", ["log", "sqrt"])
def test_maps_of_positive_numbers(device, name):
    i = Axis("i", 50)
    size = Op("abs", (Load("x", index(i), "f32"),), "f32")
    kernel = Kernel(name, (i,), (Store("y", index(i), Op(name, (size,), "f32"), "f32"),))
    check(device, REAL, (kernel,), tolerance=1e-6)


@pytest.mark.parametrize("name", BINARY)
def test_binary_maps(device, name):
    check(device, REAL, (hand.binary(77, name),), tolerance=1e-6)
    check(device, REAL, (hand.binary(77, name, -1.5),), tolerance=1e-6)


@pytest.mark.parametrize("name", ["less", "lesseq", "equal"])
def test_comparisons(device, name):
    check(device, REAL, (hand.binary(77, name, 0.25, "bool"),))


@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_relu(device, slope):
    check(device, REAL, (hand.chain(33, "relu", slope=slope),))


@pytest.mark.parametrize("power", [2.0, -1.0, 3.0, 0.5, -0.5, -0.75, 11.0, 0.0])
def test_powers(device, power):
    i = Axis("i", 64)
    x = Load("x", index(i), "f32")
    # A fraction of a negative number is NaN on both sides.
    kernel = hand.binary(64, "pow", power)
    check(device, REAL, (kernel,), tolerance=1e-5)
    value = Op("pow", (Op("abs", (x,), "f32"), Load("z", index(i), "f32")), "f32")
    general = Kernel("general", (i,), (Store("y", index(i), value, "f32"),))
    check(device, REAL, (general,), tolerance=1e-5)


def test_every_scalar_map_has_a_text():
    assert set(SCALARS) <= {*INFIX, *_CALLS, "relu", "cast"}


def test_a_launch_of_several_kernels(device):
    kinds = hand.every_kind()
    maps = (hand.update(1000), hand.dropout(100), kinds["map"])
    (made,) = runs.program(REAL, maps).launches
    assert [k.name for k in made.kernels] == ["update", "dropout", "map"]
    assert made.meta["grid"] == [8 + 1 + 1, 1, 1]
    check(device, REAL, maps, (kinds["inner_product"], kinds["total"]))


def test_who_shares_a_binary():
    target = TARGETS["sm_90"]
    product = render_kernel(hand.inner_product(64, 64, 256), target, "fp32")
    many = render_kernel(hand.update(10_000_000), target, "fp32")
    few = render_kernel(hand.update(1000), target, "fp32")
    assert divide([few, product, few], 132) == [[0, 1, 2]]
    assert divide([few, product, many, many], 132) == [[2, 3], [0, 1]]
    thin = render_kernel(hand.softmax(10_000, 40), target, "fp32")  # a warp has enough to do
    assert divide([thin, many], 132) == [[1], [0]]
    single = render_kernel(hand.softmax(1, 40), target, "fp32")
    assert divide([single, many], 132) == [[0, 1]]


def test_which_products_share_a_binary():
    def product(m: int, k: int = 1024):
        return render_kernel(hand.inner_product(m, 512, k), TARGETS["sm_90"], "tf32")

    large, other, small = product(1 << 16), product(1 << 17), product(64)
    assert large.num_warps == other.num_warps > small.num_warps
    assert divide([large, small, other], 132) == [[0, 1, 2]]
    tiny = replace(small, programs=1000)
    assert divide([large, tiny], 132) == [[0], [1]]
    sums = render_kernel(hand.column_sums(1 << 16, 512), TARGETS["sm_90"], "tf32")
    window = render_kernel(hand.max_pool(64, 64, 64, 64, 3, 2), TARGETS["sm_90"], "tf32")
    assert divide([large, sums, window], 132) == [[0, 1], [2]]


def test_why_a_launch_is_taken_apart():
    large, window = hand.inner_product(1 << 16, 512, 1024), hand.max_pool(64, 64, 64, 64, 3, 2)
    why = "beside each other their many blocks would run slower than alone"
    assert REAL.note((large, window)) == f"2 launches: ip | {window.name}: {why}"
    assert REAL.note((large,)) == REAL.note((large, hand.dropout(100))) == ""


def test_equal_kernels_are_rendered_once(device):
    def scaled(source: str, result: str) -> Kernel:
        i = Axis("i", 10)
        value = Op("mul", (Load(source, index(i), "f32"),) * 2, "f32")
        return Kernel(f"{result}.square", (i,), (Store(result, index(i), value, "f32"),))

    launches = ((scaled("a", "b"),), (scaled("b", "c"),))
    made = runs.program(REAL, *launches)
    assert len(made.text) == 1 and len(made.launches) == 2
    assert [a for launch in made.launches for a, _ in launch.args] == ["a", "b", "b", "c"]
    check(device, REAL, *launches)


def test_kernels_that_read_one_buffer_at_two_places_are_rendered_once(device):
    def picked(start: int, result: str) -> Kernel:
        i = Axis("i", 10)
        value = hand.op("add", *(Load("arena", index(i) + start + at, "f32") for at in (1, 17)))
        return Kernel(f"{result}.sum", (i,), (Store(result, index(i), value, "f32"),))

    apart = ((picked(0, "a"),), (picked(32, "b"),), (picked(33, "c"),))
    made = runs.program(REAL, *apart)
    assert len(made.text) == 2  # 33 is no whole vector from where the first begins
    starts = [dict(launch.args)["arena"] for launch in made.launches]
    assert starts == [0, 4 * 32, 4 * 32]
    check(device, REAL, *apart)
    together = ((picked(0, "a"), picked(32, "b"), picked(33, "c")),)
    assert len(runs.program(REAL, *together).launches[0].args) == 5  # the last two start together
    check(device, REAL, *together)


def test_names_from_a_spec_cannot_break_out(device):
    i = Axis("for", 5)
    name = 'x"""\nimport os\n\\'
    store = Store("print", index(i), Load(name, index(i), "f32"), "f32")
    kernel = Kernel(name, (i,), (store,), (name, '"""'))
    check(device, REAL, (kernel,))
    assert REAL.render(kernel).count('"""') == 4  # the module's docstring and the function's


def test_long_names_do_not_meet(device):
    i = Axis("i", 4)
    name = "a" * 60

    def kernel(factor: int) -> Kernel:
        value = Op("mul", (Load("x", index(i), "f32"), Load("z", index(i) * factor, "f32")), "f32")
        return Kernel(name, (i,), (Store(f"{name}{factor}", index(i), value, "f32"),))

    assert len(runs.program(REAL, (kernel(1),), (kernel(2),)).text) == 2
    check(device, REAL, (kernel(1),), (kernel(2),))


def test_unknown_target():
    with pytest.raises(UsageError, match="no target 'sm_17'"):
        Backend("sm_17")


def test_memory_is_shared_by_name_and_freed(device):
    kernel = hand.update(8)
    first = device.load(runs.program(REAL, (kernel,)))
    second = device.load(first.program, share=first)
    first.write("params", np.arange(8, dtype=np.float32))
    assert (second.read("params") == np.arange(8)).all()
    first.close()
    assert (second.read("params") == np.arange(8)).all()
    second.close()


def test_logged_numbers(device):
    kernel = hand.every_kind()["total"]
    executable = device.load(runs.program(REAL, (kernel,)))
    executable.write("x", np.full(20000, 0.5, np.float32))
    executable.run(log=("loss",))
    executable.run(log=("loss",))
    assert executable.drain() == [{"loss": 0.5}, {"loss": 0.5}]
    assert executable.drain() == []
    executable.close()


@pytest.mark.parametrize("name", ["conv", "conv_data_gradient", "inner_product"])
def test_every_candidate_computes_the_same(device, name):
    """Up to rounding: tiles add up a sum in blocks of their own depth."""
    kernel = hand.every_kind()[name]
    made = Backend("interpreter")
    tilings = made.tunable(kernel).tilings
    model = choose(problem(kernel, roles(kernel), TARGETS["interpreter"], "fp32"))
    assert tilings[0] == model.tiling
    for tiling in tilings[:: max(1, len(tilings) // 4)]:
        check(device, tuned(made, kernel, tiling), (kernel,))


def test_a_search_finds_a_product_wherever_its_weights_lie():
    kernel, made = hand.inner_product(256, 256, 40), Backend("interpreter")
    moved = renamed(kernel, {"w": "w"}, {"w": -32})  # in an arena, behind others
    first, *_, last = made.tunable(moved).tilings
    grids = [
        runs.program(tuned(made, moved, tiling), (one,)).launches[0].meta["grid"]
        for tiling in (first, last)
        for one in (kernel, moved)
    ]
    assert grids[0] == grids[1] != grids[2] == grids[3]


def test_a_table_chooses_the_tile():
    kernel = hand.inner_product(256, 512, 1024)
    model, *others = REAL.tunable(kernel).tilings
    for tiling in others:
        made = tuned(REAL, kernel, tiling)
        depth = f", {tiling['k']}])" if "descriptors" in tiling else f"arange(0, {tiling['k']})"
        assert depth in made.render(kernel)
        assert made.render(kernel) != REAL.render(kernel) or made.version() != REAL.version()
    assert tuned(REAL, kernel, model).render(kernel) == REAL.render(kernel)
    assert tuned(REAL, kernel, {"m": 48}).render(kernel) == REAL.render(kernel)
    assert REAL.tunable(kernel).key != Backend("sm_90", "bf16", binary=False).tunable(kernel).key
    assert REAL.tunable(hand.update(1000)) is None
