"""Records of runs that never ran: what comparisons and histories of runs are tested with."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from cnnbench.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Value = float | Callable[[int], float]

SETTINGS: dict[str, Any] = {
    "dataset": {"slot": "dataset", "name": "digits", "options": {}},
    "data": {"train_size": 200, "validation": 0.1},
    "model": {"slot": "model", "name": "resnet", "options": {"depth": 8, "width": 4}},
    "recipe": {
        "epochs": 1,
        "batch_size": 64,
        "optimizer": {"slot": "optimizer", "name": "sgd", "options": {"lr": 0.1}},
        "precision": "fp32",
    },
    "techniques": {},
}
ENVIRONMENT = {
    "python": "3.11.7",
    "torch": "2.15.0",
    "cpu": "AMD EPYC 7763",
    "device": "AMD EPYC 7763",
    "cores_usable": "2",
    "platform": "Linux-6.1",
    "revision": "aaaaaaaaaaaa",
}


class Run:
    """Records of one run.

    Args:
        arms: values by metric key of each arm, the baseline first; a function gets the seed.
        seeds: how many.
        code: what the keys of its stages are made of; by arm where they differ.
        drift: the factor by which the machine is slower than usual.
        spread: half-width of each median's interval, as a share.
        settings, environment: changes to the usual ones.
        reference: the arm that the others have a ratio to; empty for none.
    """

    def __init__(
        self,
        arms: Mapping[str, Mapping[str, Value]],
        *,
        seeds: int = 5,
        code: str | Mapping[str, str] = "one",
        drift: float | Callable[[int], float] = 1.0,
        spread: float = 0.01,
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        device: str = "cpu",
        threads: int = 2,
        reference: str = "baseline",
        metrics: tuple[str, ...] | None = None,
        started: str = "2026-01-01T00:00:00+00:00",
        name: str = "tiny",
    ) -> None:
        self.records: list[dict[str, Any]] = []
        asked = metrics or self._asked(arms)
        for arm, values in arms.items():
            version = code if isinstance(code, str) else code.get(arm, "one")
            for seed in range(seeds):
                slow = drift(seed) if callable(drift) else drift
                own = {key: value(seed) if callable(value) else value for key, value in values.items()}
                timed = {key: value * slow for key, value in own.items() if key.startswith("latency")}
                details: dict[str, Any] = {"confusion": [[500, 0], [0, 500]], "latency": {}}
                for key, value in timed.items():
                    if key.endswith("_ms") and "_p9" not in key:
                        base = arms.get(reference, {}).get(key)
                        base = base(seed) if callable(base) else base
                        ratio = None if base is None or arm == reference else own[key] / base
                        details["latency"][key[len("latency_b") : -len("_ms")]] = {
                            "samples_ms": [value] * 3,
                            "interval_ms": [value * (1 - spread), value * (1 + spread)],
                            "ratio": ratio and [ratio, ratio * (1 - spread), ratio * (1 + spread)],
                            "threads": threads,
                            "stopped": "precision",
                        }
                self.records.append(
                    {
                        "schema": 2,
                        "key": f"{version}-{arm}-{seed}-{started}",
                        "suite": {"name": name, "question": "?", "sha256": "0" * 64, "file": f"{name}.toml"},
                        "arm": arm,
                        "role": "baseline" if arm == "baseline" else "arm",
                        "reference": reference if reference and arm != reference else None,
                        "changes": "",
                        "seed": seed,
                        "status": "ok",
                        "reason": None,
                        "planned": {"arms": list(arms), "seeds": list(range(seeds))},
                        "measure": {
                            "primary": "accuracy",
                            "metrics": list(asked),
                            "latency": {"batch_sizes": [1, 32]},
                        },
                        "settings": copy.deepcopy({**SETTINGS, **(settings or {})}),
                        "stages": {
                            kind: f"{kind}-{version}-{arm}-{seed}" for kind in ("evaluate", "latency", "energy")
                        },
                        "device": device,
                        "metrics": {**own, **timed},
                        "methods": {},
                        "details": details,
                        "environment": {**ENVIRONMENT, **(environment or {})},
                        "started": started,
                        "finished": started,
                    }
                )

    @staticmethod
    def _asked(arms: Mapping[str, Mapping[str, Value]]) -> tuple[str, ...]:
        from cnnbench.quantities import METRICS, quantities

        keys = {key for values in arms.values() for key in values}
        asked = [name for name in METRICS if keys & {q.key for q in quantities([name], [1, 32])}]
        known = {q.key for q in quantities(METRICS, [1, 32])}
        return (*asked, *sorted(keys - known))

    def of(self, arm: str) -> list[dict[str, Any]]:
        """The records of one arm, to be changed in place."""
        return [record for record in self.records if record["arm"] == arm]

    def broken(self, arm: str, status: str, reason: str, *seeds: int) -> Run:
        """The same run with some trials that ended otherwise."""
        for record in self.of(arm):
            if record["seed"] in seeds:
                record.update(status=status, reason=reason, metrics={}, details={})
        return self

    def write(self, folder: Path) -> Path:
        """The run as a results folder."""
        for record in self.records:
            Store(folder).append(record)
        return folder


def wobble(value: float, share: float, salt: int = 0) -> Callable[[int], float]:
    """A value that differs from seed to seed by up to a share of it, always alike."""
    return lambda seed: value * (1 + share * math.sin(7.0 * seed + 3.0 * salt + 1.0))
