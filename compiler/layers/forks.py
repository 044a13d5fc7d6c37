"""Names that other branches of Caffe have for convolution and pooling: C3D's, depthwise."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from compiler.ir.node import Node
from compiler.layers import layer
from compiler.layers.activation import ENGINE_DOC, Engine
from compiler.layers.conv import Convolution, Filters
from compiler.layers.deconv import Deconvolution
from compiler.layers.fields import option
from compiler.layers.pool import Pooling
from compiler.layers.scope import Scope
from schemas.params import Filler


@layer("DepthwiseConvolution")
@dataclass(frozen=True, kw_only=True)
class DepthwiseConvolution(Filters):
    """A Convolution in which each channel is a group of its own."""

    group: int | None = option("the number of channels, if given", None, low=1)  # type: ignore[assignment]

    def build(self, scope: Scope, x: Node, *more: Node) -> tuple[Node, ...]:
        channels = x.shape[self.channel_axis(scope, x)]
        if self.group not in (None, channels):
            scope.error(f"group {self.group} is not the channels of {scope.bottoms[0]}", "group")
        if self.num_output % channels:
            message = f"num_output {self.num_output} is no multiple of the channels"
            scope.error(f"{message} of {scope.bottoms[0]}", "num_output")
        given = {f.name: getattr(self, f.name) for f in fields(self)} | {"group": channels}
        return Convolution(**given).build(scope, x, *more)


@layer("ConvolutionDepthwise")
@dataclass(frozen=True, kw_only=True)
class ConvolutionDepthwise(DepthwiseConvolution):
    """DepthwiseConvolution by another name."""


@dataclass(frozen=True, kw_only=True)
class Filters3D:
    """The fields of C3D's layers (Tran et al. 2015), for bottoms (N, C, length, height, width)."""

    num_output: int = option("number of filters", low=1)
    kernel_size: int = option("height and width of the kernel", low=1)
    kernel_depth: int = option("length of the kernel", 1, low=1)
    stride: int = option("step along height and width", 1, low=1)
    temporal_stride: int = option("step along the length", 1, low=1)
    pad: int = option("zeros around height and width, on each side", 0, low=0)
    temporal_pad: int = option("zeros before and behind the length", 0, low=0)
    bias_term: bool = option("whether a bias is added", True)
    weight_filler: Filler = option("first values of the weights", Filler())
    bias_filler: Filler = option("first values of the bias", Filler())
    engine: Engine = option(ENGINE_DOC, "DEFAULT")

    def filters(self, kind: type[Convolution] | type[Deconvolution]) -> Convolution | Deconvolution:
        return kind(
            num_output=self.num_output,
            kernel_size=(self.kernel_depth, self.kernel_size, self.kernel_size),
            stride=(self.temporal_stride, self.stride, self.stride),
            pad=(self.temporal_pad, self.pad, self.pad),
            bias_term=self.bias_term,
            weight_filler=self.weight_filler,
            bias_filler=self.bias_filler,
        )


@layer("Convolution3D")
@dataclass(frozen=True, kw_only=True)
class Convolution3D(Filters3D):
    """A Convolution over length, height and width."""

    def build(self, scope: Scope, x: Node, *more: Node) -> tuple[Node, ...]:
        _need_video(scope, x)
        return self.filters(Convolution).build(scope, x, *more)


@layer("Deconvolution3D")
@dataclass(frozen=True, kw_only=True)
class Deconvolution3D(Filters3D):
    """A Deconvolution over length, height and width."""

    def build(self, scope: Scope, x: Node, *more: Node) -> tuple[Node, ...]:
        _need_video(scope, x)
        return self.filters(Deconvolution).build(scope, x, *more)


@layer("Pooling3D")
@dataclass(frozen=True, kw_only=True)
class Pooling3D:
    """Pooling over length, height and width."""

    pool: Literal["MAX", "AVE", "STOCHASTIC"] = option("what is taken of a window", "MAX")
    kernel_size: int = option("height and width of the windows", low=1)
    kernel_depth: int = option("length of the windows", 1, low=1)
    stride: int = option("step along height and width", 1, low=1)
    temporal_stride: int = option("step along the length", 1, low=1)
    pad: int = option("rows and columns around the bottom, on each side", 0, low=0)
    temporal_pad: int = option("images before and behind the bottom", 0, low=0)
    engine: Engine = option(ENGINE_DOC, "DEFAULT")

    def build(self, scope: Scope, x: Node) -> tuple[Node, ...]:
        _need_video(scope, x)
        return Pooling(
            pool=self.pool,
            kernel_size=(self.kernel_depth, self.kernel_size, self.kernel_size),
            stride=(self.temporal_stride, self.stride, self.stride),
            pad=(self.temporal_pad, self.pad, self.pad),
        ).build(scope, x)


def _need_video(scope: Scope, x: Node) -> None:
    scope.need(x.type.rank == 5, "needs a bottom (N, C, length, height, width)")
