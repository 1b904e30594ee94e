from __future__ import annotations

import copy
import math
import typing

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchdistill.losses.mid_level import KDLoss

from cnnbench.errors import Unsupported, UsageError
from cnnbench.types import Batch, Choice, InSlot
from cnnbench_plugins.compressor.distill import Distill, distillation_loss, soft_loss

STUDENT = Choice("model", "tiny", {"width": 8})


@pytest.mark.parametrize("temperature", [1.0, 2.5, 10.0])
def test_soft_term_is_the_sum_over_classes_averaged_over_images_times_t_squared(temperature):
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    teacher = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    p = torch.softmax(teacher / temperature, 1)
    q = torch.softmax(student / temperature, 1)
    by_hand = (
        sum(p[i, k].item() * (math.log(p[i, k]) - math.log(q[i, k])) for i in range(5) for k in range(7))
        / 5
        * temperature**2
    )
    assert soft_loss(student, teacher, temperature).item() == pytest.approx(by_hand)
    reference = F.kl_div(q.log(), p, reduction="batchmean") * temperature * temperature
    assert soft_loss(student, teacher, temperature).item() == pytest.approx(reference.item())


def test_gradient_of_the_soft_term_is_nearly_free_of_the_temperature():
    # At high T it tends to (student - teacher) / (K N) for logits of zero mean (Hinton 2015, equation 4).
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(6, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    student, teacher = (x - x.mean(1, keepdim=True) for x in (student, teacher))
    student.requires_grad_()

    def gradient(temperature):
        (result,) = torch.autograd.grad(soft_loss(student, teacher, temperature), student)
        return result

    limit = (student - teacher).detach() / (10 * 6)
    torch.testing.assert_close(gradient(1000.0), limit, rtol=1e-2, atol=1e-4)
    norms = [gradient(temperature).norm().item() for temperature in (4.0, 8.0, 16.0)]
    assert max(norms) / min(norms) < 1.25


def test_the_student_learns_from_the_teacher_alone(model, context):
    before = copy.deepcopy(model.state_dict())
    student = Distill(student=STUDENT, weight=1.0, epochs=4)(model.train(), context)
    assert student is not model
    assert isinstance(student[1], nn.Linear)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    # It never saw a label, so all that it knows it has from the teacher.
    assert context.validation_accuracy(student) > 0.7
    assert context.trained_epochs == [4]


def test_weight_zero_is_plain_training(model, context):
    student = Distill(student=STUDENT, weight=0.0, epochs=1)(model, context)
    plain = context.build(STUDENT)
    context.train(plain, epochs=1)
    for a, b in zip(student.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def batch_of(context, count=8) -> Batch:
    """As training makes it: images 0..1, the context's normalization to -1..1, targets."""
    inputs = context.train_images[:count]
    return Batch((inputs + 1) / 2, inputs, F.one_hot(context.train_labels[:count], 10).float())


def recording(context, **methods):
    """A context whose training does nothing but keep the loss, and the losses."""
    losses = []

    def train(self, model, *, epochs, learning_rate=None, loss=None, observers=()):
        losses.append(loss)
        return []

    cls = type("Recording", (type(context),), {"train": train, **methods})
    return cls(context.train_images, context.train_labels, context.test_images, context.test_labels), losses


def test_both_terms_are_weighted(model, context):
    recorder, losses = recording(context)
    Distill(student=STUDENT, temperature=3.0, weight=0.7)(model, recorder)
    batch = batch_of(context)
    logits = torch.randn(8, 10, generator=torch.Generator().manual_seed(2), requires_grad=True)
    with torch.no_grad():
        taught = model(batch.inputs)
    expected = 0.7 * 9 * F.kl_div(
        F.log_softmax(logits / 3, 1), F.softmax(taught / 3, 1), reduction="batchmean"
    ) + 0.3 * F.cross_entropy(logits, context.train_labels[:8])
    value = losses[0](batch, logits)
    torch.testing.assert_close(value, expected)
    value.backward()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.5), (4.0, 0.9), (20.0, 0.1)])
def test_the_loss_equals_torchdistills(model, context, temperature, weight):
    # With alpha = 0 torchdistill leaves the factor T^2 out; so not at weight 1.
    kd = KDLoss("logits", "output", "logits", "output", temperature=temperature, alpha=1 - weight)
    batch = batch_of(context)
    logits, taught = torch.randn(2, 8, 10, generator=torch.Generator().manual_seed(3))
    expected = kd({"logits": {"output": logits}}, {"logits": {"output": taught}}, batch.targets)
    found = distillation_loss(logits, batch, lambda b: taught, temperature, weight)
    torch.testing.assert_close(found, expected)


def test_the_student_option_is_marked_as_a_model():
    hints = typing.get_type_hints(Distill, include_extras=True)
    assert InSlot("model") in hints["student"].__metadata__


# A teacher from elsewhere.


class Own(nn.Module):
    """The teacher's normalization, which is not the context's: 0..1 to -2..2."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 4 * images - 2


TEACHER = Choice("model", "teacher", {})
ELSEWHERE = Choice("input", "own", {})


def make_teacher(self, choice):
    assert choice == TEACHER
    return lambda image_shape, num_classes: nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))


@pytest.fixture
def teacher() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


def test_a_teacher_with_another_normalization_gives_the_targets_that_it_gives_under_its_own(
    model, context, teacher, tmp_path
):
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    recorder, losses = recording(context, make=make_teacher, input=lambda self, choice: {"own": Own()}[choice.name])
    named = {"teacher": TEACHER, "teacher_weights": tmp_path / "teacher.pt"}
    for option in (ELSEWHERE, None):
        Distill(student=STUDENT, weight=1.0, temperature=2.0, teacher_input=option, **named)(model, recorder)
    batch = batch_of(context)
    logits = torch.randn(8, 10, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        right, wrong = teacher(Own()(batch.images)), teacher(batch.inputs)
    torch.testing.assert_close(losses[0](batch, logits), soft_loss(logits, right, 2.0))
    torch.testing.assert_close(losses[1](batch, logits), soft_loss(logits, wrong, 2.0))  # the arm's own, if none named
    assert not torch.allclose(right, wrong, atol=0.1)


def test_a_teachers_weights_must_fit_it_in_every_tensor(model, context, tmp_path):
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 7)).state_dict(), tmp_path / "seven.pt")
    recorder, losses = recording(context, make=make_teacher)
    with pytest.raises(Unsupported, match=r"seven\.pt does not fit teacher: size mismatch for 1\.weight"):
        Distill(student=STUDENT, teacher=TEACHER, teacher_weights=tmp_path / "seven.pt")(model, recorder)
    assert losses == []


def test_making_a_teacher_moves_no_random_numbers(model, context, teacher, tmp_path):
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    recorder, _ = recording(context, make=make_teacher)
    before = torch.random.get_rng_state()
    Distill(student=STUDENT, teacher=TEACHER, teacher_weights=tmp_path / "teacher.pt")(model, recorder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_half_a_teacher_is_refused():
    with pytest.raises(ValueError, match="go together"):
        Distill(student=STUDENT, teacher=TEACHER)
    with pytest.raises(ValueError, match="teacher_input goes with teacher"):
        Distill(student=STUDENT, teacher_input=ELSEWHERE)


def test_other_weights_of_the_teacher_are_another_technique(tmp_path):
    file = tmp_path / "teacher.pt"
    file.write_bytes(b"one")
    technique = Distill(student=STUDENT, teacher=TEACHER, teacher_weights=file)
    first = technique.fingerprint()
    file.write_bytes(b"two")
    assert technique.fingerprint() != first
    assert Distill(student=STUDENT).fingerprint() == ""
    file.unlink()
    with pytest.raises(UsageError, match=r"teacher\.pt: no such file"):
        technique.fingerprint()
