"""cnnbench: controlled ablations of the techniques that make convolutional networks better."""

__version__ = "0.1.0"

from cnnbench.hookspecs import hookimpl
from cnnbench.technique import Requirement, technique

__all__ = ["Requirement", "__version__", "hookimpl", "technique"]
