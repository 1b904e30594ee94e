"""The meter that a suite's options ask for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cnnbench.meters.codecarbon import CodecarbonMeter
from cnnbench.meters.constant import ConstantMeter
from cnnbench.meters.counting import CountingMeter

if TYPE_CHECKING:
    from cnnbench.meters.base import EnergyMeter
    from cnnbench.types import EnergyOptions


def make_meter(options: EnergyOptions) -> EnergyMeter:
    """A meter for one process. It looks for counters when its first task starts.

    Args:
        options: ``source``, and ``watts`` where the source is a constant power.
    """
    if options.source == "constant" and options.watts is not None:
        watts = options.watts if isinstance(options.watts, Mapping) else {"machine": options.watts}
        return ConstantMeter({str(name): power for name, power in watts.items()})
    if options.source == "codecarbon":
        return CodecarbonMeter()
    if options.source == "counters":
        return CountingMeter(None)
    # On Linux RAPL is read directly. Elsewhere codecarbon knows counters that nothing here does.
    return CountingMeter(CodecarbonMeter(by_load=sys.platform == "linux"))
