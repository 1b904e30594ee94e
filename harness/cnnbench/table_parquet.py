"""Tables as Parquet: the rows of the CSV with their types, and the suite in the file's own metadata."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, Final

from cnnbench.table_data import FIELDS, flat

if TYPE_CHECKING:
    from cnnbench.tables import Report

TEXTS: Final = (
    "dataset",
    "arm",
    "role",
    "changes",
    "reference",
    "quantity",
    "method",
    "diff_method",
    "verdict",
)
COUNTS: Final = ("ok", "planned", "n", "diff_n")


def parquet(report: Report, _width: int | None = None) -> bytes:
    """One row for each row of ``table_data.flat``: texts, int64 counts and float64 numbers, null where there is none.

    The schema's metadata has, as JSON under ``cnnbench``: suite, question, primary quantity, the seeds of each dataset,
    and label, unit, direction and factor of each quantity. ``pandas.read_parquet`` reads the table, pyarrow both.
    """
    import pyarrow as pa
    from pyarrow import parquet as files

    kinds = {**dict.fromkeys(TEXTS, pa.string()), **dict.fromkeys(COUNTS, pa.int64())}
    schema = pa.schema(
        [pa.field(name, kinds.get(name, pa.float64())) for name in FIELDS],
        metadata={"cnnbench": json.dumps(_about(report), ensure_ascii=False)},
    )
    out = io.BytesIO()
    files.write_table(pa.Table.from_pylist([_safe(row) for row in flat(report)], schema), out)
    return out.getvalue()


def _safe(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose texts are UTF-8: half of a surrogate pair, which JSON may carry, becomes U+FFFD."""
    return {
        name: value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value
        for name, value in row.items()
    }


def _about(report: Report) -> dict[str, Any]:
    first = report.tables[0]
    return {
        "suite": first.name,
        "question": first.question,
        "primary": first.primary,
        "seeds": {table.dataset: list(table.seeds) for table in report.tables},
        "quantities": {
            quantity.key: {
                "label": quantity.label,
                "unit": quantity.unit,
                "better": quantity.better,
                "factor": quantity.factor,
            }
            for quantity in first.quantities
        },
    }
