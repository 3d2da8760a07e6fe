"""VGG16, the picture encoder of MoCME and many other multi-modal methods.

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
from mmkgc_cli.extraction.contract import EncoderMetadata, EncoderOptions
from mmkgc_cli.extraction.forward import Forward
from mmkgc_cli.extraction.media import Array, PictureEncoder
from mmkgc_cli.extraction.pictures import DECODING

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# Output channels of 3 x 3 convolutions; 0 is a 2 x 2 max pooling.
_LAYERS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
_WIDTH, _CLASSES = 4096, 1000
_SIDE, _CROP = 256, 224
# Mean and standard deviation of ImageNet, as in all weights of torchvision.
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)
# timm stores the same weights with the two wide layers as convolutions.
_TIMM_NAMES = {
    "pre_logits.fc1.": "classifier.0.",
    "pre_logits.fc2.": "classifier.3.",
    "head.fc.": "classifier.6.",
}
FIX = (
    "run `hf download timm/vgg16.tv_in1k model.safetensors`, which prints the path of the weights, "
    "and give it as --weights FILE"
)


class Vgg16(PictureEncoder):
    """The penultimate layer of VGG16 after its ReLU, width 4,096."""

    def __init__(self, options: EncoderOptions) -> None:
        """Loads the weights.

        Args:
            options: `weights` is a safetensors file with the tensor names of torchvision
                (`features.0.weight`, …) or timm.

        Raises:
            UsageError: no weights are given.
            DataError: the weights cannot be read or are not those of VGG16.
        """
        if options.weights is None:
            raise UsageError("vgg16 needs the weights of torchvision as safetensors", fix=FIX)
        self._forward = Forward(options)
        self.conditions = self._forward.conditions
        model, revision = _load(options.weights)
        self._model = model.to(self._forward.device)
        self.metadata = EncoderMetadata(
            "vgg16", revision,
            f"{DECODING}; shorter side to {_SIDE} (bilinear), middle {_CROP} x {_CROP}, "
            f"mean {_MEAN.tolist()}, deviation {_DEVIATION.tolist()} of ImageNet"
            + self._forward.precision_note,
            "the last layer but one, after ReLU",
        )  # fmt: skip
        self.width = _WIDTH

    def pixels(self, picture: Image) -> Array:
        """Resized, cropped and normalised pixels ``[3, 224, 224]``."""
        from PIL.Image import Resampling

        width, height = picture.size
        scale = _SIDE / min(width, height)
        size = (max(_SIDE, int(width * scale)), max(_SIDE, int(height * scale)))
        # Only the centre of the resized picture is computed: resizing all of a picture with an
        # extreme aspect ratio would take gigabytes.
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
    """VGG16 with the module names of torchvision (`features`, `classifier`), not initialised."""
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
    # Identity replaces dropout, so that layer numbers match torchvision.
    classifier = nn.Sequential(
        nn.Linear(before * 7 * 7, _WIDTH), nn.ReLU(inplace=True), nn.Identity(),
        nn.Linear(_WIDTH, _WIDTH), nn.ReLU(inplace=True), nn.Identity(),
        nn.Linear(_WIDTH, _CLASSES),
    )  # fmt: skip
    return nn.Sequential(
        OrderedDict(features=nn.Sequential(*layers), flatten=nn.Flatten(), classifier=classifier)
    )


def _load(path: Path) -> tuple[Any, str]:
    """Loads the network up to its penultimate layer; also returns the SHA-256 of the file."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        tensors = load_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}", fix=FIX) from None
    except SafetensorError as error:
        raise DataError(f"{path}: not a safetensors file: {error}", fix=FIX) from None
    with torch.device("meta"):
        model = network()
    classifier: Any = model.classifier
    del classifier[5:]
    expected_state = model.state_dict()
    state = {_torchvision_name(name): tensor for name, tensor in tensors.items()}
    for name, expected in expected_state.items():
        if name not in state:
            raise DataError(f"{path}: has no tensor {name!r}", fix=FIX)
        if state[name].numel() != expected.numel() or state[name].shape[0] != expected.shape[0]:
            raise DataError(
                f"{path}: {name} has shape {list(state[name].shape)}, expected "
                f"{list(expected.shape)}",
                fix=FIX,
            )
    model.load_state_dict(
        {
            name: state[name].reshape(t.shape).to(torch.float32)
            for name, t in expected_state.items()
        },
        assign=True,
    )
    return model.eval().requires_grad_(False), f"sha256 {digest}"


def _torchvision_name(name: str) -> str:
    for prefix, torchvision_prefix in _TIMM_NAMES.items():
        if name.startswith(prefix):
            return torchvision_prefix + name.removeprefix(prefix)
    return name
