"""Video encoders: video models of transformers, or vision models applied to frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmkgc_cli.extraction.contract import EncoderMetadata, EncoderOptions
from mmkgc_cli.extraction.forward import Forward
from mmkgc_cli.extraction.media import Array, PooledFrames, VideoEncoder
from mmkgc_cli.extraction.pretrained import load_transformers, locate, model_errors
from mmkgc_cli.extraction.vision_models import (
    PILLOW_BACKEND,
    POOLINGS,
    VisionModel,
    check_pooling,
    describe_processor,
    grey_picture,
    has_class_token,
    pool,
)

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class VideoModel(VideoEncoder):
    """A video model such as VideoMAE with its number of frames; the states are pooled."""

    def __init__(
        self, encoder: str, options: EncoderOptions, registered: Iterable[str] = ()
    ) -> None:
        """Loads the model.

        Args:
            encoder: hub name or folder.
            options: `pooling` as in `VisionModel`.
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
        unused = "(none)" if options.pooling == "pooler" else "pooler"
        model = pretrained.load_model(transformers.AutoModel, unused)
        self.count = int(model.config.num_frames)
        self._has_class = has_class_token(model)
        self._pooling = options.pooling or ("cls" if self._has_class else "mean")
        check_pooling(pretrained.name, self._pooling, POOLINGS, self._has_class)
        self._model = model.to(self._forward.device)
        self.metadata = EncoderMetadata(
            pretrained.name,
            pretrained.revision,
            f"{self.decoding}; {describe_processor(self._processor)}{self._forward.precision_note}",
            self._pooling,
        )
        with model_errors(pretrained.name):  # preprocessing and model may not match
            self.width = self.vector([self.pixels(grey_picture())] * self.count).shape[0]

    def pixels(self, frame: Image) -> Array:
        """Preprocesses a frame: ``[3, height, width]``."""
        batch = self._processor([frame], return_tensors="np", input_data_format="channels_last")
        values: Array = np.asarray(batch["pixel_values"], dtype=np.float32)
        pixels: Array = values[0, 0]
        return pixels

    def vector(self, frames: Sequence[Array]) -> Array:
        """The vector ``[width]`` of the frames."""
        vector: Array = self._forward.run(self._pool, [np.stack(frames)])[0]
        return vector

    def _pool(self, values: torch.Tensor) -> torch.Tensor:
        return pool(self._model(pixel_values=values), self._pooling, self._has_class)


def video_model(
    encoder: str, options: EncoderOptions, registered: Iterable[str] = ()
) -> VideoEncoder:
    """Loads a video model, or a vision model that is applied to each frame.

    Raises:
        DataError, UsageError: as `VideoModel` and `VisionModel`.
    """
    config = locate(encoder, registered).read_json("config.json")
    if isinstance(config, dict) and "num_frames" in config:
        return VideoModel(encoder, options, registered)
    return PooledFrames(VisionModel(encoder, options, registered))
