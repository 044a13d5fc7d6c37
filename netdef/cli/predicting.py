"""`netdef predict`: the outputs of a trained net for files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netdef.cli import options, output
from netdef.cli.guard import warn

if TYPE_CHECKING:
    from netdef.net import Net

MOST = 64  # items in one pass
SHOWN = 5


@click.command()
@options.net_argument
@options.weights_option()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--labels", metavar="FILE", help="Names of the classes, one a line.")
@click.option("--raw", is_flag=True, help="Feed values as they are: no scale, mean or crop.")
@click.option("--scale", type=float, help="Multiply values by this, instead of the net's scale.")
@click.option("--mean", metavar="V[,V,V]", help="Subtract this first: one value, or one a channel.")
@click.option("--bgr", is_flag=True, help="Colours as blue, green, red: what Caffe's models take.")
@options.reading_options
@options.shape_option
@options.layer_set_option
@options.backend_option
@options.precision_option
@options.threads_option
@options.json_option
def predict(net: str, weights: str, inputs: tuple[str, ...], **given: Any) -> None:
    """Run NET on files and print its greatest outputs.

    INPUT is a .npy or .npz array of one item or several, or a picture (.png, .jpg). Values are
    scaled and the mean is subtracted as the net's data layer says; data, labels and losses
    themselves fall away.
    """
    import numpy as np

    from netdef.net import Net
    from netdef.predicting import changed, reader_of

    spec = options.read_net(net, given["sets"], given["reading"])
    names = read_labels(given["labels"]) if given["labels"] else []
    shapes = options.read_shapes(given["shapes"])
    reader = reader_of(spec, shapes, given["raw"], given["bgr"])
    reader = changed(reader, given["scale"], given["mean"])
    files = [(file, reader.read(Path(file))) for file in inputs]
    items = np.concatenate([array for _, array in files])
    origins = [(f, i if len(a) > 1 else None) for f, a in files for i in range(len(a))]
    where = {key: given[key] for key in ("backend", "precision", "threads")}
    batch = {reader.name: (min(len(items), MOST), *items.shape[1:])}
    loaded = Net(spec, "TEST", **where, deploy=True, inputs=batch)
    documents: list[dict[str, Any]] = []
    try:
        warn(loaded.load_weights(weights))
        for (file, number), one in zip(origins, outputs_of(loaded, items), strict=True):
            if given["as_json"]:
                documents.append(_document(file, number, one))
            else:
                show(file, number, one, names)
    finally:
        loaded.close()
    if given["as_json"]:
        output.print_json(documents)


def outputs_of(net: Net, items: Any) -> Iterator[dict[str, Any]]:
    """Yields the outputs for each item, a batch of the net's size at a time."""
    import numpy as np

    ((name, shape),) = net.inputs.items()
    for start in range(0, len(items), shape[0]):
        part = items[start : start + shape[0]]
        missing = shape[0] - len(part)  # the last batch is filled up, rather than compiled anew
        padded = np.concatenate([part, np.zeros_like(items[:missing])]) if missing else part
        outputs = net.forward((), **{name: padded})
        for i in range(len(part)):
            yield {k: v[i] if v.shape[:1] == shape[:1] else v for k, v in outputs.items()}


def show(file: str, number: int | None, outputs: dict[str, Any], names: list[str]) -> None:
    """Prints the greatest values of each output, or what there is to say of a large one."""
    import numpy as np

    print(file if number is None else f"{file}[{number}]")
    for name, value in outputs.items():
        flat = np.asarray(value).ravel()
        if np.ndim(value) > 1 and flat.size > max(np.shape(value)):
            shape = output.shape_text(np.shape(value))
            print(
                f"  {name}: {shape}, {flat.min():.4g} to {flat.max():.4g}, mean {flat.mean():.4g}"
            )
            continue
        for i in np.argsort(-flat, kind="stable")[:SHOWN]:
            label = f"  {names[i]}" if i < len(names) else ""
            print(f"  {name}[{i}] = {flat[i]:.4f}{label}")


def read_labels(path: str) -> list[str]:
    """Returns the lines of a file of class names."""
    from schemas.errors import UsageError

    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UsageError(f"there is no file '{path}'") from None
    except UnicodeDecodeError:
        raise UsageError(f"'{path}' is not a UTF-8 text") from None


def _document(file: str, number: int | None, outputs: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value.tolist() for name, value in outputs.items()}
    return {"file": file, "item": number, "outputs": plain}
