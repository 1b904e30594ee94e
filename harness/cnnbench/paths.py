"""Names from files as names of files: what may become part of a path, and what may be opened."""

from __future__ import annotations

import stat
import unicodedata
from pathlib import Path
from typing import Final

from cnnbench.errors import StoreError, UsageError
from cnnbench.text import printable

_RESERVED: Final = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789¹²³")}
)
"""Names of devices on Windows, whatever their ending."""
_LONGEST: Final = 200
"""Bytes; file systems take 255, and some files get an ending of their own."""


def name_fault(name: str) -> str:
    """Why a text is no name for one file or folder on any system, or an empty string."""
    if not name.strip():
        return "is empty"
    if name in {".", ".."}:
        return "is a way through folders"
    wrong = next((c for c in name if c in "/\\:" or unicodedata.category(c) in {"Cc", "Cf", "Cs"}), None)
    if wrong is not None:
        return f"has the character {wrong!a}"
    if len(name.encode()) > _LONGEST:
        return f"is longer than {_LONGEST} bytes"
    if name.endswith((" ", ".")):
        return "ends with a space or a dot"
    return "is a device's name on Windows" if name.partition(".")[0].strip().lower() in _RESERVED else ""


def plain_name(name: str, what: str) -> str:
    """A name that comes from records or a suite, once it is sure to be that of one file or folder.

    Args:
        name: to be checked.
        what: it is the name of, for the message.

    Raises:
        UsageError: it could lead elsewhere, or is none on some system.
    """
    fault = name_fault(name)
    if fault:
        raise UsageError(f"{what} {printable(name)[:60]!r} {fault}: expected a plain name")
    return name


def within(folder: Path, name: str) -> Path:
    """A path below a folder whose content others may have made.

    Args:
        folder: to stay in.
        name: relative to it, with slashes.

    Raises:
        StoreError: it leads out of the folder, by its parts or by links, or it is a link itself.
    """
    path = folder / name
    try:
        inside = "\0" not in name and path.parent.resolve().is_relative_to(folder.resolve()) and not path.is_symlink()
    except (OSError, ValueError, RuntimeError):  # a null byte; links in a circle
        inside = False
    if not inside or Path(name).is_absolute() or ".." in Path(name).parts:
        raise StoreError(f"{folder}: {printable(name)[:60]!r} leads out of the folder")
    return path


def content_within(folder: Path, name: str) -> bytes | None:
    """Content of a file below a folder; None where there is none.

    Raises:
        StoreError: the name leads out of the folder, or the file can't be read.
    """
    path = within(folder, name)
    try:
        check_readable(path)
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: can't be read: {error.strerror or error}") from error


def check_readable(path: Path) -> None:
    """See that a path is no device: one such as ``/dev/zero`` has no end, and a link may lead there.

    Raises:
        StoreError: it is one.
        OSError: it is not there, or can't be looked at.
    """
    mode = path.stat().st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise StoreError(f"{path}: is a device, expected a file")
