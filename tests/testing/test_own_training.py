"""Our own augmentations, regularizers, strategies, recipe's parts, datasets and trackers keep every rule of the kit."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cnnbench.plugins import PluginHost
from cnnbench.testing import check, subject_of

SLOTS = ("augmentation", "regularizer", "strategy", "optimizer", "schedule", "loss", "dataset", "tracker")
SLOTS += ("metric", "reporter", "executor")
DEAR = {("tracker", "mlflow"), ("tracker", "wandb"), ("augmentation", "kornia"), ("strategy", "deep_ensemble")}
"""Seconds each: with -m slow."""
NOT_HERE = ("its data is not here", "pip install")
"""What a machine may lack."""

REGISTRY = PluginHost.discover().registry
OURS = [entry for entry in REGISTRY if entry.owner.distribution == "cnnbench" and entry.card.slot in SLOTS]


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gray images [count, 8, 8] of two classes and their labels."""
    labels = np.arange(count) % 2
    return (labels[:, None, None] * np.full((8, 8), 200)).astype(np.uint8), labels


def arrays(folder):
    (train, labels), (test, held_out) = images(20), images(10)
    path = folder / "images.npz"
    np.savez(path, x_train=train, y_train=labels, x_test=test, y_test=held_out)
    return {"path": str(path)}


def folders(folder):
    for split, count in {"train": 20, "test": 10}.items():
        for number, (image, label) in enumerate(zip(*images(count), strict=True)):
            home = folder / "images" / split / f"class{label}"
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(home / f"{number}.png")
    return {"path": str(folder / "images")}


def parquet(folder):
    for split, count in {"train": 20, "test": 10}.items():
        files = [io.BytesIO() for _ in range(count)]
        made, labels = images(count)
        for file, image in zip(files, made, strict=True):
            Image.fromarray(image).save(file, "PNG")
        table = pa.table({"image": [file.getvalue() for file in files], "label": labels})
        pq.write_table(table, folder / f"{split}.parquet")
    return {"path": str(folder)}


MADE = {"arrays": arrays, "folder": folders, "parquet": parquet}
"""Datasets of files, and who writes them."""


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(
            entry,
            id=f"{entry.card.slot}-{entry.card.name}",
            marks=[pytest.mark.slow] if (entry.card.slot, entry.card.name) in DEAR else [],
        )
        for entry in OURS
    ],
)
def test_a_technique_of_ours_keeps_every_rule(entry, tmp_path):
    (files := tmp_path / "files").mkdir()
    (scratch := tmp_path / "kit").mkdir()
    options = MADE[entry.card.name](files) if entry.card.slot == "dataset" and entry.card.name in MADE else {}
    subject = subject_of(entry, REGISTRY, scratch, options)
    findings = list(check(subject))
    assert [str(finding) for finding in findings if finding.status == "broken"] == []
    unseen = [finding for finding in findings if finding.status == "not checked"]
    assert [str(one) for one in unseen if not any(words in one.text for words in NOT_HERE)] == []
