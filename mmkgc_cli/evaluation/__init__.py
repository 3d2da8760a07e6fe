"""Filtered ranking, and the metrics of its ranks."""
