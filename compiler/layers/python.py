"""Python: a layer that is a class in a file of the user's."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir import ops
from compiler.ir.node import Node
from compiler.layers import layer as register
from compiler.layers.fields import option
from compiler.layers.scope import Scope
from schemas.errors import SpecError


@register("Python")
@dataclass(frozen=True)
class Python:
    """A class with setup, reshape, forward and backward; it runs only where that is allowed."""

    module: str = option("the file of the class, without .py; beside the net or on Python's path")
    layer: str = option("the name of the class in it")
    param_str: str = option("text that the class finds in self.param_str", "")
    share_in_parallel: bool = option("without effect: a net has one object for each layer", False)

    def build(self, scope: Scope, *bottoms: Node) -> tuple[Node, ...]:
        if scope.deploy and not bottoms:
            return self._inputs(scope)
        values = tuple(ops.cast(x, "f32") if x.dtype != "f32" else x for x in bottoms)
        return scope.call(self.module, self.layer, self.param_str, values)

    def _inputs(self, scope: Scope) -> tuple[Node, ...]:
        """A source of data falls away in use, as every data layer does."""
        for top in scope.tops:
            if top not in scope.given:
                hint = f"--input-shape {top}=N,C,H,W"
                scope.error(
                    f"the shape of the input '{top}' is not given", hint=hint, kind=SpecError
                )
        return scope.inputs(tuple(scope.given[top] for top in scope.tops))
