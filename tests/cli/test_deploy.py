"""`netdef deploy`: a net for training becomes a net for use, on files."""

from __future__ import annotations

import json

import numpy as np
import pytest

import netdef as api

TRAINED = """\
name: small
layers:
- {name: data, type: Data, top: [data, label], source: digits8, batch_size: 16, scale: 0.0625,
   phase: TRAIN}
- {name: data, type: Data, top: [data, label], source: digits8, batch_size: 8, scale: 0.0625,
   phase: TEST}
- {name: conv, type: Convolution, bottom: data, num_output: 6, kernel_size: 3, bias_term: false,
   weight_filler: xavier}
- {name: bn, type: BatchNorm, top: conv}
- {name: scale, type: Scale, bottom: conv, top: conv, bias_term: true}
- {name: relu, type: ReLU, bottom: conv, top: conv}
- {name: ip, type: InnerProduct, bottom: conv, num_output: 10, weight_filler: xavier}
- {name: noise, type: Dropout, bottom: ip, top: ip, include: [{phase: TRAIN}]}
- {name: drop, type: Dropout, bottom: ip, top: ip}
- {name: accuracy, type: Accuracy, bottom: [ip, label], phase: TEST}
- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}
"""


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A folder with net.yaml and w.safetensors, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(TRAINED)
    net = api.load("net.yaml", backend="reference")
    rng = np.random.default_rng(2)
    net.params["bn"]["mean"] = rng.normal(size=6)
    net.params["bn"]["variance"] = rng.uniform(0.5, 2.0, 6)
    net.params["bn"]["scale_factor"] = np.full(1, 2.0)
    net.params["scale"]["weight"] = rng.normal(size=6)
    net.save_weights("w.safetensors")
    np.save("x.npy", rng.uniform(0, 16, (3, 1, 8, 8)))
    return tmp_path


def predicted(netdef, *words: object):
    result = netdef("predict", *words, "--json", "--backend", "reference")
    assert result.exit_code == 0, result.stderr
    return [one["outputs"]["prob"] for one in json.loads(result.stdout)]


@pytest.mark.parametrize(
    ("out", "beside"),
    [
        ("out.yaml", "out.safetensors"),
        ("new/out.prototxt", "new/out.caffemodel"),
        ("out.netdef.pb", "out.safetensors"),
    ],
)
def test_it_checks_and_predicts_the_same(out, beside, trained, netdef):
    result = netdef("deploy", "net.yaml", "--weights", "w.safetensors", "-o", out)
    assert result.exit_code == 0, result.stderr
    assert "2 layers folded" in result.stdout and "scale 0.0625" in result.stdout
    assert netdef("check", out, "--strict").exit_code == 0
    layers = [layer.name.text for layer in api.load(out, backend="reference").spec.layers]
    assert layers == ["data", "conv", "relu", "ip", "loss"]
    want = predicted(netdef, "net.yaml", "--weights", "w.safetensors", "x.npy")
    got = predicted(netdef, out, "--weights", beside, "x.npy", "--scale", "0.0625")
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_without_weights_statistics_stay(trained, netdef):
    result = netdef("deploy", "net.yaml", "-o", "out.yaml")
    assert result.exit_code == 0, result.stderr
    assert "2 layers of batch statistics or slopes left as they are" in result.stdout
    assert sorted(p.name for p in trained.glob("out*")) == ["out.yaml"]
    want = predicted(netdef, "net.yaml", "--weights", "w.safetensors", "x.npy")
    got = predicted(netdef, "out.yaml", "--weights", "w.safetensors", "x.npy", "--scale", "0.0625")
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.yaml", "-o", "out.yaml"], "there is no file 'none.yaml'"),
        (["net.yaml", "-o", "out.txt"], "does not say which form"),
        (["net.yaml"], "missing option '-o'"),
        (["net.yaml", "-o", "net.yaml"], "written over itself"),
        (["net.yaml", "--weights", "w.safetensors", "-o", "w.yaml"], "written over itself"),
        (["net.yaml", "--weights", "v.safetensors", "-o", "out.yaml"], "'w.safetensors'"),
        (["net.yaml", "--weigths", "w.safetensors", "-o", "out.yaml"], "--weights"),
    ],
)
def test_mistakes_write_nothing(words, message, trained, netdef):
    before = {p.name: p.read_bytes() for p in trained.iterdir()}
    result = netdef("deploy", *words)
    assert result.exit_code == 2 and message in result.stderr, result.stderr
    assert {p.name: p.read_bytes() for p in trained.iterdir()} == before


def test_layers_without_weights_are_named(trained, netdef):
    text = TRAINED.replace("name: ip,", "name: fc, top: ip,")
    (trained / "net.yaml").write_text(text)
    result = netdef("deploy", "net.yaml", "--weights", "w.safetensors", "-o", "out.yaml")
    assert result.exit_code == 2 and "net.yaml:12:" in result.stderr
    assert "no weights of the net's layer 'fc'" in result.stderr
