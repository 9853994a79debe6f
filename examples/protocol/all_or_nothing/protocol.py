"""The protocol as a value, and how it becomes known."""

from __future__ import annotations

from all_or_nothing.client import AllOrNothingClient
from all_or_nothing.messages import TYPES
from all_or_nothing.server import AllOrNothingServer
from protocols.parameters import PACKAGES
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.registry import Protocol
from protocols.wire import Messages

NAME, CODE = "all-or-nothing", 200


def check_policy(plan: RoundPlan, policy: Policy) -> None:
    """Refuse a plan that this client must not accept. There are no parameters, and ``Policy.check`` asks for the rest:
    a client that fears c corrupt ones sets its ``min_contributors`` to c + 2 or more."""


PROTOCOLS = {
    NAME: Protocol(
        name=NAME,
        code=CODE,
        paper="Bonawitz et al. 2017 (CCS), section 4.0.1",
        threat_model="server malicious, with fewer than min_contributors - 1 clients; no dropouts",
        server_learns="the sum over all who advertised",
        cost="client O(d n), server O(d n), two messages up",
        check_policy=check_policy,
        messages=Messages(CODE, TYPES),
        client=AllOrNothingClient,
        server=AllOrNothingServer,
    )
}


def register() -> None:
    """Make it known. A protocol in the library has a line in ``protocols.parameters`` instead."""
    PACKAGES[NAME] = "all_or_nothing"
