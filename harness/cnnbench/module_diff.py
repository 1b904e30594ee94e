"""What a technique changed in a network, module by module: what was replaced, put in, taken out, or hooked."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from cnnbench.stages.profile import count_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["replaced", "changed", "put in", "taken out", "hooked"]

_MOST_INSIDE = 4
"""Of a module's own modules so many are named."""


@dataclass(frozen=True)
class Change:
    """One kind of change, wherever in the network it was made.

    Attributes:
        kind: ``changed`` is a module of the same class with other settings; ``hooked`` one that calls more than it did.
        before, after: what the first of them was and is; empty where there was or is none.
        paths: qualified names of all of them, numbers in them as ``*``, each once; the model itself is empty.
        count: how many.
    """

    kind: Kind
    before: str
    after: str
    paths: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class ModelDiff:
    """Two networks compared.

    Attributes:
        changes: the outermost modules that differ, in the order of the network; what is within them is not listed.
        params: number of parameters before and after.
        leaves: how many innermost modules of each class the second network has.
        filled: parameters that both networks have in the same shape.
        refilled: those of them whose values differ.
        zeros: values of parameters that are exactly 0, before and after.
    """

    changes: tuple[Change, ...]
    params: tuple[int, int]
    leaves: Counter[str]
    filled: int
    refilled: int
    zeros: tuple[int, int]


def compare_models(before: nn.Module, after: nn.Module) -> ModelDiff:
    """Compare two networks, module by module.

    Args:
        before: without the technique.
        after: with it.
    """
    groups: dict[tuple[Kind, str, str], list[tuple[str, str, str]]] = {}
    for kind, path, old, new in _walk(before, after, ""):
        key = (kind, _class(old), _class(new))
        groups.setdefault(key, []).append((path, described(old), described(new)))
    own, others = dict(before.named_parameters()), dict(after.named_parameters())
    common = [(value, others[name]) for name, value in own.items() if name in others]
    common = [(one, other) for one, other in common if one.shape == other.shape]
    changes = []
    for (kind, *_), found in groups.items():
        paths = dict.fromkeys(_starred([path for path, *_ in found]))
        changes.append(Change(kind, found[0][1], found[0][2], tuple(paths), len(found)))
    return ModelDiff(
        changes=tuple(changes),
        params=(count_parameters(before)["params"], count_parameters(after)["params"]),
        leaves=Counter(type(m).__name__ for m in after.modules() if next(m.children(), None) is None),
        filled=len(common),
        refilled=sum(not torch.equal(one.cpu(), other.cpu()) for one, other in common),
        zeros=(_zeros(before), _zeros(after)),
    )


def described(module: nn.Module | None) -> str:
    """A module with its settings on one line, and, of one that holds others, what they are."""
    if module is None:
        return ""
    inside = list(module.children())
    if not inside:
        return f"{type(module).__name__}({' '.join(module.extra_repr().split())})"
    names = [described(one) if len(inside) <= 2 and not list(one.children()) else type(one).__name__ for one in inside]
    more = [f"... {len(names)} in all"] if len(names) > _MOST_INSIDE else []
    return f"{type(module).__name__}({', '.join([*names[:_MOST_INSIDE], *more])})"


def _walk(old: nn.Module, new: nn.Module, path: str) -> Iterator[tuple[Kind, str, nn.Module | None, nn.Module | None]]:
    """The outermost modules that differ, with their qualified names."""
    if type(old) is not type(new):
        yield "replaced", path, old, new
        return
    if _own(old) != _own(new):
        yield "changed", path, old, new
        if next(new.children(), None) is None:
            return
    elif _hooks(old) < _hooks(new):
        yield "hooked", path, old, new
    for name, one, other in _pairs(old, new):
        inner = f"{path}.{name}" if path else name
        if one is None:
            yield "put in", inner, None, other
        elif other is None:
            yield "taken out", inner, one, None
        else:
            yield from _walk(one, other, inner)


def _pairs(old: nn.Module, new: nn.Module) -> Iterator[tuple[str, nn.Module | None, nn.Module | None]]:
    """Children that belong together: of one name, or, in a list that grew or shrank, of one place in its order."""
    ours, theirs = dict(old.named_children()), dict(new.named_children())
    if ours.keys() == theirs.keys() or not all(name.isdecimal() for name in (*ours, *theirs)):
        for name in dict.fromkeys([*ours, *theirs]):
            yield name, ours.get(name), theirs.get(name)
        return
    left, right = list(ours), list(theirs)
    matcher = SequenceMatcher(None, [str(m) for m in ours.values()], [str(m) for m in theirs.values()], autojunk=False)
    for _, begin, end, first, last in matcher.get_opcodes():
        for i in range(max(end - begin, last - first)):
            one = ours[left[begin + i]] if begin + i < end else None
            other = theirs[right[first + i]] if first + i < last else None
            yield right[first + i] if other is not None else left[begin + i], one, other


def _own(module: nn.Module) -> tuple[str, dict[str, torch.Size]]:
    """A module's settings and the shapes of its own parameters."""
    return module.extra_repr(), {name: value.shape for name, value in module.named_parameters(recurse=False)}


def _hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)  # noqa: SLF001 - torch has no other way to ask


def _zeros(model: nn.Module) -> int:
    return sum(value.numel() - int(torch.count_nonzero(value.detach())) for value in model.parameters())


def _class(module: nn.Module | None) -> str:
    """What makes changes alike: a module's class, and the classes of what it holds."""
    return "" if module is None else " ".join(type(inner).__name__ for inner in module.modules())


def _starred(paths: list[str]) -> list[str]:
    """Qualified names with ``*`` for numbers where there are several."""
    return paths if len(paths) == 1 else [re.sub(r"(?<![^.])\d+(?![^.])", "*", path) for path in paths]
