"""Videos through models of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmkgc_cli.extraction.contract import EncoderAbout, EncoderOptions
from mmkgc_cli.extraction.forward import Forward
from mmkgc_cli.extraction.media import Array
from mmkgc_cli.extraction.pretrained import guarded, library, locate
from mmkgc_cli.extraction.video_encoder import PooledFrames, VideoEncoder
from mmkgc_cli.extraction.vision_models import (
    POOLINGS,
    THROUGH_PILLOW,
    VisionModel,
    check_pooling,
    described,
    grey,
    has_class_token,
    pooled,
)

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class VideoModel(VideoEncoder):
    """The vectors that a video model such as VideoMAE has for its number of frames, pooled."""

    def __init__(
        self, encoder: str, options: EncoderOptions, registered: Iterable[str] = ()
    ) -> None:
        """Loads the model.

        Args:
            encoder: name on the hub, or folder.
            options: `pooling` as in `VisionModel`.
            registered: names of encoders that may have been meant.

        Raises:
            DataError: when it cannot be loaded.
            UsageError: for a pooling that the model does not have.
        """
        transformers = library()
        found = locate(encoder, registered)
        self._forward = Forward(options)
        self.conditions = self._forward.conditions
        self._processor = found.load(transformers.AutoImageProcessor, **THROUGH_PILLOW)
        unused = "(none)" if options.pooling == "pooler" else "pooler"
        model = found.load_model(transformers.AutoModel, unused)
        self.count = int(model.config.num_frames)
        self._has_class = has_class_token(model)
        self._pooling = options.pooling or ("cls" if self._has_class else "mean")
        check_pooling(found.name, self._pooling, POOLINGS, self._has_class)
        self._model = model.to(self._forward.device)
        self.about = EncoderAbout(
            found.name, found.revision,
            f"{self.decoding}; {described(self._processor)}{self._forward.about}", self._pooling,
        )  # fmt: skip
        with guarded(found.name):  # its parts may not fit together
            self.width = self.vector([self.pixels(grey())] * self.count).shape[0]

    def pixels(self, frame: Image) -> Array:
        """Numbers ``[3, height, width]`` as the model wants them."""
        batch = self._processor([frame], return_tensors="np", input_data_format="channels_last")
        values: Array = np.asarray(batch["pixel_values"], dtype=np.float32)
        one: Array = values[0, 0]
        return one

    def vector(self, found: Sequence[Array]) -> Array:
        """The vector ``[width]`` of the frames."""
        one: Array = self._forward.run(self._pooled, [np.stack(found)])[0]
        return one

    def _pooled(self, values: torch.Tensor) -> torch.Tensor:
        return pooled(self._model(pixel_values=values), self._pooling, self._has_class)


def video_model(
    encoder: str, options: EncoderOptions, registered: Iterable[str] = ()
) -> VideoEncoder:
    """A model of videos, or one of pictures for frame after frame, whichever this is.

    Raises:
        DataError, UsageError: as `VideoModel` and `VisionModel`.
    """
    config = locate(encoder, registered).read_json("config.json")
    if isinstance(config, dict) and "num_frames" in config:
        return VideoModel(encoder, options, registered)
    return PooledFrames(VisionModel(encoder, options, registered))
