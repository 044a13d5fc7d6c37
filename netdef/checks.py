"""What `netdef check` finds in a net or a solver: each phase and stage, without data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compiler.frontend.build import Attempt
from compiler.ir.graph import Graph
from compiler.layers import is_loss, layer_types
from netdef.probing import examine, phases_used, states_of
from netdef.solver import MissingNet, need_loss, need_same_weights, nets_of
from runtime.schedule import check_schedule
from schemas.errors import (
    Diagnostics,
    NetError,
    Question,
    StageError,
    UnknownField,
    near,
)
from schemas.net import NetSpec, NetState
from schemas.solver import SolverSpec

Shape = tuple[int, ...]


@dataclass
class Findings:
    """What is right and wrong with a file; `graphs` are the nets that were built."""

    phases: tuple[str, ...] = ()
    graphs: list[Graph] = field(default_factory=list)
    errors: list[NetError] = field(default_factory=list)
    warnings: list[NetError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is said after the errors


@dataclass(frozen=True)
class _Trial:
    """One net of a file."""

    state: NetState
    found: Attempt

    @property
    def astray(self) -> bool:
        """Whether a layer reads what is only made in another phase or stage."""
        return any(isinstance(error, StageError) for error in self.found.errors)

    def __str__(self) -> str:
        stages = f", stage {' and '.join(self.state.stages)}" if self.state.stages else ""
        return f"phase {self.state.phase}{stages}"


def check_net(spec: NetSpec, shapes: Mapping[str, Shape], stages: bool = True) -> Findings:
    """Checks a net in each phase and, with `stages`, each stage that it has layers for.

    A file need not describe a net for each: where layers read what is made in another one, that is
    a warning, if there is one where they do not.
    """
    trials: dict[tuple[int, ...], _Trial] = {}
    for state in states_of(spec) if stages else [spec.state]:
        for phase in phases_used(spec, state):
            rest = (state.level or 0, frozenset(state.stages))
            used = tuple(i for i, one in enumerate(spec.layers) if one.used(phase, *rest))
            key = (phase == "TRAIN", *used)
            if key not in trials:
                full = NetState(phase).merged(state)
                trials[key] = _Trial(full, _examined(spec, phase, full, shapes))
    return _judged(list(trials.values()))


def check_solver(
    spec: SolverSpec, shapes: Mapping[str, Shape], allow_python_layers: bool = False
) -> Findings:
    """Checks a solver and its nets; that a net's file is not there is a warning."""
    diag = Diagnostics()
    check_schedule(spec, diag)
    if diag.errors:
        return Findings(errors=diag.errors, warnings=list(spec.warnings))
    try:
        nets, spec = nets_of(spec, allow_python_layers=allow_python_layers)
    except MissingNet as missing:
        return Findings(warnings=[*spec.warnings, missing])
    trials = [
        _Trial(state, _examined(net, state.phase or "TRAIN", state, shapes)) for net, state in nets
    ]
    findings = _judged(trials, meant=True)
    findings.warnings[:0] = spec.warnings
    graphs = [trial.found.graph for trial in trials]
    if not any(trial.found.errors or trial.found.questions for trial in trials):
        try:
            need_loss(graphs[0])
            if not any(isinstance(w, Question) for graph in graphs for w in graph.warnings):
                need_same_weights(graphs)
        except NetError as error:
            findings.errors += error.flatten()
    return findings


def _examined(spec: NetSpec, phase: str, state: NetState, shapes: Mapping[str, Shape]) -> Attempt:
    """Examines a net; of one with cycles also what only a part of the compiler can tell."""
    found = examine(spec, phase, state, shapes)
    if found.graph.recurrences and not (found.errors or found.questions):
        from compiler.pipeline import check_time

        try:
            check_time(found.graph)
        except NetError as error:
            found.errors.extend(error.flatten())
    return found


def _judged(trials: Sequence[_Trial], meant: bool = False) -> Findings:
    """Joins what was found; `meant`: all of these nets have to be right."""
    findings = Findings(tuple(dict.fromkeys(t.state.phase or "TRAIN" for t in trials)))
    notes: dict[str, str] = {}
    for trial in trials:
        found = trial.found
        errors = found.errors
        if trial.astray and not meant and _described_elsewhere(trial, trials):
            rest = [error for error in errors if isinstance(error, StageError)]
            errors = [error for error in errors if error not in rest]
            message = f"the file describes no net for {trial}: {rest[0].message}"
            findings.warnings.append(StageError(message, rest[0].span, rest[0].hint))
        else:
            findings.graphs.append(found.graph)
            if note := _note(found):
                notes.setdefault(note, f"{trial}: ")
        findings.errors += errors
        findings.warnings += [*found.graph.warnings, *found.questions]
    findings.notes = [(who if len(notes) > 1 else "") + note for note, who in notes.items()]
    foreign = (e for e in findings.errors if isinstance(e, UnknownField))
    if any("did you mean" not in (e.hint or "") for e in foreign):
        findings.notes.append("--lenient passes over unknown fields, with a warning for each")
    return findings


def _described_elsewhere(trial: _Trial, trials: Sequence[_Trial]) -> bool:
    """Returns whether a net without a way in is no mistake: another stage has it, or TEST has."""
    others = [t for t in trials if t is not trial and not t.astray]
    if any(t.state.phase == trial.state.phase for t in others):
        return True
    trained = any(is_loss(layer.type.text) for layer in trial.found.layers)
    return bool(others) and trial.state.phase == "TRAIN" and not trained


def _note(found: Attempt) -> str | None:
    """Says how much of a net is untouched by a layer that cannot be built."""
    stuck = found.wrong + len(found.questions)
    types = layer_types()
    foreign = {layer.type.text for layer in found.layers} - types.keys()
    unknown = any(near(name, types) is None for name in foreign)
    if not stuck or not (found.unreached or unknown):
        return None
    total, fine = len(found.layers), len(found.graph.layers)
    which = "is" if stuck == 1 else "are"
    cannot = f"{stuck} of {total} layers {which} wrong or unknown"
    rest = found.unreached
    depend = f"{rest or 'none'} depend{'s' * (rest == 1)} on {'it' if stuck == 1 else 'them'}"
    others = f"; the other {fine} {'is' if fine == 1 else 'are'} fine" if fine else ""
    return f"{cannot}, {depend}{others}"
