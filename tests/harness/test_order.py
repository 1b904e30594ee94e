"""What starts first: rehearsals, then what trains nothing, then the longest training."""

from __future__ import annotations

import random

from cnnbench.execute.order import place_in_line
from cnnbench.plan import Stage


def stage(kind: str, epochs: int = 0, compressors: tuple[dict[str, object], ...] = ()) -> Stage:
    chosen = [{"slot": "compressor", "name": "any", "options": options} for options in compressors]
    settings = {"recipe": {"epochs": epochs}, "techniques": {"compressor": chosen}}
    return Stage(f"{kind} {epochs} {compressors}", kind, {"settings": settings}, (), kind)


def test_rehearsals_then_short_stages_then_the_longest_training():
    expected = [
        stage("rehearse", 20),
        stage("profile", 20),
        stage("compress", 20, ({"epochs": 15, "student": {"options": {"epochs": 9}}},)),
        stage("train", 20),
        stage("compress", 20, ({"hint_epochs": 3, "epochs": 7},)),
        stage("train", 8),
        stage("compress", 20, ({"epochs": 2}, {"epochs": 3, "sparsity": 0.5})),
        stage("compress", 20, ({"bits": 8},)),
    ]
    mixed = random.Random(0).sample(expected, len(expected))
    assert sorted(mixed, key=lambda one: place_in_line(one, 0)) == expected


def test_exclusive_stages_go_by_seed_alone():
    assert place_in_line(stage("latency", 50), 1) < place_in_line(stage("latency", 5), 2)
    assert place_in_line(stage("energy", 5), 2) == place_in_line(stage("latency", 50), 2)
