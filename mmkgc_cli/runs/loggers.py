"""Loggers: copy the epochs of the trace to other tools. A logger that fails stops nothing."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from mmkgc_cli.errors import UsageError
from mmkgc_cli.training.loop import Callback, RunInfo


class Logger(Protocol):
    """A log, opened by ``open_log(run, settings, first_epoch)`` of the module ``log_NAME``."""

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Logs the numbers of an epoch, by names such as ``valid/mrr``."""

    def close(self, exit_code: int) -> None:
        """Closes the log; `exit_code` is not 0 when training was interrupted or failed."""


class Loggers(Callback):
    """Logs every epoch with the selected loggers; drops a logger that fails, with a warning."""

    def __init__(
        self, names: Sequence[str] = (), warn: Callable[[str], None] = lambda _: None
    ) -> None:
        """Imports the packages of the loggers `names` only.

        Raises:
            UsageError: when a package is missing or cannot be imported.
        """
        self._warn = warn
        self._modules = {name: _load(name) for name in names}
        self._open: dict[str, Logger] = {}

    def start(self, info: RunInfo) -> None:
        """Opens the logs. A resumed run appends; epochs that are repeated are replaced."""
        for name, module in self._modules.items():
            with self._warning(name):
                self._open[name] = module.open_log(info.folder, info.settings, info.first_epoch)

    def event(self, row: Mapping[str, Any]) -> None:
        """Logs the numbers in an epoch event of the trace."""
        if row["event"] != "epoch" or not self._open:
            return
        values = dict(_numbers({k: v for k, v in row.items() if k not in ("seconds", "epoch")}))
        for name, logger in list(self._open.items()):
            with self._warning(name):
                logger.epoch(row["epoch"], values)

    def close(self, exit_code: int) -> None:
        """Closes the logs."""
        for name, logger in list(self._open.items()):
            with self._warning(name):
                logger.close(exit_code)
        self._open.clear()

    @contextlib.contextmanager
    def _warning(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._open.pop(name, None)
            reason = _first_line(error).rstrip(".") or type(error).__name__
            self._warn(f"warning: --log {name} stopped: {reason}; training continues")


def _load(name: str) -> Any:
    fix = f"pip install 'mmkgc[{name}]'"
    try:
        return importlib.import_module(f"mmkgc_cli.runs.log_{name}")
    except ModuleNotFoundError as error:
        raise UsageError(f"--log {name}: {error.name} is not installed", fix=fix) from error
    except Exception as error:
        problem = f"--log {name}: cannot be imported: {_first_line(error)}"
        raise UsageError(problem, fix=f"try {fix}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)
