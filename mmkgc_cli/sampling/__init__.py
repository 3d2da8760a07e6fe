"""Negative sampling: the sampler contract, the registry of samplers and the built-in samplers."""
