"""Experts: manifests, the registry, ternary numerics and checkpoints, the expert worker."""
