"""How `mmkgc runs` shows runs."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mmkgc_cli.commands._runs_advice import advice
from mmkgc_cli.commands._shell import out, printable, say, table
from mmkgc_cli.text import byte_text, counted

if TYPE_CHECKING:
    from mmkgc_cli.runs.cleaning import Removal
    from mmkgc_cli.runs.status import Run

COLUMNS = (
    "run", "scorer", "graph", "state", "epochs", "valid MRR", "test MRR", "size", "touched"
)  # fmt: skip
TEXTS = 4  # the first columns, which are texts
# Columns that a narrow terminal leaves out, in this order.
EXPENDABLE = ("graph", "size", "scorer", "valid MRR", "touched", "test MRR")
NAME_WIDTH = 20  # longer names are cut before a column is left out


def as_object(run: Run) -> dict[str, Any]:
    """A run for `--json`: sizes in bytes, MRR as fractions, times in UTC."""
    return {
        "run": str(run.path),
        "name": run.name,
        "state": run.state.value,
        "why": run.why,
        "scorer": run.scorer,
        "strategy": run.strategy,
        "completes": run.completes,
        "graph": run.graph,
        "epochs": run.epochs,
        "epochs_asked": run.epochs_asked,
        "best_epoch": run.best_epoch,
        "valid_mrr": run.valid_mrr,
        "test_mrr": run.test_mrr,
        "outdated_results": run.outdated_results,
        "bytes": run.bytes,
        "touched": _utc(run.touched),
    }


def print_list(runs: Sequence[Run], now: float) -> None:
    """Prints a table that fits the terminal, and below it the problems of damaged runs."""
    rows = [
        {
            "run": printable(run.name),
            "scorer": printable(_model(run.scorer, run.strategy, run.completes)),
            "graph": printable(run.graph or "?"),
            "state": run.state.value,
            "epochs": _epochs(run),
            "valid MRR": _percent(run.valid_mrr),
            "test MRR": _percent(run.test_mrr),
            "size": byte_text(run.bytes),
            "touched": ago(now - run.touched) if run.touched else "?",
        }
        for run in runs
    ]
    shown = _fitting(rows, out.width)
    cells = [[row[column] for column in shown] for row in rows]
    out.print(table("", shown, cells, texts=len([c for c in COLUMNS[:TEXTS] if c in shown])))
    # The table already shows how far an interrupted run came.
    notes = [_note(run) for run in runs if run.state.value in ("damaged", "failed")]
    if notes:
        out.print()
    for note in notes:
        out.print(printable(note))
    if missing := [column for column in COLUMNS if column not in shown]:
        say(f"no room for: {', '.join(missing)}")


def _model(scorer: str | None, strategy: str | None, completes: str | None) -> str:
    return scorer or (f"{strategy} ({completes})" if strategy else "?")


def _note(run: Run) -> str:
    return f"{run.name}: {run.state.value}: {run.why.removeprefix(f'{run.path}/')}"


def _epochs(run: Run) -> str:
    if not run.epochs_asked or run.epochs == run.epochs_asked:
        return f"{run.epochs:,}"
    if run.state.value == "finished" and not run.epochs:
        return "0"  # a scorer without parameters
    return f"{run.epochs:,}/{run.epochs_asked:,}"


def _fitting(rows: Sequence[dict[str, str]], width: int) -> list[str]:
    """The columns that fit into `width`."""
    from rich.cells import cell_len

    shown = list(COLUMNS)
    for column in ("", *EXPENDABLE):
        shown = [name for name in shown if name != column]
        widths = {
            name: max(cell_len(name), *(cell_len(row[name]) for row in rows)) for name in shown
        }
        widths["run"] = min(widths["run"], NAME_WIDTH)
        if sum(widths.values()) + 2 * (len(shown) - 1) <= width:
            break
    return shown


def details(run: Run) -> dict[str, Any]:
    """Everything that `show` prints, as one object."""
    record = run.environment.get
    return {
        **as_object(run),
        "problems": run.problems,
        "settings": {
            name: {"value": _plain(value), "default": _plain(default)}
            for name, (value, default) in _settings(run).items()
        },
        "features": _section(run, "stores"),
        "environment": {
            key: record(key)
            for key in ("mmkgc", "commit", "changed_files", "python", "platform", "packages",
                        "processors", "threads", "cuda", "command")
        },
        "device": _section(run, "training").get("device"),
        "stopped": run.stopped,
        "seconds": run.seconds,
        "triples_per_second": run.triples_per_second,
        "weights_epoch": run.weights_epoch,
        "checkpoints": [
            {
                "path": str(checkpoint.path),
                "step": checkpoint.step,
                "epoch": checkpoint.epoch,
                "steps_of_epoch": checkpoint.done,
                "bytes": checkpoint.bytes,
                "touched": _utc(checkpoint.modified),
                "problem": checkpoint.problem,
            }
            for checkpoint in run.checkpoints
        ],
        "metrics": _metrics(run),
        "next": advice(run),
    }  # fmt: skip


def _settings(run: Run) -> dict[str, tuple[Any, Any]]:
    from mmkgc_cli.errors import MmkgcError
    from mmkgc_cli.scoring.registry import SCORERS

    if run.completes is not None:
        from mmkgc_cli.runs import completion_config

        return completion_config.unlike_defaults(run.config)
    from mmkgc_cli.runs.config import unlike_defaults

    try:
        settings: Any = SCORERS.declared_settings(run.scorer) if run.scorer else None
    except MmkgcError:  # a plugin that is no longer installed
        settings = None
    return unlike_defaults(run.config, settings)


def _section(run: Run, name: str) -> dict[str, Any]:
    section = run.config.get(name)
    return section if isinstance(section, dict) else {}


def _metrics(run: Run) -> dict[str, dict[str, float]]:
    """Realistic metrics over both sides by split; entries that are no numbers are left out."""
    metrics: dict[str, dict[str, float]] = {}
    splits = (run.results or {}).get("metrics")
    for split, value in splits.items() if isinstance(splits, dict) else ():
        for key in ("both", "realistic"):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, dict):
            numbers = {k: v for k, v in value.items() if _plain(v) == v and type(v) in (int, float)}
            metrics[split] = numbers
    return metrics


def print_details(details: dict[str, Any], now: float) -> None:
    """Prints what `details` returns."""
    why = f": {details['why']}" if details["why"] else ""
    out.print(printable(f"{details['run']}: {details['state']}{why}"))
    for problem in details["problems"]:
        if problem != details["why"]:
            _line("", f"also: {problem}")
    if details["strategy"]:
        _line("completes", f"{details['completes']} by {details['strategy']}")
    else:
        _line("scorer", details["scorer"] or "?")
    _line("graph", details["graph"] or "?")
    for i, (name, setting) in enumerate(details["settings"].items()):
        default = "" if setting["default"] is None else f"  (default {setting['default']})"
        _line("" if i else "settings", f"{name} = {setting['value']}{default}")
    if not details["settings"]:
        _line("settings", "all defaults")
    for i, (modality, store) in enumerate(details["features"].items()):
        _line("" if i else "features", f"{modality}: {_store(store)}")
    _print_environment(details["environment"], details["device"])
    _print_progress(details)
    for i, checkpoint in enumerate(details["checkpoints"]):
        position = f"step {checkpoint['step']:,}"
        if checkpoint["epoch"] is not None:
            position += _position(checkpoint)
        age = ago(now - datetime.fromisoformat(checkpoint["touched"]).timestamp())
        text = f"{position}, {age}, {byte_text(checkpoint['bytes'])}"
        _line("" if i else "checkpoints", checkpoint["problem"] or text)
    if not details["checkpoints"]:
        _line("checkpoints", "none")
    for split, metrics in details["metrics"].items():
        shown = [f"{name} {_metric(name, metrics[name])}" for name in
                 ("mrr", "mr", "hits@1", "hits@3", "hits@10") if name in metrics]  # fmt: skip
        old = "  (of earlier weights)" if details["outdated_results"] else ""
        _line(split, ", ".join(shown) + old)
    if not details["metrics"]:
        _line("results", "none")
    _line("size", f"{byte_text(details['bytes'])}, last touched {_local(details['touched'])}")
    for i, line in enumerate(details["next"]):
        _line("" if i else "next", line)


def _store(store: Any) -> str:
    """The record of one feature store as a line; ``?`` for a damaged record."""
    record = store.get if isinstance(store, dict) else {}.get
    observed, generated = record("observed", 0), record("generated", 0)
    missing = record("missing", 0)
    if not all(type(count) is int for count in (observed, generated, missing)):
        return "?"
    present = observed + generated
    text = f"{present:,} of {counted(present + missing, 'entity')}"
    text += f", {generated:,} of them generated" if generated else ""
    text += f", {record('fill')} for {missing:,}" if missing and record("fill") != "none" else ""
    encoder = f", {record('encoder')}" if record("encoder") else ""
    return f"{text}, {record('use')}{encoder}, SHA-256 {str(record('sha256'))[:12]}…"


def _position(checkpoint: dict[str, Any]) -> str:
    if checkpoint["steps_of_epoch"]:
        return (
            f" ({counted(checkpoint['steps_of_epoch'], 'step')} into epoch {checkpoint['epoch']:,})"
        )
    return f" (after epoch {checkpoint['epoch'] - 1:,})"


def _print_environment(environment: dict[str, Any], device: Any) -> None:
    packages = environment["packages"]
    versions = [f"{key} {environment[key]}" for key in ("mmkgc", "python") if environment[key]]
    if isinstance(packages, dict):
        versions += [f"{name} {version}" for name, version in packages.items()]
    _line("versions", ", ".join(versions) or "?")
    if commit := environment["commit"]:
        changed = environment["changed_files"]
        _line("commit", f"{commit}{f', with {changed} changed files' if changed else ''}")
    if environment["platform"]:
        _line("machine", f"{environment['platform']}, {environment['processors']} processors")
    gpu = f" ({environment['cuda']})" if environment["cuda"] and device != "cpu" else ""
    threads = f", {environment['threads']} threads" if environment["threads"] else ""
    if device == "auto":
        device = "cuda" if environment["cuda"] else "cpu"
    _line("device", f"{device or '?'}{gpu}{threads}")
    if isinstance(environment["command"], list):
        _line("command", shlex.join(map(str, environment["command"])))


def _print_progress(details: dict[str, Any]) -> None:
    planned = f" of {details['epochs_asked']:,}" if details["epochs_asked"] else ""
    stopped = details["stopped"] if details["state"] in ("finished", "interrupted") else None
    _line("epochs", f"{details['epochs']:,}{planned}{f'; {_ending(stopped)}' if stopped else ''}")
    if details["valid_mrr"] is not None:
        epoch = f" at epoch {details['best_epoch']:,}" if details["best_epoch"] else ""
        _line("best", f"valid MRR {_percent(details['valid_mrr'])}{epoch}")
    if details["seconds"] is not None:
        rate = details["triples_per_second"]
        _line(
            "time",
            f"{_duration(details['seconds'])}" + (f", {rate:,.0f} triples/s" if rate else ""),
        )


def _ending(stopped: str) -> str:
    """``stopped by SIGINT`` for ``signal 2``."""
    number = stopped.removeprefix("signal ")
    try:
        return f"stopped by {signal.Signals(int(number)).name}"
    except ValueError:
        return stopped


def removal_object(removal: Removal) -> dict[str, Any]:
    """A removal for `--json`."""
    return {
        "run": str(removal.run.path),
        "state": removal.run.state.value,
        "why": removal.why,
        "whole": removal.whole,
        "bytes": removal.bytes,
        "files": [{"path": str(file.path), "bytes": file.bytes} for file in removal.files],
        "problems": removal.problems,
    }


def print_removals(removals: Sequence[Removal]) -> None:
    """Prints one line for each run."""
    for removal in removals:
        what = "the whole run: " if removal.whole else ""
        why = " and ".join(removal.why)
        out.print(printable(f"{removal.run.name}: {what}{why}, {byte_text(removal.bytes)}"))
        if removal.whole and removal.run.state.value == "failed":
            out.print(printable(f"  {removal.run.why}"))


def ago(seconds: float) -> str:
    """``just now``, ``5 min ago``, ``3 days ago``: in the largest unit that fits."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {'day' if (count, unit) == (1, 'days') else unit} ago"
    return "just now"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _metric(name: str, value: float) -> str:
    return f"{value:,.1f}" if name == "mr" else f"{100 * value:.2f} %"


def _plain(value: Any) -> Any:
    """The value as JSON allows it; TOML also has dates, NaN and infinity."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and value - value == 0:
        return value
    return str(value)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _local(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")


def _line(title: str, text: str) -> None:
    out.print(printable(f"  {title:<12} {text}"))
