"""TuckER (Balazevic et al., 2019): Tucker decomposition with a core tensor for all relations."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmkgc_cli.ops import Metric, lookup
from mmkgc_cli.scoring.contract import Reciprocal, ScorerConfig, Side

# Elements of the matrices M_r in memory at once, where queries are grouped by relation.
AT_ONCE = 1 << 24


class TuckERConfig(ScorerConfig):
    """Hyper-parameters of TuckER."""

    dim: int = Field(200, ge=1, le=2**12, description="Width of entities.")
    relation_dim: int = Field(200, ge=1, le=2**12, description="Width of relations.")
    input_dropout: float = Field(0.3, ge=0, lt=1, description="Dropout of the normalized head.")
    relation_dropout: float = Field(0.4, ge=0, lt=1, description="Dropout of the relation matrix.")
    output_dropout: float = Field(0.5, ge=0, lt=1, description="Dropout of the normalized query.")
    core_init: Literal["uniform", "xavier"] = Field(
        "uniform",
        description="Initial core: uniform in +-1, as in the paper's code, or Xavier (IMF, MoMoK).",
    )


class TuckER(Reciprocal):
    """score = (W x_1 h x_2 r) . t (Balazevic et al. 2019, eq. 1), with batch norms."""

    Config = TuckERConfig
    metric = Metric.dot
    citation: ClassVar[str] = (
        "Ivana Balazevic, Carl Allen and Timothy M. Hospedales. TuckER: Tensor factorization for "
        "knowledge graph completion. EMNLP, 2019."
    )

    def __init__(
        self,
        config: TuckERConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
    ) -> None:
        """Initial rows are Xavier normal; `core_init` is for the core [relation_dim, dim, dim]."""
        super().__init__(config, n_entities, n_relations, generator)
        self.entities = nn.Parameter(torch.empty(n_entities, config.dim))
        self.relations = nn.Parameter(torch.empty(self.relation_rows, config.relation_dim))
        for table in (self.entities, self.relations):
            nn.init.xavier_normal_(table, generator=generator)
        self.core = nn.Parameter(torch.empty(config.relation_dim, config.dim, config.dim))
        if config.core_init == "uniform":
            nn.init.uniform_(self.core, -1, 1, generator=generator)
        else:
            nn.init.xavier_uniform_(self.core, generator=generator)
        self.input_norm = nn.BatchNorm1d(config.dim)
        self.output_norm = nn.BatchNorm1d(config.dim)
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.relation_dropout = nn.Dropout(config.relation_dropout)
        self.output_dropout = nn.Dropout(config.output_dropout)

    def tail_query(self, entities: Tensor, relations: Tensor) -> Tensor:
        """drop(norm(drop(norm(h)) M_r)) with M_r = drop(sum_k r_k W_k)."""
        x = self.input_dropout(_normalize(self.input_norm, lookup(self.entities, entities)))
        y = self._each(x, relations) if self.training else self._grouped(x, relations)
        query: Tensor = self.output_dropout(_normalize(self.output_norm, y))
        return query

    def _matrices(self, relations: Tensor) -> Tensor:
        """M_r [n, dim, dim] of `relations` [n]."""
        rows = lookup(self.relations, relations)
        matrices: Tensor = (rows @ self.core.flatten(1)).view(-1, *self.core.shape[1:])
        return matrices

    def _each(self, x: Tensor, relations: Tensor) -> Tensor:
        """x M_r with a matrix and a dropout mask per row, as in the paper's training code."""
        return torch.bmm(x[:, None], self.relation_dropout(self._matrices(relations)))[:, 0]

    def _grouped(self, x: Tensor, relations: Tensor) -> Tensor:
        """The same without dropout, with one matrix per relation, for thousands of queries."""
        order = relations.argsort(stable=True)
        unique, counts = torch.unique_consecutive(relations[order], return_counts=True)
        groups = iter(torch.split(x[order], counts.tolist()))
        at_once = max(1, AT_ONCE // self.core[0].numel())
        parts = [
            next(groups) @ matrix
            for relation_ids in unique.split(at_once)
            for matrix in self._matrices(relation_ids)
        ]
        return torch.cat([x[:0], *parts])[order.argsort()]

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """The entity embeddings."""
        return lookup(self.entities, entities)


def _normalize(norm: nn.BatchNorm1d, rows: Tensor) -> Tensor:
    """Batch norm of rows; a single row has no variance and is normalized by running statistics."""
    if len(rows) > 1 or not norm.training:
        normalized: Tensor = norm(rows)
        return normalized
    return nn.functional.batch_norm(
        rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    )


SCORER = TuckER
