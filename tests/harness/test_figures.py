"""Figures of a report: what they say, that they stand alone, and that they hold for odd runs."""

from __future__ import annotations

import importlib.util
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import matplotlib.image
import pytest

from cnnbench.cli import main
from cnnbench.figures import make_figures, write
from cnnbench.figures.style import COLOURS
from cnnbench.store import Store
from cnnbench.tables import make_report

SVG = "{http://www.w3.org/2000/svg}"


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


table_records = _module("table_records")
designed_records = _module("designed_records")


FEW = ("baseline", "group norm", "mixup", "prune 80 %", "placebo")


def few(seeds: int) -> list[dict[str, Any]]:
    """Some arms of ``rich``."""
    return table_records.of(rich(seeds), *FEW)


def rich(seeds: int = 5) -> list[dict[str, Any]]:
    """The quickstart-like run with curves, matrices and a margin."""
    records = []
    for place, record in enumerate(table_records.sample(seeds)):
        hit = 50 - place % 3
        details = {
            **record.get("details", {}),
            "confusion": [[hit, 50 - hit], [2, 48]],
            "history": [
                {"epoch": e, "train_loss": 1 / (e + 1), "validation_loss": 0.5, "validation_accuracy": 0.9 + e / 100}
                for e in range(4)
            ],
        }
        measure = {**record["measure"], "margin": {"accuracy": 0.005}}
        records.append({**record, "details": details, "measure": measure})
    return table_records.timed(records)


def figures(records: list[dict[str, Any]]) -> dict[str, Any]:
    made = make_figures(make_report(records), records)
    assert len({one.key for one in made}) == len(made)
    return {one.key: one for one in made}


def words(svg: str) -> str:
    """All text that is drawn, without the breaks of lines."""
    root = ET.fromstring(svg)
    return re.sub(r"\s", "", "".join("".join(text.itertext()) for text in root.iter(f"{SVG}text")))


@pytest.fixture(scope="module")
def run() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    records = rich()
    return records, figures(records)


def test_a_run_has_every_figure_that_its_records_have_something_for(run):
    _, made = run
    assert list(made) == [
        "forest",
        "pareto-params",
        "pareto-flops",
        "pareto-size-bytes",
        "pareto-latency-b1-ms",
        "pareto-latency-b32-ms",
        "pareto-energy-inference-mj",
        "seeds",
        "curves",
        "confusion",
        "classes",
    ]


def test_designs_add_their_own_figure():
    def outcome(cell: tuple[int, ...], seed: int) -> dict[str, float]:
        return {"accuracy": 0.9 + 0.01 * sum(cell) + 0.001 * (seed % 3) * (1 + cell[0])}

    axes = {"norm": ["batch", "group"], "recipe.batch_size": ["64", "4"]}
    factorial = figures(designed_records.designed("factorial", axes, outcome))
    assert "interactions-1" in factorial
    assert "steps" not in factorial
    assert "group with 4" in factorial["interactions-1"].alt
    assert words(factorial["interactions-1"].svg).count("batch_size=") == 2
    cumulative = figures(designed_records.designed("cumulative", axes, outcome))
    assert "steps" in cumulative
    assert "interactions-1" not in cumulative
    assert "arm 10" in cumulative["steps"].alt


def test_every_figure_is_whole_and_accessible(run):
    for one in run[1].values():
        root = ET.fromstring(one.svg)  # well-formed
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        named = root.get("aria-labelledby").split()
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert set(named) <= set(ids)
        assert root.find(f"{SVG}title").text == one.title
        assert root.find(f"{SVG}desc").text == one.alt
        assert root.get("viewBox").split()[:3] == ["0", "0", "440"]
        assert not re.search(r"(?<![\w-])-\d", one.alt)  # the true minus
        assert one.caption.endswith(".")
        assert one.alt.endswith(".")


def test_text_is_text_of_a_legible_size(run):
    for one in run[1].values():
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", one.svg)]
        assert sizes
        assert min(sizes) >= 11.5  # three quarters of it on a phone


def test_nothing_comes_from_elsewhere(run):
    for one in run[1].values():
        assert set(re.findall(r"https?://[^\s\"'<]+", one.svg)) == {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
        assert not re.search(r"<image|<script|@import|<foreignObject|<metadata|<!DOCTYPE", one.svg)
        assert set(re.findall(r"url\(([^)])", one.svg)) <= {"#"}


def test_ids_differ_between_figures_and_every_link_has_its_target(run):
    every: Counter[str] = Counter()
    for one in run[1].values():
        ids = re.findall(r'\bid="([^"]*)"', one.svg)
        assert len(set(ids)) == len(ids)
        every.update(ids)
        assert set(re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', one.svg)) >= set()
        links = {a or b for a, b in re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', one.svg)}
        assert links <= set(ids)
    assert max(every.values()) == 1


def test_every_colour_is_a_variable_with_both_modes(run):
    known = {colour.light: colour for colour in COLOURS}
    for one in run[1].values():
        sheet = one.svg.partition("<style>")[2].partition("</style>")[0]
        rest = one.svg.replace(sheet, "")
        assert set(re.findall(r"#[0-9a-f]{6}\b", rest)) <= set(known)
        for style in re.findall(r' style="([^"]*)"', rest):
            plain = re.findall(r"(fill|stroke): (#[0-9a-f]{6})", style)
            assert [f"{kind}: var(--own-{known[hex_].name})" in style for kind, hex_ in plain] == [True] * len(plain)
        assert "prefers-color-scheme: dark" in sheet
        assert all(f"var(--figure-{c.name}, {c.dark})" in sheet for c in COLOURS)
        assert all(rule.strip().startswith(("#plot-", "@media", "}")) or not rule.strip() for rule in sheet.split("\n"))


def test_the_same_records_give_the_same_bytes(run):
    records, made = run
    again = figures(records)
    assert {key: one.svg for key, one in again.items()} == {key: one.svg for key, one in made.items()}
    assert again["forest"].png() == made["forest"].png()


def test_settings_of_matplotlib_are_left_alone():
    before = dict(mpl.rcParams)
    figures(few(2))["seeds"].png()
    assert dict(mpl.rcParams) == before


def test_pictures_are_written_side_by_side(run, tmp_path):
    some = [run[1]["forest"], run[1]["classes"]]
    written = write(some, tmp_path / "a" / "b")
    assert [path.name for path in written] == ["forest.svg", "forest.png", "classes.svg", "classes.png"]
    assert written[0].read_text(encoding="utf-8") == some[0].svg
    pixels = mpl.image.imread(io.BytesIO(written[1].read_bytes()))
    assert pixels.shape[1] == pytest.approx(440 / 72 * 200, abs=1)
    assert pixels[2, 2, :3].tolist() == [1.0, 1.0, 1.0]


def test_the_command_writes_figures_beside_the_table(tmp_path, capsys):
    store = Store(tmp_path / "run")
    for record in few(2):
        store.append(record)
    assert main(["report", str(tmp_path / "run"), "--format", "csv", "--figures", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "arm," in said.out.partition("\n")[0]
    assert "10 figures" in said.err
    assert len(list((tmp_path / "out").iterdir())) == 20


def test_names_survive(run):
    odd = {
        "baseline": "base <line> & co",
        "silu": 'a "quoted" $x_1$ name',
        "mixup": "中文 übung",
        "distill": "_x_" * 40,
    }

    def renamed(name: str | None) -> str | None:
        return odd.get(name, name) if name else name

    records = [
        {
            **record,
            "arm": renamed(record["arm"]),
            "reference": renamed(record["reference"]),
            "planned": {**record["planned"], "arms": [renamed(arm) for arm in record["planned"]["arms"]]},
        }
        for record in run[0]
    ]
    made = figures(records)
    for key in ("forest", "seeds", "pareto-latency-b1-ms"):
        drawn = words(made[key].svg)
        for name in ('a"quoted"$x_1$name', "中文übung", "_x_" * 5):
            assert name in drawn, (key, name)
    assert "base<line>&co" in words(made["seeds"].svg)
    assert made["forest"].png()
    assert "_x_" * 40 in made["forest"].alt


def test_names_of_all_arms_are_drawn(run):
    arms = [re.sub(r"\s", "", arm) for arm in table_records.ARMS]
    for key in ("forest", "seeds", *(key for key in run[1] if key.startswith("pareto"))):
        drawn = words(run[1][key].svg)
        assert [arm for arm in arms if arm not in drawn and (key, arm) != ("forest", "baseline")] in ([], ["int8"])


def without(records: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    return [
        {**r, "metrics": {key: value for key, value in r["metrics"].items() if not key.startswith(keys)}}
        for r in records
    ]


def test_absent_quantities_have_no_figure(run):
    records = [{**r, "details": {}} for r in without(run[0], "latency", "energy", "flops", "params")]
    assert list(figures(records)) == ["forest", "pareto-size-bytes", "seeds"]


ODD = {
    "one seed": lambda: few(1),
    "two seeds": lambda: few(2),
    "one arm": lambda: table_records.of(rich(), "baseline"),
    "no baseline": lambda: [
        {**r, "role": "arm", "reference": None} for r in table_records.of(rich(), "silu", "mixup", "prune 80 %")
    ],
    "baseline failed": lambda: [
        {**r, "status": "failed", "metrics": {}} if r["role"] == "baseline" else r for r in few(3)
    ],
    "one number throughout": lambda: [{**r, "metrics": dict.fromkeys(r["metrics"], 1.0)} for r in few(3)],
    "zeros": lambda: [{**r, "metrics": dict.fromkeys(r["metrics"], 0.0)} for r in few(3)],
    "pending": lambda: [r for r in few(3) if r["arm"] in {"baseline", "mixup"} and r["seed"] == 0],
    "early stopped": lambda: [
        {**r, "details": {**r["details"], "history": r["details"]["history"][: 1 + r["seed"]]}} for r in few(3)
    ],
    "without validation": lambda: [
        {
            **r,
            "details": {
                **r["details"],
                "history": [{"epoch": e, "train_loss": 0.5, "validation_accuracy": None} for e in range(3)],
            },
        }
        for r in few(3)
    ],
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_runs_are_drawn(kind):
    made = figures(ODD[kind]())
    assert made
    for one in made.values():
        ET.fromstring(one.svg)
        assert "nan" not in re.sub(r"<(title|desc)[^>]*>.*?</\1>", "", one.svg).lower().replace("finance", "")
        assert "nan" not in one.alt.replace("nano", "")


def test_a_run_without_a_value_has_no_figure():
    failed = [{**r, "status": "failed", "metrics": {}, "details": {}} for r in few(2)]
    assert figures(failed) == {}


def test_thirty_arms_fit():
    arms = ["baseline", *(f"arm number {place}" for place in range(30))]
    template = [r for r in without(rich(2), "latency", "energy", "flops", "size") if r["arm"] == "baseline"]
    records = []
    for place, arm in enumerate(arms):
        for r in template:
            metrics = {key: value * (1 + place / 1000) for key, value in r["metrics"].items()}
            role = "arm" if place else "baseline"
            planned = {**r["planned"], "arms": arms}
            records.append(
                {**r, "arm": arm, "role": role, "reference": "baseline" if place else None}
                | {"metrics": metrics, "planned": planned, "key": f"{arm}/{r['seed']}"}
            )
    made = figures(records)
    for key in ("forest", "pareto-params", "seeds", "curves"):
        assert all(re.sub(r"\s", "", arm) in words(made[key].svg) for arm in arms[1:]), key


def test_several_datasets_have_figures_each():
    records = []
    some = few(2)
    for label in ("digits", "fashion"):
        planned = {**some[0]["planned"], "datasets": ["digits", "fashion"]}
        records += [{**r, "dataset": label, "planned": planned, "key": r["key"] + label} for r in some]
    made = make_figures(make_report(records), records)
    assert {one.key for one in made} >= {"forest-1-digits", "forest-2-fashion"}
    assert len({one.key for one in made}) == len(made)
    assert all(("digits" in one.title) != ("fashion" in one.title) for one in made)
