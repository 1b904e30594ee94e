"""Records of designed experiments that never ran: what effects, steps and aggregates are tested with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.design import cells

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Outcome = Callable[[tuple[int, ...], int], Mapping[str, float]]


def designed(
    kind: str, axes: Mapping[str, Sequence[str]], outcome: Outcome, *, seeds: int = 5, **heading: Any
) -> list[dict[str, Any]]:
    """One record for each cell and seed, the baseline's first.

    Args:
        kind: of design.
        axes: levels by key.
        outcome: metrics from a cell and a seed.
        seeds: how many.
        heading: what records say beside that, in place of the usual.
    """
    reference, others = cells(kind, [len(levels) for levels in axes.values()])
    by_cell = {reference: "baseline"} | {cell: f"arm {''.join(map(str, cell))}" for cell in others}
    design = {
        "kind": kind,
        "axes": [{"key": key, "levels": list(levels)} for key, levels in axes.items()],
        "cells": {name: list(cell) for cell, name in by_cell.items()},
    }
    return [
        {
            "key": f"{name}/{seed}",
            "suite": {"name": "designed", "question": "Which?", "sha256": "0" * 64, "file": "designed.toml"},
            "arm": name,
            "role": "baseline" if name == "baseline" else "arm",
            "reference": None if name == "baseline" else "baseline",
            "changes": "",
            "seed": seed,
            "status": "ok",
            "planned": {"arms": list(by_cell.values()), "seeds": list(range(seeds))},
            "design": design,
            "measure": {"primary": "accuracy", "metrics": ["accuracy", "f1_macro", "params", "latency"]},
            "device": "cpu",
            "metrics": dict(outcome(cell, seed)),
            **heading,
        }
        for cell, name in by_cell.items()
        for seed in range(seeds)
    ]
