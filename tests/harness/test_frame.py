from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from cnnbench.errors import UsageError
from cnnbench.frame import current, to_frame

PLAN = {"arms": ["baseline", "silu", "mixup"], "seeds": [0, 1]}


def record(arm: str, seed: int, status: str = "ok", **more: Any) -> dict[str, Any]:
    return {
        "schema": 2,
        "key": f"{arm}/{seed}",
        "suite": {"name": "s", "sha256": "1"},
        "arm": arm,
        "role": "baseline" if arm == "baseline" else "arm",
        "changes": "",
        "seed": seed,
        "status": status,
        "reason": None,
        "planned": PLAN,
        "device": "cpu",
        "metrics": {"accuracy": 0.5 + seed / 10, "params": 10},
        **more,
    }


def test_one_row_for_each_planned_trial_in_the_planned_order() -> None:
    records = [record("mixup", 1), record("silu", 0, "failed", reason="no luck"), record("baseline", 1)]
    frame = to_frame(current(records))
    assert list(zip(frame["arm"], frame["seed"], frame["status"], strict=True)) == [
        ("baseline", 0, "pending"),
        ("baseline", 1, "ok"),
        ("silu", 0, "failed"),
        ("silu", 1, "pending"),
        ("mixup", 0, "pending"),
        ("mixup", 1, "ok"),
    ]
    assert frame["role"].tolist() == ["baseline"] * 2 + ["arm"] * 4
    assert frame["reason"].tolist() == ["", "", "no luck", "", "", ""]
    assert frame["accuracy"].dtype == frame["params"].dtype == "float64"


def test_only_ok_trials_have_values_and_null_is_missing() -> None:
    records = [
        record("baseline", 0, metrics={"accuracy": None, "params": 7}),
        record("baseline", 1, "diverged", metrics={"accuracy": 0.1}),
    ]
    frame = to_frame(current(records))
    assert frame["params"].dropna().tolist() == [7.0]
    assert "accuracy" not in frame


def test_latest_record_of_arm_and_seed_counts() -> None:
    old, new = record("baseline", 0, key="old torch"), record("baseline", 0, "failed", key="new torch")
    assert current([old, new]).records["baseline", 0]["status"] == "failed"


@pytest.mark.parametrize(
    "other",
    [{"suite": {"name": "s", "sha256": "0"}}, {"device": "cuda"}, {"planned": {"arms": ["baseline"], "seeds": [0]}}],
)
def test_other_plans_suites_and_devices_are_left_out(other: dict[str, Any]) -> None:
    trials = current([record("silu", 0, **other), record("baseline", 0)])
    assert trials.left_out == 1
    assert list(trials.records) == [("baseline", 0)]


def test_baseline_leads_whatever_the_plan_says() -> None:
    plan = {"arms": ["silu", "plain net"], "seeds": [0]}
    trials = current([record("silu", 0, planned=plan), record("plain net", 0, role="baseline", planned=plan)])
    assert trials.arms == ("plain net", "silu")
    assert trials.baseline == "plain net"


def test_baseline_without_any_record_is_still_known() -> None:
    trials = current([record("silu", 0)])
    assert trials.baseline == "baseline"
    assert trials.roles == {"baseline": "baseline", "silu": "arm", "mixup": "arm"}


def test_records_without_a_plan_are_their_own() -> None:
    trials = current([record("b", 3, planned=None), record("a", 1, planned=None)])
    assert (trials.arms, trials.seeds) == (("b", "a"), (1, 3))


def test_nothing_ran_well() -> None:
    frame = to_frame(current([record("baseline", 0, "failed")]))
    assert list(frame.columns) == ["arm", "role", "changes", "seed", "status", "reason"]
    assert isinstance(frame, pd.DataFrame)


def test_no_records() -> None:
    with pytest.raises(UsageError, match="no records"):
        current([])
