"""Units or channels dropped at random during training; nothing is drawn at inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Gt, Lt

from cnnbench.errors import Unsupported
from cnnbench.lazy import nn, torch
from cnnbench.technique import technique

if TYPE_CHECKING:
    from collections.abc import Callable


def drop_before_classifier(model: nn.Module, make: Callable[[], nn.Module]) -> int:
    """Put a new layer before the model's last linear layer, or last convolution if it has none; 1, or 0 if neither."""
    from cnnbench.surgery import replace_modules

    layers = [m for kind in (nn.Conv2d, nn.Linear) for m in model.modules() if isinstance(m, kind)]
    return replace_modules(model, lambda m: m is layers[-1], lambda m: nn.Sequential(make(), m)) if layers else 0


@technique("regularizer", "dropout")
class Dropout:
    """Zero units at random during training.

    y = x m / (1 - p) with m from Bernoulli(1 - p) for every unit (Srivastava et al. 2014; scaled in training, so that
    inference is left alone). ``classifier``: before the last linear layer (the last convolution where the model has no
    linear layer); ``blocks``: after every activation. A dropout that the model has of its own stays, and the two
    compound. The default of 0.5 is the paper's for hidden units; after activations 0.1 to 0.3 is enough.

    Helps large classifiers on small data. Known not to suit convolutions, whose neighbouring units are alike (see
    ``spatial_dropout``), and to disturb the statistics of batch normalization behind it (Li et al. 2019).
    """

    p: Annotated[float, Gt(0), Lt(1)] = 0.5
    where: Literal["classifier", "blocks"] = "classifier"

    def prepare(self, model: nn.Module, generator: torch.Generator) -> int:  # noqa: ARG002 - the slot's signature
        """Insert the layers in place and return their number."""
        from cnnbench.surgery import apply_surgery

        if self.where == "classifier":
            return drop_before_classifier(model, lambda: nn.Dropout(self.p))
        return apply_surgery("activation", self, model).swapped

    def __call__(self, module: nn.Module) -> nn.Module:
        """An activation followed by dropout."""
        return nn.Sequential(module, nn.Dropout(self.p))


@technique("regularizer", "spatial_dropout")
class SpatialDropout:
    """Zero whole channels at random during training, after every activation.

    As ``dropout`` with one draw for each channel of each sample (Tompson et al. 2015, section 3.2): neighbouring
    pixels of a feature map are alike, so that dropping single ones hides little. Features without height and width lose
    single units. The default of ``p`` is mild because every activation is followed by one; no paper's.

    Helps convolutional networks on small data. Known to hurt narrow layers, where a channel is a large share of what
    the layer knows.
    """

    p: Annotated[float, Gt(0), Lt(1)] = 0.1

    def prepare(self, model: nn.Module, generator: torch.Generator) -> int:  # noqa: ARG002 - the slot's signature
        """Insert the layers in place and return their number."""
        from cnnbench_plugins.regularizer._insert import insert_behind_activations

        return insert_behind_activations(self, model)

    def __call__(self, module: nn.Module) -> nn.Module:
        """An activation followed by dropout of channels."""
        from cnnbench_plugins.regularizer._layers import ChannelDropout

        return nn.Sequential(module, ChannelDropout(self.p))


@technique("regularizer", "alpha_dropout")
class AlphaDropout:
    """Set units at random to the value that SELU saturates at, after every SELU.

    y = a (x m + α' (1 - m)) + b with m from Bernoulli(1 - p) for every unit, α' = -1.7581 (SELU's limit for very
    negative inputs), a = ((1 - p) (1 + p α'²))^(-1/2) and b = -a p α', so that features of mean 0 and variance 1 stay
    so (Klambauer et al. 2017, section 2, "alpha dropout"; the default is the smaller of their 0.05 and 0.1).

    Helps self-normalizing networks (``activation = "selu"``, ``initializer = "lecun_normal"``), whose mean and variance
    plain dropout moves. Known to be of no use behind any other activation, which doesn't saturate there.
    """

    p: Annotated[float, Gt(0), Lt(1)] = 0.05

    def prepare(self, model: nn.Module, generator: torch.Generator) -> int:  # noqa: ARG002 - the slot's signature
        """Insert the layers in place and return their number.

        Raises:
            Unsupported: the model has no SELU.
        """
        from cnnbench.surgery import replace_modules

        inserted = replace_modules(
            model, lambda m: isinstance(m, nn.SELU), lambda m: nn.Sequential(m, nn.AlphaDropout(self.p))
        )
        if not inserted:
            raise Unsupported('alpha_dropout stands after SELU, which this model has nowhere: set activation = "selu"')
        return inserted


TECHNIQUES = (Dropout, SpatialDropout, AlphaDropout)
