"""Sounds through models of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import EncoderAbout, EncoderOptions
from mmkgc_cli.extraction.forward import Forward
from mmkgc_cli.extraction.media import Array
from mmkgc_cli.extraction.pretrained import guarded, library, locate
from mmkgc_cli.extraction.sound_encoder import SoundEncoder
from mmkgc_cli.extraction.sounds import Samples
from mmkgc_cli.extraction.vision_models import check_pooling, has_class_token, pooled

if TYPE_CHECKING:
    import torch

POOLINGS = ("cls", "mean", "pooler")
_INPUTS = ("input_values", "input_features")


class SoundModel(SoundEncoder):
    """The vectors that an audio model has for each clip, pooled to one, and their mean.

    A spectrogram transformer, or a model of waveforms such as wav2vec 2.0. Clips of one length are
    a batch; the last, shorter one goes alone, so that no padding comes near a waveform.
    """

    def __init__(
        self, encoder: str, options: EncoderOptions, registered: Iterable[str] = ()
    ) -> None:
        """Loads the model.

        Args:
            encoder: name on the hub, or folder.
            options: `pooling` is "cls" (the first token; the default where the model has such a
                token), "mean" (over time) or "pooler" (the model's own).
            registered: names of encoders that may have been meant.

        Raises:
            DataError: when it cannot be loaded, or is no model of sounds.
            UsageError: for a pooling that the model does not have.
        """
        transformers = library()
        found = locate(encoder, registered)
        self._forward = Forward(options)
        self.conditions = self._forward.conditions
        self._extractor = found.load(transformers.AutoFeatureExtractor)
        unused = "(none)" if options.pooling == "pooler" else "pooler"
        model = found.load_model(transformers.AutoModel, unused)
        # Of a model that writes down what it hears, the half that hears.
        self._model = getattr(model, "audio_model", None) or (
            model.get_encoder() if model.config.is_encoder_decoder else model
        )
        self._input = self._model.main_input_name
        rate = getattr(self._extractor, "sampling_rate", None)
        if self._input not in _INPUTS or not isinstance(rate, int):
            raise DataError(f"{found.name}: no model of sounds; its input is {self._input!r}")
        self.rate = rate
        self._has_class = has_class_token(self._model)
        self._pooling = options.pooling or ("cls" if self._has_class else "mean")
        check_pooling(found.name, self._pooling, POOLINGS, self._has_class)
        self._model = self._model.to(self._forward.device)
        self.about = EncoderAbout(
            found.name, found.revision,
            f"{self.decoding}; {_described(self._extractor)}{self._forward.about}",
            f"{self._pooling}, mean over clips",
        )  # fmt: skip
        with guarded(found.name):  # its parts may not fit together
            self.width = self.vector([np.zeros(rate, dtype=np.float32)]).shape[0]

    def vector(self, found: Sequence[Samples]) -> Array:
        """The vector ``[width]`` of the clips of a sound."""
        whole = [clip for clip in found if len(clip) == len(found[0])]
        rest = [clip for clip in found if len(clip) != len(found[0])]
        parts = [self._encoded(whole), *(self._encoded([clip]) for clip in rest)]
        mean: Array = np.concatenate(parts).mean(axis=0)
        return mean

    def _encoded(self, clips: Sequence[Samples]) -> Array:
        batch = self._extractor(list(clips), sampling_rate=self.rate, return_tensors="np")
        return self._forward.run(
            self._pooled, list(np.asarray(batch[self._input], dtype=np.float32))
        )

    def _pooled(self, values: torch.Tensor) -> torch.Tensor:
        return pooled(self._model(**{self._input: values}), self._pooling, self._has_class)


def _described(extractor: Any) -> str:
    """What a feature extractor of transformers does, in the words of its configuration."""
    values = extractor.to_dict()
    said = ", ".join(
        f"{key} {values[key]}"
        for key in sorted(values)
        if key not in ("mel_filters", "window", "feature_extractor_type", "processor_class")
        and isinstance(values[key], str | int | float)
    )
    from transformers.utils.import_utils import is_speech_available

    # AST takes filter banks from torchaudio where that is installed.
    made = "torchaudio there" if is_speech_available() else "without torchaudio"
    return f"{type(extractor).__name__} ({made}): {said}"
