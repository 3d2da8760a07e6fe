"""Sound encoders: audio models of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import EncoderMetadata, EncoderOptions
from mmkgc_cli.extraction.forward import Forward
from mmkgc_cli.extraction.media import Array, SoundEncoder
from mmkgc_cli.extraction.pretrained import load_transformers, locate, model_errors
from mmkgc_cli.extraction.sounds import Samples
from mmkgc_cli.extraction.vision_models import check_pooling, has_class_token, pool

if TYPE_CHECKING:
    import torch

POOLINGS = ("cls", "mean", "pooler")
_INPUTS = ("input_values", "input_features")


class SoundModel(SoundEncoder):
    """An audio model; the vector of a sound is the mean over clips of the pooled states.

    The model is a spectrogram transformer or a waveform model such as wav2vec 2.0. Clips of equal
    length are one batch; a shorter last clip is encoded separately, without padding.
    """

    def __init__(
        self, encoder: str, options: EncoderOptions, registered: Iterable[str] = ()
    ) -> None:
        """Loads the model.

        Args:
            encoder: hub name or folder.
            options: `pooling` is "cls" (the first token, the default if the model has a class
                token), "mean" (over time) or "pooler" (the pooler of the model).
            registered: names of registered encoders, for suggestions.

        Raises:
            DataError: the model cannot be loaded, or is not an audio model.
            UsageError: the model does not have this pooling.
        """
        transformers = load_transformers()
        pretrained = locate(encoder, registered)
        self._forward = Forward(options)
        self.conditions = self._forward.conditions
        self._extractor = pretrained.load(transformers.AutoFeatureExtractor)
        unused = "(none)" if options.pooling == "pooler" else "pooler"
        model = pretrained.load_model(transformers.AutoModel, unused)
        # Encoder of a speech recognition model, or audio half of a joint model.
        self._model = getattr(model, "audio_model", None) or (
            model.get_encoder() if model.config.is_encoder_decoder else model
        )
        self._input = self._model.main_input_name
        rate = getattr(self._extractor, "sampling_rate", None)
        if self._input not in _INPUTS or not isinstance(rate, int):
            raise DataError(
                f"{pretrained.name}: not an audio model; its input is {self._input!r}",
                fix="choose an audio model, see `mmkgc extract audio --list`",
            )
        self.rate = rate
        self._has_class = has_class_token(self._model)
        self._pooling = options.pooling or ("cls" if self._has_class else "mean")
        check_pooling(pretrained.name, self._pooling, POOLINGS, self._has_class)
        self._model = self._model.to(self._forward.device)
        self.metadata = EncoderMetadata(
            pretrained.name, pretrained.revision,
            f"{self.decoding}; {_describe(self._extractor)}{self._forward.precision_note}",
            f"{self._pooling}, mean over clips",
        )  # fmt: skip
        with model_errors(pretrained.name):  # preprocessing and model may not match
            self.width = self.vector([np.zeros(rate, dtype=np.float32)]).shape[0]

    def vector(self, clips: Sequence[Samples]) -> Array:
        """The vector ``[width]`` of the clips of a sound."""
        full_clips = [clip for clip in clips if len(clip) == len(clips[0])]
        other_clips = [clip for clip in clips if len(clip) != len(clips[0])]
        parts = [self._encoded(full_clips), *(self._encoded([clip]) for clip in other_clips)]
        mean: Array = np.concatenate(parts).mean(axis=0)
        return mean

    def _encoded(self, clips: Sequence[Samples]) -> Array:
        batch = self._extractor(list(clips), sampling_rate=self.rate, return_tensors="np")
        return self._forward.run(self._pool, list(np.asarray(batch[self._input], dtype=np.float32)))

    def _pool(self, values: torch.Tensor) -> torch.Tensor:
        return pool(self._model(**{self._input: values}), self._pooling, self._has_class)


def _describe(extractor: Any) -> str:
    """Describes a feature extractor by its configuration, for the metadata."""
    values = extractor.to_dict()
    values_text = ", ".join(
        f"{key} {values[key]}"
        for key in sorted(values)
        if key not in ("mel_filters", "window", "feature_extractor_type", "processor_class")
        and isinstance(values[key], str | int | float)
    )
    from transformers.utils.import_utils import is_speech_available

    # AST uses the filter banks of torchaudio if it is installed.
    filter_banks = "torchaudio there" if is_speech_available() else "without torchaudio"
    return f"{type(extractor).__name__} ({filter_banks}): {values_text}"
