"""What became of one rule for one technique."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cnnbench.testing.rule import Rule

Status = Literal["kept", "broken", "waived", "not applicable", "not checked"]


@dataclass(frozen=True)
class Finding:
    """What became of one rule.

    Attributes:
        rule: which.
        technique: slot and name, for people.
        status: ``not checked`` where something is missing here, or where the technique can't be used at all.
        text: what happened, or why not; empty where the rule is kept.
        place: file and line of the author's code that it is about; empty where it is kept, or not known.
        trace: the traceback, where the technique raised something that it should not.
        mend: how to mend it, where not as the rule says.
        error: an error of the technique's own code that it comes from: its kind and place, by which it is known again.
    """

    rule: Rule
    technique: str
    status: Status
    text: str = ""
    place: str = ""
    trace: str = ""
    mend: str = ""
    error: str = ""

    @property
    def fix(self) -> str:
        """How to mend it."""
        return self.mend or self.rule.fix

    def __str__(self) -> str:
        if self.status != "broken":
            return f"{self.technique}: {self.rule.name}: {self.status}" + (f": {self.text}" if self.text else "")
        return (
            f"{self.technique}: {self.rule.name}: broken\n"
            f"  rule: {self.rule.holds}\n"
            f"  what happened: {self.text}\n" + (f"  where: {self.place}\n" if self.place else "") + "  fix: "
            f"{self.fix}"
        )
