"""Losses of training steps: read late, averaged over a window, checked for NaN."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping

from runtime.executable import Executable
from schemas.errors import GraphError, NetError
from schemas.solver import SolverSpec


class Losses:
    """The loss of each iteration: sum of weight * output, as mean over its `iter_size` passes.

    Outputs of one element stay on the device until `collect`, so that a step does not wait. A loss
    of more elements counts with their sum and has to be read after each pass.
    """

    def __init__(self, exe: Executable, spec: SolverSpec) -> None:
        program = exe.program
        if not program.loss_weights:
            message = f"the training net '{program.name}' has no loss"
            raise GraphError(message, hint="add a layer such as SoftmaxWithLoss")
        shown = dict.fromkeys((*program.outputs, *program.loss_weights))
        single = [n for n in shown if math.prod(program.tensors[n].shape) == 1]
        self.exe = exe
        self.spec = spec
        self.names: tuple[str, ...] = tuple(single)  # what each run is to log
        self.window: deque[float] = deque(maxlen=max(1, spec.average_loss))
        self.unread = 0  # passes since the last `collect`
        self.outputs: dict[str, float] = {}  # those of the last collected pass
        self._weights = {n: w for n, w in program.loss_weights.items() if n in single}
        self._wide = {n: w for n, w in program.loss_weights.items() if n not in single}
        self._wide_losses: list[float] = []
        self._next = 0  # the iteration of the oldest uncollected pass

    def ran(self) -> None:
        """Notes that a pass has been started."""
        self.unread += 1
        if self._wide:
            total = sum(w * float(self.exe.read(n).sum()) for n, w in self._wide.items())
            self._wide_losses.append(total)

    def collect(self) -> None:
        """Waits for the losses of all passes so far. Raises NetError if one is NaN or infinite."""
        if not self.unread:
            return
        logged: list[Mapping[str, float]] = self.exe.drain() if self.names else [{}] * self.unread
        size = self.spec.iter_size
        assert len(logged) == self.unread and self.unread % size == 0, (len(logged), self.unread)
        wide = self._wide_losses or [0.0] * self.unread
        values = [
            sum((w * row[n] for n, w in self._weights.items()), more)
            for row, more in zip(logged, wide, strict=True)
        ]
        self.unread = 0
        self._wide_losses = []
        program = self.exe.program
        self.outputs = {n: float(logged[-1][n]) for n in self.names if n in program.outputs}
        for start in range(0, len(values), size):
            loss = sum(values[start : start + size]) / size
            if not math.isfinite(loss):
                raise NetError(
                    f"the loss is {loss} at iteration {self._next}",
                    self.spec.where("base_lr"),
                    "lower base_lr, add warmup_iter, or set clip_gradients",
                )
            self.window.append(loss)
            self._next += 1

    @property
    def smoothed(self) -> float:
        """Returns the mean loss of the last `average_loss` collected iterations."""
        return math.fsum(self.window) / len(self.window)

    def restart(self, iteration: int, window: Iterable[float]) -> None:
        """Drops what is not collected, and goes on at `iteration` with a known window."""
        if self.unread and self.names:
            self.exe.drain()
        self.unread = 0
        self._wide_losses = []
        self._next = iteration
        self.window.clear()
        self.window.extend(window)
