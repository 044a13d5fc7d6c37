"""Geometry of sliding windows: fields per axis, output sizes, windows that do not fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compiler.layers.scope import Scope
from schemas.errors import SpecError

Ints = tuple[int, ...]
_FAR = 1000  # how far from what is written a size that fits is looked for
_CHOICES = 4  # strides that are offered at most


@dataclass(frozen=True)
class Axis:
    """One axis that a kernel slides over; `reach` is the kernel's extent with its dilation."""

    size: int
    kernel: int
    stride: int = 1
    pad: int = 0
    dilation: int = 1

    @property
    def reach(self) -> int:
        return self.dilation * (self.kernel - 1) + 1

    @property
    def room(self) -> int:
        """How far the kernel can be moved: (out - 1) * stride where it fits evenly."""
        return self.size + 2 * self.pad - self.reach

    @property
    def floor(self) -> int:
        return self.room // self.stride + 1

    def ceil(self, padded: bool) -> int:
        """Caffe's size of pooling: a last window that is cut off counts.

        One that starts beyond the image and its left pad is dropped, but only if any axis is
        padded: kernel 1 with stride 2 over 6 makes a fourth window, whose maximum is -FLT_MAX.
        """
        out = -(-self.room // self.stride) + 1
        beyond = (out - 1) * self.stride >= self.size + self.pad
        return out - 1 if padded and beyond else out


def spread(scope: Scope, layer: Any, name: str, axes: int, default: int | None) -> Ints:
    """Returns a field such as `stride`, one value an axis: from `stride`, or `stride_h`, `_w`."""
    values: Ints = getattr(layer, name)
    stem = name.removesuffix("_size")
    sides = [getattr(layer, f"{stem}_{side}") for side in "hw"]
    if any(side is not None for side in sides):
        if values:
            message = f"{name} and {stem}_h, {stem}_w are both given"
            scope.error(message, name, "leave one of them out", kind=SpecError)
        if axes != 2:
            message = f"{stem}_h and {stem}_w need 2 spatial axes, not {axes}"
            scope.error(message, f"{stem}_h", f"give {name} as a list")
        values = tuple(default if side is None else side for side in sides)  # type: ignore[misc]
    if None in values or (not values and default is None and axes):
        missing = f"'{stem}_h' or '{stem}_w'" if values else f"'{name}'"
        scope.error(f"{missing} is missing", span=scope.spec.type.span, kind=SpecError)
    if len(values) not in (0, 1, axes):
        bottom = scope.bottoms[0]
        scope.error(f"{name} has {len(values)} values for {axes} spatial axes of {bottom}", name)
    if not values:
        assert default is not None or not axes
        values = (default or 0,)
    return values if len(values) == axes else values * axes


def check_fit(scope: Scope, axes: list[Axis], partial: bool = False) -> None:
    """Raises where the kernel is too large, warns where windows leave a rest.

    `partial`: sizes round up, so that one window that is cut off may be all there is.
    """
    for which, axis in zip(_names(axes), axes, strict=True):
        if axis.room < (1 - axis.stride if partial else 0):
            padded = f"{axis.size} + 2*{axis.pad}" if axis.pad else f"{axis.size}"
            scope.error(
                f"kernel {_kernel(axis)} is larger than its input {padded}{which}: "
                f"{scope.bottoms[0]}",
                "kernel_size",
                f"a kernel of at most {_largest(axis)} fits, or a pad of "
                f"{-(-(axis.reach - axis.size) // 2)} or more",
            )
    warned: set[Axis] = set()
    for which, axis in zip(_names(axes), axes, strict=True):
        if axis.room % axis.stride and axis not in warned:
            warned.add(axis)
            scope.warn(
                f"({axis.size} + 2*{axis.pad} - {axis.reach}) / {axis.stride} + 1 = "
                f"{axis.room / axis.stride + 1:.2f} windows{which}: kernel {_kernel(axis)} with "
                f"stride {axis.stride} does not fit {axis.size}",
                "stride" if "stride" in scope.spec.params else "kernel_size",
                f"would fit: {', '.join(_fitting(axis))}",
            )


def _fitting(axis: Axis) -> list[str]:
    """Returns changes of one number, near to what is written, that make the windows fit evenly."""
    strides = [s for s in _near(axis.stride, 1, axis.stride) if axis.room % s == 0]
    found = [f"stride {s}" for s in strides[-_CHOICES:]]
    bare = axis.size - axis.reach
    pads = [p for p in _near(axis.pad, 0, axis.reach) if (bare + 2 * p) % axis.stride == 0]
    if pads:
        return [*found, f"pad {min(pads, key=lambda p: abs(p - axis.pad))}"]
    sizes = _near(axis.kernel, 1, axis.size + 2 * axis.pad + 1)
    kernels = [k for k in sizes if (axis.room + axis.reach - k) % axis.stride == 0]
    if kernels and axis.dilation == 1:
        found.append(f"kernel {min(kernels, key=lambda k: abs(k - axis.kernel))}")
    return found or ["stride 1"]


def _near(value: int, low: int, high: int) -> range:
    """Returns the numbers from `low` and below `high` that are not far from a value."""
    return range(max(low, min(value, high) - _FAR), min(high, value + _FAR))


def _names(axes: list[Axis]) -> list[str]:
    if len(set(axes)) <= 1:
        return [""] * len(axes)
    names = ["depth", "height", "width"][-len(axes) :]
    return [f" along the {name}" for name in names]


def _kernel(axis: Axis) -> str:
    return f"{axis.kernel} (dilated to {axis.reach})" if axis.dilation > 1 else f"{axis.kernel}"


def _largest(axis: Axis) -> int:
    return max(1, (axis.size + 2 * axis.pad - 1) // axis.dilation + 1)
