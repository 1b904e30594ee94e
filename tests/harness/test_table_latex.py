"""LaTeX tables: their source, and what a TeX makes of it where one is installed.

After a change that is meant, write the golden file anew and read the diff:

    CNNBENCH_UPDATE_GOLDEN=1 pytest tests/harness/test_table_latex.py
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.sheets import Sheet
from cnnbench.table_latex import latex
from cnnbench.tex import breakable, em, tex

_spec = importlib.util.spec_from_file_location("fixed_sheets", Path(__file__).with_name("fixed_sheets.py"))
fixed = importlib.util.module_from_spec(_spec)
sys.modules["fixed_sheets"] = fixed
_spec.loader.exec_module(fixed)

GOLDEN = Path(__file__).parents[1] / "golden" / "table.tex"


def has_tex() -> bool:
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        return False
    return subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False).returncode == 0


needs_tex = pytest.mark.skipif(not has_tex(), reason="needs pdflatex and booktabs")


def compiled(folder: Path, source: str, most_overfull: float = 3.0) -> str:
    """The log of a run of pdflatex that has no error and no line that sticks out by more than some points."""
    (folder / "table.tex").write_text(source, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "table.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)
    log = (folder / "table.log").read_text(encoding="latin-1").replace("\n", " ")
    assert done.returncode == 0, log[-3000:]
    assert "! " not in log
    assert "Missing character" not in log
    assert "Float too large" not in log
    assert [float(pt) for pt in re.findall(r"Overfull .hbox .([\d.]+)pt", log) if float(pt) > most_overfull] == []
    return log


def nasty_sheet() -> Sheet:
    names = fixed.NASTY
    values = [f"{place}.{place} ± 0.1 {name}" for place, name in enumerate(names)]
    return Sheet(
        "table",
        names[1],
        " ".join(names),
        (
            fixed.column(names[0], "", *names),
            fixed.column(names[2], "%", *("+1.25 ± 0.10 ▲" for _ in names), strong=(0, 1)),
            fixed.column(names[6], "µJ/image", *values, strong=(0, 3, 6)),
            fixed.column("text", names[4], *reversed(names), strong=(0, 6)),
            fixed.column("", "", *("" for _ in names)),
        ),
        (*names, " ".join(names)),
    )


def test_golden():
    text = latex(fixed.report(fixed.TRICKS, fixed.STEPS)) + "\n"
    if os.environ.get("CNNBENCH_UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="ascii", newline="")
    assert text == GOLDEN.read_bytes().decode("ascii")


@needs_tex
def test_the_golden_file_compiles_as_it_is(tmp_path):
    compiled(tmp_path, GOLDEN.read_text(encoding="ascii"))


@needs_tex
def test_whatever_stands_in_names_notes_and_cells_compiles(tmp_path):
    compiled(tmp_path, latex(fixed.report(nasty_sheet(), replace(nasty_sheet(), key="effects", caption=""))))


@needs_tex
def test_many_rows_and_many_notes_stay_on_their_pages(tmp_path):
    names = [f"arm {number} of many" for number in range(130)]
    wide = [fixed.column(f"quantity {n}", "ms", *("1.234 ± 0.056" for _ in names)) for n in range(9)]
    sheet = Sheet(
        "table", "many", "Which?", (fixed.column("arm", "", *names), *wide), ("A note of some words. " * 9,) * 40
    )
    source = latex(fixed.report(sheet))
    assert source.count(r"\begin{table}[!htbp]") > 3
    assert source.count(r"\label{") == 1
    compiled(tmp_path, source)


@needs_tex
def test_on_its_own_notes_stand_behind_their_table_also_where_they_fill_a_page(tmp_path):
    names = [f"arm {number}" for number in range(14)]
    wide = [fixed.column(f"quantity {n}", "ms", *("1.234 ± 0.056" for _ in names)) for n in range(9)]
    notes = tuple(f"Note {number} of some words. " + "words " * 40 for number in range(20))
    source = latex(fixed.report(Sheet("table", "t", "Which?", (fixed.column("arm", "", *names), *wide), notes)))
    assert source.count(r"\begin{table}") == 2
    # What is written so is written when its page is, in the order of the pages.
    marked = source.replace("Note 0 of", r"\write-1{THE NOTES}Note 0 of")
    marked = marked.replace(r"\bottomrule", r"\bottomrule\noalign{\write-1{THE TABLE}}")
    log = compiled(tmp_path, marked)
    assert 0 < log.rindex("THE TABLE") < log.index("THE NOTES")


@needs_tex
def test_it_goes_into_a_paper_by_input(tmp_path):
    (tmp_path / "one.tex").write_text(latex(fixed.report(fixed.TRICKS)), encoding="ascii")
    (tmp_path / "two.tex").write_text(latex(fixed.report(fixed.STEPS)), encoding="ascii")
    paper = r"""\documentclass[11pt,a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage{booktabs}
\begin{document}
See Table~\ref{tab:tricks-table}. \input{one} More. \input{two} \input{one} The end.
\typeout{to the very end}
\end{document}"""
    assert "to the very end" in compiled(tmp_path, paper)


@needs_tex
def test_widths_are_estimated_on_the_safe_side(tmp_path):
    texts = [c.text for sheet in (fixed.TRICKS, fixed.STEPS) for col in sheet.columns for c in col.cells if c.text]
    texts += [name for name in fixed.NASTY if tex(name).strip()]
    texts += ["".join(map(chr, range(start, start + 8))) for start in range(32, 127, 8)]
    texts += list("±×−–—≈≤≥▲▼‡†µ²½…¿¡£ßæŒøŁαωΔΩé中")
    measured = "\n".join(rf"\setbox0=\hbox{{{tex(text)}}}\typeout{{WIDTH \the\wd0}}" for text in texts)
    log = compiled(tmp_path, rf"\documentclass{{article}}\begin{{document}}{measured}\end{{document}}")
    widths = [float(pt) / 10 for pt in re.findall(r"WIDTH ([\d.]+)pt", log)]
    assert len(widths) == len(texts)
    for text, width in zip(texts, widths, strict=True):
        assert width <= 1.02 * em(text) + 0.02, text
        assert len(text) < 4 or width > 0.6 * em(text), text


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_name_is_ascii_in_one_line_and_commands_in_it_mean_nothing(name):
    source = tex(name)
    assert source.isascii()
    assert source.isprintable()
    assert "--" not in source
    # All that is left are commands of the tables of ``tex``; braces balance and dollars pair at every depth.
    known = (
        r"\\(?:textbackslash|textendash|textemdash|textquote(?:dbl)?(?:left|right)|textquestiondown|textexclamdown|pounds|ldots|dag|ddag|S|ss|ae|AE|oe|OE|o|O|l|L|i|j)\{\}"
        r"|\\[\^~`]\{\}|\\[{}$&%#_]|\{[\[\]*]\}|\{\}|\\texttt\{(?:\\char34|U\+[0-9A-F]{4,6})\}"
        r"|\\[`'^~=u.\"rHvdcb]\{(?:[A-Za-z]|\\[ij])\}"
        r"|\$(?:\\[A-Za-z]+(?:\\[A-Za-z]+)?|[-<>|]|\^\{(?:\\circ|\d)\})\$"
    )
    assert re.search(r"[\\{}$&%#_^~\[\]*<>|\"`]", re.sub(known, "", source)) is None
    assert re.sub(known, "", breakable(name).replace(r"\allowbreak{}", "")) == re.sub(known, "", source)


@given(st.lists(st.text(), min_size=1, max_size=4, unique=True))
@settings(max_examples=50, deadline=None)
def test_every_row_has_its_cells_whatever_the_names(names):
    sheet = Sheet("table", "t", "", (fixed.column("arm", "", *names), fixed.column("x", "%", *("1.0" for _ in names))))
    rows = re.findall(r"^.*1\.0 \\\\$", latex(fixed.report(sheet)), re.MULTILINE)
    assert len(rows) == len(names)
    for row, name in zip(rows, names, strict=True):
        assert len(re.findall(r"(?<!\\)&", row)) == 1
        assert not row.lstrip().startswith(("[", "*"))
        assert tex(name) in row or "parbox" in row


def test_signs_are_set_as_such():
    assert tex("+0.47 ± 0.30 ▲") == r"+0.47 $\pm$ 0.30 $\scriptstyle\bigtriangleup$"
    assert tex("−1.1 µJ ≈ × –") == r"$-$1.1 $\mu$J $\approx$ $\times$ \textendash{}"
    assert tex("Łódź, é, ǰ") == r"\L{}\'{o}d\'{z}, \'{e}, \v{\j}"
    assert tex("中 й") == r"\texttt{U+4E2D} \texttt{U+0439}"


def test_of_a_strong_number_the_mean_is_bold_and_of_a_strong_text_all():
    text = latex(fixed.report(fixed.TRICKS))
    assert r"\textbf{97.55} $\pm$ 0.41" in text
    assert r"\textbf{0.188}" in text
    words = Sheet("table", "t", "", (fixed.column("arm", "", "a"), fixed.column("v", "", "very good", strong=(0,))))
    assert r"\textbf{very good}" in latex(fixed.report(words))


def test_a_difference_stays_beside_its_value_and_each_block_begins_with_the_names():
    blocks = latex(fixed.report(fixed.TRICKS)).split(r"\begin{tabular}")[1:]
    assert len(blocks) > 1
    for block in blocks:
        head = block.split(r"\toprule")[1].split(r"\\")[0]
        assert head.strip().startswith("arm &")
        assert ("latency b1" in head) == ("ratio b1" in head)
        assert ("& accuracy" in head) == (r"$\Delta$ accuracy" in head)


@needs_tex
@pytest.mark.parametrize(
    ("value", "difference"), [("97.1 ± 0.2", "−1.1 ± 0.3 ▼"), ("1234.0 ± 10.2", "−1234.1 ± 10.3 ▼")]
)
def test_the_first_value_and_its_difference_are_in_the_first_block_however_long_names_are(tmp_path, value, difference):
    sheet = Sheet(
        "table",
        "t",
        "Which?",
        (
            fixed.column("arm", "", "baseline", "batch-renormalisation(momentum=0.01, warmup=500)"),
            fixed.column("ok", "", "10/10", "10/10"),
            fixed.column("verdict", "", "", "unresolved (n=10)"),
            fixed.column("accuracy", "%", value, value),
            replace(fixed.column("Δ accuracy", "pp", "", difference), follows=True),
            *(fixed.column(f"quantity {n}", "ms", "1.2 ± 0.1", "1.3 ± 0.1") for n in range(3)),
        ),
    )
    source = latex(fixed.report(sheet))
    assert r"$\Delta$ accuracy" in source.split(r"\begin{tabular}")[1]
    compiled(tmp_path, source, most_overfull=0.5)
