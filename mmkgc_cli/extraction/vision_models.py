"""Picture encoders: vision models of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmkgc_cli.errors import UsageError
from mmkgc_cli.extraction.contract import EncoderMetadata, EncoderOptions
from mmkgc_cli.extraction.forward import Forward
from mmkgc_cli.extraction.media import Array, PictureEncoder
from mmkgc_cli.extraction.pictures import DECODING
from mmkgc_cli.extraction.pretrained import load_transformers, locate, model_errors

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

POOLINGS = ("cls", "mean", "pooler")
# Preprocessing with Pillow, so that vectors do not depend on whether torchvision is installed;
# `use_fast` is for versions of transformers without `backend`.
PILLOW_BACKEND: dict[str, Any] = {"backend": "pil", "use_fast": False}
_CLASS_TOKENS = ("cls_token", "class_embedding")


class VisionModel(PictureEncoder):
    """A vision model, or the vision half of a picture-text model; the states are pooled."""

    def __init__(
        self, encoder: str, options: EncoderOptions, registered: Iterable[str] = ()
    ) -> None:
        """Loads the model.

        Args:
            encoder: hub name or folder.
            options: `pooling` is "cls" (the first token after the last norm, the default if the
                model has a class token), "mean" (over all other tokens or positions) or "pooler"
                (the pooler of the model).
            registered: names of registered encoders, for suggestions.

        Raises:
            DataError: the model cannot be loaded.
            UsageError: the model does not have this pooling.
        """
        transformers = load_transformers()
        pretrained = locate(encoder, registered)
        self._forward = Forward(options)
        self.conditions = self._forward.conditions
        self._processor = pretrained.load(transformers.AutoImageProcessor, **PILLOW_BACKEND)
        # Classifiers have no pooler weights; they may be missing unless the pooler is used.
        unused = "(none)" if options.pooling == "pooler" else "pooler"
        model = vision_tower(pretrained.load_model(transformers.AutoModel, unused))
        self._has_class = has_class_token(model)
        self._pooling = options.pooling or ("cls" if self._has_class else "mean")
        check_pooling(pretrained.name, self._pooling, POOLINGS, self._has_class)
        self._model = model.to(self._forward.device)
        self.metadata = EncoderMetadata(
            pretrained.name,
            pretrained.revision,
            f"{DECODING}; {describe_processor(self._processor)}{self._forward.precision_note}",
            self._pooling,
        )
        with model_errors(pretrained.name):  # preprocessing and model may not match
            self.width = self.vectors([self.pixels(grey_picture())]).shape[1]

    def pixels(self, picture: Image) -> Array:
        """Preprocesses a picture: ``[3, height, width]``."""
        batch = self._processor(
            images=picture, return_tensors="np", input_data_format="channels_last"
        )
        values: Array = np.asarray(batch["pixel_values"], dtype=np.float32)
        array: Array = values[0]
        return array

    def vectors(self, ready: Sequence[Array]) -> Array:
        """Vectors ``[n, width]``."""
        # Some models accept pictures of any shape.
        same_shape = len({array.shape for array in ready}) == 1
        groups = [ready] if same_shape else [[array] for array in ready]
        vectors: Array = np.concatenate([self._forward.run(self._pool, g) for g in groups])
        return vectors

    def _pool(self, pixels: torch.Tensor) -> torch.Tensor:
        return pool(self._model(pixel_values=pixels), self._pooling, self._has_class)


def vision_tower(model: Any) -> Any:
    """The vision half of a picture-text model; other models unchanged."""
    return getattr(model, "vision_model", model)


def has_class_token(model: Any) -> bool:
    """Whether the first token of the output is a class token."""
    return any(key.endswith(_CLASS_TOKENS) for key, _ in model.named_parameters())


def check_pooling(name: str, pooling: str, poolings: Sequence[str], has_class: bool) -> None:
    """Checks that a model supports a pooling.

    Raises:
        UsageError: it does not.
    """
    if pooling not in poolings:
        raise UsageError(
            f"--pooling {pooling}: {name} does not support it", fix=f"use {', '.join(poolings)}"
        )
    if pooling == "cls" and not has_class:
        raise UsageError(f"--pooling cls: {name} has no class token", fix="use --pooling mean")


def pool(output: Any, pooling: str, has_class: bool) -> torch.Tensor:
    """Pools the output of a model to one vector per input, ``[n, width]``."""
    if pooling == "pooler":
        if getattr(output, "pooler_output", None) is None:
            raise UsageError("--pooling pooler: the model has no pooler", fix="use --pooling mean")
        vectors: torch.Tensor = output.pooler_output.flatten(1)
        return vectors
    states: torch.Tensor = output.last_hidden_state
    if pooling == "cls":
        return states[:, 0]
    if states.dim() > 3:  # feature maps of a convolutional network, [n, channels, height, width]
        return states.flatten(2).mean(2)
    return states[:, 1:].mean(1) if has_class else states.mean(1)


def describe_processor(processor: Any) -> str:
    """Describes an image processor by its configuration, for the metadata."""
    values = processor.to_dict()
    kept = {key: values[key] for key in sorted(values) if key.startswith("do_") and values[key]}
    for key, condition in (
        ("size", "do_resize"), ("resample", "do_resize"), ("crop_size", "do_center_crop"),
        ("image_mean", "do_normalize"), ("image_std", "do_normalize"),
        ("rescale_factor", "do_rescale"),
    ):  # fmt: skip
        if kept.get(condition) and values.get(key) is not None:
            kept[key] = values[key]
    values_text = ", ".join(f"{key} {value}" for key, value in kept.items())
    return f"{type(processor).__name__}: {values_text}"


def grey_picture() -> Image:
    """A picture to determine the width of a model's output."""
    from PIL import Image

    return Image.new("RGB", (64, 64), (128, 128, 128))
