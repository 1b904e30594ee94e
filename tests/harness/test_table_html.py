"""HTML tables, read back with the standard library's parser.

After a change that is meant, write the golden file anew and read the diff:

    CNNBENCH_UPDATE_GOLDEN=1 pytest tests/harness/test_table_html.py
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.sheets import Cell, Column, Sheet
from cnnbench.table_html import sheet_html
from cnnbench.text import printable

_spec = importlib.util.spec_from_file_location("fixed_sheets", Path(__file__).with_name("fixed_sheets.py"))
fixed = importlib.util.module_from_spec(_spec)
sys.modules["fixed_sheets"] = fixed
_spec.loader.exec_module(fixed)

GOLDEN = Path(__file__).parents[1] / "golden" / "table.html"
VOID = {"br", "img", "input", "hr", "meta", "link", "wbr"}


@dataclass
class Node:
    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    def all(self, tag: str) -> list[Node]:
        inner = [one for child in self.children if isinstance(child, Node) for one in child.all(tag)]
        return [self, *inner] if self.tag == tag else inner

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def heard(self) -> str:
        """What a screen reader says of it: images by their labels."""
        if self.attributes.get("role") == "img":
            return self.attributes["aria-label"] or ""
        return "".join(child if isinstance(child, str) else child.heard for child in self.children)


class Reader(HTMLParser):
    """A tree of well-formed HTML; an end tag that closes nothing, or leaves something open, is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("")]

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {tag} {attrs}"
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read(source: str) -> Node:
    reader = Reader()
    reader.feed(source)
    reader.close()
    assert len(reader.open) == 1
    return reader.open[0]


def test_golden():
    text = "\n".join(map(sheet_html, (fixed.TRICKS, fixed.STEPS))) + "\n"
    if os.environ.get("CNNBENCH_UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8", newline="")
    assert text == GOLDEN.read_bytes().decode()


def test_each_cell_has_its_headers_and_the_table_its_caption():
    tree = read(sheet_html(fixed.TRICKS))
    (table,) = tree.all("table")
    assert table.all("caption")[0].text == fixed.TRICKS.caption
    assert read(sheet_html(fixed.STEPS)).all("caption")[0].text == "Gains of the steps"
    heads = table.all("thead")[0].all("th")
    assert [head.attributes["scope"] for head in heads] == ["col"] * 10
    assert [head.text for head in heads][:4] == ["arm", "ok", "verdict", "accuracy [%]"]
    rows = table.all("tbody")[0].all("tr")
    assert len(rows) == 4
    for row in rows:
        first, *cells = [child for child in row.children if isinstance(child, Node)]
        assert (first.tag, first.attributes["scope"]) == ("th", "row")
        assert [cell.tag for cell in cells] == ["td"] * 9
    assert [item.text for item in tree.all("li")] == list(fixed.TRICKS.notes)
    assert read(sheet_html(fixed.STEPS)).all("ul") == []


def test_a_screen_reader_hears_what_a_sign_means():
    row = read(sheet_html(fixed.TRICKS)).all("tr")[2]
    assert [cell.heard for cell in row.all("td")][3:5] == ["−1.11 ± 0.10 worse", "78.04"]
    assert row.all("td")[3].text == "−1.11 ± 0.10 ▼"
    signs = [one for one in read(sheet_html(fixed.TRICKS)).all("span") if one.attributes.get("role") == "img"]
    assert {(one.text, one.attributes["aria-label"]) for one in signs} == {
        ("▲", "better"),
        ("▼", "worse"),
        ("≈", "equivalent"),
    }


def test_a_sign_in_a_name_is_part_of_the_name():
    sheet = Sheet("table", "t", "", (fixed.column("arm", "", "▲ up"), fixed.column("x", "", "1 ▲")))
    (name,) = [one for one in read(sheet_html(sheet)).all("th") if one.attributes["scope"] == "row"]
    assert name.children == ["▲ up"]


def test_strong_cells_are_strong_and_numbers_sort():
    rows = read(sheet_html(fixed.TRICKS)).all("tbody")[0].all("tr")
    assert [strong.text for strong in rows[2].all("strong")] == ["97.55 ± 0.41", "64.6"]
    assert rows[1].all("td")[3].attributes["data-order"] == "-1.11"
    assert "data-order" not in rows[3].all("td")[1].attributes


def test_a_header_tells_its_hint():
    column = Column("d", "", (Cell("1"),), hint='Cohen\'s "d"')
    sheet = Sheet("effects", "t", "", (fixed.column("arm", "", "a"), column))
    assert read(sheet_html(sheet)).all("th")[1].attributes["title"] == 'Cohen\'s "d"'


@given(st.lists(st.text(), min_size=1, max_size=5), st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_back_as_it_was(names, other):
    columns = (fixed.column(other, other, *names), Column("x", "", tuple(Cell(name, True, 1.0) for name in names)))
    tree = read(sheet_html(Sheet("table", other, other, columns, (other, *names))))
    rows = tree.all("tbody")[0].all("tr")
    assert [row.all("th")[0].text for row in rows] == [printable(name) for name in names]
    assert [row.all("td")[0].text for row in rows] == [printable(name) for name in names]
    assert [item.text for item in tree.all("li")] == [printable(note) for note in (other, *names)]
    assert tree.all("caption")[0].text == printable(other)
    assert tree.all("script") == []


def test_nasty_names_are_read_back():
    columns = (fixed.column("arm", "", *fixed.NASTY), fixed.column("x", "", *("1.0" for _ in fixed.NASTY)))
    rows = read(sheet_html(Sheet("table", "t", "", columns))).all("tbody")[0].all("tr")
    assert [row.all("th")[0].text for row in rows] == [printable(name) for name in fixed.NASTY]
