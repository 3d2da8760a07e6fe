"""All conformance properties in the order of their checks, and the function that runs them."""

from __future__ import annotations

import inspect
import os
import warnings
from pathlib import Path

from mmkgc_cli.conformance import agreement, construction, losses, values
from mmkgc_cli.conformance.findings import Failed, Finding, Property, Skipped
from mmkgc_cli.conformance.subject import Subject
from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.plugins.tracebacks import describe, locate
from mmkgc_cli.scoring import Scorer, ScorerConfig

CONSTRUCTED = ("constructor",)
SHAPED = (*CONSTRUCTED, "shapes")
FINITE = (*SHAPED, "finite values")
ROWS = (*FINITE, "rows", "relation tables")

PROPERTIES = (
    Property(
        "constructor",
        construction.constructor,
        "the scorer cannot be constructed, or does not declare its metric and citation",
        "accept (config, n_entities, n_relations, generator), and features if modalities are "
        "declared; pass them to super().__init__; set metric and citation",
    ),
    Property(
        "configuration",
        construction.configuration,
        "a misspelt setting or one of the wrong type would be accepted silently",
        "derive Config from ScorerConfig, keep its model_config, and give each field a default and "
        "a description",
    ),
    Property(
        "shapes",
        construction.shapes,
        "training and ranking would fail or use the wrong rows",
        "return one row for each requested entity or query, with the dtype of the weights",
        CONSTRUCTED,
    ),
    Property(
        "finite values",
        values.finite,
        "training would stop at its first step",
        "look for a division by a norm, a logarithm or a root of 0 (missing features are rows of "
        "zeros)",
        SHAPED,
    ),
    Property(
        "initial values",
        construction.initial_values,
        "two runs with the same seed would differ",
        "sample every initial value with generator=generator",
        CONSTRUCTED,
    ),
    Property(
        "repeats",
        values.repeats,
        "ranks would change between evaluations",
        "use no random numbers in eval mode: test self.training, or use modules such as nn.Dropout",
        FINITE,
    ),
    Property(
        "rows",
        agreement.rows,
        "an entity would have different scores in training, which requests some rows, and in "
        "ranking, which requests all",
        "compute each row from its own entity and relation, without batch statistics in eval mode",
        FINITE,
    ),
    Property(
        "relation tables",
        agreement.relation_tables,
        "training, which requests many relations at once, and ranking would use different rows",
        "accept relation as one number and as [n], one per row",
        FINITE,
    ),
    Property(
        "sides",
        agreement.sides,
        "a model trained on tail queries would answer head queries with other scores",
        "solve the equation of the tail query for the head (signs, conjugates), or declare "
        "two_way = False if the two differ by design",
        ROWS,
    ),
    Property(
        "triples",
        agreement.triples,
        "the score of a triple would differ from the score that it is ranked by",
        "remove score, or make it equal to the result of query, candidates, metric and margin",
        ROWS,
    ),
    Property(
        "one against all",
        agreement.one_against_all,
        "1-vs-all training would optimize other scores than those that are ranked",
        "remove score_all, or make it equal to a loop over all entities",
        ROWS,
    ),
    Property(
        "sampled scores",
        agreement.sampled,
        "training would optimize other scores than those that are ranked",
        "remove score_sampled, or make it equal to a loop over candidates, with the margin",
        ROWS,
    ),
    Property(
        "sampled gradients",
        agreement.sampled_gradients,
        "training would use other gradients than those of the scores",
        "remove score_sampled, or look for a detach or a wrong backward in it",
        (*ROWS, "sampled scores"),
    ),
    Property(
        "sampled losses",
        losses.sampled_losses,
        "training would minimize another loss than that of the scores",
        "remove loss_sampled, or make it equal to the loss of score_sampled without masked "
        "candidates; while an optimizer defers gradients, its op must defer all of them",
        (*ROWS, "sampled scores", "sampled gradients"),
    ),
    Property(
        "ranks",
        agreement.ranks,
        "ranks would not match the scores",
        "compute the whole score in query, candidates, scale, pairs and combine, which ranking "
        "uses, and nothing in score_vectors",
        ROWS,
    ),
    Property(
        "ties",
        values.ties,
        "a constant model would rank well or badly depending on the order of ids",
        "let combine compute each element from the same element of the scores only",
        ROWS,
    ),
    Property(
        "non-finite scores",
        values.non_finite,
        "a diverged model would get ranks instead of an error",
        "do not hide NaN (nan_to_num, clamps, comparisons), because the ranker stops at it",
        SHAPED,
    ),
    Property(
        "blocks",
        agreement.blocks,
        "some columns of the rows would be ignored or combined with the wrong columns",
        "return pairs that cover all columns; each complex block is [re | im]",
        FINITE,
    ),
    Property(
        "native ops",
        agreement.native,
        "results would depend on whether the native library is installed",
        "keep absolute values of rows between 1e-18 and 1e18 in float32",
        ROWS,
    ),
    Property(
        "gradients",
        values.gradients,
        "training would not minimize the loss",
        "look for a detach, .data, or a custom backward that differs from the derivative",
        ROWS,
    ),
    Property(
        "hooks",
        construction.hooks,
        "the first training step or epoch would fail",
        "return finite scalars under names other than loss and gradient_norm",
        SHAPED,
    ),
    Property(
        "parameter groups",
        construction.parameter_groups,
        "a parameter would not be trained, or would be updated twice per step",
        "put each parameter into exactly one group",
        CONSTRUCTED,
    ),
    Property(
        "state",
        construction.state,
        "a finished run would be evaluated with other values than the trained ones",
        "register every tensor that scores depend on as a parameter or a buffer",
        (*FINITE, "repeats"),
    ),
    Property(
        "permutation",
        values.permutation,
        "results would depend on the numbering of entities",
        "use ids to look up rows only",
        ROWS,
    ),
    Property(
        "devices",
        values.devices,
        "a run on a GPU would give other results or fail",
        "create new tensors on the device of the weights, and register all others",
        FINITE,
    ),
)


def check_scorer(scorer_class: type[Scorer], config: ScorerConfig | None = None) -> list[Finding]:
    """Checks every property on a small synthetic graph.

    Args:
        scorer_class: the scorer class of a plugin.
        config: hyper-parameters; None takes the defaults of the class with small sizes.

    Returns:
        One finding per property, in the order of `PROPERTIES`. An exception in the plugin is a
        finding too, which names file, line and method.
    """
    findings: dict[str, Finding] = {}
    subject = Subject(scorer_class, config)
    for tested in PROPERTIES:
        name, advice = tested.name, (tested.meaning, tested.mend)
        unmet = [need for need in tested.needs if findings[need].outcome == "failed"]
        unmet += [need for need in tested.needs if findings[need].detail.startswith("not checked")]
        if unmet:
            detail = f"not checked, because {unmet[0]!r} failed"
            findings[name] = Finding(name, "skipped", detail)
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tested.check(subject)
            findings[name] = Finding(name, "passed")
        except Skipped as reason:
            findings[name] = Finding(name, "skipped", str(reason))
        except (Failed, MmkgcError) as error:
            findings[name] = Finding(name, "failed", str(error), *advice)
        except Exception as error:
            findings[name] = Finding(name, "failed", _describe(scorer_class, error), *advice)
    return list(findings.values())


def _describe(scorer_class: type[Scorer], error: Exception) -> str:
    """Describes an exception in one line, with its place in the plugin if it has one."""
    try:
        file = inspect.getsourcefile(scorer_class)
    except TypeError:
        file = None
    place = locate(error, file) if file else None
    if file is None or place is None:
        return f"{scorer_class.__name__}: {describe(error)}"
    shown = os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file
    return f"{shown}:{place[0]}: {place[1]}: {describe(error)}"
