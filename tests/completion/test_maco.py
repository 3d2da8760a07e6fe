from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu

from mmkgc_cli.completion.maco.generation import complete
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


def test_the_generator_is_two_layers_on_structure_beside_noise() -> None:
    g = model().generator
    assert g.of_structure is not None
    s, z = normal(4, F), normal(4, 3)
    w1 = torch.cat([g.of_structure.weight, g.of_noise.weight], 1)
    b1 = g.of_structure.bias + g.of_noise.bias
    expected = leaky_relu(torch.cat([s, z], 1) @ w1.T + b1) @ g.last.weight.T + g.last.bias
    torch.testing.assert_close(g(s, z), expected)
    # One structure meets many noises.
    torch.testing.assert_close(g(s[:1, None], z[None]), g(s[:1].expand(4, -1), z)[None])


def test_an_unconditional_generator_does_not_look_at_the_structure() -> None:
    g = model(SETTINGS["w/o MA"]).generator
    z = normal(4, 3)
    assert torch.equal(g(normal(4, F), z), g(normal(4, F, seed=9), z))


@pytest.mark.parametrize("kind", ["paper", "released", "joint"])
def test_discriminators_are_as_written(kind: Any) -> None:
    d = model(replace(SMALL, discriminator=kind)).discriminator
    s, v = normal(4, F), normal(4, F, seed=3)
    hidden = {"paper": s, "released": v, "joint": torch.cat([s, v], 1)}[kind]
    x = leaky_relu(hidden @ d.first.weight.T + d.first.bias)
    beside = {"paper": v, "released": s, "joint": v[:, :0]}[kind]
    out = torch.cat([x, beside], 1) @ d.last.weight.T + d.last.bias
    # Of the released one, the class "real" of a softmax over two.
    expected = out.softmax(1)[:, 1] if kind == "released" else out[:, 0].sigmoid()
    torch.testing.assert_close(d(s, v).sigmoid(), expected)


def test_only_a_joint_discriminator_can_say_whether_two_fit() -> None:
    """Of the others, D(s, v) - D(s, v') is the same for every s."""
    s, v = normal(2, 1, F), normal(1, 2, F, seed=3)
    for kind in ("paper", "released", "joint"):
        d = model(replace(SMALL, discriminator=kind)).discriminator  # type: ignore[arg-type]
        logits = d(s.expand(2, 2, F), v.expand(2, 2, F))
        gap = (logits[:, 0] - logits[:, 1]).detach()
        assert torch.isclose(gap[0], gap[1], atol=1e-6).item() == (kind != "joint")


def test_adversarial_losses_are_cross_entropies_of_means() -> None:
    made, real = normal(6), normal(4, seed=5)
    expected = binary_cross_entropy_with_logits(made, torch.zeros(6))
    expected = expected + binary_cross_entropy_with_logits(real, torch.ones(4))
    torch.testing.assert_close(discriminator_loss(made, real), expected)
    torch.testing.assert_close(
        generator_loss(made), binary_cross_entropy_with_logits(made, torch.ones(6))
    )
    # A batch in which nobody has a vector.
    alone = discriminator_loss(made, real[:0])
    torch.testing.assert_close(alone, binary_cross_entropy_with_logits(made, torch.zeros(6)))


def test_the_contrastive_loss_is_equation_6_with_the_batch_for_negatives() -> None:
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


def test_the_squared_error_is_over_rows_and_none_have_none() -> None:
    made, real = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    assert squared_error(made, real).item() == pytest.approx((4 + 10) / 2)
    assert squared_error(made[:0], real[:0]).item() == 0.0


def test_a_step_moves_each_network_down_its_own_loss_alone() -> None:
    vectors, observed = data()
    program = MacoProgram(model(), vectors, observed)
    program.start_epoch()
    moved: list[set[str]] = []
    parameters = dict(program.model.named_parameters())

    def watch(*names: str) -> None:
        before = {name: p.detach().clone() for name, p in parameters.items()}
        descend(watch.loss, *names)  # type: ignore[attr-defined]
        moved.append({n.partition(".")[0] for n, p in parameters.items() if (p != before[n]).any()})

    descend = program._descend

    def watched(loss: Tensor, *names: str) -> None:
        watch.loss = loss  # type: ignore[attr-defined]
        watch(*names)

    program._descend = watched  # type: ignore[method-assign]
    terms = program.step(0)
    assert moved == [{"discriminator", "structure"}, {"generator", "structure"}]
    total = terms["discriminator"] + terms["generator"] + 0.01 * terms["contrastive"]
    torch.testing.assert_close(terms["loss"], total)


@pytest.mark.parametrize("name", SETTINGS)
def test_training_goes_on_from_any_step_as_if_nothing_had_happened(name: str) -> None:
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


def test_what_is_not_observed_is_never_looked_at() -> None:
    vectors, observed = data()
    found = []
    for value in (0.0, math.nan):
        hidden = torch.where(observed[:, None], vectors, value)
        program = MacoProgram(model(), hidden, observed)
        for _ in range(2):
            program.start_epoch()
            for index in range(program.steps_per_epoch):
                program.step(index)
        found.append([p.detach() for p in program.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("width", [1, F])
def test_batches_with_no_vector_and_vectors_of_width_one_are_fine(share: float, width: int) -> None:
    vectors, _ = data(width)
    program = MacoProgram(model(width=width), vectors, torch.full((E,), bool(share)))
    program.start_epoch()
    assert all(program.step(0)[name].isfinite() for name in ("loss", "contrastive"))


def test_completion_is_the_mean_of_what_the_discriminator_takes_for_real() -> None:
    maco = model()
    # It takes what has a first number above a half, and nothing of entities with a first state
    # above the middle.
    states = maco.structure(None).detach()
    bound = states[:, 0].median()

    def judge(structure: Tensor, vectors: Tensor) -> Tensor:
        fits = (vectors[..., 0] > 0.1) & (structure[..., 0] <= bound)
        return torch.where(fits, 1.0, -1.0)

    maco.discriminator.forward = judge  # type: ignore[method-assign]
    seen: list[Tensor] = []
    forward = maco.generator.forward

    def remembered(structure: Tensor, noise: Tensor) -> Tensor:
        seen.append(forward(structure, noise))
        return seen[-1]

    maco.generator.forward = remembered  # type: ignore[method-assign]
    entities = torch.tensor([3, 0, 8, 16, 3])
    done = complete(maco, entities)
    made = torch.cat(seen)
    fallbacks = 0
    for i, entity in enumerate(entities.tolist()):
        taken = made[i][(made[i][:, 0] > 0.1) & bool(states[entity, 0] <= bound)]
        fallbacks += not len(taken)
        expected = (taken if len(taken) else made[i]).mean(0)
        torch.testing.assert_close(done.vectors[i], expected)
    assert int(done.rejected.sum()) == fallbacks > 0


def test_completion_does_not_depend_on_how_many_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maco, entities = model(), torch.arange(E)
    whole = complete(maco, entities).vectors
    assert torch.equal(whole, complete(maco, entities).vectors)
    monkeypatch.setattr("mmkgc_cli.completion.maco.generation.AT_ONCE", 1)
    torch.testing.assert_close(complete(maco, entities).vectors, whole)
