"""Readers of source files: a file a format, all by chunks and with file and line in errors."""
