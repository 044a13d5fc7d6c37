"""`netdef check`: nets whose data is not here, stages, foreign types and fields, solvers."""

from __future__ import annotations

import json

import pytest

from compiler.layers import layer_types

LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" }\n'
IP = """\
layer { name: "ip" type: "InnerProduct" bottom: "%s" top: "ip"
  inner_product_param { num_output: 10 } }
"""


@pytest.fixture
def check(tmp_path, monkeypatch, netdef):
    """Checks texts as files; returns the JSON document and the exit status of the first."""
    monkeypatch.chdir(tmp_path)

    def call(text: str, *words: str, **others: str):
        (tmp_path / "n.prototxt").write_text(text)
        for name, content in others.items():
            (tmp_path / f"{name}.prototxt").write_text(content)
        result = netdef("check", "n.prototxt", "--json", *words)
        return json.loads(result.stdout), result.exit_code

    return call


def texts(found, key="warnings"):
    return [one["message"] for one in found[key]]


# The layers of a net whose data is not here -> how the items of its first blob are taken to be.
ASSUMED = {
    "mnist, by its name": (
        """layer { name: "d" type: "Data" top: "data" top: "label"
             data_param { source: "x/mnist_train_lmdb" batch_size: 4 } }
        """
        + IP % "data"
        + LOSS,
        "1x28x28",
    ),
    "the other phase's crop": (
        """layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
             transform_param { crop_size: 57 } data_param { source: "a" batch_size: 4 } }
           layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
             data_param { source: "b" batch_size: 4 } }
        """
        + IP % "data"
        + LOSS,
        "3x57x57",
    ),
    "windows fit": (
        """layer { name: "d" type: "Data" top: "data" top: "label"
             data_param { source: "x" batch_size: 4 } }
           layer { name: "c" type: "Convolution" bottom: "data" top: "c"
             convolution_param { num_output: 4 kernel_size: 11 stride: 4 } }
           layer { name: "p" type: "Pooling" bottom: "c" top: "p"
             pooling_param { kernel_size: 55 } }
        """
        + IP % "p"
        + LOSS,
        "3x227x227",
    ),
    "one channel": (
        """layer { name: "d" type: "Data" top: "data" top: "label"
             transform_param { force_gray: true } data_param { source: "x" batch_size: 4 } }
           layer { name: "c" type: "Convolution" bottom: "data" top: "c"
             convolution_param { num_output: 4 kernel_size: 100 } }
        """
        + IP % "c"
        + LOSS,
        "1x100x100",
    ),
    "pairs": (
        """layer { name: "d" type: "Data" top: "pair" top: "sim"
             data_param { source: "mnist_siamese" batch_size: 4 } }
           layer { name: "s" type: "Slice" bottom: "pair" top: "a" top: "b"
             slice_param { slice_dim: 1 slice_point: 1 } }
           layer { name: "l" type: "EuclideanLoss" bottom: "a" bottom: "b" top: "l" }
        """,
        "2x28x28",
    ),
    "a label like a picture": (
        """layer { name: "d" type: "Data" top: "label"
             data_param { source: "labels" batch_size: 1 } }
           layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 5
             dim: 9 dim: 7 } } }
           layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" }
        """,
        "1x9x7",
    ),
}


@pytest.mark.parametrize("case", ASSUMED)
def test_the_shape_of_absent_data_is_assumed(case, check):
    text, shape = ASSUMED[case]
    found, status = check(text)
    assert status == 0, found
    asked = [text for text in texts(found) if text.startswith("what is the shape of one item")]
    assert len(asked) == 1 and asked[0].endswith(f"taken to be {shape} for this check")


HDF5 = """
layer { name: "d" type: "HDF5Data" top: "data" top: "aux" top: "label" top: "w"
  hdf5_data_param { source: "x.txt" batch_size: 5 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 7 } }
layer { name: "e" type: "Eltwise" bottom: "ip" bottom: "aux" top: "e" }
layer { name: "l" type: "SigmoidCrossEntropyLoss" bottom: "e" bottom: "label" top: "l" }
layer { name: "s" type: "Silence" bottom: "w" }
"""


@pytest.mark.skipif("HDF5Data" not in layer_types(), reason="HDF5Data is not built yet")
def test_tops_of_any_shape_are_what_their_readers_want(check):
    found, status = check(HDF5)
    assert status == 0
    taken = [text.partition("taken to be ")[2] for text in texts(found)]
    assert taken == ["10 for this check", "7 for this check", "7 for this check"]
    found, status = check(HDF5, "--input-shape", "data=3,4,4", "--input-shape", "label=7")
    assert (status, found["parameters"]) == (0, 343)
    assert [text.split("'")[1] for text in texts(found)] == ["aux"]


def test_no_shape_fits_and_the_question_comes_first(check, tmp_path, netdef):
    text = """layer { name: "d" type: "Data" top: "data" top: "label"
                data_param { source: "x" batch_size: 4 } }
              layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"
                inner_product_param { num_output: 3 axis: 9 } }
    """
    found, status = check(text)
    assert status == 2
    assert texts(found, "errors") == [
        "layer 'a' (InnerProduct): axis 9 is outside of 'data' (4, 1, 28, 28) of layer 'd'"
    ]
    for command in ("check", "summary"):
        said = netdef(command, "n.prototxt")
        assert said.exit_code == 2
        assert said.stderr.startswith("n.prototxt:1:37: question: what is the shape of one item")


def test_an_input_without_a_shape(check):
    found, status = check('input: "data"\n' + IP % "data")
    assert status == 0
    assert texts(found)[0].startswith("what is the shape of the input 'data'? taken to be 1x")
    found, status = check('input: "data"\n' + IP % "data", "--input-shape", "data=2,5")
    assert (status, found["warnings"], found["parameters"]) == (0, [], 60)
    named = 'input: "data"\nlayer { name: "data" type: "Input" top: "data" input_param { shape { '
    found, status = check(named + "dim: 2 dim: 5 } } }" + IP % "data")
    assert (status, found["parameters"]) == (0, 60)
    assert texts(found) == ["input 'data' has no shape; a layer makes that blob"]


STAGED = """
input: "x"
input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4
layer { name: "a" type: "ReLU" bottom: "x" top: "y" include { stage: "one" } }
layer { name: "b" type: "TanH" bottom: "x" top: "y" include { stage: "two" } }
layer { name: "c" type: "%s" bottom: "y" top: "z" }
"""


def test_each_stage_of_a_file_is_checked(check):
    found, status = check(STAGED % "Sigmoid")
    assert status == 0 and found["layers"] == 3
    assert texts(found) == [
        f"the file describes no net for phase {phase}: layer 'c' (Sigmoid): unknown bottom 'y'"
        for phase in ("TRAIN", "TEST")
    ]
    found, status = check((STAGED % "Sigmoid").replace('"TanH"', '"TanHH"'))
    assert status == 2  # only stage two has it
    assert texts(found, "errors") == ["layer 'b': unknown layer type 'TanHH'"]
    found, status = check(STAGED % "Sigmoid", "--stage", "two")
    assert (status, found["warnings"]) == (0, [])
    found, status = check((STAGED % "Sigmoid").replace('"one"', '"two" not_stage: "one"'))
    assert texts(found, "errors") == ["blob 'y' is made by two layers: 'a' (line 4) and 'b'"]


def test_a_net_for_testing_alone(check):
    text = """input: "x" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4
        layer { name: "a" type: "ReLU" bottom: "x" top: "y" include { phase: TEST } }
        layer { name: "b" type: "ReLU" bottom: "y" top: "z" }
    """
    found, status = check(text)
    assert status == 0
    assert texts(found)[0].startswith("the file describes no net for phase TRAIN")
    trained = text + 'layer { name: "l" type: "EuclideanLoss" bottom: "z" bottom: "x" }'
    found, status = check(trained)
    assert status == 2 and texts(found, "errors") == ["layer 'b' (ReLU): unknown bottom 'y'"]


FOREIGN = """
input: "x"
input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4
layer { name: "a" type: "ReLU" bottom: "x" top: "a" }
layer { name: "odd" type: "Zweifel" bottom: "a" top: "b" }
layer { name: "c" type: "ReLU" bottom: "b" top: "c" }
layer { name: "d" type: "Pooling" bottom: "c" top: "d" pooling_param { pool: MAXX } }
layer { name: "e" type: "InnerProduct" bottom: "a" top: "e" inner_product_param { axis: 9
  num_output: 2 } }
"""


def test_what_does_not_depend_on_a_foreign_layer_is_checked(check):
    found, status = check(FOREIGN)
    assert status == 2
    assert texts(found, "errors") == [
        "layer 'odd': unknown layer type 'Zweifel'",
        "layer 'd' (Pooling): 'pool' must be MAX, AVE, STOCHASTIC or L2, not 'MAXX'",
        "layer 'e' (InnerProduct): axis 9 is outside of 'a' (1, 3, 4, 4) of layer 'a'",
    ]
    assert found["notes"] == [
        "3 of 6 layers are wrong or unknown, 1 depends on them; the other 2 are fine"
    ]

    found, _ = check('layer { name: "odd" type: "Zweifel" top: "a" }')
    assert found["notes"] == ["1 of 1 layers is wrong or unknown, none depend on it"]


LENIENT = {
    "of a type": 'layer { name: "d" type: "Dropout" bottom: "x" top: "x"\n'
    "  dropout_param { scale_train: false } }",
    "of a filler": 'layer { name: "i" type: "InnerProduct" bottom: "x" top: "y" '
    'inner_product_param { num_output: 2 weight_filler { type: "xavier" strange: 1 } } }',
    "of all layers": 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" strange: 1 }',
    "of param": 'layer { name: "r" type: "PReLU" bottom: "x" top: "y" param { strange: 1 } }',
    "of a net": 'strange: 2 layer { name: "r" type: "ReLU" bottom: "x" top: "y" }',
    "of a solver": None,
}


@pytest.mark.parametrize("case", LENIENT)
def test_a_lenient_check_passes_over_unknown_fields(case, check):
    net = 'input: "x"\ninput_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4\n'
    text = LENIENT[case]
    solver = 'train_net: "m.prototxt"\nbase_lr: 0.1\neval_type: "map"\nmax_iter: 3\n'
    loss = 'layer { name: "l" type: "EuclideanLoss" bottom: "x" bottom: "x" top: "l" }'
    text, others = (solver, {"m": net + loss}) if text is None else (net + text, {})
    found, status = check(text, **others)
    assert status == 2 and len(found["errors"]) == 1
    assert found["errors"][0]["message"].split("unknown field")[1]
    found, status = check(text, "--lenient", **others)
    assert status == 0 and "unknown field" in texts(found)[0]
    assert found["warnings"][0]["line"] > 0
    bad, status = check(text.replace("ReLU", "ReLUU").replace("map", "map") + "x", "--lenient")
    assert status == 2


def test_other_commands_are_lenient_too(tiny, netdef):
    net = (tiny / "net.yaml").read_text().replace("Dropout, ", "Dropout, scale_train: true, ")
    (tiny / "net.yaml").write_text(net)
    (tiny / "solver.yaml").write_text((tiny / "solver.yaml").read_text() + "ap_version: a\n")
    weights = "runs/r/snapshot_iter_12.safetensors"
    commands = [
        ["train", "solver.yaml", "--backend", "reference", "--run-dir", "runs/r", "--quiet"],
        ["summary", "net.yaml"],
        ["check", "solver.yaml"],
        ["test", "net.yaml", "--weights", weights, "--iterations", "1", "--backend", "reference"],
        ["convert", "solver.yaml", "solver.prototxt"],
        ["draw", "net.yaml", "-o", "net.svg"],
    ]
    for words in commands:
        lenient = netdef(*words, "--lenient")
        assert lenient.exit_code == 0, lenient.stderr
        strict = netdef(*words)
        assert (strict.exit_code, "unknown field" in strict.stderr) in ((2, True), (0, False))
        if words[0] != "draw":
            assert "warning: " in lenient.stderr and "unknown field" in lenient.stderr


def test_older_solvers_with_tests_of_nothing(check):
    solver = 'train_net: "m.prototxt"\ntest_iter: 5\ntest_interval: 2\nbase_lr: 0.1\nmax_iter: 3\n'
    found, status = check(solver)
    assert status == 0
    assert texts(found)[0] == "1 'test_iter' but no net to test: nothing is tested"
    assert texts(found)[1] == "there is no file 'm.prototxt'"


def test_a_solver_checks_its_nets_without_data(check):
    net = ASSUMED["mnist, by its name"][0]
    solver = 'net: "m.prototxt"\ntest_iter: 5\ntest_interval: 2\nbase_lr: 0.1\nmax_iter: 3\n'
    found, status = check(solver, m=net)
    assert (status, found["parameters"], found["phases"]) == (0, 7850, ["TRAIN", "TEST"])
    found, status = check(solver, m=net.replace("SoftmaxWithLoss", "Softmax"))
    assert status == 2
    lossless = net.replace(LOSS, "")
    found, status = check(solver, m=lossless)
    assert status == 2 and texts(found, "errors") == ["net '' has no loss in phase TRAIN"]
