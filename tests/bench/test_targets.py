"""What the GPU script says of its targets."""

from __future__ import annotations

from bench.measure import LATE, Comparison, Result, merged
from bench.targets import targets


def row(net: str, precision: str, **ms: float) -> Comparison:
    facts = {
        "launches": 10,
        "planned_bytes": 3 << 20,
        "used_bytes": 5 << 20,
        "device_bytes": 1 << 22,
    }
    results = [Result(peer, [time], facts=facts) for peer, time in ms.items()]
    one = Comparison(net, "train", 64, results, precision=precision)
    return merged(one, one)


def test_each_target_is_met_or_missed_or_not_measured() -> None:
    lenet = row("lenet", "bf16", netdef=0.125, eager=1.0, cuda_graph=0.15)
    resnet = row("resnet50", "bf16", netdef=8.0, eager=16.0)
    late, failing = row("mlp", "bf16", eager=1.0), row("alexnet", "bf16", eager=1.0)
    late.left_out, failing.left_out = {"netdef": LATE}, {"netdef": "its check fails"}
    rows = {(one.net, one.mode, one.precision): one for one in (lenet, resnet, late, failing)}
    times = {"netdef": {"forward": 2.0, "backward": 5.0}, "searched": {"forward": 1.25}}
    measured = {"matmul_8192 bf16": {**times, "torch": {"forward": 1.0, "backward": 4.5}}}
    found = {what: rest for what, *rest in targets(rows, measured)}
    assert found["lenet train bf16, beside eager"] == [">= 5 x", "8 x", "met"]
    assert found["lenet train bf16, beside PyTorch's best"] == [">= 1.5 x", "1.2 x", "MISSED"]
    assert found["lenet train tf32, beside eager"] == [">= 5 x", "-", "not measured"]
    assert found["lenet train bf16, launches"] == ["<= 12", "10", "met"]
    assert found["lenet train bf16, MB planned, used"] == ["", "3, 5", ""]
    assert found["lenet train bf16, items/s"] == ["", "512,000", ""]
    assert found["resnet50 train bf16, items/s"] == [">= 2,800", "8,000", "met"]
    assert found["resnet50 train bf16, memory"] == ["<= 0.8 x", "0.75 x", "met"]
    assert found["googlenet train bf16, memory"] == ["<= 0.8 x", "-", "not measured"]
    assert found["matmul_8192 bf16 forward, beside PyTorch"] == [">= 0.85 x", "0.8 x", "MISSED"]
    assert found["matmul_8192 bf16 backward, beside PyTorch"] == [">= 0.85 x", "0.9 x", "met"]
    assert found["conv3x3_64 bf16 forward, beside PyTorch"][-1] == "not measured"
    assert found["mlp train bf16, beside PyTorch's best"][-1] == "not measured"
    assert found["alexnet train bf16, beside PyTorch's best"] == [">= 1.1 x", "-", "FAILS"]
    assert all(verdict in ("not measured", "") for *_, verdict in list(targets({}, {})))
