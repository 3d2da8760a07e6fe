"""`self_adversarial_loss` and `entropy_weighted_loss`, native and reference, eager and compiled.

    python -m benchmarks.losses

1,024 positives with 32 and with 128 negatives each, 2 % of them masked, float32, two threads. A
turn computes the loss and its gradients with respect to the scores of positives and negatives. The
native op alternates first with the eager reference, then with the compiled one, and medians are
compared. The three do not alternate together, because compiled code uses a separate OpenMP runtime
with idle threads that spin and would slow the next turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.scoring import compete, copy_bandwidth
from mmkgc_cli.ops import (
    AdversarialForm,
    backend_of,
    entropy_cut,
    entropy_weighted_loss,
    self_adversarial_loss,
)
from mmkgc_cli.ops.entropy_weighted_loss import reference as entropy_reference
from mmkgc_cli.ops.self_adversarial_loss import reference as adversarial_reference

BATCH = 1024
THRESHOLDS, WEIGHTS = (0.2, 0.8), (0.5, 1.5, 1.2)
CUTS = entropy_cut(THRESHOLDS[0]), entropy_cut(THRESHOLDS[1])
INSIDE = AdversarialForm.margin_inside
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

LOSSES: dict[str, tuple[Loss, Loss]] = {
    "self-adversarial, log_sigmoid": (
        lambda p, n, mask: self_adversarial_loss(p, n, mask, 1.0),
        lambda p, n, mask: adversarial_reference(p, n, mask, 1.0),
    ),
    "self-adversarial, margin_inside": (
        lambda p, n, mask: self_adversarial_loss(p, n, mask, 1.0, form=INSIDE, margin=6.0),
        lambda p, n, mask: adversarial_reference(p, n, mask, 1.0, INSIDE, 6.0),
    ),
    "entropy-weighted, mean": (
        lambda p, n, mask: entropy_weighted_loss(p, n, mask, THRESHOLDS, WEIGHTS),
        lambda p, n, mask: entropy_reference(p, n, mask, *CUTS, WEIGHTS),
    ),
}


def turns(loss: Loss, n: int) -> Callable[[], None]:
    rng = torch.Generator().manual_seed(0)
    positive = (2 * torch.randn(BATCH, generator=rng)).requires_grad_()
    negative = (3 * torch.randn(BATCH, n, generator=rng)).requires_grad_()
    mask = torch.rand(BATCH, n, generator=rng) < 0.98

    def turn() -> None:
        torch.autograd.grad(loss(positive, negative, mask), (positive, negative))

    return turn


def against(
    ours: Callable[[], None], rival: Callable[[], None], n: int, rounds: int
) -> dict[str, object]:
    times = compete({"ours": ours, "rival": rival}, rounds)
    median = {who: statistics.median(of) for who, of in times.items()}
    # Forward reads scores and mask and writes gradients; backward reads and writes gradients.
    moved = 4 * 4 * BATCH * (n + 1) + BATCH * n
    return {
        "us": {who: round(1000 * of) for who, of in median.items()},
        "fastest_us": {who: round(1000 * min(of)) for who, of in times.items()},
        "ratio": round(median["rival"] / median["ours"], 1),
        "ours_gb_per_s": round(moved / median["ours"] / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = {}
    for name, (ours, reference) in LOSSES.items():
        for n in (32, 128):
            torch.compiler.reset()
            rivals = {"eager": reference, "compiled": torch.compile(reference, dynamic=False)}
            results[f"{name}, {BATCH} x {n}"] = {
                f"reference, {who}": against(turns(ours, n), turns(rival, n), n, options.rounds)
                for who, rival in rivals.items()
            }
    print(
        json.dumps(
            {
                "backend": backend_of("self_adversarial_loss", "cpu")[0],
                "losses": results,
                "copy_gb_per_s": round(copy_bandwidth(), 1),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
