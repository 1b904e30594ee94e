"""Results for Python and notebooks, against what the command line makes of the same records."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from cnnbench import Results
from cnnbench.cli import main
from cnnbench.errors import CnnbenchWarning, StoreError, UsageError
from cnnbench.store import FILE

_spec = importlib.util.spec_from_file_location("table_records", Path(__file__).with_name("table_records.py"))
sheets = importlib.util.module_from_spec(_spec)
sys.modules["table_records"] = sheets
_spec.loader.exec_module(sheets)

SHIPPED = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def results():
    return Results(sheets.sample(), "results/quickstart")


class Reader(HTMLParser):
    """Tags that are open, and what a page would ask others for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asked: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.asked += [value or "" for name, value in attrs if name in {"src", "href", "data", "action"}]
        if tag not in {"wbr", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "csv", "json"])
def test_every_format_is_that_of_the_command(form, capsys):
    folder = SHIPPED / "quickstart"
    assert main(["report", str(folder), "--format", form]) == 0
    assert Results.load(folder).render(form) + "\n" == capsys.readouterr().out


def test_at_a_prompt_it_is_the_table(results):
    assert repr(results) == str(results) == results.render("terminal")


def test_the_frame_has_a_row_for_each_trial_with_its_metrics(results):
    frame, records = results.frame(), sheets.sample()
    assert len(frame) == len(records) == len(results.records)
    assert list(frame.columns[:7]) == ["dataset", "arm", "role", "changes", "seed", "status", "reason"]
    fine = {(r["arm"], r["seed"]): r["metrics"]["accuracy"] for r in records if r["status"] == "ok"}
    found = frame.dropna(subset="accuracy").set_index(["arm", "seed"])["accuracy"].to_dict()
    assert found == fine
    assert set(frame.loc[frame["accuracy"].isna(), "status"]) == {"diverged", "skipped"}


def test_the_table_is_that_of_csv_with_types(results):
    table = results.table()
    expected = pd.read_csv(io.StringIO(results.render("csv")))
    assert list(table.columns) == list(expected.columns)
    for name in ("mean", "low", "high", "diff", "diff_low", "diff_high", "p", "p_adjusted", "improvement"):
        assert table[name].dtype == "float64"
        pd.testing.assert_series_equal(table[name], expected[name].astype("float64"), rtol=1e-15)
    assert table["n"].dtype == "int64"
    assert list(table["verdict"].dropna()) == list(expected["verdict"].dropna())


def test_verdicts_stand_by_arm_and_quantity(results):
    verdicts = results.verdicts
    table = results.table()
    for arm, row in verdicts.iterrows():
        for quantity, verdict in row.items():
            said = table[(table["arm"] == arm) & (table["quantity"] == quantity)]["verdict"].iloc[0]
            assert (verdict == said) or (pd.isna(verdict) and pd.isna(said))
    assert verdicts.loc["distill", "accuracy"] == "worse"
    assert verdicts.index[0] == "group norm", "in the table's order"


def test_verdicts_of_several_datasets_stand_by_both():
    results = Results.load(SHIPPED / "across-datasets")
    assert results.verdicts.index.names == ["dataset", "arm"]
    labels = set(results.frame()["dataset"])
    assert labels == set(results.table()["dataset"])
    assert len(labels) > 1


def test_what_failed_and_how_trials_ended(results):
    statuses = {record["status"] for record in sheets.sample()}
    assert set(results.statuses) == statuses
    assert not results.ok
    assert [failure.status for failure in results.failures] == ["diverged"]
    assert Results.load(SHIPPED / "quickstart").ok


def test_the_answer_is_that_of_the_report():
    results = Results.load(SHIPPED / "pooling")
    page = results._report
    assert results.answer
    assert results.question == page.tables[0].question
    assert "“spatial pyramid”" in results.answer


def test_a_notebook_shows_the_tables_and_asks_nobody(results):
    html = results._repr_html_()
    reader = read(html)
    assert reader.asked == []
    assert not {"script", "link", "iframe", "img"} & set(reader.tags)
    assert re.search(r"@import|url\(", html) is None
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    rules = [rule for rule in re.findall(r"([^{}]+)\{[^{}]*\}", style) if "@media" not in rule]
    assert all(".cnnbench" in part for rule in rules for part in rule.split(",")), "no rule reaches beyond it"
    assert "prefers-color-scheme: dark" in style
    assert "data-jp-theme-light" in style
    for word in ("group norm", "better"):
        assert word in html


def test_what_records_say_is_text_in_html():
    records = sheets.sample()
    for record in records:
        record["suite"] = {**record["suite"], "question": "<img src=https://example.org>"}
    html = Results(records, "x")._repr_html_()
    assert "img" not in read(html).tags


def test_figures_are_shown_and_found_by_name(results):
    forest = results.figure()
    assert forest._repr_svg_().startswith("<svg")
    assert results.figure("forest") is forest
    with pytest.raises(UsageError, match=r"no figure 'forrest': did you mean 'forest'\?"):
        results.figure("forrest")


def test_the_report_is_the_command_s_page(tmp_path, capsys):
    folder = SHIPPED / "quickstart"
    file = Results.load(folder).report(tmp_path / "new" / "report.html")
    assert main(["report", str(folder), "--format", "html", "--output", str(tmp_path / "two.html")]) == 0
    assert file.read_text("utf-8") == (tmp_path / "two.html").read_text("utf-8")
    with pytest.raises(UsageError, match="can't be written"):
        Results.load(folder).report(tmp_path)


def test_damaged_lines_are_warned_of(tmp_path):
    lines = [json.dumps(record) for record in sheets.sample(2)]
    (tmp_path / FILE).write_text("\n".join([*lines, "torn"]), "utf-8")
    with pytest.warns(CnnbenchWarning, match="torn"):
        found = Results.load(tmp_path)
    assert len(found.records) == len(lines)


def test_where_nothing_is_the_nearest_is_named(tmp_path):
    with pytest.raises(StoreError, match="no such folder or file"):
        Results.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no records"):
        Results([], tmp_path)
