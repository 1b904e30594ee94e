"""Records of earlier schemas: what each step says of them, and that what was published under them still holds."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.frame import current
from cnnbench.migrations import SCHEMA, migrated
from cnnbench.publication import shown
from cnnbench.record_lines import as_line, modern
from cnnbench.store import FILE, open_results
from cnnbench.verify import _compared

RESULTS = Path(__file__).parents[2] / "results"
# The first record that was ever written had no more than this.
FIRST: dict[str, Any] = {
    "schema": 1,
    "key": "k",
    "suite": {"name": "norms"},
    "arm": "group norm",
    "role": "arm",
    "seed": 3,
    "status": "ok",
    "planned": {"arms": ["plain", "group norm"], "seeds": [3]},
    "measure": {"primary": "accuracy", "metrics": ["accuracy"]},
    "metrics": {"accuracy": 0.5},
}


def test_what_a_first_record_leaves_out_is_said_outright() -> None:
    before = copy.deepcopy(FIRST)
    assert migrated(FIRST) == {
        **FIRST,
        "schema": 2,
        "changes": "",
        "reason": None,
        "trace": None,
        "dataset": "",
        "data": "",
        "design": None,
        "workers": None,
        "statistics": {"test": "t", "interval": "t", "correction": "holm", "most_seeds": 20},
        "reference": "plain",
    }
    assert before == FIRST, "what was given is as it was"


@pytest.mark.parametrize(
    ("changes", "reference"),
    [
        ({"arm": "plain", "role": "baseline"}, None),
        ({"role": "placebo"}, "plain"),
        ({"planned": None}, None),
        ({"planned": {"arms": []}}, None),
        ({"planned": {"arms": "plain"}}, None),
        ({"reference": "another"}, "another"),
        ({"reference": None}, None),
    ],
)
def test_the_reference_was_the_first_arm_of_the_plan(changes: dict[str, Any], reference: str | None) -> None:
    assert migrated({**FIRST, **changes})["reference"] == reference


@given(st.sets(st.sampled_from(sorted(migrated(FIRST).keys() - FIRST.keys()))))
def test_what_a_record_says_itself_stays(said: set[str]) -> None:
    own = {name: f"own {name}" for name in said}
    found = migrated({**FIRST, **own})
    assert {name: found[name] for name in said} == own
    assert migrated(found) is found, "nothing more to do"


def test_a_file_is_brought_up_to_date_line_by_line_and_nothing_else_is_touched() -> None:
    now = as_line({**migrated(FIRST), "key": "now"})
    spaced = now.replace(b":", b": ")
    data = as_line(FIRST) + b"not JSON\n" + now + spaced + b"\n" + as_line({"schema": SCHEMA + 1}) + b'{"torn'
    assert modern(data) == data.replace(as_line(FIRST), as_line(migrated(FIRST)))
    assert modern(modern(data)) == modern(data)


def test_a_file_of_mixed_schemas_is_read_as_one(tmp_path: Path) -> None:
    later = {**migrated(FIRST), "key": "later", "seed": 4}
    (tmp_path / FILE).write_bytes(as_line(FIRST) + as_line(later))
    found = open_results(tmp_path)
    assert found.records == (migrated(FIRST), later)
    assert current(found.records).references["group norm"] == "plain"


@pytest.mark.parametrize("folder", sorted(RESULTS.glob("*/published.json")), ids=lambda path: path.parent.name)
def test_published_records_are_read_and_are_what_is_published_of_them(folder: Path) -> None:
    path = folder.with_name(FILE)
    found = open_results(path)
    assert found.problems == ()
    assert {record["schema"] for record in found.records} == {SCHEMA}
    assert modern(path.read_bytes()) == b"".join(map(as_line, shown(found.records)))


def test_a_published_file_of_an_earlier_schema_still_matches() -> None:
    """Of the smallest published folder the record file alone: all of it takes ``cnnbench verify``, and a while."""
    folder = min(RESULTS.glob("*/published.json"), key=lambda path: path.with_name(FILE).stat().st_size).parent
    assert json.loads((folder / FILE).read_bytes().splitlines()[0])["schema"] < SCHEMA, "else this tests nothing"

    said = json.loads((folder / "published.json").read_bytes())["files"][FILE]
    there = (folder / FILE).read_bytes()
    made = b"".join(map(as_line, open_results(folder).records))
    assert not _compared(FILE, there, made, said).fault
    assert "changed after publishing" in _compared(FILE, there + b"\n", made, said).fault
