"""A network's layers from the input to the classifier, and which of them train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

WEIGHTED = (nn.Linear, nn.Conv2d)


def classifier(model: nn.Module) -> str | None:
    """Name of the last linear layer or convolution by order of definition; None where there is none."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, WEIGHTED)]
    return names[-1] if names else None


def layers(model: nn.Module) -> list[list[nn.Module]]:
    """Linear layers and convolutions in order of definition, each with what follows it up to the next: norms, slopes.

    What stands before the first belongs to it.
    """
    found: list[list[nn.Module]] = [[]]
    begun = False
    for module in model.modules():
        if isinstance(module, WEIGHTED):
            if begun:
                found.append([])
            begun = True
        found[-1].append(module)
    return found


def freeze(group: Sequence[nn.Module]) -> list[nn.Parameter]:
    """Take the modules' own parameters out of training; returns those that were in it.

    A frozen module that keeps statistics stops updating them and uses them as they are, as in eval mode.
    """
    held = []
    for module in group:
        if next(module.buffers(recurse=False), None) is not None:
            module.training = False
        held += [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    return held
