"""Which modalities can be extracted, where their inputs come from, and what encodes them.

A new modality is one more entry of `MODALITIES`. Encoders and inputs are imported when they are
asked for.
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
    Found,
    InputOptions,
)
from mmkgc_cli.kg.graph import Graph

BERT = "bert-base-uncased"
# As MACO.
VIT = "google/vit-base-patch16-224"
# Tuned on AudioSet it tells 527 kinds of sound: animals, instruments, engines, weather, speech.
# wav2vec 2.0 and its kin have heard speech alone.
AST = "MIT/ast-finetuned-audioset-10-10-0.4593"
# Tuned to tell the 400 actions of Kinetics: before that its states serve to paint what was hidden.
VIDEOMAE = "MCG-NJU/videomae-base-finetuned-kinetics"
_OF_MODELS = frozenset({"device", "pooling", "precision"})


@dataclass(frozen=True)
class Modality:
    """What can be made of one modality."""

    name: str
    unit: str  # what an input is, in the singular
    find: Callable[[Graph, InputOptions], Found[Any]]
    encoders: tuple[EncoderEntry, ...]
    # An encoder by folder or name in the hub, with the names that may have been meant.
    named: Callable[[str, EncoderOptions, Iterable[str]], Encoder[Any]]
    named_options: frozenset[str] = _OF_MODELS
    input_options: frozenset[str] = frozenset()

    def encoder(self, name: str | None, options: EncoderOptions) -> Encoder[Any]:
        """The encoder of this name, the default where it is None, or a model by folder or hub name.

        Raises:
            UsageError: for options that it would not look at.
            DataError: when it cannot be used.
        """
        entry = next((e for e in self.encoders if e.default if name is None), None)
        entry = entry or next((e for e in self.encoders if e.name == name), None)
        takes = self.named_options if entry is None else entry.options
        _require_taken(options, takes, name if entry is None else entry.name)
        if entry is not None:
            return entry.make(options)
        return self.named(str(name), options, [e.name for e in self.encoders])


def _require_taken(options: EncoderOptions, takes: frozenset[str], name: str | None) -> None:
    idle = {
        "device": options.device != "auto",
        "pooling": options.pooling is not None,
        "precision": options.precision is not None,
        "min_count": options.min_count is not None,
        "weights": options.weights is not None,
    }
    for option, given in idle.items():
        if given and option not in takes:
            raise UsageError(f"--{option.replace('_', '-')}: {name} has no use for it")


def modality(name: str) -> Modality:
    """The modality of this name.

    Raises:
        UsageError: when there is none.
    """
    if name not in MODALITIES:
        raise UsageError(f"modality {name!r}: {nearest(name, MODALITIES)}")
    return MODALITIES[name]


def _find_texts(graph: Graph, options: InputOptions) -> Found[Any]:
    from mmkgc_cli.extraction.text_inputs import find

    return find(graph, options)


def _find_numbers(graph: Graph, options: InputOptions) -> Found[Any]:
    from mmkgc_cli.extraction.numeric_inputs import find

    return find(graph, options)


def _find_triples(graph: Graph, options: InputOptions) -> Found[Any]:
    from mmkgc_cli.extraction.structure_inputs import find

    return find(graph, options)


def _text_model(name: str, options: EncoderOptions, registered: Iterable[str]) -> Encoder[Any]:
    from mmkgc_cli.extraction.text_encoder import TextEncoder

    return TextEncoder(name, options, registered)


def _number_model(name: str, options: EncoderOptions, registered: Iterable[str]) -> Encoder[Any]:
    from mmkgc_cli.extraction.number_text import NumbersAsText

    return NumbersAsText(_text_model(name, options, registered))


def _hashed_ngrams(options: EncoderOptions) -> Encoder[Any]:
    from mmkgc_cli.extraction.hashed_ngrams import HashedNgrams

    return HashedNgrams(options)


def _quantiles(options: EncoderOptions) -> Encoder[Any]:
    from mmkgc_cli.extraction.quantiles import Quantiles

    return Quantiles(options)


def _find_pictures(graph: Graph, options: InputOptions) -> Found[Any]:
    from mmkgc_cli.extraction.picture_inputs import find

    return find(graph, options)


def _find_sounds(graph: Graph, options: InputOptions) -> Found[Any]:
    from mmkgc_cli.extraction.sound_encoder import find

    return find(graph, options)


def _find_videos(graph: Graph, options: InputOptions) -> Found[Any]:
    from mmkgc_cli.extraction.video_inputs import find

    return find(graph, options)


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


def _colours_of_frames(options: EncoderOptions) -> Encoder[Any]:
    from mmkgc_cli.extraction.colour_grid import ColourGrid
    from mmkgc_cli.extraction.video_encoder import PooledFrames

    return PooledFrames(ColourGrid())


def _log_mel_stats(options: EncoderOptions) -> Encoder[Any]:
    from mmkgc_cli.extraction.log_mel import LogMelStats

    return LogMelStats()


_BERT_ENTRY = EncoderEntry(
    BERT,
    "BERT (Devlin et al. 2019), 768 columns",
    lambda options: _text_model(BERT, options, ()),
    _OF_MODELS,
    default=True,
)
_NGRAMS_ENTRY = EncoderEntry(
    "hashed-ngrams", "hashed counts of character n-grams, 512 columns, no weights", _hashed_ngrams
)

_VIT_ENTRY = EncoderEntry(
    VIT,
    "ViT (Dosovitskiy et al. 2021), 768 columns",
    lambda options: _vision_model(VIT, options, ()),
    _OF_MODELS,
    default=True,
)
_VGG16_ENTRY = EncoderEntry(
    "vgg16",
    "VGG16 (Simonyan and Zisserman 2015) from --weights, 4,096 columns",
    _vgg16,
    frozenset({"device", "precision", "weights"}),
)
_GRID_ENTRY = EncoderEntry(
    "colour-grid", "mean colours over a grid of 8 x 8, 256 columns, no weights", _colour_grid
)
_AST_ENTRY = EncoderEntry(
    AST,
    "AST (Gong et al. 2021) tuned on AudioSet, 768 columns",
    lambda options: _sound_model(AST, options, ()),
    _OF_MODELS,
    default=True,
)
_MEL_ENTRY = EncoderEntry(
    "log-mel-stats", "mean and deviation of 64 mel bands, 128 columns, no weights", _log_mel_stats
)
_VIDEOMAE_ENTRY = EncoderEntry(
    VIDEOMAE,
    "VideoMAE (Tong et al. 2022) tuned on Kinetics, 768 columns",
    lambda options: _video_model(VIDEOMAE, options, ()),
    _OF_MODELS,
    default=True,
)
_FRAMES_ENTRY = EncoderEntry(
    "colour-grid", "mean colours over a grid of 8 x 8, of 16 frames, no weights", _colours_of_frames
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
                "the quantile of each attribute and whether it is missing, no weights",
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
