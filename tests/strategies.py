"""Hypothesis strategies: random small nets, written as YAML."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def nets(draw):
    """A net of convolutions, poolings, activations, branches and a loss, as YAML text."""
    batch = draw(st.integers(1, 4))
    channels = draw(st.sampled_from([1, 2, 3, 4]))
    height, width = draw(st.integers(5, 9)), draw(st.integers(5, 9))
    shape = f"[{batch}, {channels}, {height}, {width}]"
    lines = [
        "name: random",
        "layers:",
        f"- {{name: data, type: Input, top: data, shape: {shape}}}",
        f"- {{name: label, type: Input, top: label, shape: [{batch}]}}",
    ]
    blob, size = "data", (channels, height, width)
    for i in range(draw(st.integers(1, 4))):
        blob, size = _layer(draw, lines, i, blob, size)
    lines.append(f"- {{name: ip, type: InnerProduct, bottom: {blob}, num_output: 4}}")
    if draw(st.booleans()):
        lines.append("- {name: act, type: TanH, bottom: ip, top: ip}")
    lines.append("- {name: loss, type: SoftmaxWithLoss, bottom: [ip, label]}")
    return "\n".join(lines) + "\n"


def _layer(draw, lines, i, blob, size):
    channels, height, width = size
    kinds = ["conv", "pool", "act", "lrn", "branch", "dropout", "concat"]
    kind = draw(st.sampled_from(kinds))
    name = f"l{i}"
    if kind == "conv":
        kernel = draw(st.integers(1, min(3, height, width)))
        pad, stride = draw(st.integers(0, 1)), draw(st.integers(1, 3))
        group = 2 if channels % 2 == 0 and draw(st.booleans()) else 1
        outputs = draw(st.sampled_from([2, 4]))
        bias = "true" if draw(st.booleans()) else "false"
        lines.append(
            f"- {{name: {name}, type: Convolution, bottom: {blob}, num_output: {outputs}, "
            f"kernel_size: {kernel}, pad: {pad}, stride: {stride}, group: {group}, "
            f"bias_term: {bias}}}"
        )
        height = (height + 2 * pad - kernel) // stride + 1
        width = (width + 2 * pad - kernel) // stride + 1
        return name, (outputs, height, width)
    if kind == "pool" and min(height, width) >= 3:
        method = draw(st.sampled_from(["MAX", "AVE"]))
        stride = draw(st.integers(1, 3))
        # A stride beyond the kernel may leave Caffe a window that holds nothing, 0 / 0: round down.
        sizes = [-(-(n - 2) // stride) + 1 for n in (height, width)]
        empty = any((o - 1) * stride >= n for o, n in zip(sizes, (height, width), strict=True))
        if empty:
            sizes = [(n - 2) // stride + 1 for n in (height, width)]
        mode = "FLOOR" if empty else "CEIL"
        lines.append(
            f"- {{name: {name}, type: Pooling, bottom: {blob}, pool: {method}, kernel_size: 2, "
            f"stride: {stride}, round_mode: {mode}}}"
        )
        return name, (channels, *sizes)
    if kind == "lrn":
        region = draw(st.sampled_from(["ACROSS_CHANNELS", "WITHIN_CHANNEL"]))
        lines.append(
            f"- {{name: {name}, type: LRN, bottom: {blob}, local_size: 3, norm_region: {region}}}"
        )
        return name, size
    if kind == "dropout":
        lines.append(f"- {{name: {name}, type: Dropout, bottom: {blob}}}")
        return name, size
    if kind == "branch":
        lines.append(f"- {{name: {name}a, type: TanH, bottom: {blob}}}")
        lines.append(f"- {{name: {name}, type: Eltwise, bottom: [{name}a, {blob}]}}")
        return name, size
    if kind == "concat":
        lines.append(f"- {{name: {name}a, type: Sigmoid, bottom: {blob}}}")
        lines.append(f"- {{name: {name}, type: Concat, bottom: [{name}a, {blob}]}}")
        return name, (channels * 2, height, width)
    act = draw(st.sampled_from(["ReLU", "Sigmoid", "TanH"]))
    in_place = draw(st.booleans()) and blob != "data"
    top = blob if in_place else name
    lines.append(f"- {{name: {name}, type: {act}, bottom: {blob}, top: {top}}}")
    return top, size


@st.composite
def cycles(draw):
    """A net whose blob `h` is made of an earlier or a later time step of itself, as YAML text."""
    steps, batch, size = (draw(st.integers(1, most)) for most in (6, 3, 4))
    back = draw(st.sampled_from(["h[t-1]", "h[t-2]", "h[t+1]"]))
    lines = [
        "layers:",
        f"- {{name: x, type: Input, top: x, shape: [{steps}, {batch}, 3]}}",
        f"- {{name: label, type: Input, top: label, shape: [{steps}, {batch}]}}",
    ]
    blob = "x"
    if draw(st.booleans()):
        blob = "in"
        lines.append(f"- {{name: in, type: InnerProduct, bottom: x, axis: 2, num_output: {size}}}")
    dense = f"type: InnerProduct, axis: 2, num_output: {size}"
    if draw(st.booleans()):
        lines.append(f'- {{name: both, type: Concat, axis: 2, bottom: [{blob}, "{back}"]}}')
        lines.append(f"- {{name: sum, {dense}}}")
    else:
        lines.append(f"- {{name: new, {dense}, bottom: {blob}}}")
        lines.append(f'- {{name: old, {dense}, bottom: "{back}", bias_term: false}}')
        lines.append("- {name: sum, type: Eltwise, bottom: [new, old]}")
    act = draw(st.sampled_from(["TanH", "Sigmoid", "Power"]))
    initial = draw(st.sampled_from(["", ", initial: 0.5", ", initial: learned"]))
    lines.append(f"- {{name: h, type: {act}{initial}}}")
    blob = "h"
    if draw(st.booleans()):
        blob = "again"
        lines.append('- {name: again, type: Eltwise, bottom: [h, "h[t-2]"]}')
    lines.append(f"- {{name: ip, type: InnerProduct, bottom: {blob}, axis: 2, num_output: 4}}")
    lines.append("- {name: loss, type: SoftmaxWithLoss, axis: 2, bottom: [ip, label]}")
    return "\n".join(lines) + "\n"
