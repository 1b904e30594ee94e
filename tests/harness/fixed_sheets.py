"""Reports written by hand: what any format has to show, whatever the records' own tables look like."""

from __future__ import annotations

import re

from cnnbench.quantities import quantities
from cnnbench.sheets import Cell, Column, Sheet
from cnnbench.stats.intervals import Estimate
from cnnbench.tables import Measured, Report, Row, Table

NASTY = (
    r"\input{x} \\ $x_1^2$ & 50 % #1 ~ {a}",
    "[x] * `a' ``b'' \"c\" a--b---c ?` !` <<d>> |e| f,,g",
    "≈ ▲ ▼ Δ µ × – − ± ‡ † ↑ ↓ ≤ ≥ → … “q” ‘q’ · ° ² ½ √ ∞ ¿ ¡ « » £ € ¤",
    "Zürich façade Łódź ąę ế ǰ ŷ Ångström ﬁ ｆｕｌｌ Ωλ",
    "中文 한국어 日本語 العربية עברית हिन्दी й",
    "😀 👩‍💻 🇨🇭 \u0301 a\u0301\u0302 \u200b\u200d \ufeff \udc80 \x00 \x1b[31m",
    "a" * 300,
    "one/very/long/path/to/a/file/" * 6,
    "",
    " ",
    "-",
    "*",
    "[",
    "7",
)


def report(*sheets: Sheet, names: tuple[str, ...] = ("baseline", "silu"), dataset: str = "") -> Report:
    """A report of these sheets, over a table of arms with accuracy and params."""
    columns = (*quantities(["accuracy"], ()), *quantities(["params"], ()))
    rows = tuple(
        Row(
            name,
            "arm" if place else "baseline",
            f"activation={name}" if place else "",
            names[0] if place else None,
            {"ok": 5},
            {
                "accuracy": Measured(Estimate(0.9 + place / 1000, 0.89, 0.92, 5), Estimate(0.01, 0.0, 0.02, 5), ""),
                "params": Measured(Estimate(78_042.0, None, None, 1), None, "") if place else Measured(None, None, ""),
            },
        )
        for place, name in enumerate(names)
    )
    table = Table("tricks", "Which?", columns, "accuracy", (0, 1, 2, 3, 4), rows, (), dataset)
    return Report((table,), sheets)


def column(label: str, unit: str, *texts: str, strong: tuple[int, ...] = (), follows: bool = False) -> Column:
    """A column of texts, some of them strong, each with the number that it begins with behind it."""
    cells = []
    for place, text in enumerate(texts):
        number = re.match(r"[+-]?[0-9]+(?:\.[0-9]+)?(?= |$)", text.replace("−", "-"))
        cells.append(Cell(text, place in strong, float(number[0]) if number else None))
    return Column(label, unit, tuple(cells), follows)


TRICKS = Sheet(
    "table",
    "tricks",
    "Which cheap tricks help a small CNN on 8×8 digits, and what do they cost?",
    (
        column("arm", "", "baseline", "group norm", "silu & friends", "int8 (per channel, of every convolution)"),
        column("ok", "", "5/5", "4/5", "5/5", "2/5"),
        column("verdict", "", "", "worse", "better", "unresolved (n=2)"),
        column("accuracy", "%", "97.08 ± 0.20", "96.02 ± 0.30", "97.55 ± 0.41", "97.4 ± 1.4", strong=(2,)),
        column("Δ accuracy", "pp", "", "−1.11 ± 0.10 ▼", "+0.47 ± 0.30 ▲", "+0.17", follows=True),
        column("params", "k", "78.04", "78.04", "78.04", "–"),
        column("size", "KiB", "309.4", "309.4", "64.6", "82.5 nominal ▲", strong=(2,)),
        column("latency b1", "ms", "0.408 ± 0.010", "0.528 ± 0.026", "0.4670 ± 0.0073", "0.188", strong=(3,)),
        column("ratio b1", "×", "", "1.287 ± 0.074 ▼", "1.146 ± 0.040 ≈", "0.453 ± 0.011 ▲", follows=True),
        column("energy", "µJ/image", "1.27e−7 est.", "1.6e−7 est.", "1.5e−7 est.", "–"),
    ),
    (
        "±: half the 95 % t interval of the mean over seeds.",
        "▲ ▼ ≈: better, worse, equivalent by the verdict.",
        "skipped: int8 (seeds 2, 3, 4): needs torchao, which is not installed: pip install 'cnnbench[compress]'",
        "Suite tricks.toml (sha256 5f1d7e0a9b3c); records in results/tricks/records.jsonl.",
    ),
)
STEPS = Sheet(
    "steps",
    "Gains of the steps",
    "",
    (
        column("step", "", "+ silu", "+ group norm"),
        column("gain", "pp", "+0.47 ± 0.30", "−1.5 ± 2.0"),
    ),
)
