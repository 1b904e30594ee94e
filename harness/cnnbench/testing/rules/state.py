"""Rules about what a use leaves behind, and about chance."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from cnnbench.errors import MissingDependency, NoEffect
from cnnbench.execute.state import seed_all
from cnnbench.seeds import Streams
from cnnbench.testing.compare import difference
from cnnbench.testing.reference import batch, procedure
from cnnbench.testing.rule import Broken, Inapplicable, NotChecked, Rule
from cnnbench.testing.state import as_found
from cnnbench.testing.use import PLAIN
from cnnbench.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.testing.subject import Subject
    from cnnbench.testing.use import Use

THREADS = 3
"""A number of threads that no technique would set itself."""
DRAWS = 8
"""Other draws that are tried before it is said that none makes a difference."""


def _usable(subject: Subject) -> None:
    subject.use(subject.how.situations[0])


def _state_as_found(subject: Subject) -> None:
    refusals: list[Exception] = []
    for number, situation in enumerate(subject.how.situations):
        with suppress(Exception), as_found():
            subject.use(situation)  # what only a first use changes, such as imports, is changed now
        with as_found():
            seed_all(Streams(0, "conformance"))  # a state that no technique would set itself
            torch.set_num_threads(THREADS if number == 0 else 1)
            with as_found() as left:
                try:
                    subject.fresh(situation)
                except Exception as error:  # noqa: BLE001 - rules after this one tell of it; here what it left counts
                    refusals.append(error)
        if left.changed:
            raise Broken(f"with {situation} it changed {listed(left.changed, 5)}")
    if len(refusals) == len(subject.how.situations):
        if isinstance(refusals[0], Inapplicable | NotChecked | MissingDependency):
            raise refusals[0]
        raise NotChecked("it changed nothing, but no use of it came to its end")


def _inputs_unchanged(subject: Subject) -> None:
    for situation in subject.situations():
        use = subject.use(situation)
        if found := difference(use.before, use.given, at="what it was given"):
            raise Broken(f"with {situation} it changed its arguments in place: {found}")


def _same_draws(subject: Subject) -> None:
    for situation in subject.situations():
        one, other = subject.use(situation), subject.fresh(situation)
        if found := difference(_outcome(one), _outcome(other)):
            raise Broken(f"two uses with {situation} and equal generators differ: {found}")


def _outcome(use: Use) -> Any:
    return {"result": use.result, "generator": use.generator}


def _own_draws(subject: Subject) -> None:
    """Equal images under targets of their own, so that mixing two of them shows in the targets."""
    size = 2 * DRAWS
    images = batch(PLAIN)[0][:1].repeat(size, 1, 1, 1)
    targets = torch.eye(size)
    seen = [_one_by_one(subject, images, targets, draw) for draw in range(DRAWS)]
    draws = any(difference(seen[0], other) for other in seen[1:])
    apart = any(difference(one[0], other) for one in seen for other in one[1:])
    if apart and not draws:
        raise Broken(
            "it treats equal images differently, yet any generator gives the same: it draws from one of its own"
        )
    if not draws:
        raise Inapplicable("it draws nothing")
    if not apart:
        raise Broken(f"in {DRAWS} batches of {size} equal images all came out alike: one draw for the whole batch")


def _one_by_one(subject: Subject, images: torch.Tensor, targets: torch.Tensor, draw: int) -> list[Any]:
    """What becomes of each image; of its target the shares, whatever their classes."""
    (technique,) = procedure(subject.registry, PLAIN, augmentations=[subject.technique()]).augmentations
    changed, mixed = technique(images.clone(), targets.clone(), torch.Generator(device="cpu").manual_seed(draw))
    return list(zip(changed, mixed.sort(dim=1).values, strict=True))


def _no_op(subject: Subject) -> None:
    no_op = subject.entry.card.no_op
    if no_op is None:
        raise Inapplicable("it names no options with which it changes nothing: no_op={...} in @technique(...)")
    for situation in subject.situations():
        try:
            use = subject.fresh(situation, options=no_op)
        except NoEffect:
            continue
        if use.plain is None:
            raise Inapplicable(f"slot {subject.slot} has nothing that it could be compared with")
        if found := difference(use.plain, use.result):
            raise Broken(f"with {situation} and {dict(no_op)} it is not the same as leaving it out: {found}")


def _rule(name: str, holds: str, fix: str, check: Callable[[Subject], None], **more: Any) -> Rule:
    return Rule(name, holds, fix, check, waivable=False, **more)


RULES: tuple[Rule, ...] = (
    _rule(
        "state-as-found",
        "random generators, default dtype, gradient mode, threads and all else that a process shares stay as found",
        "draw from the generator that is handed in; set nothing global, or put it back in a finally block",
        _state_as_found,
    ),
    _rule(
        "usable",
        "it can be used as its slot's contract says",
        "see the slot's contract in docs/plugin_slots.md; where small images are the reason, give an example={...}",
        _usable,
        gate=True,
    ),
    _rule(
        "inputs-unchanged",
        "what it is given stays as it is",
        "work on a copy: images = images.clone(), or operations without a trailing underscore",
        _inputs_unchanged,
    ),
    _rule(
        "same-draws",
        "equal generators give equal results",
        "draw everything from the generator that is handed in, none from torch's, NumPy's or Python's global ones",
        _same_draws,
        needs=frozenset({"state-as-found"}),
    ),
    Rule(
        "own-draws",
        "where chance is in it, each image of a batch has a draw of its own, from the generator that is handed in",
        "draw as many numbers as there are images: torch.rand(len(images), generator=generator, device=images.device)",
        _own_draws,
        slots=frozenset({"augmentation"}),
        needs=frozenset({"state-as-found"}),
    ),
    _rule(
        "no-op",
        "with the options that its no_op names it changes nothing",
        "mend what it does with these options, or take no_op out of @technique(...)",
        _no_op,
    ),
)
