"""Plugins of one file each: found by name without being imported, loaded one at a time.

A kind of plugin is looked for in its built-in package, among the entry points of installed
packages, in a folder of the working directory, and in the folders that an environment variable
lists. The first of a name is used. What is wrong with one plugin is an error of that one alone.
"""

from mmkgc_cli.plugins.discovery import Catalogue, discover, find, is_plugin_name, require
from mmkgc_cli.plugins.kinds import BUILT_IN, Complaint, Plugin, PluginKind
from mmkgc_cli.plugins.loading import load, load_file, load_plugin
from mmkgc_cli.plugins.source import Outline, outline
from mmkgc_cli.plugins.tracebacks import blame

__all__ = [
    "BUILT_IN",
    "Catalogue",
    "Complaint",
    "Outline",
    "Plugin",
    "PluginKind",
    "blame",
    "discover",
    "find",
    "is_plugin_name",
    "load",
    "load_file",
    "load_plugin",
    "outline",
    "require",
]
