"""What netdef is to reach on a GPU, beside what a result file says of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.cases import OPERATIONS
from bench.measure import EARLY, LATE, OURS, Comparison, Result
from schemas.precision import Precision

COLUMNS = ("what", "wanted", "found", "")
# Nets whose kernels are short: how many times as fast as PyTorch's eager mode, and its best one.
SMALL, EAGER, BEST = ("lenet", "mlp", "cifar10_quick"), 5.0, 1.5
LARGE, LEAD = ("alexnet", "googlenet", "resnet18"), 1.1  # beside PyTorch's best mode
RATES = {"resnet50": 2800.0}  # pictures a second
LAUNCHES = {"lenet": 12, "resnet50": 250}  # of a training step, at most
# Planned memory in training, beside the least that PyTorch's allocator reserves in any mode.
LEAN, MEMORY = ("resnet50", "googlenet"), 0.8
PRODUCT, CONVOLUTION = 0.85, 0.9  # of the speed of cuBLAS, of cuDNN
Row = tuple[str, str, str, str]


def targets(
    rows: Mapping[tuple[str, str, str], Comparison], operations: Mapping[str, Any]
) -> Iterator[Row]:
    """Yields each target: what it is about, what is wanted, what was found, and the verdict."""
    trained: list[tuple[str, Precision]] = [
        *((net, p) for p in ("bf16", "tf32") for net in SMALL),
        *((net, "bf16") for net in (*LARGE, *RATES)),
    ]
    for net, precision in trained:
        one = rows.get((net, "train", precision))
        times = {r.peer: r for r in one.results if r.ms} if one else {}
        ours, what = times.get(OURS), f"{net} train {precision}"
        fails = bool(one and one.left_out.get(OURS, LATE) != LATE)
        best = times.get(one.best) if one and one.best else None
        if net in SMALL:
            yield _speed(f"{what}, beside eager", EAGER, ours, times.get("eager"), fails)
        if net not in RATES:
            wanted = BEST if net in SMALL else LEAD
            yield _speed(f"{what}, beside PyTorch's best", wanted, ours, best, fails)
        if net in LAUNCHES:
            most, launches = LAUNCHES[net], ours.facts["launches"] if ours else None
            met = None if launches is None else launches <= most
            yield f"{what}, launches", f"<= {most}", _shown(launches), _verdict(met, fails)
        rate = one.batch / ours.median * 1e3 if one and ours else None
        if least := RATES.get(net):
            met = None if rate is None else rate >= least
            shown = _shown(rate, format=",.0f")
            yield f"{what}, items/s", f">= {least:,.0f}", shown, _verdict(met, fails)
        elif rate is not None:
            yield f"{what}, items/s", "", _shown(rate, format=",.0f"), ""
        if ours:
            yield f"{what}, MB planned, used", "", _memory(ours), ""
        if net in LEAN:
            share = _share(ours, times.values())
            met = None if share is None else share <= MEMORY
            shown = _shown(share, " x")
            yield f"{what}, memory", f"<= {MEMORY:g} x", shown, _verdict(met, fails)
    for name, case in OPERATIONS.items():
        found = operations.get(f"{name} bf16", {})
        wanted = CONVOLUTION if len(case.item) > 1 else PRODUCT
        for way in ("forward", "backward"):
            theirs = found.get("torch", {}).get(way)
            sides = [found.get(side, {}).get(way) for side in ("netdef", "searched")]
            ours_ms = min((ms for ms in sides if ms), default=None)
            share = theirs / ours_ms if theirs and ours_ms else None
            fails = "netdef" in found.get("left_out", {})
            yield _ratio(f"{name} bf16 {way}, beside PyTorch", wanted, share, fails)


def _speed(
    what: str, wanted: float, ours: Result | None, theirs: Result | None, fails: bool
) -> Row:
    share = theirs.median / ours.median if ours and theirs else None
    return _ratio(what, wanted, share, fails)


def _ratio(what: str, wanted: float, found: float | None, fails: bool) -> Row:
    met = None if found is None else found >= wanted
    return what, f">= {wanted:g} x", _shown(found, " x"), _verdict(met, fails)


def _share(ours: Result | None, peers: Iterable[Result]) -> float | None:
    """Returns our planned memory over the least that a peer reserves."""
    sizes = [r.facts.get("device_bytes") for r in peers if r.peer not in (OURS, EARLY)]
    least = min((size for size in sizes if size), default=None)
    return ours.facts["planned_bytes"] / least if ours and least else None


def _shown(found: float | None, unit: str = "", format: str = ".3g") -> str:
    return "-" if found is None else f"{found:{format}}{unit}"


def _verdict(met: bool | None, fails: bool) -> str:
    if met is None:
        return "FAILS" if fails else "not measured"
    return "met" if met else "MISSED"


def _memory(ours: Result) -> str:
    used = ours.facts.get("used_bytes")
    sizes = (ours.facts["planned_bytes"], *([used] if used else []))
    return ", ".join(f"{size / 2**20:,.0f}" for size in sizes)
