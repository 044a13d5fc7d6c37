"""PyTorch's memory, counted on tensors without numbers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.cases import CASES, STATIC_CASES

torch = pytest.importorskip("torch")

from bench.torch_memory import Living, peak_bytes  # noqa: E402


def test_a_storage_counts_once_from_its_birth_to_its_end() -> None:
    with Living() as living:
        first = torch.zeros(100)
        view = first.view(10, 10)
        second = view + 1
        assert living.peak == 800
        del first  # its view keeps it
        third = torch.zeros(50)
        assert living.peak == 1000
        del view
        fourth = torch.zeros(100)
        assert living.peak == 1000
        assert len(second) + len(third) + len(fourth) == 160


def test_the_peak_of_a_step() -> None:
    """Of mlp, where the last gradient is made, of ip1's weight: from that of its top."""
    case = CASES["mlp"]
    weights = 785 * 500 + 501 * 250 + 251 * 10
    batch = 784 + 2  # a label has 8 bytes
    expected = 4 * (3 * weights + case.batch * (batch + 500))
    assert peak_bytes(case, narrow=False) == pytest.approx(
        expected, abs=16
    )  # the loss, a word or two


@pytest.mark.parametrize("net", ["lenet", "nin"])
def test_the_peak_grows_with_the_batch_and_shrinks_with_narrow_numbers(net: str) -> None:
    small, large = (replace(STATIC_CASES[net], batch=n) for n in (16, 64))
    assert peak_bytes(small, narrow=False) < peak_bytes(large, narrow=False)
    assert peak_bytes(large, narrow=True) < peak_bytes(large, narrow=False)


def test_predict_has_it_beside_the_plan(tmp_path) -> None:
    path = tmp_path / "static.json"
    done = CliRunner().invoke(main, ["predict", "lenet", "--json", str(path)])
    assert done.exit_code == 0, done.output
    for precision in ("tf32", "bf16"):
        found = json.loads(path.read_text())["predicted"][f"lenet {precision}"]
        assert found["torch_peak"] == peak_bytes(STATIC_CASES["lenet"], precision == "bf16")
        assert f"  {found['peak'] / found['torch_peak']:.2f}  " in done.output


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        ("lenet", "PyTorch's memory is left out: it is not installed ("),
        ("char_rnn_128", "char_rnn_128: PyTorch's memory is left out: what nn.LSTM keeps"),
    ],
)
def test_what_is_not_known_is_left_out_with_a_line(net, reason, tmp_path, monkeypatch) -> None:
    if net == "lenet":
        monkeypatch.setitem(sys.modules, "bench.torch_memory", None)
    path = tmp_path / "static.json"
    done = CliRunner().invoke(main, ["predict", net, "--json", str(path)])
    assert done.exit_code == 0 and done.output.count(reason) == 1, done.output
    kept = json.loads(path.read_text())["predicted"]
    assert [one["torch_peak"] for one in kept.values()] == [None, None]
