"""The step of MACO, for the training loop: a discriminator's step, then a generator's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.completion.maco.losses import (
    contrastive_loss,
    discriminator_loss,
    generator_loss,
    squared_error,
)
from mmkgc_cli.completion.maco.model import Maco
from mmkgc_cli.state.rng import generator as stream


class MacoProgram:
    """A step program over all entities, in a fresh permutation each epoch.

    On a batch: the discriminator and the structure descend eq. 4; then, with noise and states of
    their own, the generator and the structure descend -mean log p(s, g) + alpha eq. 6, and where
    the settings ask for it the squared error. Each of the three networks has an Adam.
    """

    def __init__(self, model: Maco, vectors: Tensor, observed: Tensor) -> None:
        """Takes `vectors` [E, F], of which those that are `observed` [E] are real."""
        self.model, self.vectors, self.observed = model, vectors, observed
        settings, device = model.settings, vectors.device
        self._noise = stream(settings.seed, "noise", device)
        self._order_rng = stream(settings.seed, "permutation", device)
        self._before_order = self._order_rng.get_state()
        self._order = torch.empty(0, dtype=torch.int64, device=device)
        self.optimizers = {
            name: torch.optim.Adam(
                [p for p in module.parameters() if p.requires_grad], lr=settings.lr, fused=True
            )
            for name, module in (
                ("structure", model.structure),
                ("generator", model.generator),
                ("discriminator", model.discriminator),
            )
        }

    @property
    def steps_per_epoch(self) -> int:
        """The last batch may be smaller."""
        return -(-len(self.vectors) // self.model.settings.batch_size)

    def start_epoch(self) -> None:
        """Draws an order."""
        self._before_order = self._order_rng.get_state()
        self._draw()

    def _draw(self) -> None:
        device = self.vectors.device
        self._order = torch.randperm(len(self.vectors), generator=self._order_rng, device=device)

    def step(self, index: int) -> dict[str, Tensor]:
        """Both steps on batch `index`; the losses, of which ``loss`` is the sum."""
        size, model = self.model.settings.batch_size, self.model
        batch = self._order[index * size : (index + 1) * size]
        model.train()
        states, made = self._made(batch)
        real = self.observed[batch]
        own = self._discriminator_loss(states, made.detach(), batch, real)
        self._descend(own, "discriminator", "structure")
        states, made = self._made(batch)
        fooled = generator_loss(model.discriminator(states, made))
        contrast = contrastive_loss(states, made, model.settings.tau)
        total = fooled + model.settings.alpha * contrast
        terms = {"discriminator": own, "generator": fooled, "contrastive": contrast}
        if weight := model.settings.regression:
            terms["regression"] = squared_error(made[real], self.vectors[batch[real]])
            total = total + weight * terms["regression"]
        self._descend(total, "generator", "structure")
        return {"loss": (own + total).detach(), **{k: v.detach() for k, v in terms.items()}}

    def _made(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, F] and vectors [B, F] generated from them."""
        noise = torch.randn(
            len(batch), self.model.settings.noise, generator=self._noise, device=batch.device
        )
        states = self.model.structure(batch)
        return states, self.model.generator(states, noise)

    def _discriminator_loss(
        self, states: Tensor, made: Tensor, batch: Tensor, real: Tensor
    ) -> Tensor:
        discriminator = self.model.discriminator
        of_real = discriminator(states[real], self.vectors[batch[real]])
        return discriminator_loss(discriminator(states, made), of_real)

    def _descend(self, loss: Tensor, *names: str) -> None:
        """A step of these networks; gradients of the third go to nobody."""
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for name in names:
            self.optimizers[name].step()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.vectors.device

    def weights(self) -> dict[str, Tensor]:
        """All that is learnt, by name: what must stay finite."""
        return dict(self.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizers, and where the random streams are."""
        return {
            "model": self.model.state_dict(),
            "optimizers": {name: of.state_dict() for name, of in self.optimizers.items()},
            "noise": self._noise.get_state(),
            "permutation": {"order": self._before_order, "next": self._order_rng.get_state()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave, and draws the order of the pass again."""
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self._noise.set_state(state["noise"])
        self._before_order = state["permutation"]["order"]
        self._order_rng.set_state(self._before_order)
        self._draw()
        self._order_rng.set_state(state["permutation"]["next"])
