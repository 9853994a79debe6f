"""The one-shot protocol as a value for the registry."""

from __future__ import annotations

from protocols.oneshot.client import OneshotClient
from protocols.oneshot.committee import check_policy
from protocols.oneshot.messages import TYPES
from protocols.oneshot.server import OneshotServer
from protocols.registry import Protocol
from protocols.wire import Messages

ONESHOT = Protocol(
    name="oneshot",
    code=4,
    paper="OPA 2024, Willow 2024, ACORN 2022: ring-LWE masks, packed shares to a committee",
    threat_model="server malicious, with a fraction g of the clients; g + 2 dropout < 1",
    server_learns="the sum over the survivors, and who dropped out when",
    cost="client O(d + m), speaks once; member of the committee O(n); server O(d n), dropouts are free",
    check_policy=check_policy,
    messages=Messages(4, TYPES),
    client=OneshotClient,
    server=OneshotServer,
)

PROTOCOLS = {"oneshot": ONESHOT}
