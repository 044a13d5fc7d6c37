"""Deployed nets: fewer layers, equal outputs, and what must not be folded."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.frontend.build import build
from netdef.deploying import deployed_net
from netdef.formats import read_net
from netdef.net import Net
from runtime.weights import write_weight_file
from schemas.errors import NetError
from tests.fold_cases import CHAINS, CONTRACTIONS, DATA, STATISTICS, chain_net, weights_for

HEAD = f"name: net\nlayers:\n{DATA}\n"
CONV = "type: Convolution, num_output: 4, kernel_size: 1"
# What stands behind `conv`, and the layers that have to be left after `data` and `conv`.
KEPT = {
    "a blob that others read": (
        ["bn, type: BatchNorm, bottom: conv", "both, type: Eltwise, bottom: [conv, bn]"],
        ["bn", "both"],
    ),
    "a normalised blob that others read": (
        [
            "bn, type: BatchNorm, bottom: conv",
            "scale, type: Scale, bottom: bn",
            "both, type: Eltwise, bottom: [bn, scale]",
        ],
        ["scale", "both"],
    ),
    "what reads between two layers in place": (
        [
            "bn, type: BatchNorm, bottom: conv, top: conv",
            "early, type: ReLU, bottom: conv, top: early",
            "scale, type: Scale, bottom: conv, top: conv",
            "both, type: Eltwise, bottom: [conv, early]",
        ],
        ["early", "scale", "both"],
    ),
    "shared weights": (
        [
            "bn, type: BatchNorm, bottom: conv",
            f"again, {CONV}, bottom: data, param: [{{name: w}}, {{name: b}}]",
            "both, type: Eltwise, bottom: [bn, again]",
        ],
        ["bn", "again", "both"],
    ),
    "shared statistics": (
        [
            "bn, type: BatchNorm, bottom: conv, param: [{name: m, lr_mult: 0}]",
            "again, type: BatchNorm, bottom: bn, param: [{name: m, lr_mult: 0}]",
        ],
        ["bn", "again"],
    ),
    "a scale over another axis": (
        ["bn, type: BatchNorm, bottom: conv", "scale, type: Scale, axis: 2, bottom: bn"],
        ["scale"],
    ),
    "a scale by a blob": (
        ["flat, type: Scale, axis: 0, bottom: [conv, data]"],
        ["flat"],
    ),
    "statistics of the batch": (
        ["bn, type: BatchNorm, use_global_stats: false, bottom: conv"],
        ["bn"],
    ),
    "another function between": (
        ["relu, type: ReLU, bottom: conv", "bn, type: BatchNorm, bottom: relu"],
        ["relu", "bn"],
    ),
}


def deployed(text: str, folder, statistics="usual"):
    """Returns the net of a text with random weights, and the net it is deployed as."""
    spec = read_net(text=text, format="yaml")
    graph = build(spec, "TEST")
    shapes = {key: info.shape for key, info in {**graph.params, **graph.states}.items()}
    path = folder / "w.safetensors"
    write_weight_file(path, weights_for(shapes, STATISTICS[statistics]))
    net = Net(spec, backend="reference")
    net.load_weights(path)
    made = deployed_net(spec, {}, str(path))
    write_weight_file(folder / "new.safetensors", made.weights)
    new = Net(made.spec, backend="reference")
    assert new.load_weights(folder / "new.safetensors") == []
    return net, new, made


def names(made):
    return [layer.name.text for layer in made.spec.layers]


def assert_equal_outputs(net, new):
    rng = np.random.default_rng(1)
    inputs = {name: rng.normal(size=shape) for name, shape in net.inputs.items()}
    want, got = net.forward(**inputs), new.forward(**inputs)
    assert list(got) == list(want)
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-5 * np.abs(array).max())


@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "blobs"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_every_chain_folds_with_equal_outputs(contraction, chain, bias, in_place, tmp_path):
    text = chain_net(CONTRACTIONS[contraction], CHAINS[chain], bias, in_place)
    net, new, made = deployed(text, tmp_path)
    assert names(made) == ["data", "first", "relu"]
    assert made.folded == [f"link{i}" for i in range(len(CHAINS[chain]))]
    assert_equal_outputs(net, new)


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_equal_outputs_for_all_statistics(contraction, statistics, tmp_path):
    text = chain_net(CONTRACTIONS[contraction], CHAINS["BN+Scale"], False, True)
    net, new, _ = deployed(text, tmp_path, statistics)
    assert_equal_outputs(net, new)


@pytest.mark.parametrize("case", KEPT)
def test_what_cannot_be_folded_stays(case, tmp_path):
    layers, left = KEPT[case]
    lines = "".join(f"- {{name: {layer}}}\n" for layer in layers)
    param = ", param: [{name: w}, {name: b}]" if case == "shared weights" else ""
    text = f"{HEAD}- {{name: conv, {CONV}{param}}}\n{lines}"
    net, new, made = deployed(text, tmp_path)
    assert names(made) == ["data", "conv", *left]
    assert_equal_outputs(net, new)


def test_dropout_falls_away_but_where_a_name_would_be_lost(tmp_path):
    text = f"""{HEAD}
- {{name: ip1, type: InnerProduct, num_output: 3}}
- {{name: relu, type: ReLU, bottom: ip1, top: ip1}}
- {{name: gone, type: Dropout, bottom: ip1, top: ip1}}
- {{name: renamed, type: Dropout, bottom: ip1, top: drop}}
- {{name: ip2, type: InnerProduct, num_output: 3, bottom: drop}}
- {{name: kept, type: Dropout, bottom: ip2, top: other}}
- {{name: both, type: Eltwise, bottom: [ip2, other]}}
"""
    net, new, made = deployed(text, tmp_path)
    assert names(made) == ["data", "ip1", "relu", "ip2", "kept", "both"]
    assert_equal_outputs(net, new)


def test_a_weight_that_is_missing_is_an_error(tmp_path):
    spec = read_net(text=f"{HEAD}- {{name: a, {CONV}}}\n- {{name: b, {CONV}}}\n", format="yaml")
    path = tmp_path / "w.safetensors"
    weight, bias = np.ones((4, 4, 1, 1), np.float32), np.ones(4, np.float32)
    write_weight_file(path, {"a/weight": weight, "a/bias": bias})
    with pytest.raises(NetError, match="no weights of the net's layer 'b'"):
        deployed_net(spec, {}, str(path))


def test_of_several_losses_the_heaviest_is_called_prob():
    loss = "type: SoftmaxWithLoss, bottom: [ip, label]"
    text = f"""
name: heads
layers:
- {{name: data, type: Input, top: [data, label], shape: [[2, 4], [2]]}}
- {{name: ip, type: InnerProduct, num_output: 3, bottom: data}}
- {{name: side, {loss}, loss_weight: 0.3}}
- {{name: main, {loss}}}
- {{name: late, {loss}, loss_weight: 0.3}}
"""
    made = deployed_net(read_net(text=text, format="yaml"), {})
    tops = {layer.name.text: layer.tops[0].text for layer in made.spec.layers}
    assert tops == {
        "data": "data", "ip": "ip", "side": "side/prob", "main": "prob", "late": "late/prob"
    }  # fmt: skip
