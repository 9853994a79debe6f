"""CKKS as a value for the registry."""

from __future__ import annotations

from protocols.ckks.client import CkksClient
from protocols.ckks.cohort import check_policy
from protocols.ckks.messages import TYPES
from protocols.ckks.server import CkksServer
from protocols.registry import Protocol
from protocols.wire import Messages

CKKS = Protocol(
    name="ckks",
    code=3,
    paper="Cheon et al. 2017 (ASIACRYPT) with exact sums, through TenSEAL",
    threat_model="server and clients honest but curious, none together: the server and one holder of the key open all",
    server_learns="the sum over the survivors (or nothing, if only clients decrypt), and who dropped out when",
    cost="client O(d), server O(d n), dropouts are free; 30 bytes a coordinate; five messages up",
    check_policy=check_policy,
    messages=Messages(3, TYPES),
    client=CkksClient,
    server=CkksServer,
    replays=False,
)

PROTOCOLS = {"ckks": CKKS}
