"""The exact text of errors about whole files and about `--set`."""

from __future__ import annotations

from pathlib import Path

import pytest

from netdef.formats import apply_set, read_net, read_solver
from schemas.errors import SpecError, UsageError

FILES = [  # name, content, message (FOLDER stands for the folder), hint
    ("", None, "'FOLDER' is a folder, not a file", "it holds lenet.yaml"),
    (
        "lenet.yml",
        None,
        "there is no file 'FOLDER/lenet.yml'",
        "did you mean 'FOLDER/lenet.yaml'?",
    ),
    ("sub/x.yaml", None, "there is no file 'FOLDER/sub/x.yaml'", "there is no folder 'FOLDER/sub'"),
    ("lenet.yaml/x", None, "there is no file 'FOLDER/lenet.yaml/x'", None),
    ("a\0b", None, "cannot read 'FOLDER/a\0b': embedded null byte", None),
    ("e.yaml", b"", "the file is empty", None),
    ("u.yaml", "name: a".encode("utf-16"), "the file is UTF-16 text, not UTF-8", None),
    ("l.yaml", "name: caf\u00e9".encode("latin-1"), "the byte 0xe9 is not UTF-8", None),
    ("z.pt", b"PK\x03\x04\0\0", "this is a zip archive (a PyTorch checkpoint?), not a spec", None),
    ("h.yaml", b"\x89HDF\r\n\x1a\n\0", "this is an HDF5 file (weights?), not a spec", None),
    (
        "b.caffemodel",
        b"\x0a\x05LeNet",
        "the file holds weights alone, no net",
        "give the .yaml or .prototxt file; 'netdef summary FOLDER/b.caffemodel' lists it",
    ),
    ("g.prototxt", b"\x7fELF\x02\x01\0\0", "this is a binary file, not a spec", None),
]


@pytest.mark.parametrize(("name", "content", "message", "hint"), FILES)
def test_error_of_a_file(
    tmp_path: Path, name: str, content: bytes | None, message: str, hint: str | None
) -> None:
    (tmp_path / "lenet.yaml").write_text("layers:\n- {name: a, type: Input}\n")
    path = f"{tmp_path}/{name}" if name else str(tmp_path)
    if content is not None:
        Path(path).write_bytes(content)
    for read in (read_net, read_solver):
        with pytest.raises((UsageError, SpecError)) as caught:
            read(path)
        assert caught.value.message == message.replace("FOLDER", str(tmp_path))
        if hint:
            assert caught.value.hint == hint.replace("FOLDER", str(tmp_path))


SETTINGS = [
    ("conv", "1:1: 'conv' is not of the form key=value"),
    ("cnv1.num_output=3", "1:1: the net has no layer 'cnv1'"),
    ("bse_lr=3", "1:1: the solver has no field 'bse_lr'"),
    ("base_lr=fast", "1:9: 'base_lr' must be a number, not 'fast'"),
    ("base_lr=.nan", "1:9: 'base_lr' must be a finite number, not nan"),
    ("conv1.num_output={a: 1", "1:18: '{' is never closed"),
    ("lr_policy=step", "1:11: lr_policy 'step' needs 'stepsize'"),
    ("conv1.name=x", "1:1: 'name' of a layer cannot be set here"),
    ("conv1.loss_weight=x", "1:19: layer 'conv1': 'loss_weight' must be a number, not 'x'"),
]


@pytest.mark.parametrize(("setting", "expected"), SETTINGS)
def test_error_of_a_setting(setting: str, expected: str) -> None:
    net = read_net("f", text="layers:\n- {name: conv1, type: Convolution}\n")
    solver = read_solver("f", text="net: n\n")
    with pytest.raises(UsageError) as caught:
        apply_set(net, solver, setting)
    span = caught.value.span
    assert span is not None and span.text == setting
    assert f"{span.line}:{span.column}: {caught.value.message}" == expected
    assert caught.value.render().startswith(f"--set {setting}: error: ")
