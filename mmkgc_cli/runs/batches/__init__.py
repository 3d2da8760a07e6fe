"""Batches: recipes, the jobs that they plan, and running them."""
