"""The conformance kit as a test case for pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from cnnbench.technique import card_of
from cnnbench.testing.kit import KIT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cnnbench.testing.check import Inspection
    from cnnbench.testing.rule import Rule


class ConformanceCase:
    """Holds a technique to every rule of its slot, a test each.

    Subclass it and name the technique::

        class TestMyNorm(ConformanceCase):
            technique = MyNorm

    A rule that the technique waives, or that has nothing to hold it to, is a skipped test with the reason. Where it
    needs files, such as a dataset's, ``options`` makes them.

    Attributes:
        technique: a class made with ``@technique``.
    """

    technique: ClassVar[type[Any]]

    @classmethod
    def options(cls, folder: Path) -> Mapping[str, Any]:  # noqa: ARG003 - for subclasses
        """Options to try the technique with, over those of its ``example``.

        Args:
            folder: an empty one, for files that they name.
        """
        return {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test for each rule of the technique's slot."""
        if "rule" not in metafunc.fixturenames:
            return
        chosen = getattr(self, "technique", None)
        if chosen is None:
            name = type(self).__name__
            pytest.fail(f"{name} names no technique: expected `technique = MyTechnique` in its body", pytrace=False)
        slot = card_of(chosen).slot
        rules = [rule for rule in KIT if slot in rule.slots]
        metafunc.parametrize("rule", rules, ids=[rule.name for rule in rules])

    def test_conformance(self, rule: Rule, cnnbench_inspection: Inspection) -> None:
        """One rule."""
        finding = cnnbench_inspection.of(rule)
        if finding.status == "broken":
            pytest.fail("\n".join(filter(None, (finding.trace, str(finding)))), pytrace=False)
        if finding.status != "kept":
            pytest.skip(f"{finding.status}: {finding.text}")
