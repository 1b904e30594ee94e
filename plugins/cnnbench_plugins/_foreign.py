"""Other packages' classes, made with options as a suite has them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from cnnbench.errors import Unsupported, UsageError
from cnnbench.registry import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def made(make: Callable[..., Any], options: Mapping[str, Any], *given: Any, what: str) -> Any:
    """Call a class with what the technique gives and the suite's options; lists become tuples.

    Packages differ in what they do with an unknown keyword, and some let it pass: only those in the signature are
    taken.

    Args:
        make: the class.
        options: keyword arguments by name.
        given: positional arguments, which no option may name.
        what: names the class in errors.

    Raises:
        UsageError: it has no such option, and names the nearest; or it needs one that is not given.
        Unsupported: it refuses what it was given.
    """
    parameters = list(inspect.signature(make).parameters.values())[len(given) :]
    known = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    for name in options:
        if name not in known:
            raise UsageError(f"{what} has no option {name!r}: {nearest(name, known)}".removesuffix(": "))
    for one in parameters:
        if one.default is one.empty and one.name in known and one.name not in options:
            raise UsageError(f"{what} needs {one.name!r} among its options")
    try:
        return make(*given, **{name: _tuples(value) for name, value in options.items()})
    except (TypeError, ValueError, AssertionError, RuntimeError, ImportError) as error:
        raise Unsupported(f"{what} can't be made: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
