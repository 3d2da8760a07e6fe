"""The one loop, driving step programs; negatives and what a run needs to select on."""
