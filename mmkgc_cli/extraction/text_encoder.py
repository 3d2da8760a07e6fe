"""Text encoders: transformers with chunking and pooling, and sentence models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.extraction.contract import Encoder, EncoderMetadata, EncoderOptions, Skip
from mmkgc_cli.extraction.pretrained import Pretrained, load_transformers, locate
from mmkgc_cli.state.device import pick_device

_UNLIMITED = 1 << 20  # tokenizers without a limit report a very large one
_USUAL_LENGTH = 512


class TextEncoder(Encoder[str]):
    """A transformer; the vector of a text is the state of its CLS token or the mean over tokens.

    A text longer than the limit of the model is split into chunks, and its vector is their mean
    weighted by tokens. Sentence models (those with ``modules.json``) use their own pooling and
    normalisation. Padding is masked, so that other texts of a batch only change rounding.
    """

    def __init__(
        self, encoder: str, options: EncoderOptions, registered: Iterable[str] = ()
    ) -> None:
        transformers = load_transformers()
        pretrained = locate(encoder, registered)
        self._device = pick_device(options.device, "--device cuda")
        self._batch_size = options.batch_size
        self._precision = options.precision or "float32"
        self._tokenizer = pretrained.load(transformers.AutoTokenizer)
        model = pretrained.load_model(transformers.AutoModel)
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        self._model = model.to(self._device)
        self.width = int(model.config.hidden_size)
        self._before, self._after = _special_tokens(self._tokenizer)
        sentence = pretrained.read_json("modules.json")
        sentence_limit = _sentence_length(pretrained) if sentence else None
        self._length = _length(self._tokenizer, model, sentence_limit)
        self._room = self._length - len(self._before) - len(self._after)
        if self._room < 1:
            raise DataError(
                f"{pretrained.name}: takes {self._length} tokens, too few for a text",
                fix="choose another model with --encoder",
            )
        has_cls = self._before[:1] == [self._tokenizer.cls_token_id]
        if options.pooling == "pooler":
            raise UsageError(
                "--pooling pooler: text models do not support it", fix="use cls or mean"
            )
        self._pooling = options.pooling or _default_pooling(pretrained, sentence, has_cls)
        if self._pooling == "cls" and not has_cls:
            raise DataError(
                f"{pretrained.name}: has no CLS token at the start", fix="use --pooling mean"
            )
        self._unit = any(_is_normalize(module) for module in sentence or ())
        self.conditions = {"device": self._device.type}
        precision = "" if self._precision == "float32" else f", {self._precision}"
        self.metadata = EncoderMetadata(
            pretrained.name,
            pretrained.revision,
            f"chunks of {self._length} tokens{precision}",
            ("CLS token" if self._pooling == "cls" else "mean over tokens")
            + ", mean over chunks by tokens"
            + (", at length 1" if self._unit else ""),
        )

    def admit(self, item: str) -> None:
        """Skips texts without tokens."""
        if not self._tokens(item):
            raise Skip("the text has no tokens")

    def encode(self, items: Sequence[str]) -> NDArray[np.float32]:
        """Vectors float32 ``[n, width]``."""
        chunks: list[tuple[int, list[int]]] = []  # number of the text, tokens
        for number, text in enumerate(items):
            tokens = self._tokens(text)
            for start in range(0, len(tokens), self._room):
                chunks.append((number, tokens[start : start + self._room]))
        chunks.sort(key=lambda chunk: -len(chunk[1]))  # stable; short ones need little padding
        total = np.zeros((len(items), self.width))
        weight = np.zeros(len(items))
        for start in range(0, len(chunks), self._batch_size):
            batch = chunks[start : start + self._batch_size]
            vectors = self._forward([tokens for _, tokens in batch])
            for (number, tokens), vector in zip(batch, vectors, strict=True):
                total[number] += len(tokens) * vector.astype(np.float64)
                weight[number] += len(tokens)
        total /= weight[:, None]
        if self._unit:
            total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        return total.astype(np.float32)

    def _tokens(self, text: str) -> list[int]:
        pretrained = self._tokenizer(
            text, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        return list(pretrained["input_ids"])

    def _forward(self, batch: Sequence[list[int]]) -> NDArray[np.float32]:
        import torch

        rows = [[*self._before, *tokens, *self._after] for tokens in batch]
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros((len(rows), longest), dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        with torch.inference_mode(), self._rounding():
            output = self._model(input_ids=ids, attention_mask=mask)
        hidden = getattr(output, "last_hidden_state", None)
        if hidden is None:
            raise DataError(
                f"{self.metadata.name}: has no token states, so it is not a text model",
                fix="choose a text model, see `mmkgc extract text --list`",
            )
        hidden = hidden.float()
        if self._pooling == "cls":
            pool = hidden[:, 0]
        else:
            weights = mask[:, :, None].to(hidden.dtype)
            pool = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        vectors: NDArray[np.float32] = pool.cpu().numpy()
        return vectors

    def _rounding(self) -> contextlib.AbstractContextManager[Any]:
        import torch

        if self._precision == "float32":
            return contextlib.nullcontext()
        dtype = torch.bfloat16 if self._precision == "bf16" else torch.float16
        return torch.autocast(self._device.type, dtype)


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    with_special = tokenizer("a")["input_ids"]
    for start in range(len(with_special) - len(bare) + 1):
        if bare and with_special[start : start + len(bare)] == bare:
            return list(with_special[:start]), list(with_special[start + len(bare) :])
    return [], []


def _length(tokenizer: Any, model: Any, sentence_limit: int | None) -> int:
    """Tokens per chunk: the minimum of the limits of tokenizer, positions and sentence model."""
    limits = [tokenizer.model_max_length, sentence_limit]
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions:
        # RoBERTa and similar models start positions after that of padding.
        padding = getattr(getattr(model, "embeddings", None), "padding_idx", None)
        limits.append(positions if padding is None else positions - padding - 1)
    valid_limits = [int(limit) for limit in limits if limit and 0 < limit < _UNLIMITED]
    return min(valid_limits, default=_USUAL_LENGTH)


def _sentence_length(pretrained: Pretrained) -> int | None:
    settings = pretrained.read_json("sentence_bert_config.json") or {}
    return settings.get("max_seq_length") if isinstance(settings, dict) else None


def _default_pooling(pretrained: Pretrained, sentence: Any, has_cls: bool) -> str:
    """The pooling of a sentence model; otherwise the CLS token if there is one, else the mean."""
    if not sentence:
        return "cls" if has_cls else "mean"
    folder = next((m["path"] for m in sentence if str(m.get("type", "")).endswith("Pooling")), None)
    settings = pretrained.read_json(f"{folder}/config.json") if folder else None
    if not settings:
        return "mean"
    modes = [k for k, v in settings.items() if k.startswith("pooling_mode_") and v is True]
    if modes == ["pooling_mode_cls_token"]:
        return "cls"
    if modes in ([], ["pooling_mode_mean_tokens"]):
        return "mean"
    raise DataError(
        f"{pretrained.name}: is pooled by {', '.join(modes)}, which is not supported",
        fix="use --pooling cls or --pooling mean",
    )


def _is_normalize(module: Any) -> bool:
    return str(module.get("type", "")).endswith("Normalize")
