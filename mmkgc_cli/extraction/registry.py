"""Registry of modalities with their inputs and encoders.

A new modality is a new entry of `MODALITIES`. Modules of encoders and inputs are imported on use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mmkgc_cli.errors import UsageError, nearest
from mmkgc_cli.extraction.contract import (
    Encoder,
    EncoderEntry,
    EncoderOptions,
    InputOptions,
    InputSet,
)
from mmkgc_cli.kg.graph import Graph

BERT = "bert-base-uncased"
# The encoder of MACO.
VIT = "google/vit-base-patch16-224"
# Fine-tuned on the 527 sound classes of AudioSet; wav2vec 2.0 and similar models know speech only.
AST = "MIT/ast-finetuned-audioset-10-10-0.4593"
# Fine-tuned on the 400 actions of Kinetics; the pretrained states only serve reconstruction.
VIDEOMAE = "MCG-NJU/videomae-base-finetuned-kinetics"
_MODEL_OPTIONS = frozenset({"device", "pooling", "precision"})


@dataclass(frozen=True)
class Modality:
    """A modality: its inputs and its encoders."""

    name: str
    unit: str  # noun of one input, in the singular
    find: Callable[[Graph, InputOptions], InputSet[Any]]
    encoders: tuple[EncoderEntry, ...]
    # Loads a model by folder or hub name; the names of the registry are for suggestions.
    load_model: Callable[[str, EncoderOptions, Iterable[str]], Encoder[Any]]
    model_options: frozenset[str] = _MODEL_OPTIONS
    input_options: frozenset[str] = frozenset()

    def encoder(self, name: str | None, options: EncoderOptions) -> Encoder[Any]:
        """Makes an encoder: the default if `name` is None, a registered one, or any model.

        Raises:
            UsageError: the encoder does not use an option that is set.
            DataError: the encoder cannot be loaded.
        """
        entry = next((e for e in self.encoders if e.default if name is None), None)
        entry = entry or next((e for e in self.encoders if e.name == name), None)
        used = self.model_options if entry is None else entry.options
        _check_options(options, used, name if entry is None else entry.name)
        if entry is not None:
            return entry.make(options)
        return self.load_model(str(name), options, [e.name for e in self.encoders])


def _check_options(options: EncoderOptions, used: frozenset[str], name: str | None) -> None:
    set_options = {
        "device": options.device != "auto",
        "pooling": options.pooling is not None,
        "precision": options.precision is not None,
        "min_count": options.min_count is not None,
        "weights": options.weights is not None,
    }
    for option, is_set in set_options.items():
        if is_set and option not in used:
            flag = f"--{option.replace('_', '-')}"
            raise UsageError(f"{flag}: {name} does not use it", fix=f"remove {flag}")


def find_modality(name: str) -> Modality:
    """The modality of this name.

    Raises:
        UsageError: unknown name.
    """
    if name not in MODALITIES:
        raise UsageError(f"modality {name!r} is unknown", fix=nearest(name, MODALITIES))
    return MODALITIES[name]


def _find_texts(graph: Graph, options: InputOptions) -> InputSet[Any]:
    from mmkgc_cli.extraction.text_inputs import find

    return find(graph, options)


def _find_numbers(graph: Graph, options: InputOptions) -> InputSet[Any]:
    from mmkgc_cli.extraction.numeric_inputs import find

    return find(graph, options)


def _find_triples(graph: Graph, options: InputOptions) -> InputSet[Any]:
    from mmkgc_cli.extraction.structure_inputs import find

    return find(graph, options)


def _text_model(name: str, options: EncoderOptions, registered: Iterable[str]) -> Encoder[Any]:
    from mmkgc_cli.extraction.text_encoder import TextEncoder

    return TextEncoder(name, options, registered)


def _number_model(name: str, options: EncoderOptions, registered: Iterable[str]) -> Encoder[Any]:
    from mmkgc_cli.extraction.numeric_encoders import NumbersAsText

    return NumbersAsText(_text_model(name, options, registered))


def _hashed_ngrams(options: EncoderOptions) -> Encoder[Any]:
    from mmkgc_cli.extraction.hashed_ngrams import HashedNgrams

    return HashedNgrams(options)


def _quantiles(options: EncoderOptions) -> Encoder[Any]:
    from mmkgc_cli.extraction.numeric_encoders import Quantiles

    return Quantiles(options)


def _find_pictures(graph: Graph, options: InputOptions) -> InputSet[Any]:
    from mmkgc_cli.extraction.media import find_pictures

    return find_pictures(graph, options)


def _find_sounds(graph: Graph, options: InputOptions) -> InputSet[Any]:
    from mmkgc_cli.extraction.media import find_sounds

    return find_sounds(graph, options)


def _find_videos(graph: Graph, options: InputOptions) -> InputSet[Any]:
    from mmkgc_cli.extraction.media import find_videos

    return find_videos(graph, options)


def _vision_model(name: str, options: EncoderOptions, registered: Iterable[str]) -> Encoder[Any]:
    from mmkgc_cli.extraction.vision_models import VisionModel

    return VisionModel(name, options, registered)


def _sound_model(name: str, options: EncoderOptions, registered: Iterable[str]) -> Encoder[Any]:
    from mmkgc_cli.extraction.sound_models import SoundModel

    return SoundModel(name, options, registered)


def _video_model(name: str, options: EncoderOptions, registered: Iterable[str]) -> Encoder[Any]:
    from mmkgc_cli.extraction.video_models import video_model

    return video_model(name, options, registered)


def _vgg16(options: EncoderOptions) -> Encoder[Any]:
    from mmkgc_cli.extraction.vgg16 import Vgg16

    return Vgg16(options)


def _colour_grid(options: EncoderOptions) -> Encoder[Any]:
    from mmkgc_cli.extraction.colour_grid import ColourGrid

    return ColourGrid()


def _frame_colours(options: EncoderOptions) -> Encoder[Any]:
    from mmkgc_cli.extraction.colour_grid import ColourGrid
    from mmkgc_cli.extraction.media import PooledFrames

    return PooledFrames(ColourGrid())


def _log_mel_stats(options: EncoderOptions) -> Encoder[Any]:
    from mmkgc_cli.extraction.log_mel import LogMelStats

    return LogMelStats()


_BERT_ENTRY = EncoderEntry(
    BERT,
    "BERT (Devlin et al. 2019), 768 columns",
    lambda options: _text_model(BERT, options, ()),
    _MODEL_OPTIONS,
    default=True,
)
_NGRAMS_ENTRY = EncoderEntry(
    "hashed-ngrams", "hashed counts of character n-grams, 512 columns, no weights", _hashed_ngrams
)

_VIT_ENTRY = EncoderEntry(
    VIT,
    "ViT (Dosovitskiy et al. 2021), 768 columns",
    lambda options: _vision_model(VIT, options, ()),
    _MODEL_OPTIONS,
    default=True,
)
_VGG16_ENTRY = EncoderEntry(
    "vgg16",
    "VGG16 (Simonyan and Zisserman 2015) from --weights, 4,096 columns",
    _vgg16,
    frozenset({"device", "precision", "weights"}),
)
_GRID_ENTRY = EncoderEntry(
    "colour-grid", "mean colours of an 8 x 8 grid, 256 columns, no weights", _colour_grid
)
_AST_ENTRY = EncoderEntry(
    AST,
    "AST (Gong et al. 2021) fine-tuned on AudioSet, 768 columns",
    lambda options: _sound_model(AST, options, ()),
    _MODEL_OPTIONS,
    default=True,
)
_MEL_ENTRY = EncoderEntry(
    "log-mel-stats",
    "mean and standard deviation of 64 mel bands, 128 columns, no weights",
    _log_mel_stats,
)
_VIDEOMAE_ENTRY = EncoderEntry(
    VIDEOMAE,
    "VideoMAE (Tong et al. 2022) fine-tuned on Kinetics, 768 columns",
    lambda options: _video_model(VIDEOMAE, options, ()),
    _MODEL_OPTIONS,
    default=True,
)
_FRAMES_ENTRY = EncoderEntry(
    "colour-grid",
    "mean colours of an 8 x 8 grid over 16 frames, 256 columns, no weights",
    _frame_colours,
)

MODALITIES = {
    "image": Modality(
        "image",
        "picture",
        _find_pictures,
        (_VIT_ENTRY, _VGG16_ENTRY, _GRID_ENTRY),
        _vision_model,
        input_options=frozenset({"columns"}),
    ),
    "text": Modality(
        "text",
        "text",
        _find_texts,
        (_BERT_ENTRY, _NGRAMS_ENTRY),
        _text_model,
        input_options=frozenset({"columns"}),
    ),
    "numeric": Modality(
        "numeric",
        "entity",
        _find_numbers,
        (
            EncoderEntry(
                "quantiles",
                "quantile and missing indicator of each attribute, no weights",
                _quantiles,
                frozenset({"min_count"}),
                default=True,
            ),
        ),
        _number_model,
    ),
    "audio": Modality(
        "audio",
        "sound",
        _find_sounds,
        (_AST_ENTRY, _MEL_ENTRY),
        _sound_model,
        input_options=frozenset({"columns"}),
    ),
    "video": Modality(
        "video",
        "video",
        _find_videos,
        (_VIDEOMAE_ENTRY, _FRAMES_ENTRY),
        _video_model,
        input_options=frozenset({"columns"}),
    ),
    "structure": Modality(
        "structure", "entity", _find_triples, (_BERT_ENTRY, _NGRAMS_ENTRY), _text_model
    ),
}
