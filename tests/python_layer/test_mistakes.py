"""What users' layers do wrong: told with the place in the net and in their own file."""

from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest

import netdef
from schemas.errors import NetError
from schemas.host import LayerError
from tests.python_layer.nets import BACKENDS, layer, net_of

every_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b[0])
X = "- {name: x, type: Input, shape: [2, 3]}\n"
LEARNS = """\
- {name: x, type: Input, shape: [2, 3]}
- {name: ip, type: InnerProduct, num_output: 3, weight_filler: xavier}
%s
- {name: end, type: Reduction, operation: SUMSQ, loss_weight: 1}
"""
ONES = np.ones((2, 3))


def broken(how: str) -> str:
    return layer("Broken", name="bad", param_str=how)


@every_backend
@pytest.mark.parametrize("method", ["forward", "backward"])
def test_an_exception_comes_out_with_its_own_place(backend, method):
    net = net_of(LEARNS % broken(f"{method} raise"), backend)
    for _ in range(3):  # each step is left in order: the next one begins as the first
        with pytest.raises(LayerError) as error:
            net.forward(x=ONES)
            net.backward()
        text = error.value.render()
        assert f"layer 'bad' (Python): {method} of 'Broken' raised ZeroDivisionError: in " in text
        assert "<string>:4:" in text and "layers.py" in text
        assert 'raise ZeroDivisionError(f"in {method}")  # the line that' in text
        assert "/runtime/" not in text
        assert isinstance(error.value.__cause__, ZeroDivisionError)
    net.close()


@every_backend
@pytest.mark.parametrize("how, kind", [("interrupt", KeyboardInterrupt), ("exit", SystemExit)])
def test_what_is_no_mistake_goes_through(backend, how, kind):
    net = net_of(X + broken(f"forward {how}"), backend)
    for _ in range(2):
        with pytest.raises(kind):
            net.forward(x=ONES)
    net.close()


def test_a_failed_step_changes_no_weights():
    net = net_of(LEARNS % broken("backward raise"))
    before = np.array(net.params["ip"]["weight"])
    net.forward(x=ONES)
    with pytest.raises(LayerError):
        net.backward()
    np.testing.assert_array_equal(net.params["ip"]["weight"], before)
    assert np.isfinite(net.forward(x=ONES)["end"])
    net.close()


BUILDING = [
    (broken("setup raise"), "setup of 'Broken' raised ZeroDivisionError: in setup"),
    (broken("reshape raise"), "reshape of 'Broken' raised ZeroDivisionError: in reshape"),
    (broken(""), "setup of 'Broken' raised ValueError: not enough values"),
    (layer("Shapeless", name="bad"), "'Shapeless' leaves its top 'bad' without elements"),
    (layer("Plain", name="bad"), "'Plain' of module .* is not derived from caffe.Layer"),
    (layer("Time", name="bad"), "has no class 'Time'"),
    (layer("Times", name="bad", module="no_such_module"), "no Python module 'no_such_module'"),
    (layer("Times", name="bad", module="tests.nothing"), "no Python module 'tests.nothing'"),
    (layer("Times", name="bad", module=""), "'' is not the name of a module"),
    (layer("Times", name="bad", module="..x"), "'..x' is not the name of a module"),
    (layer("Times", name="bad", colour="red"), "unknown field 'colour'"),
]


@pytest.mark.parametrize("text, message", BUILDING)
def test_mistakes_found_when_the_net_is_built(text, message):
    with pytest.raises(NetError, match=message) as error:
        net_of(X + text)
    assert error.value.span is not None and error.value.span.line == 3


RUNNING = [
    (broken("grow raise"), r"changes the shape of its top 'bad' from \(2, 3\) to \(3, 4\)"),
    (broken("learn raise"), "adds to self.blobs after its setup"),
]


@every_backend
@pytest.mark.parametrize("text, message", RUNNING)
def test_mistakes_found_when_it_runs(backend, text, message):
    net = net_of(X + text, backend)
    net.forward(x=ONES)
    with pytest.raises(NetError, match=message):
        net.forward(x=ONES)
    net.close()


def test_a_layer_that_changes_its_learned_blobs():
    net = net_of("- {name: x, type: Input, shape: [1, 2, 1, 1]}\n" + layer("Trains", name="t"))
    with pytest.raises(NetError, match="changes self.blobs in forward"):
        net.forward(x=np.ones((1, 2, 1, 1)))
    net.close()


def test_two_mistakes_are_told_at_once():
    with pytest.raises(NetError) as error:
        net_of(X + broken("setup raise") + "\n" + layer("Shapeless", name="b", bottom=["x"]))
    assert len(error.value.flatten()) == 2


# ---- modules ---------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes a project: net.yaml with a layer of class L of module m, and m.py."""
    monkeypatch.syspath_prepend("")  # restores sys.path and forgets finders' caches
    before = set(sys.modules)

    def write(code: str, folder: str = "a"):
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        (path / "m_of_project.py").write_text(textwrap.dedent(code))
        net = X + '- {name: y, type: Python, module: m_of_project, layer: L, param_str: "4"}\n'
        (path / "net.yaml").write_text("layers:\n" + net)
        return path / "net.yaml"

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


CODE = """\
import caffe
from caffe import Layer

class L(Layer):
    def setup(self, bottom, top):
        import caffe as inside
        assert inside.Layer is caffe.Layer
        self.add = {}
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data + self.add
"""


def run(path, **more):
    net = netdef.load(path, backend="cpu", allow_python_layers=True, **more)
    try:
        return net.forward(x=ONES)["y"][0, 0]
    finally:
        net.close()


def test_modules_beside_the_net_are_found_with_a_stand_in_for_caffe(project):
    path = project(CODE.format("1"))
    before = list(sys.path)
    assert run(path) == 2
    assert "caffe" not in sys.modules and sys.path == before


def test_modules_of_one_name_in_two_projects(project):
    first, second = project(CODE.format("1"), "a"), project(CODE.format("10"), "b")
    assert [run(first), run(second), run(first)] == [2, 11, 2]


def test_a_module_that_fails_shows_where(project):
    path = project("import caffe\n\ndef broken(:\n    pass\n")
    with pytest.raises(LayerError, match="module 'm_of_project' raised SyntaxError") as error:
        run(path)
    assert "m_of_project.py" in error.value.render() and "line 3" in error.value.render()


def test_a_module_that_lacks_a_package_shows_which(project):
    path = project("import caffe\nimport no_such_package\n")
    with pytest.raises(LayerError, match="ModuleNotFoundError: No module named 'no_such_package'"):
        run(path)


def test_what_the_stand_in_does_not_have(project):
    path = project("import caffe\ncaffe.set_mode_gpu()\n")
    with pytest.raises(LayerError, match="AttributeError: no caffe is installed.*'set_mode_gpu'"):
        run(path)


def test_a_caffe_that_is_installed_is_taken(project, tmp_path, monkeypatch):
    (tmp_path / "site" / "caffe").mkdir(parents=True)
    (tmp_path / "site" / "caffe" / "__init__.py").write_text("class Layer: pass\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(NetError, match="'L' of module 'm_of_project' is not derived") as error:
        run(project("import caffe\nclass L(caffe.Layer): pass\n"))
    assert error.value.hint == "class L(netdef.PythonLayer):"


def test_a_folder_called_caffe_is_no_caffe(project, tmp_path, monkeypatch):
    (tmp_path / "src" / "caffe").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "src")
    assert run(project(CODE.format("2"))) == 3


def test_layers_may_derive_from_ours(project):
    code = CODE.replace("import caffe\nfrom caffe import Layer", "import netdef")
    code = code.replace("(Layer)", "(netdef.PythonLayer)").replace("caffe as inside", "json")
    assert run(project(code.replace("assert inside.Layer is caffe.Layer", "pass").format("3"))) == 4


def test_nothing_is_imported_without_permission(project, tmp_path):
    mark = tmp_path / "imported"
    path = project(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n" + CODE.format("1"))
    with pytest.raises(
        NetError, match="would run 'L' of the Python module 'm_of_project'"
    ) as error:
        netdef.load(path, backend="cpu")
    assert "--allow-python-layers (allow_python_layers=True" in (error.value.hint or "")
    assert error.value.span is not None and error.value.span.file == str(path)
    assert not mark.exists()
    run(path)
    assert mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        f"python: true\nlayers:\n{X}",
        "layers:\n" + X.replace("shape", "python: true, shape"),
        f"allow_python_layers: true\nlayers:\n{X}",
    ],
)
def test_a_spec_cannot_allow_itself(text):
    with pytest.raises(NetError, match="unknown"):
        net = netdef.load(text=text, format="yaml")
        net.close()
