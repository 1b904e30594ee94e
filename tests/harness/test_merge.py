"""Merging: trials of several machines as one run each, in whatever order; what does not belong together is refused."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench import publication
from cnnbench.cli import main
from cnnbench.errors import UsageError
from cnnbench.machines import BORROWED, Machine, folder_names, machine_of
from cnnbench.merge import merge
from cnnbench.store import FILE, Store, open_results
from cnnbench.tables import make_table

SUITE = b'question = "Which?"\ndataset = "digits"\nmodel = "resnet"\nseeds = 3\n[arms]\na = { norm = "group" }\n'
ARMS = ["baseline", "a", "b", "placebo"]
EPYC = {"cpu": "AMD EPYC 7763", "device": "AMD EPYC 7763", "cores_usable": "2", "torch": "2.5.0", "cnnbench": "0.1.0"}
XEON = {**EPYC, "cpu": "Intel Xeon 8370C", "device": "Intel Xeon 8370C"}
TAKEN = {"stopped": "precision", "samples_ms": [1.0] * 9, "steady": True, "ratio": None, "threads": 2, "cpus": [0, 1]}
H200 = {**EPYC, "device": "NVIDIA H200"}


def a_run(seeds=(0, 1, 2), arms=ARMS, *, environment=EPYC, device="cpu", day=1, jitter=0.0, slow=1.0, metrics=None):
    """A run as one machine has it: quality hangs on arm and seed, times on the machine."""
    records = []
    for arm in arms:
        for seed in seeds:
            ms = slow * (1 + len(arm) / 10 + seed / 100)
            records.append(
                {
                    "schema": 2,
                    "key": f"{arm}-{seed}",
                    "suite": {
                        "name": "tiny",
                        "question": "Which?",
                        "sha256": hashlib.sha256(SUITE).hexdigest(),
                        "file": "tiny.toml",
                    },
                    "arm": arm,
                    "role": arm if arm in {"baseline", "placebo"} else "arm",
                    "reference": None if arm == "baseline" else "baseline",
                    "changes": "",
                    "planned": {"arms": list(arms), "seeds": list(seeds)},
                    "measure": {
                        "primary": "accuracy",
                        "metrics": metrics or ["accuracy", "params", "latency"],
                        "latency": {"batch_sizes": [1]},
                    },
                    "seed": seed,
                    "data": "d" * 32,
                    "status": "ok",
                    "reason": None,
                    "metrics": {
                        "accuracy": 0.9 + seed / 100 - len(arm) / 1000 + jitter,
                        "params": 1000.0,
                        "latency_b1_ms": ms,
                        "train_seconds": 3 * ms,
                    },
                    "methods": {"latency_b1_ms": "measured"},
                    "details": {"latency": {"1": {**TAKEN, "interval_ms": [0.9 * ms, 1.1 * ms]}}, "notes": []},
                    "settings": {"dataset": {"name": "digits", "options": {"path": f"/home/{day}/digits"}}},
                    "device": device,
                    "environment": dict(environment),
                    "seconds": {"train": 3 * ms},
                    "finished": f"2026-01-{day:02}T00:00:00+00:00",
                }
            )
    return records


def only(merged):
    (run,) = merged.runs.values()
    return list(run)


def by_label(merged):
    return {machine.label: list(run) for machine, run in merged.runs.items()}


def cells(records):
    return {(record["arm"], record["seed"]) for record in records}


def test_seeds_that_two_equal_machines_ran_become_one_run():
    one, two = a_run((0, 1, 2)), a_run((3, 4), day=2)
    run = only(merge({"A": one, "B": two}))
    assert [(r["arm"], r["seed"]) for r in run] == [(arm, seed) for arm in ARMS for seed in range(5)]
    assert {json.dumps(r["planned"]) for r in run} == {json.dumps({"arms": ARMS, "seeds": [0, 1, 2, 3, 4]})}
    table = make_table(run)
    assert [row.ok for row in table.rows] == [5] * 4
    assert table.rows[1].measured["latency_b1_ms"].value.n == 5


def test_arms_that_two_equal_machines_ran_become_one_run_and_the_baseline_counts_once():
    one, two = a_run(arms=["baseline", "b", "placebo"]), a_run(arms=["baseline", "a"], day=2, slow=1.5)
    run = only(merge({"A": one, "B": two}))
    assert run[0]["planned"] == {"arms": ["baseline", "a", "b", "placebo"], "seeds": [0, 1, 2]}
    assert len(run) == 12
    assert [r for r in run if r["arm"] == "baseline"] == [
        {**r, "planned": run[0]["planned"]} for r in one if r["arm"] == "baseline"
    ]


def test_a_plan_that_is_no_full_matrix_says_the_seeds_of_each_arm():
    run = only(merge({"A": a_run((0, 1)), "B": a_run((1, 2), ["baseline", "a"])}))
    assert run[0]["planned"] == {
        "arms": ARMS,
        "seeds": [0, 1, 2],
        "seeds_of": {"baseline": [0, 1, 2], "a": [0, 1, 2], "b": [0, 1], "placebo": [0, 1]},
    }
    assert [(row.ok, row.planned) for row in make_table(run).rows] == [(3, 3), (3, 3), (2, 2), (2, 2)]


def test_another_processor_shares_its_quality_and_not_its_times():
    merged = merge({"A": a_run((0, 1, 2)), "B": a_run((3, 4), environment=XEON, slow=3)})
    runs = by_label(merged)
    assert set(runs) == {"cpu, AMD EPYC 7763, 2 cores", "cpu, Intel Xeon 8370C, 2 cores"}
    for run, own in zip(runs.values(), ((0, 1, 2), (3, 4)), strict=True):
        assert cells(run) == {(arm, seed) for arm in ARMS for seed in range(5)}
        for record in run:
            mine = record["seed"] in own
            assert ("latency_b1_ms" in record["metrics"]) is mine
            assert ("train_seconds" in record["metrics"]) is mine
            assert ("latency" in record["details"]) is mine
            assert (BORROWED in record) is not mine
            assert record["metrics"]["accuracy"] == a_run((record["seed"],), [record["arm"]])[0]["metrics"]["accuracy"]
        row = make_table(run).rows[1]
        assert row.measured["accuracy"].difference.n == 5
        assert row.measured["latency_b1_ms"].value.n == len(own)


def test_the_same_seeds_on_another_processor_stay_that_machines_own():
    merged = merge({"A": a_run(), "B": a_run(environment=XEON, jitter=1e-9)})
    epyc, xeon = by_label(merged).values()
    assert [r["metrics"] for r in epyc] == [r["metrics"] for r in a_run()]
    assert [r["metrics"] for r in xeon] == [r["metrics"] for r in a_run(jitter=1e-9)]
    assert merged.remarks == ()


def test_a_seed_whose_baseline_came_out_otherwise_is_not_taken_over():
    one, two = a_run(arms=["baseline", "a"]), a_run(arms=["baseline", "b"], environment=XEON, jitter=1e-9)
    merged = merge({"A": one, "B": two})
    epyc, xeon = by_label(merged).values()
    assert cells(epyc) == {(arm, seed) for arm in ("baseline", "a") for seed in range(3)}
    assert cells(xeon) == {(arm, seed) for arm in ("baseline", "b") for seed in range(3)}
    assert "seed 0 of b on cpu, Intel Xeon 8370C, 2 cores does not stand beside cpu, AMD" in merged.remarks[0]
    assert "baseline has another accuracy there" in merged.remarks[0]
    # Where it came out alike, it is.
    same = merge({"A": one, "B": a_run(arms=["baseline", "b"], environment=XEON)})
    assert all(
        cells(run) == {(arm, seed) for arm in ("baseline", "a", "b") for seed in range(3)} for run in same.runs.values()
    )


def test_another_type_of_device_shares_nothing():
    merged = merge({"A": a_run((0, 1)), "B": a_run((2, 3), environment=H200, device="cuda:0")})
    assert [cells(run) for run in merged.runs.values()] == [
        {(arm, s) for arm in ARMS for s in some} for some in ((0, 1), (2, 3))
    ]
    assert not any(BORROWED in record for run in merged.runs.values() for record in run)


def test_two_devices_of_one_model_are_one_machine():
    run = only(
        merge(
            {
                "A": a_run((0,), environment=H200, device="cuda:0"),
                "B": a_run((1,), environment=H200, device="cuda:1"),
            }
        )
    )
    assert {record["device"] for record in run} == {"cuda"}
    assert [row.ok for row in make_table(run).rows] == [2] * 4


def test_where_only_quality_is_asked_for_all_processors_are_one():
    run = only(
        merge(
            {
                "A": a_run((0, 1), metrics=["accuracy", "params"]),
                "B": a_run((2,), environment=XEON, metrics=["accuracy", "params"]),
            }
        )
    )
    assert cells(run) == {(arm, seed) for arm in ARMS for seed in range(3)}


def test_a_trial_that_is_ok_anywhere_is_ok():
    one, two = a_run(), a_run(day=2)
    one[4] |= {"status": "crashed", "reason": "train: killed", "metrics": {}}
    assert only(merge({"A": one, "B": two}))[4]["status"] == "ok"


def test_what_differs_in_versions_is_told():
    other = {**EPYC, "torch": "2.6.0"}
    assert merge({"A": a_run((0,)), "B": a_run((1,), environment=other)}).remarks == (
        "versions of torch differ: 2.5.0 in A; 2.6.0 in B",
    )


# Refused


def refused(change):
    two = a_run((3, 4), day=2)
    change(two)
    with pytest.raises(UsageError) as error:
        merge({"A": a_run(), "B": two})
    text = str(error.value)
    assert "\n" not in text
    assert "A" in text
    assert "B" in text
    return text


def test_another_suite_is_refused():
    text = refused(lambda two: two[-1]["suite"].update(name="other") or [r["suite"].update(name="other") for r in two])
    assert text.startswith("another suite 'tiny' in A, 'other' in B")
    text = refused(lambda two: [r["suite"].update(sha256="f" * 64) for r in two])
    assert "version of the suite file: its sha256 is" in text


def test_other_data_are_refused():
    text = refused(lambda two: [r.update(data="e" * 32) for r in two if r["arm"] == "a"])
    assert text.startswith("a: other data in A and B: fingerprints dddddddddddd and eeeeeeeeeeee")


def test_other_settings_under_one_name_are_refused_and_another_folder_is_not():
    text = refused(lambda two: [r["settings"].update(recipe={"epochs": 2}) for r in two if r["arm"] == "b"])
    assert text.startswith("b: other settings in A and B: ")


def test_two_results_of_one_trial_are_refused():
    with pytest.raises(UsageError, match=r"baseline, seed 0: accuracy 0\.89\S* in A, 0\.99\S* in B: one trial"):
        merge({"A": a_run(), "B": a_run(jitter=0.1)})
    other = a_run(day=2)
    other[5] |= {"status": "diverged", "metrics": {}}
    with pytest.raises(UsageError, match=r"a, seed 2: status ok in A, diverged in B"):
        merge({"A": a_run(), "B": other})


def test_seeds_added_by_looking_are_refused():
    two = a_run((3, 4))
    for record in two:
        record["planned"]["looks"] = [1, 2]
    with pytest.raises(UsageError, match=r"^B: its seeds were added by looking at the results \(--seeds auto\)"):
        merge({"A": a_run(), "B": two})
    # A source by itself too: its joint records would no longer tell of the looks.
    with pytest.raises(UsageError, match=r"^B: its seeds were added by looking"):
        merge({"B": two})


# Whatever the order

MACHINES = [("cpu", EPYC, 0.0), ("cpu", XEON, 0.0), ("cpu", {**XEON, "cores_usable": "8"}, 1e-9), ("cuda:0", H200, 0.0)]
SOME = st.tuples(
    st.sampled_from(MACHINES),
    st.sets(st.integers(0, 3), min_size=1),
    st.sets(st.sampled_from(ARMS[1:])),
    st.sampled_from([1.0, 2.0]),
)


def source(number, some):
    (device, environment, jitter), seeds, arms, slow = some
    arms = [arm for arm in ARMS if arm == "baseline" or arm in arms]
    given = {"environment": environment, "device": device, "jitter": jitter, "slow": slow, "day": 1 + number}
    return a_run(sorted(seeds), arms, **given)


@settings(max_examples=60, deadline=None)
@given(st.lists(SOME, min_size=1, max_size=4), st.randoms())
def test_order_does_not_matter_merging_again_changes_nothing_and_nothing_is_lost(parts, random):
    sources = {f"s{number}": source(number, some) for number, some in enumerate(parts)}
    merged = merge(copy.deepcopy(sources))
    # Renamed and in another order, the lines of each file too (its last one says the plan, which all have).
    names = list(sources)
    random.shuffle(names)
    shuffled = {}
    for number, name in enumerate(names):
        shuffled[f"t{number}"] = random.sample(sources[name], len(sources[name]))
    assert merge(shuffled).runs == merged.runs
    again = merge({machine.label: run for machine, run in merged.runs.items()})
    assert again.runs == merged.runs
    assert merge({**{m.label: run for m, run in merged.runs.items()}, **sources}).runs == merged.runs
    for records in sources.values():
        for record in records:
            run = merged.runs[machine_of(record, quality_only=False)]
            assert (record["arm"], record["seed"]) in cells(run)
    # An arm and its reference are of one machine: their quality belongs together.
    for run in merged.runs.values():
        for seed in {record["seed"] for record in run}:
            shifts = {round((r["metrics"]["accuracy"] + len(r["arm"]) / 1000) * 1e12) for r in run if r["seed"] == seed}
            assert max(shifts) - min(shifts) < 100, "a jitter of 1e-9 would be 1000"


# On disk


def written(folder, records):
    for record in records:
        Store(folder).append(record)
    Store(folder).keep("tiny.toml", SUITE)
    return str(folder)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "make_figures", lambda report, records: ())  # they take seconds
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_machine_gives_one_folder_that_publishes_and_verifies(place, capsys):
    one, two = written(Path("A"), a_run((0, 1))), written(Path("B"), a_run((2,)))
    assert main(["merge", one, two, "--output", "both"]) == 0
    assert "both: cpu, AMD EPYC 7763, 2 cores: 4 arms, 3 seeds, 12/12 trials ok" in capsys.readouterr().out
    assert sorted(path.name for path in Path("both").iterdir()) == [FILE, "tiny.toml"]
    assert main(["merge", "both", two, "--output", "both"]) == 0, "merged again, nothing changes"
    assert main(["publish", "both"]) == 0
    assert main(["verify", "results/tiny"]) == 0


def test_several_machines_get_a_folder_each_and_each_publishes(place, capsys):
    one, two = written(Path("A"), a_run((0, 1))), written(Path("B"), a_run((2,), environment=XEON))
    assert main(["merge", one, two, "--output", "results/tiny"]) == 0
    out = capsys.readouterr().out
    assert "4 arms, 3 seeds, 12/12 trials ok, the quality of 4 from other machines" in out
    folders = ["results/tiny/cpu-amd-epyc-7763-2-cores", "results/tiny/cpu-intel-xeon-8370c-2-cores"]
    for folder in folders:
        assert main(["publish", folder]) == 0
        assert main(["verify", folder]) == 0
        assert "some seeds ran on another machine" in Path(folder, "table.md").read_text()
    assert Path("results/README.md").read_text().count("| [tiny]") == 2
    assert main(["report", "results/tiny"]) == 2
    assert "did you mean results/tiny/cpu-amd" in capsys.readouterr().err


def test_other_records_are_not_written_over(place, capsys):
    one, two, three = (written(Path(name), a_run((seed,))) for seed, name in enumerate("ABC"))
    assert main(["merge", one, two, "--output", "both"]) == 0
    assert main(["merge", one, three, "--output", "both"]) == 2
    assert "holds other records already" in capsys.readouterr().err
    assert {record["seed"] for record in open_results(Path("both")).records} == {0, 1}


def test_one_source_alone_is_a_mistake(place, capsys):
    assert main(["merge", written(Path("A"), a_run()), "--output", "both"]) == 2
    assert "expected two results or more" in capsys.readouterr().err


def test_one_source_named_twice_is_a_mistake(place, capsys):
    one, two = written(Path("A"), a_run((0, 1))), written(Path("B"), a_run((2,)))
    for again in ("A", "./A", f"A/{FILE}", str(Path("A").absolute())):
        assert main(["merge", one, two, again, "--output", "both"]) == 2
        message = f"merge: {again}: the same records as A: expected every folder once"
        assert message.replace("./", "") in capsys.readouterr().err
    assert not Path("both").exists()


def test_names_of_folders_are_distinct_and_plain():
    machines = [Machine("cpu", "A/B", "", "2"), Machine("cpu", "A B", "", "2"), Machine("cuda", "ß", "A")]
    assert sorted(folder_names(machines).values()) == ["cpu-a-b-2-cores", "cpu-a-b-2-cores-2", "cuda-a"]
    assert folder_names(machines) == folder_names(machines[::-1])
