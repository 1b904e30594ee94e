"""The generated shapes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from cnnbench_plugins.dataset.shapes import FORMS, Shapes, draw_shapes


@pytest.fixture(scope="module")
def data():
    return Shapes(classes=40, image_size=32, train_images=400, test_images=120)()


def test_size_colour_and_balance(data):
    assert data.train_images.shape == (400, 3, 32, 32)
    assert data.test_images.shape == (120, 3, 32, 32)
    assert data.train_images.dtype == torch.uint8
    assert torch.bincount(data.train_labels).tolist() == [10] * 40
    assert torch.bincount(data.test_labels).tolist() == [3] * 40
    assert len(set(data.class_names)) == 40
    assert (data.class_names[0], data.class_names[39]) == ("solid disc", "checked trefoil")
    few = Shapes(classes=3, image_size=9, train_images=41, test_images=40)()
    assert few.train_images.shape == (41, 3, 9, 9)
    assert few.num_classes == 3


def test_every_run_draws_the_same_and_no_image_twice(data):
    again = Shapes(classes=40, image_size=32, train_images=400, test_images=120)()
    assert torch.equal(again.train_images, data.train_images)
    assert torch.equal(again.test_labels, data.test_labels)
    everything = torch.cat([data.train_images, data.test_images]).flatten(1)
    assert len(everything.unique(dim=0)) == 520


def test_every_option_is_in_the_fingerprint():
    changed = {"classes": 9, "image_size": 31, "train_images": 4999, "test_images": 999, "noise": 0.09}
    assert changed.keys() == {field.name for field in dataclasses.fields(Shapes)}
    prints = [Shapes(**{name: value}).fingerprint() for name, value in changed.items()]
    assert len({*prints, Shapes().fingerprint()}) == 6
    assert Shapes().sizes() == (5000, 1000)


# Areas in units of the radius squared, but for the soft edges.
AREAS = {
    "disc": np.pi,
    "triangle": 3 * np.sqrt(3) / 4,
    "square": 2.0,
    "hexagon": 3 * np.sqrt(3) / 2,
    "ring": np.pi * (0.96**2 - 0.44**2),
    "star": np.pi * (0.68**2 + 0.32**2 / 2),
    "trefoil": np.pi * (0.68**2 + 0.32**2 / 2),
    "bar": 4 * 0.98 * 0.36,
    "cross": 4 * (2 * 0.95 * 0.3 - 0.3**2),
}


@pytest.mark.parametrize("form", AREAS)
def test_forms_cover_the_area_of_the_closed_formula(form):
    """Ground and colour of one image are each a single value: the mean tells the share that is covered."""
    labels = np.full(64, FORMS.index(form))
    images = draw_shapes(labels, 96, 0.0, np.random.default_rng(3)) / 255
    radius = np.random.default_rng(3).uniform(0.45, 0.8, (64, 1, 1)).ravel()
    flat = images.reshape(64, 3, -1)
    ground = np.median(np.concatenate([flat[:, :, :3], flat[:, :, -3:]], axis=2), axis=2)
    distance = np.linalg.norm(flat - ground[..., None], axis=1)
    share = (distance / distance.max(1, keepdims=True)).mean(1)
    np.testing.assert_allclose(share, AREAS[form] * radius**2 / 4, rtol=0.06)


def test_colour_tells_nothing_of_the_class_and_stands_out():
    images = draw_shapes(np.zeros(200, dtype=np.int64), 32, 0.0, np.random.default_rng(0)) / 255.0
    corner = images[:, :, 0, 0]
    apart = np.linalg.norm(images - corner[..., None, None], axis=1).max((1, 2))
    assert (apart > 0.49).all()
    assert np.abs(corner.mean(0) - 0.5).max() < 0.1
