"""Vision and loss layers beyond the case table: Caffe's own gradients, masks, messages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compiler.frontend.build import build
from compiler.ir import ops
from compiler.ir.evaluate import evaluate
from compiler.ir.graph import Graph
from compiler.ir.node import toposort
from compiler.passes.autodiff import gradients
from compiler.prims.registry import Env
from netdef import load
from netdef.formats import read_net
from runtime.tables import read_table
from schemas.errors import NetError, NetErrors, SourceError
from schemas.params import StateInfo
from tests.case_build import Array, Backend, Reference, build_case
from tests.cases import CASES, Bottom, Case
from tests.compiler.test_layers import BACKENDS
from tests.references_losses import contrastive_gradient, infogain_gradient
from tests.references_vision import upsample


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.param
    return found


def case_called(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def net(body: str, phase: str = "TRAIN") -> Graph:
    return build(read_net(text="layers:\n" + body), phase)


def message(body: str) -> str:
    with pytest.raises((NetError, NetErrors)) as caught:
        net(body)
    return str(caught.value)


def test_contrastive_gradient_is_caffes(backend: Backend) -> None:
    built = build_case(replace(case_called("contrastive_loss_plain"), gradient=True))
    a, b, same, seed = (built.values["input", name] for name in ("x0", "x1", "x2", "seed"))
    found = backend.run(built.graph, built.values)
    want = contrastive_gradient(a, b, same, 3.0) * seed
    np.testing.assert_allclose(found["d x0"], want, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(found["d x1"], -want, rtol=2e-4, atol=1e-6)


def test_contrastive_gradient_of_equal_vectors_is_zero(backend: Backend) -> None:
    one = case_called("contrastive_loss_plain")
    same = Bottom((6, 3), always=1.0)
    bottoms = (same, same, Bottom((6,), always=0.0, fixed=True))
    built = build_case(replace(one, bottoms=bottoms, gradient=True))
    found = backend.run(built.graph, built.values)
    assert found["top0"] == pytest.approx(9.0 / 2)
    assert not np.any(found["d x0"]) and not np.any(found["d x1"])


def test_infogain_gradient_is_caffes() -> None:
    built = build_case(case_called("infogain_loss_plain"))
    x, label, h, seed = (built.values["input", name] for name in ("x0", "x1", "x2", "seed"))
    found = Reference().run(built.graph, built.values)
    want = infogain_gradient(x, label, h) * seed
    np.testing.assert_allclose(found["d x0"], want, rtol=1e-10, atol=1e-12)


def test_sigmoid_loss_at_zero_has_the_slope_of_the_sigmoid() -> None:
    one = case_called("sigmoid_loss_plain")
    zeros = Bottom((4, 3, 2), always=0.0)
    built = build_case(replace(one, bottoms=(zeros, one.bottoms[1])))
    t, seed = built.values["input", "x1"], built.values["input", "seed"]
    found = Reference().run(built.graph, built.values)
    np.testing.assert_allclose(found["d x0"], (0.5 - t) / 4 * seed, atol=1e-12)


def test_multinomial_gradient_of_probability_zero_is_huge_but_finite() -> None:
    built = build_case(replace(case_called("multinomial_loss_zeros"), gradient=True))
    label, seed = built.values["input", "x1"].astype(int).ravel(), built.values["input", "seed"]
    found = Reference().run(built.graph, built.values)["d x0"].reshape(5, 4)
    np.testing.assert_allclose(found[np.arange(5), label], -1e20 / 5 * seed, rtol=1e-9)


def test_gradient_of_a_region_goes_to_its_first_maximum() -> None:
    one = case_called("roi_one_bin")
    flat, rows = Bottom((1, 1, 4, 4), always=2.0), Bottom((1, 5), fixed=True, draw=_region)
    layer = {"type": "ROIPooling", "pooled_h": 1, "pooled_w": 1}
    built = build_case(replace(one, layer=layer, bottoms=(flat, rows)))
    d = Reference().run(built.graph, built.values)["d x0"]
    assert np.argwhere(d).tolist() == [[0, 0, 1, 2]]


def _region(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.reshape([0.0, 2.0, 1.0, 3.0, 3.0], shape)


SEGNET = """
- {{name: x, type: Input, shape: [2, 3, 7, 8], top: x}}
- {{name: p, type: Pooling, bottom: x, top: [p, mask], kernel_size: 2, stride: 2}}
- {{name: t, type: TanH, bottom: p, top: t}}
- {{name: u, type: Upsample, bottom: [t, mask], top: u{size}}}
"""


@pytest.mark.parametrize("size", [", upsample_h: 7, upsample_w: 8", ", pad_out_h: true"])
def test_upsample_goes_back_through_the_windows_of_its_pooling(size: str) -> None:
    graph = net(SEGNET.format(size=size))
    prims = {node.prim for node in toposort([graph.blobs["u"]])}
    assert "unpool_max" in prims and "sum" not in prims
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 8))
    names = ("u", "t", "mask")
    u, t, mask = evaluate([graph.blobs[n] for n in names], Env({("input", "x"): x}))
    np.testing.assert_array_equal(u, upsample(t, mask, 7, 8))


def test_upsample_and_its_gradient_agree_on_all_backends(backend: Backend) -> None:
    graph = net(SEGNET.format(size=", upsample_h: 7, upsample_w: 8"))
    x, u = graph.inputs["x"], graph.blobs["u"]
    (d,) = gradients(ops.sum_all(ops.mul(u, u)), [x])
    graph.outputs = {"u": u, "d": d}
    values = {("input", "x"): np.random.default_rng(0).normal(size=x.shape)}
    want, got = Reference().run(graph, values), backend.run(graph, values)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=2e-4, atol=1e-5)


def test_upsample_warns_where_its_size_is_not_that_of_the_pooled_image() -> None:
    graph = net(SEGNET.format(size=""))
    warning = str(graph.warnings[-1])
    assert "makes planes of 8 x 8, but its mask is of 7 x 8" in warning
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 8))
    names = ("u", "t", "mask")
    u, t, mask = evaluate([graph.blobs[n] for n in names], Env({("input", "x"): x}))
    np.testing.assert_array_equal(u, upsample(t, mask, 8, 8))


def test_fillers_of_a_deconvolution_see_its_weight() -> None:
    graph = net(
        "- {name: x, type: Input, shape: [1, 4, 3, 3], top: x}\n"
        "- {name: u, type: Deconvolution, bottom: x, num_output: 6, kernel_size: 4, group: 2}"
    )
    assert graph.params["u/weight"].shape == (4, 3, 4, 4)
    assert graph.params["u/bias"].shape == (6,)
    (info,) = (one for one in graph.layers if one.name == "u")
    assert info.macs == 4 * 9 * 3 * 16


IMAGE = "- {name: x, type: Input, shape: [2, 4, 5, 5], top: x}\n"
FLAT = "- {name: y, type: Input, shape: [[2, 3], [2]], top: [y, label]}\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("type: Deconvolution, num_output: 2, kernel_size: 1, pad: 3", "pad 3 leaves nothing of 5"),
        ("type: Deconvolution, num_output: 3, group: 2, kernel_size: 1", "does not divide num_out"),
        ("type: DepthwiseConvolution, num_output: 3, kernel_size: 1", "no multiple of the channel"),
        ("type: Convolution3D, num_output: 3, kernel_size: 1", "(N, C, length, height, width)"),
        ("type: Pooling, pool: STOCHASTIC, kernel_size: 2, pad: 1", "has no padding"),
        ("type: SPP, pyramid_height: 4", "4 bins a side are too many"),
        ("type: Interp", "does not say how large its top is"),
        ("type: Interp, pad_beg: 1, zoom_factor: 2", "'pad_beg' must be less than 1"),
        ("type: Interp, pad_beg: -5, zoom_factor: 2", "its pads leave nothing"),
        ("type: Upsample, upsample_h: 7, upsample_w: 9", "needs a mask"),
    ],
)
def test_mistakes_are_named(body: str, said: str) -> None:
    assert said in message(f"{IMAGE}- {{name: one, bottom: x, {body}}}")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("type: Upsample, bottom: [x, y]", "needs a mask of its bottom's shape"),
        ("type: ROIPooling, bottom: [x, y], pooled_h: 1, pooled_w: 1", "bottom (regions, 5)"),
        ("type: PriorBox, bottom: [x, x], min_size: 9, max_size: 8", "must be more than its min"),
        ("type: PriorBox, bottom: [x, x], min_size: 9, variance: [1, 2]", "give one or four"),
        ("type: InfogainLoss, bottom: [y, label]", "has no infogain matrix"),
        ("type: InfogainLoss, bottom: [y, label, x]", "needs a third bottom of (3, 3)"),
        ("type: SigmoidCrossEntropyLoss, bottom: [y, label]", "as many targets as scores"),
        ("type: ContrastiveLoss, bottom: [x, y, label]", "must have the same shape"),
        ("type: ContrastiveLoss, bottom: [y, y, x]", "needs 2 numbers"),
        ("type: SmoothL1Loss, bottom: [y, y, label]", "must have the same shape"),
        ("type: HingeLoss, bottom: [y, x]", "needs 2 labels"),
    ],
)
def test_mistakes_about_bottoms_are_named(body: str, said: str) -> None:
    assert said in message(f"{IMAGE}{FLAT}- {{name: one, {body}}}")


INFOGAIN = "- {{name: loss, type: InfogainLoss, bottom: [y, label], source: {source}}}\n"


def test_infogain_matrix_comes_from_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    h, y, label = rng.normal(size=(3, 3)), rng.normal(size=(2, 3)), np.array([2, 0])
    np.save(tmp_path / "h.npy", h)
    text = "layers:\n" + FLAT + INFOGAIN.format(source=tmp_path / "h.npy")
    found = load(text=text, backend="cpu").forward(y=y, label=label)
    p = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    want = -np.sum(h[label] * np.log(p)) / 2
    assert found["loss"] == pytest.approx(want, rel=1e-4)


def test_infogain_matrix_that_is_not_there_stops_running_only(tmp_path: Path) -> None:
    graph = net(FLAT + INFOGAIN.format(source="none.binaryproto"))
    (state,) = graph.states.values()
    assert state.shape == (3, 3)
    with pytest.raises(SourceError, match="there is no file 'none.binaryproto'"):
        read_table(state)
    np.savez(tmp_path / "h.npz", h=np.ones(4))
    with pytest.raises(SourceError, match="has 4 numbers, not"):
        read_table(StateInfo("loss/infogain", (3, 3), source=str(tmp_path / "h.npz")))
    np.savez(tmp_path / "h.npz", a=np.ones(9), b=np.ones(9))
    with pytest.raises(SourceError, match="holds 2 arrays, not one"):
        read_table(StateInfo("loss/infogain", (3, 3), source=str(tmp_path / "h.npz")))


def test_gradient_of_a_loss_of_many_regions_is_the_sum() -> None:
    built = build_case(case_called("roi_plain"))
    (d,) = gradients(built.graph.loss, [built.graph.inputs["x0"]])
    built.graph.outputs = {"d": d}
    d_x = Reference().run(built.graph, built.values)["d"]
    seed = built.values["input", "seed"]
    top = Reference().run(build_case(case_called("roi_plain")).graph, built.values)["top0"]
    assert np.sum(d_x) == pytest.approx(np.sum(seed[top != 0]))
