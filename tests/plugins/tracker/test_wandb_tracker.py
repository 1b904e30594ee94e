"""The offline runs of Weights & Biases, read from their files."""

from __future__ import annotations

import importlib.util
import json
import struct
import time
from pathlib import Path

import pytest

from cnnbench_plugins.tracker.wandb import Wandb

if importlib.util.find_spec("wandb") is None:
    pytest.skip("needs wandb", allow_module_level=True)

BLOCK = 32768


def records(path):
    """The records of a transaction log: LevelDB's log format after a header of 7 bytes.

    https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            yield Record.FromString(whole)
            whole = b""


def plain(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def read(path):
    """Name, group, config, rows of history, summary and exit code of an offline run."""
    found = {"config": {}, "history": [], "summary": {}}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"name": record.run.display_name, "group": record.run.run_group, "host": record.run.host}
            found["config"] |= plain(record.run.config.update)
        elif kind == "config":
            found["config"] |= plain(record.config.update)
        elif kind == "history":
            found["history"].append(plain(record.history.item))
        elif kind == "summary":
            found["summary"] |= plain(record.summary.update)
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def test_the_runs_are_read_back(finished_run, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    observer = Wandb()(finished_run.facts)
    finished_run.tell(observer)
    observer.close()

    folder = Path(finished_run.facts["results"]) / "wandb"
    found = []
    until = time.monotonic() + 60
    while not found or not all("exit" in run for run in found):  # another process ends the files, a moment later
        assert time.monotonic() < until
        time.sleep(0.1)
        found = [read(path) for path in folder.glob("offline-run-*/*.wandb")]
    runs = {run["name"]: run for run in found}
    assert set(runs) == {
        "table",
        "baseline, seed 0, digits",
        "baseline, seed 1, digits",
        "50 % / ümlaut, seed 0, digits",
        "50 % / ümlaut, seed 1, digits",
    }
    assert len({run["group"] for run in runs.values()}) == 1
    assert {run["host"] for run in runs.values()} == {"-"}  # no machine's name

    live = runs["baseline, seed 0, digits"]
    curve = [(row["train/epoch"], row["train/train_loss"]) for row in live["history"] if "train/epoch" in row]
    assert curve == [(1, 0.5), (2, 0.25)]
    assert (live["summary"]["accuracy"], live["summary"]["status"], live["exit"]) == (0.9, "ok", 0)
    assert (live["config"]["recipe.optimizer.lr"], live["config"]["arm"]) == (0.05, "baseline")

    failed = runs["50 % / ümlaut, seed 1, digits"]
    assert (failed["summary"]["status"], failed["exit"]) == ("diverged", 1)

    (media,) = folder.rglob("*.table.json")
    table = json.loads(media.read_text(encoding="utf-8"))
    assert table["columns"][0] == "arm"
    assert [row[0] for row in table["data"]] == ["baseline", "50 % / ümlaut"]
