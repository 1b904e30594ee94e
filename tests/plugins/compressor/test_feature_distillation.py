"""Distillation of features: losses against torchdistill's, layers, and students that learn."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchdistill.losses.mid_level import ATLoss, RKDLoss

from cnnbench.errors import Unsupported
from cnnbench.types import Batch, Choice
from cnnbench_plugins.compressor._features import captured, classifier, common_stages, embeddings, feature_maps
from cnnbench_plugins.compressor._simulated import Simulated
from cnnbench_plugins.compressor.attention_transfer import AttentionTransfer, attention, attention_loss
from cnnbench_plugins.compressor.fitnet import FitNet, hint_loss, make_regressor
from cnnbench_plugins.compressor.rkd import RelationalDistillation, angle_loss, distance_loss
from cnnbench_plugins.strategy._combined import Ensemble, ViewAverage

STUDENT = Choice("model", "thin", {})
TECHNIQUES = [
    AttentionTransfer(student=STUDENT, beta=100, epochs=6),
    FitNet(student=STUDENT, hint_epochs=1, epochs=6),
    RelationalDistillation(student=STUDENT, epochs=6),
]


def thin(width: int = 8) -> nn.Sequential:
    """A plain student with maps of 8 x 8 and 4 x 4, as the small resnet has."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(
            *(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, 2 * width, 3, 2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10)),
        )


@pytest.fixture
def fewer(context):
    """The context with half of the images and a plain student."""

    class Fewer(type(context)):
        def build(self, model):
            return thin()

    return Fewer(context.train_images[:640], context.train_labels[:640], context.test_images, context.test_labels)


def recorder(fewer):
    """A context whose training keeps what it was given: models, losses, epochs."""
    calls = []

    class Recorder(type(fewer)):
        def train(self, model, *, epochs, learning_rate=None, loss=None, observers=()):
            images = self.train_images[:8]
            batch = Batch((images + 1) / 2, images, F.one_hot(self.train_labels[:8], 10).float())
            logits = model.train()(images)
            calls.append((epochs, learning_rate, loss(batch, logits), logits, batch))
            model.eval()
            return []

    return Recorder(fewer.train_images, fewer.train_labels, fewer.test_images, fewer.test_labels), calls


# The losses.

shapes = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(2, 5))


@settings(deadline=None, max_examples=30)
@given(shapes, st.integers(0, 2**31))
def test_attention_loss_equals_torchdistills(sizes, seed):
    count, own, taught, height, width = sizes
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(count, own, height, width, generator=generator)
    teacher = torch.randn(count, taught, height, width, generator=generator)
    ends = {"teacher": {"io": "output", "path": "layer"}, "student": {"io": "output", "path": "layer"}, "weight": 1}
    reference = ATLoss({"pair": ends}, mode="code")
    expected = reference({"layer": {"output": student}}, {"layer": {"output": teacher}})
    torch.testing.assert_close(attention_loss(student, teacher), expected)


def test_attention_is_where_the_squares_are_whatever_their_scale_and_sign():
    maps = torch.tensor([[[[3.0, 0.0]], [[0.0, -4.0]]]])  # squares 9 and 16
    torch.testing.assert_close(attention(maps), torch.tensor([[9.0, 16.0]]) / (9**2 + 16**2) ** 0.5)
    torch.testing.assert_close(attention(-7 * maps), attention(maps))
    assert attention_loss(maps, torch.cat([maps, maps], 1)) == 0  # a wider network that looks at the same places


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 8), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31))
def test_relational_losses_equal_torchdistills(count, own, taught, seed):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(count, size, generator=generator, dtype=torch.float64) for size in (own, taught))
    for loss, factors in ((distance_loss, (1.0, 0.0)), (angle_loss, (0.0, 1.0))):
        reference = RKDLoss("s", "t", *factors, reduction="mean")
        expected = reference({"s": {"output": student}}, {"t": {"output": teacher}})
        torch.testing.assert_close(loss(student, teacher), expected, rtol=1e-6, atol=1e-9)


def test_relations_by_hand_in_a_right_triangle():
    # Legs 3 and 4, hypotenuse 5, mean 4; the student's triangle is equilateral.
    teacher = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
    huber = [((d / 4 - 1) ** 2) / 2 for d in (3, 4, 5)]
    assert distance_loss(student, teacher).item() == pytest.approx(2 * sum(huber) / 9, rel=1e-5)
    # Each angle counts for (i, k) and (k, i): cosines 0, 3/5 and 4/5 against 1/2; a point with itself is no angle,
    # and the angle of a direction with itself has cosine 1 in both.
    huber = [((c - 0.5) ** 2) / 2 for c in (0, 0.6, 0.8)]
    assert angle_loss(student, teacher).item() == pytest.approx(2 * sum(huber) / 27, rel=1e-5)


def test_relations_do_not_change_when_a_space_is_moved_turned_and_scaled():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    same = 5 * points @ turn + 3
    assert distance_loss(same, points).item() == pytest.approx(0, abs=1e-20)
    assert angle_loss(same, points).item() == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
@pytest.mark.parametrize("count", [1, 4])
def test_coinciding_and_single_images_give_finite_gradients(loss, count):
    student = torch.ones(count, 3, requires_grad=True)
    value = loss(student, torch.randn(count, 5, generator=torch.Generator().manual_seed(0)))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_hint_loss_is_half_the_mean_square():
    assert hint_loss(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])) == 1.0


# Layers.


def test_stages_pair_the_last_maps_of_each_common_size(model, context):
    pairs = common_stages(feature_maps(thin(), context.example), feature_maps(model, context.example))
    assert pairs == [("2", "3"), ("5", "4")]  # the last ReLU at 8 x 8 and 4 x 4; the two residual blocks


def test_pooled_pixels_and_vectors_are_no_maps(model, context):
    assert set(feature_maps(thin(), context.example)) == {"0", "1", "2", "3", "4", "5"}


def test_every_torchvision_stage_is_found():
    resnet = torchvision.models.resnet18(num_classes=10)
    maps = feature_maps(resnet, torch.zeros(1, 3, 64, 64))
    pairs = common_stages(maps, maps)
    assert [own for own, _ in pairs] == ["relu", "layer1", "layer2", "layer3", "layer4"]
    assert classifier(resnet, torch.zeros(1, 3, 64, 64)) == "fc"


def test_no_hook_is_left_behind(model, context):
    feature_maps(model, context.example)
    classifier(model, context.example)
    with captured(model, ["3"]), embeddings(model, None, context.example, "teacher"):
        pass
    assert hooks(model) == 0


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_embedding_is_what_enters_the_classifier(model, context):
    images = context.train_images[:5]
    with embeddings(model, None, context.example, "teacher") as found, torch.no_grad():
        model(images)
        torch.testing.assert_close(found(), model[:7](images))
    with embeddings(model, "4", context.example, "teacher") as found, torch.no_grad():
        model(images)
        torch.testing.assert_close(found(), model[:5](images).mean((2, 3)))


@pytest.mark.parametrize(
    ("technique", "reason"),
    [
        (AttentionTransfer(student=STUDENT, layers={"2": "stage9"}), "teacher has no layer 'stage9'"),
        (AttentionTransfer(student=STUDENT, layers={"8": "4"}), "layer '8' of the student makes no feature map"),
        (
            AttentionTransfer(student=STUDENT, layers={"2": "4"}),
            "student's 2 are 8 x 8, those of the teacher's 4 4 x 4",
        ),
        (FitNet(student=STUDENT, guided="5", hint="3"), "student's 5 are 4 x 4, smaller than the 8 x 8"),
        (FitNet(student=STUDENT, guided="conv", hint="3"), "student has no layer 'conv'"),
        (RelationalDistillation(student=STUDENT, student_layer="99"), "student has no layer '99'"),
    ],
)
def test_layers_that_do_not_fit_are_refused_before_any_training(model, fewer, technique, reason):
    context, calls = recorder(fewer)
    with pytest.raises(Unsupported, match=reason):
        technique(model, context)
    assert calls == []
    assert hooks(model) == 0


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize(
    ("wrap", "reason"),
    [
        (lambda model: Ensemble([model, copy.deepcopy(model)]), "the teacher is an ensemble"),
        (lambda model: ViewAverage(model, hflip=True, shift=0), "the teacher looks at several views"),
        (lambda model: ViewAverage(Ensemble([model]), hflip=True, shift=0), "the teacher looks at several views"),
        (lambda model: Simulated(Ensemble([model]), {}, "8-bit weights are"), "the teacher is an ensemble"),
    ],
    ids=["ensemble", "views", "both", "inside"],
)
def test_a_teacher_without_features_of_its_own_is_refused(model, fewer, technique, wrap, reason):
    context, calls = recorder(fewer)
    with pytest.raises(Unsupported, match=f"{reason}.*distill"):
        technique(wrap(model), context)
    assert calls == []


def test_networks_without_a_common_size_are_refused(model, fewer):
    context, _ = recorder(fewer)
    context.build = lambda choice: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 10))
    with pytest.raises(Unsupported, match=r"student's sizes are 6 x 6, the teacher's 8 x 8, 4 x 4"):
        AttentionTransfer(student=STUDENT)(model, context)


# The techniques.


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: type(t).__name__)
def test_a_student_learns_and_neither_network_keeps_a_trace(model, fewer, technique):
    before = copy.deepcopy(model.state_dict())
    student = technique(model.train(), fewer)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert type(student) is nn.Sequential
    assert len(student) == len(thin())
    assert hooks(student) == hooks(model) == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert fewer.validation_accuracy(student) > 0.3  # of ten classes
    assert fewer.trained_epochs == ([1, 6] if isinstance(technique, FitNet) else [6])


def test_attention_transfer_adds_beta_times_the_sum_over_pairs(model, fewer):
    context, calls = recorder(fewer)
    AttentionTransfer(student=STUDENT, beta=50.0)(model, context)
    (_, _, value, logits, batch) = calls[0]
    student = thin().train()
    terms = [attention_loss(student[:k](batch.inputs), model[:j](batch.inputs)) for k, j in ((3, 4), (6, 5))]
    expected = F.cross_entropy(logits, batch.targets) + 50 * sum(terms)
    torch.testing.assert_close(value, expected)


def test_relations_are_weighted_and_absent_at_weight_0(model, fewer):
    for distance, angle in ((2.0, 3.0), (2.0, 0.0), (0.0, 3.0)):
        context, calls = recorder(fewer)
        RelationalDistillation(student=STUDENT, distance=distance, angle=angle)(model, context)
        (_, _, value, logits, batch) = calls[0]
        own, taught = thin().train()[:8](batch.inputs), model[:7](batch.inputs)
        expected = F.cross_entropy(logits, batch.targets)
        expected = expected + distance * distance_loss(own, taught) + angle * angle_loss(own, taught)
        torch.testing.assert_close(value, expected)


def test_relations_of_nothing_are_refused():
    with pytest.raises(ValueError, match="both 0"):
        RelationalDistillation(student=STUDENT, distance=0, angle=0)


def test_the_first_stage_of_fitnet_is_the_hint_alone_and_the_second_is_distillation(model, fewer):
    context, calls = recorder(fewer)
    FitNet(student=STUDENT, hint_epochs=3, epochs=4, temperature=2.0, weight=0.6, learning_rate=0.01)(model, context)
    first, second = calls
    assert (first[0], first[1], second[0], second[1]) == (3, 0.01, 4, 0.01)
    # The regressor is drawn as here; 8 x 8 is the earlier of two sizes, and the teacher's block ends in a ReLU.
    generator = torch.Generator().manual_seed(1)
    regressor = make_regressor(torch.Size([1, 8, 8, 8]), torch.Size([1, 16, 8, 8]), rectified=True, generator=generator)
    batch = first[4]
    expected = hint_loss(regressor(thin().train()[:3](batch.inputs)), model[:4](batch.inputs))
    torch.testing.assert_close(first[2], expected)
    taught = model(batch.inputs)
    soft = F.kl_div((second[3] / 2).log_softmax(1), (taught / 2).softmax(1), reduction="batchmean") * 4
    torch.testing.assert_close(second[2], 0.6 * soft + 0.4 * F.cross_entropy(second[3], batch.targets))


def test_the_hint_trains_what_lies_before_the_guided_layer_and_the_regressor(model, fewer):
    seen = []

    class Watching(type(fewer)):
        def train(self, model, **options):
            seen.append((model, copy.deepcopy(model.state_dict())))
            return super().train(model, **options)

    context = Watching(fewer.train_images, fewer.train_labels, fewer.test_images, fewer.test_labels)
    context.build = lambda choice: students[-1]
    students = [thin()]
    FitNet(student=STUDENT, hint_epochs=1, epochs=1)(model, context)
    (guided, start), (_, middle) = seen
    assert guided.student is students[-1]
    changed = {name for name, value in middle.items() if not torch.equal(value, start[f"student.{name}"])}
    assert {name for name in changed if name.endswith(("weight", "bias"))} == {
        *("0.weight", "0.bias", "1.weight", "1.bias"),
    }
    assert not torch.equal(guided.regressor[0].weight, start["regressor.0.weight"])


@pytest.mark.parametrize(("own", "hint"), [((8, 8), (8, 8)), ((8, 6), (4, 5))])
def test_the_regressor_makes_the_teachers_shape(own, hint):
    generator = torch.Generator().manual_seed(0)
    before = torch.random.get_rng_state()
    regressor = make_regressor(
        torch.Size([2, 3, *own]), torch.Size([2, 5, *hint]), rectified=False, generator=generator
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert regressor(torch.randn(2, 3, *own)).shape == (2, 5, *hint)
    assert regressor[0].weight.std().item() == pytest.approx((2 / regressor[0].weight[0].numel()) ** 0.5, rel=0.5)


def test_a_hint_with_negative_values_has_a_regressor_without_relu(model, fewer):
    made = []

    class Watching(type(fewer)):
        def train(self, model, **options):
            made.append(model)
            return []

    for hint, layers in (("1", 1), ("2", 2)):  # before and after the first ReLU
        context = Watching(fewer.train_images, fewer.train_labels, fewer.test_images, fewer.test_labels)
        FitNet(student=STUDENT, guided="2", hint=hint)(model, context)
        assert len(made[-2].regressor) == layers
