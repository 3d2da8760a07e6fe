"""Atomic files, weights, checkpoints, random streams, the trace, signals and locks."""
