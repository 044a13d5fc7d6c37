"""Caffe's binary files: bytes put together by hand, Google's protobuf, damage of all kinds."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.caffe_files import (
    LayerWeights,
    SolverState,
    caffemodel,
    read_binaryproto,
    read_caffemodel,
    read_solverstate,
    solverstate,
)
from runtime.caffe_hdf5 import (
    read_solverstate_hdf5,
    read_weights_hdf5,
    solverstate_hdf5,
    weights_hdf5,
)
from schemas.errors import BackendError, NetError, SourceError
from tests.runtime.wire_oracle import messages

VALUES = [0.5, -1.0, 2.0, 3.0, 4.0, 5.0]
LAYERS = [
    LayerWeights("data", "Data", {}),
    LayerWeights("conv1", "Convolution", {0: np.arange(24.0, dtype="f4").reshape(2, 3, 2, 2)}),
    LayerWeights("a/b", "Scale", {0: np.ones(3, "f4"), 1: np.full((), 2.5, "f4")}),
]


def sub(number: int, content: bytes) -> bytes:
    """A field of bytes, by the letter of the encoding."""
    assert number < 2**11 and len(content) < 2**14
    tag = number << 3 | 2
    head = bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])
    size = len(content)
    return head + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + content


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


SHAPE = sub(7, sub(1, bytes([2, 3])))
LEGACY = bytes([0x08, 1, 0x10, 1, 0x18, 2, 0x20, 3])
PACKED = sub(5, floats(*VALUES))
LOOSE = b"".join(b"\x2d" + floats(v) for v in VALUES)
BLOBS = {
    "packed": SHAPE + PACKED,
    "data first": PACKED + SHAPE,
    "loose": SHAPE + LOOSE,
    "loose in two runs": LOOSE[:10] + SHAPE + LOOSE[10:],
    "packed in two parts": sub(5, floats(*VALUES[:1])) + sub(5, floats(*VALUES[1:])) + SHAPE,
    "loose dims": sub(7, bytes([0x08, 2, 0x08, 3])) + PACKED,
    "double": SHAPE + sub(8, struct.pack("<6d", *VALUES)),
    "loose double": SHAPE + b"".join(b"\x41" + struct.pack("<d", v) for v in VALUES),
    "with diff": SHAPE + PACKED + sub(6, floats(9)),
    "legacy": LEGACY + PACKED,
}


def net_of(tmp_path: Path, content: bytes) -> list[LayerWeights]:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(content)
    return read_caffemodel(path)[1]


@pytest.mark.parametrize("form", BLOBS)
def test_forms_of_a_blob(form: str, tmp_path: Path) -> None:
    blob = BLOBS[form]
    v2 = sub(100, sub(1, b"ip") + sub(2, b"InnerProduct") + sub(7, blob))
    v1 = sub(2, sub(4, b"ip") + bytes([0x28, 14]) + sub(6, blob))
    v0 = sub(2, sub(1, sub(1, b"ip") + sub(2, b"innerproduct") + sub(50, blob)))
    for content, kind in ((v2, "InnerProduct"), (v1, "INNER_PRODUCT"), (v0, "innerproduct")):
        (layer,) = net_of(tmp_path, sub(1, b"net") + content)
        assert (layer.name, layer.type) == ("ip", kind)
        assert layer.blobs[0].shape == ((1, 1, 2, 3) if form == "legacy" else (2, 3))
        assert layer.blobs[0].ravel().tolist() == VALUES


def test_round_trips(tmp_path: Path) -> None:
    one, two = tmp_path / "x.caffemodel", tmp_path / "x.caffemodel.h5"
    one.write_bytes(caffemodel("net", LAYERS))
    name, layers = read_caffemodel(one)
    assert name == "net" and [(x.name, x.type) for x in layers] == [
        (x.name, x.type) for x in LAYERS
    ]
    pytest.importorskip("h5py")
    two.write_bytes(weights_hdf5(LAYERS))
    for found, wanted in ((layers, LAYERS), (read_weights_hdf5(two), LAYERS[1:])):
        by_name = {layer.name: layer.blobs for layer in found}
        for layer in wanted:
            assert by_name[layer.name].keys() == layer.blobs.keys()
            for number, blob in layer.blobs.items():
                assert by_name[layer.name][number].shape == blob.shape
                assert np.array_equal(by_name[layer.name][number], blob)


def test_solver_states(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    state = SolverState(7, "a/x.caffemodel", (np.ones((2, 3), "f4"), np.zeros(2, "f4")))
    one, two = tmp_path / "x.solverstate", tmp_path / "x.solverstate.h5"
    one.write_bytes(solverstate(state))
    two.write_bytes(solverstate_hdf5(state))
    for found in (read_solverstate(one), read_solverstate_hdf5(two)):
        assert (found.iteration, found.learned_net) == (7, "a/x.caffemodel")
        assert [h.shape for h in found.history] == [(2, 3), (2,)]


def test_googles_protobuf_agrees(tmp_path: Path) -> None:
    made = messages()
    net = made["NetParameter"].FromString(caffemodel("net", LAYERS))
    assert net.name == "net" and [x.name for x in net.layer] == ["data", "conv1", "a/b"]
    assert net.layer[1].type == "Convolution"
    assert list(net.layer[1].blobs[0].shape.dim) == [2, 3, 2, 2]
    assert list(net.layer[1].blobs[0].data) == list(range(24))
    other = made["NetParameter"](name="v1")
    layer = other.layers.add(name="ip", type=14)
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=VALUES)
    layer.blobs.add(double_data=[1.5, 2.5]).shape.dim.append(2)
    (found,) = net_of(tmp_path, other.SerializeToString())
    assert found.type == "INNER_PRODUCT" and found.blobs[0].shape == (1, 1, 2, 3)
    assert found.blobs[1].tolist() == [1.5, 2.5]
    state = made["SolverState"].FromString(solverstate(SolverState(3, "w", (np.ones(2),))))
    assert (state.iter, state.learned_net) == (3, "w")
    assert list(state.history[0].double_data) == [1, 1]


def test_mean_image(tmp_path: Path) -> None:
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(BLOBS["legacy"])
    assert read_binaryproto(path).shape == (1, 1, 2, 3)
    path.write_bytes(b"\x08\x00")
    with pytest.raises(SourceError, match="holds no values"):
        read_binaryproto(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (sub(1, b"net"), "holds no layers"),
        (sub(100, sub(1, b"ip") + sub(7, SHAPE + sub(5, floats(1)))), "2x3 with 1 values at byte"),
        (sub(100, sub(1, b"ip"))[:-1], "field 100 has 4 bytes, but 3 are left at byte 0"),
        (sub(100, sub(1, b"a")) + b"\x0b", "unknown wire type 3 at byte 6, after layer 'a'"),
        (sub(100, sub(1, b"ip") + sub(7, sub(5, b"123"))), "end within one"),
        (sub(100, sub(1, b"\xff")), "not UTF-8"),
        (b"\xa2\x06" + b"\x80" * 11, "more than 10 bytes"),
        (b"name: 'LeNet'\n", "damaged or of another kind"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    ],
)
def test_damage(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        net_of(tmp_path, content)
    assert message in str(caught.value) and "x.caffemodel" in str(caught.value)


READERS = (read_caffemodel, read_solverstate, read_binaryproto)
WHOLE = caffemodel("net", LAYERS) + sub(2, sub(4, b"ip") + sub(6, BLOBS["legacy"]))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_bytes_end_in_another_error(data: Any) -> None:
    """Garbage, and whole files cut and changed: NetError or a result, nothing else."""
    import tempfile

    content = data.draw(
        st.one_of(
            st.binary(max_size=60),
            st.integers(0, len(WHOLE)).map(lambda n: WHOLE[:n]),
            st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)).map(
                lambda at: WHOLE[: at[0]] + bytes([at[1]]) + WHOLE[at[0] + 1 :]
            ),
        )
    )
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        for read in READERS:
            try:
                read(Path(file.name))
            except NetError as error:
                assert file.name in str(error)


def test_hdf5_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.caffemodel.h5"
    for content in (b"", b"garbage", weights_hdf5(LAYERS)[:700]):
        path.write_bytes(content)
        for read in (read_weights_hdf5, read_solverstate_hdf5):
            with pytest.raises(NetError, match="x.caffemodel.h5"):
                read(path)
    with h5py.File(path, "w") as file:
        file["data/conv/0"] = np.arange(3)
    with pytest.raises(SourceError, match="not floats"):
        read_weights_hdf5(path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(BackendError, match="need the package h5py"):
        read_weights_hdf5(path)


def test_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "alexnet.caffemodel").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"did you mean '.*alexnet.caffemodel'"):
        read_caffemodel(tmp_path / "alexnt.caffemodel")
    with pytest.raises(SourceError, match="cannot read"):
        read_caffemodel(tmp_path)
