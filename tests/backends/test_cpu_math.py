"""The cpu backend's own exp, log, tanh, sigmoid, erf, pow and maps, against NumPy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler.kernels.index import index
from compiler.kernels.kernel import Const, Kernel, Load, Store
from compiler.prims.maps import SCALARS
from schemas.philox import uniform
from tests.backends import hand_kernels as hand
from tests.backends.test_cpu_kernels import TARGETS, backend, program, run

TINY = np.float32(2.0**-126)
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 88.7, -87.3, 89.0, -104.0, 1e-30,
                    3.4e38, -3.4e38], np.float32)  # fmt: skip


def apply(target: str, kernel: Kernel, **contents: np.ndarray) -> np.ndarray:
    made = program(backend(target), kernel if isinstance(kernel, tuple) else (kernel,))
    size = next(iter(contents.values())).size
    return run(made, 1, {**contents, "y": np.zeros(size, np.float32)})["y"]


def ulps(got: np.ndarray, exact: np.ndarray) -> float:
    """Returns the greatest error in units in the last place, denormal results left out."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        normal = np.isfinite(rounded) & (np.abs(rounded) >= TINY)
        spacing = np.spacing(np.abs(rounded[normal])).astype(np.float64)
        error = np.abs(got[normal].astype(np.float64) - exact[normal]) / spacing
    return float(error.max())


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


erf = np.vectorize(math.erf)


def log_spaced(low: float, high: float, count: int = 100_000) -> np.ndarray:
    return np.exp(np.linspace(np.log(low), np.log(high), count)).astype(np.float32)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "name, exact, samples, bound",
    [
        ("exp", np.exp, np.linspace(-87.3, 88.7, 200_001), 2.0),
        ("log", np.log, log_spaced(1.2e-38, 3e38), 2.0),
        ("log", np.log, np.linspace(0.5, 2, 200_001), 2.0),
        ("tanh", np.tanh, np.linspace(-12, 12, 200_001), 3.0),
        ("tanh", np.tanh, log_spaced(1e-30, 1), 3.0),
        ("sigmoid", sigmoid, np.linspace(-87, 40, 200_001), 4.0),
        ("erf", erf, np.linspace(-5, 5, 200_001), 2.0),
        ("erf", erf, log_spaced(1e-30, 1), 2.0),
        ("sqrt", np.sqrt, log_spaced(1e-37, 1e38), 0.51),
    ],
)
def test_error_bound(name, exact, samples, bound, target):
    x = samples.astype(np.float32)
    with np.errstate(all="ignore"):
        wanted = exact(x.astype(np.float64))
    assert ulps(apply(target, hand.chain(x.size, name), x=x), wanted) <= bound


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "name", ["exp", "log", "tanh", "sigmoid", "erf", "sqrt", "floor", "abs", "sign"]
)
def test_special_values(name, target):
    functions = {"sigmoid": sigmoid, "erf": erf}
    with np.errstate(all="ignore"):
        wanted = functions.get(name, getattr(np, name, None))(SPECIAL).astype(np.float32)
    got = apply(target, hand.chain(SPECIAL.size, name), x=SPECIAL)
    wanted = np.where(np.abs(wanted) < TINY, 0, wanted)
    np.testing.assert_allclose(np.where(np.abs(got) < TINY, 0, got), wanted, rtol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_pow(target):
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(-20, 20, 50_000)).astype(np.float32)
    z = rng.uniform(-4, 4, 50_000).astype(np.float32)
    got = apply(target, hand.binary(x.size, "pow"), x=x, z=z)
    assert ulps(got, x.astype(np.float64) ** z.astype(np.float64)) <= 1.0
    special = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, -2.5, 0.5, np.inf, -np.inf, np.nan, 3.0]
    x, z = (g.reshape(-1).astype(np.float32) for g in np.meshgrid(special, special))
    got = apply(target, hand.binary(x.size, "pow"), x=x, z=z)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, np.power(x, z), rtol=1e-6)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, 0.5, -0.5, -0.75, 0.0])
def test_constant_powers(exponent):
    x = np.linspace(0.01, 30, 1000).astype(np.float32)
    got = apply("host", hand.binary(x.size, "pow", exponent), x=x)
    np.testing.assert_allclose(got, x.astype(np.float64) ** exponent, rtol=2e-7)


@pytest.mark.parametrize("quarters", range(-8, 9))
def test_powers_of_roots(quarters):
    x = np.exp(np.random.default_rng(0).uniform(-20, 20, 50_000)).astype(np.float32)
    kernel = hand.binary(x.size, "pow", quarters / 4)
    wanted = x.astype(np.float64) ** (quarters / 4)
    np.testing.assert_allclose(apply("host", kernel, x=x), wanted, rtol=3e-7)
    # Not as costly as logarithms in double precision.
    assert "double>" not in backend("host").render(kernel) or quarters == 0
    special = np.array([0.0, -0.0, 1.0, -1.0, -2.5, np.inf, np.nan] * 5, np.float32)
    got = apply("host", hand.binary(special.size, "pow", quarters / 4), x=special)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, np.power(special, np.float32(quarters / 4)), rtol=3e-7)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [n for n, op in SCALARS.items() if op.arity == 2])
def test_binary_maps(name, target):
    x, z = (g.reshape(-1) for g in np.meshgrid(SPECIAL, SPECIAL))
    truth = name in ("less", "lesseq", "equal", "and")
    kernel = hand.binary(x.size, name, dtype="bool" if truth else "f32")
    if truth:
        store = kernel.stores[0]
        value = hand.op("cast", store.value)
        kernel = Kernel(name, kernel.space, (Store("y", store.offset, value, "f32"),))
    functions = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
                 "maximum": np.maximum, "minimum": np.minimum, "pow": np.power, "less": np.less,
                 "lesseq": np.less_equal, "equal": np.equal, "and": np.logical_and}  # fmt: skip
    with np.errstate(all="ignore"):
        wanted = functions[name](x, z).astype(np.float32)
    got = apply(target, kernel, x=x, z=z)
    wanted = np.where(np.abs(wanted) < TINY, 0, wanted)
    np.testing.assert_allclose(np.where(np.abs(got) < TINY, 0, got), wanted, rtol=1e-6)


def test_casts_stay_in_range():
    (i,) = hand.axes("i", SPECIAL.size)
    whole = hand.op("cast", Load("x", index(i), "f32"), dtype="i32")
    value = hand.op("cast", hand.op("maximum", whole, Const(-5, "i32"), dtype="i32"))
    got = apply("host", Kernel("c", (i,), (Store("y", index(i), value, "f32"),)), x=SPECIAL)
    wanted = [0, 0, 2.0**31, -5, 0, 1, -1, 88, -5, 89, -5, 0, 2.0**31, -5]
    np.testing.assert_allclose(got, wanted)


def test_relu_keeps_nan_and_slopes():
    got = apply("host", hand.chain(SPECIAL.size, "relu", slope=0.0), x=SPECIAL)
    np.testing.assert_array_equal(got, np.where(SPECIAL <= 0, 0, SPECIAL))
    got = apply("host", hand.chain(SPECIAL.size, "relu", slope=0.25), x=SPECIAL)
    wanted = np.where(SPECIAL > 0, SPECIAL, np.float32(0.25) * SPECIAL)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("target", TARGETS)
def test_random_words_are_those_of_philox(target):
    (i,) = hand.axes("i", 1000)
    from compiler.kernels.kernel import Random

    kernel = Kernel("r", (i,), (Store("y", index(i), Random(0xDEADBEEF, index(i)), "f32"),))
    words = np.array([7, 123456789, -2, 0, 0, 0], np.int32).view(np.float32)
    got = apply(target, kernel, y=np.zeros(1000, np.float32), scalars=words)
    seed = 123456789 | (0xFFFFFFFE << 32)
    np.testing.assert_array_equal(got, uniform(seed, 0xDEADBEEF, 7, 1000))
