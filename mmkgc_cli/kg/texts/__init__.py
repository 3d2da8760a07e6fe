"""Tables of texts and numbers of entities, built from published files."""
