"""Conformance checks: properties that every scorer must have, and advice if one fails."""

from mmkgc_cli.conformance.findings import Finding
from mmkgc_cli.conformance.kit import PROPERTIES, check_scorer

__all__ = ["PROPERTIES", "Finding", "check_scorer"]
