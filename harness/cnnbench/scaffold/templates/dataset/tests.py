"""Tests of template_name: every rule of cnnbench's conformance kit, and what it holds."""

from __future__ import annotations

import numpy as np

from cnnbench.scaffold.templates.dataset.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot dataset keep."""

    technique = Template


def test_the_spectrum_of_each_image_points_where_its_label_says() -> None:
    """Labels that do not fit their images pass every other test; Fourier's transform knows the direction by itself."""
    data = Template(classes=4, size=32, noise=0.1, test_images=60)()
    for image, label in zip(data.test_images[:, 0].numpy(), data.test_labels.tolist(), strict=True):
        waves = image.astype(float) - image.mean()
        spectrum = np.abs(np.fft.fft2(waves, (256, 256)))
        row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
        frequencies = np.fft.fftfreq(256)
        angle = np.arctan2(frequencies[row], frequencies[column]) % np.pi
        assert round(angle / (np.pi / 4)) % 4 == label
