"""Sums of a product's tiles, joined in the same launch: groups of tiles first, then the groups."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.backends.triton import Backend
from compiler.kernels.index import index
from compiler.kernels.kernel import Acc, Kernel, Load, Reduce, Store
from compiler.triton_source import checks
from compiler.triton_source.checks import amd_resources
from schemas.precision import PRECISIONS
from tests.backends import hand_kernels as hand
from tests.backends import hand_programs as runs
from tests.backends.hand_kernels import axes, op

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
few = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def joined(rows, tiles, groups, columns, depth) -> Kernel:
    """A product whose columns' means and largest distances are taken a tile, a group and in all."""
    t, r, o, k = axes("tile row o k", tiles, rows, columns, depth)
    row = index(t) * rows + index(r)
    x = Load("x", row * depth + index(k), "f32")
    w = Load("w", index(k) * columns + index(o), "f32")
    total = op("div", Acc(1, "f32"), Load("size", index(0), "f32"))
    made = Kernel(
        "product",
        (t, r, o),
        (
            Reduce(0, "sum", (k,), op("mul", x, w), "f32"),
            Reduce(1, "sum", (r,), Acc(0, "f32"), "f32"),
            Store("y", row * columns + index(o), Acc(0, "f32"), "f32"),
            Store("sums", index(t) * columns + index(o), total, "f32"),
        ),
    )
    if groups == 1:
        return replace(made, joins=(joins("sums", "all", 1, tiles, columns),))
    first = joins("sums", "groups", groups, tiles // groups, columns)
    return replace(made, joins=(first, joins("groups", "all", 1, groups, columns)))


def joins(source, result, groups, count, columns) -> Kernel:
    """Sums of a group, of distances from its first member and of their squares; a state moves."""
    g, c, i, j = axes("group column i j", groups, columns, count, count)
    space = (g, c) if groups > 1 else (c,)
    column = index(g) * columns + index(c) if groups > 1 else index(c)
    start = index(g) * (count * columns) + index(c) if groups > 1 else index(c)
    first = Load(source, start, "f32")
    away = op("sub", Load(source, start + index(j) * columns, "f32"), first)
    state = Load(f"{result}.state", column, "f32")
    return Kernel(
        result,
        space,
        (
            Reduce(0, "sum", (i,), Load(source, start + index(i) * columns, "f32"), "f32"),
            Reduce(1, "sum", (j,), op("mul", away, away), "f32"),
            Store(result, column, op("add", Acc(0, "f32"), first), "f32"),
            Store(f"{result}.squares", column, Acc(1, "f32"), "f32"),
            Store(f"{result}.state", column, op("add", state, Acc(0, "f32")), "f32"),
        ),
    )


@few
@given(
    rows=st.sampled_from([64, 128]),
    groups=st.sampled_from([1, 2, 3, 7]),
    members=st.sampled_from([2, 3, 5]),
    columns=st.sampled_from([2, 5, 64, 130]),
    depth=st.sampled_from([4, 7, 40]),
    precision=st.sampled_from(["tf32", "fp32"]),
)
def test_joins(device, rows, groups, members, columns, depth, precision):
    kernel = joined(rows, groups * members, groups, columns, depth)
    # Launches count who has come in the same words: they are 0 again after each.
    launches = ((kernel, hand.in_parts(hand.column_sums(1200, 5), 3)), (kernel,))
    runs.check(device, Backend("sm_90", precision, binary=False), *launches, tolerance=3e-3)


def test_more_tiles_than_a_thread_reads_at_once(device):
    kernel = joined(64, 150, 1, 70, 4)
    assert "for start in range" in Backend("sm_90", binary=False).render(kernel)
    runs.check(device, Backend("sm_90", "fp32", binary=False), (kernel,), tolerance=1e-3)


def test_nothing_of_other_programs_is_read_before_they_are_done():
    text = Backend("sm_90", binary=False).render(joined(128, 12, 3, 128, 64))
    for source in ("sums", "groups"):
        before, _, behind = (
            text.rpartition("if last(") if source == "groups" else text.partition("if last(")
        )
        assert f"tl.load({source}_ptr" not in before and f"tl.load({source}_ptr" in behind


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
def test_joins_do_not_spill(target, precision):
    program = runs.program(Backend(target, precision), (joined(128, 6272, 64, 256, 1024),))
    (launch,) = program.launches
    assert checks.resources(program.code[launch.code])[1] == 0
    arrivals = next(s for s in program.slots if s.name == "<arrivals>")
    assert arrivals.nbytes >= 4 * (64 + 1) * 2  # a word a group and one for all, two blocks wide


def test_joins_for_amd():
    program = runs.program(Backend("gfx942"), (joined(128, 6272, 64, 256, 1024),))
    (launch,) = program.launches
    assert amd_resources(program.text[f"{launch.code}.amdgcn"])[1] == 0


@pytest.mark.parametrize("rows", [64, 128])
def test_joins_that_always_spill_are_taken_as_they_are(rows, monkeypatch):
    """Their tiles have a fixed height: there is a narrowest."""
    monkeypatch.setattr("compiler.triton_source.attempts.resources", lambda cubin: (255, 16))
    (launch,) = runs.program(Backend("sm_90", "tf32"), (joined(rows, 12, 3, 128, 64),)).launches
    assert launch.code
