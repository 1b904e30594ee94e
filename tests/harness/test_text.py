from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from cnnbench.errors import words_of
from cnnbench.text import duration, listed, printable, wrapped


def test_printable_is_one_line_without_controls() -> None:
    assert printable("a\tb\r\nc  d") == "a b c d"
    assert printable("\x1b[31mred\x07\udcff\u202e") == "\ufffd[31mred\ufffd\ufffd\ufffd"
    assert printable("naïve 正規化 – ½") == "naïve 正規化 – ½"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (3599.9, "1 h"), (7500, "2 h 5 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_listed() -> None:
    assert listed([1, 2]) == "1, 2"
    assert listed(range(12), 3) == "0, 1, 2 and 9 more"


@settings(deadline=None, max_examples=200)
@given(st.text("ab 正é", max_size=60), st.integers(6, 30), st.sampled_from(["", "  "]))
def test_wrapping_fits_and_loses_nothing(text: str, width: int, indent: str) -> None:
    text = printable(text)
    lines = wrapped(text, width, indent)
    assert max(map(cell_len, lines)) <= width
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(line.startswith(indent) for line in lines[1:])
    assert all(line.strip() for line in lines) or not text


def test_a_group_of_errors_is_told_with_its_first():
    inner = ExceptionGroup("inner", [ValueError("12 channels")])
    assert words_of(ExceptionGroup("outer", [inner, OSError()])) == (
        "ExceptionGroup: outer (2 sub-exceptions), the first of them ExceptionGroup: inner (1 sub-exception), "
        "the first of them ValueError: 12 channels"
    )
