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
    """Files of the code that a module stands for, sorted: every Python file in its folder, and all that they import.

    Imports are read from the source, also those inside functions. They are followed within the module's own top-level
    package. A module outside a package stands for itself alone, unless ``beside`` says where its neighbours lie.

    Args:
        file: the module's.
        beside: a folder of ``sys.path`` whose modules and packages all belong to the code, as of a plugin that is no
            installed package; None for an installed one, whose neighbours there are strangers.
    """
    packaged = (file.parent / "__init__.py").exists()
    root = file.parent if packaged else file
    while packaged and (root.parent / "__init__.py").exists():
        root = root.parent
    within, start = (root, root.parent) if beside is None else (beside, beside)
    found: dict[Path, None] = {}
    ahead = sorted(file.parent.glob("*.py")) if packaged else [file]
    while ahead:
        path = ahead.pop()
        if path not in found:
            found[path] = None
            ahead += _imported(path, start, within, path.stat().st_mtime_ns)
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
