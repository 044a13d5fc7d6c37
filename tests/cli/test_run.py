"""`netdef run`: program files against the nets they were made from, and every way to be wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netdef as api
from netdef.running import read_program
from schemas.errors import BackendError, NetError, SourceError, UsageError
from schemas.program_file import MANIFEST, pack_program, unpack_program
from tests.cli.conftest import ROOT

CONV = """\
name: conv
layers:
- {name: image, type: Input, shape: [2, 3, 7, 5]}
- {name: factor, type: Input, shape: [2, 4]}
- {name: conv1, type: Convolution, bottom: image, num_output: 4, kernel_size: 3, pad: 1}
- {name: bn1, type: BatchNorm, bottom: conv1, top: conv1, use_global_stats: true}
- {name: pool1, type: Pooling, bottom: conv1, pool: AVE, global_pooling: true}
- {name: flat, type: Flatten, bottom: pool1}
- {name: both, type: Eltwise, bottom: [flat, factor], operation: PROD}
- {name: changed, type: ReLU, bottom: factor, top: factor}
"""
DOUBLE = """\
name: double
layers:
- {name: x, type: Input, shape: [3, 4]}
- {name: y, type: Power, bottom: x, scale: 2}
"""


@pytest.fixture
def numbers():
    return np.random.default_rng(3)


@pytest.fixture
def trained(tiny, numbers):
    """The folder of the small net, with weights that no filler gives and a batch of items."""
    net = api.load("net.yaml", backend="reference")
    for layer in ("ip1", "ip2"):
        for blob in net.params[layer].values():
            blob[...] = numbers.normal(size=blob.shape)
    net.save_weights("w.safetensors")
    net.close()
    np.save("x.npy", numbers.normal(size=(16, 1, 8, 8)))
    return tiny


@pytest.fixture
def ndp(trained, netdef):
    """The bytes of that net as a program file of two outputs."""
    words = ["compile", "net.yaml", "--deploy", "--weights", "w.safetensors", "-o", "net.ndp"]
    result = netdef(*words)
    assert result.exit_code == 0, result.stderr
    return (trained / "net.ndp").read_bytes()


@pytest.mark.parametrize("target", ["cpu", "interpreter"])
def test_a_program_gives_what_its_net_gives(trained, netdef, target):
    words = ["compile", "net.yaml", "--deploy", "--weights", "w.safetensors", "--target", target]
    assert netdef(*words, "-o", "net.ndp").exit_code == 0
    result = netdef("run", "net.ndp", "--input", "x.npy", "-o", "prob.npy")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("net.ndp\n  prob: 16x10, ")
    net = api.load("net.yaml", backend="cpu", deploy=True, weights="w.safetensors")
    (expected,) = net.forward(data=np.load("x.npy")).values()
    net.close()
    tolerance = 0 if target == "cpu" else 1e-5
    np.testing.assert_allclose(np.load("prob.npy"), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("target", ["cpu", "interpreter"])
def test_several_inputs_and_outputs_measured_blobs_and_blobs_in_place(
    tmp_path, monkeypatch, numbers, netdef, target
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(CONV)
    image, factor = numbers.normal(size=(2, 3, 7, 5)), numbers.normal(size=(2, 4))
    net = api.load("net.yaml", backend="cpu")
    net.params["bn1"]["scale_factor"][...] = 2
    net.params["bn1"]["mean"][...] = numbers.normal(size=4)
    net.params["bn1"]["variance"][...] = numbers.uniform(1, 2, size=4)
    net.params["conv1"]["weight"][...] = numbers.normal(size=(4, 3, 3, 3))
    net.save_weights("w.caffemodel")
    expected = net.forward(image=image, factor=factor)
    net.close()
    np.save("image.npy", image)
    np.savez("factor.npz", factor=factor)
    words = ["compile", "net.yaml", "--weights", "w.caffemodel", "--target", target]
    assert netdef(*words, "-o", "conv.ndp").exit_code == 0
    inputs = ["--input", "factor=factor.npz", "--input", "image=image.npy"]
    result = netdef("run", "conv.ndp", *inputs, "-o", "out.npz", "--json")
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    with np.load("out.npz") as written:
        assert set(written) == set(shown) == set(expected) == {"both", "factor"}
        for name, value in expected.items():
            np.testing.assert_allclose(written[name], value, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(np.float32(shown[name]), written[name])


def test_states_go_on_from_run_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(
        "name: sum\nlayers:\n"
        "- {name: x, type: Input, shape: [3, 2]}\n"
        "- {name: s, type: Eltwise, bottom: [x, 's[t-1]']}\n"
    )
    api.save_program(api.compile("net.yaml"), "sum.ndp")
    program, net = api.load_program("sum.ndp"), api.load("net.yaml", backend="cpu")
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    for _ in range(3):
        np.testing.assert_array_equal(program.run(x=x)["s"], net.forward(x=x)["s"])
    program.close()
    net.close()


def test_without_weights_it_is_the_net_as_loaded(tiny, netdef):
    result = netdef("compile", "net.yaml", "-o", "net.ndp")
    assert "weights: the first values of the net's fillers" in result.stdout
    program, net = api.load_program("net.ndp"), api.load("net.yaml", backend="cpu")
    data = np.ones((16, 1, 8, 8))
    given = {"data": data, "label": np.zeros(16)}
    expected = net.forward(**given)
    for name, value in program.run(**given).items():
        np.testing.assert_array_equal(value, expected[name])
    assert program.inputs == net.inputs and program.outputs == net.outputs
    program.close()
    net.close()


def test_no_compiler_is_loaded(ndp):
    code = (
        "import sys\n"
        "for gone in ('compiler', 'llvmlite', 'triton', 'yaml', 'safetensors', 'netdef.formats'):\n"
        "    sys.modules[gone] = None\n"
        "from netdef.__main__ import main\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "run", "net.ndp", "--input", "x.npy"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "16x10" in shown.stdout


def test_equal_nets_make_equal_files(trained, ndp, netdef):
    words = ["compile", "net.yaml", "--deploy", "--weights", "w.safetensors", "-o", "again.ndp"]
    assert netdef(*words).exit_code == 0
    assert (trained / "again.ndp").read_bytes() == ndp
    meta = read_program("again.ndp").meta
    assert meta["netdef"] == api.__version__ and meta["step"] == "forward"
    assert re.fullmatch("[0-9a-f]{64}", meta["net"])
    assert [len(digest) for digest in meta["weights"]] == [64]


def test_the_shape_of_a_batch_is_chosen_when_compiling(trained, netdef):
    words = ["compile", "net.yaml", "--deploy", "--input-shape", "data=5,1,8,8", "-o", "net.ndp"]
    assert netdef(*words).exit_code == 0
    assert api.load_program("net.ndp").inputs == {"data": (5, 1, 8, 8)}
    result = netdef("run", "net.ndp", "--input", "x.npy")
    assert result.exit_code == 2
    assert "input 'data' has shape (5, 1, 8, 8), not (16, 1, 8, 8)" in result.stderr
    assert "--input-shape data=16,1,8,8" in result.stderr


MISTAKES = {
    "no inputs": ([], "needs its input 'data' (16, 1, 8, 8)"),
    "another name": (["--input", "date=x.npy"], "has no input 'date'\n  hint: did you mean 'data'"),
    "no file": (["--input", "y.npy"], "there is no file 'y.npy'"),
    "twice": (["--input", "x.npy", "--input", "data=x.npy"], "input 'data' is given twice"),
    "text": (["--input", "text.npy"], "'data' must be an array of numbers, not ndarray of <U1"),
    "complex": (["--input", "complex.npy"], "must be an array of numbers"),
    "no array": (["--input", "w.safetensors"], "cannot read w.safetensors: it is neither .npy"),
    "folder": (["--input", "."], "cannot read .: Is a directory"),
    "kind": (["--input", "x.npy", "-o", "out.txt"], "'out.txt' is of no kind"),
    "threads": (["--input", "x.npy", "--threads", "0"], "--threads"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name, ndp, netdef):
    np.save("text.npy", np.array(["a"]))
    np.save("complex.npy", np.ones((16, 1, 8, 8), np.complex64))
    words, message = MISTAKES[name]
    result = netdef("run", "net.ndp", *words)
    assert result.exit_code == 2 and result.stdout == ""
    assert message in result.stderr


def test_mistakes_with_several_inputs_and_outputs(tiny, netdef):
    netdef("compile", "net.yaml", "-o", "net.ndp")
    np.save("x.npy", np.ones((16, 1, 8, 8)))
    result = netdef("run", "net.ndp", "--input", "x.npy")
    assert result.exit_code == 2 and "'x.npy' is for which input? There are 'data'" in result.stderr
    result = netdef("run", "net.ndp", "--input", "data=x.npy")
    assert result.exit_code == 2 and "needs its input 'label' (16,)" in result.stderr
    assert "--deploy" in result.stderr
    result = netdef("run", "net.ndp", "-o", "out.npy")
    assert result.exit_code == 2 and "holds one output; there are 'accuracy'" in result.stderr


def test_programs_that_do_not_run(tiny, netdef):
    netdef("compile", "net.yaml", "--solver", "solver.yaml", "-o", "step.ndp")
    netdef("compile", "net.yaml", "--target", "reference", "-o", "text.ndp")
    result = netdef("run", "step.ndp")
    assert result.exit_code == 2 and "is a training step, not a forward pass" in result.stderr
    result = netdef("run", "text.ndp")
    assert result.exit_code == 2 and "is for numpy, which no device of netdef's" in result.stderr


def test_a_net_whose_shapes_depend_on_its_data_is_no_program(tmp_path):
    net = tmp_path / "net.yaml"
    net.write_text(
        "layers:\n- {name: x, type: Input, shape: [3, 2]}\n- {name: s, type: Input, shape: [3]}\n"
        "- {name: some, type: Filter, bottom: [x, s], top: some}\n"
    )
    with pytest.raises(BackendError, match="how many items it gives is known only in a run"):
        api.compile(net)


# ---- files ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    net = tmp_path_factory.mktemp("small") / "net.yaml"
    net.write_text(DOUBLE)
    return pack_program(api.compile(net))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_always_found(small, data):
    at = data.draw(st.integers(0, len(small) - 1))
    if data.draw(st.booleans()):
        damaged = small[:at]
    else:
        change = data.draw(st.integers(1, 255))
        damaged = small[:at] + bytes([small[at] ^ change]) + small[at + 1 :]
    with pytest.raises(
        SourceError, match=r"^error: x.ndp (is damaged|is not a netdef program|is a)"
    ):
        unpack_program(damaged, "x.ndp")


def test_bytes_behind_the_end_are_damage(small):
    with pytest.raises(SourceError, match="is damaged"):
        unpack_program(small + b"x", "x.ndp")


@pytest.mark.parametrize(
    "version, hint", [(2, "compile the net again"), (99, "a newer netdef wrote it"), ("x", "again")]
)
def test_other_versions(tmp_path, small, version, hint):
    path = tmp_path / "other.ndp"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, json.dumps({"format": "netdef-program", "version": version}))
    with pytest.raises(
        SourceError, match=f"has format version {version}; this netdef reads"
    ) as found:
        read_program(path)
    assert hint in str(found.value)


@pytest.mark.parametrize("content", [{}, {"format": "another"}, [1], "text"])
def test_other_zip_files(tmp_path, content):
    path = tmp_path / "other.ndp"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, json.dumps(content))
    with pytest.raises(SourceError, match="is a zip file, but not a netdef program"):
        read_program(path)


# ---- on a GPU ------------------------------------------------------------------------------


ON_A_FAKE_GPU = """
import sys
for gone in ("compiler", "llvmlite", "triton", "yaml", "safetensors", "netdef.formats"):
    sys.modules[gone] = None
from dataclasses import replace
from netdef.__main__ import main
from netdef.running import read_program
from runtime import cuda, cuda_driver
from tests.gpu.cubin import kernel_in
from tests.gpu.fake_driver import FakeDriver, floats

def double(pointers):  # in the order of the launch's arguments
    source, target = (floats(address, 12) for address in pointers)
    target[:] = 2 * source

(launch,) = read_program("double.ndp").launches
(code,) = read_program("double.ndp").code.values()
fake = FakeDriver((int(sys.argv.pop()), 0))
name = launch.meta["name"]
fake.kernels[name] = replace(kernel_in(code, name), run=double)
cuda.bindings = cuda_driver.bindings = lambda: fake
try:
    sys.exit(main())
finally:
    assert not fake.unreleased()
"""


def test_on_a_gpu(tmp_path, monkeypatch, netdef):
    """Nothing of a compiler is imported; the launch is checked against the machine code."""
    pytest.importorskip("triton")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(DOUBLE)
    assert netdef("compile", "net.yaml", "--target", "sm_90", "-o", "double.ndp").exit_code == 0
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save("x.npy", x)

    def run(major: int) -> subprocess.CompletedProcess[str]:
        words = ["run", "double.ndp", "--input", "x.npy", "-o", "y.npy", str(major)]
        return subprocess.run(
            [sys.executable, "-c", ON_A_FAKE_GPU, *words],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    done = run(9)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load("y.npy"), 2 * x)
    done = run(8)
    assert done.returncode == 2
    assert "was compiled for sm_90, this GPU is sm_80" in done.stderr


def test_without_a_gpu(tmp_path, monkeypatch):
    (tmp_path / "net.yaml").write_text(DOUBLE)
    api.save_program(api.compile(tmp_path / "net.yaml", "sm_90"), tmp_path / "double.ndp")
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(BackendError, match="needs the package cuda-bindings"):
        api.load_program(tmp_path / "double.ndp")


def test_the_api_says_what_is_wrong(ndp):
    program = api.load_program("net.ndp", threads=1)
    with pytest.raises(UsageError, match="must be an array of numbers"):
        program.run(data="text")
    with pytest.raises(NetError, match="not \\(\\)"):
        program.run(data=1.0)
    program.close()
