"""Tilings of contractions that a search found faster than the model's choice: a file a device."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from compiler.cache import default_folder

Tiling = dict[str, int]  # a backend's own words: rows, columns, warps

_CACHES = default_folder()
FOLDER = _CACHES / "tilings" if _CACHES is not None else None  # the user's, None: there is none
_SHIPPED = Path(__file__).with_name("tuned")


@dataclass(frozen=True, slots=True)
class Tunable:
    """A contraction with several tilings, the model's choice first. Equal keys: equal kernels."""

    key: str
    tilings: tuple[Tiling, ...]


@dataclass(frozen=True)
class Tilings:
    """What a search found for one device: the tilings that are not the model's, by key."""

    device: str
    found: Mapping[str, Tiling] = field(default_factory=dict)

    def text(self) -> str:
        """Returns the content of a file: equal tables, equal texts."""
        document = {"device": self.device, "tilings": dict(sorted(self.found.items()))}
        return json.dumps(document, indent=1) + "\n"

    @property
    def digest(self) -> str:
        return digest(self.text()) if self.found else ""


MODEL = Tilings("")  # the model's choice everywhere


def in_words(tiling: Tiling) -> str:
    """Returns a tiling for people: `m 128 n 64`."""
    return " ".join(f"{name} {value}" for name, value in tiling.items())


def digest(*parts: object) -> str:
    """Returns a name for what decides how long a contraction takes."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def file_of(device: str) -> Path | None:
    """Returns the user's table of a device, None if there is no folder for caches."""
    return FOLDER / f"{device}.json" if FOLDER is not None else None


def known(device: str) -> Tilings:
    """Returns what came along for a device, overruled by what the user's searches found."""
    found: dict[str, Tiling] = {}
    for file in (_SHIPPED / f"{device}.json", file_of(device)):
        found |= read(file, device).found if file is not None else {}
    return Tilings(device, found)


def read(file: Path, device: str) -> Tilings:
    """Returns the table of a file; one that is damaged or for another device is as good as none."""
    try:
        content = file.read_bytes()
    except OSError:
        return Tilings(device)
    return _parsed(content, file, device)


@lru_cache(maxsize=16)  # also: one warning
def _parsed(content: bytes, file: Path, device: str) -> Tilings:
    try:
        document = json.loads(content)
        found, owner = document["tilings"], document["device"]
        sound = all(map(_sound, found.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        owner, sound = None, False
    if sound and owner == device:
        return Tilings(device, found)
    reason = f"it is for {owner}" if sound else "it is damaged"
    warnings.warn(f"'{file}' is not used: {reason}; 'netdef tune' makes a new one", stacklevel=2)
    return Tilings(device)


def _sound(tiling: Any) -> bool:
    return isinstance(tiling, dict) and all(type(value) is int for value in tiling.values())
