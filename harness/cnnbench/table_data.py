"""Tables as data: CSV and JSON, in the recorded units, with all digits."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cnnbench.text import csv_cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnnbench.sheets import Sheet
    from cnnbench.stats.intervals import Estimate
    from cnnbench.stats.verdicts import Judgement
    from cnnbench.tables import Measured, Report, Row, Table

_ARM_FIELDS = ("arm", "role", "changes", "reference", "ok", "planned")
_METHOD_FIELDS = ("method", "diff_method")
_NUMBER_FIELDS = ("mean", "low", "high", "n", "diff", "diff_low", "diff_high", "diff_n")
_JUDGED_FIELDS = ("verdict", "p", "p_adjusted", "p_sign_flip", "p_equivalence", "effect_size")
_IMPROVEMENT_FIELDS = ("improvement", "improvement_low", "improvement_high")
FIELDS = (
    "dataset",
    *_ARM_FIELDS,
    "quantity",
    *_NUMBER_FIELDS,
    *_METHOD_FIELDS,
    *_JUDGED_FIELDS,
    *_IMPROVEMENT_FIELDS,
)
"""Columns of ``flat``."""


def flat(report: Report) -> Iterator[dict[str, Any]]:
    """One row with the ``FIELDS`` for each dataset, arm and quantity; None where there is no value.

    Numbers are in the recorded unit, which the quantity's key names. ``dataset`` is empty where the run has one;
    ``verdict`` is None where nothing is judged.
    """
    for table in report.tables:
        for row in table.rows:
            for quantity in table.quantities:
                measured = row.measured[quantity.key]
                yield {
                    "dataset": table.dataset,
                    **_arm(row),
                    "quantity": quantity.key,
                    **_numbers(measured),
                    **_methods(measured),
                    **_judged(measured.judgement),
                }


def csv_text(report: Report, _width: int | None = None) -> str:
    """One line for each row of ``flat``; texts that a spreadsheet would take for formulas begin with an apostrophe."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: "" if value is None else csv_cell(value) for name, value in row.items()} for row in flat(report)
    )
    return out.getvalue().removesuffix("\n")


def json_text(report: Report, _width: int | None = None) -> str:
    """The report as one JSON object: its tables in the recorded units, and every other sheet as it is shown.

    All digits; null where there is no value.
    """
    data = {
        "suite": report.tables[0].name,
        "question": report.tables[0].question,
        "tables": [_table(table) for table in report.tables],
        "sheets": [_sheet(sheet) for sheet in report.sheets if sheet.key.partition("-")[0] != "table"],
    }
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)


def _table(table: Table) -> dict[str, Any]:
    return {
        "dataset": table.dataset or None,
        "primary": table.primary,
        "seeds": list(table.seeds),
        "quantities": [asdict(quantity) for quantity in table.quantities],
        "arms": [
            {
                **_arm(row),
                "statuses": dict(row.statuses),
                "quantities": {
                    key: {
                        **_numbers(measured),
                        **{name: way or None for name, way in _methods(measured).items()},
                        **_judged(measured.judgement),
                    }
                    for key, measured in row.measured.items()
                },
            }
            for row in table.rows
        ],
        "notes": list(table.notes),
    }


def _sheet(sheet: Sheet) -> dict[str, Any]:
    """Rows of objects: the text that people read, and the number behind it."""
    return {
        "key": sheet.key,
        "title": sheet.title,
        "caption": sheet.caption,
        "columns": [{"label": column.label, "unit": column.unit, "hint": column.hint} for column in sheet.columns],
        "rows": [
            [{"text": cell.text, "number": cell.order} for cell in cells]
            for cells in zip(*(column.cells for column in sheet.columns), strict=True)
        ],
        "notes": list(sheet.notes),
    }


def _arm(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _ARM_FIELDS}


def _methods(measured: Measured) -> dict[str, str]:
    return dict(zip(_METHOD_FIELDS, (measured.method, measured.difference_method), strict=True))


def _numbers(measured: Measured) -> dict[str, Any]:
    def ends(estimate: Estimate | None) -> list[float | int | None]:
        return [estimate.mean, estimate.low, estimate.high, estimate.n] if estimate else [None, None, None, 0]

    return dict(zip(_NUMBER_FIELDS, ends(measured.value) + ends(measured.difference), strict=True))


def _judged(judgement: Judgement | None) -> dict[str, Any]:
    """A judgement's figures; its difference stands among the numbers."""
    wins = judgement.improvement if judgement else None
    ends = (wins.mean, wins.low, wins.high) if wins else (None, None, None)
    return {
        **{name: getattr(judgement, name) if judgement else None for name in _JUDGED_FIELDS},
        **dict(zip(_IMPROVEMENT_FIELDS, ends, strict=True)),
    }
