"""Mixed precision: each layer's weights get the bits that its sensitivity asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from cnnbench import technique
from cnnbench.errors import NoEffect
from cnnbench.lazy import F, nn, torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.slots import CompressionContext

WIDTHS = (2, 3, 4, 6, 8)
_CHUNK = 64  # images a pass, to bound memory


def allocate(costs: Sequence[Sequence[float]], sizes: Sequence[int], widths: Sequence[int], budget: float) -> list[int]:
    """The bits of each layer whose summed cost is least within a budget: an integer program, solved exactly.

    Args:
        costs: by layer, the cost at each of the widths.
        sizes: weights of each layer.
        widths: bits to choose from; the budget is at least the smallest.
        budget: most bits of a weight, on average over all.

    Returns:
        One of the widths for each layer.
    """
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    layers, count = len(sizes), len(widths)
    # One variable for each layer and width, 1 where it is chosen; one width for each layer.
    one_each = np.kron(np.eye(layers), np.ones(count))
    weighed = np.kron(np.array(sizes, dtype=float), np.array(widths, dtype=float)) / sum(sizes)
    result = milp(
        np.array(costs, dtype=float).ravel(),
        integrality=np.ones(layers * count),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(weighed[None], -np.inf, budget)],
    )
    return [widths[i] for i in result.x.reshape(layers, count).argmax(1)]


def sensitivities(model: nn.Module, images: torch.Tensor, widths: Sequence[int]) -> dict[str, list[float]]:
    """How much outputs change when one layer's weights alone are rounded.

    Args:
        model: its weights are the same afterwards.
        images: model inputs [n, C, H, W].
        widths: bits to try.

    Returns:
        By layer, for each width the mean over images of KL(p || q), p and q [n, K] the class probabilities before and
        after.
    """
    from cnnbench_plugins.compressor._fake_flow import quantizable_layers
    from cnnbench_plugins.compressor._fake_layers import UniformWeight

    def outputs() -> torch.Tensor:
        return torch.cat([F.log_softmax(model(chunk).double(), 1) for chunk in torch.split(images, _CHUNK)])

    found: dict[str, list[float]] = {}
    model.eval()
    with torch.no_grad():
        before = outputs()
        for name, layer in quantizable_layers(model).items():
            weight = layer.get_parameter("weight")
            kept = weight.clone()
            found[name] = []
            for bits in widths:
                weight.copy_(UniformWeight(bits)(kept))
                found[name].append(F.kl_div(outputs(), before, reduction="batchmean", log_target=True).item())
            weight.copy_(kept)
    return found


def choose_bits(model: nn.Module, images: torch.Tensor, budget: float) -> Mapping[str, int]:
    """Bits of each layer, by name, at most ``budget`` a weight on average; see ``sensitivities`` and ``allocate``.

    Raises:
        NoEffect: there is no layer to quantize.
    """
    from cnnbench_plugins.compressor._fake_flow import quantizable_layers

    costs = sensitivities(model, images, WIDTHS)
    if not costs:
        raise NoEffect("quantized nothing: the model has no convolution or linear layer")
    layers = quantizable_layers(model)
    sizes = [layers[name].get_parameter("weight").numel() for name in costs]
    return dict(zip(costs, allocate(list(costs.values()), sizes, WIDTHS, budget), strict=True))


@technique("compressor", "mixed_precision")
class MixedPrecision:
    """Rounds each layer's weights to 2, 3, 4, 6 or 8 bits, chosen by sensitivity within a size budget. Simulated.

    ``budget`` is the most bits of a weight, averaged over all weights of convolutions and linear layers; scales come on
    top. Sensitivity of a layer at b bits is measured with that layer alone rounded: the mean over
    ``calibration_images`` of KL(p || q), p and q [n, K] the class probabilities before and after (Cai et al. 2020,
    ZeroQ). The sum of sensitivities is made least within the budget by an integer program (Yao et al. 2021, HAWQ-V3).
    Weights are then rounded as in ``quantize_weights``, with a scale for each output channel; no labels, no
    training. Size is nominal, and no speed is claimed.

    Helps: averages of 3 to 5 bits, where a few layers lose most of the accuracy.
    Known not to help: 6 bits and more, where nothing is lost anyway; layers whose errors interact, which single
    sensitivities can't see. Set it beside ``quantize_weights`` at the same average.
    """

    budget: Annotated[float, Ge(2), Le(8)] = 4.0
    calibration_images: Annotated[int, Ge(1)] = 256

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Round in place; raises ``NoEffect`` where there is no layer."""
        from cnnbench_plugins.compressor._fake_flow import quantizable_layers
        from cnnbench_plugins.compressor._fake_layers import UniformWeight
        from cnnbench_plugins.compressor._simulated import Simulated, plain_network

        network = plain_network(model)
        chosen = choose_bits(network, context.calibration(self.calibration_images), self.budget)
        layers, formats = quantizable_layers(network), {}
        with torch.no_grad():
            for name, bits in chosen.items():
                quantizer, weight = UniformWeight(bits), layers[name].get_parameter("weight")
                weight.copy_(quantizer(weight))
                formats[name] = quantizer.stored(weight)
        return Simulated(network, formats, "weights of mixed precision are")


TECHNIQUES = (MixedPrecision,)
