"""Modules that several scorers use: embeddings, projections, experts, fusions, estimators."""
