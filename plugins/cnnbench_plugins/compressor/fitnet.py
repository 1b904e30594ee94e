"""Distillation of features in the middle of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le

from cnnbench import technique
from cnnbench.errors import Unsupported
from cnnbench.lazy import F, nn, torch
from cnnbench.types import ModelChoice  # noqa: TC001 - read at run time
from cnnbench_plugins.compressor.distill import distillation_loss

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext
    from cnnbench.types import Batch


def hint_loss(regressed: torch.Tensor, hint: torch.Tensor) -> torch.Tensor:
    """Half the mean squared difference of two tensors of one shape; a scalar."""
    return F.mse_loss(regressed, hint) / 2


def make_regressor(
    guided: torch.Size, hint: torch.Size, *, rectified: bool, generator: torch.Generator
) -> nn.Sequential:
    """A convolution without padding from maps [N, C, H, W] to [N, C', H', W'], initialized by He et al. 2015.

    Args:
        guided: shape of the student's maps.
        hint: shape of the teacher's maps, at most as large.
        rectified: whether the hint is the output of a ReLU, which then ends the regressor as well.
        generator: on the CPU; the only source of randomness.
    """
    kernel = (guided[2] - hint[2] + 1, guided[3] - hint[3] + 1)
    # From the meta device: torch's own initialization would draw from the global generator.
    convolution = nn.Conv2d(guided[1], hint[1], kernel, device="meta").to_empty(device="cpu")
    nn.init.kaiming_normal_(convolution.weight, generator=generator)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.ReLU()) if rectified else nn.Sequential(convolution)


@technique("compressor", "fitnet", example={"student": {"name": "resnet", "depth": 8, "width": 4}})
class FitNet:
    """Trains a student in two stages: first to the trained network's features half-way, then to its outputs.

    Romero et al. 2015 (FitNets, sections 2.2 and 2.3). Stage 1, ``hint_epochs`` long, trains the student up to its
    guided layer, with maps v [N, C, H, W], and a regressor r against the teacher's hint layer, with maps u [N, C', H',
    W']: loss = mean of (u - r(v))^2 / 2. The regressor is a convolution of kernel (H - H' + 1) x (W - W' + 1) without
    padding, followed by ReLU where the hint is never negative; it is dropped afterwards. Stage 2 trains the whole
    student as ``distill`` does, with ``temperature`` and ``weight``. Departures from the paper: the mean in place of
    the sum over pixels, whose scale its RMSProp evens out and SGD does not; in stage 2 a constant weight in place of
    one that falls along the run, and ``distill``'s defaults.

    Layers: of the sizes of map that both networks have, the middle one (the earlier of two); in either network the last
    layer with a map of that size. ``guided`` (of the student) and ``hint`` (of the teacher) name others; the student's
    maps must be as large as the teacher's or larger. The teacher is the arm's trained network; ``student`` names a
    model; ``learning_rate`` None is the recipe's own.

    Helps students that are thin and deep, deeper than the teacher, for which it was made. Known not to add much to
    ``distill`` for shallow ones, and to bind a student too tightly where the hint lies late (section 2.2).

    Attributes:
        epochs: of the second stage.
    """

    student: ModelChoice
    hint: str | None = None
    guided: str | None = None
    hint_epochs: Annotated[int, Ge(1)] = 5
    temperature: Annotated[float, Gt(0)] = 4.0
    weight: Annotated[float, Ge(0), Le(1)] = 0.9
    epochs: Annotated[int, Ge(1)] = 15
    learning_rate: Annotated[float, Gt(0)] | None = None

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Return the student; ``model`` is its teacher and is not changed.

        Raises:
            Unsupported: no feature maps match, or a named layer has none; or the teacher averages several answers.
        """
        from cnnbench_plugins.compressor._features import check_teacher

        check_teacher(model)
        student = context.build(self.student)
        self._follow_hint(student, model, context)

        def loss(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
            return distillation_loss(logits, batch, lambda b: model(b.inputs), self.temperature, self.weight)

        context.train(student, epochs=self.epochs, learning_rate=self.learning_rate, loss=loss)
        return student

    def _follow_hint(self, student: nn.Module, teacher: nn.Module, context: CompressionContext) -> None:
        """Stage 1, in place."""
        from cnnbench_plugins.compressor._features import captured, feature_maps
        from cnnbench_plugins.compressor._guided import Guided

        images = context.calibration(32)
        own, taught = feature_maps(student, images), feature_maps(teacher, images)
        guided, hint = self._layers(student, own, teacher, taught)
        with captured(student, [guided]) as ours, captured(teacher, [hint]) as theirs:
            with torch.no_grad():
                teacher(images)
            regressor = make_regressor(
                own[guided], taught[hint], rectified=bool(theirs[hint].min() >= 0), generator=context.generator
            )
            both = Guided(student, regressor.to(images.device))

            def loss(batch: Batch, logits: torch.Tensor) -> torch.Tensor:  # noqa: ARG001 - the slot's signature
                with torch.no_grad():
                    teacher(batch.inputs)
                return hint_loss(both.regressor(ours[guided]).float(), theirs[hint])

            context.train(both, epochs=self.hint_epochs, learning_rate=self.learning_rate, loss=loss)

    def _layers(
        self, student: nn.Module, own: dict[str, torch.Size], teacher: nn.Module, taught: dict[str, torch.Size]
    ) -> tuple[str, str]:
        """Guided and hint layer, checked."""
        from cnnbench_plugins.compressor._features import common_stages, map_of

        guided, hint = self.guided, self.hint
        if guided is None or hint is None:
            pairs = common_stages(own, taught)
            middle = pairs[(len(pairs) - 1) // 2]
            guided, hint = guided or middle[0], hint or middle[1]
        mine, other = map_of(own, student, guided, "student"), map_of(taught, teacher, hint, "teacher")
        if mine[2] < other[2] or mine[3] < other[3]:
            raise Unsupported(
                f"maps of the student's {guided} are {mine[2]} x {mine[3]}, smaller than the {other[2]} x {other[3]} "
                f"of the teacher's {hint}: name a guided layer nearer to the input, or a later hint"
            )
        return guided, hint


TECHNIQUES = (FitNet,)
