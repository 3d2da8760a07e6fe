"""Forward passes of networks with the device and precision of the options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmkgc_cli.extraction.contract import EncoderOptions
from mmkgc_cli.extraction.media import Array

if TYPE_CHECKING:
    import torch

# Larger batches are not faster on a CPU, and the states of 64 pictures in a ViT take 0.5 GB.
_ROWS_ON_CPU = 8


class Forward:
    """Runs networks on the device and in the precision of `options`."""

    def __init__(self, options: EncoderOptions) -> None:
        from mmkgc_cli.state.device import pick_device

        self.device = pick_device(options.device, "--device cuda")
        self._precision = options.precision or "float32"
        self.conditions = {"device": self.device.type}
        # Suffix of `preprocess` in the metadata.
        self.precision_note = "" if self._precision == "float32" else f"; {self._precision}"

    def run(self, network: Callable[[torch.Tensor], Any], rows: Sequence[Array]) -> Array:
        """Runs a network on arrays of one shape and returns its output as float32."""
        batch_size = _ROWS_ON_CPU if self.device.type == "cpu" else len(rows)
        return np.concatenate(
            [
                self._run(network, np.stack(rows[start : start + batch_size]))
                for start in range(0, len(rows), batch_size)
            ]
        )

    def _run(self, network: Callable[[torch.Tensor], Any], values: Array) -> Array:
        import torch

        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self._precision)
        casts = torch.autocast(self.device.type, dtype, enabled=dtype is not None)
        with torch.inference_mode(), casts:
            result = network(torch.from_numpy(values).to(self.device))
        array: Array = result.float().cpu().numpy()
        return array
