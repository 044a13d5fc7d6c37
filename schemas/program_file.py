"""A Program as a file (docs/ndp.md): a zip with a manifest and code; nothing is unpickled."""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import types
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from schemas.errors import SourceError
from schemas.program import Program

FORMAT = "netdef-program"
VERSION = 7
MANIFEST = "manifest.json"
# Fields of Program that are files of their own; the manifest says which file holds what.
FILES = ("code", "text", "weights")
_DIGEST = 2 * hashlib.sha256().digest_size  # characters: the zip's comment, its last bytes
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal programs make equal files


def pack_program(program: Program, level: int = 6) -> bytes:
    """Returns the content of a program file; `level` of compression: 1 is fast, 9 small."""
    contents: dict[str, bytes] = {}
    listed: dict[str, dict[str, str]] = {}
    for part in FILES:
        held: Mapping[str, str | bytes] = getattr(program, part)
        listed[part] = {}
        for number, (name, content) in enumerate(held.items()):
            safe = re.sub(r"[^\w.-]+", "_", name)[-80:]
            file = f"{part}/{number:03}_{safe}"
            listed[part][name] = file
            contents[file] = content.encode() if isinstance(content, str) else content
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "program": manifest_of(program),
        "files": listed,
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in {MANIFEST: _json(manifest), **contents}.items():
            info = zipfile.ZipInfo(file, _EPOCH)
            random = file.startswith("weights/")  # which no compression makes much smaller
            info.compress_type = zipfile.ZIP_STORED if random else zipfile.ZIP_DEFLATED
            archive.writestr(info, content, compresslevel=level)
        archive.comment = bytes(_DIGEST)
    whole = stream.getvalue()[:-_DIGEST]
    return whole + hashlib.sha256(whole).hexdigest().encode()


def manifest_of(program: Program) -> dict[str, Any]:
    """Returns all of a program but its code and texts, as plain data."""
    kept = (f.name for f in fields(program) if f.name not in FILES)
    return {name: plain(getattr(program, name)) for name in kept}


def unpack_program(content: bytes, origin: str) -> Program:
    """Returns the program of a file; `origin` names the file in errors. Raises SourceError."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except _DAMAGE:
        cut = content[:2] == b"PK"
        what = "is damaged: the end of it is missing" if cut else "is not a netdef program"
        raise SourceError(f"{origin} {what}", hint="'netdef compile' makes one") from None
    with archive:
        manifest = _manifest(archive, origin)
        if len(archive.comment) < _DIGEST:
            raise SourceError(f"{origin} is damaged: the end of it is missing")
        if hashlib.sha256(content[:-_DIGEST]).hexdigest().encode() != content[-_DIGEST:]:
            raise SourceError(f"{origin} is damaged: its content is not what was written")
        try:
            values = dict(manifest["program"])
            for part in FILES:
                files = manifest["files"][part].items()
                values[part] = {name: archive.read(file) for name, file in files}
            values["text"] = {name: text.decode() for name, text in values["text"].items()}
            made: Program = _made(Program, values)
        except _DAMAGE as error:
            raise SourceError(f"{origin} is damaged: {error}") from None
    return made


_DAMAGE = (
    *(KeyError, TypeError, ValueError, AttributeError, IndexError, OSError, EOFError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error, OverflowError, RuntimeError),
)


def _manifest(archive: zipfile.ZipFile, origin: str) -> dict[str, Any]:
    if MANIFEST not in archive.namelist():
        message = f"{origin} is a zip file, but not a netdef program"
        raise SourceError(message, hint="'netdef compile' makes one")
    try:
        found = json.loads(archive.read(MANIFEST))
    except _DAMAGE as error:
        raise SourceError(f"{origin} is damaged: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise SourceError(f"{origin} is a zip file, but not a netdef program")
    if found.get("version") != VERSION:
        message = f"{origin} has format version {found.get('version')}; this netdef reads {VERSION}"
        newer = isinstance(found.get("version"), int) and found["version"] > VERSION
        hint = "a newer netdef wrote it, and reads it" if newer else "compile the net again"
        raise SourceError(message, hint=hint)
    return found


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()


def plain(value: Any) -> Any:
    """Returns plain data; a tuple inside of free-form data keeps its kind by a mark."""
    if is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        return {
            f.name: _free(getattr(value, f.name))
            if _is_free(hints[f.name])
            else plain(getattr(value, f.name))
            for f in fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Returns the annotations of a dataclass; they are text that must be compiled."""
    return get_type_hints(kind)


def _is_free(hint: Any) -> bool:
    return get_origin(hint) is dict and get_args(hint)[1] is Any


def _free(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"tuple": [_free(one) for one in value]}
    if isinstance(value, list):
        return [_free(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): _free(one) for key, one in value.items()}
    assert value is None or isinstance(value, (bool, int, float, str)), f"{value!r} is not plain"
    return value


def _freed(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"tuple"}:
            return tuple(_freed(one) for one in value["tuple"])
        return {key: _freed(one) for key, one in value.items()}
    return [_freed(one) for one in value] if isinstance(value, list) else value


def _made(hint: Any, value: Any) -> Any:
    """Returns `value` as the type that an annotation asks for; raises TypeError, ValueError."""
    if hint is Any:
        return _freed(value)
    origin, args = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        hints = _hints(hint)  # type: ignore[arg-type]
        return hint(**{name: _made(hints[name], one) for name, one in value.items()})  # type: ignore[operator]
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_made(args[0], one) for one in value)
        return tuple(_made(kind, one) for kind, one in zip(args, value, strict=True))
    if origin is dict:
        return {key: _made(args[1], one) for key, one in value.items()}
    if origin is Literal:
        if value not in args:
            raise ValueError(f"'{value}' is none of {', '.join(map(str, args))}")
        return value
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in args if kind is not type(None)]
        return None if value is None else _made(kinds[0], value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint):
        raise TypeError(f"{value!r:.40} is not of type {hint.__name__}")
    return value
