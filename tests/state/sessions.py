"""Records which files are read in children of the sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from mmkgc_cli.state.sandbox.client import Session


def record_sessions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list to which each session that starts from now on adds its task."""
    sessions: list[str] = []
    start = Session.__init__

    def recorded(self: Any, task: str, *arguments: Any, **options: Any) -> None:
        sessions.append(task)
        start(self, task, *arguments, **options)

    monkeypatch.setattr(Session, "__init__", recorded)
    return sessions
