"""The launches of a step as CUDA graphs: one, or one before, between and after Python layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import numpy as np

from runtime.calls import Call
from runtime.cuda_driver import Arguments, Driver, Pinned
from runtime.executable import Array
from schemas.errors import BackendError
from schemas.program import Launch, Program


class Step:
    """Captured when it first runs on a side of the inlet, then replayed; and so for `time`.

    `address` says where a slot lies for the next step.

    With programmatic dependent launch a kernel right behind another may begin while that one ends.
    This changes no result: such a kernel (`waits`, see compiler/triton_source/function.py) waits,
    before it touches memory, until the one before has ended and all that it wrote can be seen, and
    so has that one. A kernel that is first, behind an event, or cooperative, begins late.
    """

    def __init__(
        self,
        driver: Driver,
        program: Program,
        address: Callable[[str], int],
        calls: Mapping[int, Call],
    ) -> None:
        self._driver, self._program, self._address = driver, program, address
        launches = program.launches
        self._calls = [_PythonCall(driver, launches[i], address, c) for i, c in calls.items()]
        self._modules: dict[str, tuple[Any, Any]] = {}
        # What is captured into each graph: the launches between two calls, every step of loops.
        self._parts: list[list[tuple[Launch, int]]] = [[]]
        for launch, t in program.runs():
            if launch.call is not None:
                self._parts.append([])
                continue
            self._parts[-1].append((launch, t))
            if launch.code not in self._modules:
                code, meta = program.code[launch.code], launch.meta
                with _about(launch):
                    loaded = driver.function(code, meta["name"], meta["shared"])
                self._modules[launch.code] = loaded
        self._graphs: dict[int, list[Any]] = {}  # by side
        self._timed: dict[int, list[Any]] = {}  # with events: one first, one behind each launch
        self._events: list[list[Any]] = []

    def run(self, side: int) -> None:
        """Enqueues a step."""
        if side not in self._graphs:
            self._graphs[side] = [self._capture(part) for part in self._parts]
        self._replay(self._graphs[side])

    def time(self, side: int) -> Array:
        """Runs a step and returns the seconds of each launch of the program, calls included.

        Launches of a loop count all time steps.
        """
        driver = self._driver
        if not self._events:
            sizes = [1 + len(part) for part in self._parts]
            self._events = [[driver.event(timing=True) for _ in range(n)] for n in sizes]
        if side not in self._timed:
            pairs = zip(self._parts, self._events, strict=True)
            self._timed[side] = [self._capture(part, events) for part, events in pairs]
        self._replay(self._timed[side])
        driver.synchronize()
        events = [event for part in self._events for event in part]
        number = {launch.name: n for n, launch in enumerate(self._program.launches)}
        spent = np.zeros(len(number))
        for (launch, _), ends in zip(self._program.runs(), pairwise(events), strict=True):
            spent[number[launch.name]] += driver.seconds(*ends)
        return spent

    def alone(self, launch: Launch, t: int) -> None:
        """Runs one launch and waits for it: what fails is then this one."""
        graph = self._capture([(launch, t)])
        with _about(launch):
            self._replay([graph])
            self._driver.synchronize()
        self._driver.call("cuGraphExecDestroy", graph)

    def _replay(self, graphs: Sequence[Any]) -> None:
        for i, graph in enumerate(graphs):
            if i:
                self._calls[i - 1].run()
            if graph is not None:
                self._driver.call("cuGraphLaunch", graph, self._driver.stream)

    def _capture(self, part: Sequence[tuple[Launch, int]], events: Sequence[Any] = ()) -> Any:
        """Records launches into a graph, and the events, if there are any, around them.

        Nothing runs yet. Returns None where there is nothing to record.
        """
        driver = self._driver
        if not part and not events:
            return None
        mode = driver.api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        driver.call("cuStreamBeginCapture", driver.stream, mode)
        try:
            for event in events[:1]:
                driver.record_in_graph(event)
            for n, (launch, t) in enumerate(part, 1):
                with _about(launch):
                    self._launch(launch, t, early=driver.pdl and n > 1 and not events)
                for event in events[n : n + 1]:
                    driver.record_in_graph(event)
        except BackendError:  # a stream left capturing would be of no use
            with suppress(BackendError):
                driver.call("cuGraphDestroy", driver.call("cuStreamEndCapture", driver.stream))
            raise
        graph = driver.call("cuStreamEndCapture", driver.stream)
        ready = driver.call("cuGraphInstantiate", graph, 0)
        driver.call("cuGraphDestroy", graph)
        driver.call("cuGraphUpload", ready, driver.stream)
        return ready

    def _launch(self, launch: Launch, t: int, early: bool) -> None:
        meta, (_, function) = launch.meta, self._modules[launch.code]
        assert not meta["profile_scratch"], launch.name
        args = [self._address(slot) + offset for slot, offset in launch.args_at(t)]
        scratch = args.pop() if meta["global_scratch"] else 0
        grid = list(meta["grid"])
        together = bool(meta.get("cooperative"))  # its programs wait for each other
        if together:
            grid[0] = min(grid[0], self._driver.processors)
        early = early and not together and meta.get("waits", False)
        size = grid, meta["threads"], meta["shared"]
        self._driver.launch(function, *size, Arguments(args, scratch), together, early)

    def release(self) -> None:
        """Frees graphs, events and code, which nothing may use any more."""
        parts = (*self._graphs.values(), *self._timed.values())
        for graph in (one for graphs in parts for one in graphs):
            if graph is not None:
                self._driver.call("cuGraphExecDestroy", graph)
        for event in (event for part in self._events for event in part):
            self._driver.call("cuEventDestroy", event)
        for call in self._calls:
            call.release()
        for module, _ in self._modules.values():
            self._driver.call("cuModuleUnload", module)


@contextmanager
def _about(launch: Launch) -> Iterator[None]:
    """Makes an error of the driver say which launch it is about, and what that asks for."""
    try:
        yield
    except BackendError as error:
        layers = ", ".join(dict.fromkeys(layer for k in launch.kernels for layer in k.layers))
        of = f" of {layers}" if layers else ""
        wanted = ", ".join(f"{name} {launch.meta[name]}" for name in ("grid", "threads", "shared"))
        raise BackendError(
            f"launch '{launch.name}'{of}: {error.message}; it has {wanted}", hint=error.hint
        ) from error


class _PythonCall:
    """A call of a Python layer: its blocks go through pinned memory, and the stream waits."""

    def __init__(
        self, driver: Driver, launch: Launch, address: Callable[[str], int], call: Call
    ) -> None:
        assert launch.call is not None
        self._driver, self._address, self._call = driver, address, call
        self._out, *self._given = launch.args
        self._reads, self._writes = launch.call.reads, launch.call.writes
        self._made = Pinned(driver, 4 * self._writes)
        self._values = Pinned(driver, 4 * max(1, self._reads))

    def run(self) -> None:
        for slot, offset in self._given:
            source = self._address(slot) + offset
            self._driver.download(self._values.address, source, 4 * self._reads)
        self._driver.synchronize()  # also for the copy from `made` in the step before
        made = self._call(self._values.bytes.view(np.float32)[: self._reads])
        self._driver.use()  # the layer may have used another GPU
        self._made.bytes.view(np.float32)[: made.size] = made
        slot, offset = self._out
        self._driver.upload(self._address(slot) + offset, self._made.address, 4 * self._writes)

    def release(self) -> None:
        self._made.release()
        self._values.release()
