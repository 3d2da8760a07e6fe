"""Where samplers are found (`mmkgc_cli.plugins`) and what a sampler class must define."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmkgc_cli.plugins import Complaint, PluginRegistry

if TYPE_CHECKING:
    from mmkgc_cli.sampling.contract import Sampler

DEFAULT = "filtered"
CALLS = {"draw": ("positives", "scorer"), "__init__": ("config", "task", "scorer")}


def _check(sampler: type[Sampler], base: type[Sampler]) -> Complaint | None:
    """Checks that `draw` is defined."""
    if sampler.draw is not base.draw:
        return None
    method = f"draw(self, {', '.join(CALLS['draw'])})"
    return Complaint("draw", f"expected a method {method}, got none", f"define {method}")


SAMPLERS: PluginRegistry[Sampler] = PluginRegistry(
    noun="sampler",
    package="mmkgc_cli.sampling.samplers",
    group="mmkgc.samplers",
    folder="samplers",
    variable="MMKGC_SAMPLERS",
    attribute="SAMPLER",
    base="mmkgc_cli.sampling.contract:Sampler",
    calls=CALLS,
    check=_check,
)
load_sampler = SAMPLERS.load
