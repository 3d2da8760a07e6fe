"""One-line notices of library code to the user; the command line prints them."""

from __future__ import annotations

from collections.abc import Callable

# Receives each notice; None drops them, as in a program that uses mmkgc as a library.
receiver: Callable[[str], None] | None = None


def notify(message: str) -> None:
    """Passes one line to `receiver`."""
    if receiver is not None:
        receiver(message)
