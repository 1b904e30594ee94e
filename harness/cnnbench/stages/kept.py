"""The model that a worker has read last: the stages of one trial follow each other, and take the same one."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cnnbench.artifact import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from cnnbench.artifact import Artifact

    Identity = tuple[int, int, int, int]

MOST_BYTES = 64 * 1024 * 1024
"""A larger model is read again in place of being kept: its memory is worth more than the moment that reading takes."""


@dataclass
class LastModel:
    """What was read from one model file. Nobody runs it: each stage gets a copy, as if it had read the file itself."""

    _file: Identity | None = None
    _artifact: Artifact | None = None

    def put(self, path: Path, artifact: Artifact) -> None:
        """Keep what was read from a file on the CPU, in place of what was kept before."""
        # A module that says itself how it is copied may be copied to something else than its file holds.
        plain = not any(
            hasattr(module, "__deepcopy__") for part in (artifact.model, artifact.input) for module in part.modules()
        )
        small = path.stat().st_size <= MOST_BYTES
        self._file, self._artifact = (_identity(path), artifact) if plain and small else (None, None)

    def get(self, path: Path, device: str) -> Artifact:
        """The model in a file, on a device.

        Raises:
            StoreError: as ``load_model``.
        """
        if device != "cpu":
            return load_model(path, device)
        if self._artifact is None or _identity(path) != self._file:
            self._file = self._artifact = None  # let go of the old before the new comes in
            artifact = load_model(path)
            self.put(path, artifact)
            if self._artifact is None:
                return artifact
        model, input_module, notes = copy.deepcopy((self._artifact.model, self._artifact.input, self._artifact.notes))
        return replace(self._artifact, model=model, input=input_module, notes=notes)


def _identity(path: Path) -> Identity | None:
    """Of a file whatever it is called: a finished stage's folder is renamed. None where there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
