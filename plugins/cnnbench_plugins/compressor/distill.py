"""Knowledge distillation: a smaller network learns from the trained one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le

from cnnbench import technique
from cnnbench.lazy import F, nn, torch
from cnnbench.types import ModelChoice  # noqa: TC001 - read at run time

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext


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


@technique("compressor", "distill")
class Distill:
    """Trains a student network from scratch on the trained network's softened outputs.

    Hinton et al. 2015 (Distilling the Knowledge in a Neural Network, section 2). With teacher logits t and student
    logits s, both [N, K], of the same augmented images: loss = weight * T^2 * KL(softmax(t/T) || softmax(s/T)) averaged
    over images + (1 - weight) * cross-entropy with the targets. The paper finds a much lower weight on the hard
    targets best, and T of 2.5 to 4 for small students; hence the defaults. ``student`` names a model;
    ``learning_rate`` None is the recipe's own.

    Helps: students well below the teacher's accuracy.
    Known not to help: a student as good as its teacher; one far smaller than its teacher (Cho & Hariharan 2019). Set
    it beside ``weight = 0``, the same student without a teacher, before crediting the teacher.
    """

    student: ModelChoice
    temperature: Annotated[float, Gt(0)] = 4.0
    weight: Annotated[float, Ge(0), Le(1)] = 0.9
    epochs: Annotated[int, Ge(1)] = 15
    learning_rate: Annotated[float, Gt(0)] | None = None

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Return the student; ``model`` is its teacher and is not changed."""
        student = context.build(self.student)
        model.eval()

        def loss(inputs: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            hard = F.cross_entropy(logits, targets)
            if not self.weight:
                return hard
            with torch.no_grad():
                taught = model(inputs)
            return self.weight * soft_loss(logits, taught, self.temperature) + (1 - self.weight) * hard

        context.train(student, epochs=self.epochs, learning_rate=self.learning_rate, loss=loss)
        return student


TECHNIQUES = (Distill,)
