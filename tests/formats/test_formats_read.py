"""What the readers make of valid files: defaults, blocks, old forms."""

from __future__ import annotations

from typing import Any

import pytest

from netdef.formats import apply_set, read_net, read_solver, sniff
from schemas.errors import SpecError
from schemas.net import LayerSpec, NetSpec, Rule


def brief(net: NetSpec) -> list[str]:
    """Returns one `name: bottoms -> tops` for each layer."""
    return [
        f"{one.name}: {' '.join(map(str, one.bottoms))} -> {' '.join(map(str, one.tops))}"
        for one in net.layers
    ]


LENET = """\
name: LeNet
layers:
- {name: data,  type: Data, top: [data, label], source: digits, batch_size: 64, phase: TRAIN}
- {name: data,  type: Data, top: [data, label], source: digits, batch_size: 100, phase: TEST}
- {name: conv1, type: Convolution, num_output: 20, kernel_size: 5, weight_filler: xavier}
- {name: ip1,   type: InnerProduct, num_output: 500, param: {lr_mult: 2}}
- {name: relu1, type: ReLU, top: ip1}
- {name: acc,   type: Accuracy, bottom: [ip1, label], include: {phase: TEST, not_stage: fast}}
- {name: prob,  type: Softmax, exclude: {phase: TRAIN}}
- {name: loss,  type: SoftmaxWithLoss, bottom: [ip1, label], loss_weight: 0.5}
"""


def test_native_net() -> None:
    net = read_net("net.yaml", text=LENET)
    assert net.name == "LeNet" and net.file == "net.yaml"
    assert brief(net) == [
        "data:  -> data label",
        "data:  -> data label",
        "conv1: data -> conv1",
        "ip1: conv1 -> ip1",
        "relu1: ip1 -> ip1",
        "acc: ip1 label -> acc",
        "prob: ip1 -> prob",
        "loss: ip1 label -> loss",
    ]
    conv, ip, acc, loss = (net.layers[i] for i in (2, 3, 5, 7))
    assert {k: v.plain() for k, v in conv.params.items()} == {
        "num_output": 20,
        "kernel_size": 5,
        "weight_filler": "xavier",
    }
    assert str(conv.params["kernel_size"].span) == "net.yaml:5:65"
    assert [p.lr_mult for p in ip.param] == [2.0]
    assert acc.include[0].phase == "TEST" and acc.include[0].not_stages == ("fast",)
    assert loss.loss_weight == (0.5,)
    assert [one.name.text for one in net.layers if one.used("TRAIN")] == [
        *("data", "conv1", "ip1", "relu1", "loss"),
    ]


def test_a_layer_with_a_stage_is_only_perhaps_the_layer_before() -> None:
    text = """\
layers:
- {name: a, type: Input, top: x, include: {stage: deploy}}
- {name: b, type: Data, top: [x, y]}
- {name: c, type: Input, top: x, include: {stage: deploy}}
- {name: d, type: ReLU}
- {name: e, type: ReLU, bottom: []}
- {name: f, type: Silence}
"""
    assert brief(read_net("x", text=text))[3:] == ["d: x -> d", "e:  -> e", "f: e -> "]


BLOCKS = """\
blocks:
  conv:
    params: {n: , k: 3, filler: {type: xavier}}
    layers:
    - {name: conv, type: Convolution, num_output: $n, kernel_size: $k, pad: "${(k - 1) // 2}",
       weight_filler: $filler, param: {name: "${name}/w$$"}}
    - {name: relu, type: ReLU, top: conv}
  res:
    params: {channels: , wide: "${channels * 4}"}
    out: sum
    layers:
    - {block: conv, name: a, n: $channels}
    - {block: conv, name: b, n: $wide, k: 1}
    - {name: sum, type: Eltwise, bottom: [b, in, mask]}
    - {name: note$index, type: Silence}
layers:
- {name: data, type: Input, top: [data, mask]}
- {block: res, name: r, channels: 8, repeat: 2}
- {name: tail, type: ReLU}
- {block: conv, name: last, n: 2, bottom: r_1}
- {name: join, type: Concat, bottom: [r, last, 'r_2/a/conv[t-1]']}
"""


def test_blocks_are_filled_in() -> None:
    net = read_net("x", text=BLOCKS)
    assert brief(net) == [
        "data:  -> data mask",
        "r_1/a/conv: data -> r_1/a/conv",
        "r_1/a/relu: r_1/a/conv -> r_1/a/conv",
        "r_1/b/conv: r_1/a/conv -> r_1/b/conv",
        "r_1/b/relu: r_1/b/conv -> r_1/b/conv",
        "r_1/sum: r_1/b/conv data mask -> r_1/sum",
        "r_1/note1: r_1/sum -> ",
        "r_2/a/conv: r_1/sum -> r_2/a/conv",
        "r_2/a/relu: r_2/a/conv -> r_2/a/conv",
        "r_2/b/conv: r_2/a/conv -> r_2/b/conv",
        "r_2/b/relu: r_2/b/conv -> r_2/b/conv",
        "r_2/sum: r_2/b/conv r_1/sum mask -> r_2/sum",
        "r_2/note2: r_2/sum -> ",
        "tail: r_2/sum -> tail",
        "last/conv: r_1/sum -> last/conv",
        "last/relu: last/conv -> last/conv",
        "join: r_2/sum last/conv r_2/a/conv[t-1] -> join",
    ]
    conv = net.layers[3]
    assert {k: v.plain() for k, v in conv.params.items()} == {
        "num_output": 32,
        "kernel_size": 1,
        "pad": 0,
        "weight_filler": {"type": "xavier"},
    }
    assert conv.param[0].name == "r_1/b/w$"


def test_a_layer_without_a_name_is_called_as_the_use_of_its_block() -> None:
    text = """\
blocks:
  conv: {layers: [{type: Convolution}, {name: relu, type: ReLU, top: $name}]}
  pair: {layers: [{block: conv, name: left}, {block: conv, name: right, bottom: in}]}
layers:
- {name: d, type: Input}
- {block: conv, name: conv1}
- {block: conv, name: conv, repeat: 2}
- {block: pair, name: p, bottom: conv1}
- {block: conv, name: relu}
- {name: join, type: Concat, bottom: [p/left, p, relu]}
"""
    assert brief(read_net("x", text=text))[1:] == [
        "conv1: d -> conv1",
        "conv1/relu: conv1 -> conv1",
        "conv_1: conv1 -> conv_1",
        "conv_1/relu: conv_1 -> conv_1",
        "conv_2: conv_1 -> conv_2",
        "conv_2/relu: conv_2 -> conv_2",
        "p/left: conv1 -> p/left",
        "p/left/relu: p/left -> p/left",
        "p/right: conv1 -> p/right",
        "p/right/relu: p/right -> p/right",
        "relu: p/right -> relu",
        "relu/relu: relu -> relu",
        "join: p/left p/right relu -> join",
    ]


def test_a_block_reads_further_bottoms_and_works_in_place() -> None:
    text = """\
blocks:
  two: {layers: [{name: x, type: Eltwise, bottom: [in, in2]}, {name: y, type: ReLU, top: x}]}
  same: {layers: [{name: r, type: ReLU, top: in}]}
layers:
- {name: d, type: Input, top: [a, b]}
- {block: same, name: s}
- {block: two, name: t, bottom: [a, b], repeat: 2}
- {block: two, name: none, repeat: 0}
- {name: e, type: ReLU}
"""
    assert brief(read_net("x", text=text))[1:] == [
        "s/r: a -> a",
        "t_1/x: a b -> t_1/x",
        "t_1/y: t_1/x -> t_1/x",
        "t_2/x: t_1/x b -> t_2/x",
        "t_2/y: t_2/x -> t_2/x",
        "e: t_2/x -> e",
    ]


@pytest.mark.parametrize("grown", ["[$x, $x]", "$x$x", "[[[[$x]]]]"])
def test_nested_blocks_cannot_explode(grown: str) -> None:
    lines = ["blocks:", "  b0: {params: {x: }, layers: [{name: a, type: ReLU, v: $x}]}"]
    for i in range(1, 45):
        lines += [f"  b{i}:", "    params: {x: }", "    layers:"]
        lines += [f"    - {{block: b{i - 1}, name: u, x: {grown}}}"]
    with pytest.raises(SpecError, match="too many values|grows past"):
        read_net("x", text="\n".join([*lines, "layers:", "- {block: b44, name: u, x: abc}"]))


def test_blocks_of_blocks_cannot_make_endless_layers() -> None:
    fan = ["blocks:", "  b0: {layers: [{name: a, type: ReLU}]}"]
    fan += [f"  b{i}: {{layers: [{', '.join(f'{{block: b{i-1}, name: u{k}}}' for k in range(9))}]}}"
            for i in range(1, 9)]  # fmt: skip
    with pytest.raises(SpecError, match="more than 20000 layers"):
        read_net("x", text="\n".join([*fan, "layers:", "- {block: b8, name: u}"]))


def params(layer: LayerSpec) -> dict[str, Any]:
    return {k: v.plain() for k, v in layer.params.items()}


def test_caffe_current_form() -> None:
    text = """\
name: "n" force_backward: true state { stage: "s" }
input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 9
layer { name: "mnist" type: "ImageData" top: "x" include { phase: TRAIN } include { phase: 1 }
  transform_param { scale: 0.5 mean_value: 1 mean_value: 2 } image_data_param { source: "s" } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "l"
  loss_weight: 2 propagate_down: true propagate_down: 0 phase: TEST
  softmax_param { axis: 2 } loss_param { ignore_label: 255 } pooling_param { pool: MAX } }
layer { name: "pool" type: "Pooling" pooling_param { pool: 0 } bn_param { a: 1 } }
layer { type: "Permute" top: "p" permute_param { order: 0 order: 2 } }
"""
    net = read_net("n.prototxt", text=text)
    assert net.force_backward and net.state.stages == ("s",)
    data, mnist, loss, pool, permute = net.layers
    assert (data.name.text, data.type.text, str(data.tops[0])) == ("input", "Input", "data")
    assert params(data) == {"shape": [{"dim": [1, 3, 8, 9]}]}
    assert params(mnist) == {"scale": 0.5, "mean_value": [1, 2], "source": "s"}
    assert [r.phase for r in mnist.include] == ["TRAIN", "TEST"]
    assert params(loss) == {"axis": 2, "ignore_label": 255}
    assert (loss.loss_weight, loss.propagate_down, loss.phase) == ((2.0,), (True, False), "TEST")
    assert params(pool) == {"pool": 0, "bn_param": {"a": 1}}
    assert permute.name.text == "p" and params(permute) == {"order": [0, 2]}
    assert [w.message for w in net.warnings] == [
        "layer 'loss' (SoftmaxWithLoss): 'pooling_param' has no effect on this type",
        "a layer has no name and is called 'p'",
    ]


def test_caffe_old_forms() -> None:
    text = """\
input: "d" input: "e" input_shape { dim: 1 dim: 2 } input_shape { dim: 3 }
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "d" top: "pad1" }
layers { layer { name: "conv1" type: "conv" kernelsize: 5 biasterm: false num_output: 3
                 weight_filler { type: "xavier" } blobs_lr: 1. blobs_lr: 2. weight_decay: 0 }
         bottom: "pad1" top: "conv1" }
layers { name: "ip" type: INNER_PRODUCT bottom: "conv1" top: "ip" param: "w" param: ""
         blobs_lr: 3 blob_share_mode: PERMISSIVE inner_product_param { num_output: 4 } }
layers { name: "data" type: DATA top: "x" data_param { scale: 2 source: "s" } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip" bottom: "e" exclude { phase: TEST } }
"""
    net = read_net("n.prototxt", text=text)
    types = ["Input", "Convolution", "InnerProduct", "Data", "SoftmaxWithLoss"]
    assert [one.type.text for one in net.layers] == types
    first, conv, ip, data, loss = net.layers
    assert params(first) == {"shape": [{"dim": [1, 2]}, {"dim": 3}]}
    assert brief(net)[1] == "conv1: d -> conv1"
    assert params(conv) == {
        "kernel_size": 5,
        "bias_term": False,
        "num_output": 3,
        "weight_filler": {"type": "xavier"},
        "pad": 2,
    }
    assert [(p.lr_mult, p.decay_mult) for p in conv.param] == [(1, 0), (2, 1)]
    assert [(p.name, p.lr_mult, p.share_mode) for p in ip.param] == [
        ("w", 3, "PERMISSIVE"),
        (None, 1, "STRICT"),
    ]
    assert params(data) == {"scale": 2, "source": "s"}
    assert loss.exclude == (Rule(phase="TEST", span=loss.exclude[0].span),)


def test_solver_in_both_forms() -> None:
    caffe = read_solver(
        "s.prototxt",
        text='net: "n" test_iter: 10 test_iter: 20 test_interval: 5 base_lr: 1e-2 stepvalue: 3\n'
        'stepvalue: 5 lr_policy: "multistep" solver_type: NESTEROV momentum: 0.9 solver_mode: 0\n'
        'test_state: { stage: "a" } test_state { level: 2 } weights: "a,b" snapshot_format: HDF5',
    )
    native = read_solver(
        "s.yaml",
        text="net: n\ntest_iter: [10, 20]\ntest_interval: 5\nbase_lr: 1e-2\nstepvalue: [3, 5]\n"
        "lr_policy: multistep\ntype: Nesterov\nmomentum: 0.9\nsnapshot_format: HDF5\n"
        "test_state: [{stage: a}, {level: 2}]\nweights: [a, b]\n",
    )
    for spec in (caffe, native):
        assert (spec.net, spec.type, spec.base_lr) == ("n", "Nesterov", 0.01)
        assert (spec.test_iters, spec.stepvalues) == ((10, 20), (3, 5))
        assert [s.level for s in spec.test_states] == [None, 2]
        assert (spec.weights, spec.snapshot_format) == (("a", "b"), "HDF5")
    assert str(native.where("test_iter")) == "s.yaml:2:12"
    assert native.raw["momentum"].plain() == 0.9


def test_solver_with_nets_inside() -> None:
    native = read_solver("s.yaml", text="net_param: {layers: [{name: a, type: ReLU}]}\n")
    caffe = read_solver("s.prototxt", text='net_param { layer { name: "a" type: "ReLU" } }\n')
    for spec in (native, caffe):
        assert spec.net_param is not None and brief(spec.net_param)[0].startswith("a: ")


SNIFFS = [
    ("layers:\n- {name: a}\n", ("net", "yaml")),
    ("# c\nlayer {\n  name: 'a'\n}\n", ("net", "prototxt")),
    ("layer { name: 'a' }\n", ("net", "prototxt")),
    ("name: 'a'\ninput: 'x'\nlayers {\n}\n", ("net", "prototxt")),
    ('{"layers": []}', ("net", "yaml")),
    ("net: x\nbase_lr: 1\n", ("solver", "yaml")),
    ("base_lr: 1\nnet_param {\n}\n", ("solver", "prototxt")),
]


@pytest.mark.parametrize(("text", "expected"), SNIFFS)
def test_sniff(text: str, expected: tuple[str, str]) -> None:
    assert sniff(None, text=text) == expected
    assert sniff(text + "\n") == expected  # what has a line break is no path


def test_settings() -> None:
    net = read_net("n.yaml", text=LENET)
    solver = read_solver("s.yaml", text="net: n.yaml\n")
    settings = ["data.batch_size=7", "conv1.weight_filler={type: msra}", "ip1.param={lr_mult: 0}"]
    settings += ["lr_policy=step", "stepsize=10", "base_lr=1e-3", "snapshot_prefix=a=b"]
    changed, faster = apply_set(net, solver, settings)
    assert changed is not None and faster is not None
    assert [one.params["batch_size"].plain() for one in changed.layers[:2]] == [7, 7]
    filler = changed.layers[2].params["weight_filler"]
    assert filler.plain() == {"type": "msra"}
    assert str(filler.span) == f"--set {settings[1]}" and filler.span.column == 21
    assert changed.layers[3].param[0].lr_mult == 0
    assert (faster.lr_policy, faster.stepsize, faster.base_lr) == ("step", 10, 1e-3)
    assert faster.snapshot_prefix == "a=b" and solver.lr_policy == "fixed"
