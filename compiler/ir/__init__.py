"""A net as a graph of primitives: nodes, rewriting, evaluation."""
