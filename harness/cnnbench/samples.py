"""A run's latency samples as pytest-benchmark keeps them, so that its own commands compare one run with another.

``pytest-benchmark compare OLD NEW`` reads the files, and ``pytest --benchmark-compare=OLD`` compares with one. Names
hold the suite's file without its folder, the arm, the seed and the batch size: the same in every run of a suite, be it
started by ``cnnbench run`` or by pytest. Needs neither torch nor pytest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cnnbench.durable import write
from cnnbench.errors import StoreError
from cnnbench.frame import by_dataset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_benchmark.stats import Metadata

FILE = "benchmark.json"
"""The file's name in a results folder."""

RECORDED_BY = {"recorded_by": "cnnbench"}
"""What tells such a file from those of pytest-benchmark itself, in its ``machine_info``."""

_SAMPLING = ("warmup", "steady", "stopped", "threads", "cpus", "interval_ms", "ratio")
_ENVIRONMENT = ("device", "torch", "cnnbench")


@dataclass(frozen=True)
class _Benchmark:
    """Names of one set of samples, as pytest-benchmark asks its fixture for them.

    Attributes:
        name: within its group, e.g. ``group norm[seed 0, batch 1]``.
        fullname: what two runs are matched by.
        group: what stands in one table: suite and batch size.
        param: what is in the name's brackets.
        params: the same as values, for ``--benchmark-group-by=param:seed``.
        extra_info: how the samples came about, JSON-ready.
    """

    name: str
    fullname: str
    group: str
    param: str
    params: Mapping[str, int]
    extra_info: Mapping[str, Any] = field(repr=False)
    cprofile_stats: None = None
    has_error: bool = False


def benchmarks(record: Mapping[str, Any]) -> list[Metadata]:
    """pytest-benchmark's own object for each batch size of a record; none unless it is ok and has samples.

    Samples become seconds a call; the statistics are pytest-benchmark's.
    """
    details = record.get("details") or {}
    latency: Mapping[str, Any] = details.get("latency") or {}
    if record["status"] != "ok":
        return []
    return [
        _benchmark(record, int(size), sampled)
        for size, sampled in sorted(latency.items(), key=lambda pair: int(pair[0]))
        if sampled.get("samples_ms")
    ]


def benchmark_json(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The samples of the latest run among the records, in the schema of pytest-benchmark's files.

    What it says of the machine and the revision is what the records say: they may come from elsewhere.

    Raises:
        UsageError: there are no records.
    """
    runs = list(by_dataset(records).values())
    mine = [record for trials in runs for arm in trials.arms for record in trials.of(arm)]
    heading = runs[0].heading
    finished = [record["finished"] for record in mine if record.get("finished")]
    environment: Mapping[str, str] = heading.get("environment") or {}
    return {
        "machine_info": _machine(environment),
        "commit_info": _commit(environment, (heading.get("suite") or {}).get("name", "")),
        "benchmarks": [made.as_dict(include_data=True) for record in mine for made in benchmarks(record)],
        "datetime": max(finished, default=datetime.now(UTC).isoformat(timespec="seconds")),
        "version": version("pytest-benchmark"),
    }


def write_benchmark_json(records: Sequence[Mapping[str, Any]], folder: Path) -> Path | None:
    """Write ``benchmark.json`` into a results folder, whole or not at all.

    A run without latencies leaves no file, and removes that of an earlier run: it would pass for this one's.

    Returns:
        The file; None where there are no latencies.

    Raises:
        StoreError: it can't be written.
    """
    path = folder / FILE
    text = json.dumps(found) if records and (found := benchmark_json(records))["benchmarks"] else None
    try:
        if text is None:
            path.unlink(missing_ok=True)
            return None
    except OSError as error:
        raise StoreError(f"{path}: can't be written: {error.strerror or error}") from error
    write(path, text.encode())
    return path


def _benchmark(record: Mapping[str, Any], size: int, sampled: Mapping[str, Any]) -> Metadata:
    from pytest_benchmark.stats import Metadata

    suite, environment = record.get("suite") or {}, record.get("environment") or {}
    several = (record.get("planned") or {}).get("datasets")
    where = f"{record['dataset']}, " if several else ""
    param = f"{where}seed {record['seed']}, batch {size}"
    name = f"{record['arm']}[{param}]"
    extra = {
        "arm": record["arm"],
        "role": record["role"],
        "seed": record["seed"],
        "batch_size": size,
        "reference": record.get("reference"),
        **{key: sampled[key] for key in _SAMPLING if key in sampled},
        "noise": (record.get("details") or {}).get("noise"),
        **{key: environment[key] for key in _ENVIRONMENT if key in environment},
    }
    asked = (record.get("measure") or {}).get("latency") or {}
    named = _Benchmark(
        name=name,
        fullname=f"{suite.get('file') or suite.get('name')}::{name}",
        group=f"{suite.get('name')}, {where}batch {size}",
        param=param,
        params={"seed": record["seed"], "batch": size},
        extra_info=extra,
    )
    options = {
        "disable_gc": True,
        "timer": "time.perf_counter_ns",
        "max_time": asked.get("max_seconds"),
        "precision": asked.get("precision"),
        "warmup": True,
    }
    made: Metadata = Metadata(named, sampled["iterations"], options)
    made.stats.data.extend(sample / 1000 for sample in sampled["samples_ms"])
    return made


def _machine(environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        **RECORDED_BY,
        "cpu": {"brand_raw": environment.get("cpu")},
        "cores": environment.get("cores"),
        "ram": environment.get("ram"),
        "device": environment.get("device"),
        "system": environment.get("platform"),
        "python_version": environment.get("python"),
    }


def _commit(environment: Mapping[str, str], project: str) -> dict[str, Any]:
    """The suite's revision; ``environment.git_revision`` puts a note behind it where files differ."""
    commit, _, changed = environment.get("revision", "").partition(" ")
    return {
        "id": commit or "unversioned",
        "time": None,
        "author_time": None,
        "dirty": bool(changed),
        "project": project,
        "branch": "(unknown)",
    }
