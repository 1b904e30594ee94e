"""Rules about the sizes of what a technique meets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.errors import NoEffect, Unsupported, words_of
from cnnbench.testing.rule import Broken, Inapplicable, Rule
from cnnbench.testing.use import EMPTY, GRAY, ONE
from cnnbench.testing.uses import USES

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.testing.subject import Subject
    from cnnbench.testing.use import Situation


def _copes(matches: Callable[[Situation], bool]) -> Callable[[Subject], None]:
    def check(subject: Subject) -> None:
        for situation in filter(matches, subject.how.situations):
            try:
                subject.use(situation)
            except (Unsupported, NoEffect) as error:
                if not str(error).strip():
                    raise Broken(f"with {situation} it raises {type(error).__name__} and does not say why") from error
            except Inapplicable:
                raise
            except Exception as error:
                raise Broken(f"with {situation} it raises {words_of(error)}") from error

    return check


def _rule(name: str, holds: str, fix: str, matches: Callable[[Situation], bool]) -> Rule:
    """A rule for every slot that meets such a situation."""
    slots = frozenset(slot for slot, how in USES.items() if any(map(matches, how.situations)))
    return Rule(name, holds, fix, _copes(matches), slots)


RULES: tuple[Rule, ...] = (
    _rule(
        "gray-and-colour",
        "it copes with images of one channel and of three, or raises Unsupported with a reason",
        "read the number of channels from the shape, images.shape[1]",
        lambda one: one.channels == GRAY.channels,
    ),
    _rule(
        "odd-sizes",
        "it copes with images of odd and unequal height and width, or raises Unsupported with a reason",
        "read height and width from the shape, round what you halve, and take no image to be square",
        lambda one: one.height % 2 == 1,
    ),
    _rule(
        "batch-of-one",
        "it copes with a batch of one image",
        "take no statistics over the batch, or leave a batch of one alone",
        lambda one: one.batch == ONE.batch,
    ),
    _rule(
        "empty-batch",
        "it copes with a batch of no images",
        "take no mean, maximum or first of an empty batch",
        lambda one: one.batch == EMPTY.batch,
    ),
)
