"""The table that `netdef summary` prints of a weight file: layers and their blobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netdef.cli import output

HEADS = ("layer", "type", "blobs", "elements")


def is_weights(file: str) -> bool:
    """Returns whether a file's name says that it holds weights."""
    from runtime.weights import format_of

    return format_of(Path(file)) is not None


def show_weights(file: str, as_json: bool) -> None:
    """Prints the layers of a weight file. Raises NetError."""
    name, rows = _read(Path(file))
    elements = sum(row["elements"] for row in rows)
    if as_json:
        output.print_json({"file": file, "net": name, "layers": rows, "elements": elements})
        return
    print(f"{file}{f': {name}' if name else ''}: {output.amount(len(rows), 'layer')}\n")
    cells = [
        (
            row["layer"],
            row["type"],
            " ".join(map(output.shape_text, row["blobs"])),
            output.count(row["elements"]) if row["blobs"] else "",
        )
        for row in rows
    ]
    output.print_table(HEADS, cells, ("total", "", "", output.count(elements)), ("elements",))


def _read(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """Returns the net's name, and a row for each layer in the order of the file."""
    from netdef.converting import by_layer_names, without_histories
    from netdef.formats.caffe_names import V1_TYPES
    from runtime.caffe_files import read_caffemodel
    from runtime.weights import CAFFE, SAFETENSORS, format_of, read_layers, read_weight_file

    kind, name = format_of(path), ""
    if kind == CAFFE:
        name, layers = read_caffemodel(path)
    elif kind == SAFETENSORS:
        layers = by_layer_names(without_histories(read_weight_file(path)))
    else:
        layers = read_layers(path)
    return name, [
        {
            "layer": one.name,
            "type": V1_TYPES.get(one.type, one.type),
            "blobs": [list(blob.shape) for blob in one.blobs.values()],
            "elements": sum(blob.size for blob in one.blobs.values()),
        }
        for one in layers
    ]
