"""A plan with the parameters of another protocol, or with none at all, cannot even be written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocols import registry
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import UsageError

ROSTER = Roster.of([Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(6)])


def plan_of(protocol: str) -> RoundPlan:
    return RoundPlan.propose(protocol, ROSTER, Encoding.integers(3), min_contributors=3, corrupt=0, dropout=0)


@pytest.mark.parametrize("protocol", registry.names())
def test_parameters_that_are_not_of_this_protocol(protocol: str) -> None:
    kinds = {type(plan_of(other).parameters): plan_of(other).parameters for other in registry.names()}
    own = type(plan_of(protocol).parameters)
    assert len(kinds) > 2
    for kind, parameters in kinds.items():
        if kind is not own:
            with pytest.raises(UsageError):
                replace(plan_of(protocol), parameters=parameters)
    with pytest.raises(UsageError):
        replace(plan_of(protocol), parameters=None)
