"""The quick way to read records against the full one: the same tables, and no line that the other would not take."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from cnnbench import store
from cnnbench.lean import LeanReader
from cnnbench.record_lines import as_line, modern
from cnnbench.tables import FORMATS, render

RESULTS = Path(__file__).parents[2] / "results"
TABLES = [name for name in FORMATS if name != "parquet"]


def lines_of(name: str) -> list[bytes]:
    """Published records as they are written today."""
    return modern((RESULTS / name / "records.jsonl").read_bytes()).splitlines(keepends=True)


def written(folder: Path, lines: list[bytes]) -> Path:
    path = folder / "records.jsonl"
    path.write_bytes(b"".join(lines))
    return path


@pytest.mark.parametrize("name", ["quickstart", "across-datasets", "norms"])
def test_tables_are_the_same(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, [line for line in lines_of(name) if json.loads(line)["seed"] < 4])
    lean, full = (list(store.open_results(path, lean=way).records) for way in (True, False))
    assert all("history" not in record["details"] for record in lean)  # else nothing was compared
    for form in TABLES:
        assert render(lean, form, 120, path) == render(full, form, 120, path), form


def test_one_and_two_seeds_show_the_intervals_of_their_sessions(tmp_path: Path) -> None:
    few = [line for line in lines_of("quickstart") if json.loads(line)["seed"] < 2]
    path = written(tmp_path, few)
    lean, full = (list(store.open_results(path, lean=way).records) for way in (True, False))
    assert render(lean, "markdown") == render(full, "markdown")


def test_what_is_set_aside_and_what_replaces_what_is_the_same(tmp_path: Path) -> None:
    lines = lines_of("quickstart")[:12]
    lines[2] = b'{"schema": 2, "key": "torn by hand\n'
    lines[5] = b"\xff" + lines[5]
    lines[7] = lines[7].replace(b'"seed":', b'"seed":"many","was":')
    failed = {**json.loads(lines[0]), "status": "failed", "reason": "it broke", "metrics": {}}
    path = written(tmp_path, [*lines, as_line(failed), b"\n", lines[3][:200]])
    lean, full = (store.open_results(path, lean=way) for way in (True, False))
    assert [str(problem) for problem in lean.problems] == [str(problem) for problem in full.problems]
    assert len(full.problems) == 4
    assert [(r["key"], r["status"]) for r in lean.records] == [(r["key"], r["status"]) for r in full.records]
    assert lean.records[-1]["reason"] == "it broke"


def test_what_records_share_is_one_object(tmp_path: Path) -> None:
    records = store.open_results(written(tmp_path, lines_of("quickstart")[:20]), lean=True).records
    for name in ("planned", "suite", "measure", "environment"):
        assert len({id(record[name]) for record in records}) == 1


@pytest.mark.parametrize(
    ("name", "value", "sound"),
    [
        *(
            (name, "x" * 1001, "é" * 1000)
            for name in ("key", "arm", "role", "status", "reference", "dataset", "device")
        ),
        ("changes", "x" * 10_001, "é" * 10_000),
        ("planned", {"arms": ["x" * 1001]}, {"arms": ["x" * 1000]}),
        ("seed", -1, 0),
    ],
)
def test_bounds_are_those_of_the_full_reader(name: str, value: Any, sound: Any, tmp_path: Path) -> None:
    """In a line read whole, and in one of which most is known."""
    line = lines_of("quickstart")[0]
    for given, kept in ((value, False), (sound, True)):
        changed = as_line({**json.loads(line), name: given})
        again = as_line({**json.loads(line), "key": "again", name: given})
        for lines in ([changed], [line, changed, again]):
            reader = LeanReader()
            taken = [reader.record(one) is not None for one in lines]
            assert taken[-1] == kept
            assert taken[0] == (kept or len(lines) > 1)
            lean, full = (store.open_results(written(tmp_path, [line, *lines]), lean=way) for way in (True, False))
            assert [str(problem) for problem in lean.problems] == [str(problem) for problem in full.problems]
            assert bool(full.problems) != kept


KNOWN = b'{"cpu":"a","torch":"2"}'


@pytest.mark.parametrize(
    "second",
    [
        b'"environment":' + KNOWN,
        b'"environment": ' + KNOWN,
        b'"environment":{"cpu":"b"},"environment":' + KNOWN,
        b'"environment":' + KNOWN + b',"environment":{"cpu":"b"}',
        b'"details":{"a":1,"environment":' + KNOWN + b"}",
        b'"details":{"a":1,"environment":' + KNOWN + b'},"environment":{"cpu":"b"}',
        b'"reason":"\\",\\"environment\\":{}"',
        b'"environment":null',
        b'"environment":{}',
    ],
)
def test_what_is_known_from_the_line_before_is_taken_where_it_stands(second: bytes) -> None:
    """Of a name that stands twice in an object the last counts, and that of an inner object is another's."""
    head = b'{"schema":2,"key":"k","arm":"a","role":"arm","status":"ok","seed":0,'
    reader = LeanReader()
    assert reader.record(head + b'"environment":' + KNOWN + b"}\n") is not None
    full = json.loads(head + second + b"}")
    for _ in range(2):
        lean = reader.record(head + second + b"}\n")
        assert lean is not None
        assert lean.get("environment", "none") == full.get("environment", "none")


@pytest.mark.parametrize(
    "second",
    [
        b'"metrics":{"a":1,"environment":' + KNOWN + b'},"environment":' + KNOWN,
        b'"metrics":{"a":1,"environment":' + KNOWN + b"}",
        b'"details":{"latency":{"a":null,"environment":' + KNOWN + b"}}",
        b'"environment":' + KNOWN + b"{}",
        b'"environment":' + KNOWN + b"}",
    ],
)
def test_what_is_known_hides_no_mistake(second: bytes) -> None:
    head = b'{"schema":2,"key":"k","arm":"a","role":"arm","status":"ok","seed":0,'
    reader = LeanReader()
    assert reader.record(head + b'"environment":' + KNOWN + b"}\n") is not None
    assert reader.record(head + second + b"}\n") is None


def test_what_changes_again_and_again_is_still_read(tmp_path: Path) -> None:
    lines = lines_of("quickstart")[:40]
    reader = LeanReader()
    for place, line in enumerate(lines * 2):
        full = json.loads(line)
        if place % 3 == 0:
            full["environment"] = {**full["environment"], "cpu": f"of {place}"}
        if place % 7 == 0:
            del full["statistics"]
        lean = reader.record(as_line(full))
        assert lean is not None
        assert all(lean.get(name) == full.get(name) for name in ("environment", "planned", "statistics", "device"))


def mutated(line: bytes, rng: random.Random) -> bytes:
    """A line with a few bytes changed, taken out or put in."""
    tokens = [*b'.-+e01"\\,:{}[]\x00\x1f\xff\xc3 \t']
    words = [b"NaN", b"Infinity", b"null", b"true", b"1e999", b"-1", b"\\ud800", b'"x"', b"[]", b"{}", b"9" * 400]
    changed = bytearray(line)
    for _ in range(rng.choice((1, 1, 1, 2))):
        at, way = rng.randrange(len(changed)), rng.random()
        if way < 0.3:
            del changed[at : at + rng.randint(1, 3)]
        elif way < 0.8:
            changed[at : at + rng.randint(0, 1)] = bytes([rng.choice(tokens)])
        else:
            value = changed.find(b":", at) + 1
            end = min((place for mark in b",}]" if (place := changed.find(mark, value)) > 0), default=value)
            changed[value:end] = rng.choice(words)
    return bytes(changed)


def shown(full: Any, lean: Any) -> bool:
    """Whether all that the quick way gives is what the full one has."""
    if isinstance(lean, range):
        return len(full) == len(lean)
    if isinstance(lean, dict):
        return isinstance(full, dict) and all(name in full and shown(full[name], lean[name]) for name in lean)
    return bool(full == lean) and type(full) is type(lean)


def test_no_line_is_taken_that_is_not_json_or_says_something_else() -> None:
    """Fields that tables don't show are passed over: they have to be JSON, and nothing more."""
    record = json.loads(lines_of("quickstart")[0])
    record["details"]["history"] = record["details"]["history"][:1]
    for sampling in record["details"]["latency"].values():
        sampling["samples_ms"] = sampling["samples_ms"][:3]
        sampling["reference_ms"] = [0.5]
    record["details"]["é x"] = ["\U0001f600\n", 1e-7, {"a": None}]
    line, rng, taken = as_line(record).rstrip(), random.Random(0), 0
    for turn in range(4_000):
        if turn % 4 == 0:  # what changes again and again is no longer taken for what lines have in common
            reader = LeanReader()
        assert reader.record(line) is not None  # of the next one it knows most
        some = mutated(line, rng)
        if (lean := reader.record(some)) is None:
            continue
        taken += 1
        full = json.loads(some)  # whatever raises here has been taken for JSON
        total = sum(map(sum, full["details"].get("confusion") or [])) if full.get("details") else 0
        if total:
            full["details"]["confusion"] = [[total]]
        assert shown(full, lean), some
    assert taken > 500
