"""MACO (Zhang et al., 2023): vectors generated from the structure of the graph."""
