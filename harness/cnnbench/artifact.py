"""A model on its way from one stage to the next: one file, read back without running foreign code.

The file is a whole-module pickle, because a compressed model is no longer what its factory would build. It is read by
torch's restricted unpickler, which calls only what is allowed by name: here ``nn.Module`` subclasses that can be
imported, and the few helpers that such modules keep as attributes.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import pickle
import tempfile
import types
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import StoreError, TrialError
from cnnbench.lazy import nn, torch

if TYPE_CHECKING:
    from collections.abc import Mapping

# Modules whose own functions only compute on tensors, so that a model may keep one as an attribute.
_PURE_MODULES = ("torch.nn.functional", "torch._C._nn")

_REMEDY = (
    "a model that passes between stages may hold importable nn.Module classes, functions of torch.nn.functional, "
    "tensors and plain values"
)


@dataclass(frozen=True)
class Artifact:
    """What one stage hands to the next.

    Attributes:
        model: maps model inputs [N, C, H, W] to logits [N, K].
        input: maps float images in 0..1 to model inputs.
        notes: facts for the record, JSON-ready.
    """

    model: nn.Module
    input: nn.Module
    notes: dict[str, Any] = field(default_factory=dict)


def save_model(path: Path, model: nn.Module, input_module: nn.Module, notes: Mapping[str, Any] | None = None) -> None:
    """Write a model to ``path``, all or nothing, once it has proved readable.

    Args:
        path: the file; its folder is made where it is missing.
        model: the trained or compressed model.
        input_module: its input normalization.
        notes: JSON-ready facts.

    Raises:
        TrialError: the model holds something that ``load_model`` would refuse, such as a lambda, a local class or a
            hook; names it.
    """
    try:
        plain = json.dumps(dict(notes or {}))
    except (TypeError, ValueError) as error:
        raise TrialError(f"the model's notes are not plain data: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
    try:
        try:
            torch.save({"model": model, "input": input_module, "notes": plain}, temporary)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TrialError(f"{type(model).__name__} can't be saved: {error}; {_REMEDY}") from error
        try:
            load_model(temporary)
        except StoreError as error:
            reason = str(error).removeprefix(f"{temporary}: ")
            raise TrialError(f"{type(model).__name__} can't be passed to the next stage: {reason}") from error
        os.replace(temporary, path)  # noqa: PTH105 - the atomic call, by its name
    finally:
        temporary.unlink(missing_ok=True)


def load_model(path: Path, device: str = "cpu") -> Artifact:
    """Read what ``save_model`` wrote.

    Args:
        path: the file.
        device: where its tensors go.

    Raises:
        StoreError: the file is missing, corrupt, or names something that a model has no need of; nothing that it
            names has been called.
    """
    try:
        unknown = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
        allowed = [(_harmless(path, name), name) for name in unknown]
        with torch.serialization.safe_globals(allowed):  # type: ignore[arg-type] # pairs are documented
            # torch can't put what it reads on an XLA device: such a model is read on the host and moved.
            content = torch.load(path, map_location="cpu" if device == "xla" else device, weights_only=True)
        model, input_module = content["model"], content["input"]
        if not (isinstance(model, nn.Module) and isinstance(input_module, nn.Module)):
            raise TypeError("its model or input is no nn.Module")
        return Artifact(model.to(device), input_module.to(device), json.loads(content["notes"]))
    except FileNotFoundError:
        raise StoreError(f"{path}: no such model file") from None
    except (EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as error:
        damaged = "is damaged" if zipfile.is_zipfile(path) else "is not a model file"
        raise StoreError(f"{path}: {damaged}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _harmless(path: Path, name: str) -> Any:
    """The object behind a dotted name in a model file, if a model may hold it.

    Raises:
        StoreError: it can't be imported, or is neither a module class nor a known helper.
    """
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise StoreError(f"{path}: names {name}, which can't be imported here ({_first_line(error)})") from error
    if isinstance(found, type) and issubclass(found, nn.Module):
        return found
    if found is functools.partial:
        return found
    if (
        module in _PURE_MODULES
        and isinstance(found, types.FunctionType | types.BuiltinFunctionType)
        and found.__module__ == module
    ):
        return found
    raise StoreError(f"{path}: names {name}, which is no nn.Module class and is refused: {_REMEDY}")
