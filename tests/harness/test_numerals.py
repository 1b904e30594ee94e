from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.numerals import factor, interval_decimals, number, power_of_ten, scale, significant, with_interval
from cnnbench.quantities import quantities


@pytest.mark.parametrize(
    ("mean", "half", "expected"),
    [
        (97.3123, 0.4234, "97.31 ± 0.42"),
        (97.3123, 1.26, "97.3 ± 1.3"),
        (97.3123, 12.6, "97 ± 13"),
        (97.3123, 0.0996, "97.31 ± 0.10"),
        (97.3123, 9.96, "97 ± 10"),
        (4567.0, 123.0, "4570 ± 120"),
        (87.6, 1080, "88 ± 1100"),
        (0.31, 1.08, "0.31 ± 1.1"),
        (-0.4, 0.13, "−0.40 ± 0.13"),
        (0.000123456, 0.00000123, "0.0001235 ± 0.0000012"),
        (0, 5e-7, "0.00000000 ± 0.00000050"),
    ],
)
def test_interval_decides_the_digits(mean: float, half: float, expected: str) -> None:
    assert with_interval(mean, half) == expected


@pytest.mark.parametrize(
    ("mean", "half", "expected"),
    [(-0.004, 0.13, "0.00 ± 0.13"), (0.4, 1.3, "+0.4 ± 1.3"), (87.6, 1080, "+100 ± 1100"), (-27, 4.5, "−27.0 ± 4.5")],
)
def test_differences_have_no_digits_beyond_their_interval(mean: float, half: float, expected: str) -> None:
    assert with_interval(mean, half, signed=True) == expected


@settings(deadline=None, max_examples=200)
@given(st.floats(1e-9, 1e9))
def test_half_widths_show_two_significant_digits(half: float) -> None:
    shown = float(number(half, interval_decimals(half)))
    assert shown == pytest.approx(float(f"{half:.1e}"), rel=1e-12) or abs(shown / half - 1) < 0.051


@pytest.mark.parametrize(
    ("value", "decimals", "signed", "expected"),
    [
        (1.25, 1, True, "+1.2"),
        (-1.25, 1, False, "−1.2"),
        (-0.01, 1, True, "0.0"),
        (0, 0, True, "0"),
        (1250, -2, False, "1200"),
    ],
)
def test_signs(value: float, decimals: int, signed: bool, expected: str) -> None:
    assert number(value, decimals, signed=signed) == expected


def test_significant_digits_of_the_largest() -> None:
    assert significant([78.042, 0.5], 4) == 2
    assert significant([0.00123], 3) == 5
    assert significant([12345], 3) == 0
    assert significant([], 3) == significant([0.0], 3) == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [(559.3, "559"), (43.21, "43.2"), (1.0, "1.00"), (0.47, "0.47"), (0.0021, "0.0021"), (0.0, "0")],
)
def test_factors_show_digits_whatever_their_size(value: float, expected: str) -> None:
    assert factor(value) == expected


@pytest.mark.parametrize(("value", "expected"), [(4.77e-7, "4.8e−7"), (-9.96e-6, "−1.0e−5"), (3.2e-5, "3.2e−5")])
def test_powers_of_ten(value: float, expected: str) -> None:
    assert power_of_ten(value) == expected


@pytest.mark.parametrize(
    ("metric", "values", "unit", "first"),
    [
        ("params", [78_042, 4_922], "k", 78.042),
        ("params", [25_557_032, 11_689_512], "M", 25.557032),
        ("params", [25_557_032, 900_000], "k", 25_557.032),
        ("params", [250_557_032, 900_000], "M", 250.557032),
        ("params", [42], "", 42),
        ("params", [0], "k", 0),
        ("flops", [4.089e9], "G", 4.089),
        ("size", [2 * 1024**2, 3 * 1024**2], "MiB", 2),
        ("size", [50], "B", 50),
        ("latency", [0.412], "ms", 0.412),
        ("latency", [0.0412], "µs", 41.2),
        ("latency", [2500.0], "s", 2.5),
        ("accuracy", [0.5], "%", 50),
        ("energy", [0.002], "µJ/image", 2),
        ("throughput", [250_000.0], "images/s", 250_000),
    ],
)
def test_units(metric: str, values: list[float], unit: str, first: float) -> None:
    shown = scale(quantities([metric], [1])[0], values)
    assert shown.unit == unit
    assert values[0] * shown.factor == pytest.approx(first)
