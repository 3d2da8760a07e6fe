"""A small BERT with random weights, as a folder that transformers loads."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch

WIDTH = 16
POSITIONS = 24


def tiny_bert(folder: Path, seed: int = 0, positions: int = POSITIONS) -> Path:
    """Writes config, weights and a tokenizer of single letters and a few words."""
    # transformers 5 adds this name at run time.
    from transformers import (  # type: ignore[attr-defined]
        BertConfig,
        BertModel,
        BertTokenizerFast,  # type: ignore[attr-defined, unused-ignore]
    )

    folder.mkdir(parents=True, exist_ok=True)
    letters = string.ascii_lowercase + string.digits + ".,:;-'"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "metal", "gas", *letters]
    words += [f"##{letter}" for letter in letters]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=positions)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=positions,
        initializer_range=0.5,  # so that every token matters
    )  # fmt: skip
    torch.manual_seed(seed)
    BertModel(config).save_pretrained(folder)
    return folder


def as_sentence_model(folder: Path, length: int, unit: bool = True, **pooling: Any) -> Path:
    """Adds what sentence-transformers writes: mean pooling unless `pooling` is given."""
    names = ["Transformer", "Pooling", *(["Normalize"] if unit else [])]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{module}" if i else "",
         "type": f"sentence_transformers.models.{module}"}
        for i, module in enumerate(names)
    ]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    settings = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True, **pooling}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return folder
