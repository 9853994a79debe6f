"""How figures are written for people."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from math import inf
from typing import Any

from dp.verify_ledger import upwards


def metric(value: float | None) -> str:
    """
    >>> metric(0.04), metric(None)
    ('0.0400', '')
    """
    return "" if value is None else f"{value:.4f}"


def epsilon(value: float | None) -> str:
    """What is spent, rounded up.

    >>> epsilon(7.991), epsilon(8.0), epsilon(0.0121), epsilon(float("inf")), epsilon(None)
    ('8.00', '8.00', '0.013', 'unbounded', '')
    """
    if value is None:
        return ""
    if value == inf:
        return "unbounded"
    if value >= 0.1 or value == 0:
        return str(Decimal(repr(value)).quantize(Decimal("0.01"), ROUND_CEILING))
    return upwards(Fraction(repr(value)), 2)


def left(value: float | None) -> str:
    """What is left, rounded down.

    >>> left(0.996), left(8.0), left(None)
    ('0.99', '8.00', '')
    """
    return "" if value is None else str(Decimal(repr(value)).quantize(Decimal("0.01"), ROUND_FLOOR))


def budget(value: float) -> str:
    """
    >>> budget(8.0), budget(0.5)
    ('8', '0.5')
    """
    return f"{value:g}"


def delta(value: float) -> str:
    """Rounded up.

    >>> delta(1e-6), delta(0.00025), delta(1 / 12_000), delta(1 / 6000)
    ('1e-6', '0.00025', '8.34e-5', '0.000167')
    """
    rounded = float(Context(prec=3, rounding=ROUND_CEILING).create_decimal(repr(value)))
    return f"{rounded:.3g}".replace("e-0", "e-")


def count(value: float) -> str:
    """
    >>> count(100836)
    '100,836'
    """
    return f"{value:,}"


def size(octets: float) -> str:
    """
    >>> size(999), size(1_234_000), size(999_960)
    ('999 B', '1.2 MB', '1.0 MB')
    """
    if octets < 1000:
        return f"{octets:.0f} B"
    for unit in ("kB", "MB", "GB"):
        octets /= 1000
        if octets < 999.95:
            return f"{octets:.1f} {unit}"
    return f"{octets / 1000:.1f} TB"


def seconds(value: float | None) -> str:
    """
    >>> seconds(0.0312), seconds(75), seconds(None)
    ('0.03', '75.00', '')
    """
    return "" if value is None else f"{value:.2f}"


def plain(value: object) -> str:
    """A setting as it would be written in a configuration.

    >>> plain(True), plain([1, "a"]), plain(0.1), plain("text"), plain(20000)
    ('true', '1; a', '0.1', 'text', '20000')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "; ".join(map(plain, value))
    return str(value)


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names.

    >>> flat({"seed": 1, "training": {"rounds": 3}})
    [('seed', '1'), ('training.rounds', '3')]
    """
    found = []
    for name, value in settings.items():
        found += flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, plain(value))]
    return found
