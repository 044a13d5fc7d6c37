"""Every field that Caffe has (BVLC, caffe_wire.tsv) is read by the types that have it there."""

from __future__ import annotations

import re

import pytest

from compiler.layers import layer_types
from compiler.layers.fields import fields_of
from netdef.checks import check_net
from netdef.formats import read_net
from netdef.formats.caffe_binary import _table
from netdef.formats.caffe_names import TYPES, reads
from netdef.formats.solver import FIELDS

FILL = 'weight_filler { type: "gaussian" mean: 0.1 std: 0.2 sparse: 2 } '
BIAS = 'bias_filler { type: "uniform" min: -1 max: 1 } '
XAVIER = 'weight_filler { type: "xavier" variance_norm: AVERAGE value: 1 } '
SHAPE = {"x": "2 4 6 6", "y": "2 4 6 6", "v": "2 4", "label": "2", "one": "2 1", "t": "3 2 4"}
SHAPE |= {"cont": "3 2", "h": "1 2 5", "ref": "2 4 4 4", "index": "2", "sim": "2", "mid": "4 6"}
DATA = "scale: 0.1 mirror: true mean_value: 1 mean_value: 2 mean_value: 3 crop_size: 5 "
LOSS = "loss_param { ignore_label: 255 normalization: FULL normalize: true } "

# Type -> nets of one layer: bottoms, tops, fields.
LAYERS: dict[str, list[tuple[str, str, str]]] = {
    "AbsVal": [("x", "o", "")],
    "Accuracy": [("v label", "o p", "accuracy_param { top_k: 1 axis: 1 ignore_label: 9 }")],
    "ArgMax": [("v", "o", "argmax_param { out_max_val: true top_k: 2 axis: 1 }")],
    "BatchNorm": [
        (
            "x",
            "o",
            "param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 } batch_norm_param { "
            "use_global_stats: false moving_average_fraction: 0.9 eps: 1e-4 }",
        )
    ],
    "BatchReindex": [("x index", "o", "")],
    "Bias": [("x", "o", 'bias_param { axis: 1 num_axes: 1 filler { type: "constant" } }')],
    "BNLL": [("x", "o", "")],
    "Clip": [("x", "o", "clip_param { min: -1 max: 1 }")],
    "Concat": [
        ("x y", "o", "concat_param { axis: 1 }"),
        ("x y", "o", "concat_param { concat_dim: 0 }"),
    ],
    "ContrastiveLoss": [
        ("v v sim", "o", "contrastive_loss_param { margin: 2 legacy_version: true }")
    ],
    "Convolution": [
        (
            "x",
            "o",
            "convolution_param { num_output: 4 bias_term: true pad: 1 pad: 1 kernel_size: 3 "
            f"stride: 1 stride: 2 dilation: 1 group: 2 axis: 1 force_nd_im2col: false engine: CAFFE"
            f" {FILL}{BIAS}}}",
        ),
        (
            "x y",
            "o p",
            "convolution_param { num_output: 4 kernel_h: 3 kernel_w: 1 pad_h: 1 pad_w: 0 "
            f"stride_h: 2 stride_w: 1 bias_term: false engine: CUDNN {XAVIER}}}",
        ),
    ],
    "Crop": [("x ref", "o", "crop_param { axis: 2 offset: 1 offset: 2 }")],
    "Data": [
        (
            "",
            "o p",
            f"transform_param {{ {DATA} }} data_param {{ source: 'no' batch_size: 2 backend: LMDB "
            "rand_skip: 3 prefetch: 2 }",
        ),
        (
            "",
            "o p",
            "transform_param { force_gray: true } data_param { source: 'no' batch_size: 1 }",
        ),
        (
            "",
            "o p",
            "transform_param { force_color: true } data_param { source: 'no' scale: 2 "
            "mean_file: 'no' crop_size: 4 mirror: false batch_size: 2 backend: LEVELDB "
            "force_encoded_color: true }",
        ),
    ],
    "Deconvolution": [
        (
            "x",
            "o",
            "convolution_param { num_output: 4 kernel_size: 4 group: 4 weight_filler { type: "
            '"bilinear" } bias_term: false }',
        )
    ],
    "Dropout": [("x", "o", "dropout_param { dropout_ratio: 0.3 }")],
    "DummyData": [
        ("", "o", "dummy_data_param { shape { dim: 2 } data_filler { value: 1 } }"),
        ("", "o", "dummy_data_param { num: 2 channels: 1 height: 1 width: 1 }"),
    ],
    "Eltwise": [
        (
            "x y",
            "o",
            "eltwise_param { operation: SUM coeff: 1 coeff: -1 stable_prod_grad: false }",
        ),
        ("x y", "o", "eltwise_param { operation: 0 }"),
    ],
    "ELU": [("x", "o", "elu_param { alpha: 0.5 }")],
    "Embed": [
        (
            "index",
            "o",
            f"embed_param {{ num_output: 3 input_dim: 9 bias_term: true {FILL}{BIAS}}}",
        )
    ],
    "EuclideanLoss": [("v v", "o", "loss_weight: 2")],
    "Exp": [("x", "o", "exp_param { base: 2 scale: 0.5 shift: 1 }")],
    "Filter": [("x index", "o", "")],
    "Flatten": [("x", "o", "flatten_param { axis: 1 end_axis: 2 }")],
    "HDF5Data": [("", "o p", "hdf5_data_param { source: 'no' batch_size: 2 shuffle: true }")],
    "HDF5Output": [("v label", "", "hdf5_output_param { file_name: 'no' }")],
    "HingeLoss": [("v label", "o", "hinge_loss_param { norm: 2 }")],
    "Im2col": [
        (
            "x",
            "o",
            f"convolution_param {{ kernel_size: 3 num_output: 4 group: 1 {FILL}{BIAS}}}",
        )
    ],
    "ImageData": [
        (
            "",
            "o p",
            f"transform_param {{ {DATA} }} image_data_param {{ source: 'no' batch_size: 2 "
            "rand_skip: 2 shuffle: true new_height: 8 new_width: 8 is_color: true "
            "root_folder: '/' }",
        ),
        (
            "",
            "o p",
            "image_data_param { source: 'no' scale: 2 mean_file: 'no' crop_size: 3 mirror: true }",
        ),
    ],
    "InfogainLoss": [
        (
            "v label",
            "o",
            f"infogain_loss_param {{ source: 'no' axis: 1 }} {LOSS} softmax_param {{ axis: 1 }}",
        )
    ],
    "InnerProduct": [
        (
            "x",
            "o",
            f"inner_product_param {{ num_output: 3 bias_term: true axis: 1 transpose: true {FILL}"
            f"{BIAS}}}",
        )
    ],
    "Input": [("", "o", "input_param { shape { dim: 2 dim: 3 } }")],
    "Log": [("x", "o", "log_param { base: 2 scale: 1 shift: 3 }")],
    "LRN": [
        (
            "x",
            "o",
            "lrn_param { local_size: 3 alpha: 2 beta: 0.5 norm_region: WITHIN_CHANNEL k: 1 "
            "engine: CAFFE }",
        )
    ],
    "LSTM": [
        (
            "t cont",
            "o",
            "recurrent_param { num_output: 5 debug_info: false expose_hidden: false "
            f"{FILL}{BIAS}}}",
        )
    ],
    "MemoryData": [
        (
            "",
            "o p",
            "memory_data_param { batch_size: 2 channels: 3 height: 5 width: 5 } "
            "transform_param { scale: 2 }",
        )
    ],
    "MultinomialLogisticLoss": [("v label", "o", "")],
    "MVN": [("x", "o", "mvn_param { normalize_variance: true across_channels: true eps: 1e-4 }")],
    "Parameter": [("", "o", "parameter_param { shape { dim: 2 } }")],
    "Pooling": [
        (
            "x",
            "o",
            "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 engine: CAFFE "
            "round_mode: FLOOR }",
        ),
        (
            "x",
            "o",
            "pooling_param { pool: 0 kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 0 "
            "pad_w: 1 }",
        ),
        ("x", "o", "pooling_param { pool: AVE global_pooling: true }"),
    ],
    "Power": [("x", "o", "power_param { power: 2 scale: 3 shift: 1 }")],
    "PReLU": [("x", "o", "prelu_param { filler { value: 0.2 } channel_shared: true }")],
    "Reduction": [("x", "o", "reduction_param { operation: 4 axis: 1 coeff: 2 }")],
    "ReLU": [("x", "o", "relu_param { negative_slope: 0.1 engine: CAFFE }")],
    "Reshape": [("x", "o", "reshape_param { shape { dim: 0 dim: -1 } axis: 0 num_axes: -1 }")],
    "RNN": [("t cont", "o", f"recurrent_param {{ num_output: 5 {FILL}{BIAS}}}")],
    "Scale": [
        (
            "x",
            "o",
            "scale_param { axis: 1 num_axes: 1 filler { value: 2 } bias_term: true "
            "bias_filler { value: 1 } }",
        ),
        ("x mid", "o", "scale_param { axis: 1 }"),
    ],
    "Sigmoid": [("x", "o", "sigmoid_param { engine: CAFFE }")],
    "SigmoidCrossEntropyLoss": [("v v", "o", LOSS)],
    "Silence": [("x y", "", "")],
    "Slice": [
        ("x", "o p", "slice_param { axis: 1 slice_point: 1 }"),
        ("x", "o p", "slice_param { slice_dim: 1 }"),
    ],
    "Softmax": [("x", "o", "softmax_param { axis: 1 engine: CAFFE }")],
    "SoftmaxWithLoss": [
        ("v label", "o p", f"{LOSS} softmax_param {{ axis: 1 }} loss_weight: 1 loss_weight: 0")
    ],
    "Split": [("x", "o p", "")],
    "SPP": [("x", "o", "spp_param { pyramid_height: 2 pool: AVE engine: CAFFE }")],
    "Swish": [("x", "o", "swish_param { beta: 2 }")],
    "TanH": [("x", "o", "tanh_param { engine: CAFFE }")],
    "Threshold": [("x", "o", "threshold_param { threshold: 0.5 }")],
    "Tile": [("x", "o", "tile_param { axis: 1 tiles: 2 }")],
    "WindowData": [
        (
            "",
            "o p",
            "transform_param { mirror: true } window_data_param { source: 'no' scale: 2 "
            "mean_file: 'no' batch_size: 2 crop_size: 5 mirror: true fg_threshold: 0.5 "
            "bg_threshold: 0.4 fg_fraction: 0.3 context_pad: 2 crop_mode: 'square' "
            "cache_images: true root_folder: '/' }",
        )
    ],
}
NOT_HERE = {"LSTMUnit", "Python"}  # inside of LSTM; a host's module
CASES = [(kind, i) for kind, nets in LAYERS.items() for i in range(len(nets))]


def inputs(bottoms: str) -> str:
    names = list(dict.fromkeys(bottoms.split()))
    shapes = (
        "input_shape { " + " ".join(f"dim: {n}" for n in SHAPE[b].split()) + " }" for b in names
    )
    return "\n".join([*(f'input: "{b}"' for b in names), *shapes])


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_a_layer_with_all_its_fields_checks(kind: str, number: int) -> None:
    if kind not in layer_types():
        pytest.skip(f"{kind} is not built yet")
    bottoms, tops, fields = LAYERS[kind][number]
    names = " ".join(
        [*(f'bottom: "{b}"' for b in bottoms.split()), *(f'top: "{t}"' for t in tops.split())]
    )
    text = f'{inputs(bottoms)}\nlayer {{ name: "l" type: "{kind}" {names} {fields} }}'
    found = check_net(read_net("n.prototxt", text=text), {})
    assert not found.errors, found.errors


def test_the_cases_have_every_field() -> None:
    blocks = {name: kind for name, kind in _table()["LayerParameter"].values()}
    assert TYPES - LAYERS.keys() == NOT_HERE
    for kind, nets in LAYERS.items():
        text = " ".join(fields for _, _, fields in nets)
        for block, message in blocks.items():
            own = block.removesuffix("_param").replace("_", "") == kind.casefold()
            if not (block.endswith("_param") and (own or block == "transform_param")):
                continue
            if own or kind == "Data":
                names = {name for name, _ in _table()[message.rstrip("*")].values()}
                missing = {n for n in names if not re.search(rf"\b{n}:|\b{n} {{", text)}
                assert not missing, (kind, block)


@pytest.mark.parametrize("kind", sorted(TYPES & layer_types().keys()))
def test_a_type_knows_the_fields_of_its_blocks(kind: str) -> None:
    known = fields_of(layer_types()[kind])
    for block, message in _table()["LayerParameter"].values():
        if (kind, block) == ("HDF5Data", "transform_param"):
            continue  # which Caffe refuses there
        if block.endswith("_param") and reads(kind, block):
            names = {name for name, _ in _table()[message.rstrip("*")].values()}
            assert names <= known.keys(), block


def test_words_of_enums_as_their_numbers() -> None:
    old = (
        'layers { name: "c" type: 4 bottom: "x" top: "c" blob_share_mode: 1 param: "w" '
        'convolution_param { num_output: 4 kernel_size: 3 engine: 1 weight_filler { type: "xavier" '
        'variance_norm: 2 } } }\nlayers { name: "p" type: 17 bottom: "c" top: "p" '
        "pooling_param { pool: 1 kernel_size: 2 } include { phase: 1 } }"
    )
    net = read_net("n.prototxt", text=f"{inputs('x')}\n{old}")
    assert [layer.type.text for layer in net.layers] == ["Input", "Convolution", "Pooling"]
    assert net.layers[1].param[0].share_mode == "PERMISSIVE"
    assert net.layers[2].include[0].phase == "TEST"
    assert not check_net(net, {}).errors


def test_every_field_of_caffes_solver_is_known() -> None:
    assert {name for name, _ in _table()["SolverParameter"].values()} <= set(FIELDS)
