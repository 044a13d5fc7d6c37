"""`netdef sample`: text from a trained net of characters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from netdef.cli import options
from netdef.cli.guard import warn
from netdef.interrupts import INTERRUPTED

if TYPE_CHECKING:
    from schemas.precision import Precision


@click.command()
@click.argument("net", metavar="NET|SNAPSHOT")
@options.weights_option(required=False)
@click.option(
    "--length",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Number of characters.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.8,
    show_default=True,
    help="Below 1 likely characters become likelier; 0 takes the likeliest.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, another text.")
@click.option("--prompt", default="", metavar="TEXT", help="What the text begins with.")
@options.reading_options
@options.layer_set_option
@options.backend_option
@options.precision_option
@options.threads_option
def sample(
    net: str,
    weights: str | None,
    length: int,
    temperature: float,
    seed: int,
    prompt: str,
    reading: options.Reading,
    sets: tuple[str, ...],
    backend: str,
    precision: Precision | None,
    threads: int | None,
) -> int:
    """Write text with a net that reads TextData, character by character.

    \b
    Give a snapshot or the folder of a run, or NET with --weights:
      netdef sample runs/char_rnn-20260101-120000 --prompt "def "
    """
    from netdef.sampling import check_prompt, open_sampler

    file, arrays = find(net, weights)
    check_prompt(prompt)
    spec = options.read_net(file, sets, reading)
    sampler = open_sampler(spec, backend, threads, precision)
    try:
        warn(sampler.net.load_weights(arrays))
        print(prompt, end="", flush=True)
        for character in sampler.characters(length, temperature, seed, prompt):
            print(character, end="", flush=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        print()
        sampler.net.close()
    return 0


def find(net: str, weights: str | None) -> tuple[str, str]:
    """Returns the files of the net and of its weights. Raises NetError.

    The net of a snapshot lies beside it, in the folder of the run that wrote it.
    """
    from runtime.snapshot import find_snapshot
    from schemas.errors import UsageError

    path = Path(net)
    kept = path.is_dir() or path.suffix in (".json", ".safetensors")
    if not kept and not path.with_name(path.name + ".json").is_file():
        if weights is None:
            hint = "give --weights FILE, or a snapshot in place of NET"
            raise UsageError(f"'{net}' has no weights", hint=hint)
        return net, weights
    stem = find_snapshot(path)
    for name in ("net.yaml", "train_net.yaml"):
        if (stem.parent / name).is_file():
            return str(stem.parent / name), weights or f"{stem}.safetensors"
    hint = "give the net's file, and the snapshot as --weights"
    raise UsageError(f"there is no net.yaml beside the snapshot '{stem}'", hint=hint)
