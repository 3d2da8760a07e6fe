"""Negative sampling: the contract of samplers, and where they are found."""
