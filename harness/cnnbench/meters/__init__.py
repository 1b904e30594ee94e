"""Energy meters: joules by component, each with how it was obtained."""

from cnnbench.meters.base import Component, EnergyMeter, Method, Reading, Scope, Task, weakest
from cnnbench.meters.codecarbon import CodecarbonMeter

__all__ = ["CodecarbonMeter", "Component", "EnergyMeter", "Method", "Reading", "Scope", "Task", "weakest"]
