"""Runs a layer from Caffe's text form through the public API beside an oracle in float64."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import netdef

Array = np.ndarray[Any, Any]
Values = dict[str, Array]
STEP = 1e-5  # of the central differences: their error is about 1e-9 of the third derivative
# Of the largest number in an array: float64 beside finite differences, float32 beside float64.
TOLERANCE = {"reference": (1e-9, 2e-7), "cpu": (2e-5, 5e-5)}


@dataclass(frozen=True)
class Case:
    """A layer `l` in prototxt, its bottoms and blobs, and what it must compute from them.

    `oracle(**bottoms, **blobs)` returns the top, or a tuple of all tops. Expected gradients are its
    central differences; where Caffe's are not the slope, `slopes(seeds, **bottoms, **blobs)` gives
    them. No gradient is expected of what `fixed` names.
    """

    name: str
    layer: str
    bottoms: Mapping[str, Array]
    oracle: Callable[..., Any]
    blobs: Mapping[str, Array]
    tops: tuple[str, ...]
    phase: str
    fixed: tuple[str, ...] = ()
    slopes: Callable[..., Values] | None = None
    tolerance: float = 1.0

    def __str__(self) -> str:
        return self.name

    @property
    def values(self) -> Values:
        return {**self.bottoms, **self.blobs}

    @property
    def text(self) -> str:
        return header(self.bottoms) + self.layer

    def tops_of(self, values: Mapping[str, Array]) -> Values:
        made = self.oracle(**values)
        made = made if isinstance(made, tuple) else (made,)
        return dict(zip(self.tops, (np.asarray(top, np.float64) for top in made), strict=True))


@dataclass
class Table:
    """A list of cases that is written row by row."""

    rows: list[Case] = field(default_factory=list)

    def __call__(
        self,
        name: str,
        kind: str,
        body: str,
        bottoms: Mapping[str, Any],
        oracle: Callable[..., Any],
        *,
        blobs: Mapping[str, Any] | None = None,
        tops: tuple[str, ...] = ("y",),
        phase: str = "TRAIN",
        **flags: Any,
    ) -> None:
        """Adds a row; bottoms and blobs are shapes, filled with normal numbers, or arrays."""
        ends = "".join(f' bottom: "{b}"' for b in bottoms) + "".join(f' top: "{t}"' for t in tops)
        layer = f'layer {{ name: "l" type: "{kind}"{ends} {body} }}\n'
        random = np.random.default_rng(zlib.crc32(name.encode()))
        drawn = [
            {key: drawn_from(value, random) for key, value in given.items()}
            for given in (bottoms, blobs or {})
        ]
        self.rows.append(Case(name, layer, drawn[0], oracle, drawn[1], tops, phase, **flags))


def header(bottoms: Mapping[str, Array]) -> str:
    """Returns the inputs of a net as Caffe writes them."""
    lines = []
    for name, value in bottoms.items():
        dims = " ".join(f"dim: {n}" for n in value.shape)
        lines.append(f'input: "{name}" input_shape {{ {dims} }}\n')
    return "".join(lines)


def drawn_from(value: Any, random: np.random.Generator) -> Array:
    """Returns normal numbers of a shape, or the array itself; float64, exact in float32."""
    array = random.standard_normal(value) if isinstance(value, tuple) else np.asarray(value)
    return array.astype(np.float32).astype(np.float64)


def differences(case: Case, seeds: Values, name: str) -> Array:
    """Returns the central differences of sum(seed * top) with respect to a bottom or blob."""
    values = case.values
    found = np.zeros(values[name].shape)

    def total(moved: Array) -> float:
        tops = case.tops_of({**values, name: moved})
        return sum(float((seeds[top] * tops[top]).sum()) for top in seeds)

    for index in np.ndindex(found.shape):
        step = np.zeros(found.shape)
        step[index] = STEP
        found[index] = (total(values[name] + step) - total(values[name] - step)) / (2 * STEP)
    return found


def expected_slopes(case: Case, seeds: Values) -> Values:
    if case.slopes is not None:
        return case.slopes(seeds, **case.values)
    wanted = [name for name in case.values if name not in case.fixed]
    return {name: differences(case, seeds, name) for name in wanted}


def loaded(case: Case, backend: str) -> netdef.Net:
    """Returns the net of a case with its blobs set, after checking their names and shapes."""
    net = netdef.load(text=case.text, format="prototxt", phase=case.phase, backend=backend)
    if case.blobs:
        found = {name: blob.shape for name, blob in net.params["l"].items()}
        assert list(found.items()) == [(name, blob.shape) for name, blob in case.blobs.items()]
        net.params["l"] = case.blobs
    return net


def close(got: Array, want: Array, tolerance: float, name: str) -> None:
    """Asserts that two arrays agree, to `tolerance` times the largest number in the second."""
    assert got.shape == want.shape, f"{name}: shape {got.shape}, not {want.shape}"
    size = max(1.0, float(np.max(np.abs(want), initial=0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * size, err_msg=name)
