"""Reads spec files: YAML and Caffe prototxt into NetSpec and SolverSpec."""

from __future__ import annotations

import os

from netdef.formats.caffe import read_caffe_net
from netdef.formats.files import Document, read_document, sniff
from netdef.formats.native import read_native_net
from netdef.formats.override import apply_set
from netdef.formats.solver import read_solver_spec
from schemas.errors import Diagnostics, SpecError
from schemas.net import NetSpec
from schemas.solver import SolverSpec
from schemas.span import Span

__all__ = ["apply_set", "read_net", "read_solver", "read_spec", "sniff"]


def read_net(
    path: str | os.PathLike[str] | None = None,
    *,
    text: str | None = None,
    format: str | None = None,
    lenient: bool = False,
) -> NetSpec:
    """Reads a net from a file or from `text`; `format` is "yaml", "prototxt" or found out.

    `lenient`: fields that nothing here reads are warnings. A string with a line break in place of
    the path counts as the text. With `text`, the path is the name shown in errors. Raises
    SpecError or UsageError, or NetErrors of several.
    """
    document = read_document(path, text=text, format=format)
    if document.kind != "net":
        hint = "give the net file that its 'net' names"
        raise SpecError("this is a solver, not a net", _top(document), hint)
    return _net(document, lenient)


def read_solver(
    path: str | os.PathLike[str] | None = None,
    *,
    text: str | None = None,
    format: str | None = None,
    lenient: bool = False,
) -> SolverSpec:
    """Reads a solver; the arguments and errors are those of `read_net`."""
    document = read_document(path, text=text, format=format)
    if document.kind != "solver" and isinstance(document.root.data, dict):
        if "layer" in document.root.data or "layers" in document.root.data:
            hint = "a solver file names its net: 'net: net.yaml'"
            raise SpecError("this is a net, not a solver", _top(document), hint)
    return _solver(document, lenient)


def read_spec(
    path: str | os.PathLike[str] | None = None,
    *,
    text: str | None = None,
    format: str | None = None,
    lenient: bool = False,
) -> NetSpec | SolverSpec:
    """Reads whichever of the two a file is, for `netdef check`."""
    document = read_document(path, text=text, format=format)
    read = _net if document.kind == "net" else _solver
    return read(document, lenient)


def _top(document: Document) -> Span:
    """Returns the place of the first field."""
    for value in document.root.data.values():
        return value.key if not isinstance(value.data, tuple) else document.root.span
    return document.root.span


def _net(document: Document, lenient: bool) -> NetSpec:
    diag = Diagnostics(lenient)
    read = read_native_net if document.format == "yaml" else read_caffe_net
    net = read(document.root, document.file, diag)
    _raise(diag)
    return net


def _solver(document: Document, lenient: bool) -> SolverSpec:
    diag = Diagnostics(lenient)
    read = read_native_net if document.format == "yaml" else read_caffe_net
    solver = read_solver_spec(document.root, document.file, diag, read)
    _raise(diag)
    return solver


def _raise(diag: Diagnostics) -> None:
    """Raises the errors, if any, in the order of the file."""
    diag.errors.sort(key=lambda e: (e.span.line, e.span.column) if e.span else (0, 0))
    diag.raise_if_any()
