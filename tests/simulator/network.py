"""One round through a real server machine: faults on the way, clients that die and come back, some that lie.

``tamper`` is for a server that lies with what it sends, and is honest with what it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from dp.ledger import Ledger
from protocols import registry
from protocols.roster import SERVER
from protocols.server import serve
from secagg.errors import BudgetError, DecodeError, PeerError, PolicyError, SecAggError, ThresholdError
from tests.simulator.deployment import Deployment, Faults
from tests.simulator.parties import Liar, Party, Record, phases_of

Tamper = Callable[[str, str, Any], "list[bytes] | None"]
"""(phase, receiver, message) -> frames to send instead of it."""


def run_round(
    deployment: Deployment,
    record: Record,
    parties: Mapping[str, Party],
    liars: Mapping[str, Liar],
    faults: Faults,
    ledger: Ledger | None,
    tamper: Tamper | None = None,
) -> None:
    """Fill in the record. Whatever is not declared as an error goes through to the caller."""
    plan, draw = record.plan, deployment.draw("network", record.number)
    try:
        record.server = server = serve(plan, deployment.roster, ledger=ledger)
    except BudgetError as error:
        record.failed = error
        return
    phases = deployment.phases
    updates, weights = deployment.updates(record.number), deployment.weights(record.number)
    replies: list[tuple[str, list[bytes]]] = []
    for name in deployment.roster.names:
        if name in liars:
            replies.append((name, liars[name].join(plan, updates[name], weights[name])))
            continue
        try:
            replies.append((name, [parties[name].join(record, updates[name], weights[name])]))
        except (PolicyError, BudgetError) as error:
            record.refused[name] = error
    while server.outcome is None:
        phase = str(server.phase)
        if faults.shuffled:
            draw.shuffle(replies)
        for name, frames in replies:
            if name in faults.dropouts and phases.index(phase) >= phases.index(faults.dropouts[name]):
                continue
            for frame in frames:
                _arrive(record, server, liars, faults, draw, phase, name, frame)
        try:
            server.close(phase)
        except SecAggError as error:
            record.failed = error
            return
        if ledger is not None:
            after = str(server.phase)
            record.charged.append((SERVER, f"{phase}>{after}", phases_of(ledger, plan)))
        replies, now = [], str(server.phase)
        for one in liars.values():
            one.phase = now
        for name, frame in server.outbox():
            if (name, now) in faults.restarts and name in parties:
                parties[name].restart(draw)
            replies.append((name, _told(record, parties, liars, faults, draw, now, name, frame, tamper)))
        asked = {name for name, _ in replies}
        if server.outcome is None:
            replies += [(name, one.unasked()) for name, one in liars.items() if name not in asked]
    record.outcome = server.outcome


def _arrive(
    record: Record,
    server: Any,
    liars: Mapping[str, Liar],
    faults: Faults,
    draw: Random,
    phase: str,
    name: str,
    frame: bytes,
) -> None:
    honest = name not in liars
    if (name, phase) in faults.garbled:
        frame, honest = damaged(frame, draw), False
        record.touched.add(name)
    record.hear(phase, name, SERVER, frame, honest)
    for liar in liars.values() if honest else ():
        liar.overheard.append(frame)
    for _ in range(2 if phase in faults.duplicated else 1):
        try:
            server.receive(name, frame)
        except (PeerError, DecodeError) as error:
            record.errors.append((phase, SERVER, name, error))


def _told(
    record: Record,
    parties: Mapping[str, Party],
    liars: Mapping[str, Liar],
    faults: Faults,
    draw: Random,
    phase: str,
    name: str,
    frame: bytes,
    tamper: Tamper | None,
) -> list[bytes]:
    """What a client answers to what reaches it."""
    frames, honest = [frame], True
    if tamper is not None:
        message = registry.find(record.plan.protocol).messages.decode(record.plan, frame)
        if (lies := tamper(phase, name, message)) is not None:
            frames, honest = lies, False
    if (name, phase) in faults.garbled_down:
        frames, honest = [damaged(one, draw) for one in frames], False
        record.touched.add(name)
    answers = list[bytes]()
    for one in frames:
        record.hear(phase, SERVER, name, one, honest)
        for again in range(2 if phase in faults.duplicated else 1):
            try:
                if name in liars:
                    answers += liars[name].receive(one) if not again else []
                else:
                    answers.append(parties[name].receive(one))
            except (PeerError, DecodeError, PolicyError, ThresholdError) as error:
                if name not in liars:
                    record.errors.append((phase, name, SERVER, error))
    return answers


def damaged(frame: bytes, draw: Random) -> bytes:
    if not frame or draw.random() < 0.3:
        return frame[: draw.randrange(max(len(frame), 1))]
    at = draw.randrange(len(frame))
    return frame[:at] + bytes([frame[at] ^ 1 << draw.randrange(8)]) + frame[at + 1 :]
