"""Distillation of how images relate to one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt

from cnnbench import technique
from cnnbench.lazy import F, nn, torch
from cnnbench.types import ModelChoice  # noqa: TC001 - read at run time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnnbench.slots import CompressionContext
    from cnnbench.types import Batch


def distance_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Huber loss between the distances of all pairs of images, each set divided by its mean.

    Args:
        student: embeddings [N, D].
        teacher: embeddings [N, E].

    Returns:
        A scalar: the mean over all N^2 ordered pairs, an image with itself included.
    """
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def _relative_distances(points: torch.Tensor) -> torch.Tensor:
    """Euclidean distances [N, N] over the mean of those that are not 0; all 0 where the points are one."""
    squares = (points[:, None] - points[None]).square().sum(2)
    apart = squares > 0
    distances = torch.where(apart, squares, 1).sqrt() * apart  # the root's slope at 0 is infinite
    return distances / (distances.sum() / apart.sum().clamp(min=1)).clamp(min=1e-12)


def angle_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Huber loss between the cosines of the angles that all triples of images form.

    Args:
        student: embeddings [N, D].
        teacher: embeddings [N, E].

    Returns:
        A scalar: the mean over all N^3 ordered triples.
    """
    return F.smooth_l1_loss(_cosines(student), _cosines(teacher))


def _cosines(points: torch.Tensor) -> torch.Tensor:
    """Entry (j, i, k): cosine of the angle at point j between those to i and to k, [N, N, N]."""
    directions = F.normalize(points[None] - points[:, None], dim=2)
    return directions @ directions.transpose(1, 2)


@technique("compressor", "rkd", example={"student": {"name": "resnet", "depth": 8, "width": 4}})
class RelationalDistillation:
    """Trains a student network to place images in relation to one another as the trained network does.

    Park et al. 2019 (Relational Knowledge Distillation, sections 3.2 and 3.3). With embeddings s_i and t_i of a
    batch's images: distances d_ij = |s_i - s_j| / mu, mu their mean over the batch's pairs, and cosines c_ijk of the
    angle at s_j between s_i and s_k. loss = cross-entropy with the targets + distance * mean Huber(d^s_ij, d^t_ij)
    + angle * mean Huber(c^s_ijk, c^t_ijk), Huber's threshold 1. Relations have no dimension: the embeddings' sizes may
    differ. The defaults, 25 and 50, are those that comparisons on image classification use (Tian et al. 2020).

    The embedding is what enters the layer that runs last of linear layers and convolutions, the classifier;
    ``student_layer`` and ``teacher_layer`` name layers whose output is taken instead. Feature maps are averaged over
    their pixels. Memory grows with the cube of the batch size. The teacher is the arm's trained network; ``student``
    names a model; ``learning_rate`` None is the recipe's own.

    Helps embeddings for retrieval most, where students can pass their teacher. Known to add less than ``distill`` to
    plain classification, and nothing with batches of a few images.

    Attributes:
        epochs: of the student's training.
    """

    student: ModelChoice
    distance: Annotated[float, Ge(0)] = 25.0
    angle: Annotated[float, Ge(0)] = 50.0
    student_layer: str | None = None
    teacher_layer: str | None = None
    epochs: Annotated[int, Ge(1)] = 15
    learning_rate: Annotated[float, Gt(0)] | None = None

    def __post_init__(self) -> None:
        if not (self.distance or self.angle):
            raise ValueError("distance and angle are both 0: nothing would be taught")

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Return the student; ``model`` is its teacher and is not changed.

        Raises:
            Unsupported: there is no layer of that name, or no classifier; or the teacher averages several answers.
        """
        from cnnbench_plugins.compressor._features import check_teacher, embeddings

        check_teacher(model)
        student = context.build(self.student)
        model.eval()
        example = context.example

        def loss(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                model(batch.inputs)
            terms = self._terms(own(), taught())
            return F.cross_entropy(logits, batch.targets) + torch.stack(list(terms)).sum()

        with (
            embeddings(student, self.student_layer, example, "student") as own,
            embeddings(model, self.teacher_layer, example, "teacher") as taught,
        ):
            context.train(student, epochs=self.epochs, learning_rate=self.learning_rate, loss=loss)
        return student

    def _terms(self, student: torch.Tensor, teacher: torch.Tensor) -> Iterator[torch.Tensor]:
        if self.distance:
            yield self.distance * distance_loss(student, teacher)
        if self.angle:
            yield self.angle * angle_loss(student, teacher)


TECHNIQUES = (RelationalDistillation,)
