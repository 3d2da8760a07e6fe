"""Folders of the user: caches, and what mmkgc remembers between commands."""

from __future__ import annotations

import os
from pathlib import Path

from mmkgc_cli.errors import UsageError

VARIABLE = "MMKGC_HOME"


def cache_folder() -> Path:
    """The folder for caches: ``MMKGC_HOME``, or the user's cache folder of the system.

    Raises:
        UsageError: when ``MMKGC_HOME`` names an unknown user's folder.
    """
    import platformdirs

    return _chosen() or platformdirs.user_cache_path("mmkgc")


def config_folder() -> Path:
    """The folder for settings that outlive caches: ``MMKGC_HOME``, or that of the system.

    Raises:
        UsageError: as `cache_folder`.
    """
    import platformdirs

    return _chosen() or platformdirs.user_config_path("mmkgc")


def _chosen() -> Path | None:
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{VARIABLE}={folder}: {error}", fix=f"set {VARIABLE} to the path of a folder"
        ) from None
