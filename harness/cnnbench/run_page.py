"""The whole report of a results folder as a page: tables, figures, and the suite that lies beside the records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import UsageError
from cnnbench.figures import make_figures
from cnnbench.publication import check_suite
from cnnbench.report_page import html_page
from cnnbench.tables import make_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def page_of(records: Sequence[Mapping[str, Any]], source: Path, folder: Path) -> str:
    """The page.

    Args:
        records: in the order of the file.
        source: the file or folder that they came from, for the footnotes.
        folder: where a run has left its suite beside them.

    Raises:
        UsageError: there are no records.
    """
    report = make_report(records, source)
    return html_page(report, records, make_figures(report, records), suite_text=_suite(records[-1], folder))


def _suite(heading: Mapping[str, Any], folder: Path) -> str | None:
    """The text of the suite that was run; None where it is not there, or has been edited since."""
    try:
        content = (folder / Path(str((heading.get("suite") or {}).get("file") or "suite.toml")).name).read_bytes()
        check_suite(heading, content)
        return content.decode("utf-8-sig")
    except (OSError, UsageError):
        return None
