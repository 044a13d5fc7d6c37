"""Gets the text of a spec file and tells what it is: net or solver, YAML or prototxt."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netdef.formats.caffe_binary import read_caffe_binary, read_caffemodel_net
from netdef.formats.native_proto import is_proto, read_proto
from netdef.formats.prototxt import parse_prototxt
from netdef.formats.yaml_text import parse_yaml
from runtime.caffe_files import map_file
from schemas.errors import SpecError, UsageError
from schemas.net import Value
from schemas.span import Span

FORMATS = ("yaml", "prototxt")
MAX_BYTES = 64 * 2**20
_CONTROLS = bytes(byte for byte in range(32) if byte < 9 or byte > 13)  # but tabs and line ends
_CHUNK = 1 << 20  # asked for at a time: read(n) sets n bytes aside at once

_EXTENSIONS = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "yaml",  # JSON is YAML
    ".prototxt": "prototxt",
    ".pbtxt": "prototxt",
    ".pt": "prototxt",
    ".txtpb": "prototxt",
}
_PROTOTXT = re.compile(r"^[ \t]*\w+[ \t]*:?[ \t]*[{<][ \t]*(?:$|#|\w+[ \t]*[:{])", re.MULTILINE)
_YAML = re.compile(r"^(?:[ \t]*-[ \t]|---|\w+:[ \t]*(?:#.*)?$|[{\[])", re.MULTILINE)
_NET_WORDS = frozenset("layer layers blocks input input_dim input_shape force_backward".split())
_SOLVER_WORDS = frozenset(
    "net train_net net_param train_net_param base_lr lr_policy max_iter test_iter test_interval "
    "momentum weight_decay solver_mode solver_type snapshot snapshot_prefix stepsize gamma".split()
)


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its name, its format, its values."""

    file: str
    format: str
    root: Value

    @property
    def kind(self) -> str:
        """Returns "net" or "solver", by the fields at the top of the file."""
        keys = set(self.root.data) if isinstance(self.root.data, Mapping) else set()
        return "solver" if keys & _SOLVER_WORDS and not keys & _NET_WORDS else "net"


def read_document(
    path: str | os.PathLike[str] | None, *, text: str | None = None, format: str | None = None
) -> Document:
    """Parses a file, or `text` (then `path`, if any, is only its name).

    Raises SpecError (content), UsageError (arguments, file that cannot be read).
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"unknown format '{format}'", hint="known: yaml, prototxt")
    if text is None and isinstance(path, str) and "\n" in path:
        path, text = None, path
    file = "<string>" if path is None else os.fspath(path)
    if text is None:
        if path is None:
            raise UsageError("neither a file nor a text is given")
        if file.lower().endswith(".caffemodel") and Path(file).is_file():
            return Document(file, "prototxt", read_caffemodel_net(map_file(Path(file)), file))
        content = _read(file)
        if is_proto(file):  # what a YAML file would say, in another form
            return Document(file, "yaml", read_proto(content, file))
        if _binary(content) and (found := read_caffe_binary(memoryview(content), file)):
            return Document(file, "prototxt", found)
        text = _decode(content, file)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise SpecError("the file is empty" if path else "the text is empty", Span(file, 1, 1))
    format = format or _format(text, file)
    root = parse_yaml(text, file) if format == "yaml" else parse_prototxt(text, file)
    if root.data is None or root.data == {}:
        raise SpecError("the file holds nothing but comments", Span(file, 1, 1))
    return Document(file, format, root)


def sniff(
    path: str | os.PathLike[str] | None, *, text: str | None = None, format: str | None = None
) -> tuple[str, str]:
    """Returns what a file is: ("net" or "solver", "yaml" or "prototxt"). Raises NetError."""
    document = read_document(path, text=text, format=format)
    return document.kind, document.format


def _format(text: str, file: str) -> str:
    known = _EXTENSIONS.get(Path(file).suffix.lower())
    if known:
        return known
    braces, yaml = _PROTOTXT.search(text), _YAML.search(text)
    if braces and yaml:
        return "prototxt" if braces.start() < yaml.start() else "yaml"
    return "prototxt" if braces else "yaml"


def _read(file: str) -> bytes:
    path = Path(file)
    try:
        if path.is_dir():
            specs = sorted(p.name for p in path.iterdir() if p.suffix.lower() in _EXTENSIONS)
            hint = f"it holds {', '.join(specs[:6])}" if specs else None
            raise UsageError(f"'{file}' is a folder, not a file", hint=hint)
        with path.open("rb") as stream:
            data = stream.read(_CHUNK)
            while len(data) <= MAX_BYTES and (more := stream.read(_CHUNK)):
                data += more
        if len(data) > MAX_BYTES:
            raise SpecError("the file is far too large for a spec", Span(file, 1, 1))
        return data
    except FileNotFoundError:
        raise UsageError(f"there is no file '{file}'", hint=_near_file(path)) from None
    except NotADirectoryError:
        raise UsageError(f"there is no file '{file}'") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read '{file}': {reason}") from None


def _near_file(path: Path) -> str | None:
    """Returns a hint that names files which are there: the same folder, a similar name."""
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder '{folder}'"
    try:
        names = sorted(p.name for p in folder.iterdir() if p.is_file())
    except OSError:
        return None
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    close = close or [n for n in names if Path(n).suffix.lower() in _EXTENSIONS][:6]
    found = ", ".join(f"'{folder / name}'" for name in close)
    return f"did you mean {found}?" if found else None


def _decode(data: bytes, file: str) -> str:
    """Returns the text of a file, which has to be UTF-8."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        hint = "save the file as UTF-8"
        raise SpecError("the file is UTF-16 text, not UTF-8", Span(file, 1, 1), hint)
    if Path(file).suffix.lower() in (".caffemodel", ".binaryproto", ".pb") or _binary(data):
        hint = "give the .yaml or .prototxt file"
        if file.lower().endswith((".h5", ".safetensors")):
            hint += f"; 'netdef summary {file}' lists the layers of a weight file"
        raise SpecError(_binary_message(data), Span(file, 1, 1), hint)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line = before.count("\n") + 1
        column = len(before) - before.rfind("\n")
        shown = data.split(b"\n")[line - 1].decode(errors="replace").rstrip("\r")
        message = f"the byte 0x{data[error.start]:02x} is not UTF-8"
        hint = "save the file as UTF-8"
        raise SpecError(message, Span(file, line, column, 1, shown), hint) from None


def _binary(data: bytes) -> bool:
    head = data[:65536]
    controls = len(head) - len(head.translate(None, _CONTROLS))
    return b"\0" in head or controls * 20 > len(head)


def _binary_message(data: bytes) -> str:
    if data[:4] == b"PK\x03\x04":
        return "this is a zip archive (a PyTorch checkpoint?), not a spec"
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        return "this is an HDF5 file (weights?), not a spec"
    if data[:1] in (b"\x0a", b"\x12", b"\x1a", b"\xa2"):
        return "this looks like a binary protobuf, which cannot be read here"
    return "this is a binary file, not a spec"
