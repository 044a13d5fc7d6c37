"""PyTorch's side of bench/micro.py: cuBLAS and cuDNN."""

# mypy: disallow-untyped-calls=False, warn-unused-ignores=False, warn-return-any=False

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.peer import STEPS, Array, Job
from bench.torch_side import NARROW, set_precision

_CYCLES = 40_000_000  # that the GPU waits: some 20 ms, for the host to get ahead of it


class TorchOperation:
    """A product or a convolution of activations that lie in the job's precision."""

    def __init__(self, job: Job, data: Mapping[str, Array]) -> None:
        set_precision(job.precision)
        self._device = "cuda" if job.device == "cuda" else "cpu"
        dtype = NARROW.get(job.precision, torch.float32)
        channels, *places = job.case.item
        x = torch.randn(job.case.shape, device=self._device, dtype=dtype)
        shape = (channels, channels, 3, 3) if places else (channels, channels)
        w = torch.randn(shape, device=self._device, dtype=dtype) / channels
        if places:
            x = x.contiguous(memory_format=torch.channels_last)
            w = w.contiguous(memory_format=torch.channels_last)
        self._x, self._w = x.requires_grad_(), w.requires_grad_()
        self._flat = not places

    def _forward(self) -> Tensor:
        if self._flat:
            return functional.linear(self._x, self._w)
        return functional.conv2d(self._x, self._w, padding=1)

    def run(self, count: int) -> None:
        """Runs the operation forward and backward `count` times and waits."""
        for _ in range(count):
            y = self._forward()
            torch.autograd.grad(y, (self._x, self._w), torch.ones_like(y))
        self._wait()

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def result(self) -> list[float]:
        """Returns nothing: there is nothing to compare."""
        return []

    def facts(self) -> dict[str, Any]:
        """Returns the milliseconds of the operation, forward and backward."""
        y = self._forward()
        gradient = torch.randn_like(y)
        leaves = (self._x, self._w)
        with torch.no_grad():
            forward = self._milliseconds(self._forward)
        backward = self._milliseconds(
            lambda: torch.autograd.grad(y, leaves, gradient, retain_graph=True)
        )
        return {"ms": {"forward": forward, "backward": backward}}

    def _milliseconds(self, work: Callable[[], object]) -> float:
        """Returns the median of several runs, all enqueued before the first begins.

        Else the host would be timed, which takes longer to enqueue a small convolution than a GPU
        to run it.
        """
        work()
        if self._device == "cpu":
            times = []
            for _ in range(STEPS):
                begun = time.perf_counter()
                work()
                times.append(1e3 * (time.perf_counter() - begun))
            return statistics.median(times)
        events = [torch.cuda.Event(enable_timing=True) for _ in range(STEPS + 1)]
        torch.cuda._sleep(_CYCLES)
        events[0].record()
        for event in events[1:]:
            work()
            event.record()
        torch.cuda.synchronize()
        return statistics.median(a.elapsed_time(b) for a, b in pairwise(events))

    def close(self) -> None:
        """Nothing to end."""
