"""The cpu backend's kernels against the oracle, on every vector width and number of threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.backends.cpu import Backend
from compiler.kernels.index import Axis, index
from compiler.kernels.kernel import Acc, Const, Kernel, Load, Position, Reduce, Store
from compiler.kernels.schedule import Buffer, Place, Schedule
from compiler.llvm.contract_plan import plan
from compiler.llvm.dot import dot_plan
from compiler.llvm.fold import only_step
from compiler.llvm.simplify import collapse
from compiler.llvm.transpose import turn_of
from runtime.cpu import CpuDevice
from schemas.program import ITEMSIZE, Program, Slot, Tensor
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs
from tests.kernel_oracle import run_kernel

TARGETS = ["host", "x86-64-v3", "x86-64-v3/4", "x86-64-v2"]
DEVICES = {n: CpuDevice(n) for n in (1, 2, 3)}
BACKENDS: dict[str, Backend] = {}


def backend(target: str) -> Backend:
    if target not in BACKENDS:
        made = Backend(target, folder=None)
        if made.host.name != Backend().host.name and not made.host.x86:
            pytest.skip("made for another processor")
        BACKENDS[target] = made
    return BACKENDS[target]


def program(made: Backend, *launches: tuple[Kernel, ...]) -> Program:
    """Compiles launches, every buffer in a slot and a tensor of its own."""
    kernels = [k for launch in launches for k in launch]
    lengths = runs.sizes(kernels)
    slots = tuple(Slot(n, size * ITEMSIZE[d], True) for n, (size, d) in lengths.items())
    buffers = {n: Buffer(n, d, size, "state") for n, (size, d) in lengths.items()}
    tensors = {
        n: Tensor(n, "state", d, (size,), n, 0, (size,), (1,)) for n, (size, d) in lengths.items()
    }
    places = {n: Place(n, 0) for n in buffers}
    code = made.compile("hand", Schedule(launches, buffers), places, tuple(buffers))
    return Program(
        "hand", made.target, code.launches, slots, tensors, code=code.code, meta=code.meta
    )


def run(made: Program, threads: int, contents: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    executable = DEVICES[threads].load(made)
    try:
        for name, value in contents.items():
            executable.write(name, value)
        executable.run()
        return {name: executable.read(name) for name in contents}
    finally:
        executable.close()


def check(
    target: str, *launches: tuple[Kernel, ...], threads=(1, 3), tolerance: float = 2e-5
) -> None:
    """Compares all buffers with the oracle's, and the threads' results with each other."""
    made = program(backend(target), *launches)
    contents = runs.contents(launches)
    results = [run(made, n, contents) for n in threads]
    for launch in launches:
        for kernel in launch:
            run_kernel(kernel, contents)
    for name, value in contents.items():
        # Long sums round by their largest parts, not by what is left of them.
        scale = tolerance * max(1.0, float(np.abs(value.astype(np.float64)).max()))
        np.testing.assert_allclose(
            results[0][name], value, rtol=tolerance, atol=scale, err_msg=f"{target} {name}"
        )
        for other in results[1:]:
            np.testing.assert_array_equal(other[name], results[0][name], err_msg=name)


def data_gradient(n, h, w, ci, co, kernel, stride=1, pad=0) -> Kernel:
    """A convolution's data gradient that reads the weights transposed, as this backend asks."""
    made = hand.conv_data_gradient(n, h, w, ci, co, kernel, stride, pad)
    reduce = made.reduces[0]
    gradient, weight = reduce.value.args
    ky, kx, o = reduce.axes
    transposed = hand.at(ky, kx, o, made.space[-1], shape=(kernel, kernel, co, ci))
    value = replace(reduce.value, args=(gradient, replace(weight, offset=transposed)))
    return replace(made, body=(replace(reduce, value=value), *made.body[1:]))


def weight_gradient_of_product(m, n, k) -> Kernel:
    i, a, j = hand.axes("i k j", m, k, n)
    x = Load("x", hand.at(i, a, shape=(m, k)), "f32")
    g = Load("g", hand.at(i, j, shape=(m, n)), "f32")
    store = Store("dw", hand.at(a, j, shape=(k, n)), Acc(0, "f32"), "f32")
    return Kernel("dw", (a, j), (Reduce(0, "sum", (i,), hand.op("mul", x, g), "f32"), store))


def more_kernels() -> dict[str, Kernel]:
    return {
        "conv_even_guarded": hand.conv_forward(2, 9, 17, 5, 33, 5, 1, 2),
        "conv_first_layer": hand.conv_forward(3, 13, 13, 1, 20, 5),
        "conv_small_maps": hand.conv_forward(2, 3, 3, 7, 6, 3, 1, 1),
        "conv_stride_over_kernel": hand.conv_forward(2, 11, 11, 3, 9, 2, 3, 1),
        "conv_wide": hand.conv_forward(1, 4, 4, 3, 150, 1),
        "conv_batch_of_one": hand.conv_forward(1, 1, 1, 40, 18, 1),
        "data_gradient": data_gradient(2, 9, 8, 17, 5, 3, 1, 1),
        "data_gradient_strided": data_gradient(7, 9, 8, 5, 6, 3, 2, 1),
        "data_gradient_strided_one": data_gradient(1, 12, 12, 4, 3, 5, 3, 2),
        "weight_gradient_padded": hand.conv_weight_gradient(3, 8, 8, 11, 20, 5, 1, 2),
        "weight_gradient_strided": hand.conv_weight_gradient(3, 11, 11, 3, 20, 3, 2, 1),
        "weight_gradient_long": hand.conv_weight_gradient(40, 14, 14, 2, 5, 3, 1, 1),
        "weight_gradient_of_large_maps": hand.conv_weight_gradient(3, 49, 50, 3, 20, 3, 1, 1),
        "weight_gradient_copied": hand.conv_weight_gradient(2, 40, 40, 16, 50, 2, 1, 1),
        "weight_gradient_strided_maps": hand.conv_weight_gradient(3, 71, 71, 3, 17, 3, 2, 1),
        "product_gradient": weight_gradient_of_product(13, 30, 23),
        "product_gradient_across": weight_gradient_of_product(300, 65, 131),
        "product_long": hand.inner_product(5, 20, 5000),
        "product_wide": hand.inner_product(3, 700, 40),
        **packed_in_chunks(),
    }


def packed_in_chunks() -> dict[str, Kernel]:
    """Sums that are cut, with panels that lie badly: rows far apart, odd lengths."""
    return {
        "product_gradient_longer": weight_gradient_of_product(5003, 150, 61),
        "product_gradient_long": weight_gradient_of_product(4111, 105, 79),
    }


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [*hand.every_kind(), *more_kernels()])
def test_kernel(name, target):
    check(target, ({**hand.every_kind(), **more_kernels()}[name],))


@pytest.mark.parametrize("target", TARGETS)
def test_a_gradient_that_llvm_did_not_get_through(target):
    """New GVN aborted the process on it: stride 3 and a kernel of 4 x 4, few columns."""
    check(target, (data_gradient(1, 8, 8, 8, 5, 4, 3, 2),))


def test_contractions_are_tiled():
    for name, kernel in {**hand.every_kind(), **more_kernels()}.items():
        simple, host = collapse(kernel), backend("host").host
        tiled = kernel.kind == "contract" and (plan(simple, host) or dot_plan(simple, host))
        generic = name in ("conv_data_gradient", "conv_depthwise")
        assert bool(tiled) == (kernel.kind == "contract" and not generic), name


def test_long_sums_are_packed_in_chunks():
    for kernel in packed_in_chunks().values():
        tiled = plan(collapse(kernel), backend("x86-64-v3").host)
        assert tiled and tiled.packed and 0 < tiled.chunk < tiled.sums[0].size
        assert tiled.panels > 1 and tiled.row_tiles > 8, kernel.name


def test_rows_are_those_that_guards_treat_alike():
    """A pointer a row is dear where few steps share it: along an axis that a window slides on."""
    host = backend("x86-64-v4").host
    image = plan(collapse(hand.conv_forward(4, 32, 32, 3, 32, 5, 1, 2)), host)
    assert image and [a.name for a in image.rows] == ["oh"] and image.mr == 8
    small = plan(collapse(hand.conv_forward(100, 8, 8, 32, 64, 5, 1, 2)), host)
    assert small and [a.name for a in small.rows] == ["n"]
    plain = plan(collapse(hand.conv_forward(4, 32, 32, 3, 32, 5)), host)
    assert plain and [a.name for a in plain.rows] == ["ow"]


def test_rows_that_lie_across_are_asked_for_ahead():
    def asks(kernel):
        return "llvm.prefetch" in backend("x86-64-v3").render(kernel)

    assert asks(weight_gradient_of_product(300, 65, 131))
    assert not asks(weight_gradient_of_product(300, 65, 23))  # one step is next to the other
    assert not asks(hand.inner_product(20, 40, 300))  # the sum runs along the rows


def picked(rows, width, count, scatter) -> Kernel:
    """Gather or scatter of rows by numbers, as the compiler writes it."""
    n, v, j = hand.axes("n v j", count, rows, width)
    here = hand.op("equal", Load("which", index(n), "i32"), Position(index(v)))
    source = ("g", n, count) if scatter else ("w", v, rows)
    row = Load(source[0], hand.at(source[1], j, shape=(source[2], width)), "f32")
    value = hand.op("select", replace(here, dtype="bool"), row, Const(0.0))
    to, over, size = (v, n, rows) if scatter else (n, v, count)
    store = Store("y", hand.at(to, j, shape=(size, width)), Acc(0, "f32"), "f32")
    return Kernel("picked", (to, j), (Reduce(0, "sum", (over,), value, "f32"), store))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scatter", [False, True], ids=["gather", "scatter"])
@pytest.mark.parametrize(
    "rows, width, count", [(5, 33, 40), (1, 16, 3), (300, 100, 1500), (9, 1, 7)]
)
def test_rows_picked_by_number(rows, width, count, scatter, target):
    kernel = picked(rows, width, count, scatter)
    found = only_step(kernel.reduces[0], kernel.reduces[0].axes[0])
    assert (found is None) == scatter  # a gather goes to its row at once, whatever their number
    contents = runs.contents([(kernel,)])
    numbers = np.random.default_rng(3).integers(-2, rows + 2, count)  # some are of no row
    contents["which"][:] = numbers
    made = program(backend(target), (kernel,))
    results = [run(made, n, contents)["y"] for n in (1, 3)]
    run_kernel(kernel, contents)
    np.testing.assert_allclose(results[0], contents["y"], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(results[1], results[0])


def test_sums_over_large_maps_are_cut_within_an_image():
    for name in ("weight_gradient_of_large_maps", "weight_gradient_copied"):
        made = plan(collapse(more_kernels()[name]), backend("x86-64-v4").host)
        assert made.lead == 1 and 1 < made.chunk < made.sums[1].size, name
        assert made.packed == (name == "weight_gradient_copied")


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["host", "x86-64-v3", "x86-64-v3/4"]),
    st.sampled_from([hand.conv_forward, data_gradient, hand.conv_weight_gradient]),
    st.tuples(*[st.sampled_from([1, 2, 3, 5, 8, 13, 17]) for _ in range(3)]),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 2),
    st.tuples(st.integers(1, 3), st.integers(5, 13)),
)
def test_convolutions_of_any_shape(target, make, shape, kernel, stride, pad, rest):
    w, ci, co = shape
    n, h = rest
    pad = min(pad, kernel - 1)
    if w + 2 * pad < kernel:
        w = kernel
    check(target, (make(n, h, w, ci, co, kernel, stride, pad),), threads=(2,), tolerance=1e-4)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(TARGETS),
    st.sampled_from([hand.max_pool, hand.average_pool, hand.unpool]),
    st.integers(1, 3),
    st.integers(4, 9),
    st.sampled_from([1, 3, 16, 20, 33]),
    st.tuples(st.integers(2, 4), st.integers(1, 3), st.integers(0, 1)),
)
def test_pooling_of_any_shape(target, make, n, size, channels, window):
    check(target, (make(n, size, size + 1, channels, *window),), threads=(2,))


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(TARGETS),
    st.sampled_from([1, 2, 7, 16, 17, 100]),
    st.sampled_from([1, 2, 5, 16, 31, 300]),
    st.sampled_from([1, 3, 16, 49]),
    st.booleans(),
)
def test_products_of_any_shape(target, m, n, k, transposed):
    check(target, (hand.inner_product(m, n, k, transposed),), threads=(2,), tolerance=1e-4)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(TARGETS),
    st.sampled_from([4, 15, 16, 33, 150]),
    st.sampled_from([1, 16, 20, 131]),
    st.integers(1, 3),
)
def test_turned_copies_of_any_shape(target, rows, columns, count):
    kernel = hand.turn(count, rows, columns)
    assert turn_of(collapse(kernel), backend("x86-64-v2").host) or columns == 1
    check(target, (kernel,), threads=(2,))


def normalized(groups, rows, c) -> Kernel:
    """(x - mean) * (sum of squared distances), over the rows of each group and channel."""
    g, r, n, m, k = hand.axes("g r n m k", groups, rows, rows, rows, c)
    shape = (groups, rows, c)
    x = {a: Load("x", hand.at(g, a, k, shape=shape), "f32") for a in (r, n, m)}
    mean = hand.op("div", Acc(0, "f32"), Const(float(rows)))
    away = {a: hand.op("sub", x[a], mean) for a in x}
    y = hand.op("mul", away[m], Acc(1, "f32"))
    return Kernel(
        "normalized", (g, k), (
            Reduce(0, "sum", (r,), x[r], "f32"),
            Reduce(1, "sum", (n,), hand.op("mul", away[n], away[n]), "f32"),
            Store("y", hand.at(g, m, k, shape=shape), y, "f32", (m,)),
            Store("squares", hand.at(g, k, shape=(groups, c)), Acc(1, "f32"), "f32"),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("channels", [1, 32, 67, 96, 160])
def test_columns_side_by_side(target, channels):
    check(target, (normalized(7, 12, channels),))


def test_long_sums_read_several_vectors_of_a_row():
    lanes = backend("host").host.lanes
    few, more = (
        backend("host").render(normalized(16, 12, lanes * vectors)).count(f"<{lanes} x float>, ptr")
        for vectors in (1, 4)
    )
    assert more > few


def test_launches_follow_each_other():
    first, second = hand.chain(1000, "exp"), hand.chain(1000, "neg")
    load = Load("y", second.space[0] and index(second.space[0]), "f32")
    store = Store("z", index(second.space[0]), hand.op("neg", load), "f32")
    third = hand.update(777)
    second = replace(second, body=(store,))
    check("host", (first, third), (second,), (replace(first, name="again"),), threads=(1, 2, 3))


def test_long_sums_keep_their_accuracy():
    size = 1_000_000
    (i,) = hand.axes("i", size)
    total = Kernel(
        "total", (), (
            Reduce(0, "sum", (i,), Load("x", index(i), "f32"), "f32"),
            Store("s", index(0), Acc(0, "f32"), "f32"),
        ),
    )  # fmt: skip
    for target in TARGETS:
        values = np.random.default_rng(1).random(size, np.float32)
        made = program(backend(target), (total,))
        contents = {"x": values, "s": np.zeros(1, np.float32)}
        got = run(made, 1, contents)["s"][0]
        assert abs(got / values.astype(np.float64).sum() - 1) < 1e-6


def test_maximum_of_infinities_and_nan():
    n, c = hand.axes("n c", 3, 37)
    x = Load("x", hand.at(n, c, shape=(3, 37)), "f32")
    kernel = Kernel(
        "m", (n,), (
            Reduce(0, "max", (c,), x, "f32"),
            Store("y", index(n), hand.op("maximum", Acc(0, "f32"), Const(-1e30)), "f32"),
        ),
    )  # fmt: skip
    contents = {"x": np.full(111, -np.inf, np.float32), "y": np.zeros(3, np.float32)}
    contents["x"][40] = np.nan
    contents["x"][90] = np.inf
    made = program(backend("host"), (kernel,))
    np.testing.assert_array_equal(run(made, 1, contents)["y"], [np.float32(-1e30), np.nan, np.inf])


def negations(count: int, weights: bool = False) -> list[Kernel]:
    """Kernels that negate 100 numbers each: of `b0`, `b1` ... or of parts of one buffer `w`."""
    i = Axis("i", 100)
    loads = [
        Load("w", index(i) + 1600 * n, "f32") if weights else Load(f"b{n}", index(i), "f32")
        for n in range(count)
    ]
    stores = [
        Store(f"b{n + 1}", index(i), hand.op("neg", load), "f32") for n, load in enumerate(loads)
    ]
    return [Kernel(f"k{n}", (i,), (store,)) for n, store in enumerate(stores)]


@pytest.mark.parametrize("weights", [False, True], ids=["buffers", "places"])
def test_equal_kernels_are_one_function(weights):
    kernels = negations(5, weights)
    made = program(backend("host"), *((k,) for k in kernels))
    assert sorted(made.code)[1:] == ["step"] and len(made.code) == 2
    check("host", *((k,) for k in kernels))


def test_parts_of_a_buffer_keep_their_distance():
    i = Axis("i", 100)
    near, far = (
        Kernel(
            f"apart{by}",
            (i,),
            (
                Store(
                    f"y{by}",
                    index(i),
                    hand.op(
                        "sub", Load("w", index(i) + 640, "f32"), Load("w", index(i) + by, "f32")
                    ),
                    "f32",
                ),
            ),
        )
        for by in (0, 320)
    )
    assert len(program(backend("host"), (near,), (far,)).code) == 3
    check("host", (near,), (far,))
