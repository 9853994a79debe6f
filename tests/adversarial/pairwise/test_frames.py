"""What the network and the server can do with frames: repeat, reorder, reflect, alter, cut, blow up, replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from protocols import wire
from protocols.client import Client
from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.cohort import Cohort
from protocols.pairwise.messages import Survivors
from protocols.plan import RoundPlan
from protocols.rounds import dealing
from protocols.rounds.client import ClientRound
from protocols.rounds.dealing import Accusations, Delivered, Delivery, share_of
from protocols.server import serve
from protocols.wire import HEADER_BYTES, Messages
from secagg import codec
from secagg.codec import u32
from secagg.crypto.merkle import Node
from secagg.crypto.shamir import PRIME
from secagg.errors import DecodeError, PeerError, SecAggError, StrayError, UsageError
from tests.controls import switch_off
from tests.scenes.pairwise import BOTH, Evil, small, wary

pytestmark = pytest.mark.thinned(4)

VICTIM = 2
COMMITTED = "commitments(context, box.peer, holder, inside, secrets) == box.commitments"
CONSISTENT = "consistent(points, [box.challenge for box in boxes], shown)"


def server_frames(evil: Evil) -> list[bytes]:
    """A round up to the end, with one false complaint in it; the six frames that the victim heard."""
    evil.advertise()
    frames = [evil.frame(evil.introduction(VICTIM))]
    evil.share()
    frames.append(evil.frame(evil.delivery(VICTIM)))
    evil.complain()
    frames.append(evil.frame(accused := accusations(evil, 0)))
    evil.accuse(VICTIM, accused)
    evil.opened_for = lambda u: ()  # type: ignore[method-assign]  # the liar knows its points
    frames.append(evil.frame(evil.verdict(VICTIM)))
    evil.upload()
    frames.append(evil.frame(evil.survivors(VICTIM, evil.members)))
    signatures = {v: evil.consent(v, evil.members) for v in evil.members}
    frames.append(evil.frame(evil.consents(VICTIM, signatures)))
    return frames


def accusations(evil: Evil, which: int) -> Accusations:
    """One neighbour complains: a corrupt one, if there are so many."""
    liar = sorted(evil.others(VICTIM), key=lambda v: v not in evil.corrupt)[which]
    return Accusations((evil.false_complaint(liar, VICTIM),))


@cache
def finished(protocol: str) -> tuple[Evil, list[bytes]]:
    """Such a round, once: everything in it is drawn from fixed seeds."""
    evil = small(protocol, policy=wary(protocol))
    return evil, server_frames(evil)


def fresh(protocol: str, heard: int) -> Client:
    """The victim once more, with the same randomness and an empty journal, after the first frames of that round."""
    twin = small(protocol, policy=wary(protocol))
    twin.start(VICTIM)
    for frame in finished(protocol)[1][:heard]:
        twin.clients[VICTIM].receive(frame)
    return twin.clients[VICTIM]


STEPS = range(6)


@BOTH
@pytest.mark.parametrize("step", STEPS)
def test_duplicates(protocol: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated frame gets the same bytes, also later, and changes nothing."""

    def again(count: int) -> None:
        client, frames = fresh(protocol, 0), finished(protocol)[1]
        answers = [client.receive(frame) for frame in frames[: step + 1]]
        for _ in range(count):
            assert [client.receive(frame) for frame in frames[: step + 1]] == answers
        [client.receive(frame) for frame in frames[step + 1 :]]
        assert client.done

    again(2)
    switch_off(monkeypatch, Client, "_received", "request in self._answered")
    again(0)
    with pytest.raises(PeerError, match="does not belong in phase"):
        again(1)


SKIPPED = 2, 3
"""Who is not complained about hears the verdict instead."""


@BOTH
@pytest.mark.parametrize("now", STEPS)
@pytest.mark.parametrize("then", STEPS)
def test_reordering(protocol: str, now: int, then: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each phase hears one type of message, but for the one that may be skipped; any other is refused, and the right
    one then accepted."""
    frames = finished(protocol)[1]
    client = fresh(protocol, now)
    if (now, then) == SKIPPED:
        client.receive(frames[then])
        with pytest.raises(PeerError, match=f"does not belong in phase {client.phase}"):
            client.receive(frames[now])
        return
    if then > now:
        with pytest.raises(PeerError, match=f"does not belong in phase {client.phase}"):
            client.receive(frames[then])
    client.receive(frames[now])
    assert client.phase != fresh(protocol, now).phase

    if then > now:  # without the check the phase's method meets a message that it does not know
        switch_off(monkeypatch, ClientRound, "hear", "step is None or not isinstance(message, step.hears)")
        with pytest.raises(AttributeError):
            fresh(protocol, now).receive(frames[then])


SECOND: list[Callable[[Evil], object]] = [
    lambda evil: replace(evil.introduction(VICTIM), proof=(Node(0, 0, bytes(32)),)),
    lambda evil: Delivery(evil.delivery(VICTIM).boxes[1:]),
    lambda evil: accusations(evil, 1),
    lambda evil: evil.verdict(VICTIM, list(evil.boxes[VICTIM])[1:]),
    lambda evil: evil.survivors(VICTIM, [u for u in evil.members if u != evil.others(VICTIM)[0]]),
    lambda evil: evil.consents(VICTIM, {v: evil.sign(v, evil.members) for v in evil.members[:-1]}),
]


@BOTH
@pytest.mark.parametrize("step", STEPS)
def test_a_second_different_message(protocol: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A phase is passed once. If it could be repeated, the client would answer twice."""

    evil, frames = finished(protocol)
    client, second = fresh(protocol, step + 1), evil.frame(SECOND[step](evil))
    assert second != frames[step]
    with pytest.raises(PeerError, match="does not belong in phase"):
        client.receive(second)
    for frame in frames[step + 1 :]:
        client.receive(frame)
    assert client.done

    phase = list(PairwiseClient.steps)[step]
    stay = PairwiseClient.steps[phase]._replace(then=phase)
    client = fresh(protocol, step)
    monkeypatch.setattr(PairwiseClient, "steps", {**PairwiseClient.steps, phase: stay})
    assert client.receive(frames[step])
    if step:  # no second introduction under the same root is right
        assert client.receive(second)


# Another round, another session, another protocol.

OTHERS: dict[str, Callable[[RoundPlan], RoundPlan]] = {
    "round": lambda plan: replace(plan, round=1),
    "session": lambda plan: replace(plan, session=b"another session."),
}


@BOTH
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("step", STEPS)
def test_frames_of_another_round(protocol: str, other: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    evil, frames = finished(protocol)
    client = small(protocol).clients[VICTIM]
    client.start(OTHERS[other](evil.plan), evil.values[VICTIM])
    with pytest.raises(StrayError, match="a frame of another session or round"):
        client.receive(frames[step])
    condition = "(header.session, header.round) != (plan.session, plan.round)"
    switch_off(monkeypatch, Messages, "decode", condition)
    with pytest.raises(PeerError):  # the frame is read, and what is in it does not fit
        client.receive(frames[step])


@BOTH
def test_a_late_frame_of_another_round_names_nobody(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a slow network brings from an honest client, or what one says that has another version."""
    said = small(protocol)
    said.start(VICTIM)
    late = said.clients[VICTIM]._said_before(said.plan, 0)

    def named() -> tuple[str, ...]:
        for frame, plan in ((late, replace(said.plan, round=1)), (b"\2" + late[1:], said.plan)):
            server = serve(plan, said.roster)
            with pytest.raises(DecodeError, match=r"another session or round|version 2 is not"):
                server.receive(said.name(VICTIM), frame)
            found.extend(server.liars)
        return tuple(found)

    found = list[str]()
    assert named() == ()
    monkeypatch.setattr(wire, "StrayError", DecodeError)
    assert named() == (said.name(VICTIM),) * 2


def test_frames_of_the_other_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = small("secagg")
    evil.advertise()
    other = small("secagg+")
    other.advertise()
    frame = other.frame(other.introduction(VICTIM))
    with pytest.raises(DecodeError, match="a frame of another protocol"):
        evil.clients[VICTIM].receive(frame)
    switch_off(monkeypatch, Messages, "decode", "header.protocol != self._code")
    with pytest.raises(SecAggError, match="advertised"):  # read, as if it were of this protocol
        evil.clients[VICTIM].receive(frame)


def next_round(evil: Evil) -> Evil:
    """The same clients, one round later."""
    later = Evil(
        evil.plan.next_round(), evil.roster, evil.identities, evil.corrupt, evil.policy, seed=int.from_bytes(b"later")
    )
    later.clients = evil.clients
    return later


@BOTH
def test_adverts_of_the_last_round(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan's digest, with the round number in it, is signed in each advert."""

    def replay(evil: Evil) -> None:
        evil.advertise()
        later = next_round(evil)
        later.advertise()
        stale = [later.adverts[u] if u == VICTIM else evil.adverts[u] for u in later.members]
        later.found(stale)
        later.share([VICTIM])

    with pytest.raises(PeerError, match="bad signature"):
        replay(small(protocol))
    monkeypatch.setattr(RoundPlan, "digest", lambda plan: bytes(32))
    replay(small(protocol))


@BOTH
@pytest.mark.parametrize("what", ["headers", "consents"])
def test_signatures_of_the_last_round(protocol: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan and root are in every later signature."""

    def replay(evil: Evil) -> None:
        server_frames(evil)
        old = {v: evil.sign(v, evil.members) for v in evil.members}
        later = next_round(evil)
        later.advertise()
        later.share()
        later.upload()
        message = later.survivors(VICTIM, later.members)
        if what == "headers":
            message = Survivors(message.survivors, tuple(evil.headers[h.position] for h in message.headers))
        later.tell(VICTIM, message)
        if what == "consents":
            later.reveal(VICTIM, old)

    def unbound(cohort: Cohort, *positions: int) -> tuple[bytes, ...]:
        return tuple(map(u32.encode, positions))

    scene = {"parameters": small(protocol).plan.parameters, "policy": wary(protocol)}
    if protocol == "secagg+":  # so few that the ring is closed: the same neighbours in both rounds
        scene = {"clients": 9, "corrupt": (), "policy": wary("secagg")}
    with pytest.raises(PeerError, match="bad signature"):
        replay(small(protocol, **scene))
    monkeypatch.setattr(Cohort, "bound", unbound)
    replay(small(protocol, **scene))


# Boxes.


def shared(protocol: str) -> Evil:
    evil = small(protocol)
    evil.advertise()
    evil.share()
    return evil


def partner(evil: Evil) -> int:
    return next(v for v in evil.others(VICTIM) if v in evil.honest)


def deliver_with(evil: Evil, box: Delivered) -> tuple[str, ...]:
    """The victim's delivery with one box replaced; whom it complains about then. It goes on with the others."""
    boxes = [box if b.peer == box.peer else b for b in evil.delivery(VICTIM).boxes]
    evil.complaints[VICTIM] = said = evil.tell(VICTIM, Delivery(tuple(boxes)))
    doubted = [one.peer for one in said.complaints]
    evil.keep_upload(VICTIM, evil.tell(VICTIM, evil.verdict(VICTIM, evil.boxes[VICTIM].keys() - doubted)))
    return tuple(map(evil.name, doubted))


@BOTH
def test_reflection(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's own box comes back as its neighbour's. It holds shares of its own secrets, which it would reveal."""

    def reflect(evil: Evil) -> tuple[str, ...]:
        v = partner(evil)
        return deliver_with(evil, replace(evil.boxes[v][VICTIM], peer=v))

    evil = shared(protocol)
    assert reflect(evil) == (evil.name(partner(evil)),)
    assert partner(evil) not in evil.clients[VICTIM]._round._held

    bound, committed = Cohort.bound, dealing.commitment  # without the direction
    monkeypatch.setattr(Cohort, "bound", lambda cohort, *positions: bound(cohort, *sorted(positions)))
    monkeypatch.setattr(dealing, "commitment", lambda cohort, u, v, *what: committed(cohort, *sorted([u, v]), *what))
    evil = shared(protocol)
    assert reflect(evil) == ()
    v = partner(evil)
    evil.upload([u for u in evil.members if u != VICTIM])
    alive = [u for u in evil.members if u != v]
    evil.consent(VICTIM, alive)
    evil.reveal(VICTIM, {u: evil.sign(u, alive) for u in alive})
    mine = share_of(evil.clients[VICTIM]._round._dealing().points[v], 0)
    assert evil.key_shares[v][VICTIM] == mine  # a share of its own mask key, given away as another's


@BOTH
def test_a_box_for_another_holder(protocol: str) -> None:
    """Under a pad that only dealer and holder can agree on: there is nothing to switch off."""
    evil = shared(protocol)
    v = partner(evil)
    other = next(w for w in evil.others(v) if w not in (VICTIM, v))
    assert deliver_with(evil, evil.boxes[other][v]) == (evil.name(v),)


@BOTH
@pytest.mark.parametrize("word", [0, 9, -1])
def test_a_box_altered_on_the_way(protocol: str, word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of either secret, or a blinding value. Without the comparisons the altered share would be held, and
    revealed one day."""

    def alter(evil: Evil) -> tuple[str, ...]:
        v = partner(evil)
        box = evil.boxes[VICTIM][v]
        words = np.frombuffer(box.points, "<u4").astype(np.int64)
        words[word] = (words[word] + 1) % PRIME
        return deliver_with(evil, replace(box, points=words.astype("<u4").tobytes()))

    evil = shared(protocol)
    assert alter(evil) == (evil.name(partner(evil)),)
    switch_off(monkeypatch, dealing, "fit", COMMITTED, "True")
    switch_off(monkeypatch, dealing, "fit", CONSISTENT, "np.ones(len(boxes), bool)")
    evil = shared(protocol)
    assert alter(evil) == ()
    held = evil.clients[VICTIM]._round._held[partner(evil)]
    evil.complain([partner(evil)])
    assert held != evil.clients[partner(evil)]._round._dealing().points[VICTIM]


@BOTH
def test_a_box_in_another_encoding(protocol: str) -> None:
    """Words that are not reduced stand for the same values: what is in the box is what counts, and nobody complains."""
    evil = shared(protocol)
    box = evil.boxes[VICTIM][partner(evil)]
    first = int.from_bytes(box.points[:4], "little") + PRIME
    assert deliver_with(evil, replace(box, points=first.to_bytes(4, "little") + box.points[4:])) == ()
    evil.complain([partner(evil)])
    assert (
        evil.clients[VICTIM]._round._held[partner(evil)] == evil.clients[partner(evil)]._round._dealing().points[VICTIM]
    )


@BOTH
@pytest.mark.parametrize("how", ["twice", "out of order", "from a stranger", "from itself"])
def test_boxes_of_nobody(protocol: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(evil: Evil) -> tuple[Delivered, ...]:
        first, second, *rest = evil.delivery(VICTIM).boxes
        return {
            "twice": (first, first, second, *rest),
            "out of order": (second, first, *rest),
            "from a stranger": (first, second, *rest, replace(first, peer=10**6)),
            "from itself": tuple(sorted((second, *rest, replace(first, peer=VICTIM)), key=lambda box: box.peer)),
        }[how]

    evil = shared(protocol)
    with pytest.raises(PeerError, match="shares from somebody who deals none to this client, or twice from one"):
        evil.tell(VICTIM, Delivery(wrong(evil)))
    evil.upload([VICTIM])  # the right ones are still welcome

    condition = (
        "not ascending(dealers)" if how in ("twice", "out of order") else "not self._peers.keys() >= set(dealers)"
    )
    switch_off(monkeypatch, PairwiseClient, "_open", condition)
    evil = shared(protocol)
    if how in ("twice", "out of order"):
        evil.tell(VICTIM, Delivery(wrong(evil)))
    else:
        with pytest.raises(KeyError):
            evil.tell(VICTIM, Delivery(wrong(evil)))


# Bytes that are no frame.

Mangle = Callable[[bytes], bytes]
MANGLED: dict[str, Mangle] = {
    "empty": lambda frame: b"",
    "header only": lambda frame: frame[:HEADER_BYTES],
    "header cut": lambda frame: frame[: HEADER_BYTES - 1],
    "last byte missing": lambda frame: frame[:-1],
    "trailing byte": lambda frame: frame + b"\0",
    "other version": lambda frame: bytes([frame[0] + 1]) + frame[1:],
    "unknown type": lambda frame: frame[: HEADER_BYTES - 1] + b"\x63" + frame[HEADER_BYTES:],
}


@BOTH
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", MANGLED)
def test_undecodable_frames(protocol: str, step: int, how: str) -> None:
    """Refused, and the state is what it was: the whole frame is then accepted."""
    frames = finished(protocol)[1]
    client = fresh(protocol, step)
    phase = client.phase
    with pytest.raises(DecodeError):
        client.receive(MANGLED[how](frames[step]))
    assert client.phase == phase
    client.receive(frames[step])
    assert client.phase != phase


def test_control_trailing_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check there are many frames for one message."""
    frames, client = finished("secagg")[1], fresh("secagg", 0)
    monkeypatch.setattr(codec.Codec, "decode", lambda kind, data: kind.read(codec.Reader(data)))
    client.receive(frames[0] + b"\0")


def test_control_unknown_type(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Messages, "decode", "header.number not in self._by_number")
    frames, client = finished("secagg")[1], fresh("secagg", 0)
    with pytest.raises(KeyError):
        client.receive(MANGLED["unknown type"](frames[0]))


@BOTH
def test_a_frame_that_announces_more_than_it_has(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are checked against what is left before anything is allocated."""
    frame = finished(protocol)[1][1]
    huge = frame[:HEADER_BYTES] + (9_999_999).to_bytes(4, "big") + frame[HEADER_BYTES + 4 :]
    with pytest.raises(DecodeError, match="9999999 items announced: too many"):
        fresh(protocol, 1).receive(huge)


# The caller.


@BOTH
def test_out_of_turn(protocol: str) -> None:
    evil = small(protocol)
    with pytest.raises(UsageError, match="no round is under way"):
        evil.clients[VICTIM].receive(b"")
