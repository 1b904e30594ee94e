"""Serving in 16-bit floating point."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from cnnbench import technique
from cnnbench.lazy import nn, torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.slots import ServingContext


@technique("runtime", "template_name")
class Template:
    """Calls the model under autocast: convolutions and linear layers compute in 16 bits, the rest in 32.

    Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740, as torch.autocast does it: the operators that gain by it
    get their inputs and weights rounded to ``precision`` at each call. Model inputs [N, C, H, W], logits [N, K] in
    float32.

    Helps devices with 16-bit arithmetic, such as GPUs with tensor cores and CPUs with AMX. Known not to help where
    there is none, nor networks so small that rounding their weights at each call takes longer than it saves.

    Attributes:
        precision: the 16-bit format.
    """

    # Not an option, being a ClassVar: outputs may differ by more than rounding in float32, so their own accuracy is
    # recorded (as accuracy_served) instead of failing the trial.
    exact: ClassVar[bool] = False

    # An option is a typed field; a choice among words is a Literal. Suites are checked before anything runs.
    precision: Literal["bfloat16", "float16"] = "bfloat16"

    def __call__(self, model: nn.Module, context: ServingContext) -> Callable[[torch.Tensor], torch.Tensor]:
        """A function from model inputs [N, C, H, W] to logits [N, K], for any of the context's batch sizes."""
        model = model.eval()
        device = context.example.device.type
        precision = {"bfloat16": torch.bfloat16, "float16": torch.float16}[self.precision]

        def serve(images: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(), torch.autocast(device, precision):
                logits: torch.Tensor = model(images)
            return logits.float()

        return serve
