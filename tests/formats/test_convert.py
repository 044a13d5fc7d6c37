"""Files converted to other forms and back: the same nets, solvers and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netdef.converting import by_layer_names, by_names, spec_bytes
from netdef.formats import read_net, read_solver, read_spec
from netdef.formats.messages import SCHEMA
from netdef.formats.native_proto import read_proto
from netdef.prototxt_text import net_prototxt
from runtime.caffe_files import LayerWeights
from schemas.errors import NetError, SpecError, UsageError
from schemas.net import LayerSpec, NetSpec
from schemas.solver import SolverSpec

ROOT = Path(__file__).parents[2]
CORPUS = sorted((ROOT.parent / "shared" / "corpus").rglob("*.p*t*"))
FORMS = (".yaml", ".prototxt", ".netdef.pb", ".netdef.pbtxt")
NET = r"""
name: "a \"net\" \\ \303\244"
force_backward: true
state { phase: TEST level: 2 stage: "s" }
layer {
  name: "data" type: "Data" top: "data" top: "label" phase: TRAIN
  include { phase: TRAIN min_level: 1 stage: "a" stage: "b" not_stage: "c" }
  transform_param { scale: 0.00390625 mirror: true mean_value: 1 mean_value: 2.5 mean_value: 3 }
  data_param { source: "yes" batch_size: 4 backend: LMDB }
}
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { name: "w" lr_mult: 0.1 share_mode: PERMISSIVE } param { decay_mult: 0 }
  convolution_param {
    num_output: 3 kernel_size: 3 kernel_size: 5 engine: CUDNN bias_term: false
    weight_filler { type: "gaussian" std: 1e-05 variance_norm: FAN_OUT }
  }
}
layer { name: "1" type: "Reshape" bottom: "conv" top: "1"
  reshape_param { shape { dim: 0 dim: -1 } } }
layer { name: "sil" type: "Silence" bottom: "1" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "1" bottom: "label" top: "loss" top: "p"
  loss_weight: 2 loss_weight: 0 propagate_down: true propagate_down: false
  loss_param { ignore_label: 255 normalization: NONE } softmax_param { axis: 2 } }
layer { name: "x" type: "ForkLayer" bottom: "p" top: "x" exclude { max_level: 3 }
  fork_layer_param { type: "inner" mode: WIDE far_param { a: 1 } } }
layer { name: "y" type: "ROIPooling" bottom: "x" top: "y"
  roi_pooling_param { pooled_h: 7 spatial_scale: 0.0625 nested_param { b: "c" } } }
"""
SOLVER = """
test_iter: 1 test_iter: 2 test_interval: 5 base_lr: 1e-05 lr_policy: "step" stepsize: 7
max_iter: 9 solver_mode: GPU type: "Adam" snapshot_format: HDF5 random_seed: -1
train_state { stage: "s" level: 3 } test_state { } test_state { stage: "t" }
train_net_param { name: "n" layer { name: "d" type: "Input" top: "d" } }
test_net_param { layer { name: "d" type: "Input" top: "d" } }
test_net_param { layer { name: "e" type: "Input" top: "e" } }
"""


def unwrap(value: Any) -> Any:
    """Returns plain data in which a list of one is that one: the same to every reader."""
    if isinstance(value, list):
        return unwrap(value[0]) if len(value) == 1 else [unwrap(one) for one in value]
    return {k: unwrap(v) for k, v in value.items()} if isinstance(value, dict) else value


def layer_of(one: LayerSpec) -> tuple[Any, ...]:
    texts = [(name.text for name in names) for names in (one.bottoms, one.tops)]
    rules = [
        [(r.phase, r.min_level, r.max_level, r.stages, r.not_stages) for r in rules]
        for rules in (one.include, one.exclude)
    ]
    param = [(p.name, p.lr_mult, p.decay_mult, p.share_mode, p.given) for p in one.param]
    fields = {name: unwrap(value.plain()) for name, value in one.params.items()}
    rest = (one.loss_weight, one.propagate_down, one.phase)
    return (one.name.text, one.type.text, *map(list, texts), rules, param, fields, rest)


def same(one: NetSpec, two: NetSpec) -> bool:
    """Whether two nets say the same, wherever they say it."""
    heads = [(n.name, n.force_backward, n.debug_info, n.state) for n in (one, two)]
    return heads[0] == heads[1] and [layer_of(x) for x in one.layers] == [
        layer_of(x) for x in two.layers
    ]


@pytest.mark.parametrize("end", FORMS)
def test_a_net_in_every_form(end: str, tmp_path: Path) -> None:
    net = read_net("net.prototxt", text=NET)
    path = tmp_path / f"net{end}"
    path.write_bytes(spec_bytes(net, path.name))
    again = read_net(path)
    assert same(net, again)
    for other in FORMS:
        third = tmp_path / f"third{other}"
        third.write_bytes(spec_bytes(again, third.name))
        assert same(net, read_net(third))


def test_blocks_where_caffe_has_them() -> None:
    text = net_prototxt(read_net("net.prototxt", text=NET))
    for part in (
        "  transform_param {\n    scale: 0.00390625\n    mirror: true\n    mean_value: 1\n",
        '  data_param {\n    source: "yes"\n    batch_size: 4\n    backend: LMDB\n  }',
        "  loss_param {\n    ignore_label: 255\n    normalization: NONE\n  }",
        "  softmax_param {\n    axis: 2\n  }",
        '    weight_filler {\n      type: "gaussian"\n      std: 1e-05\n      variance_norm: ',
        '  fork_layer_param {\n    type: "inner"\n',
    ):
        assert part in text


def test_short_forms_are_written_out() -> None:
    net = read_net(
        text="""
layers:
- {name: d, type: Input, shape: [2, 3]}
- {name: e, type: Input, shape: [[2, 3], [4]], top: [a, b]}
- {name: ip, type: InnerProduct, bottom: d, weight_filler: xavier, bias_filler: 0.5}
- {name: g, type: DepthwiseConvolution, num_output: 3}
- {name: h, type: InfogainLoss, axis: 1, engine: CAFFE, ignore_label: 3, bottom: [d, e]}
""",
        format="yaml",
    )
    text = net_prototxt(net)
    for part in (
        "input_param {\n    shape {\n      dim: 2\n      dim: 3\n    }\n  }",
        'weight_filler {\n      type: "xavier"\n    }',
        'bias_filler {\n      type: "constant"\n      value: 0.5\n    }',
        "  convolution_param {\n    num_output: 3\n  }",
        "infogain_loss_param {\n    axis: 1\n  }",
        "softmax_param {\n    engine: CAFFE\n  }",
    ):
        assert part in text, text


@pytest.mark.parametrize("end", FORMS)
def test_a_solver_in_every_form(end: str, tmp_path: Path) -> None:
    solver = read_solver("s.prototxt", text=SOLVER)
    path = tmp_path / f"s{end}"
    path.write_bytes(spec_bytes(solver, path.name))
    again = read_solver(path)
    assert len(again.test_net_params) == 2 and same_solver(solver, again)


def same_solver(one: SolverSpec, two: SolverSpec) -> bool:
    """Whether two solvers say the same, wherever they say it."""
    for field in set(SolverSpec.__dataclass_fields__) - {"raw", "spans", "span", "file"}:
        values = getattr(one, field), getattr(two, field)
        if field.endswith(("net_param", "net_params")):
            nets = [v if isinstance(v, tuple) else (v,) if v else () for v in values]
            if len(nets[0]) != len(nets[1]) or not all(map(same, *nets)):
                return False
        elif field == "warnings":
            if [w.message for w in values[0]] != [w.message for w in values[1]]:
                return False
        elif values[0] != values[1]:
            return False
    return True


@pytest.mark.skipif(not CORPUS, reason="no corpus beside the checkout")
def test_published_files_convert_and_come_back(tmp_path: Path) -> None:
    kinds = []
    for path in CORPUS:
        if path.stat().st_size > 4_000:  # larger ones say nothing new, and YAML is slow to read
            continue
        try:
            spec = again = read_spec(path)
        except NetError:
            continue
        for end in (*FORMS, ".prototxt"):  # each made of the one before
            file = tmp_path / f"x{end}"
            file.write_bytes(spec_bytes(again, file.name))
            again = read_spec(file)
        if isinstance(spec, NetSpec):
            assert isinstance(again, NetSpec) and same(spec, again), path
        else:
            assert isinstance(again, SolverSpec) and same_solver(spec, again), path
        kinds.append(type(spec))
    assert kinds.count(NetSpec) > 40 and kinds.count(SolverSpec) > 80


def test_forms_that_cannot_be_written() -> None:
    net = read_net("net.prototxt", text=NET)
    with pytest.raises(UsageError, match="'net.txt' does not say which form to write"):
        spec_bytes(net, "net.txt")
    odd = read_net(text="layers:\n- {name: a, type: T, 'a b': 1}\n", format="yaml")
    with pytest.raises(UsageError, match="called 'a b' cannot stand in a prototxt"):
        net_prototxt(odd)


def test_the_table_is_the_proto_file() -> None:
    """Every field of schemas/netdef.proto stands in SCHEMA with its number."""
    import re

    text = (ROOT / "schemas" / "netdef.proto").read_text()
    written = re.findall(r"^ .*?(\w+) = (\d+);", text, re.MULTILINE)
    known = {(name, str(s.number)) for fields in SCHEMA.values() for name, s in fields.items()}
    words = {"PHASE_UNSET", "TRAIN", "TEST", "STRICT", "PERMISSIVE"}
    assert {pair for pair in written if pair[0] not in words} <= known
    assert known - set(written) == {("key", "1"), ("value", "2")}  # of maps, by definition


@pytest.mark.parametrize("end", [".netdef.pb", ".netdef.pbtxt"])
def test_damage(end: str) -> None:
    whole = spec_bytes(read_net("net.prototxt", text=NET), f"x{end}")

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, len(whole) - 1), st.integers(0, 255), st.booleans())
    def changed(at: int, byte: int, cut: bool) -> None:
        content = whole[:at] if cut else whole[:at] + bytes([byte]) + whole[at + 1 :]
        try:
            read_net_from(content, f"x{end}")
        except NetError as error:
            assert error.flatten()

    changed()


def read_net_from(content: bytes, name: str) -> NetSpec:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return read_net(path)


def test_text_with_mistakes_is_located() -> None:
    for text, message in (
        ("layer { nam: 'a' }", "unknown field 'nam' in a LayerParameter"),
        ("layer { name: 1 }", "'name' must be of type string, not 1"),
        ("layer { name: 'a' name: 'b' }", "'name' is given 2 times"),
        ("layer { phase: TRIAN }", "'phase' is 'TRIAN'"),
        ("layer: 3", "a LayerParameter is a message in braces"),
    ):
        with pytest.raises(SpecError, match=message) as caught:
            read_proto(text.encode(), "x.netdef.pbtxt")
        assert caught.value.span is not None and caught.value.span.column > 0


def test_names_of_blobs_without_a_net() -> None:
    one = np.ones((1,), "f4")
    layers = [
        LayerWeights("conv", "CONVOLUTION", {0: one, 1: one}),
        LayerWeights("bn", "BatchNorm", {0: one, 1: one, 2: one}),
        LayerWeights("bn2", "", {0: np.ones(4), 1: np.ones(4), 2: one}),
        LayerWeights("a/prelu", "PReLU", {0: one}),
        LayerWeights("lstm", "LSTM", {0: one, 1: one, 2: np.ones(3)}),
    ]
    names = list(by_names(layers))
    assert names == [
        *("conv/weight", "conv/bias", "bn/mean", "bn/variance", "bn/scale_factor"),
        *("bn2/mean", "bn2/variance", "bn2/scale_factor", "a/prelu/slope"),
        *("lstm/weight", "lstm/bias", "lstm/blob2"),
    ]
    back = by_layer_names(dict(sorted(by_names(layers).items(), reverse=True)))
    assert {x.name: len(x.blobs) for x in back} == {x.name: len(x.blobs) for x in layers}
    assert [b.size for b in next(x for x in back if x.name == "bn2").blobs.values()] == [4, 4, 1]
