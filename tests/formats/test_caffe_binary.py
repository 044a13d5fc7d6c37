"""Binary nets and solvers of Caffe's: read as their text form is, whatever wrote them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netdef.formats import read_net, read_solver
from netdef.formats.caffe_binary import _table, read_caffe_binary
from schemas.errors import NetError, SpecError
from tests.formats.test_convert import NET, same

# What Caffe knows of the net in test_convert.py.
KNOWN = NET[: NET.index('layer { name: "x"')]
V1 = """
name: "old" input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" blobs_lr: 1 blobs_lr: 2 param: "w"
  blob_share_mode: PERMISSIVE convolution_param { num_output: 2 kernel_size: 3 } }
layers { layer { name: "r" type: "relu" } bottom: "c" top: "c" }
"""
SOLVER = """
net: "x.prototxt" test_iter: 3 test_interval: 9 base_lr: 0.1 lr_policy: "multistep" stepvalue: 5
stepvalue: 7 solver_type: NESTEROV momentum: 0.9 test_state { stage: "a" } random_seed: -1
"""


@cache
def google() -> dict[str, Any]:
    """Returns protobuf's classes for the table; skips the test where there is no protobuf."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    simple = {"int32": 5, "int64": 3, "float": 2, "string": 9, "bool": 8, "uint32": 13}
    file = descriptor_pb2.FileDescriptorProto(name="table.proto", package="t", syntax="proto2")
    words = {n for n, fs in _table().items() if all(k == "=" for _, k in fs.values())}
    for name, fields in _table().items():
        flat = name.replace(".", "_")
        if name in words:
            # Words of two enums are the same; a message around each keeps them apart.
            enum = file.message_type.add(name=flat).enum_type.add(name="E")
            for number, (word, _) in sorted(fields.items()):
                enum.value.add(name=word, number=number)
            continue
        message = file.message_type.add(name=flat)
        for number, (field, kind) in fields.items():
            base = kind.rstrip("*")
            one = message.field.add(name=field, number=number, label=3 if "*" in kind else 1)
            one.type = simple.get(base, 14 if base in words else 11)
            if base not in simple:
                one.type_name = f".t.{base.replace('.', '_')}" + (".E" if base in words else "")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("NetParameter", "SolverParameter")
    found = {n: pool.FindMessageTypeByName(f"t.{n}") for n in names}
    return {n: message_factory.GetMessageClass(one) for n, one in found.items()}


def binary(kind: str, text: str) -> bytes:
    made = google()
    from google.protobuf import text_format

    return bytes(text_format.Parse(text, made[kind]()).SerializeToString())


@pytest.mark.parametrize("name", ["net.prototxt", "net.caffemodel", "net.binaryproto"])
@pytest.mark.parametrize("text", [KNOWN, V1], ids=["V2", "V1 and V0"])
def test_nets(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(binary("NetParameter", text))
    assert same(read_net(path), read_net("net.prototxt", text=text))


def test_solvers(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_bytes(binary("SolverParameter", SOLVER))
    one, two = read_solver(path), read_solver("solver.prototxt", text=SOLVER)
    for field in type(one).__dataclass_fields__:
        if field not in ("raw", "spans", "span", "file"):
            assert getattr(one, field) == getattr(two, field), field


def test_weights_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    path.write_bytes(binary("NetParameter", 'layer { name: "a" type: "ReLU" }'))
    with pytest.raises(SpecError, match="holds weights alone, no net"):
        read_net(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SpecError, match="damaged or no .caffemodel"):
        read_net(path)


def test_bytes_that_are_neither() -> None:
    whole = binary("NetParameter", KNOWN)

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, len(whole) - 1), st.integers(0, 255))
    def changed(at: int, byte: int) -> None:
        content = whole[:at] + bytes([byte]) + whole[at + 1 :]
        try:
            read_caffe_binary(memoryview(content), "x")
        except NetError as error:
            assert error.flatten()

    changed()
