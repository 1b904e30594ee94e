"""What figures draw, before it is drawn: the numbers of the table, and where labels and limits go."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.figures import confusion, curves, curves_plot, forest, interactions, pareto, seeds, steps
from cnnbench.figures.canvas import breadth, folded, legend_rows, rendered
from cnnbench.figures.confusion_plot import DEEPEST
from cnnbench.figures.labels import Box, place
from cnnbench.figures.limits import log_window, wide, window
from cnnbench.figures.style import BLUE, COLOURS, GRID, INK, LOOKS, PAPER, SERIES, SHADE, SMALL, SOFT, VERMILLION
from cnnbench.figures.subject import findings, subjects, verdict_keys
from cnnbench.tables import make_report


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SVG = "{http://www.w3.org/2000/svg}"
table_records = _module("table_records")
designed_records = _module("designed_records")


def subject(records: list[dict[str, Any]]) -> Any:
    return subjects(make_report(records).tables, records)[0]


@pytest.fixture(scope="module")
def run() -> Any:
    records = table_records.timed(table_records.sample())
    return subject([{**r, "measure": {**r["measure"], "margin": {"accuracy": 0.005}}} for r in records])


def test_the_forest_has_the_tables_differences_and_verdicts(run):
    found = forest.data(run)
    rows = {row.arm: row.measured["accuracy"] for row in run.table.rows}
    assert [entry.arm for entry in found.entries] == [arm for arm in rows if arm != "baseline"]
    for entry in found.entries:
        difference, judgement = rows[entry.arm].difference, rows[entry.arm].judgement
        assert (entry.mean, entry.low, entry.high) == pytest.approx(
            [100 * end for end in (difference.mean, difference.low, difference.high)]
        )
        assert entry.n == difference.n
        assert entry.look == ("placebo" if entry.arm == "placebo" else judgement.verdict)
    assert found.margin == pytest.approx((-0.5, 0.5))
    assert found.entries[-1].arm == "placebo"


def test_the_forests_words_name_each_arm_under_its_verdict(run):
    said = findings(run)
    for row in run.table.rows:
        judgement = row.measured["accuracy"].judgement
        if row.role == "arm":
            part = said.partition(f"{judgement.verdict}: ")[2].partition(";")[0]
            assert row.arm in part
    assert "placebo" not in said


def test_a_timed_primary_is_drawn_as_ratios():
    records = [
        {**r, "measure": {**r["measure"], "primary": "latency"}} for r in table_records.timed(table_records.sample())
    ]
    found = forest.data(subject(records))
    assert found.ratio
    assert found.nothing == 1
    assert found.margin[0] < 1 < found.margin[1]
    silu = next(entry for entry in found.entries if entry.arm == "silu")
    assert silu.mean == pytest.approx(1.12, abs=0.05)
    assert silu.text.startswith("×")


@pytest.mark.parametrize(
    ("primary", "heading", "interval"),
    [
        ("accuracy", {}, "Mean with its 95 % paired t interval, n ="),
        ("accuracy", {"statistics": {"interval": "bca"}}, "Mean with its 95 % BCa bootstrap interval, n ="),
        ("accuracy", {"looks": [2, 3]}, "Mean with its 95 % repeated confidence interval at the arm's last look, n ="),
        ("latency", {}, "Geometric mean with its 95 % paired t interval, n ="),
        ("latency", {"looks": [2, 3]}, "Geometric mean with its 95 % repeated confidence interval at the arm's last"),
    ],
)
def test_the_forest_says_what_its_intervals_are(primary: str, heading: dict[str, Any], interval: str):
    planned = {"looks": heading["looks"]} if "looks" in heading else {}
    given = {"statistics": heading["statistics"]} if "statistics" in heading else {}
    records = [
        {**r, **given, "measure": {**r["measure"], "primary": primary}, "planned": {**r["planned"], **planned}}
        for r in table_records.timed(table_records.sample())
    ]
    own = subject(records)
    assert interval in forest.caption(own, forest.data(own))


def test_no_reference_no_forest(run):
    records = table_records.of(table_records.sample(), "baseline")
    assert forest.data(subject(records)) is None


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def test_the_front_holds_those_that_nobody_beats(run):
    planes = {plane.key: plane for plane in pareto.data(run)}
    assert set(planes) == {"params", "flops", "size_bytes", "latency_b1_ms", "latency_b32_ms", "energy_inference_mj"}
    for key, plane in planes.items():
        rows = {row.arm: row.measured for row in run.table.rows}
        taking_part = [point for point in plane.points if point.standing != "placebo"]
        means = {p.arm: (rows[p.arm][key].value.mean, rows[p.arm]["accuracy"].value.mean) for p in taking_part}
        for point in taking_part:
            beaten = any(dominates(other, means[point.arm]) for other in means.values())
            assert (point.standing == "front") == (not beaten), (key, point.arm)
        assert [p.arm for p in plane.points if p.standing == "placebo"] == ["placebo"]
    assert planes["energy_inference_mj"].cost_label.endswith("estimated]")
    assert "int8" not in {point.arm for point in planes["flops"].points}


def test_an_arm_is_behind_the_front_only_where_the_seeds_show_it():
    def record(arm: str, seed: int, accuracy: float, params: float) -> dict[str, Any]:
        base = table_records.sample(1)[0]
        role = "baseline" if arm == "baseline" else "arm"
        return {**base, "arm": arm, "role": role, "seed": seed, "key": f"{arm}{seed}", "planned": planned} | {
            "metrics": {"accuracy": accuracy, "params": params}
        }

    planned = {"arms": ["baseline", "noisy", "clear"], "seeds": [0, 1, 2, 3]}
    records = [record("baseline", s, 0.9 + s / 1000, 100) for s in range(4)]
    records += [record("noisy", s, 0.9 + s / 1000 + (-0.02, 0.01, -0.01, 0.01)[s], 200) for s in range(4)]
    records += [record("clear", s, 0.8 + s / 999, 200) for s in range(4)]
    (plane,) = pareto.data(subject(records))
    assert {p.arm: p.standing for p in plane.points} == {"baseline": "front", "noisy": "open", "clear": "behind"}


def test_every_trial_is_a_dot_or_a_failure(run):
    found = seeds.data(run)
    for strip in found.strips:
        values = run.values(strip.arm, "accuracy")
        base = run.values("baseline", "accuracy")
        assert {dot.seed: dot.value for dot in strip.dots if math.isfinite(dot.value)} == pytest.approx(
            {seed: 100 * value for seed, value in values.items()}
        )
        if strip.arm != "baseline":
            assert [dot.reference for dot in strip.dots] == pytest.approx([100 * base[dot.seed] for dot in strip.dots])
        assert strip.mean == pytest.approx(100 * np.mean(list(values.values())))
    lost = {strip.arm: strip.failed for strip in found.strips if strip.failed}
    assert lost == {"group norm": "1 diverged", "int8": "3 skipped"}
    assert "group norm" in seeds.alt(found)
    assert "1 diverged" in seeds.alt(found)


def with_history(records: list[dict[str, Any]], history: Any, train: Any = lambda r: r["key"]) -> list[dict[str, Any]]:
    return [
        {**r, "details": {"history": history(r)}, "stages": {"train": train(r)}}
        for r in records
        if r["seed"] is not None
    ]


TWO_EPOCHS = [{"epoch": 0, "train_loss": 1.0}, {"epoch": 1, "train_loss": 0.5}]


def test_curves_are_means_over_the_seeds_that_got_so_far():
    def history(record: dict[str, Any]) -> list[dict[str, Any]]:
        last = 2 + record["seed"]  # seed 0 stops first
        return [{"epoch": e, "validation_accuracy": 0.5 + 0.1 * e + 0.01 * record["seed"]} for e in range(last)]

    records = table_records.of(with_history(table_records.sample(3), history), "baseline", "mixup")
    found = curves.data(subject(records))
    assert found.label == "validation accuracy [%]"
    for curve in found.curves:
        assert curve.epochs == (1, 2, 3, 4)
        assert [point.n for point in curve.points] == [3, 3, 2, 1]
        assert curve.points[0].mean == pytest.approx(51)
        assert curve.points[2].mean == pytest.approx(71.5)
        assert curve.points[3].low is None


def test_a_diverged_trial_takes_no_part_in_curves():
    records = with_history(table_records.sample(5), lambda _: TWO_EPOCHS)
    found = curves.data(subject(table_records.of(records, "baseline", "group norm")))
    assert [curve.points[0].n for curve in found.curves] == [5, 4]


def test_one_epoch_is_no_curve():
    records = with_history(table_records.sample(3), lambda _: [{"epoch": 0, "train_loss": 1.0}])
    assert curves.data(subject(records)) is None


def test_shares_and_their_bands_stay_within_0_and_100_percent_and_epochs_are_whole():
    def history(record: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"epoch": e, "validation_accuracy": (0.1, 0.99)[record["seed"]] + e / 100} for e in range(2)]

    run = subject(table_records.of(with_history(table_records.sample(2), history), "baseline", "mixup"))
    found = curves.data(run)
    assert [(point.low, point.high) for curve in found.curves for point in curve.points] == [(0, 100)] * 4
    assert "cut off at 0 and 100 %" in curves.caption(run, found)
    axes = curves_plot.draw(found).figure.axes[0]
    assert -3 < axes.get_ylim()[0] <= 0
    assert 100 <= axes.get_ylim()[1] < 103
    assert [tick for tick in axes.get_xticks() if 0.9 < tick < 2.1] == [1, 2]


def test_there_is_no_epoch_0():
    records = with_history(table_records.sample(2), lambda _: [{"epoch": e, "train_loss": 1.0} for e in range(60)])
    axes = curves_plot.draw(curves.data(subject(table_records.of(records, "baseline")))).figure.axes[0]
    assert axes.get_xlim()[0] > 0


def test_arms_that_share_their_training_are_drawn_once():
    def shared(record: dict[str, Any]) -> str:
        return f"{record['arm'] if record['arm'] == 'mixup' else 'same'}{record['seed']}"

    records = with_history(table_records.sample(2), lambda _: TWO_EPOCHS, shared)
    found = curves.data(subject(table_records.of(records, "baseline", "mixup", "prune 80 %")))
    assert [(curve.arm, curve.others) for curve in found.curves] == [("baseline", ("prune 80 %",)), ("mixup", ())]
    assert found.loss
    assert "prune 80 %" in curves.caption(subject(records), found)


def test_matrices_are_sums_and_their_changes():
    base, other = [[8, 2], [1, 9]], [[4, 6], [0, 10]]
    records = [
        {**r, "details": {"confusion": base if r["arm"] == "baseline" else other}}
        for r in table_records.of(table_records.sample(3), "baseline", "mixup")
    ]
    found = confusion.data(subject(records))
    first, second = found.matrices
    assert first.shares.tolist() == [[80, 20], [10, 90]]
    assert second.arm == "mixup"
    assert second.shares == pytest.approx(np.array([[-40, 40], [-10, 10]]))
    assert found.counts["baseline"] == (3, 60)
    classes = confusion.by_class(subject(records))
    assert [row.changes[0].mean for row in classes.rows] == pytest.approx([-40, 10])
    assert "0 taken for 1 (20.0 %)" in confusion.alt(found)
    assert "higher in 1 (+10.0 pp) and lower in 0 (−40.0 pp)" in confusion.class_alt(classes)
    assert "0 as 0 −40.0 pp" in confusion.alt(found)


def test_the_recalls_caption_has_the_seeds_of_both_arms():
    records = [
        {**r, "details": {"confusion": [[8, 2], [1, 9]]}}
        for r in table_records.of(table_records.sample(5), "baseline", "mixup", "group norm")
    ]
    for r in records:
        if r["arm"] == "group norm" and r["status"] == "ok":
            r["details"] = {"confusion": [[2, 8], [1, 9]]}
    run = subject(records)
    found = confusion.by_class(run)
    assert {change.n for row in found.rows for change in row.changes} == {4, 5}
    assert "n = 4 or 5." in confusion.class_caption(run, found)


def test_a_class_without_images_has_no_share():
    records = [
        {**r, "details": {"confusion": [[0, 0], [1, 9]]}}
        for r in table_records.of(table_records.sample(2), "baseline", "mixup")
    ]
    found = confusion.data(subject(records))
    assert np.isnan(found.matrices[0].shares[0]).all()
    assert confusion.by_class(subject(records)).rows[0].changes == (None,)


def test_of_very_many_classes_only_the_most_changed_are_shown():
    k = 60

    def matrix(arm: str) -> list[list[int]]:
        return [[(10 - i % 7 * (arm != "baseline")) if i == j else int(j == 0) for j in range(k)] for i in range(k)]

    records = [
        {**r, "details": {"confusion": matrix(r["arm"])}}
        for r in table_records.of(table_records.sample(2), "baseline", "mixup")
    ]
    assert confusion.data(subject(records)) is None
    classes = confusion.by_class(subject(records))
    assert len(classes.rows) == 20
    assert classes.of == k
    assert not {int(row.name) % 7 for row in classes.rows} & {0, 1}


def test_interactions_and_steps_hold_the_means_of_the_cells():
    def outcome(cell: tuple[int, ...], seed: int) -> dict[str, float]:
        wobble = 1e-4 * (((seed + 2 * cell[0] + cell[1]) % 5) - 2)  # of mean zero over five seeds
        return {"accuracy": 0.5 + 0.1 * cell[0] + 0.01 * cell[1] + 0.001 * seed + wobble}

    axes = {"norm": ["batch", "group", "layer"], "size": ["64", "4"]}
    (grid,) = interactions.data(subject(designed_records.designed("factorial", axes, outcome)))
    assert grid.rows == ("batch", "group", "layer")
    assert grid.lines == ("64", "4")
    assert [[cell[0] for cell in row] for row in grid.cells] == pytest.approx(
        np.array([[50.2, 51.2], [60.2, 61.2], [70.2, 71.2]])
    )
    found = steps.data(subject(designed_records.designed("cumulative", axes, outcome)))
    assert [step.mean for step in found.steps] == pytest.approx([50.2, 60.2, 70.2, 71.2])
    assert [step.verdict for step in found.steps] == ["", "better", "better", "better"]
    assert [step.text.partition(" ")[0] for step in found.steps[1:]] == ["+10.000", "+10.000", "+1.000"]


boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h),
    st.floats(0, 300),
    st.floats(0, 200),
    st.floats(1, 80),
    st.floats(1, 30),
)
BOUNDS = Box(0, 0, 400, 260)


@given(
    st.lists(st.tuples(st.floats(0, 400), st.floats(0, 260)), max_size=12),
    st.tuples(st.floats(5, 120), st.floats(8, 16)),
    st.lists(boxes, max_size=6),
)
def test_labels_never_cover_anything(points, size, obstacles):
    placed = [box for box in place(points, [size] * len(points), obstacles, BOUNDS) if box]
    for number, box in enumerate(placed):
        assert box.within(BOUNDS)
        assert not any(box.meets(other) for other in [*obstacles, *placed[:number]])


def test_a_label_alone_stands_right_of_its_point():
    (box,) = place([(100.0, 100.0)], [(40.0, 12.0)], [], BOUNDS)
    assert box == Box(107, 94, 147, 106)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_limits_hold_at_least_two_thirds(values):
    low, high = window([(value, value, value) for value in values])
    assert low < high
    assert sum(low <= value <= high for value in values) >= math.ceil(len(values) * 2 / 3 - 1e-9)


def test_one_that_fails_badly_is_left_out_and_a_large_difference_is_not():
    spans = [(value, value - 0.2, value + 0.2) for value in (-0.4, -0.1, 0.0, 0.1, 0.3)]
    low, high = window([*spans, (-40.0, -70.0, -10.0)], [0.0])
    assert -1.5 < low < -0.6
    low, high = window([*spans, (-2.0, -2.2, -1.8)], [0.0])
    assert low < -2.2
    assert high > 0.5


def test_limits_without_values():
    assert window([]) == pytest.approx((-0.06, 1.06))
    assert window([(math.nan,) * 3], [2.0]) == pytest.approx((1.8, 2.2))
    low, high = log_window([(1.0, math.nan, math.nan), (100.0, 50.0, 200.0)])
    assert 0 < low < 1
    assert high > 200
    assert wide([1, 8])
    assert not wide([1, 7])
    assert not wide([0, 8])


@settings(deadline=None)
@given(st.text(min_size=1, max_size=80), st.floats(30, 200))
def test_folded_names_fit(text, width):
    lines = folded(text, width)
    assert 1 <= len(lines) <= 3
    assert all(breadth(line) <= width or len(line) <= 2 for line in lines)


def test_names_fold_at_words_then_at_signs():
    assert folded("norm=group(groups=4), batch_size=4", 150) == ["norm=group(groups=4),", "batch_size=4"]
    assert folded("augmentation.random_erasing", 110)[0].endswith((".", "_"))
    assert folded("a" * 200, 60)[-1].endswith("…")


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def blended(colour: str, below: str, share: float) -> str:
    pairs = [(int(colour[i : i + 2], 16), int(below[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_contrast(mode):
    def shade(colour: Any) -> str:
        return getattr(colour, mode)

    marks = {*SERIES, *(look.colour for look in LOOKS.values())}
    for below in (PAPER, SHADE):
        assert {c.name: contrast(shade(c), shade(below)) for c in marks if contrast(shade(c), shade(below)) < 3} == {}
        for text in (INK, SOFT):
            assert contrast(shade(text), shade(below)) >= 4.5
        for cell in (BLUE, VERMILLION):
            assert contrast(shade(INK), blended(shade(cell), shade(below), DEEPEST)) >= 4.5
    assert contrast(shade(GRID), shade(PAPER)) < 2  # a grid stays behind


def test_colours_and_shapes_differ():
    assert len({colour.light for colour in COLOURS}) == len(COLOURS)
    assert len({colour.dark for colour in COLOURS}) == len(COLOURS)
    assert len({(look.marker, look.hollow) for look in LOOKS.values()}) == len(LOOKS)
    assert len({look.colour for look in LOOKS.values()}) == len(LOOKS)


def test_a_legend_breaks_before_the_edge():
    rows = legend_rows(verdict_keys(LOOKS), 200)
    assert len(rows) > 1
    assert all(offset + 20 + breadth(key.text, SMALL) <= 200 for row in rows for offset, key in row)


def test_the_pixels_of_a_forest_are_where_its_numbers_are(run):
    """The x of every marker, read back from the SVG, lies on one line with the means."""
    found = forest.data(run)
    root = ET.fromstring(rendered(lambda: forest.draw(found), "svg", "x"))
    (axes,) = (group for group in root.iter(f"{SVG}g") if group.get("id") == "axes_1")
    marks = [use for line in axes if line.get("id", "").startswith("line2d") for use in line.iter(f"{SVG}use")]
    drawn = [float(use.get("x")) for use in marks]
    slope, offset = np.polyfit([entry.mean for entry in found.entries], drawn, 1)
    assert slope > 0
    assert [slope * entry.mean + offset for entry in found.entries] == pytest.approx(drawn, abs=0.05)
