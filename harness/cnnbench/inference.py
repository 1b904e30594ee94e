"""How a suite's comparisons are decided: the table ``[statistics]``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Inference:
    """How comparisons with the reference are decided.

    Attributes:
        test: whose p-value decides: ``t`` (paired t), or ``sign-flip`` (exact up to 20 pairs, Monte Carlo above).
        interval: of the mean difference: ``t`` (paired t), or ``bca`` (bias-corrected and accelerated bootstrap);
            under looks always the repeated t interval.
        correction: across the arms of one metric: ``holm`` (family-wise error), or ``benjamini-hochberg`` (false
            discovery rate).
        most_seeds: of one arm, where ``--seeds auto`` adds them.
    """

    test: Literal["t", "sign-flip"] = "t"
    interval: Literal["t", "bca"] = "t"
    correction: Literal["holm", "benjamini-hochberg"] = "holm"
    most_seeds: Annotated[int, Ge(2)] = 20

    def plain(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)

    @staticmethod
    def from_plain(data: Mapping[str, Any] | None) -> Inference:
        """The inverse of ``plain``; of records that don't say, the defaults."""
        return Inference(**(data or {}))
