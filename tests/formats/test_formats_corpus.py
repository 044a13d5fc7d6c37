"""Reads every published net and solver of the corpus beside the checkout, where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from netdef.formats import read_spec
from schemas.errors import NetError
from schemas.net import NetSpec

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
FILES = sorted(p for p in CORPUS.rglob("*") if p.suffix in (".prototxt", ".pt"))

pytestmark = pytest.mark.skipif(not FILES, reason="no corpus beside the checkout")

# What Caffe (BVLC) refuses too: fields of a fork.
REJECTED = {
    **dict.fromkeys(
        (
            "chuanqi305__MobileNet-SSD/solver_test.prototxt",
            "chuanqi305__MobileNet-SSD/solver_train.prototxt",
            "chuanqi305__MobileNet-SSD/voc/solver.prototxt",
        ),
        ["unknown field 'eval_type'", "unknown field 'ap_version'"],
    ),
}


def test_every_file_is_read_or_rejected_for_a_known_reason() -> None:
    rejected: dict[str, list[str]] = {}
    nets = layers = 0
    for path in FILES:
        try:
            spec = read_spec(path)
        except NetError as error:
            rejected[path.relative_to(CORPUS).as_posix()] = [e.message for e in error.flatten()]
            continue
        if isinstance(spec, NetSpec):
            nets += 1
            layers += len(spec.layers)
            for layer in spec.layers:
                assert layer.name.text and layer.type.text and layer.span.line > 0
    assert rejected == REJECTED
    assert (len(FILES), nets) == (329, 232)
    assert layers > 15_000


def test_old_forms_become_current_types() -> None:
    types = {
        layer.type.text
        for path in FILES
        if "C3D-v1.0" in str(path) and "solver" not in path.name
        for layer in read_spec(path).layers  # type: ignore[union-attr]
    }
    assert {"InnerProduct", "ReLU", "SoftmaxWithLoss", "Convolution3D"} <= types
    assert not {"INNER_PRODUCT", "RELU", "SOFTMAX_LOSS", "conv"} & types
