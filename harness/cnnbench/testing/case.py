"""The conformance kit as a test case for pytest."""

from __future__ import annotations

from importlib.metadata import packages_distributions, version
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from cnnbench.registry import Entry, Owner
from cnnbench.technique import card_of
from cnnbench.testing.check import check_rule, subject_of
from cnnbench.testing.kit import KIT

if TYPE_CHECKING:
    from pathlib import Path

    from cnnbench.registry import Registry
    from cnnbench.testing.rule import Rule


class ConformanceCase:
    """Holds a technique to every rule of its slot, a test each.

    Subclass it and name the technique::

        class TestMyNorm(ConformanceCase):
            technique = MyNorm

    A rule that the technique waives, or that has nothing to hold it to, is a skipped test with the reason.

    Attributes:
        technique: a class made with ``@technique``.
    """

    technique: ClassVar[type[Any]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test for each rule of the technique's slot."""
        if "rule" in metafunc.fixturenames:
            slot = card_of(self.technique).slot
            rules = [rule for rule in KIT if slot in rule.slots]
            metafunc.parametrize("rule", rules, ids=[rule.name for rule in rules])

    def test_conformance(self, rule: Rule, cnnbench_registry: Registry, tmp_path: Path) -> None:
        """One rule."""
        entry = entry_of(self.technique, cnnbench_registry)
        finding = check_rule(subject_of(entry, cnnbench_registry, tmp_path), rule)
        if finding.status == "broken":
            pytest.fail(f"{card_of(self.technique).name}: {finding}", pytrace=False)
        if finding.status != "kept":
            pytest.skip(f"{finding.status}: {finding.text}")


def entry_of(cls: type[Any], registry: Registry) -> Entry:
    """A technique as it is registered; one that is not becomes so, as its package's."""
    card = card_of(cls)
    if card.name in registry.names(card.slot) and registry.get(card.slot, card.name).cls is cls:
        return registry.get(card.slot, card.name)
    top = cls.__module__.partition(".")[0]
    names = packages_distributions().get(top)
    owner = Owner(top, names[0], version(names[0])) if names else Owner(top, top, "not installed")
    registry.add(cls, owner)
    return registry.get(card.slot, card.name)
