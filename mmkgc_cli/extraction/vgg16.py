"""Pictures through VGG16, as MoCME and much of this field has them.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
arXiv:1409.1556, table 1, column D.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.extraction.contract import EncoderAbout, EncoderOptions
from mmkgc_cli.extraction.forward import Forward
from mmkgc_cli.extraction.media import Array
from mmkgc_cli.extraction.picture_encoder import PictureEncoder
from mmkgc_cli.extraction.pictures import DECODING

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# Widths of convolutions of 3 x 3; 0 stands for the maximum over 2 x 2.
_LAYERS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
_WIDTH, _CLASSES = 4096, 1000
_SIDE, _CROP = 256, 224
# Of ImageNet, as all published weights of torchvision assume.
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)
# timm publishes the same weights with the two wide layers written as convolutions.
_OTHER_NAMES = {
    "pre_logits.fc1.": "classifier.0.",
    "pre_logits.fc2.": "classifier.3.",
    "head.fc.": "classifier.6.",
}
ADVICE = (
    "needs the weights of torchvision as safetensors: `hf download timm/vgg16.tv_in1k "
    "model.safetensors` prints where it has put them; give that as --weights FILE"
)


class Vgg16(PictureEncoder):
    """The 4,096 numbers of the last layer but one of VGG16, after its ReLU."""

    def __init__(self, options: EncoderOptions) -> None:
        """Reads the weights.

        Args:
            options: `weights` is a safetensors file with torchvision's names,
                `features.0.weight` and so on, or timm's.

        Raises:
            UsageError: without weights.
            DataError: when they cannot be read, or are not those of VGG16.
        """
        if options.weights is None:
            raise UsageError(f"vgg16: {ADVICE}")
        self._forward = Forward(options)
        self.conditions = self._forward.conditions
        model, revision = _read(options.weights)
        self._model = model.to(self._forward.device)
        self.about = EncoderAbout(
            "vgg16", revision,
            f"{DECODING}; shorter side to {_SIDE} (bilinear), middle {_CROP} x {_CROP}, "
            f"mean {_MEAN.tolist()}, deviation {_DEVIATION.tolist()} of ImageNet"
            + self._forward.about,
            "the last layer but one, after ReLU",
        )  # fmt: skip
        self.width = _WIDTH

    def pixels(self, picture: Image) -> Array:
        """Pixels ``[3, 224, 224]``: resized, cut, and normalised."""
        from PIL.Image import Resampling

        width, height = picture.size
        scale = _SIDE / min(width, height)
        size = (max(_SIDE, int(width * scale)), max(_SIDE, int(height * scale)))
        # The middle of the enlarged picture is all that is needed of it: a line of pixels that is
        # a thousand times as long as wide would else become gigabytes.
        left, top = (round((side - _CROP) / 2) for side in size)
        box = (
            left * width / size[0], top * height / size[1],
            (left + _CROP) * width / size[0], (top + _CROP) * height / size[1],
        )  # fmt: skip
        small = picture.resize((_CROP, _CROP), Resampling.BILINEAR, box=box)
        pixels = np.asarray(small, dtype=np.float32) / np.float32(255)
        normal: Array = ((pixels - _MEAN) / _DEVIATION).transpose(2, 0, 1)
        return np.ascontiguousarray(normal)

    def vectors(self, ready: Sequence[Array]) -> Array:
        """Vectors ``[n, 4096]``."""
        return self._forward.run(self._model, ready)


def network() -> torch.nn.Sequential:
    """VGG16 with torchvision's names, `features` and `classifier`, weights not set."""
    from collections import OrderedDict

    from torch import nn

    layers: list[nn.Module] = []
    before = 3
    for width in _LAYERS:
        if width:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
            before = width
        else:
            layers.append(nn.MaxPool2d(2))
    # Dropout keeps its place in the numbers of layers; it does nothing here.
    classifier = nn.Sequential(
        nn.Linear(before * 7 * 7, _WIDTH), nn.ReLU(inplace=True), nn.Identity(),
        nn.Linear(_WIDTH, _WIDTH), nn.ReLU(inplace=True), nn.Identity(),
        nn.Linear(_WIDTH, _CLASSES),
    )  # fmt: skip
    return nn.Sequential(
        OrderedDict(features=nn.Sequential(*layers), flatten=nn.Flatten(), classifier=classifier)
    )


def _read(path: Path) -> tuple[Any, str]:
    """The network up to its last layer but one, and the SHA-256 of the file."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found = load_file(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}; vgg16 {ADVICE}"
        ) from None
    except SafetensorError as error:
        raise DataError(f"{path}: not a safetensors file: {error}; vgg16 {ADVICE}") from None
    with torch.device("meta"):
        model = network()
    classifier: Any = model.classifier
    del classifier[5:]
    wanted = model.state_dict()
    state = {_known_name(name): tensor for name, tensor in found.items()}
    for name, expected in wanted.items():
        if name not in state:
            raise DataError(f"{path}: holds no {name!r}; vgg16 {ADVICE}")
        if state[name].numel() != expected.numel() or state[name].shape[0] != expected.shape[0]:
            raise DataError(
                f"{path}: {name} has shape {list(state[name].shape)}, in VGG16 it has "
                f"{list(expected.shape)}"
            )
    model.load_state_dict(
        {name: state[name].reshape(t.shape).to(torch.float32) for name, t in wanted.items()},
        assign=True,
    )
    return model.eval().requires_grad_(False), f"sha256 {digest}"


def _known_name(name: str) -> str:
    for other, known in _OTHER_NAMES.items():
        if name.startswith(other):
            return known + name.removeprefix(other)
    return name
