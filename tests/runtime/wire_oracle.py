"""Google's protobuf with Caffe's messages, made from caffe_wire.tsv: an independent oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).parents[3] / "shared" / "caffe_wire.tsv"
MESSAGES = (
    *("BlobShape", "BlobProto", "LayerParameter", "V1LayerParameter", "NetParameter"),
    *("Datum",),
)
SIMPLE = {"int32": 5, "int64": 3, "float": 2, "double": 1, "string": 9, "bool": 8, "uint32": 13}
SIMPLE["bytes"] = 12


def messages() -> dict[str, Any]:
    """Returns a class for each message that carries weights; skips the test where it cannot."""
    pytest.importorskip("google.protobuf")
    if not TABLE.is_file():
        pytest.skip("caffe_wire.tsv is not here")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    wanted = (*MESSAGES, "SolverState")
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="c", syntax="proto2")
    made = {name: file.message_type.add(name=name) for name in wanted}
    for line in TABLE.read_text().splitlines()[2:]:
        message, field, number, label, kind, _, packed = line.split("\t")
        v1_type = (message, field) == ("V1LayerParameter", "type")
        if message not in made or not (kind in SIMPLE or kind in made or v1_type):
            continue
        one = made[message].field.add(name=field, number=int(number))
        one.label = 3 if label == "repeated" else 1
        one.type = 5 if v1_type else SIMPLE.get(kind, 11)  # an enum is an int on the wire
        if kind in made:
            one.type_name = f".c.{kind}"
        one.options.packed = packed == "packed"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {name: pool.FindMessageTypeByName(f"c.{name}") for name in wanted}
    return {name: message_factory.GetMessageClass(one) for name, one in found.items()}
