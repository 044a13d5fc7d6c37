"""Runs PTX, as Triton compiled it, on NumPy: what a GPU would do, slowly and with an eye on it."""
