"""`netdef predict`: the outputs of a trained net for files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from netdef.cli import options, output
from netdef.cli.guard import warn

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
@options.shape_option
@options.layer_set_option
@options.backend_option
@options.threads_option
@options.json_option
def predict(
    net: str,
    weights: str,
    inputs: tuple[str, ...],
    labels: str | None,
    raw: bool,
    scale: float | None,
    mean: str | None,
    bgr: bool,
    shapes: tuple[str, ...],
    sets: tuple[str, ...],
    backend: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run NET on files and print its greatest outputs.

    INPUT is a .npy or .npz array of one item or several, or a picture (.png, .jpg). Values are
    scaled and the mean is subtracted as the net's data layer says; data, labels and losses
    themselves fall away.
    """
    import numpy as np

    from netdef.net import Net
    from netdef.predicting import changed, reader_of

    spec = options.read_net(net, sets)
    names = read_labels(labels) if labels else []
    reader = reader_of(spec, options.read_shapes(shapes), raw, bgr)
    reader = changed(reader, scale, mean)
    items = [(file, reader.read(Path(file))) for file in inputs]
    stacked = np.concatenate([array for _, array in items])
    origins = [(f, i if len(a) > 1 else None) for f, a in items for i in range(len(a))]
    size = min(len(stacked), MOST)
    given = {reader.name: (size, *stacked.shape[1:])}
    documents: list[dict[str, Any]] = []
    loaded = Net(spec, "TEST", backend=backend, threads=threads, deploy=True, inputs=given)
    try:
        warn(loaded.load_weights(weights))
        for start in range(0, len(stacked), size):
            part = stacked[start : start + size]
            missing = size - len(part)  # the last pass is filled up, rather than compiled anew
            padded = np.concatenate([part, np.zeros_like(stacked[:missing])]) if missing else part
            outputs = loaded.forward((), **{reader.name: padded})
            for i in range(len(part)):
                one = {k: v[i] if v.shape[:1] == (size,) else v for k, v in outputs.items()}
                file, number = origins[start + i]
                if as_json:
                    documents.append(_document(file, number, one))
                else:
                    show(file, number, one, names)
    finally:
        loaded.close()
    if as_json:
        output.print_json(documents)


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
