"""The oracle: evaluates the graph with NumPy in float64, unfused."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.backends import Compiled
from compiler.ir.evaluate import evaluate
from compiler.kernels.kernel import Kernel
from compiler.kernels.kernel_text import render
from compiler.kernels.schedule import Launch, Loop, Place, Schedule
from compiler.lowering.traits import Traits
from compiler.prims.registry import Array, Env
from compiler.tilings import Tilings, Tunable
from schemas.errors import PrecisionError
from schemas.precision import Precision
from schemas.program import Dtype, Program, Tensor, written_out

if TYPE_CHECKING:
    from compiler.unit import Unit


class Backend:
    """Renders kernels as pseudo-code and compiles nothing; `ReferenceExecutable` runs the graph."""

    name = "reference"
    precision = "fp64"

    def __init__(self, target: str | None = None, precision: Precision | None = None) -> None:
        if precision is not None:
            hint = "leave precision out, or use another backend"
            message = f"the reference backend computes in fp64, not in {precision}"
            raise PrecisionError(message, hint=hint)
        self.target = target or "numpy"
        self.traits = Traits()
        self.tilings = Tilings(self.target)

    def tuned(self, tilings: Tilings) -> Backend:
        return self

    def tunable(self, kernel: Kernel) -> Tunable | None:
        return None

    def version(self) -> str:
        return ""

    def render(self, kernel: Kernel) -> str:
        return render(kernel)

    def note(self, launch: Launch) -> str:
        return "node by node" if isinstance(launch, Loop) else ""

    def compile(
        self, name: str, schedule: Schedule, places: Mapping[str, Place], slots: tuple[str, ...]
    ) -> Compiled:
        text = {f"{kernel.name}.txt": render(kernel) for kernel in schedule.kernels()}
        return Compiled((), text=text)


class ReferenceExecutable:
    """A graph that is evaluated primitive by primitive (the protocol of runtime.Executable)."""

    def __init__(
        self,
        unit: Unit,
        program: Program,
        share: ReferenceExecutable | None = None,
        float_dtype: type[np.floating[Any]] = np.float64,
    ) -> None:
        self.program = program
        self._graph = unit.graph
        self._env = Env(float_dtype=float_dtype, hosts=unit.graph.hosts)
        self._results: dict[str, Array] = {}
        self._log: list[Mapping[str, float]] = []
        known = share._env.feeds if share is not None else {}
        leaves: dict[tuple[str, str], tuple[tuple[int, ...], Dtype]] = {}
        for key, shape in unit.lasting().items():
            leaves[key] = (shape, "f32")
        for node in unit.graph.nodes():
            if node.prim in ("input", "param", "state", "scalar"):
                leaves[node.prim, str(node.attr("name"))] = (node.shape, node.dtype)
        for (prim, name), (shape, dtype) in leaves.items():
            kept = known.get((prim, name)) if prim in ("param", "state") else None
            if kept is None or kept.shape != shape:
                kept = np.zeros(shape, self._env.dtype(dtype))
            if name in unit.tables:
                table = written_out(unit.tables[name]).reshape(shape)
                kept = np.asarray(table, self._env.dtype(dtype))
            self._env.feeds[prim, name] = kept

    def _array(self, tensor: Tensor) -> Array:
        """Returns a view of the memory behind a tensor, in the user's shape where it is one."""
        feeds = self._env.feeds
        for prim in ("input", "scalar", "state"):
            if (prim, tensor.name) in feeds:
                return feeds[prim, tensor.name].reshape(tensor.shape)
        if tensor.role == "output":
            return self._results[tensor.name]
        blocks = [feeds.get((prim, tensor.slot)) for prim in ("param", "state")]
        for whole in (*blocks, self._results.get(tensor.slot)):
            if whole is not None:
                block = whole.reshape(-1)[tensor.offset // 4 :]
                step = block.itemsize
                return np.lib.stride_tricks.as_strided(
                    block, tensor.view, tuple(s * step for s in tensor.strides)
                )
        return np.zeros(tensor.view, self._env.dtype(tensor.dtype))

    def write(self, name: str, value: Array | float | int) -> None:
        tensor = self.program.tensors[name]
        if tensor.role == "scalar":
            if name == "iteration":
                self._env.iteration = int(value) & 0xFFFFFFFF
            elif name in ("seed_lo", "seed_hi"):
                low, high = self._env.seed & 0xFFFFFFFF, self._env.seed >> 32
                word = int(value) & 0xFFFFFFFF
                low, high = (word, high) if name == "seed_lo" else (low, word)
                self._env.seed = low | high << 32
            if ("scalar", name) in self._env.feeds:
                self._env.feeds["scalar", name][...] = value
            return
        target = self._array(tensor)
        target[...] = np.asarray(value, target.dtype).reshape(target.shape)

    def read(self, name: str) -> Array:
        tensor = self.program.tensors[name]
        return np.array(self._array(tensor)).reshape(tensor.shape)

    def run(self, log: tuple[str, ...] = ()) -> None:
        graph = self._graph
        fetched = graph.fetched
        values = evaluate(graph.roots(), self._env, graph.recurrences)
        self._results = dict(zip(fetched, values, strict=False))
        for leaf, value in zip(graph.updates, values[len(fetched) :], strict=False):
            self._env.feeds[leaf.prim, str(leaf.attr("name"))][...] = value
        if log:
            self._log.append({name: float(self.read(name)) for name in log})

    def drain(self) -> list[Mapping[str, float]]:
        done, self._log = self._log, []
        return done

    def time(self) -> tuple[float, Array | None]:
        begun = time.perf_counter()
        self.run()
        return time.perf_counter() - begun, None

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def close(self) -> None:
        self._results = {}
