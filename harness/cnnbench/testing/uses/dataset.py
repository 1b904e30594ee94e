"""Datasets: loaded as the harness loads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.data import load
from cnnbench.errors import BrokenContract, DataError
from cnnbench.testing.rule import NotChecked
from cnnbench.testing.use import PLAIN, Situation, Use

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

situations = (PLAIN,)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:  # noqa: ARG001 - as all slots have it
    """Fingerprint, sizes, images and labels.

    Raises:
        NotChecked: the data is not here.
    """
    try:
        fingerprint: object = technique.fingerprint()
    except DataError as error:
        raise NotChecked(f"its data is not here: {error}") from error
    if not isinstance(fingerprint, str) or not fingerprint:
        raise BrokenContract(f"{subject.name}: fingerprint() returned {fingerprint!r:.60}, expected text")
    sizes = technique.sizes() if hasattr(technique, "sizes") else None
    data = load(technique)
    result = {
        "sizes": None if sizes is None else tuple(sizes),
        "images": (data.train_images, data.test_images),
        "labels": (data.train_labels, data.test_labels),
        "classes": list(data.class_names),
    }
    return Use(given={}, before={}, result=result)
