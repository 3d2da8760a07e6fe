"""Hooks of a scorer in training: loss terms, auxiliaries, epochs, constraints."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.ops import Metric
from mmkgc_cli.scoring import Scorer, Side
from mmkgc_cli.scoring.contract import Auxiliary, Batch, ParameterGroup, ScorerFault
from mmkgc_cli.training.link_prediction import LinkPrediction
from tests.scoring.extended import EXTENDED, DistMult, Hooked
from tests.training.test_loop import program_of


def program(scorer_class: type[Scorer], graph: Graph, **config: Any) -> LinkPrediction:
    rng = torch.Generator().manual_seed(0)
    n, r = len(graph.entities), len(graph.relations)
    scorer = scorer_class(scorer_class.Config(**config), n, r, rng)
    return program_of(scorer, torch.from_numpy(graph.train).long())


def test_extra_losses_are_added_and_traced_by_name(graph: Graph) -> None:
    terms: list[dict[str, Tensor]] = []

    class Two(DistMult):
        def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
            assert batch.candidates is not None
            assert batch.candidates.mask is not None
            assert torch.equal(batch.candidates.ids[:, 0], batch.triples[:, 2])
            assert (batch.candidates.corrupted_side[:, 0] == Side.tail).all()
            assert batch.candidates.mask[:, 0].all()
            terms.append({"a": self.entities.square().mean(), "b": self.relations.sum()})
            return terms[-1]

    with_terms, without = program(Two, graph), program(DistMult, graph)
    for each in (with_terms, without):
        each.start_epoch()
    actual, plain = with_terms.step(0), without.step(0)
    (returned,) = terms
    assert list(actual) == ["loss", "a", "b", "gradient_norm"]
    assert not any(value.requires_grad for value in actual.values())
    assert actual["a"] == returned["a"]
    total = plain["loss"] + returned["a"] + returned["b"]
    torch.testing.assert_close(actual["loss"], total.detach())


def test_extra_losses_update_tables_with_deferred_gradients(graph: Graph) -> None:
    class Pulled(DistMult):
        def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
            return {"pull": 1e6 * self.entities.square().sum()}

    each = program(Pulled, graph)
    before = each.scorer.get_parameter("entities").detach().clone()
    each.start_epoch()
    each.step(0)
    # One step of Adam goes by the rate against the sign of the gradient, which the term decides.
    moved = each.scorer.get_parameter("entities") - before
    torch.testing.assert_close(moved, -0.05 * before.sign(), atol=1e-4, rtol=0)


def test_a_loss_term_that_is_no_scalar_is_refused(graph: Graph) -> None:
    class Vector(DistMult):
        def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
            return {"n3": self.entities}

    each = program(Vector, graph)
    each.start_epoch()
    with pytest.raises(ScorerFault, match=r"Vector.extra_losses: expected a scalar for 'n3'"):
        each.step(0)


class Estimating(DistMult):
    """Has a parameter that its own Adam moves to the mean of the entities, and counts steps."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.mean = torch.nn.Parameter(torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))
        self.steps: Tensor

    def auxiliaries(self) -> list[Auxiliary]:
        return [Auxiliary("distance", [self.mean], 0.5, self.distance)]

    def distance(self, batch: Batch) -> Tensor:
        assert batch.triples.shape[1] == 3
        self.steps += 1
        # Not detached: the entities must not change nevertheless.
        return (self.mean - self.entities.mean()).square()


def test_an_auxiliary_updates_only_its_parameters_at_its_rate(graph: Graph) -> None:
    each, plain = program(Estimating, graph), program(DistMult, graph)
    for trained in (each, plain):
        trained.start_epoch()
    actual, expected = each.step(0), plain.step(0)
    assert list(actual) == ["loss", "distance", "gradient_norm"]
    torch.testing.assert_close(actual["gradient_norm"], expected["gradient_norm"])
    assert torch.equal(
        each.scorer.get_parameter("entities"), plain.scorer.get_parameter("entities")
    )
    torch.testing.assert_close(
        actual["distance"], each.scorer.get_parameter("entities").mean().square().detach()
    )
    # A first step of Adam goes by the rate.
    wanted = 0.5 * each.scorer.get_parameter("entities").mean().sign().detach()
    torch.testing.assert_close(
        each.scorer.get_parameter("mean").detach(), wanted, atol=1e-4, rtol=0
    )


def test_auxiliaries_resume_bit_by_bit(graph: Graph) -> None:
    first = program(Estimating, graph)
    first.start_epoch()
    first.step(0)
    again = program(Estimating, graph)
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    for trained in (first, again):
        trained.step(1)
    state = first.scorer.state_dict()
    assert state["steps"] == 2
    assert all(torch.equal(state[name], value) for name, value in again.scorer.state_dict().items())


def test_an_auxiliary_is_stepped_in_the_first_of_every_n_steps(graph: Graph) -> None:
    class Seldom(Estimating):
        def auxiliaries(self) -> list[Auxiliary]:
            return [Auxiliary("distance", [self.mean], 0.5, self.distance, every=3)]

    def take(trained: LinkPrediction, steps: int) -> list[bool]:
        trained.start_epoch()
        return ["distance" in trained.step(i % trained.steps_per_epoch) for i in range(steps)]

    each = program(Seldom, graph)
    assert take(each, 5) == [True, False, False, True, False]
    assert each.scorer.steps == 2
    again = program(Seldom, graph)
    again.load_state_dict(copy.deepcopy(each.state_dict()))
    assert take(again, 3) == [False, True, False]
    assert "not updated in every step" in (each.why_not_captured() or "")
    assert "not updated in every step" not in (program(Estimating, graph).why_not_captured() or "")


def test_an_auxiliary_that_shares_parameters_is_refused(graph: Graph) -> None:
    class Shared(Estimating):
        def parameter_groups(self) -> list[ParameterGroup]:
            return [ParameterGroup(list(self.parameters()))]

    with pytest.raises(ScorerFault, match="parameters of 'distance' that nothing else steps"):
        program(Shared, graph)


def test_an_auxiliary_must_have_a_unique_name(graph: Graph) -> None:
    class Named(Estimating):
        def auxiliaries(self) -> list[Auxiliary]:
            return [Auxiliary("loss", [self.mean], 0.5, self.distance)]

    with pytest.raises(ScorerFault, match="expected unique names, got loss"):
        program(Named, graph)


def test_an_auxiliary_loss_that_is_no_scalar_is_refused(graph: Graph) -> None:
    class Vector(Estimating):
        def distance(self, batch: Batch) -> Tensor:
            return self.mean.expand(2)

    each = program(Vector, graph)
    each.start_epoch()
    with pytest.raises(ScorerFault, match=r"expected a scalar for 'distance', got \[2\] float32"):
        each.step(0)


def test_weights_are_constrained_after_each_step_and_epochs_counted_from_one(graph: Graph) -> None:
    each = program(Hooked, graph)
    for epoch in (1, 2):
        each.start_epoch()
        assert float(each.scorer.get_buffer("epochs")) == epoch
        for index in range(each.steps_per_epoch):
            each.step(index)
            norms = each.scorer.get_parameter("entities").norm(dim=1)
            torch.testing.assert_close(norms, torch.ones_like(norms))


def test_a_resume_within_an_epoch_restores_its_number_and_buffers(
    graph: Graph,
) -> None:
    class Annealed(DistMult):
        """Keeps the epoch in an attribute, and a value computed from weights in a buffer."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.epoch = 0
            self.register_buffer("made", torch.zeros(()))

        def start_epoch(self, epoch: int) -> None:
            self.epoch = epoch
            self.made = self.entities.detach().sum()

    first = program(Annealed, graph)
    first.start_epoch()
    for index in range(first.steps_per_epoch):
        first.step(index)
    first.start_epoch()
    first.step(0)
    again = program(Annealed, graph)
    again.load_state_dict(first.state_dict())
    assert again.scorer.epoch == first.scorer.epoch == 2
    assert torch.equal(again.scorer.get_buffer("made"), first.scorer.get_buffer("made"))
    assert torch.equal(again._order, first._order)


@pytest.mark.parametrize(
    "scorer_class", [c for c in EXTENDED if not c.modalities], ids=lambda c: c.__name__
)
def test_scorers_with_extensions_learn(graph: Graph, scorer_class: type[Scorer]) -> None:
    each = program(scorer_class, graph, dim=8)
    losses = []
    for _ in range(20):
        each.start_epoch()
        steps = [each.step(i)["loss"].item() for i in range(each.steps_per_epoch)]
        losses.append(sum(steps) / len(steps))
    assert losses[-1] < 0.96 * losses[0]  # scores between 0 and 1 have little room


def test_training_is_the_same_whether_gradients_of_tables_are_deferred_or_not(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer_class = type("L1", (DistMult,), {"metric": Metric.l1})
    weights = []
    for clip in (0.0, 1e9):
        each = program(scorer_class, graph)
        section: Any = type(each.optimization.settings)
        monkeypatch.setattr(each.optimization, "settings", section(lr=0.05, clip_norm=clip))
        each.start_epoch()
        for index in range(each.steps_per_epoch):
            each.step(index)
        weights.append(each.scorer.get_parameter("entities").detach())
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=0)
