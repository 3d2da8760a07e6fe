"""Forward passes of networks: device, precision, and arrays in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mmkgc_cli.extraction.contract import EncoderOptions
from mmkgc_cli.extraction.media import Array

if TYPE_CHECKING:
    import torch


class Forward:
    """Runs networks where and how `options` say."""

    def __init__(self, options: EncoderOptions) -> None:
        from mmkgc_cli.state.device import pick_device

        self.device = pick_device(options.device, "--device cuda")
        self._precision = options.precision or "float32"
        self.conditions = {"device": self.device.type}
        # What is to be said in `about`, behind the rest.
        self.about = "" if self._precision == "float32" else f"; {self._precision}"

    def run(self, network: Callable[[torch.Tensor], Any], values: Array) -> Array:
        """What a network makes of numbers, as float32."""
        import torch

        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self._precision)
        casts = torch.autocast(self.device.type, dtype, enabled=dtype is not None)
        with torch.inference_mode(), casts:
            result = network(torch.from_numpy(np.ascontiguousarray(values)).to(self.device))
        array: Array = result.float().cpu().numpy()
        return array
