"""Suite files as text and tables, and what is wrong where they are neither."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from cnnbench.errors import Problem, StoreError, SuiteError
from cnnbench.paths import check_readable
from cnnbench.registry import nearest

_POSITION = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_TWICE = ("Cannot overwrite a value", "Cannot declare", "Duplicate inline table key")


def read_file(file: str | Path) -> bytes:
    """The file's bytes.

    Raises:
        SuiteError: there is no such file, it is a folder, or it can't be read.
    """
    path = Path(file)
    try:
        check_readable(path)
        return path.read_bytes()
    except FileNotFoundError:
        raise _error(file, 0, f"no such file{_nearby(path)}") from None
    except (IsADirectoryError, NotADirectoryError):
        message = (
            "this is a folder, expected a suite file" if path.is_dir() else "no such file: part of the path is a file"
        )
        raise _error(file, 0, message + _inside(path)) from None
    except StoreError as error:
        what = str(error).removeprefix(f"{path}: is ").partition(",")[0]
        raise _error(file, 0, f"this is {what}, expected a suite file") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _error(file, 0, f"can't be read: {reason}") from None


def parse_toml(content: bytes, file: str) -> tuple[str, dict[str, Any]]:
    """A suite's text and its tables.

    Raises:
        SuiteError: empty, not text, or not TOML; with line and column.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _error(file, line, f"not a text file in UTF-8 (byte {error.start}); expected TOML") from None
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        raise _error(file, 0, "not TOML that can be read: brackets are nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and an integer with thousands of digits
        raise _not_toml(str(error), text, file) from None
    if not raw:
        raise _error(file, 0, "nothing is in it: a suite needs question, dataset and model")
    return text, raw


def _not_toml(message: str, text: str, file: str) -> SuiteError:
    match = _POSITION.search(message)
    if match is None:
        return _error(file, 0, f"not TOML: {message}")
    line = int(match[1]) if match[1] else text.rstrip().count("\n") + 1
    column = f" (column {match[2]})" if match[2] else ""
    message = message[: match.start()]
    if message.startswith(_TWICE):
        lines = text.splitlines()
        key = lines[line - 1].partition("=")[0].strip() if line <= len(lines) else ""
        return _error(file, line, f"not TOML: {key or 'a key'} is given twice{column}")
    return _error(file, line, f"not TOML: {message[:1].lower()}{message[1:]}{column}")


def _error(file: str | Path, line: int, message: str) -> SuiteError:
    return SuiteError([Problem(str(file), line, "", message)])


def _suites(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.glob("*.toml"))
    except OSError:
        return []


def _nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {str(path.parent)!r}"
    hint = nearest(path.name, _suites(path.parent))
    return f": {hint}" if hint else ""


def _inside(folder: Path) -> str:
    names = _suites(folder)
    return f"; it holds {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else ""
