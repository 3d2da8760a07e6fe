"""MACO (Zhang et al. 2023): missing vectors generated from the structure of the graph."""
