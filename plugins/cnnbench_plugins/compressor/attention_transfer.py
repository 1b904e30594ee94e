"""Distillation of where a network looks."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read at run time
from dataclasses import field
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt

from cnnbench import technique
from cnnbench.errors import Unsupported
from cnnbench.lazy import F, nn, torch
from cnnbench.types import ModelChoice  # noqa: TC001 - read at run time

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext
    from cnnbench.types import Batch


def attention(maps: torch.Tensor) -> torch.Tensor:
    """Mean of squares over channels, [N, C, H, W] to [N, HW], each row scaled to Euclidean length 1."""
    return F.normalize(maps.square().mean(1).flatten(1), dim=1)


def attention_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the attention of maps [N, C, H, W] and [N, C', H, W]; a scalar."""
    return F.mse_loss(attention(student), attention(teacher))


@technique("compressor", "attention_transfer", example={"student": {"name": "resnet", "depth": 8, "width": 4}})
class AttentionTransfer:
    """Trains a student network to look where the trained network looks.

    Zagoruyko & Komodakis 2017 (Paying More Attention to Attention, section 3.1, activation-based). A layer's attention
    is the sum over channels of its squared outputs, Q = sum_c A_c^2 [H, W], flattened and divided by its Euclidean
    norm, so that channel counts may differ. loss = cross-entropy with the targets + beta * sum over pairs of layers of
    the mean of (Q_s / |Q_s| - Q_t / |Q_t|)^2 over pixels and images. The mean of squares is the form of the authors'
    code, for which beta = 1000 is meant (section 4.1: "10^3 divided by the number of elements in attention map and
    batch size"); equation 2 as printed has the norm itself, at which such a beta would be far too large.

    Pairs: for each size of map that both networks have, the last layer in either with a map of that size: the ends of
    their stages. ``layers`` names pairs instead, student's layer = teacher's layer. The teacher is the arm's trained
    network; ``student`` names a model; ``learning_rate`` None is the recipe's own.

    Helps students of the teacher's kind with its resolutions. Known not to help where the two differ in kind, and on
    images so small that maps have few pixels: the mean over 16 of them lets beta = 1000 outweigh the labels, so lower
    it there.

    Attributes:
        epochs: of the student's training.
    """

    student: ModelChoice
    beta: Annotated[float, Gt(0)] = 1000.0
    layers: Mapping[str, str] = field(default_factory=dict)
    epochs: Annotated[int, Ge(1)] = 15
    learning_rate: Annotated[float, Gt(0)] | None = None

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Return the student; ``model`` is its teacher and is not changed.

        Raises:
            Unsupported: no feature maps match, or a named layer has none; or the teacher averages several answers.
        """
        from cnnbench_plugins.compressor._features import captured, check_teacher

        check_teacher(model)
        student = context.build(self.student)
        pairs = self._pairs(student, model, context.example)

        def loss(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                model(batch.inputs)
            terms = [attention_loss(own[ours], taught[theirs]) for ours, theirs in pairs]
            return F.cross_entropy(logits, batch.targets) + self.beta * torch.stack(terms).sum()

        ours, theirs = zip(*pairs, strict=True)
        with captured(student, ours) as own, captured(model, theirs) as taught:
            context.train(student, epochs=self.epochs, learning_rate=self.learning_rate, loss=loss)
        return student

    def _pairs(self, student: nn.Module, teacher: nn.Module, example: torch.Tensor) -> list[tuple[str, str]]:
        """Layers of the student and the teacher, checked; both networks are left in eval mode."""
        from cnnbench_plugins.compressor._features import common_stages, feature_maps, map_of

        own, taught = feature_maps(student, example), feature_maps(teacher, example)
        if not self.layers:
            return common_stages(own, taught)
        for ours, theirs in self.layers.items():
            mine, other = map_of(own, student, ours, "student"), map_of(taught, teacher, theirs, "teacher")
            if mine[2:] != other[2:]:
                raise Unsupported(
                    f"maps of the student's {ours} are {mine[2]} x {mine[3]}, those of the teacher's {theirs} "
                    f"{other[2]} x {other[3]}: pair layers with maps of one size"
                )
        return list(self.layers.items())


TECHNIQUES = (AttentionTransfer,)
