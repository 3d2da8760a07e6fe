"""Knowledge graphs: readers, the dataset registry, splits and the prepared graph."""
