"""Records that are damaged in every way end in a table or in one clear line, whoever reads them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import random
import sys
from pathlib import Path

import pytest

from cnnbench.cli import main
from cnnbench.migrations import SCHEMA
from cnnbench.record_fields import FIELDS, fault_of
from cnnbench.store import FILE, Store

_spec = importlib.util.spec_from_file_location("mutations", Path(__file__).with_name("mutations.py"))
assert _spec is not None
assert _spec.loader is not None
mutations = importlib.util.module_from_spec(_spec)
sys.modules["mutations"] = mutations
_spec.loader.exec_module(mutations)

RECORDS = [{**record, "schema": SCHEMA} for record in mutations.records()]
EARLIER = mutations.records()
TEXTS = ("terminal", "markdown", "latex", "csv", "json")


def written(folder, records, rng):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(b"\n".join(mutations.line(record, rng) for record in records) + b"\n")
    return str(folder)


def damaged(rng):
    """The run with one record damaged, all in one way, or many in many ways; some left out or moved."""
    run, kind = rng.choice([RECORDS, RECORDS, EARLIER]), rng.randrange(3)
    if kind == 0:
        records = list(run)
        place = rng.randrange(len(records))
        records[place] = mutations.damaged(records[place], rng, rng.choice([1, 1, 2, 5]))
        return records
    if kind == 1:
        seed = rng.randrange(1 << 30)
        return [mutations.damaged(record, random.Random(seed)) for record in run]
    records = [mutations.damaged(record, rng) if rng.random() < 0.3 else record for record in run]
    if rng.random() < 0.2:
        rng.shuffle(records)
    return records[: rng.randrange(1, len(records) + 1)] if rng.random() < 0.3 else records


def told(arguments):
    """Exit code, output and messages of a command; anything it raises goes through."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="replace"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    out.flush()
    return code, out.buffer.getvalue().decode("utf-8", "replace"), err.getvalue()


def command_of(kind, bad, good, folder, rng):
    if kind == "report":
        return ["report", bad, "--format", rng.choice(TEXTS)]
    if kind == "compare":
        both = rng.choice([(bad, good), (good, bad), (bad, bad)])
        return ["compare", *both, "--format", rng.choice(["terminal", "markdown", "json"])]
    if kind == "history":
        return [
            "history",
            bad,
            *([good] if rng.random() < 0.5 else []),
            *(["--metric", "latency"] * (rng.random() < 0.5)),
        ]
    if kind == "merge":
        return ["merge", bad, good, "--output", str(folder / "merged" / str(rng.randrange(1 << 40)))]
    if kind == "export":
        return ["export", bad, "--arm", "baseline", "--cache", str(folder / "cache"), "--output", str(folder / "made")]
    if kind == "parquet":
        return ["report", bad, "--format", "parquet", "--output", str(folder / "t.parquet")]
    suite = folder / "tiny.toml"
    suite.write_text("seeds = 3\n")
    if kind == "publish":
        return ["publish", bad, "--to", str(folder / "published"), "--partial", "--suite", str(suite)]
    return ["report", bad, "--format", "html", "--output", str(folder / "page.html")]


def check(kind, number, folder):
    rng = random.Random(number)
    good = written(folder / "good", RECORDS, random.Random(1))
    bad = written(folder / "bad", damaged(rng), rng)
    arguments = command_of(kind, bad, good, folder, rng)
    code, out, err = told(arguments)
    assert code in {0, 2, 3}, (number, code, err)
    if code == 2:
        assert err.strip().splitlines()[-1].startswith("cnnbench: "), (number, err)
    assert "\x1b" not in err, (number, err)
    if not {"json", "csv"} & set(arguments):  # data keeps what it was given
        assert "\x1b" not in out, (number, out)


@pytest.mark.parametrize(
    ("kind", "count"), [("report", 16), ("compare", 12), ("history", 8), ("merge", 8), ("export", 1)]
)
def test_damaged_records_end_in_a_table_or_one_line(tmp_path, kind, count):
    for number in range(count):
        check(kind, number, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        *(("report", 4000), ("compare", 3000), ("history", 2000), ("merge", 2000), ("export", 300), ("parquet", 1000)),
        *(("html", 60), ("publish", 60)),
    ],
)
def test_many_damaged_records_end_in_a_table_or_one_line(tmp_path, kind, count):
    for number in range(100_000, 100_000 + count):
        check(kind, number, tmp_path)


def test_bytes_that_are_no_records_are_set_aside_by_number(tmp_path):
    for number in range(60):
        rng = random.Random(number)
        lines = [rng.randbytes(rng.randrange(1, 40)).replace(b"\n", b"") + b"x" for _ in range(3)]
        (tmp_path / FILE).write_bytes(b"\n".join([*lines, json.dumps(RECORDS[0]).encode()]) + b"\n")
        found = Store(tmp_path).read()
        assert [problem.line for problem in found.problems] == [1, 2, 3]
        assert [record["key"] for record in found.records] == [RECORDS[0]["key"]]


@pytest.mark.parametrize("form", TEXTS)
def test_text_that_is_no_unicode_is_set_aside(tmp_path, form):
    bad = json.dumps({**RECORDS[0], "arm": "x\ud800", "key": "k"})
    pair = json.dumps({**RECORDS[1], "changes": "😀"})  # two escapes, and one character
    (tmp_path / FILE).write_text("\n".join([bad, pair, *map(json.dumps, RECORDS[2:])]) + "\n")
    code, _, err = told(["report", str(tmp_path), "--format", form])
    assert code == 0
    assert err.count("line 1: not a record: a text in it is no Unicode") == 1
    assert "line 2" not in err


def test_a_whole_run_passes():
    assert [fault_of(record) for record in RECORDS if fault_of(record)] == []


# A value that is wrong in its place, and what is said of it.
WRONG = [
    (("key",), 3, "key is 3, expected text"),
    (("seed",), True, "seed is True, expected a whole number"),
    (("seed",), 10**400, "seed is a number beyond all bounds, expected a finite number up to 1e+100"),
    (("arm",), None, "arm is missing"),
    (("seed",), -1, "seed is -1, expected 0 or more"),
    *(
        ((name,), "x" * 10**7, f"{name} has 10,000,000 characters, expected at most 1,000")
        for name in ("key", "arm", "role", "status", "reference", "dataset", "device")
    ),
    (("changes",), "x" * 10_001, "changes has 10,001 characters, expected at most 10,000"),
    (("planned", "arms", 1), "x" * 1001, "planned.arms[1] has 1,001 characters, expected at most 1,000"),
    (("measure", "metrics", 0), "x" * 1001, "measure.metrics[0] has 1,001 characters, expected at most 1,000"),
    (("suite",), "tiny", "suite is 'tiny', expected a table"),
    (("planned", "seeds", 1), 1.5, "planned.seeds[1] is 1.5, expected a whole number"),
    (("planned", "looks"), [3, 2], "planned.looks does not rise from 2 or more"),
    (("design", "axes", 0, "levels"), [], "design.axes[0].levels has 0 items, expected 1 or more"),
    (("design", "kind"), None, "design.kind is missing"),
    (("measure", "margin", "accuracy"), "x", "measure.margin.accuracy is 'x', expected a number"),
    (("statistics", "test"), "vibes", "statistics.test is 'vibes', expected one of sign-flip, t"),
    (("statistics", "other"), 1, "statistics.other is 1, and there is no such field"),
    (("metrics", "accuracy"), float("nan"), "metrics.accuracy is nan, expected a finite number up to 1e+100"),
    (("metrics", "accuracy"), float("inf"), "metrics.accuracy is inf, expected a finite number up to 1e+100"),
    (("metrics", "accuracy"), -1e101, "metrics.accuracy is -1e+101, expected a finite number up to 1e+100"),
    (("details", "confusion"), [[1, 2]], "details.confusion is not square"),
    (("details", "confusion", 0, 0), -1, "details.confusion holds a negative count"),
    (("details", "history", 0, "epoch"), "x", "details.history[0].epoch is 'x', expected a number or null"),
    (("details", "history", 0), [], "details.history[0] is a list, expected a table"),
    (("details", "latency", "1", "samples_ms"), None, "details.latency.1.samples_ms is missing"),
    (("details", "latency", "1", "ratio"), [1.0], "details.latency.1.ratio has 1 items, expected 3"),
    (("details", "noise", "cpu_mhz"), [1], "details.noise.cpu_mhz has 1 items, expected 2"),
    (("details", "plugin"), mutations.nested(60), "details.plugin is nested more than 40 levels deep"),
    (("settings", "model"), {"options": {}}, "settings.model.name is missing"),
    (("settings", "techniques", "norm", 0), 7, "settings.techniques.norm[0] is 7, expected a table"),
    (("a\x1b[31m",), mutations.nested(60), "a\ufffd[31m is nested more than 40 levels deep"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG, ids=[".".join(map(str, path)) for path, *_ in WRONG])
def test_what_is_wrong_is_named_by_its_place(path, value, message):
    record = mutations.records(2)[2]
    outer = record
    for step in path[:-1]:
        outer = outer[step]
    outer[path[-1]] = value
    assert fault_of(record) == f"not a record: {message}"


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in {"key", "arm", "role", "seed", "status"}])
def test_a_field_that_is_null_or_missing_is_right(name):
    record = mutations.records(2)[2]
    assert fault_of({**record, name: None}) == ""
    assert fault_of({key: value for key, value in record.items() if key != name}) == ""


def test_fields_of_plugins_and_of_later_versions_pass():
    record = mutations.records(1)[0]
    record["later"] = {"any": ["thing", 1, None]}
    record["details"]["plugin"] = {"shares": [[0.5], [0.25]]}
    assert fault_of(record) == ""
