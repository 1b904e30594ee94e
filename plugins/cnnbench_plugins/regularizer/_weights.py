"""Which parameters a regularizer of weights acts on."""

from __future__ import annotations

from cnnbench.errors import NoEffect
from cnnbench.lazy import nn


def regularized(model: nn.Module, *, norms_and_biases: bool) -> list[nn.Parameter]:
    """The weights of linear and convolution layers; or every parameter, with those of norms and all biases.

    Told by layer, not by the number of dimensions: a layer norm over [C, H, W] has three, a learned slope or
    scale may have four. Frozen parameters are left out, shared ones come once.

    Raises:
        NoEffect: there is none.
    """
    if norms_and_biases:
        found = list(model.parameters())
    else:
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
        layers = [m for m in model.modules() if isinstance(m, kinds)]
        found = [p for layer in layers for p in (layer.weight,) if isinstance(p, nn.Parameter)]
    trainable = [p for p in dict.fromkeys(found) if p.requires_grad]
    if not trainable:
        raise NoEffect("the model has no trainable weight to regularize")
    return trainable
