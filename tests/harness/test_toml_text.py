"""Plain data as TOML: read back by Python's own reader it is what it was."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.toml_text import suite_text

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALAR = st.one_of(TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(TEXT, VALUE, max_size=5))
def test_data_comes_back_as_it_was(data):
    text, problems = suite_text(data)
    assert problems == []
    assert tomllib.loads(text) == data


def test_what_python_has_in_other_types_is_plain():
    data = {
        "seeds": range(2),
        "lr": np.float32(0.5),
        "n": np.int64(3),
        "on": np.bool_(True),
        "file": Path("a") / "b",
        "t": (1, 2.5),
    }
    text, problems = suite_text(data)
    assert problems == []
    assert tomllib.loads(text) == {"seeds": [0, 1], "lr": 0.5, "n": 3, "on": True, "file": "a/b", "t": [1, 2.5]}
    assert math.isnan(tomllib.loads(suite_text({"x": math.nan})[0])["x"])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "expected a value, got None: leave the key out for its default"),
        ({1, 2}, "expected text, a number, true, false, a list or a table, got set"),
        (1j, "expected text, a number, true, false, a list or a table, got complex"),
        (np.zeros(3), "expected text, a number, true, false, a list or a table, got numpy.ndarray"),
        (2**64, "expected a whole number of at most 64 bits, got 1.84e+19"),
        ("\ud800", "expected text that UTF-8 can hold"),
        ({3: 1}, "expected text as a key, got 3"),
    ],
)
def test_what_has_no_form_in_toml_is_told_with_its_place_and_left_out(value, said):
    text, problems = suite_text({"a": [1, {"b": value}], "c": 1})
    at = ("a", 1, "b")
    assert problems == [(at, said)]
    assert tomllib.loads(text)["c"] == 1


def test_sections_and_techniques_are_written_as_people_write_them():
    data = {"question": "?", "model": {"name": "resnet"}, "arms": {"group norm": {"norm": "group"}}, "seeds": 2}
    assert suite_text(data)[0] == (
        'question = "?"\nmodel = { name = "resnet" }\nseeds = 2\n\n[arms]\n"group norm" = { norm = "group" }\n'
    )
