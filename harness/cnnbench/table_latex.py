"""Sheets as LaTeX: booktabs tables that compile on their own and go into a paper as they are."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cnnbench.tex import breakable, em, tex

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cnnbench.sheets import Cell, Column, Sheet
    from cnnbench.tables import Report

_HEAD: Final = r"""% A table of cnnbench, in plain ASCII. On its own: pdflatex FILE.
% In a paper: \usepackage{booktabs} in the preamble, \input{FILE} in the text. Its blocks are as wide as the text of
% the article class at 10 pt (345 pt); in two columns write table* for table.
\expandafter\ifx\csname @nodocument\endcsname\relax
  % within a paper, whose preamble stands
  \def\cnnbenchend{}\def\cnnbenchpage{}
\else
  \def\cnnbenchend{\end{document}}\def\cnnbenchpage{\clearpage}
  \documentclass{article}
  \usepackage{booktabs}
  \begin{document}
\fi
"""
_TEXT_WIDTH = 345.0
"""Width of a line in pt: of the article class at 10 pt. What most classes of one column have is no narrower."""
_TEXT_HEIGHT = 500.0
"""Height in pt that a float may have, its caption included."""
_SMALL, _FOOTNOTE, _NORMAL = 9.25, 8.5, 10.0
r"""Width of an em in pt in ``\small``, ``\footnotesize`` and captions."""
_GAP = 4.0
r"""``\tabcolsep``, in pt: half of what is between two columns."""
_LINE = 11.5
"""Height in pt of a row."""
_WIDEST_NAME = 110.0
"""In pt; longer names go on in the next line."""
_NARROWEST_NAME = 60.0
"""In pt; names are made so narrow where the first value and its difference then stand in the first block."""
_WORDS = 50.0
"""In pt, of a column of words before the first value, where that still takes more room."""
_BOLD = 1.16
"""How much wider bold digits are."""
_NUMBER = re.compile(r"([+−]?\d+)(\.\d+(?:e−?\d+)?)?(?:( ± )(\d+)(\.\d+)?)?( .*)?", re.DOTALL)


def latex(report: Report, _width: int | None = None) -> str:
    """Each sheet as a ``table`` with caption, label and notes.

    Columns that are wider together than a line stand in blocks, each of which begins with the rows' names; what is
    higher than a page goes on in a further ``table`` under the same number. Besides LaTeX itself only booktabs is
    needed.
    """
    name = report.tables[0].name
    floats = (
        line for sheet in report.sheets for line in ["", *_floats(sheet, f"tab:{_slug(name)}-{_slug(sheet.key)}")]
    )
    return "\n".join([_HEAD.rstrip("\n"), *floats, "", r"\cnnbenchend"])


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "results"


@dataclass(frozen=True)
class _Set:
    """A column as it is set.

    Attributes:
        heads: both lines of its header.
        cells: source of each cell.
        lines: how many lines each cell takes.
        width: in pt.
        side: ``l`` or ``r``, where its cells stand.
        follows: see ``sheets.Column``.
    """

    heads: tuple[str, str]
    cells: tuple[str, ...]
    lines: tuple[int, ...]
    width: float
    side: str
    follows: bool


def _floats(sheet: Sheet, label: str) -> Iterator[str]:
    """A sheet's lines: as many ``table`` environments as its height takes, and its notes in the last or behind it."""
    caption = [breakable(text) for text in (sheet.title, sheet.caption) if text]
    top = 20 + _height(f"{sheet.title}: {sheet.caption}", _NORMAL, 12)
    notes = sum(_height(note, _FOOTNOTE, 9.5) + 1 for note in sheet.notes)
    blocks = list(_tabulars(sheet))
    pages: list[list[str]] = [[]]
    left = _TEXT_HEIGHT - top
    for block, height in blocks:
        if pages[-1] and height > left:
            pages.append([])
            left = _TEXT_HEIGHT - top
        pages[-1].append(block)
        left -= height
    for number, page in enumerate(pages):
        yield r"\begin{table}[!htbp]"
        yield r"\centering\small\sloppy"
        yield rf"\setlength{{\tabcolsep}}{{{_GAP:g}pt}}"
        if number == 0:
            yield rf"\caption{{{': '.join(caption)}}}"
            yield rf"\label{{{label}}}"
        else:
            yield r"\addtocounter{table}{-1}"
            yield rf"\caption{{{caption[0] if caption else ''} (continued)}}"
        yield r"\medskip"
        yield "\n\\par\\medskip\n".join(page)
        if page is pages[-1] and sheet.notes and notes <= left:
            yield r"\par\medskip"
            yield from _notes(sheet.notes)
        yield r"\end{table}"
    if sheet.notes and notes > left:
        yield r"\cnnbenchpage% these notes fill a page, so they stand behind the table and not in it"
        yield from _notes(sheet.notes)


def _notes(notes: Sequence[str]) -> Iterator[str]:
    yield r"{\footnotesize\setlength{\parindent}{0pt}\raggedright"
    yield from (rf"{breakable(note)}\par" for note in notes)
    yield "}"


def _height(text: str, size: float, line: float) -> float:
    """About how high a paragraph is, in pt."""
    return line * math.ceil(1.08 * em(text) * size / _TEXT_WIDTH)


def _tabulars(sheet: Sheet) -> Iterator[tuple[str, float]]:
    """Blocks of columns that fit a line beside the names, each in parts of rows that fit a page, with their heights."""
    names, lead = _lead(sheet.columns)
    room = _TEXT_WIDTH - names.width - 2 * _GAP
    columns = [*lead, *(_set(column, room - 2 * _GAP) for column in sheet.columns[1 + len(lead) :])]
    for block in _blocks(columns, room):
        shown = [names, *block]
        lines = [max(heights) for heights in zip(*(column.lines for column in shown), strict=True)]
        for start, end in _parts(lines):
            yield "\n".join(_tabular(shown, start, end)), _LINE * (sum(lines[start:end]) + 3) + 8


def _lead(columns: Sequence[Column]) -> tuple[_Set, list[_Set]]:
    """The names, and the columns up to the first difference, so narrow that they stand in one block where they can."""
    names = _set(columns[0], _WIDEST_NAME, "l")
    end = next((place for place, column in enumerate(columns) if column.follows), 0) + 1
    plain = [_set(column, math.inf) for column in columns[1:end]]
    narrow = [
        _set(column, _WORDS) if own.side == "l" else own for column, own in zip(columns[1:end], plain, strict=True)
    ]
    for lead in (plain, narrow):
        left = math.floor(_TEXT_WIDTH - 2 * _GAP - _total(lead))
        if left >= min(names.width, _NARROWEST_NAME):
            return _set(columns[0], min(left, _WIDEST_NAME), "l"), lead
    return names, []


def _parts(lines: Sequence[int]) -> Iterator[tuple[int, int]]:
    """From which row to which stand together: as many as a page holds under a caption of some lines."""
    most = int((_TEXT_HEIGHT - 80) / _LINE) - 3
    start = used = 0
    for row, height in enumerate(lines):
        if row > start and used + height > most:
            yield start, row
            start, used = row, 0
        used += height
    yield start, len(lines)


def _blocks(columns: Sequence[_Set], room: float) -> Iterator[list[_Set]]:
    """Columns that fit together; a difference stays with its value as far as both fit."""
    groups: list[list[_Set]] = []
    for column in columns:
        if groups and column.follows and _total([*groups[-1], column]) <= room:
            groups[-1].append(column)
        else:
            groups.append([column])
    block: list[_Set] = []
    for group in groups:
        if block and _total([*block, *group]) > room:
            yield block
            block = []
        block += group
    yield block


def _total(columns: Sequence[_Set]) -> float:
    return sum(column.width + 2 * _GAP for column in columns)


def _tabular(columns: Sequence[_Set], start: int, end: int) -> Iterator[str]:
    yield rf"\begin{{tabular}}{{@{{}}{''.join(column.side for column in columns)}@{{}}}}"
    yield r"\toprule"
    for heads in zip(*(column.heads for column in columns), strict=True):
        if any(heads):
            yield rf"{' & '.join(heads)} \\"
    yield r"\midrule"
    for cells in zip(*(column.cells[start:end] for column in columns), strict=True):
        yield rf"{' & '.join(cells)} \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _set(column: Column, most: float, side: str | None = None) -> _Set:
    """A column of at most so many pt: what is wider is broken into lines."""
    heads = (column.label, f"[{column.unit}]" if column.unit else "")
    texts = [cell.text for cell in column.cells]
    width = max(_points(em(text)) for text in heads)
    if side is None:
        side = "r" if all(re.match(r"[+−–\d]|$", text) for text in texts) else "l"
    cells, cells_width = _aligned(column.cells)
    width = max(width, _points(cells_width))
    if width <= most:
        return _Set((tex(heads[0]), tex(heads[1])), cells, (1,) * len(cells), width, side, column.follows)
    wrapped = [_wrapped(cell.text, most, strong=cell.strong) for cell in column.cells]
    first, second = (_wrapped(head, most)[0] for head in heads)
    return _Set((first, second), tuple(w for w, _ in wrapped), tuple(n for _, n in wrapped), most, "l", column.follows)


def _wrapped(text: str, most: float, *, strong: bool = False) -> tuple[str, int]:
    """Source of a text of at most so many pt, and about how many lines it takes."""
    width = _points(em(text)) * (_BOLD if strong else 1)
    if width <= most:
        return _bold(tex(text), strong), 1
    box = rf"\parbox[t]{{{most:.0f}pt}}{{\raggedright {_bold(breakable(text, 4), strong)}\strut}}"
    return box, math.ceil(1.2 * width / most)


def _points(ems: float) -> float:
    return ems * _SMALL


def _aligned(cells: Sequence[Cell]) -> tuple[tuple[str, ...], float]:
    """Sources and the widest one's width in em: numbers are padded so that points and ± stand under each other.

    Of a number that is strong the mean alone is bold.
    """
    found = [_NUMBER.fullmatch(cell.text) for cell in cells]
    split = [match.groups("") if match else None for match in found]
    whole, fraction, sign, half, half_fraction, words = (
        max((parts[place] for parts in split if parts), key=em, default="") for place in range(6)
    )
    words = words.strip()
    sources = []
    width = em(whole + fraction) * _BOLD + em(sign + half + half_fraction) + em(f" {words}")
    for cell, parts in zip(cells, split, strict=True):
        if parts is None:
            sources.append(_bold(tex(cell.text), cell.strong))
            width = max(width, em(cell.text) * (_BOLD if cell.strong else 1))
            continue
        source = _bold(tex(parts[0] + parts[1]), cell.strong) + _phantom(fraction[len(parts[1]) :])
        if parts[2]:
            source += rf" $\pm$ {_phantom(half[len(parts[3]) :])}{parts[3]}{parts[4]}"
            source += _phantom(half_fraction[len(parts[4]) :])
        elif sign:
            source += rf"\phantom{{ $\pm$ {half}{half_fraction}}}"
        if words:
            own = parts[5].strip()
            source += (
                f"~{tex(own)}"
                if own == words
                else (rf"\rlap{{~{tex(own)}}}" if own else "") + rf"\phantom{{~{tex(words)}}}"
            )
        sources.append(source)
    return tuple(sources), width


def _bold(source: str, strong: bool) -> str:
    return rf"\textbf{{{source}}}" if strong and source else source


def _phantom(text: str) -> str:
    return rf"\phantom{{{tex(text)}}}" if text else ""
