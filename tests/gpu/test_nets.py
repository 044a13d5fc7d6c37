"""Small nets of what large ones are made of: every kernel is looked at, in a GPU's own code."""

from __future__ import annotations

import numpy as np
import pytest

from bench.locate import EMULATED, locate_in
from compiler.backends.triton import Backend
from compiler.frontend.build import build
from netdef.engine import Engine
from netdef.formats import read_net
from schemas.precision import Precision
from schemas.solver import SolverSpec
from tests.gpu.emulated import EmulatedDevice

pytest.importorskip("triton")

RESIDUAL = """
- {name: data, type: Input, shape: [3, 3, 9, 7]}
- {name: stem, type: Convolution, num_output: 8, kernel_size: 3, pad: 1, bias_term: false}
- {name: stem_bn, type: BatchNorm, top: stem}
- {name: stem_scale, type: Scale, bias_term: true, top: stem}
- {name: stem_relu, type: ReLU, top: stem}
- {name: a, type: Convolution, num_output: 12, kernel_size: 3, pad: 1, stride: 2, bias_term: false}
- {name: a_bn, type: BatchNorm, top: a}
- {name: b, type: Convolution, bottom: stem, num_output: 12, kernel_size: 1, stride: 2}
- {name: sum, type: Eltwise, bottom: [a, b]}
- {name: sum_relu, type: ReLU, top: sum}
- {name: pool, type: Pooling, pool: AVE, global_pooling: true}
- {name: label, type: Input, shape: [3]}
"""
INCEPTION = """
- {name: data, type: Input, shape: [2, 5, 7, 13]}
- {name: norm, type: LRN, local_size: 3}
- {name: a, type: Convolution, num_output: 7, kernel_size: 1}
- {name: a_relu, type: ReLU, top: a}
- {name: b, type: Convolution, bottom: norm, num_output: 4, kernel_size: 1}
- {name: b_relu, type: ReLU, top: b}
- {name: b3, type: Convolution, num_output: 9, kernel_size: 3, pad: 1}
- {name: b3_relu, type: ReLU, top: b3}
- {name: ways, type: Concat, bottom: [a, b3]}
- {name: pool, type: Pooling, pool: MAX, kernel_size: 3, stride: 2}
- {name: drop, type: Dropout, dropout_ratio: 0.3}
- {name: label, type: Input, shape: [2]}
"""
GROUPS = """
- {name: data, type: Input, shape: [2, 6, 9, 8]}
- {name: grouped, type: Convolution, num_output: 9, group: 3, kernel_size: [3, 2], pad: [1, 0]}
- {name: depthwise, type: Convolution, num_output: 9, group: 9, kernel_size: 3, stride: 2}
- {name: wider, type: Deconvolution, num_output: 5, kernel_size: 4, stride: 3, pad: 1}
- {name: label, type: Input, shape: [2]}
"""
RECURRENT = """
- {name: data, type: Input, shape: [3, 3, 5]}
- {name: one, type: RNN, num_output: 1}
- {name: cell, type: LSTM, num_output: 6}
- {name: label, type: Input, shape: [3, 3]}
"""
NETS: dict[str, tuple[str, str, Precision]] = {
    "residual": (RESIDUAL, "sm_90", "bf16"),
    "inception": (INCEPTION, "sm_90", "tf32"),
    "groups": (GROUPS, "sm_80", "bf16"),
    "recurrent": (RECURRENT, "sm_90", "bf16"),
}


@pytest.mark.parametrize("name", NETS)
def test_every_kernel_computes_what_it_should(name: str) -> None:
    layers, target, precision = NETS[name]
    axis = 2 if name == "recurrent" else 1
    last = layers.split("name: ")[-2].split(",")[0]
    text = f"""
name: small
layers:{layers}
- {{name: scores, type: InnerProduct, bottom: {last}, num_output: 5, axis: {axis}}}
- {{name: loss, type: SoftmaxWithLoss, bottom: [scores, label], axis: {axis}}}
"""
    net = read_net(text=text, format="yaml")
    spec = SolverSpec(net_param=net, momentum=0.9, weight_decay=1e-2, clip_gradients=0.5)
    rng = np.random.default_rng(3)
    given = {
        key: rng.integers(0, 5, leaf.shape) if key == "label" else rng.normal(size=leaf.shape)
        for key, leaf in build(net, "TRAIN").inputs.items()
    }
    engine = Engine(Backend(target, precision), EmulatedDevice(target))
    with np.errstate(all="ignore"):
        assert locate_in(spec, given, engine, lambda line: None, EMULATED) == []
