"""The commands that look: help, summary, layers, inspect, draw, time, compile, schema."""

from __future__ import annotations

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from netdef.cli import COMMANDS, output
from netdef.compiling import compile, save_program
from netdef.formats import read_net
from netdef.running import read_program
from netdef.spec_text import layer_fields, net_yaml
from schemas.errors import SourceError
from schemas.program import Launch, Program, Repeat
from tests.cli.conftest import NET, ROOT, process

LENET = ROOT / "nets/lenet/net.yaml"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name, netdef):
    result = netdef(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: netdef {name} ")


def test_without_a_command_the_help_is_shown(netdef):
    result = netdef()
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr == netdef("--help").stdout


def test_help_does_not_load_the_compiler():
    code = (
        "import atexit, sys; from netdef.cli import cli; "
        "heavy = {'numpy', 'rich', 'llvmlite', 'yaml'}; "
        "atexit.register(lambda: print(heavy & set(sys.modules))); cli(['--help'])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert shown.stdout.startswith("Usage: ") and shown.stdout.endswith("\nset()\n")


def test_summary_counts_lenet(netdef):
    result = netdef("summary", LENET)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "LeNet, phase TEST: 10 layers, batches of 359"
    assert lines[-3].split() == ["total", "431,080", "2,293,000", "27.0", "MiB"]
    assert lines[-1] == "431 k parameters (1.6 MiB), 2.29 M multiply-accumulates an item"
    document = json.loads(netdef("summary", LENET, "--json").stdout)
    assert document["parameters"] == 431080 and document["macs_an_item"] == 2_293_000
    assert document["macs"] == 359 * 2_293_000
    assert document["layers"][1]["tops"] == {"conv1": [359, 20, 24, 24]}


def test_summary_of_several_tops_and_of_inputs_that_are_no_batch(netdef, tmp_path):
    (tmp_path / "n.yaml").write_text(
        "layers:\n- {name: a, type: Input, shape: [4, 6, 8, 8]}\n"
        "- {name: s, type: Slice, top: [x, y, z]}\n"
        "- {name: b, type: Input, shape: [2, 3]}\n"
        "- {name: ip, type: InnerProduct, bottom: x, num_output: 7}\n"
    )
    lines = netdef("summary", tmp_path / "n.yaml").stdout.splitlines()
    assert lines[0].endswith("4 layers")
    assert "3 of 4x2x8x8" in next(line for line in lines if line.startswith("s "))
    assert lines[-1] == "903 parameters (3.5 KiB), 3.58 k multiply-accumulates"


def test_summary_shows_few_of_many_warnings(netdef):
    stderr = netdef("summary", ROOT / "nets" / "resnet50" / "net.yaml").stderr
    assert stderr.count("warning: ") == 2
    assert "7 more warnings: 'netdef check" in stderr


def test_check_lenet(netdef):
    result = netdef("check", LENET, LENET.with_name("solver.yaml"))
    assert result.stdout.splitlines() == [
        f"{LENET}: ok (LeNet: 9 layers, 431,080 parameters)",
        f"{LENET.with_name('solver.yaml')}: ok (solver of LeNet: 9 layers, 431,080 parameters)",
    ]
    assert json.loads(netdef("check", LENET, "--json").stdout)["phases"] == ["TRAIN", "TEST"]


def test_layers(netdef):
    table = netdef("layers").stdout
    assert "InnerProduct" in table and "\x1b" not in table
    one = netdef("layers", "convolution").stdout
    assert one.startswith("Convolution: ") and "num_output" in one
    document = json.loads(netdef("layers", "ReLU", "--json").stdout)
    assert document["fields"][0]["name"] == "negative_slope"
    assert "| negative_slope | number | 0.0 |" in netdef("layers", "--markdown").stdout


def test_inspect_writes_all_stages(tiny, netdef):
    result = netdef("inspect", "net.yaml", "-o", "out", "--target", "reference")
    assert result.exit_code == 0, result.stderr
    out = tiny / "out"
    names = sorted(p.name for p in out.iterdir())
    assert names == [
        "01_spec.yaml",
        "02_graph.txt",
        "03_backward.txt",
        "04_fused.txt",
        "05_kernels",
        "06_memory.txt",
        "07_program.json",
    ]
    assert " = input data : f32[16, 1, 8, 8]  # data\n" in (out / "02_graph.txt").read_text()
    assert "update params = %" in (out / "03_backward.txt").read_text()
    assert "net.yaml:4: - {name: ip1" in (out / "04_fused.txt").read_text()
    assert "address       launches ->" in (out / "06_memory.txt").read_text()
    program = json.loads((out / "07_program.json").read_text())
    assert program["launches"][0]["kernels"][0]["places"][0].startswith("net.yaml:")
    assert list((out / "05_kernels/reference").glob("ip1*.txt"))


@pytest.mark.parametrize("stage", ["spec", "graph", "backward", "fused", "kernels", "memory"])
def test_inspect_compiles_nothing_before_code(stage, tiny, netdef, monkeypatch):
    def compiled(*_):
        raise AssertionError("compiled")

    monkeypatch.setattr("compiler.backends.cpu.Backend.compile", compiled)
    result = netdef("inspect", "net.yaml", "--stage", stage, "--target", "cpu")
    assert result.exit_code == 0 and len(result.stdout) > 200
    assert stage != "kernels" or "==== " in result.stdout and "define " in result.stdout


def test_inspect_shows_equal_kernels_once(tiny, netdef):
    ip = "type: InnerProduct, num_output: 8, weight_filler: xavier"
    (tiny / "twice.yaml").write_text(
        "layers:\n- {name: x, type: Input, shape: [4, 8]}\n"
        f"- {{name: a, bottom: x, {ip}}}\n- {{name: b, bottom: a, {ip}}}\n"
        f"- {{name: c, bottom: b, {ip.replace('8', '7')}}}\n"
    )
    shown = netdef("inspect", "twice.yaml", "--stage", "kernels", "--target", "cpu").stdout
    parts = dict(part.split("\n", 1) for part in shown.split("==== ")[1:])
    assert list(parts) == ["a", "b", "c"]
    assert "define " in parts["a"] and "define " in parts["c"]
    bytes_before = 4 * (8 * 8 + 16)  # the weights and the bias of `a`, which fills a row of 16
    moved = f"a for x, params+{bytes_before} for params, b for a"
    assert parts["b"].strip() == f"; see a, with {moved}"


@pytest.mark.parametrize("stage", ["spec", "graph", "backward", "fused", "kernels", "memory"])
def test_inspect_prints_one_stage_the_same_each_time(stage, tiny, netdef):
    words = ["inspect", "net.yaml", "--stage", stage, "--target", "reference"]
    first, second = netdef(*words), netdef(*words)
    assert first.exit_code == 0, first.stderr
    assert first.stdout == second.stdout != ""


def test_draw_is_an_svg_with_every_layer(tiny, netdef):
    result = netdef("draw", "net.yaml", "-o", "net.svg")
    assert result.stdout == "net.svg: 7 layers, phase TEST\n"
    root = ElementTree.parse("net.svg").getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"ip1", "relu1", "drop1", "accuracy", "SoftmaxWithLoss", "16x12"} <= texts
    # relu1 and drop1 work in place: they have no box of their own.
    boxes = root.findall("{http://www.w3.org/2000/svg}g/{http://www.w3.org/2000/svg}g")
    assert len(boxes) == 5
    assert netdef("draw", "net.yaml", "-o", "net.png").exit_code == 2


def test_time_measures_steps(tiny, netdef):
    words = ["time", "net.yaml", "--backend", "reference", "--iterations", "2"]
    result = netdef(*words)
    assert result.exit_code == 0, result.stderr
    assert "2 training steps: fastest" in result.stdout
    document = json.loads(netdef(*words, "--phase", "test", "--json").stdout)
    assert document["phase"] == "TEST" and document["fastest_seconds"] > 0


def test_compile_writes_a_program_that_reads_back(tiny, netdef):
    result = netdef("compile", "net.yaml", "--target", "reference", "-o", "net.ndp")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("net.ndp: tiny for numpy, ")
    program = compile("net.yaml", "reference", phase="TEST")
    assert read_program("net.ndp") == program
    with pytest.raises(SourceError, match="cannot write .: Is a directory"):
        save_program(program, ".")
    save_program(program, "again.ndp")
    assert (tiny / "again.ndp").read_bytes() == (tiny / "net.ndp").read_bytes()


def test_a_program_file_that_is_none(tiny, netdef):
    netdef("compile", "net.yaml", "--target", "reference", "-o", "net.ndp")
    whole = (tiny / "net.ndp").read_bytes()
    cases = {
        b"hello": "x.ndp is not a netdef program",
        whole[:-9]: "x.ndp is damaged: the end of it is missing",
        whole[:90] + b"?" + whole[91:]: "x.ndp is damaged: ",
    }
    for content, message in cases.items():
        (tiny / "x.ndp").write_bytes(content)
        with pytest.raises(SourceError, match=message):
            read_program("x.ndp")
    with pytest.raises(SourceError, match="cannot read none.ndp: No such file"):
        read_program("none.ndp")


@pytest.mark.parametrize(
    "words, message",
    [
        ("compile net.yaml -o FOLDER", "cannot write FOLDER: Is a directory"),
        ("time net.yaml --iterations 1 --trace FOLDER", "cannot write 'FOLDER': Is a directory"),
        ("deploy net.yaml -o .", "the name '.' does not say which form to write"),
        ("inspect net.yaml -o net.yaml --target cpu", "cannot write 'net.yaml/01_spec.yaml': "),
    ],
)
def test_a_folder_is_no_file_to_write(words, message, tiny, netdef):
    folder = "x.ndp" if words.startswith("compile") else "x.json"
    (tiny / folder).mkdir()
    result = netdef(*words.replace("FOLDER", folder).split())
    message = message.replace("FOLDER", folder)
    assert result.exit_code == 2 and result.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize("words", ["compile -o", "draw -o", "tune -o", "time --trace"])
@pytest.mark.parametrize("name", [".", "net.yaml"])
def test_a_net_is_not_written_over(words, name, tiny, netdef):
    command, option = words.split()
    result = netdef(command, "net.yaml", option, name)
    assert result.exit_code == 2
    assert f"'{name}' is no name for what is written\n  hint: give a name" in result.stderr
    assert (tiny / "net.yaml").read_text() == NET


@pytest.mark.parametrize("kind", ["net", "solver"])
def test_the_shipped_schemas_are_current(kind, tmp_path, netdef):
    assert netdef("schema", "-o", tmp_path).exit_code == 0
    name = f"{kind}.schema.json"
    shipped = (ROOT / "schemas" / name).read_text()
    assert (tmp_path / name).read_text() == shipped, "run: netdef schema -o schemas"
    assert netdef("schema", kind).stdout == shipped


def test_the_written_spec_reads_back(tiny):
    spec = read_net(text=NET, format="yaml")
    again = read_net(text=net_yaml(spec), format="yaml")
    assert list(map(layer_fields, again.layers)) == list(map(layer_fields, spec.layers))


def test_names_outside_of_the_encoding_are_shown_all_the_same(tmp_path):
    (tmp_path / "ä.yaml").write_text(
        "name: Größe\nlayers:\n- {name: ü, type: Input, shape: [1, 2]}\n", encoding="utf-8"
    )
    for command in ("summary", "check"):
        with process(command, "ä.yaml", cwd=tmp_path, coding="ascii") as shown:
            stdout, stderr = shown.communicate(timeout=60)
        assert (shown.returncode, stderr) == (0, "")
        assert "Gr\\xf6\\xdfe" in stdout


def test_a_closed_pipe_ends_quietly(tmp_path):
    with process("layers", "--markdown", cwd=tmp_path) as shown:
        assert shown.stdout is not None and shown.stderr is not None
        shown.stdout.close()
        assert shown.stderr.read() == ""
        assert shown.wait(30) == 141


def test_launches_are_counted_once_and_with_every_time_step():
    plain, repeated = Launch("a", ()), Launch("b", (), repeat=Repeat("loop", 50, True))
    assert output.launches(Program("p", "t", (plain, plain), (), {})) == "2 launches"
    looped = output.launches(Program("p", "t", (plain, repeated), (), {}))
    assert looped == "2 launches (51 with every time step)"
