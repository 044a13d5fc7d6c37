"""Published recurrent nets (LRCN, Donahue et al.) check as they are, where the corpus is."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from netdef.cli import cli

LRCN = Path("/work/shared/corpus/LisaAnne__lisa-caffe-public/examples")
FILES = {
    "LRCN_activity_recognition/deploy_lstm.prototxt": ["--stage", "test-on-train"],
    "LRCN_evaluate/deploy_lstm_lstm.prototxt": [],
    "LRCN_evaluate/deploy_lstm_lstm_check.prototxt": [],
}


@pytest.mark.skipif(not LRCN.is_dir(), reason="the corpus is not here")
@pytest.mark.parametrize("name", FILES)
def test_lrcn_checks(name):
    result = CliRunner().invoke(cli, ["check", str(LRCN / name), *FILES[name]])
    assert result.exit_code == 0, result.output
    assert ": ok (" in result.stdout
