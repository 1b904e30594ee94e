"""A run's report as one HTML file: no request, no clock, the same bytes for the same records.

Its policy (CSP) forbids every connection, and every script but the one inside, by its hash. Styles in attributes are
allowed, as plots have them.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from cnnbench.answers import answers_of
from cnnbench.frame import by_dataset
from cnnbench.report_conditions import environment, facts, method, reproduction, settings, statuses
from cnnbench.report_findings import coloured, conclusion, kept, limits
from cnnbench.report_html import Section, bullets, element, text
from cnnbench.table_html import sheet_html

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.figures import Figure
    from cnnbench.sheets import Sheet
    from cnnbench.tables import Report


def html_page(
    report: Report, records: Sequence[Mapping[str, Any]], figures: Sequence[Figure], *, suite_text: str | None = None
) -> str:
    """The report.

    Args:
        report: tables and sheets of the records.
        records: in the order of the file.
        figures: to show, in reading order.
        suite_text: TOML of the suite that was run, where it is known; the records hold its settings alone.

    Raises:
        UsageError: there are no records.
    """
    trials = list(by_dataset(records).values())
    tables = [sheet.key for sheet in report.sheets if sheet.key.startswith("table")]
    datasets = dict(zip(tables, (table.dataset for table in report.tables), strict=True))
    sections = [
        *(_sheet(sheet, datasets) for sheet in report.sheets),
        *([_gallery(figures)] if figures else []),
        limits(report.tables),
        method(trials[0]),
        statuses(trials),
        settings(trials, suite_text),
        environment(trials),
        reproduction(trials),
    ]
    first = report.tables[0]
    question = first.question or first.name
    found = answers_of(report, records)
    overall = element("p", kept(text(found.overall)), class_="lead") if found.overall else ""
    own = (conclusion(table, said) for table, (_, said) in zip(report.tables, found.by_table, strict=True))
    answers = "\n".join(filter(None, (overall, *own)))
    header = "\n".join(
        [
            element("p", f"Ablation report <span>{text(first.name)}</span>", class_="eyebrow"),
            element("h1", text(question)),
            facts(trials),
        ]
    )
    contents = element("nav", bullets(_link(one) for one in sections), aria_label="Contents", class_="contents")
    answer = f"{element('h2', 'Answer')}\n{answers}"
    main = "\n".join(
        [element("section", answer, id="answer", tabindex="-1", class_="wide"), contents, *map(_section, sections)]
    )
    footer = element("p", "Made by cnnbench from the records of the run. This page loads nothing from elsewhere.")
    body = "\n".join(
        [
            '<a class="skip" href="#answer">Skip to the answer</a>',
            element("header", header),
            element("main", main),
            element("footer", footer),
            '<p id="sorted" class="unseen" role="status"></p>',
        ]
    )
    return _document(f"{first.name}: {question}", body)


def _section(section: Section) -> str:
    body = element("div", f"\n{section.body}\n", class_="body")
    width = {"class_": "wide"} if section.wide else {}
    return element("section", f"\n{element('h2', text(section.title))}\n{body}\n", id=section.key, **width)


def _sheet(sheet: Sheet, datasets: Mapping[str, str]) -> Section:
    """A sheet; ``datasets`` holds that of every table of arms by its key, empty where the run has one dataset."""
    if sheet.key in datasets:  # its caption is the question, which is the page's heading
        where = datasets[sheet.key]
        sheet = replace(sheet, title=f"Results on {where}" if where else "Results", caption=_legend(sheet))
    return Section(sheet.key, sheet.title, element("div", coloured(sheet_html(sheet)), class_="sheet"), wide=True)


def _legend(sheet: Sheet) -> str:
    interval = any("±" in cell.text for column in sheet.columns for cell in column.cells)
    return (
        f"Means over seeds{' ± half the 95 % interval' if interval else ''}; Δ: paired difference from the reference. "
        "▲ better, ▼ worse, ≈ equivalent, no sign: unresolved or not judged. Bold: may be the best."
    )


def _gallery(figures: Sequence[Figure]) -> Section:
    return Section("figures", "Figures", element("div", "\n".join(map(_figure, figures)), class_="gallery"), wide=True)


def _figure(figure: Figure) -> str:
    title, caption = (said[:1].upper() + said[1:] for said in (figure.title, figure.caption))
    body = f"{element('h3', text(title))}\n{figure.svg}\n{element('figcaption', text(caption))}"
    return element("figure", body, id=f"figure-{figure.key}")


def _link(section: Section) -> str:
    return element("a", text(section.title), href=f"#{section.key}")


def _document(title: str, body: str) -> str:
    style, script = _asset("report_style.css"), _asset("report_script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<style>
{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    """A file of the package; it must not end the element that it stands in."""
    found = files("cnnbench").joinpath(name).read_text(encoding="utf-8")
    assert "</" not in found
    return found
