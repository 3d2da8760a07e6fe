"""The conformance kit: what every scorer must hold, and what it means when one does not."""

from mmkgc_cli.conformance.findings import Finding
from mmkgc_cli.conformance.kit import PROPERTIES, check_scorer

__all__ = ["PROPERTIES", "Finding", "check_scorer"]
