"""Graph -> Graph: gradients, updates and rewrites."""
