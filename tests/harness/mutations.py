"""Structured damage to records and suites: what hostile or careless hands may make of a real file."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

NASTY_TEXTS = (
    "",
    " ",
    "../../../etc/passwd",
    "/etc/passwd",
    "C:\\Windows\\system32",
    "\x00",
    "a\x1b]0;owned\x07b\x1b[31m",
    "\u202eevil",
    "\ud800",
    "x\r\ny",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><svg onload=alert(1)>",
    "javascript:alert(1)",
    "\\input{/etc/passwd}\\write18{id}",
    "=cmd|' /C calc'!A0",
    "$(touch owned)`id`",
    "nan",
    "Infinity",
    "-1e999",
    "{d.__class__}",
    "%s%n{0}",
    "$\\frac{",
    "baseline",
    "placebo",
    "CON",
    "n" * 5000,
    "𝒳" * 40,
)
NASTY_NUMBERS = (
    0,
    -0.0,
    1,
    -1,
    2,
    0.5,
    1e-320,
    1e99,
    -1e99,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    2**31,
    2**63,
    -(2**63),
    10**400,
    True,
    False,
)
NASTY_OTHERS = (None, [], {}, [[]], [None], {"": None}, [{}], {"a": []})


def records(seeds: int = 3) -> list[dict[str, Any]]:
    """A small run as the harness writes it, with every kind of field that a reader looks at."""
    cells = {"baseline": [0, 0], "a=1": [0, 1], "b=1": [1, 0], "b=1, a=1": [1, 1]}
    arms = [*cells, "placebo"]
    heading = {
        "suite": {"name": "tiny", "question": "Which?", "sha256": "0" * 64, "file": "tiny.toml"},
        "dataset": "digits",
        "changes": "a=1",
        "planned": {"arms": arms, "seeds": list(range(seeds)), "datasets": ["digits"]},
        "design": {
            "kind": "factorial",
            "axes": [{"key": "b", "levels": ["0", "1"]}, {"key": "recipe.a", "levels": ["0", "1"]}],
            "cells": cells,
        },
        "measure": {
            "primary": "accuracy",
            "metrics": ["accuracy", "nll", "params", "flops", "latency", "latency_p99", "energy", "co2", "own"],
            "latency": {"batch_sizes": [1, 32], "precision": 0.02, "max_seconds": 10, "threads": None},
            "energy": {"windows": 3, "source": "auto", "country": None},
            "margin": {"accuracy": 0.01, "latency": 0.05},
        },
        "statistics": {"test": "t", "interval": "t", "correction": "holm", "most_seeds": 20},
        "budget": "1 epoch, batch 64",
        "data": "d" * 32,
        "reason": None,
        "trace": None,
        "workers": 2,
        "device": "cpu",
        "environment": {
            "python": "3.11",
            "torch": "2.15",
            "cpu": "AMD EPYC",
            "device": "AMD EPYC",
            "cores_usable": "2",
        },
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
        "settings": {
            "dataset": {"slot": "dataset", "name": "digits", "options": {}},
            "data": {"train_size": 200, "validation": 0.1},
            "model": {"slot": "model", "name": "resnet", "options": {"depth": 8}},
            "recipe": {"epochs": 1, "optimizer": {"slot": "optimizer", "name": "sgd", "options": {"lr": 0.1}}},
            "techniques": {"norm": [{"slot": "norm", "name": "group", "options": {"groups": 2}}]},
        },
    }
    found = []
    for place, arm in enumerate(arms):
        for seed in range(seeds):
            value = 0.9 + 0.01 * place + 0.002 * seed
            ratio = None if arm == "baseline" else [1.1, 1.0, 1.2]
            latency = {
                "samples_ms": [1.0, 1.1, 1.2],
                "stopped": "time",
                "steady": True,
                "threads": 2,
                "cpus": [0, 1],
                "interval_ms": [0.9, 1.3],
                "reference_ms": None,
                "ratio": ratio,
            }
            noise = {"seconds": 3.0, "others_percent": 9.0, "steal_percent": 2.0, "cpu_mhz": [3000.0, 2000.0]}
            found.append(
                {
                    "schema": 1,
                    "key": f"{arm}/{seed}",
                    "arm": arm,
                    "role": arm if arm in {"baseline", "placebo"} else "arm",
                    "reference": None if arm == "baseline" else "baseline",
                    "seed": seed,
                    "status": "ok",
                    **copy.deepcopy(heading),
                    "metrics": {
                        "accuracy": value,
                        "nll": 1 - value,
                        "params": 1000 + place,
                        "flops": 1e6 - place,
                        "latency_b1_ms": 1.0 + 0.1 * place,
                        "latency_b1_p99_ms": 2.0,
                        "latency_b1_ratio": None if ratio is None else 1.1,
                        "latency_b32_ms": 4.0,
                        "energy_inference_mj": 0.5 + 0.01 * seed,
                        "co2_inference_ug": 0.1,
                        "own": float(seed),
                    },
                    "methods": {"energy_inference_mj": "measured", "co2_inference_ug": "estimated"},
                    "seconds": {"train": 1.5, "evaluate": 0.5},
                    "stages": {"train": "0" * 32, "evaluate": "1" * 32},
                    "details": {
                        "history": [{"epoch": 0, "train_loss": 2.0, "validation_accuracy": 0.5, "step": 3}],
                        "confusion": [[50, 1], [2, 47]],
                        "per_class": {"recall": [0.98, 0.96]},
                        "latency": {"1": latency, "32": copy.deepcopy(latency)},
                        "noise": noise,
                        "noise_energy": dict(noise),
                        "energy": {"windows_mj": [1.0], "intensity": {"g_per_kwh": 300.0, "source": "here"}},
                        "notes": ["a note"],
                    },
                }
            )
    return found


def nested(levels: int) -> Any:
    """A list in a list in a list ..."""
    inner: Any = 1
    for place in range(levels):
        inner = [inner] if place % 2 else {"x": inner}
    return inner


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within some JSON data; of long lists the ends."""
    found = [path] if path else []
    if isinstance(value, dict):
        for name, item in value.items():
            found += places(item, (*path, name))
    elif isinstance(value, list):
        for place in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            found += places(value[place], (*path, place))
    return found


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def nasty(random: Random) -> Any:
    """One value that is seldom expected."""
    kind = random.randrange(5)
    if kind == 0:
        return copy.deepcopy(random.choice(NASTY_OTHERS))
    if kind == 1:
        return nested(random.choice([2, 45, 300]))
    return random.choice(NASTY_TEXTS) if kind < 4 and random.random() < 0.5 else random.choice(NASTY_NUMBERS)


def damaged(value: Any, random: Random, times: int = 1) -> Any:
    """JSON data with some of its values replaced, dropped, doubled, renamed or moved."""
    value = copy.deepcopy(value)
    for _ in range(times):
        known = places(value)
        if not known:
            return value
        path = random.choice(known)
        outer, last = _at(value, path[:-1]), path[-1]
        kind = random.randrange(8)
        if kind == 0:
            del outer[last]
        elif kind == 1 and isinstance(outer, dict):
            outer[str(nasty(random))[:6000]] = outer.pop(last)
        elif kind == 1:
            outer.append(copy.deepcopy(outer[last]))
        elif kind == 2:
            outer[last] = copy.deepcopy(_at(value, random.choice(known)))
        elif kind == 3 and isinstance(outer[last], int | float) and abs(outer[last]) < 1e99:
            outer[last] = random.choice([-outer[last], outer[last] * 1e30, outer[last] * 1e-30, str(outer[last])])
        elif kind == 4 and isinstance(outer[last], list):
            outer[last] = outer[last][: random.randrange(len(outer[last]) + 1)] + [nasty(random)] * random.randrange(2)
        elif kind == 5 and isinstance(outer[last], dict):
            outer[last][random.choice(["x", "", "name", "1", "seeds"])] = nasty(random)
        else:
            outer[last] = nasty(random)
    return value


def line(record: Any, random: Random) -> bytes:
    """A record as a line; now and then with its bytes damaged, or a key doubled."""
    try:
        data = json.dumps(record).encode()
    except RecursionError:
        data = b"[" * 2000
    kind = random.randrange(30)
    if kind == 0:
        place = random.randrange(len(data) + 1)
        data = data[:place] + random.randbytes(random.randrange(5)) + data[place + random.randrange(3) :]
    elif kind == 1 and data.startswith(b"{"):
        name = json.dumps(random.choice(list(record) or ["x"])).encode()
        data = b"{" + name + b": " + json.dumps(nasty(random)).encode() + b", " + data[1:-1] + b"," + name + b":1}"
    return data


def toml(document: dict[str, Any]) -> bytes:
    """JSON data as TOML, one inline value a line; null is left out, as TOML has none."""
    try:
        lines = [f"{_toml(str(name))} = {_toml(value)}" for name, value in document.items() if value is not None]
    except RecursionError:
        lines = [f"a = {'[' * 2000}"]
    return "\n".join(lines).encode("utf-8", "replace")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(str(k))} = {_toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value if item is not None) + "]"
    if isinstance(value, str):
        return json.dumps(value.encode("utf-8", "replace").decode()).replace("\x7f", "\\u007f")
    return repr(value)
