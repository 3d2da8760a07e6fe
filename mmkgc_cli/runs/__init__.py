"""Runs: resolved configuration, run directories, and the jobs behind `train` and `eval`."""
