"""Where samplers are found (`mmkgc_cli.plugins`) and what a file must define to be one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmkgc_cli.plugins import Complaint, PluginKind, load
from mmkgc_cli.plugins.checks import described, takes

if TYPE_CHECKING:
    from mmkgc_cli.sampling.contract import Sampler

DEFAULT = "filtered"
# What the core calls a sampler with.
CALLS = {"draw": ("positives", "scorer"), "__init__": ("config", "task", "scorer")}


def _base() -> type[Sampler]:
    from mmkgc_cli.sampling.contract import Sampler  # torch: not for who only lists names

    return Sampler


def _check(sampler: type[Sampler]) -> Complaint | None:
    """What keeps a class from being a sampler, the first thing found."""
    from mmkgc_cli.sampling.contract import SamplerConfig

    if sampler.draw is _base().draw:
        shown = ", ".join(CALLS["draw"])
        return Complaint("draw", f"expected a method draw(self, {shown}), got none")
    for name, arguments in CALLS.items():
        if complaint := takes(sampler, name, arguments):
            return complaint
    return described(sampler, SamplerConfig)


SAMPLERS: PluginKind[Sampler] = PluginKind(
    noun="sampler",
    package="mmkgc_cli.sampling.samplers",
    group="mmkgc.samplers",
    folder="samplers",
    variable="MMKGC_SAMPLERS",
    attribute="SAMPLER",
    base=_base,
    check=_check,
)


def load_sampler(name: str) -> type[Sampler]:
    """The sampler class of the plugin `name`; only its file is imported.

    Raises:
        UsageError: when there is none of that name; lists the nearest.
        DataError: when it is broken: file and line, member, expected and got.
    """
    return load(SAMPLERS, name)
