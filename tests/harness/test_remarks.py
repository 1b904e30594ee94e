"""What a built model shows before it is trained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from cnnbench.stages.remarks import remarks
from cnnbench_plugins.model.resnet import ResNet
from cnnbench_plugins.regularizer.dropblock import DropBlock
from cnnbench_plugins.regularizer.dropout import Dropout, SpatialDropout


class Functional(nn.Module):
    """Drops by a function between two normalized convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.second(F.dropout(self.first(x), training=self.training)))


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("model", "place"),
    [
        (chain(nn.Conv2d(3, 4, 3), nn.Dropout(0.1), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)), "3"),
        (chain(nn.Linear(3, 4), nn.Dropout(0.1), nn.ReLU(), nn.BatchNorm1d(4), nn.BatchNorm1d(4)), "3"),
        (chain(nn.Conv2d(3, 4, 3), chain(nn.ReLU(), nn.Dropout2d(0.1)), chain(nn.BatchNorm2d(4))), "2.0"),
        (Functional(), "norm"),
    ],
)
def test_dropout_before_batch_norm_is_told_once_with_its_place(model, place):
    (line,) = remarks(model)
    assert line.startswith(f"dropout before batch norm ({place}): ")


@pytest.mark.parametrize("technique", [SpatialDropout(), DropBlock(), Dropout(where="blocks")])
def test_our_own_layers_that_drop_are_dropout_too(technique):
    model = ResNet()((1, 16, 16), 10)
    assert remarks(model) == []
    technique.prepare(model, torch.Generator())
    (line,) = remarks(model)
    assert line.startswith("dropout before batch norm (stage1.")


@pytest.mark.parametrize(
    "model",
    [
        chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(2)),
        chain(nn.Conv2d(3, 4, 3), nn.Dropout(0.1), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4)),
        chain(nn.Dropout(0.0), nn.BatchNorm2d(3)),
        torchvision.models.resnet18(),
        torchvision.models.vgg11_bn(),
    ],
    ids=["behind the norms", "another norm", "never drops", "resnet18", "vgg11_bn"],
)
def test_nothing_is_said_where_nothing_is_wrong(model):
    assert remarks(model) == []


def test_a_model_that_can_t_be_traced_is_looked_at_part_by_part():
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = chain(nn.Dropout(0.1), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.part(x) if x.sum() > 0 else x

    (line,) = remarks(Branching())
    assert "(part.2)" in line
