"""A kind of plugin with the functions that find, check and load its plugins by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmkgc_cli.plugins.declarations import declaration, declared_settings
from mmkgc_cli.plugins.discovery import require
from mmkgc_cli.plugins.kinds import Plugin, PluginKind, T
from mmkgc_cli.plugins.loading import load_plugin

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True)
class PluginRegistry(PluginKind[T]):
    """The plugins of one kind by name."""

    def load(self, name: str) -> type[T]:
        """The class of the plugin `name`; no other plugin is imported.

        Raises:
            UsageError: for an unknown name.
            DataError: for a plugin that is not trusted, or broken: file and line, member, expected
                and got.
        """
        return load_plugin(self, require(self, name))

    def load_file(self, file: Path) -> type[T]:
        """The class of the plugin in `file`, which the caller trusts, in any folder.

        Raises:
            DataError: for a broken plugin, as `load`.
        """
        plugin = Plugin(file.stem, str(file.parent), file.absolute())
        return load_plugin(self, plugin, trusted=True)

    def declared_settings(self, name: str) -> type[BaseModel] | None:
        """The settings of the plugin `name`, read from its source; see `declarations`.

        Raises:
            UsageError: for an unknown name.
        """
        return declared_settings(require(self, name), self)

    def settings(self, name: str, *, validated: bool = True) -> type[BaseModel]:
        """The class of the settings of the plugin `name`.

        The plugin is imported only where its source does not suffice: where it does not show a
        field, or, if `validated`, where settings have validators.

        Raises:
            UsageError: for an unknown name.
            DataError: when the plugin has to be imported and is broken.
        """
        declared = declaration(require(self, name), self)
        if declared.settings is None or (validated and declared.has_validators):
            plugin: Any = self.load(name)
            settings: type[BaseModel] = plugin.Config
            return settings
        return declared.settings
