"""Small models of pictures, sounds and videos with random weights, as folders."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import torch

SIDE, PATCH, WIDTH, FRAMES = 32, 8, 16, 4
_SIZE = {"height": SIDE, "width": SIDE}
_SMALL: dict[str, Any] = {
    "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "image_size": SIDE, "patch_size": PATCH,
}  # fmt: skip


def _save(folder: Path, *parts: Any) -> Path:
    # Its bar goes past Python's streams.
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stderr(nothing):
        for part in parts:
            part.save_pretrained(folder)
    return folder


def _pixels(**options: Any) -> Any:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    return ViTImageProcessorPil(size=_SIZE, **options)


def tiny_vit(folder: Path, seed: int = 0, head: bool = False) -> Path:
    """A ViT; with `head` a classifier, which has no pooler."""
    from transformers import ViTConfig, ViTForImageClassification, ViTModel

    torch.manual_seed(seed)
    model_class = ViTForImageClassification if head else ViTModel
    return _save(folder, model_class(ViTConfig(**_SMALL)), _pixels())


def tiny_resnet(folder: Path) -> Path:
    """A convolutional network, without tokens."""
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, WIDTH], depths=[1, 1])
    return _save(folder, ResNetModel(config), _pixels())


def tiny_clip(folder: Path) -> Path:
    """A picture-text model."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    text = {
        "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 60,
        "intermediate_size": 32, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    return _save(folder, CLIPModel(CLIPConfig(vision_config=_SMALL, text_config=text)), _pixels())


def tiny_ast(folder: Path) -> Path:
    """A spectrogram transformer."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    torch.manual_seed(0)
    shape: dict[str, Any] = {"max_length": 64, "num_mel_bins": 32}
    small: dict[str, Any] = {
        k: v for k, v in _SMALL.items() if k not in ("image_size", "patch_size")
    }
    return _save(folder, ASTModel(ASTConfig(**small, **shape)), ASTFeatureExtractor(**shape))


def tiny_wav2vec2(folder: Path) -> Path:
    """A waveform model."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    small: dict[str, Any] = {
        k: v for k, v in _SMALL.items() if k not in ("image_size", "patch_size")
    }
    small |= {
        "conv_dim": (8, 8), "conv_stride": (16, 8), "conv_kernel": (20, 10),
        "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
        "num_feat_extract_layers": 2,
    }  # fmt: skip
    config = Wav2Vec2Config(**small)
    return _save(folder, Wav2Vec2Model(config), Wav2Vec2FeatureExtractor())


def tiny_videomae(folder: Path) -> Path:
    """A video model with four frames."""
    from transformers import VideoMAEConfig, VideoMAEModel
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

    torch.manual_seed(0)
    config = VideoMAEConfig(**_SMALL, num_frames=FRAMES, tubelet_size=2)
    processor = VideoMAEImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=_SIZE)
    return _save(folder, VideoMAEModel(config), processor)
