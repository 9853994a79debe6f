"""Clients that keep what is left of their updates, in rounds with feedback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from protocols.client import Client
from protocols.journal import Journal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, simulate
from secagg.assumptions import Adversary
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.sketches import RandomK

NAMES = ("ann", "bob", "cat", "dan")
IDENTITIES = {name: Identity.generate(name, Prg(name.encode().ljust(32))) for name in NAMES}
ROSTER = Roster.of(list(IDENTITIES.values()))
LENGTH = 12
SOME = Encoding(LENGTH, clip_l2=100.0, bits=24, sketch=RandomK(5), feedback=True)
LONG = Encoding(40_000, clip_l2=100.0, bits=24, sketch=RandomK(30_000), feedback=True)
"""Of which uploads and residuals stand beside their records."""
POLICY = Policy(min_contributors=3, dropout="0.25", corrupt=0, feedback=True, adversary=Adversary.CURIOUS)


def updates(encoding: Encoding = SOME) -> dict[str, np.ndarray]:
    return {name: np.random.default_rng(at).normal(size=encoding.length) for at, name in enumerate(NAMES)}


def planned(encoding: Encoding = SOME, session: bytes = bytes(16), **fields: Any) -> RoundPlan:
    asked: dict[str, Any] = {"min_contributors": 3, "dropout": "0.25", "corrupt": 0, "session": session, **fields}
    return RoundPlan.propose("secagg", ROSTER, encoding, **asked)


def client(name: str, journal: Journal | None = None, policy: Policy = POLICY, deployment: str = "d") -> Client:
    return Client(IDENTITIES[name], ROSTER, policy=policy, journal=journal, deployment=deployment)


def summed(plan: RoundPlan, clients: Mapping[str, Client], given: Mapping[str, Any], **silent: str) -> np.ndarray:
    return simulate(serve(plan, ROSTER), clients, given.get, faults=Faults(silent)).outcome.decode().vector


def uploading(journal: Journal, encoding: Encoding = SOME) -> tuple[Client, bytes, RoundPlan]:
    """Ann in her second round, the frame that will make her upload, and the plan: she has something left of the first.

    All others are honest, and in memory.
    """
    clients = {name: client(name, journal if name == "ann" else None) for name in NAMES}
    given, first = updates(encoding), planned(encoding)
    summed(first, clients, given)
    plan = first.next_round()
    server = serve(plan, ROSTER)
    for name, one in clients.items():
        server.receive(name, one.start(plan, given[name]))
    while True:
        server.close(server.phase)
        frames = dict(server.outbox())
        if server.phase == "upload":
            return clients["ann"], frames["ann"], plan
        for name, frame in frames.items():
            server.receive(name, clients[name].receive(frame))


def left(plan: RoundPlan, before: np.ndarray) -> np.ndarray:
    """What is left of Ann's vector and of what was left before."""
    sketch, whole = plan.encoding.sketch, updates(plan.encoding)["ann"] + before
    assert isinstance(sketch, RandomK)
    linear = sketch.at(plan.encoding.length, plan._rotation_seed())
    return whole - linear.lift(linear.apply(whole), unbiased=False)
