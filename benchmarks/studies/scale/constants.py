"""Writes unit costs as the source of ``protocols.costs.measured``, by which protocols are chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from protocols.costs.units import UnitCosts


def where(machine: Mapping[str, Any], commit: str) -> str:
    """In a line, on what it was measured.

    >>> where({"processor": "a slide rule", "cores": 1, "python": "3.11"}, "abcdef012345")
    'a slide rule, 1 core, Python 3.11, commit abcdef012345'
    """
    cores = f"{machine['cores']} core{'s' * (machine['cores'] != 1)}"
    return f"{machine['processor']}, {cores}, Python {machine['python']}, commit {commit}"


def source_of(units: UnitCosts, on: str) -> str:
    """The whole module, with three digits of each number.

    >>> from dataclasses import fields
    >>> units = UnitCosts(**{field.name: 1.23456e-6 for field in fields(UnitCosts)})
    >>> exec(source_of(units, "a slide rule"), namespace := {})
    >>> namespace["MACHINE"], namespace["COSTS"].verify
    ('a slide rule', 1.23e-06)
    """
    numbers = "\n".join(f"    {name}={float(f'{value:.3g}')!r}," for name, value in asdict(units).items())
    return _MODULE.format(where=json.dumps(on), numbers=numbers)


_MODULE = '''"""The unit costs by which a protocol is chosen: constants, so that the same is chosen wherever one asks.

They are renewed when the code has become faster or slower in some parts more than in others: whoever has the machine
runs ``secagg bench scale --set parts=units --set out=DIRECTORY``, which writes this file.
"""

from __future__ import annotations

from protocols.costs.units import UnitCosts

MACHINE = {where}
"""What they were measured on."""

COSTS = UnitCosts(
{numbers}
)
'''
