"""What the tests of a plugin author use: the conformance kit, as a test case and as a function.

A technique's whole conformance test is::

    class TestMyNorm(ConformanceCase):
        technique = MyNorm

``cnnbench check TARGET`` runs the same kit from the command line. Each rule says what must hold, what happened in its
place, and how to mend it.
"""

from cnnbench.testing.case import ConformanceCase
from cnnbench.testing.check import Inspection, check, subject_of
from cnnbench.testing.finding import Finding
from cnnbench.testing.kit import KIT
from cnnbench.testing.rule import Broken, Inapplicable, NotChecked, Rule
from cnnbench.testing.subject import Subject, entry_of

__all__ = [
    "KIT",
    "Broken",
    "ConformanceCase",
    "Finding",
    "Inapplicable",
    "Inspection",
    "NotChecked",
    "Rule",
    "Subject",
    "check",
    "entry_of",
    "subject_of",
]
