"""Renders kernels as Triton source and compiles them ahead of time."""
