from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mmkgc_cli.conformance.kit import check_scorer
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.ops import EntropyWeighted, entropy_cut
from mmkgc_cli.scoring import Features, Side, load_scorer
from mmkgc_cli.scoring.contract import Batch, Candidates
from mmkgc_cli.training.link_prediction import LinkPrediction
from tests.training.test_loop import program_of

MoCME: Any = load_scorer("mocme")
E, R = 40, 3
NO_BATCH = Batch(torch.zeros(0, 3, dtype=torch.int64))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(entities: int = E, widths: tuple[int, ...] = (7, 5)) -> dict[str, Features]:
    """Image and text; one third of the entities lacks images, another third texts."""
    actual = {}
    for i, (name, width) in enumerate(zip(("image", "text"), widths, strict=True)):
        observed = torch.arange(entities) % 3 != i
        vectors = torch.randn(entities, width, generator=rng(i)) * observed[:, None]
        actual[name] = Features(vectors, observed)
    return actual


def made(entities: int = E, **config: Any) -> Any:
    mocme = MoCME.Config(**{"dim": 4, "warmup": 0, "estimator_batch": 32, **config})
    inputs = {n: f for n, f in features(entities).items() if n in mocme.use_modalities}
    return MoCME(mocme, entities, R, rng(), features=inputs)


def weighed(steps: int = 3, **config: Any) -> Any:
    """A scorer with weights that an untrained estimator has updated."""
    torch.manual_seed(0)
    mocme = made(**config)
    mocme.start_epoch(2)
    for _ in range(steps):
        for auxiliary in mocme.auxiliaries():
            auxiliary.loss(NO_BATCH)
    return mocme


def restated(mocme: Any, entity: int) -> Tensor:
    """The joint vector of one entity, by the equations."""
    intra, inter = (w[0] for w in mocme.complementarity.current_weights(torch.tensor([entity])))
    if mocme.complementarity.intra.dim() == 2:
        intra = mocme.complementarity.intra
    total = torch.zeros(8)
    for m, experts in enumerate(mocme.experts):
        if m == 0:
            v = mocme.entities[entity]
        else:
            name = ("image", "text")[m - 1]
            p, raw = mocme.projectors[name], mocme.tables[name].vectors[entity]
            v = p.second @ (p.first @ raw + p.first_bias).clamp_min(0) + p.second_bias
        for i in range(len(experts.weight)):
            view = (v - experts.bias[i]) @ experts.weight[i]
            total = total + inter[m] * intra[m, i] * view
    return total


@pytest.mark.parametrize("weights", ["entity", "global"])
def test_score_is_minus_the_distance_of_joint_vectors_after_a_rotation(weights: str) -> None:
    mocme = weighed(weights=weights, margin=3.0)
    with torch.no_grad():
        for experts in mocme.experts:
            experts.bias.normal_(generator=rng(5))
    for h, r, t in ((0, 1, 2), (3, 2, 3), (4, 0, 39)):
        head, tail = (torch.complex(*restated(mocme, e).chunk(2)) for e in (h, t))
        turned = head * torch.polar(torch.ones(4), mocme.phases[r])
        expected = 3.0 - (turned - tail).abs().sum()
        torch.testing.assert_close(mocme.score(torch.tensor([[h, r, t]]))[0], expected)


ABLATIONS: list[dict[str, Any]] = [
    {"use_modalities": []},
    {"use_modalities": ["text"]},
    {"intra": False},
    {"inter": False},
    {"intra": False, "inter": False},
    {"fusion": "concat"},
    {"fusion": "product"},
    {"fusion": "gate"},
    {"backbone": "linear"},
    {"backbone": "mlp"},
    {"expert_form": "mlp"},
    {"experts": 2},
    {"experts": 5, "weights": "global"},
    {"estimator": "softbin"},
    {"estimator": "club"},
    {"weight_slope": True},
    {"information_penalty": 1e-4},
    {"mask": False},
    {"dropout": 0.3, "init": "xavier"},
    {"margin": 0.0, "temperature": 2.0},
]


@pytest.mark.parametrize("changes", ABLATIONS, ids=str)
def test_every_ablation_trains(graph: Graph, changes: dict[str, Any]) -> None:
    n = len(graph.entities)
    config = MoCME.Config(dim=4, warmup=0, estimator_batch=32, **changes)
    inputs = {k: v for k, v in features(n).items() if k in config.use_modalities}
    arguments: dict[str, Any] = {"features": inputs} if inputs else {}
    scorer = MoCME(config, n, len(graph.relations), rng(), **arguments)
    program = program_of(scorer, torch.from_numpy(graph.train).long())
    before = {name: p.detach().clone() for name, p in scorer.named_parameters()}
    for _ in range(2):
        program.start_epoch()
        for index in range(program.steps_per_epoch):
            traced = program.step(index)
            assert all(value.isfinite() for value in traced.values())
    assert ("information" in traced) == ("information_penalty" in changes)
    moved = {name for name, p in scorer.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(before)
    mocme = scorer.complementarity
    torch.testing.assert_close(mocme.intra.sum(-1), torch.ones_like(mocme.intra[..., 0]))
    torch.testing.assert_close(mocme.inter.sum(-1), torch.ones(n))
    # Two views share the same information, so their weights are equal. Global weights are also
    # equal while the estimates of all pairs are 0.
    if mocme.intra.dim() == 3:
        apart, among = mocme.weighs_modalities, mocme.weighs_experts
    else:
        experts_first = (mocme.shared > 0).tensor_split([len(mocme.shared) - 3])
        among, apart = (bool(shared.any()) for shared in experts_first)
    uneven = (mocme.inter.max(1).values - 1 / mocme.available.sum(1)).abs().max() > 1e-4
    assert bool(uneven) == (apart and mocme.available.shape[1] > 2)
    uneven = (mocme.intra - mocme.intra.mean(-1, keepdim=True)).abs().max() > 1e-6
    assert bool(uneven) == (among and mocme.intra.shape[-1] > 2)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, *ABLATIONS], ids=str)
def test_every_ablation_conforms(changes: dict[str, Any]) -> None:
    for finding in check_scorer(MoCME, MoCME.Config(dim=4, **changes)):
        assert finding.outcome != "failed", finding


def test_weights_per_entity_make_experts_more_than_one_affine_map() -> None:
    mocme = weighed()
    complete = mocme.complementarity.available.all(1).nonzero().flatten()
    intra, inter = mocme.complementarity.intra[complete], mocme.complementarity.inter[complete]
    assert not torch.allclose(intra[0], intra[1], atol=1e-4)
    assert not torch.allclose(inter[0], inter[1], atol=1e-4)
    # No affine map of the inputs of the experts of structure fits their outputs.
    rows = torch.cat([mocme.entities, torch.ones(E, 1)], 1).detach()
    with torch.no_grad():
        mocme.experts[0].weight.normal_(generator=rng(4))
        out = mocme.experts[0].mix(mocme.entities, mocme.complementarity.intra[:, 0])
        actual = torch.linalg.lstsq(rows, out).solution
        assert float((rows @ actual - out).norm() / out.norm()) > 1e-3
        shared = mocme.experts[0].mix(mocme.entities, torch.tensor([0.2, 0.3, 0.5]))
        actual = torch.linalg.lstsq(rows, shared).solution
        assert float((rows @ actual - shared).norm() / shared.norm()) < 1e-5


def test_a_missing_modality_has_zero_weight_and_no_gradient() -> None:
    mocme = weighed().train()
    mocme.tables["image"].vectors.requires_grad_()
    mocme.joint(None).square().sum().backward()
    slope = mocme.tables["image"].vectors.grad
    lacks = ~features()["image"].observed
    assert not slope[lacks].any()
    assert (slope[~lacks] != 0).any(1).all()
    assert not mocme.complementarity.inter[lacks, 1].any()
    # The path for a few entities is different code.
    sample = lacks.nonzero().flatten()[:3]
    mocme.zero_grad()
    mocme.joint(sample).square().sum().backward()
    assert not mocme.projectors["image"].first.grad.any()
    assert mocme.projectors["text"].first.grad.any()


def test_entities_initialized_from_structure_keep_relative_distances_and_are_trained() -> None:
    observed = torch.arange(E) % 4 > 0
    vectors = torch.randn(E, 6, generator=rng(1)) * observed[:, None] + 3
    config = MoCME.Config(dim=256, init="structure")
    assert MoCME.modalities_of(config) == ("image", "text", "structure")
    inputs = features() | {"structure": Features(vectors, observed)}
    mocme = MoCME(config, E, R, rng(), features=inputs)
    plain = MoCME(MoCME.Config(dim=256), E, R, rng(), features=features())
    assert torch.equal(mocme.entities[~observed], plain.entities[~observed])
    torch.testing.assert_close(
        mocme.entities[observed].std(), plain.entities.std(), rtol=0.02, atol=0
    )
    far = torch.pdist(vectors[observed])
    ratio = torch.pdist(mocme.entities[observed].detach()) / far
    assert ratio.std() / ratio.mean() < 0.1
    assert [name for name in inputs if mocme.trains_features(name)] == ["structure"]
    assert [weights.name for weights in mocme.mixture_weights()][:2] == [
        "modality",
        "structure: expert",
    ]
    for finding in check_scorer(MoCME, MoCME.Config(dim=4, init="structure")):
        assert finding.outcome != "failed", finding


def test_entities_without_structure_have_the_usual_initial_values() -> None:
    nothing = Features(torch.zeros(E, 6), torch.zeros(E, dtype=torch.bool))
    config = MoCME.Config(dim=4, init="structure", use_modalities=[])
    mocme = MoCME(config, E, R, rng(), features={"structure": nothing})
    assert torch.equal(mocme.entities, made(use_modalities=[]).entities)


@pytest.mark.parametrize("weights", ["entity", "global"])
def test_gradients_through_the_weights_do_not_change_joint_vectors(weights: str) -> None:
    slopes = []
    for through in (False, True):
        mocme = weighed(weights=weights, weight_slope=through)
        actual = mocme.train().joint(None)
        sample = torch.tensor([5, 0, 39])
        torch.testing.assert_close(mocme.joint(sample), actual[sample])
        torch.testing.assert_close(actual, mocme.eval().joint(None))
        for experts in mocme.experts:
            experts.zero_grad()
        actual.square().sum().backward()
        slopes.append(mocme.experts[1].weight.grad)
    assert (slopes[1] - slopes[0]).abs().max() > 1e-3 * slopes[0].abs().max()


def test_negative_estimates_do_not_enter_the_penalty() -> None:
    mocme = weighed(information_penalty=1.0)
    mocme.complementarity.estimator.bound = lambda codes, present: torch.tensor([-3.0, 0.5, 0.25])
    assert float(mocme.extra_losses(NO_BATCH)["information"]) == 0.75


def test_without_the_mask_missing_rows_have_weight() -> None:
    assert (weighed(mask=False).complementarity.inter > 0).all()


def test_joint_vectors_do_not_depend_on_the_order_of_modalities() -> None:
    one, other = (weighed(use_modalities=names) for names in (["image", "text"], ["text", "image"]))
    assert torch.equal(one.joint(None), other.joint(None))


def test_joint_vectors_do_not_depend_on_the_order_of_entities() -> None:
    mocme = weighed()
    inputs = features()
    back = torch.randperm(E, generator=rng(3))
    moved = {k: Features(v.vectors[back], v.observed[back]) for k, v in inputs.items()}
    other = MoCME(mocme.config, E, R, rng(), features=moved)
    state = mocme.state_dict()
    for name in ("entities", "complementarity.intra", "complementarity.inter",
                 "complementarity.added"):  # fmt: skip
        state[name] = state[name][back]
    other.load_state_dict(state)
    torch.testing.assert_close(other.joint(None), mocme.joint(None)[back])


def test_cached_joint_vectors_are_dropped_when_weights_change() -> None:
    mocme = weighed().eval()
    sample = torch.tensor([5, 0, 39, 5])
    with torch.no_grad():
        first = mocme.candidates(None)
        torch.testing.assert_close(mocme.joint(sample), first[sample])
        assert mocme.candidates(None) is first
        mocme.complementarity.inter[:, 0] += 0.1
        assert not torch.equal(mocme.candidates(None), first)
        mocme.double()
        assert mocme.candidates(sample).dtype == torch.float64


def test_the_loss_is_that_of_algorithm_1(graph: Graph) -> None:
    """-log p+ - mean_i lambda(H(p_i)) log(1 - p_i), H in bits, as the paper states it."""
    mocme = weighed().eval()
    triples = torch.from_numpy(graph.train).long()[:20] % torch.tensor([E, R, E])
    ids = torch.randint(E, (20, 9), generator=rng(1))
    side = torch.randint(2, (20, 9), generator=rng(2), dtype=torch.int8)
    ids[:, 0], side[:, 0] = triples[:, 2], Side.tail
    total = 0.0
    for b in range(20):
        h, r, t = triples[b].tolist()
        for i in range(9):
            e = int(ids[b, i])
            row = [h, r, e] if side[b, i] == Side.tail else [e, r, t]
            p = float(mocme.score(torch.tensor([row])).detach().double().sigmoid())
            if i == 0:
                total -= math.log(p)
                continue
            bits = -p * math.log2(p) - (1 - p) * math.log2(1 - p)
            weight = 0.5 if bits < 0.2 else 1.5 if bits < 0.8 else 1.2
            total -= weight * math.log(1 - p) / 8
    loss = EntropyWeighted((0.2, 0.8), (0.5, 1.5, 1.2))
    actual = mocme.loss_sampled(triples, Candidates(ids, side), loss)
    assert float(actual.detach()) == pytest.approx(total / 20, rel=1e-4)


def test_cuts_of_scores_are_thresholds_of_entropy_in_bits() -> None:
    scores = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    p = scores.sigmoid()
    bits = -(p * p.log2() + (1 - p) * (1 - p).log2())
    for threshold in (0.2, 0.5, 0.8):
        assert torch.equal(bits < threshold, scores.abs() > entropy_cut(threshold))


@pytest.mark.parametrize("fusion", ["gate", "complementarity"])
def test_ranking_uses_the_weights_of_the_last_step(graph: Graph, fusion: str) -> None:
    # Fused steps count no version, and without an estimator nothing else moves.
    n = len(graph.entities)
    config = MoCME.Config(dim=4, fusion=fusion, backbone="linear", inter=False)
    mocme = MoCME(config, n, len(graph.relations), rng(), features=features(n))
    program = program_of(mocme, torch.from_numpy(graph.train).long())
    with torch.no_grad():
        before = mocme.eval().candidates(None)
    mocme.train()
    program.start_epoch()
    program.step(0)
    with torch.no_grad():
        after = mocme.eval().candidates(None)
        torch.testing.assert_close(after, mocme.joint(None))
    assert not torch.equal(after, before)


def test_layers_have_their_own_learning_rate(graph: Graph) -> None:
    # The first step of Adam moves each number by its rate, 0.05, where there is a gradient.
    n = len(graph.entities)
    config = MoCME.Config(dim=4, fusion="concat", layer_rate=0.1)
    mocme = MoCME(config, n, len(graph.relations), rng(), features=features(n))
    program = program_of(mocme, torch.from_numpy(graph.train).long())
    before = {name: p.detach().clone() for name, p in mocme.named_parameters()}
    program.start_epoch()
    program.step(0)
    of_estimator = {id(p) for auxiliary in mocme.auxiliaries() for p in auxiliary.parameters}
    for name, p in mocme.named_parameters():
        if id(p) not in of_estimator:
            rate = 0.05 if name in ("entities", "phases") else 0.005
            assert (p - before[name]).abs().max().item() == pytest.approx(rate, rel=0.01), name


def test_a_training_resumes_bit_by_bit(graph: Graph) -> None:
    def fresh() -> LinkPrediction:
        n = len(graph.entities)
        config = MoCME.Config(dim=4, warmup=2, estimator_batch=32)
        scorer = MoCME(config, n, len(graph.relations), rng(), features=features(n))
        return program_of(scorer, torch.from_numpy(graph.train).long())

    torch.manual_seed(0)
    first = fresh()
    for _ in range(2):
        first.start_epoch()
        for index in range(first.steps_per_epoch):
            first.step(index)
    first.start_epoch()
    first.step(0)
    again = fresh()
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    layers = torch.get_rng_state()
    first.step(1)
    torch.set_rng_state(layers)
    again.step(1)
    wanted = first.scorer.state_dict()
    assert all(torch.equal(wanted[k], v) for k, v in again.scorer.state_dict().items())


def test_invalid_settings_are_refused() -> None:
    for config in ({"use_modalities": ["smell"]}, {"use_modalities": ["text", "text"]},
                   {"experts": 0}, {"temperature": 0.0}):  # fmt: skip
        with pytest.raises(ValidationError):
            MoCME.Config(**config)
