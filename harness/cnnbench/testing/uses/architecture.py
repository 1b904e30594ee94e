"""Architectures: a small model's options, rewritten before it is built."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cnnbench.errors import Unsupported, UsageError
from cnnbench.options import complete, make
from cnnbench.testing.compare import copied
from cnnbench.testing.use import Situation, Use
from cnnbench.testing.uses.model import built
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnnbench.registry import Registry
    from cnnbench.testing.subject import Subject

_COLOUR = Situation(height=16, width=16, batch=3)
situations = (
    *(_COLOUR, replace(_COLOUR, channels=1), replace(_COLOUR, height=17, width=15)),
    *(replace(_COLOUR, batch=1, classes=7), replace(_COLOUR, batch=0)),
)

SMALL = {"resnet": {"depth": 8, "width": 8}, "plain": {"depth": 3, "width": 8}}
"""Small networks that are tried first, since they have most of the options that architectures rewrite."""


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:
    """Rewrite the first model that has what it rewrites, and build it."""
    refusal: Exception | None = None
    for model in _models(subject.registry):
        given = {"model": model}
        before = copied(given)
        try:
            changed = technique(model)
        except Unsupported as error:
            refusal = refusal or error
            continue
        found = built(changed, situation, draw, subject.name)
        return replace(found, given=given, before=before, plain=built(model, situation, draw, subject.name).result)
    raise refusal or Unsupported("there is no model to rewrite")


def _models(registry: Registry) -> Iterator[Any]:
    """Models as suites name them, the small ones first."""
    names = registry.names("model")
    for name in [*SMALL, *(name for name in names if name not in SMALL)]:
        try:
            yield make(complete(Choice("model", name, SMALL.get(name, {})), registry), registry)
        except UsageError:  # it can't be made without options of the user's
            continue
