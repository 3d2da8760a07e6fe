"""What to do next with a run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmkgc_cli.runs.status import Run


def advice(run: Run) -> list[str]:
    """Commands that make sense now, the likeliest first."""
    where = shlex.quote(str(run.path))
    if run.completes is not None and run.state.value != "running":
        return _of_completion(run, where)
    resume, evaluate = f"mmkgc train --resume {where}", f"mmkgc eval {where}"
    # What came before the first validation is hardly worth to be evaluated.
    evaluations = [evaluate] if run.valid_mrr is not None and run.test_mrr is None else []
    match run.state.value:
        case "running":
            return [f"tail -f {shlex.quote(str(run.path / 'trace.jsonl'))}"]
        case "finished" if run.test_mrr is None:
            return [evaluate]
        case "finished":
            longer = run.checkpoints and run.epochs
            return [f"{resume} --epochs {2 * run.epochs}"] if longer else []
        case "interrupted" | "failed":
            return [resume, *evaluations]
    usable = []
    if run.scorer and run.epochs_asked:  # its settings can be read
        usable += [resume] if any(not c.problem for c in run.checkpoints) else []
        usable += [evaluate] if run.weights_epoch is not None else []
    again = f"mmkgc train {run.scorer or 'SCORER'} --graph GRAPH --run {where} --overwrite"
    return usable or [again]


def _of_completion(run: Run, where: str) -> list[str]:
    resume = f"mmkgc complete --resume {where}"
    match run.state.value:
        case "finished":
            store = shlex.quote(str(run.config["completion"].get("out")))
            return [f"mmkgc train SCORER --graph GRAPH --features {run.completes}={store}"]
        case "damaged" if all(c.problem for c in run.checkpoints):
            return [f"mmkgc complete {run.completes} --graph GRAPH --strategy "
                    f"{run.strategy} --run {where} --overwrite"]  # fmt: skip
    return [resume]
