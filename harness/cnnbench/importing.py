"""What is known of modules before they are imported: importing one runs it."""

from __future__ import annotations

import ast
import site
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


def located(module: str) -> ModuleSpec | None:
    """Where a module would be imported from, without importing it or any package around it; None for nowhere.

    ``importlib.util.find_spec`` imports the packages around a module to ask them where it lies.

    Args:
        module: dotted name.
    """
    spec: ModuleSpec | None = None
    places: list[str] | None = None
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        try:
            spec = next(filter(None, (finder.find_spec(name, places) for finder in sys.meta_path)), None)
        except (ImportError, AttributeError, OSError, TypeError, ValueError):  # a finder is another's code
            return None
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return spec


def installed(file: Path) -> bool:
    """Whether a file is of an installed package, or of Python's own library."""
    paths = sysconfig.get_paths()
    roots = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots |= {*site.getsitepackages(), site.getusersitepackages()}
    return any(file.resolve().is_relative_to(Path(root).resolve()) for root in roots)


def defines(module: str, name: str) -> bool | None:
    """Whether a module's source defines a class or function of that name at its top; None where there is no module.

    Modules of the standard library define nothing that a suite or a model has need of, and some of them act when they
    are imported.

    Args:
        module: dotted name.
        name: without dots.
    """
    spec = located(module)
    if spec is None:
        return None
    if module.partition(".")[0] in sys.stdlib_module_names or not spec.origin or not spec.has_location:
        return False
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return False
    return any(isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name for node in ast.walk(tree))
