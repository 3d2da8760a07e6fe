from __future__ import annotations

from typing import Any

import pytest

from mmkgc_cli.errors import UsageError
from mmkgc_cli.extraction.contract import EncoderOptions
from mmkgc_cli.extraction.registry import MODALITIES, find_modality
from mmkgc_cli.features.metadata import Metadata


def test_every_modality_has_one_default_and_a_name_that_a_store_can_have() -> None:
    for name, entry in MODALITIES.items():
        assert entry.name == name == Metadata(name).modality
        assert len([e for e in entry.encoders if e.default]) == 1
        names = [e.name for e in entry.encoders]
        assert len(set(names)) == len(names)
        assert all(e.help and "\n" not in e.help for e in entry.encoders)


def test_an_unknown_modality_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="modality 'txt' is unknown; did you mean 'text'"):
        find_modality("txt")


@pytest.mark.parametrize(
    ("name", "encoder", "options", "flag"),
    [
        ("text", "hashed-ngrams", {"pooling": "cls"}, "--pooling: hashed-ngrams"),
        ("text", "hashed-ngrams", {"precision": "bf16"}, "--precision: hashed-ngrams"),
        ("text", "hashed-ngrams", {"device": "cuda"}, "--device: hashed-ngrams"),
        ("text", None, {"min_count": 3}, "--min-count: bert-base-uncased"),
        ("numeric", None, {"pooling": "cls"}, "--pooling: quantiles"),
        ("numeric", "some/model", {"min_count": 3}, "--min-count: some/model"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(
    name: str, encoder: str | None, options: dict[str, Any], flag: str
) -> None:
    with pytest.raises(UsageError, match=f"{flag} does not use it"):
        find_modality(name).encoder(encoder, EncoderOptions(**options))


def test_encoders_come_by_name_and_by_default() -> None:
    ngrams = find_modality("text").encoder("hashed-ngrams", EncoderOptions())
    assert ngrams.metadata.name == "hashed-ngrams"
    quantiles = find_modality("numeric").encoder(None, EncoderOptions(min_count=1))
    assert type(quantiles).__name__ == "Quantiles"
