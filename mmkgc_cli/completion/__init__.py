"""Completion: strategies that generate missing vectors, and measures of their quality."""
