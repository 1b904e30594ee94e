"""A model on its way from one stage to the next: one file, read back without running foreign code.

The file is a whole-module pickle, because a compressed model is no longer what its factory would build. It is read by
torch's restricted unpickler, which looks up only what is allowed by name: here ``nn.Module`` subclasses that can be
imported, and the few helpers that such modules keep as attributes. Before that the file is read without running it: no
class in it may be called with arguments of the file's choice, and no module is imported that does not define what the
file names.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import pickle
import sys
import tempfile
import types
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import StoreError, TrialError
from cnnbench.importing import defines
from cnnbench.lazy import nn, torch
from cnnbench.pickled import refused_call

if TYPE_CHECKING:
    from collections.abc import Mapping

# Modules whose own functions only compute on tensors, so that a model may keep one as an attribute.
_PURE_MODULES = ("torch.nn.functional", "torch._C._nn")

# Module classes of these run code that they are given as data, or reach out of the process.
_RUNNERS = (
    "torch.distributed",
    "torch.export",
    "torch.fx",
    "torch.jit",
    "torch.onnx",
    "torch.package",
    "torch._dynamo",
    "torch._export",
    "torch._inductor",
)

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


def save_model(
    path: Path, model: nn.Module, input_module: nn.Module, notes: Mapping[str, Any] | None = None
) -> Artifact:
    """Write a model to ``path``, all or nothing, once it has proved readable.

    Args:
        path: the file; its folder is made where it is missing.
        model: the trained or compressed model.
        input_module: its input normalization.
        notes: JSON-ready facts.

    Returns:
        What was read from the file, on the CPU, to prove it.

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
            artifact = load_model(temporary)
        except StoreError as error:
            reason = str(error).removeprefix(f"{temporary}: ")
            raise TrialError(f"{type(model).__name__} can't be passed to the next stage: {reason}") from error
        os.replace(temporary, path)  # noqa: PTH105 - the atomic call, by its name
        return artifact
    finally:
        temporary.unlink(missing_ok=True)


def load_model(path: Path, device: str = "cpu") -> Artifact:
    """Read what ``save_model`` wrote.

    Args:
        path: the file.
        device: where its tensors go.

    Raises:
        StoreError: the file is missing, corrupt, or names or calls something that a model has no need of; nothing that
            it names has been called.
    """
    try:
        _check_archive(path)
        unknown = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
        allowed = [(_harmless(path, name), name) for name in unknown]
        _check_calls(path)
        with torch.serialization.safe_globals(allowed):  # type: ignore[arg-type] # pairs are documented
            # torch can't put what it reads on an XLA device: such a model is read on the host and moved.
            content = torch.load(path, map_location="cpu" if device == "xla" else device, weights_only=True)
        model, input_module = content["model"], content["input"]
        if not (isinstance(model, nn.Module) and isinstance(input_module, nn.Module)):
            raise TypeError("its model or input is no nn.Module")
        return Artifact(model.to(device), input_module.to(device), json.loads(content["notes"]))
    except FileNotFoundError:
        raise StoreError(f"{path}: no such model file") from None
    except StoreError:
        raise
    except Exception as error:  # what is no model fails anywhere in the reader
        damaged = "is damaged" if zipfile.is_zipfile(path) else "is not a model file"
        raise StoreError(f"{path}: {damaged}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_archive(path: Path) -> None:
    """See that a file is an archive as ``torch.save`` writes it.

    Raises:
        ValueError: it is none, or one that grows when it is read.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its entries are compressed, which torch.save never does")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("its entries overlap")


def _check_calls(path: Path) -> None:
    """See that reading a file calls nothing but what makes tensors and containers.

    Raises:
        StoreError: it would call something else.
        ValueError: it is no pickle.
    """
    reader = torch._C.PyTorchFileReader(str(path))  # noqa: SLF001 - as torch.load reads it, so that both see one pickle
    called = refused_call(reader.get_record("data.pkl"))
    if called is not None:
        raise StoreError(f"{path}: calls {called}, which no model has need of, and is refused: {_REMEDY}")


def _harmless(path: Path, name: str) -> Any:
    """The object behind a dotted name in a model file, if a model may hold it.

    Raises:
        StoreError: it can't be imported, or is neither a module class nor a known helper.
    """
    module, _, attribute = name.rpartition(".")
    refused = StoreError(f"{path}: names {name}, which is no nn.Module class and is refused: {_REMEDY}")
    if f"{module}.".startswith(tuple(f"{runner}." for runner in _RUNNERS)):
        raise StoreError(f"{path}: names {name}, which can run code that comes as data, and is refused: {_REMEDY}")
    if module not in sys.modules:
        defined = defines(module, attribute)
        if defined is None:
            raise StoreError(f"{path}: names {name}, which can't be imported here (no module {module!r})")
        if not defined:
            raise refused
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # anything may come out of another's module
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
    raise refused
