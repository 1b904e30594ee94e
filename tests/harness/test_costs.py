"""What stages cost, by those that have finished and by earlier records."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cnnbench.costs import Costs, earlier_costs

A, B, C = ("", "a"), ("", "b"), ("", "c")


def test_own_times_come_first_then_running_ones_then_earlier_ones_then_other_arms():
    costs = Costs({("train", A): [1.0, 2.0, 9.0]})
    assert costs.expected("train", A) == 2
    assert costs.expected("train", B) == 2, "another arm's, for want of its own"
    assert costs.expected("train", A, {("train", A): 4.0}) == 4
    costs.learn("train", B, 30.0)
    assert costs.expected("train", B) == 30
    assert costs.expected("train", C) == 30, "what this run has seen, not what was before it"
    assert costs.expected("train", A) == 2
    assert costs.expected("evaluate", A) is None
    assert costs.expected("evaluate", A, {("evaluate", B): 3.0}) == 3


def test_earlier_times_go_at_the_pace_of_this_run():
    costs = Costs({("train", A): [10.0], ("train", B): [100.0], ("evaluate", B): [1.0]})
    costs.learn("train", A, 15.0)
    costs.learn("train", A, 25.0)
    assert costs.expected("train", A) == 20
    assert costs.expected("train", B) == 200
    assert costs.expected("evaluate", B) == 1, "each kind has its own pace"


def test_exact_is_what_was_seen_of_this_very_arm():
    costs = Costs({("train", A): [1.0]})
    assert costs.exact("train", A)
    assert not costs.exact("train", B)
    costs.learn("train", B, 1.0)
    assert costs.exact("train", B)


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.floats(0.001, 1e5)), min_size=1))
def test_an_expectation_lies_among_what_was_seen(seen):
    costs = Costs()
    for arm, seconds in seen:
        costs.learn("train", arm, seconds)
    for arm in (A, B, C):
        own = [seconds for one, seconds in seen if one == arm] or [seconds for _, seconds in seen]
        assert min(own) * (1 - 1e-9) <= costs.expected("train", arm) <= max(own) * (1 + 1e-9)


def record(arm: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "status": "ok",
        "arm": arm,
        "dataset": "",
        "environment": {"cpu": "x", "device": "x", "cores_usable": "2", "python": "3"},
        "settings": {"epochs": 3},
        "seconds": {"train": 2.0},
        **more,
    }


def test_only_like_records_tell():
    machine = {"cpu": "x", "device": "x", "cores_usable": "2", "python": "3.14"}
    settings = {A: {"epochs": 3}, B: {"epochs": 4}}
    records = [
        record(),
        record(seconds={"train": 4.0, "evaluate": 1.0}),
        record(status="skipped"),
        record("b"),  # edited since
        record("gone"),
        record(environment={**machine, "cores_usable": "64"}),
        record(dataset="other"),
    ]
    costs = earlier_costs(records, settings, machine)
    assert (costs.expected("train", A), costs.expected("evaluate", A)) == (3.0, 1.0)
    assert [costs.exact(kind, arm) for arm in (A, B) for kind in ("train", "evaluate", "latency")] == [
        *(True, True, False),
        *(False, False, False),
    ]


def test_an_arm_that_fails_is_known_to_as_far_as_it_will_ever_be():
    machine = {"cpu": "x", "device": "x", "cores_usable": "2"}
    costs = earlier_costs([record(), record("b", status="diverged")], {A: {"epochs": 3}, B: {"epochs": 3}}, machine)
    assert costs.exact("evaluate", B)
    assert not costs.exact("evaluate", A)
    assert costs.expected("train", B) == 2.0, "by the other arm"
