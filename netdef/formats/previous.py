"""Finds the bottom of a layer that writes none: the top of the layer before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from netdef.formats.fields import PHASES
from schemas.net import NOWHERE, LayerSpec, Rule

SOURCES = frozenset(
    "Data DummyData HDF5Data ImageData Input MemoryData Parameter WindowData".split()
)
_SINKS = frozenset(["Accuracy", "HDF5Output", "Silence"])


def leads_on(spec: LayerSpec) -> bool:
    """Returns whether a layer after this one can take its top without saying so."""
    kind = spec.type.text
    return bool(spec.tops) and kind not in _SINKS and not kind.endswith("Loss")


def tops_before(spec: LayerSpec, earlier: Sequence[LayerSpec]) -> list[str]:
    """Returns the first top of the layer before `spec`; several where phases disagree.

    A layer that is only perhaps there (it has a stage or level rule) counts, and so does the one
    before it.
    """
    found: dict[str, None] = {}
    for phase in PHASES:
        if not _may_be_in(spec, phase):
            continue
        for before in reversed(earlier):
            if _may_be_in(before, phase):
                found[before.tops[0].text] = None
                if _is_in(before, phase) or _rules(before) == _rules(spec):
                    break
    return list(found)


def _by_phase_alone(rule: Rule) -> bool:
    return replace(rule, phase=None, span=NOWHERE) == Rule()


def _may_be_in(spec: LayerSpec, phase: str) -> bool:
    included = not spec.include or any(r.phase in (None, phase) for r in spec.include)
    return included and not any(
        r.phase in (None, phase) and _by_phase_alone(r) for r in spec.exclude
    )


def _is_in(spec: LayerSpec, phase: str) -> bool:
    included = not spec.include or any(
        r.phase in (None, phase) and _by_phase_alone(r) for r in spec.include
    )
    return included and not any(r.phase in (None, phase) for r in spec.exclude)


def _rules(spec: LayerSpec) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    include, exclude = (
        tuple(replace(r, span=NOWHERE) for r in rules) for rules in (spec.include, spec.exclude)
    )
    return include, exclude
