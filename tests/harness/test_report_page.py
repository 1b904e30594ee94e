"""The report as a file: what is in it, that it is sound HTML, and that nothing in records can become markup."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.util
import itertools
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cnnbench.errors import UsageError
from cnnbench.figures import make_figures
from cnnbench.report_page import html_page
from cnnbench.tables import make_report

_spec = importlib.util.spec_from_file_location("table_records", Path(__file__).with_name("table_records.py"))
table_records = importlib.util.module_from_spec(_spec)
sys.modules["table_records"] = table_records
_spec.loader.exec_module(table_records)

VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}
HOSTILE = '<img src=x onerror="alert(1)">&amp;"\'\x1b[31m'


def made(records, *, figures: bool = False, **given) -> str:
    """The page; figures take their time, and have tests of their own."""
    report = make_report(records)
    return html_page(report, records, make_figures(report, records) if figures else (), **given)


def changed(records, **fields):
    return [{**record, **fields} for record in records]


class Outline(HTMLParser):
    """Tags, attributes and text; fails on tags that don't match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> without a beginning"
        assert self.stack.pop() == tag
        if tag not in {"span", "strong", "code", "a", "tspan"}:
            self.words.append(" ")

    def handle_data(self, data):
        if not {"style", "script"} & set(self.stack):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def records():
    return table_records.timed(table_records.sample(), noise=table_records.QUIET)


@pytest.fixture(scope="module")
def page(records) -> str:
    return made(records, figures=True, suite_text='question = "Why?"\n\n[arms]\n"a < b" = {}\n')


@pytest.fixture(scope="module")
def outline(page) -> Outline:
    return Outline(page)


def test_the_question_leads_and_the_answer_follows(outline):
    assert "Which cheap tricks help a small CNN on 8×8 digits, and what do they cost?" in outline.text
    assert re.search(r"Answer Of 7 arms, \d", outline.text)
    assert outline.all("title").count({}) == 1  # those of figures have ids
    assert len(outline.all("h1")) == 1


def test_headings_go_down_one_step_at_a_time(outline):
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_ids_are_unique_and_every_link_has_its_target(outline):
    ids = Counter(attributes["id"] for _, attributes in outline.tags if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    links = [attributes["href"] for attributes in outline.all("a")]
    assert links
    assert all(link[0] == "#" and link[1:] in ids for link in links)
    spoken = [a[k] for _, a in outline.tags for k in ("aria-labelledby", "aria-describedby") if k in a]
    assert all(name in ids for names in spoken for name in names.split())


def test_landmarks_and_names_for_who_listens(outline):
    for tag in ("header", "main", "nav", "footer"):
        assert len(outline.all(tag)) == 1, tag
    assert outline.all("html") == [{"lang": "en"}]
    assert outline.all("nav")[0]["aria-label"] == "Contents"
    assert next(a for tag, a in outline.tags if tag == "a") == {"class": "skip", "href": "#answer"}
    regions = [a for _, a in outline.tags if a.get("role") == "region"]
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in regions)
    assert len(outline.all("caption")) == len(outline.all("table"))


def test_every_figure_is_there_with_its_words(page, outline, records):
    figures = make_figures(make_report(records), records)
    assert figures
    for figure in figures:
        assert f'id="figure-{figure.key}"' in page
        for words in (figure.title, figure.caption):
            assert f"{words[0].upper()}{' '.join(words[1:].split())}" in outline.text
    pictures = [a for a in outline.all("svg") if a.get("role") == "img"]
    assert len(pictures) == len(figures)
    assert all(a["aria-labelledby"] for a in pictures)


def test_nothing_comes_from_elsewhere(page, outline):
    policy = outline.all("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    directives = dict(part.strip().split(" ", 1) for part in policy["content"].split(";"))
    assert directives["default-src"] == "'none'"
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert directives["script-src"] == f"'sha256-{digest}'"
    for _, attributes in outline.tags:
        assert not {"src", "srcset", "data", "action", "onclick", "onload", "onerror"} & set(attributes)
    assert not {"link", "iframe", "img", "object", "embed", "video", "audio", "base"} & {tag for tag, _ in outline.tags}
    assert not re.search(r"url\((?!#)|@import|@font-face", page)


def test_the_same_records_give_the_same_bytes(page, records):
    assert made(records, figures=True, suite_text='question = "Why?"\n\n[arms]\n"a < b" = {}\n') == page


def test_the_suites_text_stands_as_it_is_or_not_at_all(page, records):
    assert "<code>question = &quot;Why?&quot;\n\n[arms]\n&quot;a &lt; b&quot; = {}</code>" in page
    assert "The suite's file" in html.unescape(page)
    assert "The suite's file" not in html.unescape(made(records))


def test_trials_that_are_not_ok_have_their_reasons(outline):
    assert "Of 45 planned trials: 41 ok, 3 skipped, 1 diverged." in outline.text
    assert "group norm 3 diverged train: loss is nan in epoch 4" in outline.text
    assert f"int8 2, 3, 4 skipped {table_records.REASON}" in outline.text


def test_a_run_that_is_all_ok_says_so():
    records = [r for r in table_records.sample(3) if r["arm"] not in {"int8"}]
    kept = table_records.of(records, "baseline", "silu")
    assert "All 6 planned trials are ok." in Outline(made(kept)).text


def test_what_the_run_cannot_decide(outline):
    start = outline.text.index("What this run cannot decide", outline.text.index("What this run cannot decide") + 1)
    said = outline.text[start : outline.text.index("How verdicts are made", start)]
    assert "Open comparisons" in said
    assert "never the test split" in said
    assert "values marked est. were not measured" in said
    assert "no margin" in said
    assert "Latency on other machines" in said
    assert "no placebo" not in said


def test_settings_environment_and_commands(outline):
    assert "norm=group(groups=8)" in outline.text
    assert "AMD EPYC 7763 64-Core Processor" in outline.text
    assert "pip install cnnbench==0.1.0 cnnbench run quickstart.toml --seeds 5" in outline.text
    assert "5f1d7e0a9b3c4d2e" * 4 in outline.text


def test_names_and_reasons_never_become_markup(records):
    hostile = []
    for record in records:
        name = {"silu": HOSTILE}.get(record["arm"], record["arm"])
        planned = {**record["planned"], "arms": [{"silu": HOSTILE}.get(arm, arm) for arm in record["planned"]["arms"]]}
        reason = HOSTILE if record["status"] != "ok" else None
        suite = {**record["suite"], "question": HOSTILE, "name": HOSTILE, "file": HOSTILE}
        environment = {**record["environment"], "cpu": HOSTILE, HOSTILE: HOSTILE}
        settings = {HOSTILE: HOSTILE, "model": {"slot": "model", "name": HOSTILE, "options": {HOSTILE: HOSTILE}}}
        hostile.append(
            {
                **record,
                "arm": name,
                "planned": planned,
                "reason": reason,
                "suite": suite,
                "environment": environment,
                "settings": settings,
                "changes": HOSTILE,
                "budget": HOSTILE,
                "device": HOSTILE,
            }
        )
    page = made(hostile, suite_text=f"</pre></code>{HOSTILE}")
    outline = Outline(page)
    assert outline.all("img") == []
    assert len(outline.all("script")) == 1
    assert "\x1b" not in page
    assert not any(name.startswith("on") for _, attributes in outline.tags for name in attributes)


def test_runs_without_a_baseline_and_runs_that_failed_still_have_a_page(records):
    alone = changed(table_records.of(records, "silu", "mixup"), reference=None, role="arm")
    assert "</html>" in made(alone)
    failed = changed(records, status="failed", reason="no space left", metrics={})
    text = Outline(made(failed)).text
    assert "No trial is ok, so there is nothing to answer with." in text
    assert "Of 45 planned trials: 45 failed." in text


def test_several_datasets_have_an_answer_each(records):
    planned = {**records[0]["planned"], "datasets": ["digits", "moons"]}
    several = [
        {**record, "key": f"{name}{record['key']}", "dataset": name, "planned": planned}
        for name in ("digits", "moons")
        for record in records
    ]
    outline = Outline(made(several))
    assert "On digits: Of 7 arms" in outline.text
    assert "On moons: Of 7 arms" in outline.text
    assert "Results on moons" in outline.text
    assert "Of 90 planned trials" in outline.text


def test_the_head_names_every_dataset_and_every_machine(records):
    planned = {**records[0]["planned"], "datasets": ["digits", "digits label_noise=0.2"]}
    several = [
        {
            **r,
            "dataset": name,
            "planned": planned,
            "environment": {**r["environment"], "cores_usable": 2 + r["seed"] % 2},
        }
        for name in planned["datasets"]
        for r in records
    ]
    said = Outline(made(several)).text
    assert "Datasets digits, digits label_noise=0.2" in said
    machine = "cpu, AMD EPYC 7763 64-Core Processor"
    assert f"Machines {machine}, 2 cores; {machine}, 3 cores" in said
    assert f"{machine}, 2 cores and {machine}, 3 cores; " in said
    lead = r"Answer Over 2 datasets, the interquartile mean change of accuracy is: .*? On digits: Of 7 arms"
    assert re.search(lead, said)
    assert "Nothing follows for other datasets: with 7 arms that takes at least" in said


def test_without_intervals_none_is_explained():
    said = Outline(made(table_records.of(table_records.sample(1), "baseline", "silu"))).text
    assert "Means over seeds;" in said
    assert "Δ: difference from baseline in the same seeds." in said
    assert "± its" not in said


def test_names_may_break_at_their_parts_alone(records):
    renamed = [{**r, "arm": {"silu": "norm=group(groups=4),act=a<b"}.get(r["arm"], r["arm"])} for r in records]
    planned = {**records[0]["planned"], "arms": [*dict.fromkeys(r["arm"] for r in renamed)]}
    page = made(changed(renamed, planned=planned))
    name = "norm=<wbr>group(<wbr>groups=<wbr>4),<wbr>act=<wbr>a&lt;b"
    assert page.count(f'<th scope="row">{name}</th>') == 1
    assert f"<span>{name}</span>" in page


def test_seeds_added_as_needed_are_told_of_and_asked_for_again(records):
    planned = {**records[0]["planned"], "looks": [3, 5]}
    said = Outline(made(changed(records, planned=planned))).text
    assert "after looks at 3, 5 seeds" in said
    assert "cnnbench run quickstart.toml --seeds auto" in said


def test_no_records_no_page(records):
    with pytest.raises(UsageError, match="no records"):
        html_page(make_report(records), [], ())


def test_a_page_is_small(page):
    assert len(page.encode()) < 2_000_000
