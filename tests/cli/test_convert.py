"""`netdef convert` and the summary of weight files."""

from __future__ import annotations

import json

import pytest

import netdef as api


def test_spec_files(tiny, netdef):
    for source, target in (
        ("net.yaml", "a.prototxt"),
        ("a.prototxt", "b.netdef.pb"),
        ("b.netdef.pb", "c.netdef.pbtxt"),
        ("c.netdef.pbtxt", "d.yaml"),
        ("solver.yaml", "s.prototxt"),
    ):
        result = netdef("convert", source, target)
        assert result.exit_code == 0, result.stderr
    assert netdef("check", "d.yaml", "a.prototxt", "b.netdef.pb", "s.prototxt").exit_code == 0
    assert netdef("convert", "d.yaml", "e.txt").exit_code == 2
    assert netdef("convert", "none.yaml", "e.yaml").exit_code == 2


def test_weights(tiny, netdef):
    pytest.importorskip("h5py")
    net = api.load("net.yaml", backend="reference")
    net.save_weights("a.caffemodel")
    for words in (
        ("a.caffemodel", "b.safetensors"),
        ("b.safetensors", "c.caffemodel.h5"),
        ("c.caffemodel.h5", "d.caffemodel", "--net", "net.yaml"),
        ("d.caffemodel", "e.safetensors", "--net", "net.yaml"),
    ):
        result = netdef("convert", *words)
        assert result.exit_code == 0, result.stderr
    before = {key: net.executable.read(key) for key in ("ip1/weight", "ip2/bias")}
    other = api.load("net.yaml", backend="reference", weights="e.safetensors")
    assert all((other.executable.read(key) == array).all() for key, array in before.items())
    result = netdef("convert", "a.caffemodel", "net2.yaml")
    assert result.exit_code == 2 and "not of one kind" in result.stderr
    words = ("test", "net.yaml", "--weights", "a.caffemodel,e.safetensors", "--iterations", 1)
    assert netdef(*words, "--backend", "reference").exit_code == 0


def test_summary_of_weights(tiny, netdef):
    api.load("net.yaml", backend="reference").save_weights("a.caffemodel")
    shown = netdef("summary", "a.caffemodel")
    assert shown.exit_code == 0 and "ip1       InnerProduct     12x64 12" in shown.stdout
    document = json.loads(netdef("summary", "a.caffemodel", "--json").stdout)
    assert document["net"] == "tiny" and document["layers"][1]["blobs"] == [[12, 64], [12]]
    (tiny / "cut.caffemodel").write_bytes((tiny / "a.caffemodel").read_bytes()[:100])
    assert "cut.caffemodel is damaged" in netdef("summary", "cut.caffemodel").stderr


def test_a_weight_file_is_no_net(tiny, netdef):
    api.load("net.yaml", backend="reference").save_weights("a.caffemodel")
    result = netdef("check", "a.caffemodel")
    assert result.exit_code == 2 and "netdef summary a.caffemodel" in result.stderr
