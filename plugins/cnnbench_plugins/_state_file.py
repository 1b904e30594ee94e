"""Weights from a file: what ``torch.save`` made of a state dict, or safetensors."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from cnnbench.errors import Unsupported, UsageError
from cnnbench.lazy import torch
from cnnbench.sources import digest_of_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Names of the safetensors format's element types.
_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def fingerprint(path: Path) -> str:
    """Digest of a file's content, without torch.

    Raises:
        UsageError: there is no such file.
    """
    if not path.is_file():
        raise UsageError(f"weights {path}: no such file")
    return digest_of_files([path])


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, on the CPU.

    Args:
        path: ``*.safetensors``, or a file that ``torch.save(model.state_dict(), path)`` wrote; no code in it is run.

    Raises:
        Unsupported: the file can't be read or holds something else.
    """
    try:
        state: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except Exception as error:  # what is not of the format fails anywhere in the reader
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise Unsupported(f"weights {path}: not a state dict of plain tensors: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise Unsupported(f"weights {path}: not a state dict of plain tensors but a {type(state).__name__}")
    return dict(state)


def _read_pickle(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The format: the header's length as 8 bytes, little end first; the header, JSON; the tensors' bytes."""
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header: Mapping[str, Any] = json.loads(content[8:begin])
    return {name: _tensor(content[begin:], entry) for name, entry in header.items() if name != "__metadata__"}


def _tensor(content: bytes, entry: Mapping[str, Any]) -> torch.Tensor:
    start, stop = entry["data_offsets"]
    shape, dtype = entry["shape"], getattr(torch, _TYPES[entry["dtype"]])
    if not math.prod(shape):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(content[start:stop]), dtype=dtype).reshape(shape)
