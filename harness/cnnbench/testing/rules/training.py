"""Rules about techniques in a training run."""

from __future__ import annotations

RULES = ()
