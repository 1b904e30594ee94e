"""Student's t distribution."""

from __future__ import annotations

CONFIDENCE = 0.95


def t_quantile(df: int, confidence: float = CONFIDENCE) -> float:
    """Half-width in standard errors of a two-sided Student t interval with ``df`` degrees of freedom."""
    from scipy.special import stdtrit  # much quicker to import than scipy.stats

    return float(stdtrit(df, 0.5 + confidence / 2))
