from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu

from mmkgc_cli.completion.maco.generation import generate_vectors
from mmkgc_cli.completion.maco.losses import (
    contrastive_loss,
    discriminator_loss,
    generator_loss,
    squared_error,
)
from mmkgc_cli.completion.maco.model import Maco
from mmkgc_cli.completion.maco.program import MacoProgram
from mmkgc_cli.completion.maco.settings import PAPER, RELEASED, MacoSettings

E, R, F = 17, 3, 5
SMALL = replace(
    PAPER, input_width=4, encoder_hidden=6, noise=3, hidden=7, batch_size=6, candidates=8, lr=0.01
)
SETTINGS = {
    "paper": SMALL,
    "released": replace(
        RELEASED, input_width=4, encoder_hidden=6, noise=3, hidden=7, generator_hidden=9,
        batch_size=6, candidates=8,
    ),
    "joint": replace(SMALL, discriminator="joint"),
    "w/o MA": replace(SMALL, condition=False),
    "w/o SE": replace(SMALL, encoder="embedding"),
    "w/o CL": replace(SMALL, alpha=0.0),
    "full matrices": replace(SMALL, bases=0),
    "regression": replace(SMALL, regression=0.5),
}  # fmt: skip


def triples() -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(n, (40,), generator=rng) for n in (E, R, E)], 1)


def model(settings: MacoSettings = SMALL, width: int = F) -> Maco:
    return Maco(triples(), E, R, width, settings)


def data(width: int = F) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    vectors = torch.randn(E, width, generator=rng)
    return vectors, torch.rand(E, generator=rng) < 0.6


def normal(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_generator_is_two_layers_on_structure_and_noise() -> None:
    g = model().generator
    assert g.of_structure is not None
    s, z = normal(4, F), normal(4, 3)
    w1 = torch.cat([g.of_structure.weight, g.of_noise.weight], 1)
    b1 = g.get_parameter("of_structure.bias") + g.get_parameter("of_noise.bias")
    b2 = g.get_parameter("last.bias")
    expected = leaky_relu(torch.cat([s, z], 1) @ w1.T + b1) @ g.last.weight.T + b2
    torch.testing.assert_close(g(s, z), expected)
    # One structure row broadcasts over many noise rows.
    torch.testing.assert_close(g(s[:1, None], z[None]), g(s[:1].expand(4, -1), z)[None])


def test_an_unconditional_generator_ignores_the_structure() -> None:
    g = model(SETTINGS["w/o MA"]).generator
    z = normal(4, 3)
    assert torch.equal(g(normal(4, F), z), g(normal(4, F, seed=9), z))


@pytest.mark.parametrize("variant", ["paper", "released", "joint"])
def test_discriminators_equal_their_formulas(variant: Any) -> None:
    d = model(replace(SMALL, discriminator=variant)).discriminator
    s, v = normal(4, F), normal(4, F, seed=3)
    hidden = {"paper": s, "released": v, "joint": torch.cat([s, v], 1)}[variant]
    x = leaky_relu(hidden @ d.first.weight.T + d.get_parameter("first.bias"))
    direct = {"paper": v, "released": s, "joint": v[:, :0]}[variant]
    out = torch.cat([x, direct], 1) @ d.last.weight.T + d.get_parameter("last.bias")
    # The released discriminator has the class "real" of a softmax over two.
    expected = out.softmax(1)[:, 1] if variant == "released" else out[:, 0].sigmoid()
    torch.testing.assert_close(d(s, v).sigmoid(), expected)


def test_only_the_joint_discriminator_can_match_structure_and_vector() -> None:
    """In the others, D(s, v) - D(s, v') is the same for every s."""
    s, v = normal(2, 1, F), normal(1, 2, F, seed=3)
    for variant in ("paper", "released", "joint"):
        d = model(replace(SMALL, discriminator=variant)).discriminator
        logits = d(s.expand(2, 2, F), v.expand(2, 2, F))
        gap = (logits[:, 0] - logits[:, 1]).detach()
        assert torch.isclose(gap[0], gap[1], atol=1e-6).item() == (variant != "joint")


def test_adversarial_losses_are_cross_entropies_of_means() -> None:
    generated, real = normal(6), normal(4, seed=5)
    expected = binary_cross_entropy_with_logits(generated, torch.zeros(6))
    expected = expected + binary_cross_entropy_with_logits(real, torch.ones(4))
    torch.testing.assert_close(discriminator_loss(generated, real), expected)
    torch.testing.assert_close(
        generator_loss(generated), binary_cross_entropy_with_logits(generated, torch.ones(6))
    )
    # A batch without observed vectors.
    loss = discriminator_loss(generated, real[:0])
    torch.testing.assert_close(loss, binary_cross_entropy_with_logits(generated, torch.zeros(6)))


def test_the_contrastive_loss_is_equation_6_with_in_batch_negatives() -> None:
    s, g, tau = normal(5, F).double(), normal(5, F, seed=4).double(), 0.7
    total = 0.0
    for i in range(5):
        scores = [
            math.exp(float(s[i] @ g[j] / (s[i].norm() * g[j].norm())) / tau) for j in range(5)
        ]
        total -= math.log(scores[i] / sum(scores))
    assert contrastive_loss(s, g, tau).item() == pytest.approx(total / 5)
    zeros = contrastive_loss(torch.zeros(5, F), g.float(), tau)
    assert zeros.item() == pytest.approx(math.log(5))


def test_the_squared_error_of_no_rows_is_zero() -> None:
    generated = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    real = torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    assert squared_error(generated, real).item() == pytest.approx((4 + 10) / 2)
    assert squared_error(generated[:0], real[:0]).item() == 0.0


def test_each_update_changes_its_own_networks_only() -> None:
    vectors, observed = data()
    program = MacoProgram(model(), vectors, observed)
    program.start_epoch()
    changed: list[set[str]] = []
    parameters = dict(program.model.named_parameters())
    descend = program._descend

    def recording(loss: Tensor, *names: str) -> None:
        before = {name: p.detach().clone() for name, p in parameters.items()}
        descend(loss, *names)
        names_changed = {n for n, p in parameters.items() if (p != before[n]).any()}
        changed.append({name.partition(".")[0] for name in names_changed})

    program._descend = recording  # type: ignore[method-assign]
    terms = program.step(0)
    assert changed == [{"discriminator", "structure"}, {"generator", "structure"}]
    total = terms["discriminator"] + terms["generator"] + 0.01 * terms["contrastive"]
    torch.testing.assert_close(terms["loss"], total)


@pytest.mark.parametrize("name", SETTINGS)
def test_training_resumes_from_any_step_with_the_same_weights(name: str) -> None:
    vectors, observed = data()
    whole = MacoProgram(model(SETTINGS[name]), vectors, observed)
    torch.manual_seed(0)
    for _ in range(2):
        whole.start_epoch()
        for index in range(whole.steps_per_epoch):
            whole.step(index)
    torch.manual_seed(0)
    first = MacoProgram(model(SETTINGS[name]), vectors, observed)
    first.start_epoch()
    for index in range(whole.steps_per_epoch):
        first.step(index)
    first.start_epoch()
    first.step(0)
    state, torch_state = first.state_dict(), torch.get_rng_state()
    second = MacoProgram(model(replace(SETTINGS[name], seed=0)), vectors, observed)
    second.load_state_dict(state)
    torch.set_rng_state(torch_state)
    for index in range(1, whole.steps_per_epoch):
        second.step(index)
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for a in whole.model.parameters():
        assert a.isfinite().all()


def test_vectors_that_are_not_observed_are_never_read() -> None:
    vectors, observed = data()
    weights = []
    for value in (0.0, math.nan):
        hidden = torch.where(observed[:, None], vectors, value)
        program = MacoProgram(model(), hidden, observed)
        for _ in range(2):
            program.start_epoch()
            for index in range(program.steps_per_epoch):
                program.step(index)
        weights.append([p.detach() for p in program.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("width", [1, F])
def test_batches_without_vectors_and_vectors_of_width_one_stay_finite(
    share: float, width: int
) -> None:
    vectors, _ = data(width)
    program = MacoProgram(model(width=width), vectors, torch.full((E,), bool(share)))
    program.start_epoch()
    assert all(program.step(0)[name].isfinite() for name in ("loss", "contrastive"))


def test_generated_vectors_are_the_mean_of_the_accepted_candidates() -> None:
    maco = model()
    # Accepts candidates with a first value above 0.1, but none of entities with a first state
    # above the median.
    states = maco.structure(None).detach()
    bound = states[:, 0].median()

    def judge(structure: Tensor, vectors: Tensor) -> Tensor:
        accepted = (vectors[..., 0] > 0.1) & (structure[..., 0] <= bound)
        return torch.where(accepted, 1.0, -1.0)

    maco.discriminator.forward = judge  # type: ignore[method-assign]
    outputs: list[Tensor] = []
    forward = maco.generator.forward

    def recording(structure: Tensor, noise: Tensor) -> Tensor:
        outputs.append(forward(structure, noise))
        return outputs[-1]

    maco.generator.forward = recording  # type: ignore[method-assign]
    entities = torch.tensor([3, 0, 8, 16, 3])
    means = generate_vectors(maco, entities)
    candidates = torch.cat(outputs)
    fallbacks = 0
    for i, entity in enumerate(entities.tolist()):
        accepted = candidates[i][(candidates[i][:, 0] > 0.1) & bool(states[entity, 0] <= bound)]
        fallbacks += not len(accepted)
        expected = (accepted if len(accepted) else candidates[i]).mean(0)
        torch.testing.assert_close(means.vectors[i], expected)
    assert int(means.rejected.sum()) == fallbacks > 0


def test_generated_vectors_do_not_depend_on_the_block_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maco, entities = model(), torch.arange(E)
    whole = generate_vectors(maco, entities).vectors
    assert torch.equal(whole, generate_vectors(maco, entities).vectors)
    monkeypatch.setattr("mmkgc_cli.completion.maco.generation.MAX_VALUES", 1)
    torch.testing.assert_close(generate_vectors(maco, entities).vectors, whole)
