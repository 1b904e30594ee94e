"""Techniques given as classes from Python: of a notebook's cells, a script, or a module that can be imported."""

from __future__ import annotations

import inspect
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cnnbench.errors import CnnbenchWarning, UsageError
from cnnbench.importing import installed
from cnnbench.local_plugins import locate_plugin
from cnnbench.registry import Owner
from cnnbench.technique import card_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.plugins import PluginHost

OWNER: Final = Owner("this session", "this session", "(no plugin)")
"""Who owns a technique that no module offers by a hook."""
_HOOK: Final = "cnnbench_register_"


def bring_in(host: PluginHost, techniques: Sequence[type[Any]]) -> tuple[str, ...]:
    """Register techniques that are given as classes.

    A module that offers them by a hook is loaded as a local plugin, which worker processes load too.

    Args:
        host: where to register them.
        techniques: classes made with ``@technique``.

    Returns:
        Names of the techniques that this process alone has.

    Raises:
        PluginError: one is no technique, or its slot and name are taken.
        UsageError: its module can't be loaded as a plugin.
    """
    own = []
    for cls in techniques:
        card = card_of(cls)
        if _registered(host, cls):
            continue
        module = sys.modules.get(cls.__module__)
        if cls.__module__ == "__main__" or not any(name.startswith(_HOOK) for name in vars(module or object)):
            host.registry.add(cls, OWNER, _beside(cls))
            own.append(card.name)
            continue
        known = len(host.problems)
        host.load_local(locate_plugin(cls.__module__, Path.cwd()))
        if not _registered(host, cls):
            why = [str(problem) for problem in host.problems[known:]]
            raise UsageError(why[0] if why else _elsewhere(cls))
    return tuple(own)


def warn_of_later(techniques: Sequence[type[Any]]) -> None:
    """Warn of classes that their session has defined again since they were given.

    Warns:
        CnnbenchWarning: there is a later one of the same name.
    """
    for cls in techniques:
        now = vars(sys.modules["__main__"]).get(cls.__name__, cls)
        if cls.__module__ == "__main__" and now is not cls and isinstance(now, type):
            text = f"{cls.__name__} has been defined again since the suite was made: give techniques=[{cls.__name__}]"
            warnings.warn(text, CnnbenchWarning, stacklevel=3)


def _registered(host: PluginHost, cls: type[Any]) -> bool:
    card = card_of(cls)
    return card.name in host.registry.names(card.slot) and host.registry.get(card.slot, card.name).cls is cls


def _elsewhere(cls: type[Any]) -> str:
    return (
        f"{cls.__module__} does not register {cls.__qualname__} as it was imported here: return it from the module's "
        "hook, or import the module again if it was edited"
    )


def _beside(cls: type[Any]) -> Path | None:
    """The folder whose modules belong to a class's code; None where no file holds it, or an installed one does."""
    try:
        file = Path(inspect.getfile(cls))
    except (OSError, TypeError):
        return None
    if installed(file):
        return None
    depth = 0 if cls.__module__ == "__main__" else cls.__module__.count(".") + (file.name == "__init__.py")
    return file.absolute().parents[depth]
