"""What fits into a time budget, and what a run under one does and says."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnnbench.costs import Costs
from cnnbench.plan import Plan, PlannedTrial, Stage
from cnnbench.text import seconds_of, seeds_text
from cnnbench.time_budget import before, fit, most_that_fit, needed, trials_text

ARMS = ("baseline", "x", "y")


def make_plan(seeds: int, arms: tuple[str, ...] = ARMS, skip: str | None = None) -> Plan:
    """Arm by arm, each trial a training, an evaluation and a latency."""
    stages, trials = {}, []
    for arm in arms:
        for seed in range(seeds):
            chain = [Stage(f"{kind} {arm} {seed}", kind, {}, (), "") for kind in ("train", "evaluate", "latency")]
            stages |= {stage.key: stage for stage in chain}
            trial: Any = SimpleNamespace(seed=seed, dataset="", arm=SimpleNamespace(name=arm))
            reason = "no" if arm == skip else None
            trials.append(PlannedTrial(trial, f"{arm} {seed}", {s.kind: s.key for s in chain}, reason))
    return Plan(tuple(trials), stages)


def known(train: float = 10.0, latency: float = 1.0, arms: tuple[str, ...] = ARMS) -> Costs:
    kinds = {"train": train, "evaluate": 0.0, "latency": latency}
    return Costs({(kind, ("", arm)): [seconds] for arm in arms for kind, seconds in kinds.items()})


def keys(trials: Any) -> set[str]:
    return {trial.key for trial in trials}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("1h 30min", 5400), ("45s", 45), ("90", 5400), ("1.5H", 5400)],
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "h", "2d", "1h30", "90m5", "nan", "inf", "1e999", "1h,2m", "0s", "1h1h", "5m1h", "1e9h", "1e-3s"],
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="expected a duration such as 90m"):
        seconds_of(text)


@pytest.mark.parametrize("text", ["9999999h", "1" * 400, "366d"])
def test_what_nobody_means(text):
    with pytest.raises(ValueError, match="expected a"):
        seconds_of(text)


@given(st.text())
def test_any_text_is_a_duration_or_refused(text):
    with suppress(ValueError):
        assert 0 < seconds_of(text) < float("inf")


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=10))
def test_seeds_in_words_name_each_of_them(seeds):
    words = seeds_text(seeds).split(" ", 1)[1].split(", ")
    ranges = [word.split("-") for word in words]
    assert {seed for ends in ranges for seed in range(int(ends[0]), int(ends[-1]) + 1)} == seeds


@given(st.lists(st.floats(0, 100), max_size=30), st.floats(-10, 1000))
def test_the_most_that_fits_fits_and_one_more_does_not(times, room):
    def seconds(count: int) -> float:
        return sum(times[:count])

    count = most_that_fit(seconds, len(times), room)
    assert 0 <= count <= len(times)
    assert count == 0 or seconds(count) <= room
    assert count == len(times) or seconds(count + 1) > room


def test_whole_seeds_over_all_arms():
    plan = make_plan(10)
    found = fit(plan, set(), set(), known(), 1, 100)  # 33 s a seed
    assert keys(found.run) == {f"{arm} {seed}" for arm in ARMS for seed in range(3)}
    assert (found.seeds, found.seconds) == (3, 99)
    assert keys(found.run) | keys(found.left) == keys(plan.trials)
    text = "time budget of 1 min 40 s: 9 trials (seeds 0-2 of 3 arms) may take 1 min 39 s; "
    assert before(found, 100) == text + "left out: 21 trials (seeds 3-9 of 3 arms)"


def test_workers_share_what_is_not_exclusive():
    assert fit(make_plan(10), set(), set(), known(), 3, 100).seeds == 7  # 10 s + 3 s a seed


def test_what_is_done_or_on_disk_costs_nothing():
    plan = make_plan(4)
    done = {f"{arm} {seed}" for arm in ARMS for seed in (0, 1)}
    found = fit(plan, done, set(), known(), 1, 40)
    assert keys(found.run) == {f"{arm} 2" for arm in ARMS}
    trained = {key for key in plan.stages if key.startswith("train")}
    assert fit(plan, set(), trained, known(), 1, 12).seeds == 4


def test_where_no_seed_fits_the_baseline_runs_and_the_arms_that_do():
    plan = make_plan(3)
    found = fit(plan, set(), set(), known(), 1, 25)
    assert (keys(found.run), found.seeds, found.seconds) == ({"baseline 0", "x 0"}, 0, 22)
    assert "not even one seed of all arms fits; 2 trials (seed 0 of 2 arms) may take 22 s" in before(found, 25)
    assert not found.fits(25)
    assert keys(fit(plan, set(), set(), known(), 1, -5).run) == {"baseline 0"}


def test_nothing_runs_where_a_seed_is_complete_and_no_other_fits():
    plan = make_plan(3)
    done = {f"{arm} 1" for arm in ARMS} | {"baseline 0"}
    found = fit(plan, done, set(), known(), 1, 15)  # the baseline alone would fit
    assert (found.run, found.seeds, found.seconds) == ((), 0, 22)
    assert keys(found.left) == keys(plan.trials) - done
    assert before(found, 15) == (
        "time budget of 15 s: no further seed of all arms fits: 2 trials (seed 0 of 2 arms) may take 22 s; "
        "left out: 5 trials (seeds 0, 2 of 3 arms)"
    )
    alone = make_plan(1, ("baseline",))
    assert "all" not in before(fit(alone, set(), set(), known(), 1, 5), 5).replace("of all arms", "")


def test_what_was_never_seen_is_measured_by_the_first_seed():
    plan = make_plan(3)
    found = fit(plan, set(), set(), known(arms=("baseline", "x")), 1, 1000)
    assert (keys(found.run), found.seconds) == ({f"{arm} 0" for arm in ARMS}, None)
    assert "is not known yet; 3 trials (seed 0 of 3 arms) go first" in before(found, 1000)
    assert fit(plan, set(), set(), known(arms=("baseline", "x")), 1, 1000, guess=True).seeds == 3


def test_skipped_trials_are_neither_run_nor_left_out():
    found = fit(make_plan(2, skip="x"), set(), set(), known(), 1, 23)
    assert keys(found.run) == {"baseline 0", "y 0"}
    assert keys(found.left) == {"baseline 1", "y 1"}


def test_nothing_to_do():
    plan = make_plan(2)
    found = fit(plan, keys(plan.trials), set(), Costs(), 1, 1)
    assert (found.run, found.left) == ((), ())
    assert before(found, 5) == "time budget of 5 s: nothing is left to run"


@example(2, 26.26224919311864, 0.0, 5, 26.26224919311864, {("baseline", 0)})  # to the last bit what it takes
@given(
    st.integers(1, 12),
    st.floats(0.1, 100),
    st.floats(0, 100),
    st.integers(1, 8),
    st.floats(0, 5000),
    st.sets(st.tuples(st.sampled_from(ARMS), st.integers(0, 11))),
)
def test_arms_never_differ_by_more_than_the_seed_that_does_not_fit(seeds, train, latency, workers, room, done):
    plan, costs = make_plan(seeds), known(train, latency)
    finished = {f"{arm} {seed}" for arm, seed in done}
    found = fit(plan, finished, set(), costs, workers, room)
    open_trials = keys(plan.trials) - finished
    assert keys(found.run) | keys(found.left) == open_trials
    assert not keys(found.run) & keys(found.left)
    complete = any({f"{arm} {seed}" for arm in ARMS} <= finished for seed in range(seeds))
    assert bool(found.run) == bool(found.seeds or (open_trials and not complete))
    assert complete <= (found.seconds <= room or not found.run)  # a complete seed is followed by nothing over budget
    last = max((t.trial.seed for t in found.run), default=-1)
    assert all(t.trial.seed > last for t in found.left) or found.seeds == 0
    if found.seeds:
        assert needed(plan, found.run, (), costs, workers) <= room
    if found.left and found.seeds:
        following = min(t.trial.seed for t in found.left)
        more = [*found.run, *(t for t in found.left if t.trial.seed == following)]
        assert needed(plan, more, (), costs, workers) > room


def test_trials_in_words():
    plan = make_plan(2)
    assert trials_text(plan.trials[:1]) == "1 trial (seed 0 of baseline)"
    assert trials_text(plan.trials) == "6 trials (seeds 0-1 of 3 arms)"
