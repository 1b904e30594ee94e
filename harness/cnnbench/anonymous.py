"""Records without what tells of their machine's folders: absolute paths become their last part.

Records hold such paths where a suite names data or weights, in the one-line reason of a trial that failed, and in its
traceback; a path starts with a home folder often enough, and that is a person's name.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final

HIDDEN: Final = "/..."
"""Stands for the folder of a path. Still absolute, so that ``compare`` takes the path for one that moved."""

# At least one folder and a name: a lone ``/x`` may be anything. Not within a word, a URL or a relative path.
_POSIX = re.compile(r"(?<![\w.:/~\\-])~?(?:/[^\s/\"'<>|:;,()\[\]{}]+){2,}/?")
_WINDOWS = re.compile(r"(?<![\w/\\])(?:[A-Za-z]:|\\\\[^\s\\/\"'<>|]+)(?:[\\/][^\s\\/\"'<>|:;,()\[\]{}]+)+")
# A traceback quotes its files, so that spaces are told from what follows.
_QUOTED = re.compile(r"(?<=File \")[^\"\n]+(?=\")")
_LIBRARY = re.compile(r".*/(?=(?:site-packages|dist-packages|python3\.\d+|cnnbench|cnnbench_plugins)/.*\.py$)")


def without_folders(value: Any) -> Any:
    """Plain data with the folders of absolute paths left out, in every text at any depth; keys stay.

    Code of a library, or of cnnbench, keeps its place in that, such as ``/.../site-packages/torch/conv.py``. Applying
    it twice changes nothing more.
    """
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {name: without_folders(item) for name, item in value.items()}
    return [without_folders(item) for item in value] if isinstance(value, list) else value


def _text(text: str) -> str:
    if "/" not in text and "\\" not in text:
        return text
    if "\n" not in text and _absolute(text):  # all of it is one path, whatever characters are in it
        return _shortened(text)
    text = _QUOTED.sub(lambda found: _shortened(found[0]) if _absolute(found[0]) else found[0], text)
    for pattern in (_WINDOWS, _POSIX):
        text = pattern.sub(lambda found: _shortened(found[0]), text)
    return text


def _absolute(text: str) -> bool:
    """Whether all of a text is one absolute path of two parts or more, and not a sentence that begins with one."""
    if re.search(r"[\"'<>|:;,()]|\s/", text[2:]):
        return False
    posix = text.startswith(("/", "~/")) and len(PurePosixPath(text).parts) > 2
    return posix or (PureWindowsPath(text).is_absolute() and not text.startswith("/"))


def _shortened(path: str) -> str:
    if path.startswith(HIDDEN):
        return path
    parts = path.replace("\\", "/")
    library = _LIBRARY.match(parts)
    return f"{HIDDEN}/{parts[library.end() :] if library else PurePosixPath(parts).name}"
