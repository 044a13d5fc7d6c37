"""Every primitive once: type rule, vjp and NumPy evaluation stand together."""

from compiler.prims import contract, gather, leaves, maps, moves, reduce, window, winograd

__all__ = ["contract", "gather", "leaves", "maps", "moves", "reduce", "window", "winograd"]
