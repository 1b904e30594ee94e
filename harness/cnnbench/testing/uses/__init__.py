"""How techniques of each slot are used by the kit: as the harness uses them, on something tiny."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.testing.uses import augmentation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.testing.subject import SlotUse

USES: Mapping[str, SlotUse] = {"augmentation": augmentation}
