"""Rules about datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.testing.rule import Broken, Inapplicable, Rule
from cnnbench.testing.use import PLAIN

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject


def _digest(subject: Subject) -> None:
    first, again = subject.technique().fingerprint(), subject.technique().fingerprint()
    if first != again:
        raise Broken(f"fingerprint() returned {first!r:.40}, and {again!r:.40} of the same data")


def _sizes(subject: Subject) -> None:
    found = subject.use(PLAIN).result
    if found["sizes"] is None:
        raise Inapplicable("it has no sizes()")
    loaded = tuple(len(labels) for labels in found["labels"])
    if found["sizes"] != loaded:
        raise Broken(f"sizes() says {found['sizes']}, and {loaded} training and test images are loaded")


RULES: tuple[Rule, ...] = (
    Rule(
        "fingerprint",
        "its fingerprint is the same for the same data",
        "digest what the files hold, or what decides the images; no time, no address, no order of a set",
        _digest,
        frozenset({"dataset"}),
        waivable=False,
        at="fingerprint",
    ),
    Rule(
        "sizes",
        "sizes() tells how many images are loaded",
        "count what __call__ loads, training images first; return None where that takes loading them",
        _sizes,
        frozenset({"dataset"}),
        at="sizes",
    ),
)
