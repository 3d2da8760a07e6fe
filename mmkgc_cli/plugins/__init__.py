"""Plugins of one file each: found by name without being imported, loaded one at a time.

A kind of plugin is searched in its built-in package, in the entry points of installed packages, in
a folder of the working directory, and in the folders that an environment variable lists. The first
plugin of a name is used. An error in one plugin does not affect the others.
"""

from mmkgc_cli.plugins.declarations import Declaration, declaration, declared_settings
from mmkgc_cli.plugins.discovery import Catalogue, discover, find, is_plugin_name, require
from mmkgc_cli.plugins.kinds import BUILT_IN, Complaint, Plugin, PluginKind
from mmkgc_cli.plugins.registry import PluginRegistry
from mmkgc_cli.plugins.source import Outline, outline
from mmkgc_cli.plugins.tracebacks import convert_error

__all__ = [
    "BUILT_IN",
    "Catalogue",
    "Complaint",
    "Declaration",
    "Outline",
    "Plugin",
    "PluginKind",
    "PluginRegistry",
    "convert_error",
    "declaration",
    "declared_settings",
    "discover",
    "find",
    "is_plugin_name",
    "outline",
    "require",
]
