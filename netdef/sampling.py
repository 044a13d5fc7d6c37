"""Text from a net of characters: one step at a time, its state carried along."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from netdef.net import Net
from runtime.data.text import CLASSES, VOCABULARY, encode
from schemas.errors import GraphError, NetError, UsageError
from schemas.net import LayerSpec, NetSpec
from schemas.philox import uniform
from schemas.precision import Precision

Array = np.ndarray[Any, Any]
TEXT = "TextData"
BEFORE = "\n"  # what a net reads first where there is no prompt
_STREAM = 0x74657874  # "text": keeps these random words apart from those of the net


@dataclass(frozen=True)
class Sampler:
    """A net of one step and one sequence: `text` and `marks` are inputs, `prob` is an output."""

    net: Net
    text: str
    marks: tuple[str, ...]
    prob: str

    def characters(
        self, length: int = 500, temperature: float = 0.8, seed: int = 1, prompt: str = ""
    ) -> Iterator[str]:
        """Yields characters that follow the prompt, each drawn with probability p^(1/temperature).

        0 takes the likeliest. The same seed gives the same text. Characters that are not in the
        vocabulary are never drawn.
        """
        check_prompt(prompt)
        if not temperature >= 0:
            raise UsageError(f"the temperature must be 0 or more, not {temperature:g}")
        self.net.reset_state()
        read = encode(prompt or BEFORE)
        for place, code in enumerate(read):
            p = self._step(code, place == 0)
        for i in range(length):
            code = 1 + drawn(p[1:], temperature, uniform(seed, _STREAM, i, 1)[0])
            yield VOCABULARY[code - 1]
            p = self._step(code, False)

    def _step(self, code: int, first: bool) -> Array:
        """Returns the probability of each class after one more character."""
        marks = {name: np.full((1, 1), 0.0 if first else 1.0) for name in self.marks}
        given = {self.text: np.full((1, 1), float(code)), **marks}
        p = self.net.forward(self.prob, **given)[self.prob].ravel().astype(np.float64)
        if not np.isfinite(p).all():
            raise NetError("the net's probabilities are not finite numbers: its weights are broken")
        return p


def drawn(p: Array, temperature: float, u: float) -> int:
    """Returns the class at u in [0, 1) of the distribution p^(1/temperature)."""
    if temperature == 0:
        return int(np.argmax(p))
    with np.errstate(divide="ignore"):  # log 0: a class that is never drawn
        scores = np.log(p / p.max()) / temperature
    ends = np.cumsum(np.exp(scores))
    return min(int(np.searchsorted(ends, u * ends[-1], side="right")), len(p) - 1)


def check_prompt(prompt: str) -> None:
    """Raises UsageError for characters that the net has no class for."""
    wrong = "".join(dict.fromkeys(c for c in prompt if c not in VOCABULARY))
    if wrong:
        hint = "printable ASCII characters, tab and line feed"
        raise UsageError(
            f"the prompt has characters outside of the vocabulary: {wrong!a}", hint=hint
        )


def open_sampler(
    spec: NetSpec,
    backend: str = "auto",
    threads: int | None = None,
    precision: Precision | None = None,
) -> Sampler:
    """Returns the sampler of a net that reads TextData, its weights still to be loaded.

    Raises NetError for a net that cannot go on character by character.
    """
    text = _text_layer(spec)
    marks = tuple(top.text for top in text.tops[2:])
    name = text.tops[0].text
    inputs = dict.fromkeys((name, *marks), (1, 1))
    _check_states(spec)
    net = Net(
        replace(spec, carry_state=True),
        backend=backend,
        precision=precision,
        threads=threads,
        deploy=True,
        inputs=inputs,
    )
    try:
        return Sampler(net, name, marks, _probabilities(net, set(inputs)))
    except NetError:
        net.close()
        raise


def _text_layer(spec: NetSpec) -> LayerSpec:
    level, stages = spec.state.level or 0, frozenset(spec.state.stages)
    used = [one for one in spec.layers if one.used("TEST", level, stages)]
    found = [one for one in used if one.type.text == TEXT]
    if len(found) != 1:
        count = "no" if not found else f"{len(found)}"
        message = f"net '{spec.name}' has {count} {TEXT} layer{'s' * (len(found) > 1)}"
        raise UsageError(message, spec.span, "sample continues the text of nets such as char_rnn")
    return found[0]


def _check_states(spec: NetSpec) -> None:
    """Raises where a state would begin anew with each character."""
    for layer in spec.layers:
        if layer.initial is not None and not isinstance(layer.initial.data, int | float):
            message = f"layer '{layer.name}' ({layer.type}): its state does not go on from batch "
            message += f"to batch: initial: {layer.initial.data}"
            raise GraphError(message, layer.initial.span, "sample needs a state that is a number")


def _probabilities(net: Net, known: set[str]) -> str:
    """Returns the blob with the probability of each character."""
    graph = net.graph
    if others := [name for name in net.inputs if name not in known]:
        message = f"net '{graph.name}' has inputs beside its text: {', '.join(others)}"
        raise UsageError(message, net.spec.span)
    if any(r.delay < 0 for r in graph.recurrences):
        message = f"net '{graph.name}' reads characters that are still to come"
        raise UsageError(message, net.spec.span, "sample needs a net without reverse: true, h[t+1]")
    for info in reversed(graph.layers):
        if info.type == "Softmax" and graph.blobs[info.tops[0][0]].type.size == CLASSES:
            return info.tops[0][0]
    message = f"net '{graph.name}' has no softmax over the {CLASSES} classes of characters"
    raise UsageError(message, net.spec.span, f"num_output: {CLASSES}, then SoftmaxWithLoss")
