"""Modules under test: which slots yield them, copies that a rule may change, and what they compute."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from cnnbench.errors import words_of
from cnnbench.slots import SLOTS, Surgery
from cnnbench.testing.rule import Broken, Inapplicable
from cnnbench.testing.state import as_found

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from cnnbench.testing.subject import Subject
    from cnnbench.testing.use import Use

SURGERY = frozenset(name for name, slot in SLOTS.items() if slot.protocol is Surgery)
BUILT = SURGERY | {"model", "architecture"}
"""What is trained."""
NETWORKS = BUILT | {"compressor"}
MODULES = NETWORKS | {"input"}


def plainest(subject: Subject) -> tuple[nn.Module, torch.Tensor]:
    """The module of the plainest situation, in eval mode, and an input for it; to be looked at, never changed."""
    return _of(subject.use(subject.how.situations[0]))


def own(subject: Subject) -> tuple[nn.Module, torch.Tensor]:
    """Another that the rule may change: a copy, or a new one where it can't be copied."""
    module, example = plainest(subject)
    try:
        twin = copy.deepcopy(module)
    except Exception:  # noqa: BLE001 - rule deepcopy tells of it
        return fresh(subject)
    return fresh(subject) if set(twin.modules()) & set(module.modules()) else (twin, example.clone())


def fresh(subject: Subject, draw: int = 0) -> tuple[nn.Module, torch.Tensor]:
    """A new one, of other random numbers where ``draw`` is another."""
    return _of(subject.fresh(subject.how.situations[0], draw))


def trained_on(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A training step's forward and backward pass; gradients are left in the parameters.

    Returns:
        The outputs, of which the loss is cross-entropy with classes in turn.
    """
    module.train()
    torch.manual_seed(0)  # for dropout; put back after the rule
    logits: torch.Tensor = module(x)
    if logits.requires_grad:
        classes = torch.arange(len(x)) % logits.shape[1]
        torch.nn.functional.cross_entropy(logits.float(), classes).backward()  # type: ignore[no-untyped-call]
    return logits


@contextmanager
def during(what: str) -> Iterator[None]:
    """Say of an error from the technique what was asked of it.

    Raises:
        Broken: for whatever the block raises but findings.
    """
    try:
        yield
    except (Broken, Inapplicable):
        raise
    except Exception as error:
        raise Broken(f"{what} it raises {words_of(error)}") from error


@contextmanager
def nothing_drawn(what: str) -> Iterator[None]:
    """See that the block draws from no global generator."""
    with as_found() as left:
        yield
    drawn = [change for change in left.changed if change.startswith("the state of")]
    if drawn:
        raise Broken(f"{what} it draws random numbers: it changes {drawn[0]}")


def _of(use: Use) -> tuple[nn.Module, torch.Tensor]:
    assert use.module is not None
    assert use.example is not None
    return use.module.eval(), use.example
