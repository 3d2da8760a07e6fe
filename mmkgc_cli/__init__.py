"""Completes knowledge graphs whose entities carry several modalities, some of them missing."""

__version__ = "0.2.0"
