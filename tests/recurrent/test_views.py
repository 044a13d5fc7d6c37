"""How recurrence is shown: draw, summary, inspect and time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from compiler.frontend.build import build
from netdef.checks import check_net
from netdef.cli import cli
from netdef.drawing import draw
from netdef.formats import read_net
from tests.recurrent.nets import elman

SVG = "{http://www.w3.org/2000/svg}"
BOTH_WAYS = """
layers:
- {name: x, type: Input, shape: [6, 3, 4]}
- {name: past, type: LSTM, num_output: 5}
- {name: future, type: LSTM, bottom: x, num_output: 5, reverse: true}
- {name: both, type: Concat, bottom: [past, future], axis: 2}
"""


def picture(text, unroll=0):
    graph = build(read_net(text=text, format="yaml"), "TEST")
    return ElementTree.fromstring(draw(graph, unroll))


def words(root):
    return [element.text for element in root.iter(f"{SVG}text")]


def boxes(root):
    """Returns the places and sizes of the boxes by the first name in them."""
    found = {}
    for group in root.findall(f"{SVG}g/{SVG}g"):
        rect, name = group.find(f"{SVG}rect"), group.find(f"{SVG}text").text
        place = tuple(float(rect.get(key)) for key in ("x", "y", "width", "height"))
        found.setdefault(name, []).append(place)
    return found


def test_a_cycle_is_drawn_once_with_an_edge_back():
    root = picture(elman())
    found = boxes(root)
    assert [len(found[name]) for name in ("x", "xh", "hh", "sum", "h")] == [1] * 5
    back = [p for p in root.iter(f"{SVG}path") if "delayed" in (p.get("class") or "")]
    assert len(back) == 1
    assert {"6 steps", "h[t-1]", "6x3x5"} <= set(words(root))


def test_unrolled_only_the_layers_of_the_cycle_are_repeated():
    root = picture(elman(), 3)
    found = boxes(root)
    assert [len(found[name]) for name in ("x", "xh", "hh", "sum", "h")] == [1, 1, 3, 3, 3]
    texts = words(root)
    assert {"t = 0", "t = 1", "t = 2", "… t = 5", "h[-1] = last batch"} <= set(texts)
    assert texts.count("3x5") == 9 and texts.count("6x3x5") == 1
    assert "t = 3" not in texts


def test_no_more_steps_are_drawn_than_there_are():
    texts = words(picture(elman(2), 5))
    assert "t = 1" in texts and "t = 2" not in texts and not any("…" in text for text in texts)


@pytest.mark.parametrize("unroll", [0, 1, 3, 6])
def test_boxes_lie_beside_each_other(unroll):
    found = [box for group in boxes(picture(BOTH_WAYS, unroll)).values() for box in group]
    for i, (x, y, width, height) in enumerate(found):
        for x2, y2, width2, height2 in found[:i]:
            apart_x = x + width <= x2 or x2 + width2 <= x
            assert apart_x or y + height <= y2 or y2 + height2 <= y


def test_what_stands_before_the_first_step():
    texts = words(picture(elman(initial=", initial: learned"), 2))
    assert "h[-1] = learned" in texts
    texts = words(picture("carry_state: false" + elman(initial=", initial: 0.5"), 2))
    assert "h[-1] = 0.5" in texts
    assert "h[T] = 0" in words(picture(BOTH_WAYS, 6))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Calls a command on a net given as text; returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(command, text, *rest):
        (tmp_path / "net.yaml").write_text(text)
        result = CliRunner().invoke(cli, [command, "net.yaml", *rest])
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


def test_draw_takes_the_number_of_steps(run, tmp_path):
    run("draw", elman(), "-o", "net.svg", "--unroll", "2")
    assert "t = 1" in (tmp_path / "net.svg").read_text()


def test_the_summary_marks_the_layers_of_a_cycle(run):
    lines = run("summary", BOTH_WAYS).splitlines()
    ends = {line.split()[0]: line.rpartition("  ")[2] for line in lines if line}
    assert ends["past"] == "1: 6 steps, forwards" and ends["future"] == "2: 6 steps, backwards"
    assert "steps" not in ends["both"]
    layers = json.loads(run("summary", BOTH_WAYS, "--json"))["layers"]
    assert layers[1]["cycle"] == {"number": 1, "steps": 6, "backwards": False}
    assert layers[0]["cycle"] is None


def test_the_graph_says_what_a_delayed_node_is(run):
    text = run("inspect", elman(), "--stage", "graph")
    assert "%8 = delayed %7 by=1 name=h[t-1] : f32[6, 3, 5]  # hh" in text
    assert "%8[t] = %12[t-1]" in text


def test_fused_says_where_the_loop_is(run):
    text = run("inspect", BOTH_WAYS, "--stage", "fused")
    for way in ("forwards", "backwards"):
        line = f"loop over 6 steps, {way}: 2 launches a step; written out up to 4 steps"
        assert line in text
    assert "# from step to step: past~ +15, past.contract +60" in text


def test_fused_says_which_step_is_written_out(run):
    text = run("inspect", elman(2), "--stage", "fused")
    assert "launch 1: step 0 of a loop that is written out" in text
    assert "launch 2: step 1 of a loop that is written out" in text


def test_time_counts_all_steps_of_a_loop(run):
    words = ["--backend", "cpu", "--iterations", "1", "--phase", "test"]
    text = run("time", elman(), *words)
    assert "contract x6" in text
    rows = {k["kernel"]: k for k in json.loads(run("time", elman(), *words, "--json"))["kernels"]}
    assert rows["h"]["steps"] == 6 and rows["h"]["flops"] == 2 * 6 * 3 * 5 * 5
    # x*W and h[t-1] of a step, what it writes, and the weights that it reads, six times.
    params = 4 * (5 * 5 + 5)
    assert rows["h"]["bytes"] == 6 * (4 * 45 + params)
    assert rows["slice.copy"]["layers"] == ["h"]


GUIDE = (Path(__file__).parents[2] / "docs/recurrence.md").read_text()
EXAMPLES = [dedent(text) for text in re.findall(r"(?m)^    layers:\n(?:    .*\n)+", GUIDE)]


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_nets_of_the_guide_are_right(text):
    graph = build(read_net(text=text, format="yaml"), "TEST")
    assert graph.recurrences and not graph.warnings


def test_the_guide_shows_what_inspect_prints(run):
    (line,) = re.findall(r"(?m)^    (launch 1: .*)$", GUIDE)
    text = BOTH_WAYS.replace("[6,", "[50,")
    assert line in run("inspect", text, "--stage", "fused")


def test_check_finds_a_layer_that_mixes_time_steps(tmp_path):
    """Only the compiler can tell, so `check` runs it as far as that."""
    text = elman().replace("type: TanH", "type: Softmax, axis: 0")
    (tmp_path / "net.yaml").write_text(text)
    found = check_net(read_net(str(tmp_path / "net.yaml")), {})
    messages = {error.message for error in found.errors}  # one for each phase
    assert len(messages) == 1
    assert "on a cycle, but cannot go step by step" in messages.pop()
