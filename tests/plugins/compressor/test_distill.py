from __future__ import annotations

import copy
import math
import typing

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnbench.types import Choice, InSlot
from cnnbench_plugins.compressor.distill import Distill, soft_loss

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


def test_both_terms_are_weighted(model, context):
    seen = []

    class Recording(type(context)):
        def train(self, model, *, epochs, learning_rate=None, loss=None, observers=()):
            seen.append(loss)
            return []

    recording = Recording(context.train_images, context.train_labels, context.test_images, context.test_labels)
    Distill(student=STUDENT, temperature=3.0, weight=0.7)(model, recording)
    images = context.train_images[:8]
    targets = F.one_hot(context.train_labels[:8], 10).float()
    logits = torch.randn(8, 10, generator=torch.Generator().manual_seed(2), requires_grad=True)
    with torch.no_grad():
        taught = model(images)
    expected = 0.7 * 9 * F.kl_div(
        F.log_softmax(logits / 3, 1), F.softmax(taught / 3, 1), reduction="batchmean"
    ) + 0.3 * F.cross_entropy(logits, context.train_labels[:8])
    value = seen[0](images, logits, targets)
    torch.testing.assert_close(value, expected)
    value.backward()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_student_option_is_marked_as_a_model():
    hints = typing.get_type_hints(Distill, include_extras=True)
    assert InSlot("model") in hints["student"].__metadata__
