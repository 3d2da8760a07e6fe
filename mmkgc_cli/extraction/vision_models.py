"""Pictures through vision models of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmkgc_cli.errors import UsageError
from mmkgc_cli.extraction.contract import EncoderAbout, EncoderOptions
from mmkgc_cli.extraction.forward import Forward
from mmkgc_cli.extraction.media import Array
from mmkgc_cli.extraction.picture_encoder import PictureEncoder
from mmkgc_cli.extraction.pictures import DECODING
from mmkgc_cli.extraction.pretrained import guarded, library, locate

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

POOLINGS = ("cls", "mean", "pooler")
# So that no torchvision that is here or not changes the last bits; `use_fast` says so to releases
# of transformers that know no `backend`.
THROUGH_PILLOW: dict[str, Any] = {"backend": "pil", "use_fast": False}
_CLASS_TOKENS = ("cls_token", "class_embedding")


class VisionModel(PictureEncoder):
    """The vectors that a vision model has for a picture, pooled to one.

    Models of pictures and texts give their half for pictures.
    """

    def __init__(
        self, encoder: str, options: EncoderOptions, registered: Iterable[str] = ()
    ) -> None:
        """Loads the model.

        Args:
            encoder: name on the hub, or folder.
            options: `pooling` is "cls" (the first token, after the last norm; the default where
                the model has such a token), "mean" (over all other tokens or places) or "pooler"
                (the model's own).
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
        # Heads of classifiers leave the pooler out; it is random then, and must not be asked for.
        unused = "(none)" if options.pooling == "pooler" else "pooler"
        model = picture_half(found.load_model(transformers.AutoModel, unused))
        self._has_class = has_class_token(model)
        self._pooling = options.pooling or ("cls" if self._has_class else "mean")
        check_pooling(found.name, self._pooling, POOLINGS, self._has_class)
        self._model = model.to(self._forward.device)
        self.about = EncoderAbout(
            found.name, found.revision,
            f"{DECODING}; {described(self._processor)}{self._forward.about}", self._pooling,
        )  # fmt: skip
        with guarded(found.name):  # its parts may not fit together
            self.width = self.vectors([self.pixels(grey())]).shape[1]

    def pixels(self, picture: Image) -> Array:
        """Numbers ``[3, height, width]`` as the model wants them."""
        batch = self._processor(
            images=picture, return_tensors="np", input_data_format="channels_last"
        )
        values: Array = np.asarray(batch["pixel_values"], dtype=np.float32)
        one: Array = values[0]
        return one

    def vectors(self, ready: Sequence[Array]) -> Array:
        """Vectors ``[n, width]``."""
        # Some models take pictures of any shape.
        alike = len({one.shape for one in ready}) == 1
        groups = [ready] if alike else [[one] for one in ready]
        vectors: Array = np.concatenate([self._forward.run(self._pooled, g) for g in groups])
        return vectors

    def _pooled(self, pixels: torch.Tensor) -> torch.Tensor:
        return pooled(self._model(pixel_values=pixels), self._pooling, self._has_class)


def picture_half(model: Any) -> Any:
    """Of a model of pictures and texts the half for pictures, other models as they are."""
    return getattr(model, "vision_model", model)


def has_class_token(model: Any) -> bool:
    """Whether the first token of its output stands for the whole."""
    return any(key.endswith(_CLASS_TOKENS) for key, _ in model.named_parameters())


def check_pooling(name: str, pooling: str, known: Sequence[str], has_class: bool) -> None:
    """Refuses a pooling that makes no sense.

    Raises:
        UsageError: with those that do.
    """
    if pooling not in known:
        raise UsageError(f"--pooling {pooling}: expected one of {', '.join(known)}")
    if pooling == "cls" and not has_class:
        raise UsageError(f"--pooling cls: {name} has no class token; say --pooling mean")


def pooled(output: Any, pooling: str, has_class: bool) -> torch.Tensor:
    """One vector a picture ``[n, width]`` from a model's output."""
    if pooling == "pooler":
        if getattr(output, "pooler_output", None) is None:
            raise UsageError("--pooling pooler: the model has none; say --pooling mean")
        vectors: torch.Tensor = output.pooler_output.flatten(1)
        return vectors
    states: torch.Tensor = output.last_hidden_state
    if pooling == "cls":
        return states[:, 0]
    if states.dim() > 3:  # maps of a convolutional network, [n, width, height, width of the map]
        return states.flatten(2).mean(2)
    return states[:, 1:].mean(1) if has_class else states.mean(1)


def described(processor: Any) -> str:
    """What a processor of transformers does, in the words of its configuration."""
    values = processor.to_dict()
    kept = {key: values[key] for key in sorted(values) if key.startswith("do_") and values[key]}
    for key, wanted in (
        ("size", "do_resize"), ("resample", "do_resize"), ("crop_size", "do_center_crop"),
        ("image_mean", "do_normalize"), ("image_std", "do_normalize"),
        ("rescale_factor", "do_rescale"),
    ):  # fmt: skip
        if kept.get(wanted) and values.get(key) is not None:
            kept[key] = values[key]
    said = ", ".join(f"{key} {value}" for key, value in kept.items())
    return f"{type(processor).__name__}: {said}"


def grey() -> Image:
    """Any picture at all, to see what comes of one."""
    from PIL import Image

    return Image.new("RGB", (64, 64), (128, 128, 128))
