"""Caffe's binary files: weights, solver states and mean images, in and out."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from runtime.protobuf import (
    FIXED64,
    Field,
    Message,
    WireError,
    chunk,
    integer,
    nested,
    text,
    varint,
)
from schemas.errors import SourceError, near

Array = np.ndarray[Any, Any]
Parts = list[bytes | memoryview]
MAX_AXES = 32  # Caffe's kMaxBlobAxes
MAX_BYTES = 2**31 - 1  # what protobuf itself reads back

# V1 says a layer's type by number; the words of the enum, as prototxt files write them.
V1_WORDS = (
    *("NONE ACCURACY BNLL CONCAT CONVOLUTION DATA DROPOUT EUCLIDEAN_LOSS FLATTEN".split()),
    *("HDF5_DATA HDF5_OUTPUT IM2COL IMAGE_DATA INFOGAIN_LOSS INNER_PRODUCT LRN".split()),
    *("MULTINOMIAL_LOGISTIC_LOSS POOLING RELU SIGMOID SOFTMAX SOFTMAX_LOSS SPLIT TANH".split()),
    *("WINDOW_DATA ELTWISE POWER SIGMOID_CROSS_ENTROPY_LOSS HINGE_LOSS MEMORY_DATA".split()),
    *("ARGMAX THRESHOLD DUMMY_DATA SLICE MVN ABSVAL SILENCE CONTRASTIVE_LOSS EXP".split()),
    "DECONVOLUTION",
)


@dataclass(frozen=True)
class LayerWeights:
    """One layer of a weight file: its type as the file says it ("" if not), its blobs by number."""

    name: str
    type: str
    blobs: Mapping[int, Array]


@dataclass(frozen=True)
class SolverState:
    """What Caffe keeps of a solver between two iterations."""

    iteration: int
    learned_net: str
    history: tuple[Array, ...]


def read_caffemodel(path: Path) -> tuple[str, list[LayerWeights]]:
    """Returns the net's name and all layers of a .caffemodel, V2 or V1; arrays view the file.

    Raises SourceError for a file that is not there, cut off or not a .caffemodel.
    """
    name, layers, old = "", list[LayerWeights](), list[LayerWeights]()
    try:
        for field in _open(path):
            if field.number == 1:
                name = field.text()
            elif field.number == 100:
                layers.append(_layer(field, name=1, kind=2, blobs=7))
            elif field.number == 2:
                old.append(_layer(field, name=4, kind=5, blobs=6))
    except WireError as error:
        raise _damaged(path, error, [*layers, *old]) from None
    if not layers and not old:
        raise SourceError(f"{path} holds no layers", hint="is it a .caffemodel?")
    return name, layers or old


def caffemodel(name: str, layers: Iterable[LayerWeights]) -> bytes:
    """Returns the content of a .caffemodel (V2): names, types and blobs of the layers."""
    parts: Parts = [text(1, name)] if name else []
    for layer in layers:
        fields: Parts = [text(1, layer.name)]
        fields += [text(2, layer.type)] if layer.type else []
        for blob in layer.blobs.values():
            fields += nested(7, blob_parts(blob))
        parts += nested(100, fields)
    size = sum(map(len, parts))
    if size > MAX_BYTES:
        message = f"the weights take {size:,} bytes; protobuf files end at {MAX_BYTES:,}"
        raise SourceError(message, hint="write .caffemodel.h5 or .safetensors")
    return b"".join(parts)


def read_solverstate(path: Path) -> SolverState:
    """Reads a .solverstate. Raises SourceError."""
    iteration, learned, history = 0, "", list[Array]()
    known = False
    try:
        for field in _open(path):
            if field.number == 1:
                iteration, known = field.integer(), True
            elif field.number == 2:
                learned = field.text()
            elif field.number == 3:
                history.append(_blob(field))
    except WireError as error:
        raise _damaged(path, error, []) from None
    if not known or iteration < 0:
        raise SourceError(f"{path} says no iteration", hint="is it a .solverstate?")
    return SolverState(iteration, learned, tuple(history))


def solverstate(state: SolverState) -> bytes:
    """Returns the content of a .solverstate."""
    parts: Parts = [integer(1, state.iteration), text(2, state.learned_net)]
    for blob in state.history:
        parts += nested(3, blob_parts(blob))
    return b"".join(parts)


def read_binaryproto(path: Path) -> Array:
    """Returns the blob of a .binaryproto: a mean image (1, C, H, W). Raises SourceError."""
    try:
        message = _open(path)
        found = _blob(Field(0, 2, message, 0))
    except WireError as error:
        raise _damaged(path, error, []) from None
    if not found.size:
        raise SourceError(f"{path} holds no values", hint="is it a .binaryproto?")
    return found


def blob_parts(blob: Array) -> Parts:
    """Returns the fields of a BlobProto."""
    dims = b"".join(varint(n) for n in blob.shape)
    shape = nested(7, chunk(1, dims))
    kind = np.dtype("<f8") if blob.dtype == np.float64 else np.dtype("<f4")
    # A flat view of the bytes: an array without elements has none to cast.
    values = np.ascontiguousarray(blob, kind).reshape(-1).view(np.uint8)
    return [*shape, *chunk(8 if kind.itemsize == 8 else 5, values.data if blob.size else b"")]


def _layer(field: Field, name: int, kind: int, blobs: int) -> LayerWeights:
    """Reads a layer; the numbers are those of the fields in its form."""
    found, word, arrays = "", "", list[Array]()
    for one in field.message():
        if one.number == name:
            found = one.text()
        elif one.number == kind:
            word = one.text() if kind == 2 else _v1_word(one.integer())
        elif one.number == blobs:
            arrays.append(_blob(one))
        elif one.number == 1 and name == 4:  # V0: the layer proper is a message inside
            inner = _layer(one, name=1, kind=2, blobs=50)
            found, word, arrays = inner.name, inner.type, [*arrays, *inner.blobs.values()]
    return LayerWeights(found, word, dict(enumerate(arrays)))


def _v1_word(number: int) -> str:
    return V1_WORDS[number] if 0 <= number < len(V1_WORDS) else ""


def _blob(field: Field) -> Array:
    """Reads a BlobProto: its shape in either form, its data as float or double."""
    shape: list[int] | None = None
    legacy = dict[int, int]()
    data: dict[int, list[Array]] = {5: [], 8: []}
    for one in field.message():
        if one.number == 7:
            shape = [] if shape is None else shape
            shape += [n for dim in one.message() if dim.number == 1 for n in dim.integers()]
        elif one.number in data:
            data[one.number].append(one.numbers(FIXED64) if one.number == 8 else one.numbers())
        elif 1 <= one.number <= 4:
            legacy[one.number] = one.integer()
    if shape is None:
        shape = [legacy.get(i, 0) for i in range(1, 5)] if legacy else []
    runs = data[8] or data[5]
    values = runs[0] if len(runs) == 1 else np.concatenate(runs) if runs else np.empty(0, "<f4")
    if len(shape) > MAX_AXES or any(n < 0 for n in shape) or prod(shape) != values.size:
        listed = "x".join(map(str, shape[:MAX_AXES])) or "()"
        raise WireError(f"a blob of shape {listed} with {values.size:,} values", field.at)
    return values.reshape(shape)


def _open(path: Path) -> Message:
    return Message(map_file(path))


def map_file(path: Path) -> memoryview:
    """Returns the bytes of a file, mapped into memory rather than read. Raises SourceError."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size == 0:
                raise SourceError(f"{path} is empty")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        match = near(path.name, names)
        hint = f"did you mean '{path.with_name(match)}'?" if match else None
        raise SourceError(f"there is no file {path}", hint=hint) from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None


_MARKS = (  # what people download in place of a binary protobuf
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the file", "git lfs pull"),
    (b"\x89HDF\r\n", "it is an HDF5 file", "give it a name that ends in .h5"),
    (b"<", "it is a web page", "download the file again"),
    (b"PK\x03\x04", "it is a zip archive", None),
)


def _damaged(path: Path, error: WireError, layers: Sequence[LayerWeights]) -> SourceError:
    head = path.read_bytes()[:64] if path.stat().st_size < 2**24 else b""
    for mark, what, hint in _MARKS:
        if head.lstrip().startswith(mark):
            return SourceError(f"cannot use {path}: {what}", hint=hint)
    after = f", after layer '{layers[-1].name}'" if layers else ""
    return SourceError(f"{path} is damaged or of another kind: {error}{after}")
