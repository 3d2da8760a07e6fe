"""The help of a command: flags in panels, and examples at the end."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

# The panel of a flag; a flag means the same in every command.
PANELS: dict[str, tuple[str, ...]] = {
    "Input": (
        "--graph", "--features", "--source", "--format", "--input", "--config", "--ids",
        "--row-order", "--key", "--columns", "--labels", "--label-column", "--publisher",
        "--sha256", "--mask-file", "--modality", "--scorer", "--folder",
    ),
    "Method": (
        "--strategy", "--variant", "--preset", "--iterations", "--encoder", "--revision",
        "--preprocess", "--pooling", "--min-count", "--weights", "--rate", "--pattern", "--prefer",
        "--missing-rate", "--mask-seed", "--split", "--seed", "--unseen", "--clean", "--kind",
        "--relations", "--fill", "--freeze-features", "--dim", "--epochs", "--batch-size",
        "--negatives", "--lr", "--set", "--zero-is-missing", "--nan-is-missing",
    ),
    "Checks": (
        "--allow-other-train", "--allow-unverified", "--trust-order", "--unsafe-pickle", "--strict",
        "--against", "--trust-plugins", "--edits",
    ),
    "Execution": (
        "--device", "--precision", "--dtype", "--compression", "--limit", "--offline", "--jobs",
        "--max-bytes", "--max-seconds",
        "--threads", "--shard", "--max-minutes", "--executor", "--resume", "--retry-failed",
        "--dry-run", "--measure", "--steps", "--turns", "--ranked", "--yes", "--failed",
    ),
    "Output": (
        "--out", "--run", "--log", "--overwrite", "--observed-only", "--csv", "--bibtex", "--list",
        "--json",
    ),
}  # fmt: skip
_PANEL_OF = {flag: panel for panel, flags in PANELS.items() for flag in flags}
# Characters of a first sentence that fit into a list of commands at 80 columns.
LONGEST = 66
# With fewer flags, panels would be longer than the list.
FEWEST = 5


def examples(*commands: str) -> str:
    """The epilog of a command: its examples, also as a code block in Markdown."""
    return "\n".join(["Examples:", "", *(f"    {command}" for command in commands)])


class Command(TyperCommand):
    """A command with flags grouped in panels and examples at the end of its help."""

    def get_short_help_str(self, limit: int = 45) -> str:
        """Returns the whole first sentence of the help; a test checks that it fits a terminal."""
        return super().get_short_help_str(max(limit, LONGEST))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments, and options by panel where there are several."""
        arguments: list[tuple[str, str]] = []
        panels: dict[str, list[tuple[str, str]]] = {}
        options = [p for p in self.get_params(ctx) if p.param_type_name == "option"]
        grouped = len(options) > FEWEST
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            else:
                panel = _PANEL_OF.get(parameter.opts[-1], "Options") if grouped else "Options"
                panels.setdefault(panel, []).append(record)
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        for panel in (*PANELS, "Options"):
            if panel in panels:
                with formatter.section(panel):
                    formatter.write_dl(panels[panel])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes the examples as they are; a wrapped command could not be copied."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(f"{self.epilog}\n")
