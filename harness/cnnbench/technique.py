"""The decorator that makes a technique out of a class."""

from __future__ import annotations

import dataclasses
import inspect
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

from cnnbench.errors import PluginError, install_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

CARD = "__cnnbench_card__"


@dataclasses.dataclass(frozen=True)
class Requirement:
    """An optional package that a technique needs.

    Attributes:
        module: the name to import, e.g. ``torch_pruning``.
        extra: the extra that installs it.
        distribution: whose extra that is: the plugin's own, as pip knows it.
    """

    module: str
    extra: str
    distribution: str = "cnnbench"

    @property
    def installed(self) -> bool:
        """Whether its package is here, as far as that shows without importing it."""
        return find_spec(self.module.partition(".")[0]) is not None  # of a dotted name it would import the package

    @property
    def install(self) -> str:
        """The command that installs it."""
        return install_line(self.distribution, self.extra)


@dataclasses.dataclass(frozen=True)
class Card:
    """What the host knows of a technique without making one.

    Attributes:
        slot: the slot that it fills.
        name: the name that suites use.
        requires: optional packages it needs; where one is missing its trials are skipped with the install line.
        imports: its options name code that it imports.
        example: options, as a suite has them, with which it can be tried on small images.
        no_op: options with which it changes nothing; None where there are none such.
        waives: rules of the conformance kit that it can't keep, each with the reason.
    """

    slot: str
    name: str
    requires: tuple[Requirement, ...] = ()
    imports: bool = False
    example: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    no_op: Mapping[str, Any] | None = dataclasses.field(default=None, hash=False)
    waives: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)


@dataclass_transform(frozen_default=True)
def technique(
    slot: str,
    name: str,
    *,
    requires: tuple[Requirement, ...] = (),
    imports: bool = False,
    example: Mapping[str, Any] | None = None,
    no_op: Mapping[str, Any] | None = None,
    waives: Mapping[str, str] | None = None,
) -> Callable[[type[T]], type[T]]:
    """Make a class a technique: a frozen dataclass whose typed fields are its options.

    The class's docstring is its documentation: one line that says what it does, then the source, the formula with
    shapes, when it helps and when it is known not to. Constraints on options are ``annotated_types`` metadata:
    ``groups: Annotated[int, Ge(1)] = 8``. A ``ValueError`` from ``__post_init__`` becomes a line of the suite's errors.

    Args:
        slot: one of ``cnnbench.slots.SLOTS``.
        name: the name that suites use: a lower-case letter, then lower-case letters, digits, underscores, hyphens.
        requires: optional packages without which its trials are skipped.
        imports: its options name code that it imports: ``--no-import`` forbids it.
        example: options, as a suite has them, with which ``cnnbench check`` and ``cnnbench try`` use it where its
            defaults can't be used on small images, or show nothing there.
        no_op: options with which it changes nothing, e.g. ``{"p": 0.0}``; the kit then holds it to that.
        waives: rules of the conformance kit that it can't keep, each with the reason, e.g.
            ``{"onnx": "torch.fft has no operator there"}``; see ``cnnbench check --rules``.

    Raises:
        PluginError: unknown slot, bad name or no docstring of its own.
    """

    def decorate(cls: type[T]) -> type[T]:
        from cnnbench.slots import SLOTS

        where = f"{cls.__module__}.{cls.__qualname__}"
        if slot not in SLOTS:
            raise PluginError(f"{where}: unknown slot {slot!r}; the slots are {', '.join(SLOTS)}")
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
            raise PluginError(
                f"{where}: technique name {name!r} is not a lower-case letter followed by lower-case letters, digits, "
                "underscores and hyphens"
            )
        if not inspect.cleandoc(cls.__dict__.get("__doc__") or ""):
            raise PluginError(f"{where}: technique {name!r} has no docstring")
        made = dataclasses.dataclass(frozen=True)(cls)
        setattr(made, CARD, Card(slot, name, requires, imports, example or {}, no_op, waives or {}))
        return made

    return decorate


def card_of(cls: type[Any] | object) -> Card:
    """The card of a technique class or instance.

    Raises:
        PluginError: it was not made with ``@technique``.
    """
    card = getattr(cls, CARD, None)
    if not isinstance(card, Card):
        raise PluginError(f"{cls!r} is not a technique: decorate the class with @technique(slot, name)")
    return card
