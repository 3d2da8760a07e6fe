"""Logs of other tools beside the trace: they are told what it records, and may fail."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mmkgc_cli.errors import UsageError


class Logger(Protocol):
    """An adapter, made by ``open_log(run, settings, first_epoch)`` of the module ``log_NAME``."""

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of an epoch, by names such as ``valid/mrr``."""

    def close(self, exit_code: int) -> None:
        """Ends the log; not 0 when the training was interrupted or failed."""


class Loggers:
    """The logs that were asked for; one that fails is dropped with one warning."""

    def __init__(
        self, names: Sequence[str] = (), warn: Callable[[str], None] = lambda _: None
    ) -> None:
        """Loads the adapters of `names`, and nothing of the others.

        Raises:
            UsageError: when a package is missing or broken.
        """
        self._warn = warn
        self._modules = {name: _load(name) for name in names}
        self._open: dict[str, Logger] = {}

    @contextlib.contextmanager
    def opened(self, run: Path, settings: Mapping[str, Any], first_epoch: int) -> Iterator[None]:
        """Around a training in the folder `run` whose next record is of `first_epoch`.

        A training that goes on appends; what was logged of epochs that come again gives way.
        """
        for name, module in self._modules.items():
            with self._warning(name):
                self._open[name] = module.open_log(run, settings, first_epoch)
        exit_code = 0
        try:
            yield
        except BaseException as error:
            exit_code = getattr(error, "exit_code", 1)
            raise
        finally:
            for name, logger in list(self._open.items()):
                with self._warning(name):
                    logger.close(exit_code)
            self._open.clear()

    def record(self, row: Mapping[str, Any]) -> None:
        """Passes on a record of the trace, if it is that of an epoch."""
        if row["event"] != "epoch" or not self._open:
            return
        values = dict(_numbers({k: v for k, v in row.items() if k not in ("seconds", "epoch")}))
        for name, logger in list(self._open.items()):
            with self._warning(name):
                logger.epoch(row["epoch"], values)

    @contextlib.contextmanager
    def _warning(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._open.pop(name, None)
            first = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
            self._warn(f"warning: --log {name} gave up: {first}; the training is not affected")


def _load(name: str) -> Any:
    advice = f"pip install 'mmkgc[{name}]'"
    try:
        return importlib.import_module(f"mmkgc_cli.runs.log_{name}")
    except ModuleNotFoundError as error:
        raise UsageError(f"--log {name}: {error.name} is not installed; {advice}") from error
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise UsageError(f"--log {name}: cannot be loaded: {first}; try {advice}") from error


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)
