"""Where a deployment's server begins a round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols import registry
from protocols.engines import Engine
from protocols.engines.local import HERE
from protocols.plan import RoundPlan
from protocols.roster import Roster
from protocols.rounds.server import ServerRound

if TYPE_CHECKING:
    from dp.ledger import Ledger


def serve(plan: RoundPlan, roster: Roster, *, ledger: Ledger | None = None, engine: Engine = HERE) -> ServerRound:
    """The server side of a round of whatever protocol the plan names. A plan with noise is charged to ``ledger``.

    What can be shared out among cores or machines is done by ``engine`` (``protocols.engines``).
    """
    protocol = registry.find(plan.protocol)
    return protocol.server(plan, roster, protocol.messages, ledger=ledger, engine=engine)
