"""Plugins that are not installed: a Python file, or a module, that a suite or ``--plugin`` names.

A file ``my_norm.py`` is the module ``my_norm``: models are pickled with the names of their classes, so each process
that reads them must find the same module by that name. Its folder comes last on ``sys.path``, for what it imports
beside it; where Python would find another module of one of these names first, that is an error.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import keyword
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.errors import UsageError, words_of
from cnnbench.importing import installed, located
from cnnbench.registry import Owner, nearest
from cnnbench.sources import code_files, digest_of_files

if TYPE_CHECKING:
    from types import CodeType, ModuleType

COPIES = "plugins"
"""Folder beside a suite where a run and ``cnnbench publish`` put copies of the plugins that it names."""
_MARK = "__cnnbench_digest__"
"""Attribute of a module that was imported as a local plugin: the digest of its code then."""


@dataclass(frozen=True)
class LocalPlugin:
    """A plugin that is not installed.

    Attributes:
        name: as the suite names it: a file's path, or a dotted module.
        module: dotted name that it is imported by.
        folder: absolute, the one on ``sys.path`` that it is imported from.
        digest: of its code when it was loaded, and empty before; a worker process refuses any other.
    """

    name: str
    module: str
    folder: Path
    digest: str = ""

    @property
    def owner(self) -> Owner:
        """Who its techniques belong to, the same wherever the folder lies."""
        if _is_file(self.name):
            return Owner(self.name, f"{self.module}.py", "(local file)")
        return Owner(self.name, self.module, "(local module)")

    @property
    def file(self) -> Path:
        """The module's file."""
        path = self.folder.joinpath(*self.module.split("."))
        package = path / "__init__.py"
        return package if package.is_file() and not _is_file(self.name) else path.with_suffix(".py")

    @property
    def beside(self) -> Path | None:
        """The folder whose modules are all part of its code; None where it lies among installed packages."""
        return None if installed(self.file) else self.folder

    @property
    def files(self) -> list[Path]:
        """Its code: its own file and all that this imports in its folder."""
        return code_files(self.file, self.beside)


def locate_plugin(written: str, folder: Path, *, copies: bool = False) -> LocalPlugin:
    """Where a plugin lies that a suite names; nothing is imported.

    Args:
        written: a file's path relative to ``folder``, with its ending ``.py``; or a dotted module, which is looked for
            in ``folder`` and then on the import path.
        folder: the suite's.
        copies: it is a folder of results: the copies there are the plugins that the suite was run with.

    Raises:
        UsageError: there is none, or its name is no module's; names the nearest that there is.
    """
    folder = _absolute(folder)
    if _is_file(written):
        return _located_file(written, folder, copies=copies)
    parts = written.split(".")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise UsageError(
            f"expected a Python file such as my_norm.py, or a module such as my_lab.norms, got {written!r}"
        )
    for root in (folder / COPIES, folder) if copies else (folder, folder / COPIES):
        path = root.joinpath(*parts)
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return LocalPlugin(written, written, root)
    if parts[0] in sys.stdlib_module_names:
        raise UsageError(f"{written} is a module of Python's own library, not a plugin")
    spec = located(written)
    if spec is None or not spec.origin or not spec.has_location:
        known = [path.name for path in folder.glob("*.py")] if len(parts) == 1 else []
        hint = nearest(f"{written}.py", known) if known else ""
        hint = hint if "did you mean" in hint else "a file is named with its ending .py"
        raise UsageError(f"no module {written!r} beside the suite nor on the import path: {hint}")
    origin = Path(spec.origin)
    return LocalPlugin(written, written, origin.parents[len(parts) - (origin.name != "__init__.py")])


def import_plugin(plugin: LocalPlugin) -> tuple[ModuleType, str]:
    """Import a local plugin under its module's name, its folder last on ``sys.path``.

    It is imported anew where its code has changed since this process imported it.

    Returns:
        The module, and the digest of the plugin's code.

    Raises:
        UsageError: Python has, or would find, another module of its name or of one that it imports beside it; or its
            code is not what it was when the run began.
        BaseException: whatever its code raises.
    """
    files = plugin.files
    digest = digest_of_files(files)
    if plugin.digest not in ("", digest):
        raise UsageError(f"{plugin.name} has changed since the run began: run again")
    added = str(plugin.folder) not in sys.path
    if added:
        sys.path.append(str(plugin.folder))
    importlib.invalidate_caches()
    _forget(plugin, files, digest)
    try:
        for file in files:
            _check_found(plugin, file)
        module = sys.modules.get(plugin.module) or _imported(plugin)
    except BaseException:  # nothing of it stays: it may be mended and tried again
        _forget(plugin, files, "")
        if added:
            sys.path.remove(str(plugin.folder))
        raise
    setattr(module, _MARK, digest)
    return module, digest


def fault_of(plugin: LocalPlugin, error: BaseException) -> str:
    """What an import raised, in one line, with the last line of the plugin's own code that led there."""
    if isinstance(error, SyntaxError) and error.filename:
        place, line, words = Path(error.filename), error.lineno or 0, f"{type(error).__name__}: {error.msg}"
    else:
        own = [
            (Path(frame.filename), frame.lineno or 0)
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).is_relative_to(plugin.folder)
        ]
        place, line = own[-1] if own else (plugin.file, 0)
        words = words_of(error)
        if isinstance(error, ImportError) and "relative import" in words and _is_file(plugin.name):
            words += f": name it as a module, with its package, in place of {plugin.name}"
    shown = place.relative_to(plugin.folder).as_posix() if place.is_relative_to(plugin.folder) else place.name
    return f"{shown}, line {line}: {words}" if line else f"{shown}: {words}"


def _is_file(written: str) -> bool:
    return written.endswith(".py") or "/" in written or "\\" in written


def _located_file(written: str, folder: Path, *, copies: bool) -> LocalPlugin:
    given = _absolute(folder / Path(written).expanduser())
    copy = folder / COPIES / given.name
    path = next((one for one in ((copy, given) if copies else (given, copy)) if one.is_file()), None)
    if path is None:
        raise UsageError(_missing(written, given))
    if path.suffix != ".py":
        raise UsageError(f"{written}: expected a Python file, whose name ends with .py")
    if path.name == "__init__.py":
        raise UsageError(f"{written}: name the package itself as a module, such as {path.parent.name!r}")
    if not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        better = "".join(c if c.isalnum() else "_" for c in path.stem)
        better = better if better.isidentifier() and not keyword.iskeyword(better) else f"my_{better}"
        raise UsageError(f"{written}: Python can't import a file of this name: rename it, say to {better}.py")
    return LocalPlugin(written, path.stem, path.parent)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def _missing(written: str, path: Path) -> str:
    if path.is_dir():
        return f"{written} is a folder: expected a Python file, or a package named as a module, such as {path.name!r}"
    if not path.parent.is_dir():
        return f"no such file {written!r}: there is no folder {path.parent.name!r}"
    hint = nearest(path.name, sorted(one.name for one in path.parent.glob("*.py")))
    return f"no such file {written!r}: {hint}" if hint else f"no such file {written!r}, nor any other Python file there"


def _forget(plugin: LocalPlugin, files: list[Path], digest: str) -> None:
    """Have modules imported anew: all of the plugin's if its code is not that of ``digest``, else those without a file.

    What was imported before anyone named it as a plugin is taken as it is.
    """
    known = sys.modules.get(plugin.module)
    changed = not digest or getattr(known, _MARK, digest) != digest
    for name in [_name(plugin, file) for file in files]:
        file = Path(getattr(sys.modules.get(name), "__file__", None) or "")
        if name in sys.modules and ((changed and file in files) or not file.is_file()):
            del sys.modules[name]


def _name(plugin: LocalPlugin, file: Path) -> str:
    """The dotted name of a module of the plugin's."""
    if plugin.beside is None:
        return plugin.module
    parts = file.relative_to(plugin.folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _check_found(plugin: LocalPlugin, file: Path) -> None:
    """See that Python finds a file of the plugin's where it imports a module of that name.

    Raises:
        UsageError: it finds another, with another content.
    """
    name = _name(plugin, file)
    parts = name.split(".")
    if parts[0] in sys.stdlib_module_names:
        raise UsageError(f"{file.name} has the name of a module of Python's own library, {parts[0]!r}: rename it")
    for count in range(1, len(parts)):  # packages around it that are imported already
        around = getattr(sys.modules.get(".".join(parts[:count])), "__path__", None)
        wanted = plugin.folder.joinpath(*parts[:count])
        if around is not None and not any(Path(one).resolve() == wanted.resolve() for one in around):
            package, place = ".".join(parts[:count]), next(iter(around), "without a folder")
            raise UsageError(
                f"{file.name} can't be the module {name!r}, for another package {package!r} is imported already, "
                f"{place}: rename one of them"
            )
    known = sys.modules.get(name)
    if known is not None:
        origin = getattr(known, "__file__", None)
    else:
        spec = located(name)
        origin = spec.origin if spec is not None else None
    if origin is None or _same(Path(origin), file):
        return
    how = "is imported already" if known is not None else "is found first"
    raise UsageError(f"{file.name} can't be the module {name!r}, for another {how}, {origin}: rename one of them")


def _same(found: Path, wanted: Path) -> bool:
    """Whether the file that Python finds is the one that is wanted, or holds the same."""
    if found.resolve() == wanted.resolve():
        return True
    return found.is_file() and found.read_bytes() == wanted.read_bytes()


def _imported(plugin: LocalPlugin) -> ModuleType:
    if not _is_file(plugin.name):
        return importlib.import_module(plugin.module)
    loader = _Loader(plugin.module, str(plugin.file))
    spec = importlib.util.spec_from_file_location(plugin.module, plugin.file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[plugin.module] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[plugin.module]
        raise
    return module


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a file each time: an edit within a second, of the same length, would go unseen in Python's own cache."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code
