"""The kit finds what each bad plugin does, and nothing else; twins that behave keep every rule."""

from __future__ import annotations

from cnnbench.slots import SLOTS
from cnnbench.testing import KIT


def test_a_bad_plugin_breaks_its_rule_and_no_other(broken, findings):
    rule, cls, words = broken
    found = [finding for finding in findings(cls) if finding.status == "broken"]
    assert [finding.rule.name for finding in found] == [rule]
    assert words in found[0].text
    assert "bad_" in found[0].place
    text = str(found[0])
    assert all(part in text for part in (found[0].rule.holds, found[0].text, found[0].rule.fix))


def test_its_twin_keeps_every_rule(good, findings):
    found = findings(good)
    assert [str(finding) for finding in found if finding.status not in {"kept", "not applicable"}] == []
    assert sum(finding.status == "kept" for finding in found) > len(found) / 2


def test_every_rule_is_broken_by_some_bad_plugin(bad_rules):
    assert {rule.name for rule in KIT} == bad_rules


def test_rules_have_names_of_their_own_and_a_slot():
    assert len({rule.name for rule in KIT}) == len(KIT)
    for rule in KIT:
        assert rule.slots
        assert rule.slots <= SLOTS.keys()
        assert rule.holds[0].islower()
        assert rule.holds[-1] != "."
        assert rule.fix[-1] != "."
