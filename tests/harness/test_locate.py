from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.locate import Place, dotted, line_of, lines_of

TEXT = '''# a comment = [with, "brackets"
question = "one = [" # trailing
model = { name = "resnet", depth = 8 }

[recipe]
"epochs" = 15
optimizer.lr = 0.1
  optimizer.name = 'sgd'
[baseline]
augmentation = [
  "hflip", # first
  { name = "translate",
    pixels = 2 },
]
notes = """
[arms]
x = 1
""" # not a header
[arms."group norm".norm]
name = "group"
[[measure.extra]]
a = 1
[[measure.extra]]
a = 2
[measure.extra.deep]
b = 1979-05-27 07:32:00
'''


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("question",), 2),
        (("model",), 3),
        (("model", "depth"), 3),
        (("recipe",), 5),
        (("recipe", "epochs"), 6),
        (("recipe", "optimizer"), 7),
        (("recipe", "optimizer", "lr"), 7),
        (("recipe", "optimizer", "name"), 8),
        (("baseline", "augmentation"), 10),
        (("baseline", "augmentation", 0), 11),
        (("baseline", "augmentation", 1), 12),
        (("baseline", "augmentation", 1, "pixels"), 13),
        (("baseline", "notes"), 15),
        (("arms",), 19),
        (("arms", "group norm", "norm", "name"), 20),
        (("measure", "extra", 0, "a"), 22),
        (("measure", "extra", 1, "a"), 24),
        (("measure", "extra", 1, "deep", "b"), 26),
        (("recipe", "missing"), 5),
        (("baseline", "augmentation", 1, "missing"), 12),
        (("missing",), 0),
        (("arms", "x"), 19),
    ],
)
def test_lines_of_every_way_to_write_a_key(place: Place, line: int) -> None:
    assert line_of(lines_of(TEXT), place) == line


def test_windows_line_ends_count_once() -> None:
    assert line_of(lines_of("a = 1\r\nb = 2\r\n"), ("b",)) == 2


def test_places_are_written_as_toml_would() -> None:
    assert dotted(("arms", "group norm", "augmentation", 1, "pixels")) == 'arms."group norm".augmentation[1].pixels'
    assert dotted(('a"b',)) == '"a\\"b"'
    assert dotted(()) == ""


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=6)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-99, 99),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text("ab\"'\\#=[]{},\n", max_size=8),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
TABLES = st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3) | VALUES, max_size=4)


def quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class Writer:
    """Writes TOML and remembers on which line it put what: the reference that the scanner is held to."""

    def __init__(self) -> None:
        self.text = ""
        self.lines: dict[Place, int] = {}

    def document(self, table: dict[str, Any]) -> None:
        for key, value in table.items():
            if not isinstance(value, dict):
                self.pair(key, value, ())
                self.text += " # ] } = \n"
        for key, value in table.items():
            if isinstance(value, dict):
                self.text += "\n"
                self.note((key,))
                self.text += f"[ {quoted(key)} ]\n"
                for inner, item in value.items():
                    self.pair(inner, item, (key,))
                    self.text += "\n"

    def pair(self, key: str, value: Any, prefix: Place) -> None:
        self.note((*prefix, key))
        self.text += f"{quoted(key)} = "
        self.value(value, (*prefix, key))

    def value(self, value: Any, place: Place) -> None:
        if isinstance(value, list):
            self.text += "[\n"
            for i, item in enumerate(value):
                self.text += "# a comment, with ]\n"
                self.note((*place, i))
                self.value(item, (*place, i))
                self.text += ",\n"
            self.text += "]"
        elif isinstance(value, dict):
            self.text += "{ "
            for i, (key, item) in enumerate(value.items()):
                self.text += ", " * bool(i)
                self.pair(key, item, place)
            self.text += " }"
        elif isinstance(value, str) and "\n" in value:
            self.text += '"""\n' + value.replace("\\", "\\\\").replace('"', '\\"') + '"""'
        else:
            self.text += quoted(value)

    def note(self, place: Place) -> None:
        self.lines[place] = self.text.count("\n") + 1


@settings(deadline=None, max_examples=200)
@given(TABLES)
def test_the_scanner_finds_what_a_writer_wrote(table: dict[str, Any]) -> None:
    writer = Writer()
    writer.document(table)
    assert tomllib.loads(writer.text) == table
    assert lines_of(writer.text) == writer.lines


@settings(deadline=None, max_examples=200)
@given(st.text("ab.=[]{}\"'#,\\\n ", max_size=40))
def test_any_text_comes_to_an_end(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in lines_of(text).values())
