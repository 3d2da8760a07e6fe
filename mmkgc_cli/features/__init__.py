"""Feature stores: vectors by entity id, masks of observed vectors, and their provenance."""
