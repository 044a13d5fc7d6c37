"""Caffe's own published nets and solvers check, without their data; skipped without the corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.layers import layer_types
from netdef.cli.checking import judge
from netdef.formats.caffe_names import TYPES

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
FILES = sorted((CORPUS / "BVLC__caffe").rglob("*.prototxt"))


@pytest.mark.skipif(not FILES, reason="no corpus beside the checkout")
def test_caffes_own_files_check() -> None:
    missing = TYPES - layer_types().keys()  # types of Caffe's that are not built yet
    passed = 0
    for path in FILES:
        verdict = judge(str(path), {})
        unknown = {e.message.partition("unknown layer type ")[2].strip("'") for e in verdict.errors}
        assert unknown <= missing, (path, verdict.errors)
        passed += not verdict.errors
    assert passed > 40
