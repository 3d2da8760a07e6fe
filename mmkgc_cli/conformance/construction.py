"""Properties of a scorer's making: constructor, configuration, initial values, state, hooks."""

from __future__ import annotations

import math

import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from mmkgc_cli.conformance.findings import Failed, Skipped
from mmkgc_cli.conformance.subject import ENTITIES, RELATIONS, Subject, scores_of_triples
from mmkgc_cli.ops import Metric
from mmkgc_cli.scoring.contract import Batch, Candidates, Reciprocal, Scorer, ScorerConfig, Side
from mmkgc_cli.scoring.faults import shape, where
from mmkgc_cli.scoring.scores import (
    candidate_rows,
    device_of,
    extra_losses,
    join,
    metrics,
    query_rows,
    scale_rows,
    terms,
    triple_scores,
)
from mmkgc_cli.state.tensors import kept_tensors, load_tensors

SHORTEST_CITATION = 20


def constructor(s: Subject) -> None:
    """The class says what it is, and can be made from the four arguments (five with features)."""
    of = s.scorer_class
    if not getattr(of, "citation", "") or len(of.citation) < SHORTEST_CITATION:
        raise Failed(f"{where(of, 'citation')}: expected where the score was published")
    if of.scores_triples_only():
        if of.score is Scorer.score:
            raise Failed(f"{where(of, 'query')}: expected query and candidates, or score; got none")
    else:
        if of.candidates is Scorer.candidates:
            raise Failed(f"{where(of, 'candidates')}: expected to be defined, as query is")
        if issubclass(of, Reciprocal) and "tail_query" not in _defined(of):
            raise Failed(f"{where(of, 'tail_query')}: expected to be defined")
        metric = getattr(of, "metric", None)
        several = (
            isinstance(metric, tuple) and metric and all(isinstance(m, Metric) for m in metric)
        )
        if not (isinstance(metric, Metric) or several):
            raise Failed(
                f"{where(of, 'metric')}: expected a Metric or a tuple of them, got {metric!r}"
            )
    try:
        made = s.construct()
    except ValidationError:
        raise Skipped("not checked, since 'configuration' does not hold") from None
    found = getattr(made, "n_entities", None), getattr(made, "n_relations", None)
    if found != (ENTITIES, RELATIONS):
        raise Failed(
            f"{where(of, '__init__')}: expected n_entities and n_relations {ENTITIES} and "
            f"{RELATIONS}, got {found[0]} and {found[1]} (is super().__init__ called with them?)"
        )


def _defined(of: type[Scorer]) -> set[str]:
    bases = of.__mro__[: of.__mro__.index(Reciprocal)]
    return {name for base in bases for name in vars(base)}


def configuration(s: Subject) -> None:
    """Unknown keys, wrong types, NaN and later changes are refused."""
    of = s.scorer_class.Config
    place = f"{where(s.scorer_class, 'Config')} ({of.__name__})"
    if not issubclass(of, ScorerConfig):
        raise Failed(
            f"{place}: expected a subclass of ScorerConfig, got {of.__bases__[0].__name__}"
        )
    wanted = ScorerConfig.model_config
    for key, value in wanted.items():
        if of.model_config.get(key) != value:
            raise Failed(
                f"{place}: expected model_config {key}={value!r} as in ScorerConfig, got "
                f"{of.model_config.get(key)!r}"
            )
    try:
        of()
    except ValidationError as error:
        names = ", ".join(str(e["loc"][0]) for e in error.errors())
        raise Failed(
            f"{place}: expected a valid default for each field, got none for {names}"
        ) from None
    for name, field in of.model_fields.items():
        if not field.description:
            raise Failed(f"{place}: expected help for {name!r}: Field(…, description=…), got none")


def shapes(s: Subject) -> None:
    """Rows, scales, pairs and scores have the shapes and the type that the core builds on."""
    scorer = s.make(torch.float32)
    device = device_of(scorer)
    if scorer.scores_triples_only():
        triple_scores(scorer, s.triples.to(device))
        return
    for side in Side:
        known, relations, answers = s.queries(side)
        queries = query_rows(scorer, known, relations, side)
        scales = scale_rows(scorer, known, relations, side)
        tables = candidate_rows(scorer, None, 0, side)
        rows = candidate_rows(scorer, answers, relations, side)
        for i in range(len(metrics(scorer))):
            widths = {"of all": tables[i].shape[1], "of some": rows[i].shape[1]}
            if len(set(widths.values())) > 1:
                raise Failed(
                    f"{where(scorer, 'candidates')}: expected rows of one width, got "
                    f"{widths['of all']} for all entities and {widths['of some']} for some"
                )
            terms(scorer, i, queries[i].shape[1], tables[i].shape[1])
            scale = scales[i]
            if scale is not None and scale.shape[1] != tables[i].shape[1]:
                raise Failed(
                    f"{where(scorer, 'scale')}: expected rows as wide as candidates, "
                    f"{tables[i].shape[1]}, got {scale.shape[1]}"
                )
            typed = {"query": queries[i], "candidates": tables[i], "scale": scale}
            for method, tensor in typed.items():
                if tensor is not None and tensor.dtype != torch.float32:
                    raise Failed(
                        f"{where(scorer, method)}: expected float32 as the weights are, got "
                        f"{tensor.dtype}"
                    )
        join(scorer, [torch.zeros(2, 5) for _ in metrics(scorer)])


def initial_values(s: Subject) -> None:
    """The same generator gives the same scorer, whatever the global random state is."""
    kept = torch.get_rng_state()
    try:
        made = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            made.append(s.construct(3))
    finally:
        torch.set_rng_state(kept)
    a, b = (scorer.state_dict() for scorer in made)
    for name in a:
        if not torch.equal(a[name], b[name]):
            raise Failed(
                f"{where(s.scorer_class, '__init__')}: expected {name!r} from the generator alone, "
                "got other values under another global seed"
            )


def state(s: Subject) -> None:
    """What is saved and loaded into a scorer that was not fitted scores as before."""
    saved = s.make()
    try:
        data = safetensors.torch.save({k: v.contiguous() for k, v in kept_tensors(saved).items()})
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise Failed(
            f"{where(s.scorer_class, '__init__')}: state_dict cannot be saved: {first}"
        ) from None
    # Other features too: whoever evaluates a run need not have them.
    loaded = s.construct(99, s.features(99)).double()
    load_tensors(loaded, safetensors.torch.load(data))
    loaded.eval()
    before, after = scores_of_triples(s, saved), scores_of_triples(s, loaded)
    if not torch.equal(before, after):
        worst = float((before - after).abs().max())
        raise Failed(
            f"{where(s.scorer_class, '__init__')}: expected the scores of the saved scorer, got "
            f"others after loading (by {worst:.3g})"
        )


def hooks(s: Subject) -> None:
    """Extra losses and auxiliaries' are finite scalars; other hooks can be called."""
    scorer = s.make(torch.float32).train()
    scorer.start_epoch(2)
    triples = s.triples
    ids = torch.stack([triples[:, 2], triples[:, 0]], 1)
    side = torch.zeros_like(ids, dtype=torch.int8)
    batch = Batch(triples, Candidates(ids, side, torch.ones_like(ids, dtype=torch.bool)))
    for name, term in extra_losses(scorer, lambda: batch).items():
        if not math.isfinite(float(term)):
            raise Failed(
                f"{where(scorer, 'extra_losses')}: expected a finite {name!r}, got {float(term)}"
            )
    for of in scorer.auxiliaries():
        found = of.loss(batch)
        if not isinstance(found, Tensor) or found.dim() or not math.isfinite(float(found)):
            got = shape(found) if not isinstance(found, Tensor) or found.dim() else float(found)
            raise Failed(
                f"{where(scorer, 'auxiliaries')}: expected a finite scalar for {of.name!r}, got "
                f"{got}"
            )
    with torch.no_grad():
        scorer.constrain()
    for name, parameter in scorer.named_parameters():
        if not parameter.isfinite().all():
            raise Failed(f"{where(scorer, 'constrain')}: expected finite weights, {name!r} is not")


def parameter_groups(s: Subject) -> None:
    """Every parameter is in one group or auxiliary, so that it is trained, and once."""
    scorer = s.construct()
    if not list(scorer.parameters()):
        raise Skipped("there is nothing to train")
    seen: dict[int, int] = {}
    for group in scorer.parameter_groups():
        if not group.rate >= 0:
            raise Failed(
                f"{where(scorer, 'parameter_groups')}: expected rates from 0, got {group.rate}"
            )
        for parameter in group.parameters:
            seen[id(parameter)] = seen.get(id(parameter), 0) + 1
    for of in scorer.auxiliaries():
        for parameter in of.parameters:
            seen[id(parameter)] = seen.get(id(parameter), 0) + 1
    for name, parameter in scorer.named_parameters():
        times = seen.pop(id(parameter), 0)
        if times != 1:
            raise Failed(
                f"{where(scorer, 'parameter_groups')}: expected {name!r} in one group, got it in "
                f"{times}"
            )
    if seen:
        raise Failed(
            f"{where(scorer, 'parameter_groups')}: expected parameters of the scorer, got "
            f"{len(seen)} that are not"
        )
