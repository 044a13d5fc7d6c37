"""What a user reads after a mistake: the exact text, status 2, no traceback, nothing written."""

from __future__ import annotations

import os

import pytest

BAD_FIELD = """\
layers:
- {name: data, type: Input, shape: [2, 3, 8, 8]}
- {name: conv1, type: Convolution, num_output: 4, kernal_size: 3}
"""
BAD_TYPE = """\
layers:
- {name: data, type: Input, shape: [2, 3]}
- {name: relu1, type: RELUU}
"""
CYCLE = """\
layers:
- {name: data, type: Input, shape: [2, 3]}
- {name: a, type: Eltwise, bottom: [data, b]}
- {name: b, type: ReLU}
"""
NO_DATA = """\
layer { name: "mnist" type: "Data" top: "data" top: "label"
  data_param { source: "mnist_lmdb" batch_size: 8 backend: LMDB } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" }
"""
CASES = {
    "field": (
        BAD_FIELD,
        """\
n.yaml:3:51: error: layer 'conv1' (Convolution): unknown field 'kernal_size'
    - {name: conv1, type: Convolution, num_output: 4, kernal_size: 3}
                                                      ^
  hint: did you mean 'kernel_size'?
""",
    ),
    "type": (
        BAD_TYPE,
        """\
n.yaml:3:23: error: layer 'relu1': unknown layer type 'RELUU'
    - {name: relu1, type: RELUU}
                          ^
  hint: did you mean 'ReLU'?
""",
    ),
    "cycle": (
        CYCLE,
        """\
n.yaml:3:43: error: the layers form a cycle: a -> b -> a
    - {name: a, type: Eltwise, bottom: [data, b]}
                                              ^
  hint: read it one step earlier with 'b[t-1]' if a recurrence is meant
""",
    ),
    "empty": ("", "n.yaml:1:1: error: the file is empty\n"),
    "binary": (
        b"\x00\x01\x02\xff" * 50,
        "n.yaml:1:1: error: this is a binary file, not a spec\n"
        "  hint: give the .yaml or .prototxt file\n",
    ),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(result, folder, before):
    """A mistake ends with 2, without a traceback and without files."""
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", ["check", "summary"])
def test_a_wrong_net(case, command, files, netdef):
    content, expected = CASES[case]
    (files / "n.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    result = netdef(command, "n.yaml")
    refused(result, files, ["n.yaml"])
    assert result.stderr == expected
    assert result.stdout == ""


def test_a_missing_file_names_the_one_that_is_there(files, netdef):
    (files / "net.yaml").write_text(BAD_TYPE)
    for command in (["summary"], ["check"], ["draw", "-o", "x.svg"], ["train"]):
        result = netdef(command[0], "nett.yaml", *command[1:])
        refused(result, files, ["net.yaml"])
        expected = "error: there is no file 'nett.yaml'\n  hint: did you mean 'net.yaml'?\n"
        assert result.stderr == expected


def test_a_folder_in_place_of_a_file(files, netdef):
    (files / "net.yaml").write_text(BAD_TYPE)
    result = netdef("summary", ".")
    refused(result, files, ["net.yaml"])
    expected = "error: '.' is a folder, not a file\n  hint: it holds net.yaml\n"
    assert result.stderr == expected


def test_check_goes_on_after_an_error_and_counts(files, netdef):
    (files / "a.yaml").write_text(BAD_TYPE)
    (files / "b.yaml").write_text(BAD_TYPE.replace("RELUU", "ReLU"))
    result = netdef("check", "a.yaml", "b.yaml", "c.yaml")
    assert result.exit_code == 2
    assert result.stdout == "b.yaml: ok (2 layers, 0 parameters)\n"
    assert result.stderr.endswith("2 errors\n")
    assert "a.yaml:3:23: error" in result.stderr and "'c.yaml'" in result.stderr


@pytest.mark.parametrize(
    "words, expected",
    [
        (
            ["trian"],
            "error: there is no command 'trian'\n  hint: did you mean 'netdef train'?\n",
        ),
        (
            ["train"],
            "error: missing argument 'SOLVER'\n  hint: 'netdef train --help' explains it\n",
        ),
        (
            ["train", "--bakend", "cpu", "s"],
            "error: no such option '--bakend'\n  hint: did you mean '--backend'?\n",
        ),
        (
            ["train", "--backend", "gpu", "s"],
            "error: invalid value for '--backend': 'gpu' is not one of "
            "'auto', 'cpu', 'triton', 'reference'\n  hint: 'netdef train --help' explains it\n",
        ),
        (
            ["layers", "Convolutoin"],
            "error: there is no layer type 'Convolutoin'\n  hint: did you mean 'Convolution'?\n",
        ),
        (
            ["summary", "n.yaml", "--input-shape", "data=3x"],
            "error: 'data=3x' is not a shape\n"
            "  hint: write the blob's name and its sizes: --input-shape data=3,227,227\n",
        ),
    ],
)
def test_a_wrong_command_line(words, expected, files, netdef):
    (files / "n.yaml").write_text(BAD_TYPE.replace("RELUU", "ReLU"))
    result = netdef(*words)
    refused(result, files, ["n.yaml"])
    assert result.stderr == expected


def test_train_says_what_is_missing_before_it_writes(files, netdef):
    (files / "net.prototxt").write_text(NO_DATA)
    (files / "solver.prototxt").write_text('net: "net.prototxt"\nbase_lr: 0.1\nmax_iter: 2\n')
    result = netdef("train", "solver.prototxt", "--backend", "reference")
    refused(result, files, ["net.prototxt", "solver.prototxt"])
    assert result.stderr.startswith("net.prototxt:1:1: error: layer 'mnist' (Data): 'mnist_lmdb'")


def test_a_solver_names_a_net_that_is_not_there(files, netdef):
    (files / "train").write_text("net: nett.yaml\nbase_lr: 0.1\nmax_iter: 2\n")
    (files / "net.yaml").write_text(BAD_TYPE)
    said = (
        "train:1:6: {}: there is no file 'nett.yaml'\n"
        "    net: nett.yaml\n         ^\n  hint: did you mean 'net.yaml'?\n"
    )
    result = netdef("train", "train")
    refused(result, files, ["net.yaml", "train"])
    assert result.stderr == said.format("error")
    checked = netdef("check", "train")  # its own fields are right
    assert (checked.exit_code, checked.stdout) == (0, "train: ok (solver; its net is not here)\n")
    assert checked.stderr == said.format("warning")


def test_check_asks_for_the_shape_of_absent_data(files, netdef):
    (files / "n.prototxt").write_text(NO_DATA)
    asked = netdef("check", "n.prototxt")
    assert asked.exit_code == 0
    assert asked.stderr.startswith(
        "n.prototxt:1:41: question: what is the shape of one item of 'data'? "
        "taken to be 1x28x28 for this check\n"
    )
    assert "--input-shape data=C,H,W answers it; layer 'mnist' (Data): 'mnist_" in asked.stderr
    told = netdef("check", "n.prototxt", "--input-shape", "data=1,28,28")
    assert told.exit_code == 0, told.stderr
    assert told.stdout == "n.prototxt: ok (3 layers, 7,850 parameters)\n"


def test_check_takes_the_shape_from_crop_size_and_warns(files, netdef):
    cropped = NO_DATA.replace("data_param", "transform_param { crop_size: 5 }\n  data_param")
    (files / "n.prototxt").write_text(cropped)
    result = netdef("check", "n.prototxt")
    assert result.exit_code == 0
    assert result.stdout == "n.prototxt: ok (3 layers, 760 parameters)\n"
    assert "warning:" in result.stderr and "an item is taken to be 3x5x5" in result.stderr
    assert netdef("check", "--strict", "n.prototxt").exit_code == 2


def test_a_net_larger_than_the_machine(files, netdef):
    (files / "n.yaml").write_text(
        "layers:\n- {name: data, type: Input, shape: [100000, 100000, 1000, 100]}\n"
        "- {name: relu, type: ReLU}\n"
    )
    assert netdef("summary", "n.yaml").exit_code == 0
    checked = netdef("check", "n.yaml")  # more than any machine has: not a warning
    refused(checked, files, ["n.yaml"])
    assert "error: the net needs 8,000,000,000,000,064 bytes of memory" in checked.stderr
    timed = netdef("time", "n.yaml", "--backend", "reference")
    refused(timed, files, ["n.yaml"])
    assert "error: the net needs 8,000,000,000,000,064 bytes of memory" in timed.stderr


def test_training_a_net_larger_than_the_machine(files, netdef):
    (files / "n.yaml").write_text(
        "name: big\nlayers:\n"
        "- {name: data, type: Data, top: [data, label], source: digits, batch_size: 2}\n"
        "- {name: ip, type: InnerProduct, num_output: 2000000000}\n"
        "- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}\n"
    )
    (files / "s.yaml").write_text("net: n.yaml\nbase_lr: 0.1\nmax_iter: 2\n")
    for backend in ("reference", "cpu"):
        result = netdef("train", "s.yaml", "--backend", backend)
        refused(result, files, ["n.yaml", "s.yaml"])
        assert result.stderr.startswith(
            "n.yaml:4:10: error: net 'big' needs 6,296,000,000,000 bytes"
        )
        assert result.stderr.endswith("hint: most of it is 'ip/weight', 2000000000x784\n")


def test_a_bug_of_ours_is_called_one(files, netdef, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("netdef.formats.read_net", broken)
    result = netdef("summary", "n.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith("netdef failed; this is a bug in netdef, not in your files.")
    assert "RuntimeError: a bug" in result.stderr
