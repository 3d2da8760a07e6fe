"""What must survive a kill: atomic files, weights, RNG streams, the trace, signals."""
