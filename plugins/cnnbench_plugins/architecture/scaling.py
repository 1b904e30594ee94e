"""Width and depth of the networks that have them as options."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Gt

from cnnbench.technique import card_of, technique
from cnnbench_plugins.architecture._options import changed, option_of


@technique("architecture", "width")
class Width:
    """Multiplies the number of channels of every layer.

    As Zagoruyko & Komodakis 2016 (https://arxiv.org/abs/1605.07146, section 2: the widening factor k) and Howard et al.
    2017 (https://arxiv.org/abs/1704.04861, section 3.3: the width multiplier alpha) have it. The model's option
    ``width`` becomes max(1, floor(``multiplier`` x width + 1/2)), all stages in proportion; where ``width`` is itself a
    multiplier it is multiplied. Weights and multiply-adds of a layer between two hidden ones change by the square of
    the multiplier; those of the first layer and of the classifier by the multiplier itself. Networks of multiples of
    8 channels by rule round for themselves.

    Helps: width is the easiest way to more accuracy at the cost of parameters, and runs well in parallel (Zagoruyko &
    Komodakis 2016, table 5).
    Known not to help: where data is scarce and the network already fits it; at equal parameters depth helps more as
    long as it trains (Tan & Le 2019, https://arxiv.org/abs/1905.11946, section 3: both together are best).

    Raises ``Unsupported`` for networks without the option, and ``NoEffect`` where rounding changes nothing.
    """

    multiplier: Annotated[float, Gt(0)] = 2.0

    def __call__(self, model: Any) -> Any:
        """The same network with other widths."""
        return changed(model, "width", _scaled(option_of(model, "width"), self.multiplier))


@technique("architecture", "depth")
class Depth:
    """Multiplies the number of layers.

    The model's option ``depth`` becomes max(1, floor(``multiplier`` x depth + 1/2)), spread over the stages as the
    model does it. In ``resnet``, whose depth is 6n + 2, the blocks of each stage are multiplied, n becoming
    max(1, floor(``multiplier`` x n + 1/2)): twice the depth of 8 is 14. Each added layer costs what the others of its
    stage do: a 3x3 layer of C channels 9 C^2 weights.

    Helps: with residual connections, accuracy grows with depth well beyond 100 layers (He et al. 2016, CVPR, section
    4.2 and table 6).
    Known not to help: plain networks beyond some 20 layers, whose training error rises with depth (same paper, figure
    6); latency at batch 1, since layers run one after the other.

    Raises ``Unsupported`` for networks without the option and for depths that a network does not come in (``vgg`` and
    ``densenet`` have four each), and ``NoEffect`` where rounding changes nothing.
    """

    multiplier: Annotated[float, Gt(0)] = 2.0

    def __call__(self, model: Any) -> Any:
        """The same network with another depth."""
        depth = option_of(model, "depth")
        step, rest = _BLOCKS.get(card_of(model).name, (1, 0))
        return changed(model, "depth", step * _scaled((depth - rest) // step, self.multiplier) + rest)


_BLOCKS = {"resnet": (6, 2)}
"""Networks whose depth is a number of layers for each n, and so many besides."""


def _scaled(value: Any, multiplier: float) -> Any:
    """A multiplier multiplied, a number of channels or layers rounded to a whole one."""
    return value * multiplier if isinstance(value, float) else max(1, int(value * multiplier + 0.5))


TECHNIQUES = (Width, Depth)
