"""One figure over several datasets, against scipy, published tables and simulation; and the sheet of them."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import friedmanchisquare, trim_mean, wilcoxon
from statsmodels.stats.multitest import multipletests

from cnnbench.aggregate import aggregate, sheet
from cnnbench.frame import by_dataset
from cnnbench.stats.aggregate import critical_difference, friedman, iqm, iqm_interval, ranks, signed_rank


def chance(seed=0):
    return np.random.default_rng(seed)


def test_ranks_start_at_the_best_and_average_ties():
    scores = [[0.9, 0.8, 0.9, 0.1], [1.0, 2.0, 3.0, 4.0]]
    assert ranks(scores, higher=True).tolist() == [[1.5, 3, 1.5, 4], [4, 3, 2, 1]]
    assert ranks(scores, higher=False).tolist() == [[3.5, 2, 3.5, 1], [1, 2, 3, 4]]


@pytest.mark.parametrize("decimals", [0, 6])  # with ties and without
def test_the_statistics_are_friedmans_and_iman_and_davenports(decimals):
    scores = chance().normal(0, 1, (6, 4)).round(decimals)
    found = friedman(ranks(scores, higher=True), chance())
    expected = friedmanchisquare(*scores.T).statistic
    assert found.chi2 == pytest.approx(expected)
    assert found.f == pytest.approx(5 * expected / (6 * 3 - expected))  # Demsar 2006, section 3.2.2
    assert found.df == (3, 15)
    if decimals:
        assert found.p == pytest.approx(found.p_f, abs=0.03)


def test_friedmans_test_of_demsars_example():
    """Demsar 2006, table 6: average ranks 3.143, 2.000, 2.893, 1.964 of four classifiers on 14 data sets."""
    scores = np.array(
        [
            [0.763, 0.768, 0.771, 0.798],
            [0.599, 0.591, 0.590, 0.569],
            [0.954, 0.971, 0.968, 0.967],
            [0.628, 0.661, 0.654, 0.657],
            [0.882, 0.888, 0.886, 0.898],
            [0.936, 0.931, 0.916, 0.931],
            [0.661, 0.668, 0.609, 0.685],
            [0.583, 0.583, 0.563, 0.625],
            [0.775, 0.838, 0.866, 0.875],
            [1.000, 1.000, 1.000, 1.000],
            [0.940, 0.962, 0.965, 0.962],
            [0.619, 0.666, 0.614, 0.669],
            [0.972, 0.981, 0.9751, 0.975],
            [0.957, 0.978, 0.946, 0.970],
        ]
    )
    ranked = ranks(scores, higher=True)
    assert ranked.mean(axis=0) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=0.001)
    found = friedman(ranked, chance())
    # The paper's chi2 of 9.28 and F of 3.69 leave the correction for ties out; with it both are larger.
    assert 9.28 < found.chi2 < 10.3
    assert found.p < 0.05
    assert critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=0.005)  # the paper's CD at 0.10


def test_nemenyis_critical_values_are_those_printed():
    """Demsar 2006, table 5 (a), alpha = 0.05."""
    values = [critical_difference(k, 1) / math.sqrt(k * (k + 1) / 6) for k in range(2, 11)]
    assert values == pytest.approx([1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164], abs=0.0016)


def test_what_has_no_ranks_to_compare_is_not_tested():
    assert friedman([[1.0, 2.0]], chance()) is None
    assert friedman([[1.0], [1.0]], chance()) is None
    assert friedman([[1.5, 1.5], [1.5, 1.5]], chance()) is None


def test_datasets_that_all_agree_are_the_strongest_evidence_there_can_be():
    found = friedman(np.tile([1.0, 2.0, 3.0], (3, 1)), chance())
    assert found.f == math.inf
    assert found.p == 1 / 36  # one of the 3!^2 ways for the others to follow the first


@pytest.mark.parametrize(
    "scores",
    [
        [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0]],
        [[1.0, 2.0, 2.0], [1.0, 3.0, 2.0], [5.0, 5.0, 1.0], [1.0, 2.0, 3.0]],
        [[0.0, 1.0, 2.0, 3.0], [3.0, 1.0, 2.0, 0.0]],
    ],
)
def test_of_few_arms_on_few_datasets_every_order_of_all_datasets_is_counted(scores):
    seen = friedmanchisquare(*zip(*scores, strict=True)).statistic
    tables = product(*(list(permutations(row)) for row in scores))
    at_least = [friedmanchisquare(*zip(*table, strict=True)).statistic >= seen - 1e-9 for table in tables]
    assert friedman(ranks(scores, higher=True), chance()).p == pytest.approx(np.mean(at_least), abs=1e-12)


@pytest.mark.parametrize("datasets", [2, 3])
def test_arms_that_do_not_differ_are_called_different_in_five_percent_at_most(datasets):
    """The F distribution would call 17 to 20 % of the tables of two or three datasets."""
    calls = 0
    rng = chance(datasets)
    for _ in range(300):
        calls += friedman(ranks(rng.normal(0, 1, (datasets, 3)), higher=True), rng).p <= 0.05
    assert calls / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


@given(arrays(float, st.integers(2, 12), elements=st.floats(-9, 9), unique=True).filter(lambda a: (a != 0).all()))
def test_signed_ranks_are_wilcoxons(differences):
    if len(set(np.abs(differences))) < len(differences):
        return  # scipy's exact distribution knows no ties
    assert signed_rank(differences, chance()) == pytest.approx(wilcoxon(differences, method="exact").pvalue)


def test_signed_ranks_with_ties_and_zeros_count_the_patterns_that_there_are():
    # Without the zero, ranks 1.5, 1.5, 3: the sums of signs are 6 or -6 in two of eight patterns.
    assert signed_rank([0.0, 1.0, 1.0, 2.0], chance()) == 2 / 8
    # Ranks 1 to 4, of which ten patterns reach |-1 - 2 + 3 + 4|; with the zero ranked too it would be twelve.
    assert signed_rank([0.0, -1.0, -2.0, 3.0, 4.0], chance()) == 10 / 16
    assert signed_rank([0.0, 0.0], chance()) == 1.0


@given(arrays(float, st.integers(1, 40), elements=st.floats(-1e6, 1e6)))
def test_the_interquartile_mean_is_scipys_trimmed_mean(values):
    assert iqm(values) == pytest.approx(trim_mean(values, 0.25), rel=1e-9, abs=1e-9)


def test_the_interval_of_equal_values_has_no_width_and_one_seed_has_no_interval():
    found = iqm_interval([[0.25, 0.25], [0.25, 0.25, np.nan]], chance())
    assert (found.mean, found.low, found.high, found.n) == (0.25, 0.25, 0.25, 4)
    lone = iqm_interval([[1.0, 2.0, 3.0], [4.0]], chance())
    assert (lone.mean, lone.low, lone.high, lone.n) == (2.5, None, None, 4)
    assert iqm_interval([[np.nan]], chance()) is None


def test_seeds_are_drawn_within_their_dataset_alone():
    """Datasets far apart say nothing of the noise of seeds."""
    rows = [chance(place).normal(100.0 * place, 1e-3, 5) for place in range(4)]
    found = iqm_interval(rows, chance())
    assert found.high - found.low < 0.01


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize(("datasets", "apart", "seeds"), [(3, 0.0, 5), (6, 1.0, 3), (6, 1.0, 10)])
def test_the_interval_covers(skewed, datasets, apart, seeds):
    """300 simulations each: within 2 pp of 95 %, and three standard errors."""
    rng = chance(seeds)
    own = np.linspace(-apart, apart, datasets)[:, None]

    def draw(n):
        return own + (rng.exponential(1, (datasets, n)) - 1 if skewed else rng.normal(0, 1, (datasets, n)))

    truth = iqm(draw(40_000))
    held = 0
    for _ in range(300):
        found = iqm_interval(list(draw(seeds)), rng, resamples=500)
        held += found.low <= truth <= found.high
    assert abs(held / 300 - 0.95) <= 0.02 + 3 * math.sqrt(0.05 * 0.95 / 300)


ARMS = {"baseline": 0.0, "mixup": 0.02, "group norm": -0.01, "placebo": 0.0}


def records(datasets, seeds=4, shifts=ARMS, metrics=("accuracy",), **planned):
    """Every arm on every dataset: its shift and a little noise beside what dataset and seed bring."""
    rng = chance(1)
    labels = [f"data {place}" for place in range(datasets)]
    found = []
    for label in labels:
        level = rng.uniform(0.5, 0.9)
        for seed in range(seeds):
            luck = rng.normal(0, 0.05)
            for arm, shift in shifts.items():
                value = level + luck + shift + rng.normal(0, 0.002)
                found.append(
                    {
                        "suite": {"name": "many", "question": "Which?", "sha256": "0" * 64},
                        "arm": arm,
                        "role": arm if arm in {"baseline", "placebo"} else "arm",
                        "reference": None if arm == "baseline" else "baseline",
                        "dataset": label,
                        "seed": seed,
                        "status": "ok",
                        "device": "cpu",
                        "planned": {
                            "arms": list(shifts),
                            "seeds": list(range(seeds)),
                            "datasets": labels,
                            **planned,
                        },
                        "measure": {"primary": metrics[0], "metrics": list(metrics)},
                        "metrics": dict.fromkeys(metrics, value),
                    }
                )
    return found


def texts(found, label):
    (column,) = [column for column in found.columns if column.label == label]
    return [cell.text for cell in column.cells]


def test_each_arm_is_summed_up_over_the_datasets():
    data = records(8)
    found = aggregate(by_dataset(data))
    rows = {row.arm: row for row in found.rows}
    assert [rows[arm].rank for arm in ARMS] == [2.0, 1.0, 3.0, None]

    values = {(r["dataset"], r["arm"], r["seed"]): r["metrics"]["accuracy"] for r in data}
    differences = {
        arm: np.array([[values[d, arm, s] - values[d, "baseline", s] for s in range(4)] for d in found.datasets])
        for arm in ("mixup", "group norm")
    }
    assert rows["mixup"].difference.mean == pytest.approx(trim_mean(differences["mixup"].ravel(), 0.25))
    assert rows["mixup"].difference.low > 0 > rows["group norm"].difference.high
    assert rows["group norm"].wins.mean == np.mean(differences["group norm"] > 0)
    p = [wilcoxon(rows_of.mean(axis=1), method="exact").pvalue for rows_of in differences.values()]
    assert [rows[arm].p for arm in differences] == pytest.approx(multipletests(p, method="holm")[1])
    assert rows["mixup"].counts == {"better": 8}
    assert rows["baseline"].difference is None
    assert rows["placebo"].p is None


def test_the_sheet_has_a_row_for_each_arm_and_says_what_its_figures_are():
    found = sheet(by_dataset(records(8)))
    assert found.key == "aggregate"
    assert texts(found, "arm") == list(ARMS)
    assert texts(found, "rank") == ["2.00", "1.00", "3.00", "–"]
    assert texts(found, "Δ accuracy")[0] == ""
    assert texts(found, "Δ accuracy")[1].startswith("+1.981 ± 0.")
    assert texts(found, "better") == ["", "8", "0", ""]
    assert texts(found, "p") == ["", "0.016", "0.016", ""]
    (ranked,) = (note for note in found.notes if "Friedman" in note)
    assert "the ranks agree on all datasets, p < 0.001" in ranked
    assert "∞" not in ranked
    assert ranked.endswith("the arms' ranks differ on these 8 datasets.")
    assert any("not what other datasets would" in note for note in found.notes)
    assert any("apart differ (Nemenyi" in note for note in found.notes)


def test_few_datasets_do_not_speak_for_others():
    found = sheet(by_dataset(records(3)))
    assert "p" not in [column.label for column in found.columns]
    assert any("3 datasets can't show" in note and "at least 7" in note for note in found.notes)
    assert not any("Nemenyi" in note for note in found.notes)


def test_no_p_is_promised_where_datasets_without_values_leave_too_few():
    data = records(7)
    for record in data:
        if record["dataset"] in {"data 1", "data 2"}:
            record |= {"status": "oom", "metrics": {}}
    found = sheet(by_dataset(data))
    assert "p" not in [column.label for column in found.columns]
    assert not any(note.startswith("p:") for note in found.notes)
    assert any("5 datasets can't show" in note and "at least 7" in note for note in found.notes)


def test_an_arm_that_failed_on_a_dataset_leaves_it_out_of_the_ranks_alone():
    data = records(7)
    for record in data:
        lost = record["dataset"] == "data 1" and record["arm"] == "group norm" and record["seed"] == 0
        if lost or (record["dataset"] == "data 2" and record["arm"] == "mixup"):
            record |= {"status": "oom", "metrics": {}}
    found = aggregate(by_dataset(data))
    rows = {row.arm: row for row in found.rows}
    assert found.ranked == tuple(f"data {place}" for place in (0, 1, 3, 4, 5, 6))
    assert (rows["mixup"].difference.n, rows["group norm"].difference.n) == (24, 27)
    assert sum(rows["mixup"].counts.values()) == 6
    assert any("Left out of the ranks" in note and "data 2" in note for note in sheet(by_dataset(data)).notes)


def test_arms_that_share_no_seed_are_not_ranked():
    data = [r for r in records(3) if (r["arm"] == "mixup") == (r["seed"] < 2)]
    found = sheet(by_dataset(data))
    assert set(texts(found, "rank")) == {"–"}
    assert texts(found, "Δ accuracy")[1] == "–"


def test_one_seed_gives_differences_without_an_interval():
    found = sheet(by_dataset(records(3, seeds=1)))
    assert "±" not in "".join(texts(found, "Δ accuracy"))


def test_times_are_summed_up_as_ratios():
    data = records(3, shifts={"baseline": 0.0, "half": 0.0})
    for record in data:
        ratio = 0.5 if record["arm"] == "half" else 1.0
        record["metrics"] = {"latency_b1_ms": record["metrics"]["accuracy"] * ratio, "latency_b1_ratio": ratio}
        record["measure"] = {"primary": "latency", "metrics": ["latency"], "latency": {"batch_sizes": [1]}}
    found = sheet(by_dataset(data))
    (column,) = [column for column in found.columns if column.label.startswith("ratio")]
    assert column.unit == "×"
    assert column.cells[1].order == pytest.approx(0.5, rel=0.01)
    assert texts(found, "rank") == ["2.00", "1.00"]


def test_a_metric_without_a_direction_has_no_aggregate():
    assert sheet(by_dataset(records(3, metrics=("params_trainable",)))) is None


def test_looks_are_told():
    found = sheet(by_dataset(records(3, looks=[2, 4])))
    assert any("all else here does not" in note for note in found.notes)
