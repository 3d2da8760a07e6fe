"""A short file a verb: the only room with Typer and Rich. Heavy imports happen inside commands."""
