"""Programs of kernels that are built by hand: compiled, filled, run, compared with the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from compiler.backends.triton import Backend
from compiler.kernels.index import bounds
from compiler.kernels.kernel import SCALAR_BUFFER, SCALARS, Kernel
from compiler.kernels.schedule import Buffer, Launch, Place, Schedule
from compiler.tilings import Tiling, Tilings
from schemas.program import ITEMSIZE, Program, Slot, Tensor
from tests.kernel_oracle import TYPES, run_schedule


def sizes(kernels: Sequence[Kernel]) -> dict[str, tuple[int, str]]:
    """Returns the least length and the type of each buffer that the kernels touch."""
    found: dict[str, tuple[int, str]] = {}
    for kernel in kernels:
        for e in kernel.accesses():
            length = max(bounds(e.offset)[1] + 1, found.get(e.buffer, (1, ""))[0])
            found[e.buffer] = length, e.dtype
    return {**found, SCALAR_BUFFER: (len(SCALARS), "f32")}


def program(backend, *launches: Launch) -> Program:
    """Compiles launches, every buffer in a slot and a tensor of its own."""
    kernels = [k for launch in launches for k in launch]
    tensors, buffers, slots = {}, {}, []
    for name, (length, dtype) in sizes(kernels).items():
        slots.append(Slot(name, length * ITEMSIZE[dtype], True))
        buffers[name] = Buffer(name, dtype, length, "state")
        tensors[name] = Tensor(name, "state", dtype, (length,), name, 0, (length,), (1,))
    for kernel in kernels:
        if kernel.parts is not None:
            name, points = kernel.parts.buffer, prod(a.size for a in kernel.space)
            length = kernel.parts.count * points * len(kernel.reduces)
            slots.append(Slot(name, 4 * length, False))
            buffers[name] = Buffer(name, "f32", length, "inner")
    places = {name: Place(name, 0) for name in buffers}
    made = backend.compile("hand", Schedule(launches, buffers), places, tuple(buffers))
    return Program(
        "hand",
        backend.target,
        made.launches,
        (*slots, *made.slots),
        tensors,
        code=made.code,
        text=made.text,
    )


def contents(launches, seed=0) -> dict[str, np.ndarray]:
    """Returns random contents for all buffers, those that name positions within what they name."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, (length, dtype) in sizes([k for launch in launches for k in launch]).items():
        if dtype == "f32":
            found[name] = rng.standard_normal(length).astype(np.float32)
        elif dtype == "bool":
            found[name] = rng.random(length) < 0.5
        else:
            found[name] = rng.integers(0, 8, length).astype(TYPES.get(dtype, np.int32))
    words = np.array([7, 123456789, -2, 0, 0, 0], np.int32)
    words[3:] = np.array([0.25, 1, 1], np.float32).view(np.int32)
    found[SCALAR_BUFFER] = words.view(np.float32)
    return found


def check(device, backend, *launches: Launch, tolerance=2e-5, seed=0) -> None:
    """Runs launches on a device and with the oracle, and compares all buffers."""
    wanted = contents(launches, seed)
    executable = device.load(program(backend, *launches))
    try:
        for name, value in wanted.items():
            executable.write(name, value)
        executable.run()
        got = {name: executable.read(name) for name in wanted}
    finally:
        executable.close()
    run_schedule(Schedule(launches, {}), wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(
            got[name], value, rtol=tolerance, atol=tolerance, err_msg=f"{launches} {name}"
        )


def tuned(made: Backend, kernel: Kernel, tiling: Tiling) -> Backend:
    """Returns a backend whose table says how this kernel is tiled."""
    return made.tuned(Tilings(made.target, {made.tunable(kernel).key: tiling}))
