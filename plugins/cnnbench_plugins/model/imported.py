"""The user's own network, by import path."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping  # noqa: TC003 - read at run time
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import UsageError
from cnnbench.importing import located
from cnnbench.lazy import torch
from cnnbench.registry import nearest
from cnnbench.sources import digest_of_files
from cnnbench.technique import technique
from cnnbench_plugins.model._probe import check_logits

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@technique("model", "import", imports=True)
class Imported:
    """Any network of your own: ``package.module:callable``, called with the images' shape and the number of classes.

    ``callable(image_shape, num_classes, **options)`` returns an ``nn.Module`` from float images [N, C, H, W] to logits
    [N, num_classes]; ``image_shape`` is (C, H, W). It may be a function or an ``nn.Module`` class, and draws its
    initialization from torch's default generator, which the trial has seeded. Its classes must be importable by name,
    so that trained weights can move between processes: install the package, or put its folder on ``PYTHONPATH``.
    Python's own library is refused, and what it gives to other modules. ``--no-import`` forbids this model altogether:
    importing a module runs it, so give the option for a suite that a stranger wrote.

    Attributes:
        target: import path, e.g. ``"mypackage.networks:make"``.
        options: keyword arguments for the callable.
    """

    target: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        module, colon, name = self.target.partition(":")
        if not (colon and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))):
            raise ValueError(f"target must look like 'package.module:callable', not {self.target!r}")
        hidden = [part for part in (*module.split("."), *name.split(".")) if part.startswith("__")]
        if hidden:
            raise ValueError(f"target must name a function or class by its own name, not by {hidden[0]!r}")
        if module.partition(".")[0] in sys.stdlib_module_names:
            raise ValueError(f"target must be in a package that you installed, not in Python's own {module!r}")

    def fingerprint(self) -> str:
        """Digest of the target's source: the Python files of its package, or its one file.

        Nothing is imported. Raises ``UsageError`` where the package isn't found.
        """
        module = self.target.partition(":")[0]
        top = module.partition(".")[0]
        spec = located(top)
        if spec is None:
            raise UsageError(_not_found(self.target, top))
        folders = [Path(place) for place in spec.submodule_search_locations or ()]
        if folders:
            return digest_of_files(sorted(file for folder in folders for file in folder.rglob("*.py")))
        return digest_of_files([Path(spec.origin)] if spec.origin and Path(spec.origin).is_file() else [])

    def __call__(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Call the target for images (C, H, W) and check what it returns.

        Raises:
            UsageError: the target isn't found, isn't callable, doesn't take the arguments, or returns no module.
            Unsupported: the module doesn't turn such images into logits.
        """
        make = self._find()
        try:
            model = make(image_shape, num_classes, **self.options)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # from within the target: a fault there, with its traceback
            raise UsageError(f"{self.target} must accept (image_shape, num_classes, **options): {error}") from error
        if not isinstance(model, torch.nn.Module):
            raise UsageError(f"{self.target} must return an nn.Module, not {type(model).__name__}")
        check_logits(model, image_shape, num_classes, self.target)
        return model

    def _find(self) -> Any:
        module_name, _, name = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise UsageError(f"importing {module_name} failed: {error}") from error
            raise UsageError(_not_found(self.target, error.name)) from error
        except Exception as error:  # the user's module: anything may come out of it
            raise UsageError(f"importing {module_name} failed: {type(error).__name__}: {error}") from error
        for part in name.split("."):
            if not hasattr(found, part):
                hint = nearest(part, [known for known in dir(found) if not known.startswith("_")])
                raise UsageError(f"{module_name} has no {name!r}: {hint}".removesuffix(": "))
            found = getattr(found, part)
            if inspect.ismodule(found):
                raise UsageError(f"{self.target}: {part!r} is a module: write it before the colon")
        if not callable(found):
            raise UsageError(f"{self.target} is a {type(found).__name__}, not a function or class that makes a model")
        home = str(getattr(found, "__module__", None) or "builtins").partition(".")[0]
        if home in sys.stdlib_module_names and (inspect.isroutine(found) or inspect.isclass(found)):
            raise UsageError(f"{self.target} belongs to Python's own library, which makes no models")
        return found


def _not_found(target: str, module: str) -> str:
    return f"{target}: no module {module!r}: install it, or put its folder on PYTHONPATH"


TECHNIQUES = (Imported,)
