"""Imports run down only: netdef -> compiler, runtime -> schemas."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("netdef", "compiler", "runtime", "schemas")
BELOW = {
    "netdef": {"netdef", "compiler", "runtime", "schemas"},
    "compiler": {"compiler", "schemas"},
    "runtime": {"runtime", "schemas"},
    "schemas": {"schemas"},
}


def imported(path: Path) -> set[str]:
    """Returns the rooms that a file imports from, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
    return found & set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_below(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        wrong = imported(path) - BELOW[room]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_nets_hold_no_python():
    assert not list((ROOT / "nets").rglob("*.py"))
