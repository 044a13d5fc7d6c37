"""What the device of an engine can do at best, timed right now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netdef.ceilings import Ceilings, ceilings
from netdef.measuring import fill_inputs, measure

if TYPE_CHECKING:
    from netdef.engine import Engine

# On a GPU both are nets of this compiler. Of the two products the second reads and writes
# activations as they lie in the precision; nothing of either net stays in a cache.
SIZE, COPIED = 8192, 2**26
_PRODUCT = """
- {name: first, type: InnerProduct, num_output: SIZE, bias_term: false, weight_filler: xavier}
- {name: second, type: InnerProduct, num_output: SIZE, bias_term: false, weight_filler: xavier}
"""
_COPY = "- {name: copy, type: Power, shift: 1}\n"
_STEPS = 10


def device_ceilings(engine: Engine) -> Ceilings | None:
    """Returns the fastest product and copy; None where nothing can be timed."""
    from runtime.cpu import CpuDevice
    from runtime.cuda import CudaDevice

    if isinstance(engine.device, CpuDevice):
        return ceilings(engine.device.threads)
    if not isinstance(engine.device, CudaDevice):
        return None
    flops, _ = _rates(engine, (SIZE, SIZE), _PRODUCT.replace("SIZE", str(SIZE)))
    _, nbytes = _rates(engine, (COPIED,), _COPY)
    return Ceilings(flops / 1e9, nbytes / 1e9)


def _rates(engine: Engine, shape: tuple[int, ...], layers: str) -> tuple[float, float]:
    """Returns the most operations and the most bytes in a second of any kernel of a net."""
    from netdef.formats import read_net
    from netdef.stepping import step_of

    head = f"layers:\n- {{name: x, type: Input, shape: {list(shape)}}}\n"
    step, arena, *_ = step_of(read_net(text=head + layers, format="yaml"), "TEST")
    exe = engine.load(step, arena)
    try:
        fill_inputs(exe, step.graph.first)
        measured = measure(exe, _STEPS)
    finally:
        exe.close()
    kernels = [k for launch in exe.program.launches for k in launch.kernels]
    timed = [(k, t) for k, t in zip(kernels, measured.kernels(), strict=True) if t]
    return max(k.flops / t for k, t in timed), max(k.bytes / t for k, t in timed)
