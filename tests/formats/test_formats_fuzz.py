"""Damages valid files at random: whatever happens, only a NetError may be raised."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netdef.formats import apply_set, read_net, read_solver, read_spec
from netdef.formats.native import read_native_net
from schemas.errors import Diagnostics, NetError
from schemas.net import NetSpec, value_of

NET_YAML = """\
name: fuzz
force_backward: true
blocks:
  res:
    params: {channels: , stride: 1}
    out: sum
    layers:
    - {name: conv, type: Convolution, num_output: $channels, stride: "${stride * 2}"}
    - {name: sum, type: Eltwise, bottom: [conv, in], coeff: [1, -1.5e-3]}
layers:
- {name: data, type: Data, top: [data, label], source: d, batch_size: 4, phase: TRAIN}
- name: conv1
  type: Convolution
  param: [{lr_mult: 1, name: 'w'}, {decay_mult: 0}]
  include: {stage: [a, "b"], min_level: 0x10}
- &x {block: res, name: res1, bottom: conv1, channels: 8, repeat: 2}
- {name: rnn, type: ReLU, bottom: h[t-1], loss_weight: [0.5]}
"""
NET_PROTOTXT = """\
name: "fuzz" # a comment
input: "data" input_dim: 1 input_dim: 3 input_dim: 0x10 input_dim: 017
layer { name: "conv" type: "Convolution" bottom: "data" top: 'co' 'nv'
  param < lr_mult: 1.f name: "w\\n\\x41" >  include { phase: TRAIN stage: "a" };
  convolution_param: { num_output: 20, kernel_size: [3, 5] weight_filler { std: -1e-2 } } }
layer { name: "loss" type: "SoftmaxWithLoss" loss_weight: inf propagate_down: true
  loss_param { ignore_label: -1 } }
"""
OLD_PROTOTXT = """\
layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "data" top: "pad" }
layers { layer { name: "c" type: "conv" kernelsize: 5 blobs_lr: 1. } bottom: "pad" top: "c" }
layers { name: "r" type: RELU bottom: "c" top: "c" param: "x" blobs_lr: 2 weight_decay: 0 }
"""
SOLVER = """\
net: "net.prototxt"
test_iter: 100
test_interval: 500
base_lr: 0.01
lr_policy: "step"
stepsize: 10
solver_mode: GPU
test_state: { stage: "a" }
"""
ODD = "{}[]<>:,;#&*!|>'\"%@`$\\- \t\n\0\x85\u2028é0159.eExX_tTnN/()="


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 8)))
        text = text[:start] + draw(st.text(ODD, max_size=4)) + text[end:]
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


@pytest.mark.parametrize(
    ("source", "format"),
    [
        (NET_YAML, "yaml"),
        (NET_PROTOTXT, "prototxt"),
        (OLD_PROTOTXT, "prototxt"),
        (SOLVER, "yaml"),
        (SOLVER, "prototxt"),
        (NET_PROTOTXT, "yaml"),
        (NET_YAML, None),
    ],
)
def test_damaged_files_raise_only_net_errors(source: str, format: str | None) -> None:
    @settings(max_examples=60, deadline=None)
    @given(damaged(source))
    def check(text: str) -> None:
        for read in (read_net, read_solver, read_spec):
            try:
                read("x", text=text, format=format)
            except NetError as error:
                assert str(error)
                for one in error.flatten():
                    if one.span is not None:
                        lines = text.count("\n") + text.count("\x85") + text.count("\u2028")
                        assert 1 <= one.span.line <= lines + 1
                        assert 1 <= one.span.column <= len(one.span.text) + 1

    check()


def test_the_sources_of_the_fuzz_are_valid_but_for_one_number() -> None:
    assert len(read_net("x", text=NET_YAML).layers) == 7
    assert len(read_net("x", text=OLD_PROTOTXT).layers) == 2
    assert len(read_net("x", text=NET_PROTOTXT.replace("inf", "1")).layers) == 3
    assert read_solver("x", text=SOLVER, format="prototxt").stepsize == 10
    assert read_solver("x", text=SOLVER, format="yaml").stepsize == 10


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(ODD + "abc", max_size=6)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "name type bottom top param phase include exclude layers blocks block repeat out "
                "params state loss_weight stage lr_mult $x".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({"layers": st.lists(trees, max_size=4)}, optional={"blocks": trees}))
def test_any_tree_is_read_or_reported(tree: object) -> None:
    diag = Diagnostics()
    net = read_native_net(value_of(tree), "x", diag)
    assert isinstance(net, NetSpec)


@settings(max_examples=100, deadline=None)
@given(st.text(ODD + "conv1.num_output=base_lr", max_size=24))
def test_any_setting_is_applied_or_reported(setting: str) -> None:
    net = read_net("x", text=NET_YAML)
    solver = read_solver("x", text=SOLVER, format="yaml")
    try:
        apply_set(net, solver, setting)
    except NetError as error:
        assert str(error)
