"""The one loop, driving step programs; negatives, losses and what a run needs to select on."""
