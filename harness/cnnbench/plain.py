"""Settings and measures as JSON-ready data, for records and keys, and settings back."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from cnnbench.types import Measure, Settings

_SETTINGS = TypeAdapter(Settings)
_MEASURE = TypeAdapter(Measure)


def settings_plain(settings: Settings) -> dict[str, Any]:
    """JSON-ready data; equal settings give equal data."""
    plain: dict[str, Any] = _SETTINGS.dump_python(settings, mode="json")
    return plain


def settings_from_plain(data: Any) -> Settings:
    """The inverse of ``settings_plain``, also after a round trip through JSON."""
    return _SETTINGS.validate_python(data)


def measure_plain(measure: Measure) -> dict[str, Any]:
    """JSON-ready data."""
    plain: dict[str, Any] = _MEASURE.dump_python(measure, mode="json")
    return plain
