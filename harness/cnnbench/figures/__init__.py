"""Figures of a report, as SVG for pages and PNG for everything else: ``make_figures`` and ``write``."""

from __future__ import annotations

from cnnbench.figures.figure import Figure
from cnnbench.figures.make import make_figures, write

__all__ = ["Figure", "make_figures", "write"]
