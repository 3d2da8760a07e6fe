"""Tables of texts and numbers by entity, made again from published files."""
