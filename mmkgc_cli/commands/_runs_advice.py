"""Suggests the next commands for a run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmkgc_cli.runs.status import Run


def advice(run: Run) -> list[str]:
    """The commands that make sense now, the most likely first."""
    where = shlex.quote(str(run.path))
    if run.completes is not None and run.state.value != "running":
        return _completion_advice(run, where)
    resume, evaluate = f"mmkgc train --resume {where}", f"mmkgc eval {where}"
    # Weights from before the first validation are not worth evaluating.
    evaluations = [evaluate] if run.valid_mrr is not None and run.test_mrr is None else []
    match run.state.value:
        case "running":
            return [f"tail -f {shlex.quote(str(run.path / 'trace.jsonl'))}"]
        case "finished" if run.test_mrr is None:
            return [evaluate]
        case "finished":
            longer = run.checkpoints and run.epochs
            return [f"{resume} --epochs {2 * run.epochs}"] if longer else []
        case "interrupted" | "failed" if not run.config:  # stopped before it was written
            return [f"mmkgc train SCORER --graph GRAPH --run {where}",
                    f"mmkgc runs clean --failed {where}"]  # fmt: skip
        case "interrupted" | "failed":
            return [resume, *evaluations]
    commands = []
    if run.scorer and run.epochs_asked:  # the settings are readable
        commands += [resume] if any(not c.problem for c in run.checkpoints) else []
        commands += [evaluate] if run.weights_epoch is not None else []
    again = f"mmkgc train {run.scorer or 'SCORER'} --graph GRAPH --run {where} --overwrite"
    return commands or [again]


def _completion_advice(run: Run, where: str) -> list[str]:
    resume = f"mmkgc complete --resume {where}"
    match run.state.value:
        case "finished":
            store = shlex.quote(str(run.config["completion"].get("out")))
            return [f"mmkgc train SCORER --graph GRAPH --features {run.completes}={store}"]
        case "damaged" if all(c.problem for c in run.checkpoints):
            return [f"mmkgc complete {run.completes} --graph GRAPH --strategy "
                    f"{run.strategy} --run {where} --overwrite"]  # fmt: skip
    return [resume]
