"""NetSpec -> Graph -> Kernels -> Program; one file a backend."""
