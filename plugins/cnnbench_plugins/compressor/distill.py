"""Knowledge distillation: a smaller network learns from the trained one."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - read at run time
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le

from cnnbench import technique
from cnnbench.errors import Unsupported
from cnnbench.lazy import F, nn, torch
from cnnbench.types import Choice, InSlot, ModelChoice
from cnnbench_plugins._state_file import fingerprint, read_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.slots import CompressionContext
    from cnnbench.types import Batch


def soft_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 times the mean over images of KL(teacher || student), both softened by T.

    Hinton et al. 2015, section 2: gradients of the softened term shrink as 1/T^2, so the factor T^2 keeps its share of
    the gradient when T changes.

    Args:
        student: logits [N, K].
        teacher: logits [N, K].
        temperature: T > 0.

    Returns:
        A scalar.
    """
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2


def distillation_loss(
    logits: torch.Tensor,
    batch: Batch,
    teacher: Callable[[Batch], torch.Tensor],
    temperature: float,
    weight: float,
) -> torch.Tensor:
    """``weight`` times the soft term plus the rest times cross-entropy with the targets; gradients reach no teacher.

    Args:
        logits: the student's, [N, K].
        batch: what they are for.
        teacher: from the batch to logits [N, K]; not asked where it has no weight.
        temperature: of the soft term.
        weight: of the soft term, 0 to 1.
    """
    hard = F.cross_entropy(logits, batch.targets)
    if not weight:
        return hard
    with torch.no_grad():
        taught = teacher(batch)
    return weight * soft_loss(logits, taught, temperature) + (1 - weight) * hard


@technique("compressor", "distill", example={"student": {"name": "resnet", "depth": 8, "width": 4}})
class Distill:
    """Trains a student network from scratch on a trained network's softened outputs.

    Hinton et al. 2015 (Distilling the Knowledge in a Neural Network, section 2). With teacher logits t and student
    logits s, both [N, K], of the same augmented images: loss = weight * T^2 * KL(softmax(t/T) || softmax(s/T)) averaged
    over images + (1 - weight) * cross-entropy with the targets. The paper finds a much lower weight on the hard
    targets best, and T of 2.5 to 4 for small students; hence the defaults. ``student`` names a model;
    ``learning_rate`` None is the recipe's own.

    The teacher is the arm's trained network, or one from elsewhere: ``teacher`` names a model, which is built as its
    own options say, and ``teacher_weights`` the file (a state dict by ``torch.save``, or safetensors) that must fit it
    in every tensor. A teacher that was trained under another input normalization than the arm's names it as
    ``teacher_input``, fitted on the training split: it is applied to the images that the student sees, before the
    student's own.

    Helps: students well below the teacher's accuracy.
    Known not to help: a student as good as its teacher; one far smaller than its teacher (Cho & Hariharan 2019); a
    teacher trained with label smoothing (Müller et al. 2019). Set it beside ``weight = 0``, the same student without a
    teacher, before crediting the teacher.

    Attributes:
        temperature: T, by which both networks' logits are divided.
        epochs: of the student's training.
    """

    student: ModelChoice
    temperature: Annotated[float, Gt(0)] = 4.0
    weight: Annotated[float, Ge(0), Le(1)] = 0.9
    epochs: Annotated[int, Ge(1)] = 15
    learning_rate: Annotated[float, Gt(0)] | None = None
    teacher: ModelChoice | None = None
    teacher_weights: Path | None = None
    teacher_input: Annotated[Choice, InSlot("input")] | None = None

    def __post_init__(self) -> None:
        if (self.teacher is None) is not (self.teacher_weights is None):
            raise ValueError("teacher and teacher_weights go together: a model and the file of its weights")
        if self.teacher is None and self.teacher_input is not None:
            raise ValueError("teacher_input goes with teacher: the arm's own network has the arm's input")

    def fingerprint(self) -> str:
        """Digest of the teacher's weights, where there are any. Raises ``UsageError`` where the file is missing."""
        return fingerprint(self.teacher_weights) if self.teacher_weights else ""

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Return the student; ``model`` is not changed.

        Raises:
            Unsupported: the weights don't fit the teacher.
        """
        student = context.build(self.student)
        teacher = self._teacher(model, context)

        def loss(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
            return distillation_loss(logits, batch, teacher, self.temperature, self.weight)

        context.train(student, epochs=self.epochs, learning_rate=self.learning_rate, loss=loss)
        return student

    def _teacher(self, model: nn.Module, context: CompressionContext) -> Callable[[Batch], torch.Tensor]:
        """From a batch to the teacher's logits [N, K]."""
        if self.teacher is None or self.teacher_weights is None:
            model.eval()
            return lambda batch: model(batch.inputs)
        example = context.example
        with torch.random.fork_rng(devices=[]):  # its initialization is overwritten, so it must move nobody's draws
            teacher: nn.Module = context.make(self.teacher)(tuple(example.shape[1:]), context.num_classes)
        try:
            teacher.load_state_dict(read_state(self.teacher_weights))
        except RuntimeError as error:
            reasons = str(error).splitlines()
            raise Unsupported(
                f"{self.teacher_weights} does not fit {self.teacher.name}: {reasons[1].strip()}"
            ) from error
        teacher.to(example.device).eval()
        if self.teacher_input is None:
            return lambda batch: teacher(batch.inputs)
        normalize = context.input(self.teacher_input)
        return lambda batch: teacher(normalize(batch.images))


TECHNIQUES = (Distill,)
