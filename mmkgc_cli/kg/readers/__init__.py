"""Readers of source files, one module per format; they read blocks and report file and line."""
