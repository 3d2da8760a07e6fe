"""Completes knowledge graphs with several modalities, some of them missing."""

__version__ = "0.2.0"
