"""How PyTorch's operations are timed on a GPU, without one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.cases import OPERATIONS
from bench.peer import STEPS, Job

torch = pytest.importorskip("torch")


class Event:
    """Records what was asked of the device before it."""

    asked: list[str] = []

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.asked.append("event")

    def elapsed_time(self, end: Event) -> float:
        return 2.0


def test_the_device_waits_until_all_is_enqueued(monkeypatch) -> None:
    """Else small operations would be as slow as the host."""
    from bench.torch_micro import TorchOperation

    case = replace(OPERATIONS["conv3x3_64"], batch=1, item=(4, 4, 4))
    operation = TorchOperation(Job("", case, "train", 1), {})
    monkeypatch.setattr(operation, "_device", "cuda")
    monkeypatch.setattr(Event, "asked", [])
    monkeypatch.setattr(torch.cuda, "Event", Event)
    for name in ("_sleep", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *args, name=name: Event.asked.append(name))
    assert operation._milliseconds(lambda: Event.asked.append("work")) == 2.0
    rounds = ["work", "event"] * STEPS
    assert Event.asked == ["work", "_sleep", "event", *rounds, "synchronize"]
