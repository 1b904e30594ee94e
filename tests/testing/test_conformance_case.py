"""The conformance kit as authors run it, on our own techniques and on ones that break a rule."""

from __future__ import annotations

from cnnbench.testing import ConformanceCase
from cnnbench_plugins.augmentation.flip import HFlip


class TestHFlip(ConformanceCase):
    technique = HFlip
