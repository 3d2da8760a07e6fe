"""Pages that are generated from the code are those that the code generates."""

from __future__ import annotations

from docs.generate_settings import PAGE, page


def test_the_page_of_settings_is_that_of_the_classes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"
