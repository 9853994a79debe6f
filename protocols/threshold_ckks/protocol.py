"""Threshold CKKS as a value for the registry."""

from __future__ import annotations

from protocols.registry import Protocol
from protocols.threshold_ckks.client import ThresholdClient
from protocols.threshold_ckks.cohort import check_policy
from protocols.threshold_ckks.messages import TYPES
from protocols.threshold_ckks.server import ThresholdServer
from protocols.wire import Messages

THRESHOLD_CKKS = Protocol(
    name="threshold_ckks",
    code=5,
    paper="Asharov et al. 2012 (EUROCRYPT) and Mouchet et al. 2021 (PETS), with exact sums and missing parts rebuilt",
    threat_model="server and fewer than t clients honest but curious; t is half of the honest and all the corrupt",
    server_learns="the sum over the survivors, and who dropped out when",
    cost="client O(d + n), server O(d n), dropouts are free; 12 bytes a coordinate; eight messages up",
    check_policy=check_policy,
    messages=Messages(5, TYPES),
    client=ThresholdClient,
    server=ThresholdServer,
)

PROTOCOLS = {"threshold_ckks": THRESHOLD_CKKS}
