"""Layers that scale and shift channels behind contractions: what folds, and random weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Each makes 6 channels of the 4 of its bottom; {bias} is true or false.
CONTRACTIONS = {
    "conv": "type: Convolution, num_output: 6, kernel_size: 3, pad: 1, bias_term: {bias}",
    "grouped": "type: Convolution, num_output: 6, kernel_size: 3, group: 2, bias_term: {bias}",
    "depthwise": "type: DepthwiseConvolution, num_output: 8, kernel_size: 3, bias_term: {bias}",
    "deconv": "type: Deconvolution, num_output: 6, kernel_size: 2, stride: 2, bias_term: {bias}",
    "deconv grouped": "type: Deconvolution, num_output: 6, kernel_size: 2, group: 2, "
    "bias_term: {bias}",
    "ip": "type: InnerProduct, num_output: 6, bias_term: {bias}",
    "ip transposed": "type: InnerProduct, num_output: 6, transpose: true, bias_term: {bias}",
}
# The layers behind, first to last.
CHAINS = {
    "BN": ["type: BatchNorm"],
    "BN+Scale": ["type: BatchNorm, eps: 0.001", "type: Scale, bias_term: true"],
    "BN+Scale without bias": ["type: BatchNorm, eps: 0.1", "type: Scale"],
    "Scale": ["type: Scale, bias_term: true"],
    "Scale without bias": ["type: Scale"],
    "BN+Bias": ["type: BatchNorm", "type: Bias"],
    "fork's BN": ["type: BN"],
    "BN+Scale of one number": ["type: BatchNorm", "type: Scale, num_axes: 0"],
    "BN+Power": ["type: BatchNorm", "type: Power, scale: 2, shift: -1"],
}
DATA = "- {name: data, type: Input, shape: [2, 4, 5, 5]}"


def chain_net(contraction: str, chain: list[str], bias: bool, in_place: bool, end: str = "") -> str:
    """Returns a net.yaml: the contraction, the chain behind it, a ReLU, and `end`."""
    first = contraction.replace("{bias}", str(bias).lower())
    lines = ["name: chain", "layers:", DATA, f"- {{name: first, {first}}}"]
    before = "first"
    for i, layer in enumerate(chain):
        top = "first" if in_place else f"after{i}"
        lines.append(f"- {{name: link{i}, {layer}, bottom: {before}, top: {top}}}")
        before = top
    lines.append(f"- {{name: relu, type: ReLU, bottom: {before}, top: out}}")
    return "\n".join([*lines, *filter(None, [end])]) + "\n"


@dataclass(frozen=True)
class Statistics:
    """What BatchNorm's blobs hold: the mean, sums over factor; variances low to high."""

    low: float = 0.5
    high: float = 2.0
    factor: float = 1.0


STATISTICS = {
    "usual": Statistics(),
    "small": Statistics(1e-6, 1e-4),
    "large": Statistics(1e3, 1e6),
    "scaled": Statistics(factor=37.5),
    "none yet": Statistics(factor=0.0),
}


def weights_for(
    shapes: dict[str, tuple[int, ...]], statistics: Statistics
) -> dict[str, np.ndarray]:
    """Returns random weights by key."""
    rng = np.random.default_rng(3)
    found = {}
    for key, shape in shapes.items():
        value = rng.normal(size=shape)
        if key.endswith("/variance"):
            value = rng.uniform(statistics.low, statistics.high, shape) * (statistics.factor or 1)
        elif key.endswith("/mean"):
            value *= statistics.factor or 1
        elif key.endswith("/scale_factor"):
            value = np.full(shape, statistics.factor)
        found[key] = value.astype(np.float32)
    return found
