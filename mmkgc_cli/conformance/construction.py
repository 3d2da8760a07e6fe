"""Properties of construction: constructor, configuration, initial values, state, hooks."""

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

MIN_CITATION_LENGTH = 20


def constructor(s: Subject) -> None:
    """The class is complete, and its constructor takes four arguments (five with features)."""
    cls = s.scorer_class
    if not getattr(cls, "citation", "") or len(cls.citation) < MIN_CITATION_LENGTH:
        raise Failed(f"{where(cls, 'citation')}: expected the publication of the score")
    if cls.scores_triples_only():
        if cls.score is Scorer.score:
            raise Failed(
                f"{where(cls, 'query')}: expected query and candidates, or score; got none"
            )
    else:
        if cls.candidates is Scorer.candidates:
            raise Failed(
                f"{where(cls, 'candidates')}: expected a definition, because query is defined"
            )
        if issubclass(cls, Reciprocal) and "tail_query" not in _defined_names(cls):
            raise Failed(f"{where(cls, 'tail_query')}: expected a definition")
        metric = getattr(cls, "metric", None)
        several = (
            isinstance(metric, tuple) and metric and all(isinstance(m, Metric) for m in metric)
        )
        if not (isinstance(metric, Metric) or several):
            raise Failed(
                f"{where(cls, 'metric')}: expected a Metric or a tuple of Metrics, got {metric!r}"
            )
    try:
        scorer = s.construct()
    except ValidationError:
        raise Skipped("not checked, because 'configuration' fails") from None
    sizes = getattr(scorer, "n_entities", None), getattr(scorer, "n_relations", None)
    if sizes != (ENTITIES, RELATIONS):
        raise Failed(
            f"{where(cls, '__init__')}: expected n_entities and n_relations {ENTITIES} and "
            f"{RELATIONS}, got {sizes[0]} and {sizes[1]} (does __init__ pass them to "
            "super().__init__?)"
        )


def _defined_names(cls: type[Scorer]) -> set[str]:
    bases = cls.__mro__[: cls.__mro__.index(Reciprocal)]
    return {name for base in bases for name in vars(base)}


def configuration(s: Subject) -> None:
    """The configuration refuses unknown keys, wrong types, NaN and later changes."""
    config_class = s.scorer_class.Config
    place = f"{where(s.scorer_class, 'Config')} ({config_class.__name__})"
    if not issubclass(config_class, ScorerConfig):
        raise Failed(
            f"{place}: expected a subclass of ScorerConfig, got "
            f"{config_class.__bases__[0].__name__}"
        )
    for key, value in ScorerConfig.model_config.items():
        if config_class.model_config.get(key) != value:
            raise Failed(
                f"{place}: expected model_config {key}={value!r} as in ScorerConfig, got "
                f"{config_class.model_config.get(key)!r}"
            )
    try:
        config_class()
    except ValidationError as error:
        names = ", ".join(str(e["loc"][0]) for e in error.errors())
        raise Failed(
            f"{place}: expected a valid default for each field, got none for {names}"
        ) from None
    for name, field in config_class.model_fields.items():
        if not field.description:
            raise Failed(
                f"{place}: expected a description of {name!r}, as in Field(…, description=…), got "
                "none"
            )


def shapes(s: Subject) -> None:
    """Rows, scales, pairs and scores have the expected shapes and dtype."""
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
            width, width_of_some = tables[i].shape[1], rows[i].shape[1]
            if width != width_of_some:
                raise Failed(
                    f"{where(scorer, 'candidates')}: expected rows of one width, got "
                    f"{width} for all entities and {width_of_some} for some"
                )
            terms(scorer, i, queries[i].shape[1], tables[i].shape[1])
            scale = scales[i]
            if scale is not None and scale.shape[1] != tables[i].shape[1]:
                raise Failed(
                    f"{where(scorer, 'scale')}: expected rows as wide as candidates, "
                    f"{tables[i].shape[1]}, got {scale.shape[1]}"
                )
            tensors = {"query": queries[i], "candidates": tables[i], "scale": scale}
            for method, tensor in tensors.items():
                if tensor is not None and tensor.dtype != torch.float32:
                    raise Failed(
                        f"{where(scorer, method)}: expected float32 like the weights, got "
                        f"{tensor.dtype}"
                    )
        join(scorer, [torch.zeros(2, 5) for _ in metrics(scorer)])


def initial_values(s: Subject) -> None:
    """The same generator gives the same scorer for any global random state."""
    global_state = torch.get_rng_state()
    try:
        scorers = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            scorers.append(s.construct(3))
    finally:
        torch.set_rng_state(global_state)
    a, b = (scorer.state_dict() for scorer in scorers)
    for name in a:
        if not torch.equal(a[name], b[name]):
            raise Failed(
                f"{where(s.scorer_class, '__init__')}: expected {name!r} to depend on generator "
                "only, got other values with another global seed"
            )


def state(s: Subject) -> None:
    """Saved weights give the same scores after loading into a scorer that was not fitted."""
    saved = s.make()
    try:
        data = safetensors.torch.save({k: v.contiguous() for k, v in kept_tensors(saved).items()})
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise Failed(
            f"{where(s.scorer_class, '__init__')}: state_dict cannot be saved: {first}"
        ) from None
    # Other features as well, because evaluation does not need the feature stores.
    loaded = s.construct(99, s.features(99)).double()
    load_tensors(loaded, safetensors.torch.load(data))
    loaded.eval()
    before, after = scores_of_triples(s, saved), scores_of_triples(s, loaded)
    if not torch.equal(before, after):
        worst = float((before - after).abs().max())
        raise Failed(
            f"{where(s.scorer_class, '__init__')}: expected the scores of the saved scorer after "
            f"loading, got a difference of {worst:.3g}"
        )


def hooks(s: Subject) -> None:
    """Extra losses and auxiliary losses are finite scalars; other hooks can be called."""
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
    for auxiliary in scorer.auxiliaries():
        loss = auxiliary.loss(batch)
        if not isinstance(loss, Tensor) or loss.dim() or not math.isfinite(float(loss)):
            got = shape(loss) if not isinstance(loss, Tensor) or loss.dim() else float(loss)
            raise Failed(
                f"{where(scorer, 'auxiliaries')}: expected a finite scalar for "
                f"{auxiliary.name!r}, got {got}"
            )
    with torch.no_grad():
        scorer.constrain()
    for name, parameter in scorer.named_parameters():
        if not parameter.isfinite().all():
            raise Failed(
                f"{where(scorer, 'constrain')}: expected finite weights, got non-finite {name!r}"
            )


def parameter_groups(s: Subject) -> None:
    """Every parameter is in exactly one group or auxiliary, so that it is trained once."""
    scorer = s.construct()
    if not list(scorer.parameters()):
        raise Skipped("the scorer has no parameters")
    counts: dict[int, int] = {}
    for group in scorer.parameter_groups():
        if not group.rate >= 0:
            raise Failed(
                f"{where(scorer, 'parameter_groups')}: expected rates of at least 0, got "
                f"{group.rate}"
            )
        for parameter in group.parameters:
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    for auxiliary in scorer.auxiliaries():
        for parameter in auxiliary.parameters:
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    for name, parameter in scorer.named_parameters():
        times = counts.pop(id(parameter), 0)
        if times != 1:
            raise Failed(
                f"{where(scorer, 'parameter_groups')}: expected {name!r} in one group, got "
                f"{times} groups"
            )
    if counts:
        raise Failed(
            f"{where(scorer, 'parameter_groups')}: expected parameters of the scorer, got "
            f"{len(counts)} others"
        )
