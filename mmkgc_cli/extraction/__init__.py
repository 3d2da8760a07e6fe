"""Extraction of feature stores: inputs of modalities, encoders, and the driver."""
