"""SecAgg and SecAgg+ as values for the registry."""

from __future__ import annotations

from dataclasses import replace

from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.cohort import check_policy
from protocols.pairwise.messages import TYPES
from protocols.pairwise.server import PairwiseServer
from protocols.registry import Protocol
from protocols.wire import Messages

SECAGG = Protocol(
    name="secagg",
    code=1,
    paper="Bonawitz et al. 2017 (CCS), active adversaries",
    threat_model="server malicious, with a fraction g of the clients; g + 2 dropout < 1",
    server_learns="the sum over the survivors, and who dropped out when",
    cost="client O(n + d n), server O(d n (1 + dropped n)), six messages up",
    check_policy=check_policy,
    messages=Messages(1, TYPES),
    client=PairwiseClient,
    server=PairwiseServer,
)

SECAGG_PLUS = replace(
    SECAGG,
    name="secagg+",
    code=2,
    paper="Bell et al. 2020 (CCS), with a hashed graph",
    threat_model="server malicious, with a fraction g of the clients; g + 2 dropout <= 0.9",
    cost="client O(k + d k), server O(d n (1 + dropped k)), k = O(log n), six messages up",
    messages=Messages(2, TYPES),
)

PROTOCOLS = {"secagg": SECAGG, "secagg+": SECAGG_PLUS}
