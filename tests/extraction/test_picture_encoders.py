"""Encoders of pictures: closed forms, the models' own numbers, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from mmkgc_cli.errors import DataError, MmkgcError, UsageError
from mmkgc_cli.extraction.colour_grid import CELLS, ColourGrid
from mmkgc_cli.extraction.contract import EncoderOptions
from mmkgc_cli.extraction.media import PictureEncoder
from mmkgc_cli.extraction.vgg16 import Vgg16, network
from mmkgc_cli.extraction.vision_models import VisionModel
from tests.extraction.media_models import SIDE, WIDTH, tiny_clip, tiny_resnet, tiny_vit
from tests.extraction.test_pictures import noise


def vectors(encoder: PictureEncoder, *pictures: Image.Image) -> np.ndarray:
    return encoder.vectors([encoder.pixels(picture) for picture in pictures])


# ---------------------------------------------------------------- colour-grid


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 1 << 24))
def test_a_picture_of_one_colour_has_that_colour_everywhere(w: int, h: int, colour: int) -> None:
    rgb = (colour >> 16 & 255, colour >> 8 & 255, colour & 255)
    result = vectors(ColourGrid(), Image.new("RGB", (w, h), rgb)).reshape(CELLS * CELLS, 4)
    red, green, blue = (c / 255 for c in rgb)
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    assert np.allclose(result, [red, green, blue, luminance], atol=1e-6)


def test_cells_of_whole_pixels_are_their_plain_means() -> None:
    picture = noise(CELLS * 5, CELLS * 3)
    blocks = np.asarray(picture).reshape(CELLS, 3, CELLS, 5, 3) / 255
    result = vectors(ColourGrid(), picture).reshape(CELLS, CELLS, 4)
    assert np.allclose(result[..., :3], blocks.mean(axis=(1, 3)), atol=1e-6)


@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 5), st.integers(0, 99))
def test_enlarging_pixels_changes_nothing_so_areas_are_exact(
    w: int, h: int, times: int, seed: int
) -> None:
    picture = noise(w, h, seed)
    large = picture.resize((w * times, h * times), Image.Resampling.NEAREST)
    small_cells, large_cells = vectors(ColourGrid(), picture, large)
    assert np.allclose(small_cells, large_cells, atol=1e-6)


@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 99))
def test_the_mean_of_all_cells_is_that_of_the_picture(w: int, h: int, seed: int) -> None:
    picture = noise(w, h, seed)
    result = vectors(ColourGrid(), picture).reshape(-1, 4)[:, :3].mean(axis=0)
    assert np.allclose(result, np.asarray(picture).mean(axis=(0, 1)) / 255, atol=1e-6)


# ---------------------------------------------------------------- models of transformers

CPU = EncoderOptions(device="cpu")


def by_hand(folder: Path, picture: Image.Image) -> torch.Tensor:
    """The states of a tiny ViT, from the definition of its preprocessing."""
    from transformers import ViTModel

    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float32)
    pixels = torch.from_numpy((small / 255 - 0.5) / 0.5).permute(2, 0, 1)[None]
    model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        states: torch.Tensor = model(pixels).last_hidden_state[0]
    return states


@pytest.mark.parametrize("pooling", [None, "cls", "mean"])
def test_a_vit_gives_its_first_token_or_the_mean_of_the_others(
    pooling: str | None, tmp_path: Path
) -> None:
    folder = tiny_vit(tmp_path / "vit", head=True)
    picture = noise(50, 40)
    encoder = VisionModel(str(folder), EncoderOptions(device="cpu", pooling=pooling))
    states = by_hand(folder, picture)
    expected = states[1:].mean(0) if pooling == "mean" else states[0]
    assert np.allclose(vectors(encoder, picture)[0], expected, atol=1e-4)
    assert (encoder.width, encoder.metadata.pooling) == (WIDTH, pooling or "cls")
    for word in ("ViTImageProcessorPil", "image_mean", f"'height': {SIDE}", "resample"):
        assert word in encoder.metadata.preprocess


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet, tiny_clip])
def test_a_vector_depends_on_its_picture_alone(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    encoder = VisionModel(str(make(tmp_path / "model")), CPU)
    pictures = [noise(40, 3), noise(3, 40, 1), noise(70, 50, 2), noise(SIDE, SIDE, 3)]
    together = vectors(encoder, *pictures)
    assert together.shape == (4, WIDTH)
    assert together.dtype == np.float32
    alone = np.concatenate([vectors(encoder, picture) for picture in pictures])
    assert np.allclose(together, alone, atol=1e-5)
    assert len(np.unique(together.round(4), axis=0)) == 4


def test_a_convolutional_network_gives_the_mean_of_its_maps(tmp_path: Path) -> None:
    folder = tiny_resnet(tmp_path / "resnet")
    encoder = VisionModel(str(folder), CPU)
    assert encoder.metadata.pooling == "mean"
    pooler = VisionModel(str(folder), EncoderOptions(device="cpu", pooling="pooler"))
    picture = noise(40, 40)  # a ResNet's own pooler is that mean
    assert np.allclose(vectors(encoder, picture), vectors(pooler, picture), atol=1e-6)
    with pytest.raises(UsageError, match="has no class token; use --pooling mean"):
        VisionModel(str(folder), EncoderOptions(device="cpu", pooling="cls"))


def test_missing_weights_are_never_random(tmp_path: Path) -> None:
    """A ViT classifier has no pooler weights; --pooling pooler must not use random ones."""
    folder = tiny_vit(tmp_path / "vit", head=True)
    with pytest.raises(DataError, match=r"pooler.dense.*random"):
        VisionModel(str(folder), EncoderOptions(device="cpu", pooling="pooler"))


def test_other_weights_have_another_revision(tmp_path: Path) -> None:
    revisions = {
        VisionModel(str(tiny_vit(tmp_path / str(i), seed)), CPU).metadata.revision
        for i, seed in enumerate([0, 0, 1])
    }
    assert len(revisions) == 2
    assert all(revision.startswith("sha256 ") for revision in revisions)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "vit: no weights"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
        (
            lambda folder: (folder / "preprocessor_config.json").write_text(
                json.dumps({"image_processor_type": "ViTImageProcessor", "size": {"height": 8,
                            "width": 8}})
            ),
            "cannot be loaded: Input image size .* doesn't match",
        ),
        (
            lambda folder: (folder / "config.json").write_text(
                json.dumps({"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.C"}})
            ),
            "code of its own|cannot be loaded",
        ),
    ],
)  # fmt: skip
def test_a_damaged_model_is_one_line(
    damage: Callable[[Path], Any], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_vit(tmp_path / "vit")
    damage(folder)
    capfd.readouterr()
    with pytest.raises(MmkgcError, match=message) as caught:
        VisionModel(str(folder), CPU)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


# ---------------------------------------------------------------- VGG16

# Table 1 and 2 of arXiv:1409.1556, column D; names and number as torchvision has them.
CONVOLUTIONS = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256),
    14: (256, 256), 17: (512, 256), 19: (512, 512), 21: (512, 512), 24: (512, 512),
    26: (512, 512), 28: (512, 512),
}  # fmt: skip
LINEAR = {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}


def test_vgg16_has_the_layers_of_the_paper_under_their_usual_names() -> None:
    with torch.device("meta"):
        result = {name: tuple(t.shape) for name, t in network().state_dict().items()}
    expected: dict[str, tuple[int, ...]] = {}
    expected |= {f"features.{i}.weight": (*shape, 3, 3) for i, shape in CONVOLUTIONS.items()}
    expected |= {f"features.{i}.bias": shape[:1] for i, shape in CONVOLUTIONS.items()}
    expected |= {f"classifier.{i}.weight": shape for i, shape in LINEAR.items()}
    expected |= {f"classifier.{i}.bias": shape[:1] for i, shape in LINEAR.items()}
    assert result == expected
    assert sum(int(np.prod(shape)) for shape in result.values()) == 138_357_544


def zeros() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        shapes = network().state_dict()
    return {name: torch.zeros(t.shape, dtype=torch.float16) for name, t in shapes.items()}


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with a known result: the red of the centre passes every layer, scaled.

    Each convolution hands its first map on; the first wide layer reads one place of it into its
    first output and minus it into the second, the next doubles both and adds one.
    """
    state = zeros()
    for i in CONVOLUTIONS:
        state[f"features.{i}.weight"][0, 0, 1, 1] = 1
    state["classifier.0.weight"][0, 3 * 7 + 3] = 1
    state["classifier.0.weight"][1, 3 * 7 + 3] = -1
    state["classifier.3.weight"][[0, 1], [0, 1]] = 2
    state["classifier.3.bias"][:3] = 1
    path = tmp_path_factory.mktemp("vgg") / "identity.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def vgg16(identity: Path) -> Vgg16:
    return Vgg16(EncoderOptions(device="cpu", weights=identity))


def test_vgg16_goes_through_all_its_layers_and_ends_before_the_classes(vgg16: Vgg16) -> None:
    result = vectors(vgg16, Image.new("RGB", (300, 260), (255, 0, 0)))
    red = (1 - 0.485) / 0.229
    expected = np.zeros(4096, dtype=np.float32)
    expected[:3] = 2 * red + 1, 1, 1  # ReLU has cut the second one's negative
    assert np.allclose(result, expected, atol=1e-4)
    dark = vectors(vgg16, Image.new("RGB", (300, 260), (0, 0, 0)))
    assert np.allclose(dark[0, :3], 1)  # negative after normalisation: cut by the first ReLU


@pytest.mark.slow
def test_vgg16_takes_the_names_of_timm_for_the_same_numbers(identity: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(identity)
    renamed = {k: v for k, v in state.items() if k.startswith("features.")}
    for old, new, shape in (
        ("classifier.0", "pre_logits.fc1", (4096, 512, 7, 7)),
        ("classifier.3", "pre_logits.fc2", (4096, 4096, 1, 1)),
        ("classifier.6", "head.fc", (1000, 4096)),
    ):
        renamed[f"{new}.weight"] = state[f"{old}.weight"].reshape(shape)
        renamed[f"{new}.bias"] = state[f"{old}.bias"]
    save_file(renamed, tmp_path / "timm.safetensors")
    picture = noise(280, 300)
    torchvision_vectors, timm_vectors = (
        vectors(Vgg16(EncoderOptions(device="cpu", weights=path)), picture)
        for path in (identity, tmp_path / "timm.safetensors")
    )
    assert np.array_equal(torchvision_vectors, timm_vectors)


@pytest.mark.parametrize(
    "size", [(300, 260), (260, 300), (224, 500), (64, 48), (3, 100), (256, 256)]
)
def test_vgg16_resizes_the_shorter_side_to_256_and_takes_the_middle(
    size: tuple[int, int], vgg16: Vgg16
) -> None:
    picture = noise(*size)
    w, h = size
    new = (256, int(256 * h / w)) if w <= h else (int(256 * w / h), 256)
    resized = picture.resize(new, Image.Resampling.BILINEAR)
    left, top = round((new[0] - 224) / 2), round((new[1] - 224) / 2)
    crop = np.asarray(resized.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    expected = (crop - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    result = vgg16.pixels(picture)
    assert result.shape == (3, 224, 224)
    # Cutting first rounds a little otherwise than cutting last: one level of 255 at most.
    assert np.abs(result - expected.transpose(2, 0, 1)).max() <= 1.01 / 255 / 0.224


def test_vgg16_needs_its_weights_and_says_where_they_are() -> None:
    with pytest.raises(UsageError, match=r"hf download timm/vgg16.tv_in1k.*--weights FILE"):
        Vgg16(CPU)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"PK\x03\x04" + b"\0" * 99, "not a safetensors file"),
        ({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "has no tensor 'features.0.bias'"),
        ({"features.0.weight": torch.zeros(64, 1, 3, 3)}, r"\[64, 1, 3, 3\], expected"),
    ],
)
def test_other_weights_are_refused(
    content: bytes | dict[str, torch.Tensor] | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_file(content, path)
    with pytest.raises(DataError, match=message):
        Vgg16(EncoderOptions(device="cpu", weights=path))
