"""Feature stores: vectors by entity id, what was really observed, and where they come from."""
