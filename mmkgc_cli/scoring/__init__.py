"""The scorer contract and the registry of scorer plugins."""

from mmkgc_cli.scoring.contract import Features, Scorer, ScorerConfig, Side
from mmkgc_cli.scoring.registry import load_scorer, scorer_names

__all__ = ["Features", "Scorer", "ScorerConfig", "Side", "load_scorer", "scorer_names"]
