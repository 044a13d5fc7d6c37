"""Inception blocks as Triton kernels: joined convolutions, and stores of a part of a result."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from compiler.backends.triton import Backend
from compiler.kernels.index import index
from compiler.kernels.kernel import Guard, Kernel
from compiler.pipeline import plan_unit
from compiler.unit import Unit
from netdef.engine import Engine, open_engine
from runtime.triton_interpreter import InterpreterDevice
from tests.backends import hand_kernels as hand
from tests.backends.hand_programs import check
from tests.compiler.test_siblings import JOINED, inception, training
from tests.test_backends_agree import assert_near

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)

REAL = Backend("sm_90", "fp32", binary=False)  # the tiles that a GPU gets, as source only
SMALL = Backend("interpreter")
BLOCKS = {
    "of one": (SMALL, inception((1, 11, 5, 9), (1, 1, 1))),
    "primes": (SMALL, inception((3, 37, 7, 5), (5, 13, 7))),
    "wide": (REAL, inception((1, 24, 6, 5), (16, 8, 3), slope=0.25)),
    "strided": (SMALL, inception((2, 23, 8, 9), (3, 8, 2), "kernel_size: 2, stride: 3, pad: 1")),
}


def planned(backend: Backend, text: str) -> Unit:
    step, arena = training(text)
    unit = Unit(step.graph, arena, backend, step.names, step.tables)
    plan_unit(unit)
    return unit


def trained(engine: Engine, text: str) -> dict[str, np.ndarray]:
    """Trains for three steps; returns losses and weights."""
    step, arena = training(text)
    exe = engine.load(step, arena)
    rng = np.random.default_rng(5)
    for key, info in step.graph.params.items():
        exe.write(key, rng.normal(0, 0.3, info.shape))
    found = {}
    shape = step.graph.inputs["data"].shape
    for i in range(3):
        exe.write("data", rng.normal(size=shape))
        exe.write("label", rng.integers(0, 5, shape[0]))
        exe.write("lr", 0.02)
        exe.run()
        found[f"loss {i}"] = exe.read("loss")
    found |= {key: exe.read(key) for key in step.graph.params}
    engine.close()
    return found


@pytest.mark.parametrize("name", BLOCKS)
def test_inception_blocks_train_as_the_reference(name):
    backend, text = BLOCKS[name]
    assert planned(backend, text).siblings == [JOINED]
    got = trained(Engine(backend, InterpreterDevice()), text)
    assert_near(got, trained(open_engine("reference"), text))


def test_products_read_weights_side_by_side_as_bf16_and_biases_exactly():
    unit = planned(Backend("sm_90", "bf16", binary=False), inception())
    types = {name: buffer.dtype for name, buffer in unit.schedule.buffers.items()}
    assert types["one+reduce3+reduce5/weight"] == "bf16"
    assert types["one+reduce3+reduce5/bias"] == "f32"


def split(kernel: Kernel, at: int, names: tuple[str, str]) -> Kernel:
    """Returns a kernel that stores the columns before `at` and the others in different blobs."""
    (store,) = kernel.stores
    column = next(a for a in kernel.space if store.offset.coefficient(a) == 1)
    size = column.size
    parts = []
    for name, low, high in ((names[0], 0, at), (names[1], at, size)):
        rows = [(a, step // size * (high - low)) for a, step in store.offset.terms if a != column]
        offset = sum((index(a) * step for a, step in rows), index(column) - low)
        guard = Guard(index(column), low, high)
        parts.append(replace(store, buffer=name, offset=offset, guards=(guard,)))
    return replace(kernel, body=(*kernel.reduces, *parts))


@pytest.mark.parametrize("backend", [REAL, SMALL], ids=["gpu", "interpreter"])
@pytest.mark.parametrize(("columns", "at"), [(7, 2), (70, 64), (24, 8), (2, 1)])
def test_a_product_stores_its_parts_apart(device, backend, columns, at):
    kernel = split(hand.conv_forward(3, 6, 5, 4, columns, 3, 1, 1), at, ("left", "right"))
    check(device, backend, (kernel,))


def test_the_last_of_a_product_in_parts_stores_its_parts_apart(device):
    kernel = split(hand.conv_weight_gradient(4, 6, 5, 3, 10, 1), 6, ("left", "right"))
    check(device, REAL, (hand.in_parts(kernel, 4),))
