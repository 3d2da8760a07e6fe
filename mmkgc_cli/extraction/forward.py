"""Forward passes of networks: device, precision, and arrays in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmkgc_cli.extraction.contract import EncoderOptions
from mmkgc_cli.extraction.media import Array

if TYPE_CHECKING:
    import torch

# More at once is no faster on a CPU, and states of 64 pictures in a ViT are half a gigabyte.
_ROWS_ON_CPU = 8


class Forward:
    """Runs networks where and how `options` say."""

    def __init__(self, options: EncoderOptions) -> None:
        from mmkgc_cli.state.device import pick_device

        self.device = pick_device(options.device, "--device cuda")
        self._precision = options.precision or "float32"
        self.conditions = {"device": self.device.type}
        # What is to be said in `about`, behind the rest.
        self.about = "" if self._precision == "float32" else f"; {self._precision}"

    def run(self, network: Callable[[torch.Tensor], Any], rows: Sequence[Array]) -> Array:
        """What a network makes of rows of one shape, row by row, as float32."""
        at_once = _ROWS_ON_CPU if self.device.type == "cpu" else len(rows)
        return np.concatenate(
            [
                self._run(network, np.stack(rows[start : start + at_once]))
                for start in range(0, len(rows), at_once)
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
