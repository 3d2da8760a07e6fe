"""All properties, in the order in which they are checked, and the check itself."""

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

MADE = ("constructor",)
SHAPED = (*MADE, "shapes")
SOUND = (*SHAPED, "finite values")
ROWS = (*SOUND, "rows", "relation tables")

PROPERTIES = (
    Property(
        "constructor",
        construction.constructor,
        "the core cannot make this scorer, or does not know what it is",
        "take (config, n_entities, n_relations, generator), and features where modalities are "
        "declared, hand them to super().__init__, and set metric and citation",
    ),
    Property(
        "configuration",
        construction.configuration,
        "a misspelt or badly typed setting would be taken without a word",
        "derive Config from ScorerConfig, leave model_config alone, and give each field a default "
        "and a description",
    ),
    Property(
        "shapes",
        construction.shapes,
        "training and ranking would fail, or mix up rows",
        "give a row for each entity or query asked for, on the type of the weights",
        MADE,
    ),
    Property(
        "finite values",
        values.finite,
        "training would end at its first step",
        "look for a division by a norm, a logarithm or a root that meets 0 (missing features are "
        "rows of zeros)",
        SHAPED,
    ),
    Property(
        "initial values",
        construction.initial_values,
        "two runs with one seed would differ",
        "draw every initial value with generator=generator",
        MADE,
    ),
    Property(
        "repeats",
        values.repeats,
        "ranks would change from one evaluation to the next",
        "draw nothing in eval mode: look at self.training, or use modules such as nn.Dropout",
        SOUND,
    ),
    Property(
        "rows",
        agreement.rows,
        "an entity would score differently in training, which asks for some rows, and in ranking, "
        "which asks for all",
        "make each row from its own entity and relation; in eval mode no statistics of a batch",
        SOUND,
    ),
    Property(
        "relation tables",
        agreement.relation_tables,
        "training, which asks for many relations at once, and ranking would see different rows",
        "take relation as one number and as [n], one a row",
        SOUND,
    ),
    Property(
        "sides",
        agreement.sides,
        "what is learnt for tails does not hold for heads",
        "solve the tail query's equation for the head (signs, conjugates), or declare "
        "two_way = False if the two are meant to differ",
        ROWS,
    ),
    Property(
        "triples",
        agreement.triples,
        "the score of a triple is not what it is ranked by",
        "leave score alone, or make it what query, candidates, metric and margin give",
        ROWS,
    ),
    Property(
        "one against all",
        agreement.one_against_all,
        "1-vs-all training would learn another function than is ranked",
        "leave score_all alone, or make it what a loop over entities gives",
        ROWS,
    ),
    Property(
        "sampled scores",
        agreement.sampled,
        "training would learn another function than is ranked",
        "leave score_sampled alone, or make it what a loop over candidates gives, margin included",
        ROWS,
    ),
    Property(
        "sampled gradients",
        agreement.sampled_gradients,
        "training would follow another slope than that of the scores",
        "leave score_sampled alone, or look for a detach or a wrong backward in it",
        (*ROWS, "sampled scores"),
    ),
    Property(
        "sampled losses",
        losses.sampled_losses,
        "training would go down another loss than that of the scores",
        "leave loss_sampled alone, or make it what the loss gives for score_sampled, unusable "
        "candidates left out; while an optimizer defers gradients, its op must leave them all",
        (*ROWS, "sampled scores", "sampled gradients"),
    ),
    Property(
        "ranks",
        agreement.ranks,
        "results would not be those of the scores",
        "put all of the score into query, candidates, scale, pairs and combine, which ranking is "
        "made of, and nothing into score_vectors",
        ROWS,
    ),
    Property(
        "ties",
        values.ties,
        "a model that knows nothing would rank well, or badly, by the order of the ids",
        "let combine make each element from that element of the scores alone",
        ROWS,
    ),
    Property(
        "non-finite scores",
        values.non_finite,
        "a model that has diverged would be ranked as if it had not",
        "do not hide NaN (nan_to_num, clamps, comparisons): the ranker stops at it",
        SHAPED,
    ),
    Property(
        "blocks",
        agreement.blocks,
        "a part of the rows has no say, or meets the wrong part",
        "give pairs that cover all columns; a complex block is [re | im] by itself",
        SOUND,
    ),
    Property(
        "native ops",
        agreement.native,
        "results would depend on whether the native library is there",
        "keep coordinates of rows within 1e-18 and 1e18 in float32",
        ROWS,
    ),
    Property(
        "gradients",
        values.gradients,
        "training would not go down the loss",
        "look for a detach, .data, or a custom backward that is not the derivative",
        ROWS,
    ),
    Property(
        "hooks",
        construction.hooks,
        "the first training step or epoch would fail",
        "return finite scalars by names other than loss and gradient_norm",
        SHAPED,
    ),
    Property(
        "parameter groups",
        construction.parameter_groups,
        "a parameter would not be trained, or be stepped twice",
        "put each parameter into exactly one group",
        MADE,
    ),
    Property(
        "state",
        construction.state,
        "a finished run would be evaluated with other numbers than it was trained to",
        "register every tensor that scores depend on as a parameter or a buffer",
        (*SOUND, "repeats"),
    ),
    Property(
        "permutation",
        values.permutation,
        "results would depend on how the graph numbers its entities",
        "use ids to look rows up, and for nothing else",
        ROWS,
    ),
    Property(
        "devices",
        values.devices,
        "a run on a GPU would give other results, or none",
        "make new tensors on the device of the weights; register the others",
        SOUND,
    ),
)


def check_scorer(scorer_class: type[Scorer], config: ScorerConfig | None = None) -> list[Finding]:
    """Checks every property on a small made-up graph.

    Args:
        scorer_class: of the plugin.
        config: hyper-parameters; by default those of the class, with sizes made small.

    Returns:
        A finding a property, in the order of `PROPERTIES`. Errors of the plugin are findings too,
        naming file, line and method.
    """
    findings: dict[str, Finding] = {}
    subject = Subject(scorer_class, config)
    for of in PROPERTIES:
        unmet = [name for name in of.needs if findings[name].outcome == "failed"]
        unmet += [name for name in of.needs if findings[name].detail.startswith("not checked")]
        if unmet:
            detail = f"not checked, since {unmet[0]!r} does not hold"
            findings[of.name] = Finding(of.name, "skipped", detail)
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                of.check(subject)
            findings[of.name] = Finding(of.name, "passed")
        except Skipped as reason:
            findings[of.name] = Finding(of.name, "skipped", str(reason))
        except (Failed, MmkgcError) as error:
            findings[of.name] = Finding(of.name, "failed", str(error), of.meaning, of.mend)
        except Exception as error:
            detail = _described(scorer_class, error)
            findings[of.name] = Finding(of.name, "failed", detail, of.meaning, of.mend)
    return list(findings.values())


def _described(scorer_class: type[Scorer], error: Exception) -> str:
    """One line for an exception: where in the plugin it came from, if it did."""
    try:
        file = inspect.getsourcefile(scorer_class)
    except TypeError:
        file = None
    place = locate(error, file) if file else None
    if file is None or place is None:
        return f"{scorer_class.__name__}: {describe(error)}"
    shown = os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file
    return f"{shown}:{place[0]}: {place[1]}: {describe(error)}"
