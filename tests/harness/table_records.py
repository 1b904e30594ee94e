"""Records like those of quickstart, and what the tests of tables read from the tables of them."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import numpy as np

from cnnbench.tables import make_table, render

ARMS: dict[str, tuple[float, float, dict[str, float]]] = {
    # accuracy's shift from the baseline, factor on latency, other quantities' own values
    "baseline": (0.0, 1.0, {}),
    "group norm": (-0.012, 1.31, {}),
    "silu": (0.003, 1.12, {}),
    "mixup": (0.004, 1.0, {}),
    "label smoothing": (0.001, 1.0, {}),
    "prune 80 %": (-0.027, 1.0, {"params": 15_684, "size_bytes": 66_112}),
    "int8": (-0.001, 0.47, {"size_bytes": 84_531}),
    "distill": (-0.041, 0.22, {"params": 4_922, "flops": 310_464, "size_bytes": 21_907}),
    "placebo": (0.0005, 1.0, {}),
}
CHANGES = {"group norm": "norm=group(groups=8)", "silu": "activation=silu", "mixup": "augmentation=+mixup(alpha=0.2)"}
REASON = "needs torchao, which is not installed: pip install 'cnnbench[compress]'"


def sample(seeds: int = 5) -> list[dict[str, Any]]:
    """A run as it comes out of quickstart, with one diverged and one skipped trial."""
    rng = np.random.default_rng(7)
    luck = rng.normal(0, 0.004, seeds)
    records = []
    for arm, (shift, slower, own) in ARMS.items():
        for seed in range(seeds):
            accuracy = round((0.9731 + luck[seed] + shift + rng.normal(0, 0.002)) * 1797) / 1797
            ms = 0.412 * slower * (1 + rng.normal(0, 0.02))
            metrics = {
                "accuracy": accuracy,
                "f1_macro": accuracy - 0.0007 - abs(rng.normal(0, 0.0004)),
                "params": 78_042.0,
                "flops": 4_812_320.0,
                "size_bytes": 316_873.0,
                "latency_b1_ms": ms,
                "latency_b32_ms": ms * 7.9 * (1 + rng.normal(0, 0.01)),
                "energy_inference_mj": ms * 7.9 / 32 * 12.6,
                **own,
            }
            record = {
                "schema": 2,
                "key": f"{arm}/{seed}",
                "suite": {
                    "name": "quickstart",
                    "question": "Which cheap tricks help a small CNN on 8×8 digits, and what do they cost?",
                    "sha256": "5f1d7e0a9b3c4d2e" * 4,
                    "file": "quickstart.toml",
                },
                "arm": arm,
                "role": arm if arm in {"baseline", "placebo"} else "arm",
                "changes": CHANGES.get(arm, ""),
                "seed": seed,
                "status": "ok",
                "reason": None,
                "trace": None,
                "planned": {"arms": list(ARMS), "seeds": list(range(seeds))},
                "settings": {
                    "dataset": {"slot": "dataset", "name": "digits", "options": {}},
                    "data": {"train_size": None},
                },
                "measure": {
                    "primary": "accuracy",
                    "metrics": ["accuracy", "f1_macro", "params", "flops", "size", "latency", "energy"],
                    "latency": {"batch_sizes": [1, 32]},
                },
                "device": "cpu",
                "budget": "15 epochs, batch 64",
                "metrics": metrics,
                "methods": {
                    "energy_inference_mj": "estimated",
                    "size_bytes": "nominal" if arm == "int8" else "measured",
                },
                "environment": {
                    "cpu": "AMD EPYC 7763 64-Core Processor",
                    "device": "AMD EPYC 7763 64-Core Processor",
                    "cores_usable": "2",
                    "cnnbench": "0.1.0",
                    "torch": "2.15.0",
                    "torchvision": "0.29.0",
                    "python": "3.11.7",
                },
            }
            if arm == "int8":
                record["metrics"] = {**metrics, "flops": None}
                record["details"] = {"notes": ["multiply-adds: GraphModule runs operators that can't be counted"]}
            if (arm, seed) == ("group norm", 3):
                record |= {"status": "diverged", "reason": "train: loss is nan in epoch 4", "metrics": {}}
            if arm == "int8" and seed > 1:
                record |= {"status": "skipped", "reason": REASON, "metrics": {}}
            records.append(record)
    return records


def timed(
    records: list[dict[str, Any]], against: dict[str, str] | None = None, noise: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The same run with what a session adds: references, and ratios that are the quotients of the latencies.

    A session's own interval reaches from 1 % below a ratio to 1.5 % above it, that of a median from 1 % below to 2 %
    above, and the windows of energy from 5 % below to 4 % above.
    """
    by_trial = {(r["arm"], r["seed"]): r for r in records}
    made = []
    for r in records:
        reference = None if r["role"] == "baseline" else (against or {}).get(r["arm"], "baseline")
        other = by_trial[reference, r["seed"]]["metrics"] if reference else {}
        metrics, latency = dict(r["metrics"]), {}
        for size in (1, 32):
            key = f"latency_b{size}_ms"
            taken = {"stopped": "precision", "samples_ms": [0.4] * 400, "steady": True, "ratio": None}
            taken |= {"threads": 2, "cpus": [0, 1], "interval_ms": None}
            if key in metrics:
                taken["interval_ms"] = [0.99 * metrics[key], 1.02 * metrics[key]]
            if key in metrics and key in other:
                ratio = metrics[f"latency_b{size}_ratio"] = metrics[key] / other[key]
                taken["ratio"] = [ratio, 0.99 * ratio, 1.015 * ratio]
            latency[str(size)] = taken
        details = {**r.get("details", {}), "latency": latency, "noise": noise}
        if (energy := metrics.get("energy_inference_mj")) is not None:
            details["energy"] = {"range_mj": [0.95 * energy, 1.04 * energy]}
        made.append({**r, "reference": reference, "metrics": metrics, "details": details})
    return made


QUIET = {
    "seconds": 30.0,
    "cores": 2,
    "others_percent": 1.2,
    "steal_percent": 0.0,
    "throttle_events": 0,
    "involuntary_switches": 12,
    "cpu_mhz": [3400.0, 3390.0],
    "load_average": [0.9, 1.4],
}


def of(records: list[dict[str, Any]], *arms: str) -> list[dict[str, Any]]:
    """The records of a run that planned these arms only."""
    planned = {"arms": list(arms), "seeds": records[0]["planned"]["seeds"]}
    return [{**r, "planned": planned} for r in records if r["arm"] in arms]


def squeezed(text: str) -> str:
    """Text without the padding that aligns a table's source."""
    return re.sub(r" +", " ", text)


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def cells(records: list[dict[str, Any]], column: str) -> dict[str, str]:
    """A column of the table for people, by arm; without the marks of best values."""
    for head, _, *rows in blocks(render(records, "markdown")):
        if column in head:
            return {row[0]: row[head.index(column)].replace("**", "") for row in rows}
    raise AssertionError(f"no column {column!r}")


def blocks(text: str) -> list[list[list[str]]]:
    """The cells of a Markdown text's tables, by line; the line after the head is the rule."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [block for block in found if block]


def heads(records: list[dict[str, Any]]) -> list[str]:
    """Headers of the table for people, in order, the arms' names once."""
    first, *others = (block[0] for block in blocks(render(records, "markdown")))
    return [*first, *(head for block in others for head in block[1:])]


def data(records: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, str]]:
    """The CSV by arm and quantity."""
    return {(row["arm"], row["quantity"]): row for row in csv.DictReader(io.StringIO(render(records, "csv")))}


def noted(records: list[dict[str, Any]], start: str) -> str:
    """The one note that begins so; empty if there is none."""
    found = [text for text in make_table(records).notes if text.startswith(start)]
    assert len(found) < 2
    return found[0] if found else ""
