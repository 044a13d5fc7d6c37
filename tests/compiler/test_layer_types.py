"""Layer types are found by their files, and of these only those that a net needs are loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from compiler import layers
from compiler.layers import layer_type, layer_types

BUILD = """
import sys
from compiler.frontend.build import build
from netdef.formats import read_net
build(read_net(text="layers: [{name: x, type: Input, shape: [2, 3]}, {name: y, type: TanH}]",
               format="yaml"), "TEST")
print(*(one for one in ("activation", "data", "recurrent", "pool")
        if f"compiler.layers.{one}" in sys.modules))
"""


def test_the_text_of_the_files_names_every_type() -> None:
    assert set(layers._homes()) == set(layer_types())


@pytest.mark.parametrize("name", layer_types())
def test_a_type_is_found_by_its_name(name: str) -> None:
    assert layer_type(name) is layer_types()[name]


def test_what_is_no_type_is_not_found() -> None:
    assert layer_type("Convolutoin") is None


def test_a_type_that_its_file_registers_in_another_way_is_found(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(layers._registry, "Made", object)
    assert layer_type("Made") is object


def test_a_net_loads_the_files_of_its_own_layers() -> None:
    found = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True)
    assert found.stdout.split() == ["activation", "data"], found.stderr
