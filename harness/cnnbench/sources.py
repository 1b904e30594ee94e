"""Which files are the code behind a technique: its results are stale when one of them changes."""

from __future__ import annotations

import ast
import hashlib
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def code_files(file: Path, beside: Path | None = None) -> list[Path]:
    """Files of the code that a module stands for, sorted.

    Of an installed package that is every Python file in the module's folder, and all that they import of the same
    top-level package; of an installed module outside a package, itself alone. Of a plugin that is not installed it is
    the module and all that it imports of the folder that it lies in. Imports are read from the source, also those
    within functions.

    Args:
        file: the module's.
        beside: of a plugin that is not installed, the folder of ``sys.path`` that it is imported from.
    """
    if beside is not None:
        return _followed([file], beside, beside)
    if not (file.parent / "__init__.py").exists():
        return [file]
    root = file.parent
    while (root.parent / "__init__.py").exists():
        root = root.parent
    return _followed(sorted(file.parent.glob("*.py")), root.parent, root)


def _followed(ahead: list[Path], start: Path, within: Path) -> list[Path]:
    """Files and all that they import, sorted; arguments as of ``_imported``."""
    found: dict[Path, None] = {}
    while ahead:
        path = ahead.pop()
        if path in found:
            continue
        found[path] = None
        ahead += _imported(path, start, within, path.stat().st_mtime_ns)
        if start == within:  # packages around it are imported with it; an installed plugin's register all that it has
            around = (folder / "__init__.py" for folder in path.parents if folder.is_relative_to(within))
            ahead += [one for one in around if one.parent != within and one.is_file()]
    return sorted(found)


def digest_of_files(files: Iterable[Path]) -> str:
    """Digest of file names and contents, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def _imported(file: Path, start: Path, within: Path, changed: int) -> tuple[Path, ...]:  # noqa: ARG001 - a changed file is read anew
    """Files that a file imports; one that can't be parsed imports none.

    Args:
        file: which.
        start: the folder that absolute imports start from.
        within: where what counts lies.
        changed: when the file was, so that a changed one is read anew.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return ()
    modules: list[Path] = []
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            modules += [start.joinpath(*_parts(alias.name)) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else start
            module = base.joinpath(*_parts(node.module or ""))
            modules += [module, *(module / alias.name for alias in node.names)]
    files = []
    for module in modules:
        if module.is_relative_to(within) and module != within:
            files += [module.with_suffix(".py"), module / "__init__.py"]
    return tuple(path for path in files if path.is_file())


def _parts(module: str) -> list[str]:
    """Of a dotted name; none of Python's own library, which comes before any file of that name."""
    parts = module.split(".") if module else []
    return [] if parts and parts[0] in sys.stdlib_module_names else parts


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Every statement at any depth; expressions, which are most of a tree, hold none."""
    ahead: list[ast.AST] = [tree]
    while ahead:
        node = ahead.pop()
        yield node
        for inside in ("body", "orelse", "finalbody", "handlers", "cases"):
            found = getattr(node, inside, None)
            if isinstance(found, list):
                ahead += found
