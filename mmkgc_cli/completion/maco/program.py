"""The training step of MACO: a discriminator update, then a generator update."""

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
    """A step program over all entities, in a new permutation each epoch.

    A step has two updates. The first minimizes eq. 4 over the discriminator and the structure
    encoder. The second, with new noise and new states, minimizes -mean log p(s, g) + alpha eq. 6,
    plus the squared error if `regression` is above 0, over the generator and the structure
    encoder. Each network has its own Adam optimizer.
    """

    def __init__(self, model: Maco, vectors: Tensor, observed: Tensor) -> None:
        """Takes `vectors` ``[E, F]`` and the mask `observed` ``[E]`` of the real ones."""
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
        """Steps per epoch; the last batch may be smaller."""
        return -(-len(self.vectors) // self.model.settings.batch_size)

    def start_epoch(self) -> None:
        """Permutes the entities."""
        self._before_order = self._order_rng.get_state()
        self._permute()

    def _permute(self) -> None:
        device = self.vectors.device
        self._order = torch.randperm(len(self.vectors), generator=self._order_rng, device=device)

    def step(self, index: int) -> dict[str, Tensor]:
        """Runs both updates on batch `index`; returns the loss terms and their sum, ``loss``."""
        size, model = self.model.settings.batch_size, self.model
        batch = self._order[index * size : (index + 1) * size]
        model.train()
        states, generated = self._generate(batch)
        real = self.observed[batch]
        discrimination = self._discriminator_loss(states, generated.detach(), batch, real)
        self._descend(discrimination, "discriminator", "structure")
        states, generated = self._generate(batch)
        adversarial = generator_loss(model.discriminator(states, generated))
        contrastive = contrastive_loss(states, generated, model.settings.tau)
        total = adversarial + model.settings.alpha * contrastive
        terms = {
            "discriminator": discrimination, "generator": adversarial, "contrastive": contrastive,
        }  # fmt: skip
        if weight := model.settings.regression:
            terms["regression"] = squared_error(generated[real], self.vectors[batch[real]])
            total = total + weight * terms["regression"]
        self._descend(total, "generator", "structure")
        loss = (discrimination + total).detach()
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}

    def _generate(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """States ``[B, F]``, and vectors ``[B, F]`` generated from them."""
        noise = torch.randn(
            len(batch), self.model.settings.noise, generator=self._noise, device=batch.device
        )
        states = self.model.structure(batch)
        return states, self.model.generator(states, noise)

    def _discriminator_loss(
        self, states: Tensor, generated: Tensor, batch: Tensor, real: Tensor
    ) -> Tensor:
        discriminator = self.model.discriminator
        real_logits = discriminator(states[real], self.vectors[batch[real]])
        return discriminator_loss(discriminator(states, generated), real_logits)

    def _descend(self, loss: Tensor, *names: str) -> None:
        """Updates the named networks; the gradient of the third network is discarded."""
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for name in names:
            self.optimizers[name].step()

    @property
    def device(self) -> torch.device:
        """Device of the vectors and the model."""
        return self.vectors.device

    def weights(self) -> dict[str, Tensor]:
        """The tensors that must stay finite, by name."""
        return dict(self.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer states, and states of the random streams."""
        return {
            "model": self.model.state_dict(),
            "optimizers": {name: adam.state_dict() for name, adam in self.optimizers.items()},
            "noise": self._noise.get_state(),
            "permutation": {"order": self._before_order, "next": self._order_rng.get_state()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict`, and recomputes the permutation of the current epoch."""
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self._noise.set_state(state["noise"])
        self._before_order = state["permutation"]["order"]
        self._order_rng.set_state(self._before_order)
        self._permute()
        self._order_rng.set_state(state["permutation"]["next"])
