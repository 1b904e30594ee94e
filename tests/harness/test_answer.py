"""The answer in words: tables made by hand, one for each case that a reader may meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.answer import answer, change
from cnnbench.columns import text_columns
from cnnbench.quantities import quantities, ratio_beside
from cnnbench.stats.intervals import Estimate
from cnnbench.stats.verdicts import Judgement
from cnnbench.tables import Measured, Row, Table

ACCURACY, SIZE, LATENCY = quantities(["accuracy", "size", "latency"], [1])
RATIO = ratio_beside(LATENCY)
QUANTITIES = (ACCURACY, SIZE, LATENCY, RATIO)


def judged(verdict: str | None, n: int = 10) -> Judgement | None:
    return verdict and Judgement(verdict, None, 0.01, 0.02, 0.01, None, 1.0, None, n)


def estimate(mean: float, half: float | None = None, n: int = 10) -> Estimate:
    return Estimate(mean, None if half is None else mean - half, None if half is None else mean + half, n)


def arm(
    name: str,
    verdict: str | None = None,
    shift: float = 0.0,
    *,
    n: int = 10,
    role: str = "arm",
    reference: str | None = "baseline",
    size: tuple[str, float] | None = None,
    latency: tuple[str, float] | None = None,
    statuses: dict[str, int] | None = None,
) -> Row:
    """An arm whose accuracy differs by ``shift`` ± 0.003; size and latency are a verdict and a factor."""
    difference = None if reference is None else estimate(shift, 0.003, n)
    measured = {
        "accuracy": Measured(estimate(0.97 + shift, 0.004, n), difference, "", judgement=judged(verdict, n)),
        "size_bytes": Measured(
            estimate(size[1] * 100_000 if size else 100_000), None, "", judgement=judged(size[0] if size else None)
        ),
        "latency_b1_ms": Measured(estimate(0.4, 0.01), None, "measured"),
        "latency_b1_ratio": Measured(
            estimate(latency[1], 0.02) if latency else None,
            None,
            "measured",
            judgement=judged(latency[0] if latency else None),
        ),
    }
    if statuses is not None and "ok" not in statuses:
        measured = {key: Measured(None, None, "") for key in measured}
    return Row(name, role, "", reference, statuses or {"ok": n}, measured)


def baseline(**given) -> Row:
    return arm("baseline", role="baseline", reference=None, **given)


def table(*rows: Row, primary: str = "accuracy", **margins: float) -> Table:
    return Table("norms", "Which?", QUANTITIES, primary, tuple(range(10)), rows, (), margins=margins)


def test_arms_are_counted_by_verdict_with_what_they_change():
    said = answer(
        table(
            baseline(),
            arm("SiLU", "better", 0.004),
            arm("mixup", "better", 0.008),
            arm("group norm", "worse", -0.012),
            arm("orthogonal", "equivalent", 0.001),
            arm("cutout", "unresolved", 0.002),
            arm("dropout", "unresolved", -0.002),
            arm("placebo", "unresolved", 0.0, role="placebo"),
            accuracy=0.005,
        )
    )
    assert said == (
        "Of 6 arms, 2 raise accuracy (“mixup” by 0.80 ± 0.30 pp, “SiLU” by 0.40 ± 0.30 pp), 1 lowers it (“group "
        "norm” by 1.20 ± 0.30 pp), 1 makes no difference that matters (within 0.5 pp: “orthogonal”), and 2 stay "
        "undecided with 10 seeds (“cutout”, “dropout”)."
    )


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("better", "SiLU raises accuracy by 0.40 ± 0.30 pp."),
        ("worse", "SiLU lowers accuracy by 0.40 ± 0.30 pp."),
        ("equivalent", "SiLU makes no difference in accuracy that matters (within 0.5 pp)."),
        ("unresolved", "Whether SiLU changes accuracy stays undecided with 10 seeds ({} ± 0.30 pp)."),
    ],
)
def test_one_arm_is_named(verdict, said):
    shift = -0.004 if verdict == "worse" else 0.004
    assert answer(table(baseline(), arm("SiLU", verdict, shift), accuracy=0.005)) == said.format("+0.40")


@pytest.mark.parametrize(
    ("verdict", "two", "three"),
    [
        ("better", "Both arms raise accuracy (a, b).", "All 3 arms raise accuracy (a, b, c)."),
        (
            "equivalent",
            "Neither arm makes a difference in accuracy that matters (a, b).",
            "None of the 3 arms makes a difference in accuracy that matters (a, b, c).",
        ),
        (
            "unresolved",
            "Neither arm is decided in accuracy with 1 seed (a, b).",
            "All 3 arms stay undecided in accuracy with 1 seed (a, b, c).",
        ),
    ],
)
def test_all_arms_of_one_verdict(verdict, two, three):
    for names, said in (("ab", two), ("abc", three)):
        rows = [arm(name, verdict, n=1) for name in names]
        assert answer(table(baseline(), *rows)).replace(" by 0.00 ± 0.30 pp", "") == said


@pytest.mark.parametrize(
    ("counts", "said"), [((9, 10), "9 or 10 seeds"), ((4, 9, 12), "4 to 12 seeds"), ((4, 4), "4 seeds")]
)
def test_undecided_arms_may_have_different_numbers_of_seeds(counts, said):
    rows = [arm(f"arm{place}", "unresolved", n=n) for place, n in enumerate(counts)]
    assert f"decided in accuracy with {said} (arm0, arm1" in answer(table(baseline(), *rows))


def test_a_long_list_is_cut_and_counted():
    said = answer(table(baseline(), *(arm(f"arm{place}", "unresolved") for place in range(9))))
    assert said.endswith("(arm0, arm1, arm2, arm3, arm4, arm5 and 3 more).")


def test_the_reference_is_named_where_it_is_not_the_baseline():
    said = answer(table(baseline(), arm("SiLU", "better", 0.004), arm("both", "worse", -0.01, reference="SiLU")))
    assert "1 lowers it (both by 1.00 ± 0.30 pp against SiLU)" in said


def test_names_are_quoted_all_or_none():
    said = answer(table(baseline(), arm("a, b", "unresolved"), arm("c\x1b[31m", "unresolved")))
    assert "(“a, b”, “c\ufffd[31m”)" in said
    said = answer(table(baseline(), arm("group norm", "better", 0.01), arm("SiLU", "better", 0.02, reference="both")))
    assert "(“SiLU” by 2.00 ± 0.30 pp against “both”, “group norm” by" in said
    assert "(norm=layer, SiLU)" in answer(table(baseline(), arm("norm=layer", "unresolved"), arm("SiLU", "unresolved")))


def test_arms_without_a_trial_or_without_a_verdict_are_told_apart():
    said = answer(
        table(
            baseline(),
            arm("a", "better", 0.01),
            arm("b", None),
            arm("c", None, statuses={"failed": 10}),
            arm("d", None, statuses={"skipped": 10}),
        )
    )
    assert said.endswith("1 cannot be compared (b), and 2 have no trial that is ok (c, d).")


def test_nothing_to_compare():
    failed = {"failed": 10}
    assert answer(table(baseline(statuses=failed), arm("a", None, statuses=failed))).startswith("No trial is ok")
    assert answer(table(baseline(statuses=failed), arm("a"))) == (
        "No trial of baseline is ok, so there is nothing to compare."
    )
    assert answer(table(baseline(), arm("a", None, statuses=failed))) == (
        "No trial of the arm is ok, so there is nothing to compare."
    )
    assert answer(table(arm("a", reference=None), arm("b", reference=None))) == (
        "The run has no baseline, so no arm can be called better or worse."
    )
    assert answer(table(baseline(), arm("placebo", "unresolved", role="placebo"))) == (
        "There is nothing to compare with: baseline alone has accuracy 97.00 ± 0.40 % over 10 seeds."
    )


def test_a_quantity_that_is_not_judged_has_no_answer():
    assert answer(table(baseline(), arm("a"))) == (
        "There is no verdict on accuracy: the table has values and differences alone."
    )


def test_an_unfinished_run_says_so():
    said = answer(table(baseline(), arm("a", "unresolved", n=3, statuses={"ok": 3, "pending": 7})))
    assert said.endswith("with 3 seeds (0.00 ± 0.30 pp). 7 of 20 trials have not run yet.")
    said = answer(table(baseline(), arm("a", "unresolved", n=9, statuses={"ok": 9, "pending": 1})))
    assert said.endswith("1 of 20 trials has not run yet.")


def test_what_costs_less_among_the_arms_that_are_not_worse():
    rows = [
        arm("int8", "equivalent", size=("better", 0.27), latency=("better", 0.47)),
        arm("wide", "better", 0.01, size=("worse", 3.0)),
        arm("slim", "equivalent", size=("better", 0.5), latency=("unresolved", 0.9)),
        arm("tiny", "worse", -0.03, size=("better", 0.1), latency=("better", 0.2)),
    ]
    assert answer(table(baseline(), *rows)).endswith(
        "Of the 3 shown better or equivalent, 2 cost less: int8 (size ×0.27, latency b1 ×0.47), slim (size ×0.50)."
    )
    assert answer(table(baseline(), rows[0])).endswith(
        "that matters. It costs less as well (size ×0.27, latency b1 ×0.47)."
    )
    assert answer(table(baseline(), rows[2], rows[3])).endswith(
        "The one shown better or equivalent costs less as well (size ×0.50)."
    )
    assert "less" not in answer(table(baseline(), rows[1], rows[3]))


def test_latency_as_the_question_is_answered_by_its_ratio():
    rows = [arm("int8", latency=("better", 0.47)), arm("SiLU", latency=("worse", 1.12))]
    assert answer(table(baseline(), *rows, primary="latency_b1_ms")) == (
        "Of 2 arms, 1 lowers latency b1 (int8 to ×0.470 ± 0.020) and 1 raises it (SiLU to ×1.120 ± 0.020)."
    )
    same = table(baseline(), arm("SiLU", latency=("equivalent", 1.0)), primary="latency_b1_ms", latency_b1_ms=0.02)
    assert answer(same) == "SiLU makes no difference in latency b1 that matters (within 2 %)."


@pytest.mark.parametrize(
    ("metric", "margin", "said"),
    [
        ("max_difference", 0.001, "within 0.001"),
        ("agreement", 0.005, "within 0.5 pp"),
        ("memory", 2.0, "within 2 MiB"),
        ("throughput", 0.02, "within 2 %"),
    ],
)
def test_the_margin_is_in_the_quantitys_own_unit_but_for_times(metric, margin, said):
    (quantity,) = quantities([metric], [1])
    rows = [
        Row(name, name if name == "baseline" else "arm", "", reference, {"ok": 5}, {quantity.key: measured})
        for name, reference, measured in (
            ("baseline", None, Measured(estimate(1.0), None, "")),
            ("int8", "baseline", Measured(estimate(1.0), estimate(0.0), "", judgement=judged("equivalent"))),
        )
    ]
    made = Table("s", "?", (quantity,), quantity.key, (0,), tuple(rows), (), margins={quantity.key: margin})
    assert answer(made) == f"int8 makes no difference in {quantity.label} that matters ({said})."


def test_a_lone_difference_has_no_more_decimals_than_its_values():
    (nll,) = quantities(["nll"], [1])
    rows = [
        Row("baseline", "baseline", "", None, {"ok": 1}, {"nll": Measured(estimate(11.0, n=1), None, "")}),
        Row(
            "a",
            "arm",
            "",
            "baseline",
            {"ok": 1},
            {"nll": Measured(estimate(10.0004, n=1), estimate(-0.9996, n=1), "", judgement=judged("unresolved", 1))},
        ),
    ]
    made = Table("s", "?", (nll,), "nll", (0,), tuple(rows), ())
    assert answer(made) == "Whether a changes NLL stays undecided with 1 seed (−1.0 nats)."
    cells = {column.label: [cell.text for cell in column.cells] for column in text_columns(made)}
    assert cells["NLL"] == ["11.0", "10.0"]
    assert cells["Δ NLL"] == ["", "−1.0"]


def test_change_has_a_sign_and_a_unit():
    one = table(baseline(), arm("a", "worse", -0.01))
    assert change(one, one.rows[1], ACCURACY) == "−1.00 ± 0.30 pp"
    assert change(one, one.rows[0], ACCURACY) == ""


VERDICTS = st.sampled_from(["better", "worse", "equivalent", "unresolved"])


@given(st.lists(st.tuples(VERDICTS, st.floats(-0.05, 0.05)), min_size=1, max_size=9))
def test_no_arm_is_said_to_move_without_a_verdict(verdicts):
    rows = [arm(f"arm{place}", verdict, shift) for place, (verdict, shift) in enumerate(verdicts)]
    said = answer(table(baseline(), *rows))
    moved = {name for name, (verdict, _) in enumerate(verdicts) if verdict in {"better", "worse"}}
    claimed = {place for place in range(len(rows)) if f"arm{place} by " in said or f"arm{place} raises" in said}
    claimed |= {0} if said.startswith("arm0 lowers") else set()
    assert claimed <= moved
    if len(moved) <= 6:
        assert claimed == moved
    assert said.endswith(".")
    assert "  " not in said
