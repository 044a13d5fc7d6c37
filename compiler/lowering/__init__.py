"""Graph -> Kernels -> launches in memory: storage, fusion, fitting to a backend."""
