"""A run from the command line to its end: what failed, what was left out, and that the commands it names do as told."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from cnnbench.cli import _parser, main
from cnnbench.commands.run_end import DROPPED, KEPT, _ranges
from cnnbench.execute import inline
from cnnbench.failures import failures, trace_text

if TYPE_CHECKING:
    from pathlib import Path

ARMS = {"it's hot": '{ activation = "silu" }', "plain": '{ activation = "gelu" }'}


class FakeBench:
    """Every stage takes 10 s by its own account; what is told to fail fails."""

    trained: ClassVar[Counter[tuple[str, int]]] = Counter()
    broken: ClassVar[set[tuple[str, int]]] = set()

    def __init__(self, registry: object) -> None:
        pass

    def run(self, task: Any, inputs: list[Path], folder: Path, tell: Any) -> dict[str, Any]:
        if task["kind"] == "rehearse":
            return {"metrics": {}, "seconds": 0.0}
        chosen = task["settings"]["techniques"].get("activation")
        arm = chosen[0]["name"] if chosen else "baseline"
        if task["kind"] == "train":
            FakeBench.trained[arm, task["seed"]] += 1
            if (arm, task["seed"]) in FakeBench.broken:
                raise RuntimeError(f"no luck in step {task['seed']}17\x1b[2J")
        return {"metrics": {"accuracy": 0.5} if task["kind"] == "evaluate" else {}, "seconds": 10.0}

    def close(self) -> None:
        pass


class Place:
    """A folder with a suite of four seeds, and the command run in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        FakeBench.trained.clear()
        code = main(list(words))
        out, err = self.capsys.readouterr()
        return code, out, err

    def suite(self, *options: str) -> tuple[int, str, str]:
        return self.run("run", "a suite.toml", "--executor", "inline", "--cache", "the cache", *options)

    def again(self, err: str) -> list[list[str]]:
        """The commands that a run has named to run failures again, as a shell would take them."""
        (line,) = [line for line in err.splitlines() if line.startswith("run just ")]
        words = shlex.split(line.partition(" again: ")[2].replace(";", " ; "))
        commands: list[list[str]] = [[]]
        for word in words:
            if word == ";":
                commands.append([])
            else:
                commands[-1].append(word)
        assert all(command[0] == "cnnbench" for command in commands)
        return [command[1:] for command in commands]


@pytest.fixture
def place(tmp_path, monkeypatch, capsys, tiny_suite) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inline, "Bench", FakeBench)
    monkeypatch.setattr(FakeBench, "broken", set())
    (tmp_path / "a suite.toml").write_text(tiny_suite(ARMS, seeds=4))
    return Place(tmp_path, capsys)


def test_failures_are_told_by_arm_and_reason_and_the_command_runs_just_those(place):
    FakeBench.broken |= {("silu", 1), ("silu", 2), ("gelu", 3)}
    code, table, err = place.suite("--fresh", "--quiet", "--results", "my results")
    assert code == 1
    lines = err.splitlines()
    assert lines[0] == "3 trials failed:"
    assert lines[1].startswith("  it's hot, seeds 1-2: failed: train: RuntimeError: no luck in step 117\ufffd[2J (")
    assert lines[2].startswith("  plain, seed 3: failed: train: RuntimeError: no luck in step 317")
    assert lines[3] == "where in the code: cnnbench report 'my results' --traces"
    assert "2/4" in table
    FakeBench.broken.clear()
    (command,) = place.again(err)
    code, table, err = place.run(*command)
    assert code == 0
    assert set(FakeBench.trained) == {("silu", 1), ("silu", 2), ("gelu", 3)}
    assert table.count("4/4") == 3
    assert "failed" not in err


def test_a_clean_run_ends_with_its_table(place):
    assert place.suite("--quiet")[2] == ""


def test_the_options_that_were_given_are_repeated(place):
    FakeBench.broken |= {("silu", 1)}
    _, _, err = place.suite("--seeds", "1-2", "--only", "it's hot", "--device", "cpu")
    (command,) = place.again(err)
    expected = ["run", "a suite.toml", "--seeds", "1-2", "--only", "it's hot", "--device", "cpu"]
    assert command == [*expected, "--executor", "inline", "--cache", "the cache"]


def test_every_option_is_repeated_or_left_out_on_purpose():
    parser = next(action for action in _parser()._actions if action.dest == "==SUPPRESS==" or action.choices)
    run = parser.choices["run"]
    known = {action.dest for action in run._actions}
    assert known == {"help", "suites", "seeds", "only", *KEPT, *DROPPED}


def test_traces_of_failures_stand_in_the_report(place):
    FakeBench.broken |= {("silu", 1), ("silu", 2)}
    place.suite()
    code, out, _ = place.run("report", "results/a suite", "--traces")
    assert code == 0
    assert out.startswith("it's hot, seeds 1-2: failed: train: RuntimeError: no luck")
    assert out.count("Traceback (most recent call last)") == 1
    assert "\x1b" not in out
    FakeBench.broken.clear()
    place.suite()
    assert place.run("report", "results/a suite", "--traces")[1] == "no trial failed\n"


def test_a_budget_measures_the_first_seed_and_then_decides(place):
    FakeBench.broken |= {("silu", 0)}
    code, table, err = place.suite("--time-budget", "0.0001s")
    assert code == 1
    assert "what this takes is not known yet; 3 trials (seed 0 of 3 arms) go first, to measure it" in err
    assert {seed for _, seed in FakeBench.trained} == {0}
    assert table.count("1/4") == 2
    assert "pending" in table
    assert "left out by --time-budget: 9 trials (seeds 1-3 of 3 arms)" in err
    FakeBench.broken.clear()
    (command,) = place.again(err)
    assert place.run(*command)[0] == 0
    assert set(FakeBench.trained) == {("silu", 0)}, "what was left out is left out of this command too"
    code, table, err = place.suite()
    assert code == 0
    assert {seed for _, seed in FakeBench.trained} == {1, 2, 3}
    assert table.count("4/4") == 3


def test_a_budget_runs_what_fits_by_earlier_records_and_plan_tells_the_same(place, monkeypatch):
    for module in ("here", "runner"):
        monkeypatch.setattr(f"cnnbench.{module}.default_workers", lambda _: 1)
    place.suite("--seeds", "1")
    _, out, _ = place.run("plan", "a suite.toml", "--cache", "the cache", "--time-budget", "130s")
    told = "6 trials (seeds 1-2 of 3 arms) may take 2 min; left out: 3 trials (seed 3 of 3 arms)"
    assert f"time budget of 2 min 10 s: {told}" in out
    _, out, _ = place.run("plan", "a suite.toml", "--cache", "the cache", "--time-budget", "1h")
    assert "all 9 trials fit" in out
    _, out, _ = place.run("plan", "a suite.toml", "--cache", "the cache", "--seeds", "auto", "--time-budget", "1h")
    assert "time budget of 1 h: no seeds are added that would end later; the first look runs in any case" in out
    _, table, err = place.suite("--time-budget", "5s")
    assert "no further seed of all arms fits: 3 trials (seed 1 of 3 arms) may take 1 min; left out: 9 trials" in err
    assert "left out by --time-budget: 9 trials (seeds 1-3 of 3 arms)" in err
    assert not FakeBench.trained
    assert table.count("1/4") == 3


def test_ranges_of_seeds_hold_none_that_the_suite_has_not():
    assert _ranges([0, 1, 5], (0, 1, 5, 9)) == [(0, 1), (5, 5)]
    assert _ranges([0, 2], (0, 1, 2)) == [(0, 2)], "what is ok between them does not run again"
    assert _ranges([5, 9], (9, 5)) == [(5, 5), (9, 9)]


def test_a_budget_is_for_one_suite_and_a_duration(place):
    code, _, err = place.run("run", "a suite.toml", "b.toml", "--time-budget", "1h")
    assert code == 2
    assert "--time-budget is for one suite" in err
    with pytest.raises(SystemExit):
        main(["run", "a suite.toml", "--time-budget", "soon"])
    assert "expected a duration such as 90m, 2h or 1h30m" in place.capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["run", "a suite.toml", "--time-budget", "-5m"])
    assert "expected a duration such as 90m, 2h or 1h30m (a plain number is minutes), got '-5m'" in (
        place.capsys.readouterr().err
    )


def records_of(place: Place) -> list[dict[str, Any]]:
    lines = (place.folder / "results" / "a suite" / "records.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def write_records(place: Place, records: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(record) + "\n" for record in records)
    (place.folder / "results" / "a suite" / "records.jsonl").write_text(text)


PLAN = ("plan", "a suite.toml", "--cache", "the cache")


def test_what_other_code_made_is_told_before_it_runs_again(place):
    place.suite()
    assert "no longer count" not in place.run(*PLAN)[1]
    records = records_of(place)
    for record in records:
        record["key"] += "old"
        record["stages"] = {kind: f"{key}old" for kind, key in record["stages"].items()}
    write_records(place, records)
    told = "recorded trials that no longer count: 12, made with other code of cnnbench or of a plugin; "
    assert told in place.run(*PLAN)[1]
    for record in records:
        record["environment"]["torch"] = "1.0"
        record["settings"]["recipe"].pop("compiled")  # an option that the code has gained
    write_records(place, records)
    now = importlib.metadata.version("torch")
    assert f"that no longer count: 12, made with torch 1.0 (now {now}); what differs" in place.run(*PLAN)[1]
    assert f"that no longer count: 12, made with torch 1.0 (now {now}); what differs" in place.suite()[2]
    assert "no longer count" not in place.run(*PLAN)[1], "they are recorded anew"


def test_what_people_have_edited_is_not_told_as_other_code(place):
    place.suite()
    file = place.folder / "a suite.toml"
    file.write_text(file.read_text().replace("batch_size = ", "batch_size = 1"))
    out = place.run(*PLAN)[1]
    assert "0 of 12 trials recorded" in out
    assert "no longer count" not in out


def test_results_that_are_cached_without_records_are_told_by_plan_and_run(place):
    place.suite()
    (place.folder / "results" / "a suite" / "records.jsonl").unlink()
    assert "to run: nothing; 12 records to enter from the cache\n" in place.run(*PLAN)[1]
    _, _, err = place.suite()
    assert re.search(r"^all \d+ stages are on disk; 12 records to enter$", err, re.M)
    assert "to run: nothing; the table is ready" in place.run(*PLAN)[1]


def test_plan_warns_of_damaged_lines(place):
    place.suite()
    with (place.folder / "results" / "a suite" / "records.jsonl").open("a") as file:
        file.write("{ broken\n")
    code, _, err = place.run(*PLAN)
    assert code == 0
    assert re.search(r"^cnnbench: warning: .*records.jsonl: line 13", err, re.M)


def test_reasons_that_differ_in_numbers_are_one_and_traces_are_safe_to_print():
    def record(arm: str, seed: int, reason: str, **more: Any) -> dict[str, Any]:
        return {"arm": arm, "seed": seed, "status": "failed", "reason": reason, "dataset": "", **more}

    found = failures(
        [
            record("a", 0, "out of memory: 12 MiB"),
            record("a", 1, "out of memory: 34 MiB", trace="Traceback\n  File \x1b[31mx\n    y"),
            record("a", 2, "other"),
            record("b", 3, "other", status="ok"),
        ]
    )
    assert [(one.arm, one.seeds, one.reason) for one in found] == [
        ("a", (0, 1), "out of memory: 12 MiB"),
        ("a", (2,), "other"),
    ]
    text = trace_text(found)
    assert "  Traceback\n    File \ufffd[31mx\n      y" in text
    assert "a, seed 2: failed: other\n  no trace" in text
