"""Completion: vectors for entities that have none."""
