"""Where in an author's own code something is."""

from __future__ import annotations

import inspect
import traceback
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def line_of_error(error: BaseException | None, cls: type[Any]) -> str:
    """File and line of the author's code that an error came through last.

    Args:
        error: raised by a technique, or below it.
        cls: the technique's class; what lies in the folder of its file is the author's.

    Returns:
        ``file:line``; empty where it came through none.
    """
    calls = traceback.extract_tb(error.__traceback__) if error is not None else ()
    return line_of_calls(((frame.filename, frame.lineno or 1) for frame in reversed(calls)), cls)


def line_of_calls(calls: Iterable[tuple[str, int]], cls: type[Any]) -> str:
    """File and line of the innermost call that is the author's code.

    Args:
        calls: file and line of each, the innermost first.
        cls: as ``line_of_error`` takes it; gives what it does.
    """
    home = _file(cls)
    if home is None:
        return ""
    return next((_shown(Path(file), line) for file, line in calls if _beside(Path(file), home)), "")


def line_of_method(name: str, cls: type[Any]) -> str:
    """File and line where a technique's method begins, below its decorators.

    Args:
        name: the method's; empty for the class itself.
        cls: the technique's class.

    Returns:
        ``file:line``; empty where there is no such method, or another package has it.
    """
    home = _file(cls)
    found = inspect.unwrap(getattr(cls, name, None) or (lambda: None)) if name else cls
    file = _file(found)
    if home is None or file is None or not _beside(file, home) or (name and not inspect.isfunction(found)):
        return ""
    lines, first = inspect.getsourcelines(found)
    above = sum(1 for _ in takewhile(lambda line: not line.lstrip().startswith(("def ", "class ")), lines))
    return _shown(file, first + above) if above < len(lines) else ""


def _file(thing: Any) -> Path | None:
    try:
        inspect.getsourcelines(thing)
        return Path(inspect.getfile(thing)).resolve()
    except (OSError, TypeError):  # made in an interactive session
        return None


def _beside(path: Path, home: Path) -> bool:
    """Whether a file lies in the folder of another or below, and not in an environment that lies there as well."""
    path = path.resolve()
    return path.is_relative_to(home.parent) and not _INSTALLED & set(path.relative_to(home.parent).parts)


def _shown(path: Path, line: int) -> str:
    path, here = path.resolve(), Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line}"
