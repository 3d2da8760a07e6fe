"""Layers that scorers and completion are built of."""
