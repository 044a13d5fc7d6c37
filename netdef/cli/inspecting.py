"""`netdef inspect`: every stage of a compilation, on the screen or in a folder."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netdef.cli import options, output

if TYPE_CHECKING:
    from netdef.inspecting import Inspection

STAGES = ("spec", "graph", "backward", "fused", "kernels", "code", "memory")
GPU = "sm_90"


@click.command()
@options.net_argument
@click.option("--stage", type=click.Choice(STAGES), help="Print this stage.")
@click.option("-o", "--output", "folder", metavar="DIR", help="Write all stages into DIR.")
@click.option("--solver", metavar="SOLVER", help="The training step of this solver (plain SGD).")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="cpu, sm_80, sm_90, sm_100, gfx942 or reference; several with -o (cpu and sm_90).",
)
@options.precision_option
@options.phase_option()
@functools.partial(options.reading_options, stage="--net-stage")
@options.shape_option
@options.layer_set_option
def inspect(
    net: str, stage: str | None, folder: str | None, targets: tuple[str, ...], **given: Any
) -> None:
    """Show what NET becomes on its way to machine code.

    \b
    spec      the file as read: blocks filled in, nothing left out
    graph     the forward pass, one primitive a line
    backward  what gradients and update add to it
    fused     launches and kernels as loops, with the spec lines they came from
    kernels   the rendered source: LLVM IR (equal functions once) or Triton
    code      assembly or PTX
    memory    where every buffer lies, and when

    In phase TRAIN (if the net has it) the whole training step is shown, else a forward pass.
    """
    from netdef.formats import read_solver
    from netdef.inspecting import LAST_PASS, Inspection
    from netdef.spec_text import net_yaml
    from netdef.stepping import step_of

    if (stage is None) == (folder is None):
        raise click.UsageError("give either --stage STAGE or -o DIR")
    if stage is not None and len(targets) > 1:
        raise click.UsageError("one --target at a time goes with --stage")
    spec = options.read_net(net, given["sets"], given["reading"])
    if stage == "spec":
        print(net_yaml(spec), end="")
        return
    rule = read_solver(given["solver"]) if given["solver"] is not None else None
    step, arena, _, _ = step_of(spec, given["phase"], options.read_shapes(given["shapes"]), rule)
    chosen = targets or (("cpu", GPU) if folder else ("cpu",))
    asked, where = given["precision"], None
    if asked is None and rule is not None:
        asked, where = rule.precision, rule.where("precision")
    made = [Inspection(spec, step, arena, target, asked, where) for target in chosen]
    if stage is not None:
        made[0].run(LAST_PASS[stage])
        print(made[0].stage(stage), end="")
    else:
        assert folder is not None
        _write_all(made, Path(folder), bool(targets))


def _write_all(made: list[Inspection], folder: Path, strict: bool) -> None:
    """Writes all stages; a target that the user did not name may be missing."""
    from netdef.inspecting import all_files
    from schemas.errors import BackendError

    found: dict[str, Inspection | str] = {}
    errors = []
    for one in made:
        try:
            one.run()
            found[one.target] = one
        except BackendError as error:
            errors.append(error)
            if strict or len(errors) == len(made):
                raise errors[0] from None
            found[one.target] = f"no code for {one.target}: {error.message}; {error.hint or ''}"
    files = all_files(found)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        output.write_file(folder / name, data)
    for name in sorted(files):
        if not name.startswith("05_kernels"):
            print(folder / name)
    for target, one_or_reason in found.items():
        kernels = folder / "05_kernels" / target
        count = sum(name.startswith(f"05_kernels/{target}/") for name in files)
        reason = one_or_reason if isinstance(one_or_reason, str) else f"{count} files"
        print(f"{kernels}: {reason}")
