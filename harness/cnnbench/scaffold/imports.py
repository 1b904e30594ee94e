"""A module's import statements, taken apart and put together in the usual order."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WIDTH = 120


@dataclass(frozen=True)
class Import:
    """One name that a module imports.

    Attributes:
        module: where it comes from.
        name: of what is taken out of the module; None for ``import module``.
        alias: what it is called here, where that is another name.
    """

    module: str
    name: str | None = None
    alias: str | None = None

    @property
    def bound(self) -> str:
        """What it is called here."""
        return self.alias or self.name or self.module.partition(".")[0]


@dataclass(frozen=True)
class Module:
    """A module's source in parts.

    Attributes:
        docstring: as it is written, quotes included.
        imports: what it imports at its top.
        typing: what it imports for type checkers alone.
        body: all that follows.
    """

    docstring: str
    imports: frozenset[Import]
    typing: frozenset[Import]
    body: str

    def text(self, own: str) -> str:
        """The whole source, imports in sections: future, Python's library, other packages, this package.

        Args:
            own: name of the top-level package that the module is part of.
        """
        imports = self.imports - ({Import("typing", "TYPE_CHECKING")} if not self.typing else set())
        parts = [self.docstring, _sections(imports, own)]
        if self.typing:
            parts.append("if TYPE_CHECKING:\n" + _indented(_sections(self.typing, own)))
        head = "\n\n".join(part for part in parts if part)
        after = "\n\n\n" if self.body.startswith(("class ", "def ", "@", "#")) else "\n\n"
        return f"{head}{after}{self.body}"


def take_apart(source: str) -> Module:
    """A module whose docstring, imports and block for type checkers come first, in this order."""
    lines = source.splitlines()
    first, *statements = ast.parse(source).body
    imports: list[Import] = []
    typing: list[Import] = []
    end = first.end_lineno or 0
    for node in statements:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports += _imports(node)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            typing += (one for inner in node.body for one in _imports(inner))
        else:
            break
        end = node.end_lineno or 0
    body = "\n".join(lines[end:]).strip("\n") + "\n"
    docstring = "\n".join(lines[: first.end_lineno])
    return Module(docstring, frozenset(imports), frozenset(typing), body)


def names_used(source: str) -> set[str]:
    """Every name that a module binds or reads."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {one.bound for one in _imports(node)}
    return found


def _imports(node: ast.stmt) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, None, alias.asname) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (Import(node.module or "", alias.name, alias.asname) for alias in node.names)


def _sections(imports: Iterable[Import], own: str) -> str:
    sections: dict[int, list[Import]] = defaultdict(list)
    for one in imports:
        top = one.module.partition(".")[0]
        order = 0 if top == "__future__" else 1 if top in sys.stdlib_module_names else 3 if top == own else 2
        sections[order].append(one)
    return "\n\n".join("\n".join(_statements(sections[order])) for order in sorted(sections))


def _statements(imports: list[Import]) -> Iterator[str]:
    whole = {(one.module, one.alias) for one in imports if one.name is None}
    for module, alias in sorted(whole, key=lambda pair: (pair[0].lower(), pair[1] or "")):
        yield f"import {module} as {alias}" if alias else f"import {module}"
    taken: dict[str, list[Import]] = defaultdict(list)
    for one in imports:
        if one.name is not None:
            taken[one.module].append(one)
    for module in sorted(taken, key=str.lower):
        names = [
            f"{one.name} as {one.alias}" if one.alias else str(one.name) for one in sorted(taken[module], key=_place)
        ]
        line = f"from {module} import {', '.join(names)}"
        if len(line) > WIDTH:
            line = "\n".join([f"from {module} import (", *(f"    {name}," for name in names), ")"])
        yield line


def _place(one: Import) -> tuple[int, str]:
    """Constants come first, then classes, then the rest."""
    name = one.name or ""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2, name)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else line for line in text.splitlines())
