"""The report in a real Chromium: no error, no request, sorting, widths, dark mode, contrast, names for who listens."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from cnnbench.figures import make_figures
from cnnbench.report_page import html_page
from cnnbench.tables import make_report


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


chromium = load("chromium")
table_records = load("table_records")

pytestmark = pytest.mark.skipif(
    chromium.executable() is None, reason=f"no Chromium on the PATH (looked for {', '.join(chromium.NAMES)})"
)

LONG = "a_name_without_any_space_that_is_much_wider_than_the_screen_of_a_phone_and_goes_on"

# Contrast as WCAG 2.2 defines it, of every text against the nearest background that is not transparent.
CONTRAST = """
(() => {
  const channels = (css) => css.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const opaque = (css) => channels(css)[3] === undefined || channels(css)[3] === 1;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || element.closest("script, style, title, desc, .unseen")) continue;
    let behind = element;
    while (behind && !opaque(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    const inSvg = element.closest("svg") !== null;
    const style = getComputedStyle(element);
    const front = luminance(channels(inSvg ? style.fill : style.color));
    const back = luminance(channels(getComputedStyle(behind || document.body).backgroundColor));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    found.push({ text: node.textContent.trim().slice(0, 40), inSvg, ratio });
  }
  return found;
})()
"""
# Elements that reach beyond the window and do not lie within a region that scrolls by itself.
OVERFLOWING = """
[...document.querySelectorAll("body *")].filter((e) => {
  const box = e.getBoundingClientRect();
  return box.width > 0 && !e.closest(".unseen, .skip, svg *") && box.right > document.documentElement.clientWidth + 0.5
    && !e.parentElement.closest("[role=region]");
}).map((e) => e.outerHTML.slice(0, 90))
"""
COLUMN = "[...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[{0}].textContent)"
SORTS = "[...document.querySelectorAll('#table thead th')].map((head) => head.getAttribute('aria-sort'))"


def named(records, old, new):
    text = json.dumps(records)
    return json.loads(text.replace(f'"{old}"', json.dumps(new)))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    records = table_records.timed(table_records.sample(), noise=table_records.QUIET)
    records = named(records, "mixup", LONG)
    report = make_report(records)
    page = html_page(report, records, make_figures(report, records), suite_text=f'question = "{"Why? " * 60}"')
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    with chromium.Chromium() as one:
        yield one


@pytest.fixture
def page(browser, file):
    tab = browser.page().open(file)
    yield tab
    tab.close()


def test_it_loads_without_an_error_and_without_a_request(page, file):
    assert page.ask("document.readyState") == "complete"
    assert page.events("Runtime.exceptionThrown") == []
    assert [event["entry"] for event in page.events("Log.entryAdded")] == []
    assert page.events("Runtime.consoleAPICalled") == []
    asked = {event["request"]["url"] for event in page.events("Network.requestWillBeSent")}
    assert asked == {file.as_uri()}


def test_the_policy_forbids_what_the_page_does_not_need(page):
    asked = """new Promise((done) => {
        addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
        fetch("https://example.org").then(() => done("let through"), () => setTimeout(() => done("no policy"), 2000));
    })"""
    assert page.ask(asked) == "connect-src"
    page.ask(
        "const s = document.createElement('script'); s.textContent = 'window.foreign = 1'; document.body.append(s)"
    )
    assert page.ask("window.foreign === undefined")


def test_a_click_on_a_header_sorts_by_the_number_behind_it(page):
    before = page.ask(COLUMN.format(0))
    place = page.ask(
        "[...document.querySelectorAll('#table thead th')].findIndex((h) => h.textContent.startsWith('Δ accuracy'))"
    )
    order = f"[...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[{place}].dataset.order ?? null)"
    click = f"document.querySelectorAll('#table thead button')[{place}].click()"
    page.ask(click)
    values = page.ask(order)
    known = [float(value) for value in values if value is not None]
    assert len(known) > 3
    assert known == sorted(known)
    assert values[len(known) :] == [None] * (len(values) - len(known))  # what has no number comes last
    assert page.ask(SORTS)[place] == "ascending"
    page.ask(click)
    values = page.ask(order)
    known = [float(value) for value in values if value is not None]
    assert known == sorted(known, reverse=True)
    assert values[len(known) :] == [None] * (len(values) - len(known))
    assert page.ask(SORTS).count("none") == len(page.ask(SORTS)) - 1
    page.ask(click)
    assert page.ask(COLUMN.format(0)) == before
    assert set(page.ask(SORTS)) == {"none"}


def test_keys_alone_reach_a_header_and_sort(page):
    for _ in range(60):
        page.press("Tab")
        if page.ask("document.activeElement.matches('#table thead button')"):
            break
    assert page.ask("document.activeElement.closest('th').textContent") == "arm"
    page.press("Enter")
    assert page.ask(SORTS)[0] == "ascending"
    assert page.ask("document.getElementById('sorted').textContent") == "Sorted by arm, ascending"
    first = page.ask(COLUMN.format(0))
    page.press(" ")
    assert page.ask(SORTS)[0] == "descending"
    assert page.ask(COLUMN.format(0)) == first[::-1]
    assert page.ask("document.activeElement.matches('#table thead button')")


def test_the_first_tab_offers_to_skip_to_the_answer(page):
    page.press("Tab")
    assert page.ask("document.activeElement.className") == "skip"
    assert page.ask("document.activeElement.getBoundingClientRect().top") >= 0
    page.press("Enter")
    assert page.ask("document.activeElement.id") == "answer"


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_nothing_is_wider_than_the_window(browser, file, width):
    tab = browser.page(width, 740).open(file)
    try:
        assert tab.ask("document.documentElement.scrollWidth") == width
        assert tab.ask(OVERFLOWING) == []
    finally:
        tab.close()


def test_a_wide_table_scrolls_within_its_own_region_by_keyboard(browser, file):
    tab = browser.page(360, 740).open(file)
    try:
        region = "document.querySelector('#table [role=region]')"
        assert tab.ask(f"{region}.scrollWidth > {region}.clientWidth")
        tab.ask(f"{region}.focus()")
        assert tab.ask(f"document.activeElement === {region}")
        tab.press("ArrowRight")
        assert tab.ask(f"new Promise((done) => setTimeout(() => done({region}.scrollLeft > 0), 300))")
    finally:
        tab.close()


def test_dark_mode_changes_the_colours(browser, file):
    seen = []
    for dark in (False, True):
        tab = browser.page(dark=dark).open(file)
        seen.append(
            tab.ask(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
                " getComputedStyle(document.querySelector('svg text')).fill,"
                " getComputedStyle(document.querySelector('.badge')).color]"
            )
        )
        tab.close()
    assert all(light != dark for light, dark in zip(*seen, strict=True))


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_a_contrast_of_4_5_to_1(browser, file, dark):
    tab = browser.page(dark=dark).open(file)
    try:
        found = tab.ask(CONTRAST)
    finally:
        tab.close()
    assert len(found) > 200
    assert any(one["inSvg"] for one in found)
    assert [one for one in found if one["ratio"] < 4.5] == []


def test_a_screen_reader_gets_names_for_tables_figures_and_regions(page):
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    seen = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and "role" in node
    ]
    roles = [role for role, _ in seen]
    for role in ("banner", "main", "navigation", "contentinfo"):
        assert roles.count(role) == 1, role
    for role in ("table", "image", "region", "link", "button"):
        names = [name for found, name in seen if found == role]
        assert names, role
        assert all(names), role
    figures = page.ask("document.querySelectorAll('figure svg[role=img]').length")
    assert sum(role == "image" and len(name) > 10 for role, name in seen) >= figures > 1
    assert ("columnheader", "arm") in seen
    assert ("rowheader", "baseline") in seen


def test_without_script_the_table_is_all_there(browser, file):
    tab = browser.page()
    try:
        tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.open(file)
        root = tab.call("DOM.getDocument")["root"]["nodeId"]
        rows = tab.call("DOM.querySelectorAll", nodeId=root, selector="#table tbody tr")["nodeIds"]
        buttons = tab.call("DOM.querySelectorAll", nodeId=root, selector="#table button")["nodeIds"]
    finally:
        tab.close()
    assert len(rows) == 9
    assert buttons == []
