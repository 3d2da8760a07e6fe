"""Vectors for entities that have none: strategies, what they are worth, and stores of them."""
