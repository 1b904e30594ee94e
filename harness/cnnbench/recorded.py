"""What the trials of one arm have recorded, as arrays: records are walked through once, whatever is asked of them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Block:
    """Trials of one arm that are ok and have recorded the same quantities in the same ways.

    Attributes:
        seeds: their places among those of the table.
        columns: of each quantity its column of ``values``.
        values: [trials, quantities], in the recorded units; nan where a trial has none.
        methods: how the quantities were obtained.
    """

    seeds: NDArray[np.intp]
    columns: Mapping[str, int]
    values: NDArray[np.float64]
    methods: Mapping[str, Any]

    def has(self, key: str) -> bool:
        """Whether any of them has a value."""
        return key in self.columns and bool(np.isfinite(self.values[:, self.columns[key]]).any())


def blocks_of(records: Iterable[Mapping[str, Any] | None]) -> list[Block]:
    """The numbers of one arm.

    Args:
        records: one for each of the table's seeds, None where there is none.
    """
    alike: dict[tuple[tuple[tuple[str, Any], ...], tuple[str, ...]], tuple[list[int], list[Mapping[str, Any]]]] = {}
    last: object = None
    names: tuple[str, ...] | None = None
    for place, record in enumerate(records):
        if record is None or record["status"] != "ok":
            continue
        metrics, methods = record.get("metrics") or {}, record.get("methods")
        if (own := tuple(metrics)) != names or methods is not last:  # one record is mostly like the one before
            names, last = own, methods
            way = tuple(sorted((methods or {}).items()))
            seeds, rows = alike.setdefault((way, names), ([], []))
        seeds.append(place)
        rows.append(metrics)
    return [
        Block(np.array(seeds), {key: column for column, key in enumerate(keys)}, _numbers(rows), dict(way))
        for (way, keys), (seeds, rows) in alike.items()
    ]


def _numbers(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Values of tables with the same names, [rows, names]; nan for what is no number."""
    try:
        flat = array("d", chain.from_iterable(row.values() for row in rows))
    except TypeError:  # null
        flat = array("d", (v if isinstance(v, int | float) else np.nan for row in rows for v in row.values()))
    return np.frombuffer(flat).reshape(len(rows), -1) if flat else np.empty((len(rows), 0))
