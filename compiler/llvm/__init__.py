"""LLVM code for kernels: what `compiler/backends/cpu.py` is made of."""
