"""Combinations that go wrong in practice are told by name; others are not."""

from __future__ import annotations

import pytest

from cnnbench.plain import settings_plain
from cnnbench.plugins import PluginHost
from cnnbench.suite import parse
from cnnbench_plugins._advice import advice

TEXT = """
question = "?"
dataset = {dataset}
model = "resnet"
seeds = 1
[recipe]
epochs = 2
batch_size = 32
optimizer = {optimizer}
schedule = "{schedule}"
loss = "cross_entropy"
[baseline]
{baseline}
"""


def told(baseline: str, schedule: str = "constant", optimizer: str = '"sgd"', dataset: str = '"digits"') -> list[str]:
    text = TEXT.format(baseline=baseline, schedule=schedule, optimizer=optimizer, dataset=dataset)
    suite = parse(text.encode(), "suite.toml", PluginHost.discover().registry)
    return advice(settings_plain(suite.baseline))


@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        ('activation = "selu"', ["lecun_normal"]),
        ('activation = "selu"\ninitializer = "lecun_normal"\nregularizer = "dropout"', ["use alpha_dropout"]),
        ('regularizer = "alpha_dropout"', ["made for selu"]),
        ('augmentation = ["mixup", "cutmix"]', ["on top of the other"]),
        ('augmentation = "mixup"\nregularizer = "label_smoothing"', ["softens targets that mixup"]),
        (
            'regularizer = "label_smoothing"\ncompressor = { name = "distill", student = "plain" }',
            ["teaches distill less"],
        ),
        ('regularizer = ["l2", "weight_decay"]', ["decay more than once: l2, weight_decay"]),
        ('regularizer = { name = "weight_decay", norms_and_biases = true }', ["norms and biases"]),
        ('compressor = ["prune_magnitude", "svd"]', ["svd fills the zeros of prune_magnitude"]),
        ('augmentation = ["hflip", "crop"]', ["hflip mirrors the signs of digits"]),
        ('strategy = "test_time_augmentation"', ["test_time_augmentation mirrors the signs of digits"]),
        ('compressor = ["quantize_weights", "prune_magnitude"]', ["prune_magnitude after quantize_weights"]),
        ('compressor = ["half", "quantize_weights"]', ["quantize_weights after half"]),
        ('compressor = ["half", "quantize_ptq"]', ["quantize_ptq after half"]),
        ('compressor = [{ name = "quantize_weights", bits = 4 }, "half"]', ["half after quantize_weights"]),
    ],
)
def test_what_goes_wrong_is_told_in_one_line(baseline, words):
    lines = told(baseline)
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True))


@pytest.mark.parametrize(
    ("dataset", "warned"),
    [("USPS", True), ("EMNIST", True), ("QMNIST", True), ("GTSRB", True), ("FashionMNIST", False), ("CIFAR10", False)],
)
def test_signs_among_torchvisions_sets(dataset, warned):
    options = f'name = "torchvision", dataset = "{dataset}"'
    options += ", size = 32" if dataset == "GTSRB" else ""
    lines = told('augmentation = "hflip"', dataset=f"{{ {options} }}")
    assert [f"signs of {dataset.lower()}" in line for line in lines] == [True] * warned


def test_the_recipe_counts():
    assert "weight_decay" in told('regularizer = "l2"', optimizer='{ name = "sgd", weight_decay = 1e-4 }')[0]
    assert "holds the learning rate high" in told('strategy = "early_stopping"', schedule="cosine")[0]
    assert told('strategy = "early_stopping"', schedule="constant") == []


@pytest.mark.parametrize(
    "baseline",
    [
        "",
        'activation = "selu"\ninitializer = "lecun_normal"\nregularizer = "alpha_dropout"',
        'augmentation = "mixup"\nregularizer = "weight_decay"',
        'compressor = ["prune_magnitude", "quantize_weights"]',
        'compressor = ["prune_magnitude", "half"]',
        'strategy = { name = "test_time_augmentation", hflip = false, shift = 1 }',
    ],
)
def test_nothing_is_said_where_nothing_is_known_to_go_wrong(baseline):
    assert told(baseline) == []
