"""What is wrong with a net is said in one line each, with a place and a hint."""

from __future__ import annotations

import pytest

from compiler.frontend.build import build
from compiler.ir.graph import Graph
from netdef.formats import read_net
from schemas.errors import NetError, UsageError

HEAD = "layers:\n- {name: data, type: Input, shape: [2, 3, 7, 7]}\n"

# Lines below the head (the first is line 3), and what is said about them.
ERRORS = {
    "unknown_field": (
        "- {name: conv2, type: Convolution, num_output: 50, kernal_size: 5}",
        "3:52: layer 'conv2' (Convolution): unknown field 'kernal_size'; did you mean "
        "'kernel_size'?",
    ),
    "unknown_type": (
        "- {name: r, type: Relu}\n- {name: s, type: ReLU}",
        "3:19: layer 'r': unknown layer type 'Relu'; did you mean 'ReLU'?",
    ),
    "unknown_bottom": (
        "- {name: a, type: ReLU, bottom: dta}\n- {name: b, type: ReLU}",
        "3:33: layer 'a' (ReLU): unknown bottom 'dta'; did you mean 'data'?",
    ),
    "bottom_of_another_phase": (
        "- {name: a, type: ReLU, phase: TEST}\n- {name: b, type: ReLU, bottom: a, phase: TRAIN}",
        "4:33: layer 'b' (ReLU): unknown bottom 'a'; layer 'a', which makes 'a', is not in "
        "this phase or stage",
    ),
    "cycle": (
        "- {name: a, type: ReLU, bottom: c}\n- {name: b, type: ReLU, bottom: a}\n"
        "- {name: c, type: TanH, bottom: b}\n- {name: d, type: ReLU, bottom: c}",
        "3:33: the layers form a cycle: a -> b -> c -> a; read it one step earlier with 'c[t-1]' "
        "if a recurrence is meant",
    ),
    "in_place_on_nothing": (
        "- {name: a, type: Eltwise, bottom: [data, b], top: b}",
        "3:43: layer 'a' (Eltwise): reads 'b', which nothing but the layer itself makes; "
        "read it one step earlier with 'b[t-1]' if a recurrence is meant",
    ),
    "recurrence": (
        "- {name: a, type: ReLU, bottom: 'data[t-0]', top: h}",
        "3:33: layer 'a' (ReLU): 'data[t-0]' has a delay of 0; 'data' reads this step, "
        "'data[t-1]' the one before",
    ),
    "two_makers": (
        "- {name: a, type: ReLU, top: x}\n- {name: b, type: ReLU, top: x, bottom: data}",
        "4:30: blob 'x' is made by two layers: 'a' (line 3) and 'b'; give one of the tops another "
        "name",
    ),
    "two_names": (
        "- {name: a, type: ReLU}\n- {name: a, type: InnerProduct, num_output: 2, top: b}",
        "4:10: two layers are called 'a' (line 3); weights are found by layer names: give one "
        "another name",
    ),
    "tops_that_are_too_few": (
        "- {name: a, type: ImageData, source: s, batch_size: 4}",
        "3:3: layer 'a' (ImageData): has 1 top, needs 2",
    ),
    "several": (
        "- {name: a, type: InnerProduct}\n- {name: b, type: Pooling, pool: MAXX, kernel_size: 2}",
        "3:19: layer 'a' (InnerProduct): 'num_output' is missing; num_output: number of outputs "
        "(integer)",
        "4:34: layer 'b' (Pooling): 'pool' must be MAX, AVE, STOCHASTIC or L2, not 'MAXX'; did "
        "you mean 'MAX'?",
    ),
    "too_few_bottoms": (
        "- {name: loss, type: SoftmaxWithLoss, bottom: data}",
        "3:3: layer 'loss' (SoftmaxWithLoss): needs 2 bottoms, has 1: 'data' (2, 3, 7, 7) of "
        "layer 'data'; bottom: [scores, label]",
    ),
    "too_many_bottoms": (
        "- {name: r, type: ReLU, bottom: [data, data]}",
        "3:3: layer 'r' (ReLU): needs 1 bottom, has 2: 'data' (2, 3, 7, 7) of layer 'data' and "
        "'data' (2, 3, 7, 7) of layer 'data'; bottom: [x]",
    ),
    "any_number_of_bottoms": (
        "- {name: e, type: Eltwise, bottom: data}",
        "3:3: layer 'e' (Eltwise): needs 2 or more bottoms, has 1: 'data' (2, 3, 7, 7) of layer "
        "'data'; bottom: [a, b, ...]",
    ),
    "bottom_of_a_source": (
        "- {name: i, type: Input, shape: 3, bottom: data}",
        "3:3: layer 'i' (Input): takes no bottom, has 'data' (2, 3, 7, 7) of layer 'data'; leave "
        "bottom out",
    ),
    "too_many_tops": (
        "- {name: a, type: ReLU, top: [a, b]}",
        "3:3: layer 'a' (ReLU): makes 1 top, but 2 are named; shape of what it makes: (2, 3, 7, 7)",
    ),
    "too_many_params": (
        "- {name: a, type: InnerProduct, num_output: 3, param: [{}, {}, {}]}",
        "3:64: layer 'a' (InnerProduct): 3 param entries for 2 learned blobs; a/weight, a/bias",
    ),
    "loss_weights": (
        "- {name: a, type: ReLU, loss_weight: [1, 2]}",
        "3:3: layer 'a' (ReLU): 2 loss_weights for 1 top",
    ),
    "propagate_down": (
        "- {name: a, type: ReLU, propagate_down: [true, false]}",
        "3:3: layer 'a' (ReLU): 2 propagate_downs for 1 bottom",
    ),
    "shared_shape": (
        "- {name: a, type: InnerProduct, num_output: 3, param: {name: w}}\n"
        "- {name: b, type: InnerProduct, num_output: 3, param: {name: w}}",
        "4:48: layer 'b' (InnerProduct): shares 'w' (3, 147) with layer 'a', but needs shape "
        "(3, 3); shared parameters have one shape (share_mode: PERMISSIVE: one size)",
    ),
    "shared_rate": (
        "- {name: a, type: InnerProduct, num_output: 3, param: {name: w, lr_mult: 2}}\n"
        "- {name: b, type: InnerProduct, num_output: 3, param: {name: w, lr_mult: 3}, "
        "bottom: data}",
        "4:48: layer 'b' (InnerProduct): lr_mult 3 of shared 'w' differs from 2 in layer 'a' "
        "(line 3); give it in one of the layers only",
    ),
    "shared_rate_of_one": (
        "- {name: a, type: InnerProduct, num_output: 3, param: {name: w}}\n"
        "- {name: b, type: InnerProduct, num_output: 3, param: {name: w, lr_mult: 2}, "
        "bottom: data}\n"
        "- {name: c, type: InnerProduct, num_output: 3, param: {name: w, lr_mult: 1}, "
        "bottom: data}",
        "5:48: layer 'c' (InnerProduct): lr_mult 1 of shared 'w' differs from 2 in layer 'b' "
        "(line 4); give it in one of the layers only",
    ),
    "shared_decay": (
        "- {name: a, type: InnerProduct, num_output: 3, param: {name: w, decay_mult: 1}}\n"
        "- {name: b, type: InnerProduct, num_output: 3, param: {name: w, decay_mult: 0}, "
        "bottom: data}",
        "4:48: layer 'b' (InnerProduct): decay_mult 0 of shared 'w' differs from 1 in layer 'a' "
        "(line 3); give it in one of the layers only",
    ),
    "data_without_source": (
        "- {name: d, type: Data, source: digits, batch_size: 3}",
        "3:3: layer 'd' (Data): the shape of its data is not known here; give the shapes of the "
        "inputs",
    ),
    "input_without_shape": (
        "- {name: i, type: Input}",
        "3:3: layer 'i' (Input): 'shape' is missing; for example shape: [64, 3, 28, 28]",
    ),
    "labels": (
        "- {name: y, type: Input, shape: [3]}\n"
        "- {name: ip, type: InnerProduct, num_output: 4, bottom: data}\n"
        "- {name: loss, type: SoftmaxWithLoss, bottom: [ip, y]}",
        "5:3: layer 'loss' (SoftmaxWithLoss): needs 2 labels, not 3: 'ip' (2, 4) of layer 'ip' "
        "and 'y' (3,) of layer 'y'; a label for each score but those along axis 1: (2,)",
    ),
    "eltwise": (
        "- {name: a, type: Flatten}\n- {name: e, type: Eltwise, bottom: [data, a]}",
        "4:43: layer 'e' (Eltwise): cannot add 'data' (2x3x7x7) and 'a' (2x147); "
        "equal shapes only; 'data' is made by layer 'data', 'a' by 'a'",
    ),
    "concat": (
        "- {name: a, type: Pooling, kernel_size: 3}\n"
        "- {name: c, type: Concat, bottom: [data, a], axis: 2}",
        "4:42: layer 'c' (Concat): cannot join 'data' (2, 3, 7, 7) of layer 'data' and 'a' "
        "(2, 3, 5, 5) of layer 'a'; only axis 2 may differ",
    ),
    "axis": (
        "- {name: s, type: Softmax, axis: 4}",
        "3:34: layer 's' (Softmax): axis 4 is outside of 'data' (2, 3, 7, 7) of layer 'data'",
    ),
    "kernel_too_large": (
        "- {name: c, type: Convolution, num_output: 4, kernel_size: 10, pad: 1}",
        "3:60: layer 'c' (Convolution): kernel 10 is larger than its input 7 + 2*1: 'data' "
        "(2, 3, 7, 7) of layer 'data'; a kernel of at most 9 fits, or a pad of 2 or more",
    ),
    "kernel_too_large_dilated": (
        "- {name: c, type: Convolution, num_output: 4, kernel_size: 3, dilation: 4}",
        "3:60: layer 'c' (Convolution): kernel 3 (dilated to 9) is larger than its input 7: "
        "'data' (2, 3, 7, 7) of layer 'data'; a kernel of at most 2 fits, or a pad of 1 or more",
    ),
    "group": (
        "- {name: c, type: Convolution, num_output: 4, kernel_size: 3, group: 2}",
        "3:70: layer 'c' (Convolution): group 2 does not divide the 3 channels of its "
        "bottom: 'data' (2, 3, 7, 7) of layer 'data'",
    ),
    "group_of_outputs": (
        "- {name: c, type: Convolution, num_output: 4, kernel_size: 3, group: 3}",
        "3:70: layer 'c' (Convolution): group 3 does not divide num_output 4",
    ),
    "kernel_missing": (
        "- {name: p, type: Pooling}",
        "3:19: layer 'p' (Pooling): 'kernel_size' is missing",
    ),
    "kernel_w_missing": (
        "- {name: p, type: Pooling, kernel_h: 3}",
        "3:19: layer 'p' (Pooling): 'kernel_h' or 'kernel_w' is missing",
    ),
    "kernel_twice": (
        "- {name: p, type: Pooling, kernel_size: 3, kernel_h: 2, kernel_w: 2}",
        "3:41: layer 'p' (Pooling): kernel_size and kernel_h, kernel_w are both given; leave one "
        "of them out",
    ),
    "kernel_axes": (
        "- {name: p, type: Pooling, kernel_size: [1, 2, 3]}",
        "3:41: layer 'p' (Pooling): kernel_size has 3 values for 2 spatial axes of 'data' "
        "(2, 3, 7, 7) of layer 'data'",
    ),
    "pool_pad": (
        "- {name: p, type: Pooling, kernel_size: 3, pad: 3}",
        "3:49: layer 'p' (Pooling): pad 3 must be less than the kernel 3; a window could lie in "
        "the padding altogether",
    ),
    "pool_global": (
        "- {name: p, type: Pooling, global_pooling: true, kernel_size: 3}",
        "3:63: layer 'p' (Pooling): global_pooling takes the whole bottom: it has no "
        "kernel_size; leave kernel_size out",
    ),
    "top_k": (
        "- {name: y, type: Input, shape: [2]}\n"
        "- {name: ip, type: InnerProduct, num_output: 4, bottom: data}\n"
        "- {name: a, type: Accuracy, bottom: [ip, y], top_k: 5}",
        "5:53: layer 'a' (Accuracy): top_k 5 is more than the classes: 'ip' (2, 4) of layer 'ip' "
        "and 'y' (2,) of layer 'y'",
    ),
    "coeff": (
        "- {name: e, type: Eltwise, bottom: [data, data], operation: PROD, coeff: [1, 2]}",
        "3:74: layer 'e' (Eltwise): coeff is for SUM, not PROD",
    ),
}


def net(body: str, phase: str = "TRAIN", head: str = HEAD) -> Graph:
    return build(read_net(text=head + body), phase)


def said(error: NetError) -> list[str]:
    lines = []
    for one in error.flatten():
        assert one.span is not None
        hint = f"; {one.hint}" if one.hint else ""
        lines.append(f"{one.span.line}:{one.span.column}: {one.message}{hint}")
    return lines


@pytest.mark.parametrize("name", ERRORS)
def test_error(name: str) -> None:
    body, *want = ERRORS[name]
    with pytest.raises(NetError) as caught:
        net(body)
    assert said(caught.value) == want


def test_an_error_shows_the_line() -> None:
    with pytest.raises(NetError) as caught:
        net("- {name: c, type: Convolution, num_output: 4, kernal_size: 3}")
    assert str(caught.value) == (
        "<string>:3:47: error: layer 'c' (Convolution): unknown field 'kernal_size'\n"
        "    - {name: c, type: Convolution, num_output: 4, kernal_size: 3}\n"
        "                                                  ^\n"
        "  hint: did you mean 'kernel_size'?"
    )


def test_a_net_without_layers() -> None:
    with pytest.raises(NetError, match="the net has no layers in phase TRAIN"):
        net("- {name: a, type: Input, shape: 1, phase: TEST}", head="layers:\n")


def test_shapes_for_inputs_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="the net has no input 'dat'") as caught:
        build(read_net(text=HEAD), "TEST", inputs={"dat": (1,)})
    assert caught.value.hint == "did you mean 'data'?"


WARNINGS = {
    "lecture": (
        "type: Convolution, num_output: 4, kernel_size: 3, stride: 3",
        "(7 + 2*0 - 3) / 3 + 1 = 2.33 windows: kernel 3 with stride 3 does not fit 7; "
        "would fit: stride 1, stride 2, pad 1",
    ),
    "pooling": (
        "type: Pooling, kernel_size: 2, stride: 2",
        "(7 + 2*0 - 2) / 2 + 1 = 3.50 windows: kernel 2 with stride 2 does not fit 7; "
        "would fit: stride 1, kernel 1",
    ),
    "huge_stride": (
        "type: Pooling, kernel_size: 3, stride: 2000000000",
        "(7 + 2*0 - 3) / 2000000000 + 1 = 1.00 windows: kernel 3 with stride 2000000000 does not "
        "fit 7; would fit: kernel 7",
    ),
    "huge_pad": (
        "type: Pooling, kernel_size: 2000000000, pad: 1999999999, stride: 7",
        "(7 + 2*1999999999 - 2000000000) / 7 + 1 = 285714287.43 windows: kernel 2000000000 with "
        "stride 7 does not fit 7; would fit: stride 1, stride 5, pad 1999999994",
    ),
    "one_axis": (
        "type: Convolution, num_output: 4, kernel_size: [3, 4], stride: 2, pad: 1",
        "(7 + 2*1 - 4) / 2 + 1 = 3.50 windows along the width: kernel 4 with stride 2 does not "
        "fit 7; would fit: stride 1, kernel 3",
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_warning(name: str) -> None:
    fields, want = WARNINGS[name]
    (warning,) = net(f"- {{name: c, {fields}}}").warnings
    assert f"{warning.message}; {warning.hint}".split("): ", 1)[1] == want


def test_two_layers_of_one_name_that_nothing_goes_by() -> None:
    (warning,) = net("- {name: a, type: ReLU}\n- {name: a, type: ReLU, top: b}").warnings
    assert warning.message == "two layers are called 'a' (line 3)"


def test_windows_that_fit_give_no_warning() -> None:
    assert not net("- {name: p, type: Pooling, kernel_size: 3, stride: 2}").warnings


def test_pictures_with_their_channels_last_get_a_warning() -> None:
    spec = read_net("n.yaml", text=HEAD.replace("[2, 3, 7, 7]", "[2, 7, 7, 3]"))
    (warning,) = build(spec, "TEST").warnings
    assert warning.message.endswith("(2, 7, 7, 3) looks like pictures with their channels last")
    assert warning.hint == "axes stand as N, C, H, W" and str(warning.span) == "n.yaml:2:36"
    assert not build(read_net("n.yaml", text=HEAD), "TEST").warnings
