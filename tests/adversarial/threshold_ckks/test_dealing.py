"""Threshold CKKS: liars that deal, complain or reveal, a server that damages boxes; with the check and without.

6 clients, t = 4. A liar costs itself its place, and nobody a round or a budget, but for the dealer of another seed than
the one behind its part of the key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp.calibrate import user_level
from dp.events import Relation
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols.client import Client
from protocols.journal import SqliteJournal
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from protocols.rounds import dealer, dealing, exchange
from protocols.rounds.dealing import (
    Accusations,
    Complaint,
    Complaints,
    Dealing,
    Dealt,
    Defence,
    Delivery,
    Opened,
    complaint,
)
from protocols.rounds.exchange import Exchange
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.rounds.sets import from_bitmap
from protocols.server import serve
from protocols.simulation.network import Envelope, Faults, local_clients, simulate
from protocols.threshold_ckks import client as client_module
from protocols.threshold_ckks.client import ThresholdClient
from protocols.threshold_ckks.messages import JointKey, Missing, Part, Recovery, Upload
from protocols.threshold_ckks.server import ThresholdServer
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.crypto.shamir import pack_shares, reconstruct, unpack_shares
from secagg.encoding import Encoding
from secagg.errors import DecodeError, PeerError, PolicyError, ThresholdError
from tests.controls import switch_off
from tests.scenes.threshold_ckks import POLICY, WIRE, Change, Scene, bitmap, telling

pytestmark = pytest.mark.thinned(4)

OPENED = "self._unsealed(boxes, {one.peer: one.key for one in shown})"
EVERYBODY = {f"client-{u}" for u in range(6)}


def lying(monkeypatch: pytest.MonkeyPatch, liar: str, method: str, change: Callable[[Any, Any], Any]) -> None:
    """This client says something else than ``method`` of an honest one gives."""
    honest = getattr(ThresholdClient, method)

    def said(self: ThresholdClient) -> Any:
        return change(self, honest(self)) if self.identity.name == liar else honest(self)

    monkeypatch.setattr(ThresholdClient, method, said)


def spoilt(part: Part, *holders: int) -> Part:
    """client-0's boxes for these holders hold something else than its commitments say."""
    boxes = [
        replace(box, points=bytes(len(box.points))) if i + 1 in holders else box
        for i, box in enumerate(part.dealt.boxes)
    ]
    return replace(part, dealt=Dealt(tuple(boxes), part.dealt.proof))


def spoiling(monkeypatch: pytest.MonkeyPatch, *holders: int) -> None:
    lying(monkeypatch, "client-0", "_deal", lambda _, part: spoilt(part, *holders))


def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holders keep whatever is in a box."""
    monkeypatch.setattr(dealing, "fit", lambda context, holder, boxes, found, secrets: [True] * len(boxes))


# Dealers.


def test_boxes_that_nobody_can_open_and_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dealer has no part in the key, so nobody needs to rebuild it. What it opens does not fit: it is named."""
    spoiling(monkeypatch, 1, 2, 3, 4, 5)
    scene = Scene()
    assert scene.run(**{"client-0": "decrypt"}).outcome.total.tolist() == scene.sum("client-0")
    assert scene.server.excluded == ("client-0",)
    assert scene.server._missing == []

    blind(monkeypatch)  # it keeps its part in the key, and takes it along
    scene = Scene()
    with pytest.raises(ThresholdError):
        scene.run(**{"client-0": "decrypt"})


def noised(path: Path) -> tuple[dict[str, Client], list[Ledger], ServerRound]:
    """A round with noise; the server and client-1 keep a budget each."""
    roster, clients = local_clients(6, POLICY, Prg(bytes(32)))
    plan = RoundPlan.propose(
        "threshold_ckks", roster, Encoding.integers(8, bits=4), min_contributors=4, corrupt=0, dropout="0.3",
        noise=NoiseSpec(Family.SKELLAM, Fraction(10**6), 2, 1, 2), session=bytes(16),
    )  # fmt: skip
    budget = Budget(Fraction(20), Fraction(1, 1000), slack=Fraction(1, 10**6))
    guarantee = user_level(Relation.ZERO_OUT)
    ledgers = [
        Ledger.create(path / f"{i}.db", SigningKey(bytes([i]) * 32), budget, guarantee, run="test", elsewhere="-")
        for i in range(2)
    ]
    one = clients["client-1"]
    journal = SqliteJournal(path / "journal.db")
    clients["client-1"] = Client(one.identity, roster, policy=POLICY, journal=journal, ledger=ledgers[1])
    return clients, ledgers, serve(plan, roster, ledger=ledgers[0])


def test_no_budget_is_spent_without_a_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dealer of bad boxes falls silent when it would be needed. Whoever keeps a budget has paid for the sum over
    the others; with blind holders it has paid for none, and the round has no sum."""
    spoiling(monkeypatch, 1, 2, 3, 4, 5)
    for seeing in (True, False):
        if not seeing:
            blind(monkeypatch)
        folder = tmp_path / str(seeing)
        folder.mkdir()
        clients, ledgers, server = noised(folder)
        faults = Faults({"client-0": "decrypt"})
        updates = {name: np.zeros(8) for name in clients}
        if seeing:
            survivors = simulate(server, clients, updates.get, faults=faults).outcome.survivors
            assert set(survivors) == EVERYBODY - {"client-0"}
        else:
            with pytest.raises(ThresholdError):
                simulate(server, clients, updates.get, faults=faults)
        paid = [[entry["sum"]["survivors"] for entry in one.entries() if entry["phase"] == "commit"] for one in ledgers]
        assert paid == [[5], [5]] if seeing else [[6], [6]]
        assert (server.outcome is None) != seeing
        for ledger in ledgers:
            ledger.close()


def padding_badly(monkeypatch: pytest.MonkeyPatch, *holders: int) -> None:
    """client-0 pads the boxes of these with something else than was agreed; all else is right, its proof included."""
    honest = ThresholdClient._pad_key

    def pad_key(self: ThresholdClient, dealer: int, holder: int) -> bytes:
        return bytes(32) if dealer == self._u == 0 and holder in holders else honest(self, dealer, holder)

    monkeypatch.setattr(ThresholdClient, "_pad_key", pad_key)


def test_a_dealer_that_opens_what_nobody_could(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays, and so does who complained: one of them lied. Should it fall silent, what it opened rebuilds its part.
    Control: holders that do not keep what was opened for them."""
    padding_badly(monkeypatch, 1, 2)
    scene = Scene()
    assert scene.run(**{"client-0": "decrypt"}).outcome.total.tolist() == scene.sum()
    assert scene.server._missing == [0]
    assert scene.server.disputes == (("client-1", "client-0"), ("client-2", "client-0"))
    assert (scene.server.excluded, scene.server.liars) == ((), ())
    told = scene.said(JointKey)
    assert {name for name, message in told.items() if message.opened} == {"client-1", "client-2"}

    switch_off(monkeypatch, ThresholdClient, "_good_shares", OPENED, "{dealer: bytes(52) for dealer in answered}")
    scene = Scene()
    scene.fails(**{"client-0": "decrypt"})


def another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """client-0 deals the seed of another key, consistently, to all alike."""
    honest = dealer.Dealing

    def dealt(context: Any, dealer: int, holders: Any, threshold: int, secrets: Any, *rest: Any) -> Dealing:
        return honest(context, dealer, holders, threshold, [b"s" * 32] if dealer == 0 else secrets, *rest)

    monkeypatch.setattr(dealer, "Dealing", dealt)


def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """client-0 commits to a share beside its polynomial for client-1, which reveals that and does not complain."""
    honest, other = dealing.commitments, pack_shares(np.full((1, 9), 7, np.uint32))

    def commitments(context: Any, dealer: int, holder: int, points: bytes, secrets: int) -> bytes:
        if (dealer, holder) == (0, 1):
            points = other + points[len(other) :]
        return honest(context, dealer, holder, points, secrets)

    def revealing(client: Any, recovery: Recovery) -> Recovery:
        client._held[0] = other
        return honest_recover(client)

    honest_recover = ThresholdClient._recover
    monkeypatch.setattr(dealing, "commitments", commitments)
    lying(monkeypatch, "client-1", "_recover", revealing)


@pytest.mark.parametrize("liar", [another_seed, beside])
def test_a_dealer_of_another_seed_is_named_alone(
    liar: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody notices until it goes missing. Control: a seed that is taken as it comes opens no sum, and names all."""
    liar(monkeypatch)
    scene = Scene()
    assert scene.run(**{"client-5": "decrypt"}).outcome.total.tolist() == scene.sum()

    def named() -> set[str]:
        scene = Scene()
        with pytest.raises(PeerError) as caught:
            scene.run(**{"client-0": "decrypt"})
        found.append(scene.server.liars)
        return set(caught.value.culprits)

    found = list[tuple[str, ...]]()
    assert named() == {"client-0"}
    assert found == [("client-0",)]
    monkeypatch.setattr(ThresholdServer, "_is_seed_of", lambda *_: True)
    monkeypatch.setattr("protocols.threshold_ckks.server.reconstruct", lambda places, shares: [b"s" * 32])
    assert named() == EVERYBODY
    assert found[1] == ()  # nobody was caught


def test_a_share_that_is_none_and_was_committed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are no field elements: whoever reveals it is named, and done without. Else it ends the round."""
    honest = dealing.commitments

    def commitments(context: Any, dealer: int, holder: int, points: bytes, secrets: int) -> bytes:
        return honest(context, dealer, holder, b"\xff" * 36 if (dealer, holder) == (0, 1) else points, secrets)

    def revealing(client: Any, recovery: Recovery) -> Recovery:
        client._held[0] = b"\xff" * 36
        return honest_recover(client)

    honest_recover = ThresholdClient._recover
    monkeypatch.setattr(dealing, "commitments", commitments)
    lying(monkeypatch, "client-1", "_recover", revealing)
    scene = Scene()
    assert scene.run(**{"client-0": "decrypt"}).outcome.total.tolist() == scene.sum()
    assert scene.server.liars == ("client-1",)
    switch_off(monkeypatch, Exchange, "check_shares", "unpack_shares(b''.join(shares.values()), len(shares))")
    scene = Scene()
    with pytest.raises(DecodeError) as caught:
        scene.run(**{"client-0": "decrypt"})
    assert caught.value.culprits == ()


# Holders.


def about(*dealers: int) -> Callable[[Any, Complaints], Complaints]:
    """Complaints about these, whose boxes are good, each signed as it should be."""

    def said(client: Any, honest: Complaints) -> Complaints:
        for u in dealers:
            client._doubted[u] = client.boxes[u]
            del client._held[u]
        return Complaints(
            tuple(complaint(client.identity.key, client._cohort, client._u, client.boxes[u]) for u in dealers)
        )

    return said


@pytest.fixture
def keeping_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that wants to complain later has kept what it was dealt."""
    honest = ThresholdClient._open

    def opening(self: Any, message: Delivery) -> None:
        honest(self, message)
        self.boxes = {box.peer: box for box in message.boxes}

    monkeypatch.setattr(ThresholdClient, "_open", opening)


@pytest.mark.usefixtures("keeping_boxes")
def test_false_complaints_cost_nobody_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """About everybody: all defend, and all are in the sum. Control: dealers that open nothing are left out."""
    lying(monkeypatch, "client-3", "_complain", about(0, 1, 2, 4, 5))
    scene = Scene()
    assert scene.run(**{"client-5": "decrypt"}).outcome.total.tolist() == scene.sum()
    assert scene.server.disputes == tuple(("client-3", f"client-{u}") for u in (0, 1, 2, 4, 5))
    assert (scene.server.excluded, scene.server.liars) == ((), ())
    for opened in scene.said(Defence).values():
        assert [one.peer for one in opened.opened] == [3]

    monkeypatch.setattr(client_module, "most_complaints", lambda *_: 0)
    scene = Scene()
    scene.fails()
    assert set(scene.server.excluded) == EVERYBODY - {"client-3"}


@pytest.mark.usefixtures("keeping_boxes")
@pytest.mark.parametrize("phase", ["complain", "defend"])
def test_a_dealer_that_falls_silent_has_no_part_in_the_key(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its part was shown, and is not added. Added all the same, it makes a key under which nothing can be opened."""
    lying(monkeypatch, "client-3", "_complain", about(0))
    scene = Scene()
    assert scene.run(**{"client-0": phase}).outcome.total.tolist() == scene.sum("client-0")
    assert scene.server._members == [1, 2, 3, 4, 5]
    assert (scene.server.excluded, scene.server.liars) == (("client-0",), ())

    honest = ThresholdServer._join

    def adding_all(self: ThresholdServer) -> Any:
        self._parts[1] = self._parts[1] + self._parts[0]
        return honest(self)

    monkeypatch.setattr(ThresholdServer, "_join", adding_all)
    scene = Scene()
    with pytest.raises(PeerError, match="out of range"):
        scene.run(**{"client-0": phase})


def forgery(client: Any, one: Complaint, how: str) -> tuple[Complaint, ...]:
    match how:
        case "unsigned":
            return (replace(one, signature=bytes(64)),)
        case "about another box":
            other = replace(client.boxes[one.peer], commitments=bytes(16))
            return (complaint(client.identity.key, client._cohort, client._u, other),)
        case "twice":
            return (one, one)
        case _:  # about a client that has dealt nothing
            return (replace(one, peer=4),)


@pytest.mark.usefixtures("keeping_boxes")
@pytest.mark.parametrize(
    ("how", "owner", "function", "condition"),
    [
        ("unsigned", exchange, "check_complaint", "verify(public, said.signature, labels.COMPLAINT, "
         "*context.bound(delivered.peer, holder), said.box)"),
        ("about another box", exchange, "check_complaint", "said.box != box_hash(context, holder, delivered)"),
        ("twice", Exchange, "complain", "not ascending(about) or not dealers - {holder} >= set(about)"),
        ("about nobody", Exchange, "complain", "not ascending(about) or not dealers - {holder} >= set(about)"),
    ],
)  # fmt: skip
def test_complaints_that_are_none(
    how: str, owner: Any, function: str, condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends one is named, and is left out as if it had said nothing. With the check off it is taken, or breaks
    what comes next."""
    honest = about(0)
    lying(
        monkeypatch,
        "client-3",
        "_complain",
        lambda client, said: Complaints(forgery(client, honest(client, said).complaints[0], how)),
    )
    scene = Scene()
    assert scene.run(**{"client-4": "key"}).outcome.total.tolist() == scene.sum("client-3", "client-4")
    assert (scene.server.excluded, scene.server.liars) == (("client-3",), ("client-3",))
    switch_off(monkeypatch, owner, function, condition)
    scene = Scene()
    if how == "about nobody":
        with pytest.raises(KeyError):
            scene.run(**{"client-4": "key"})
    else:
        scene.run(**{"client-4": "key"})
    assert scene.server.liars == ()


def falsely(how: str) -> Callable[[Any, Defence], Defence]:
    def said(client: Any, defence: Defence) -> Defence:
        (one,) = defence.opened
        match how:
            case "another key":
                return Defence((replace(one, key=one.key[::-1]),))
            case "nothing":
                return Defence(())
            case _:  # for somebody who has not complained
                return Defence((replace(one, peer=4, key=client._pad_key(0, 4)),))

    return said


@pytest.mark.usefixtures("keeping_boxes")
@pytest.mark.parametrize(
    ("how", "condition"),
    [
        ("another key", "not opened(self._context, one.peer, [box], self._secrets, keys.__getitem__)"),
        ("nothing", "holders != sorted(self._complaints[dealer])"),
        ("for another", "holders != sorted(self._complaints[dealer])"),
    ],
)
def test_a_defence_that_is_none(how: str, condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """client-0 is named and has no part in the key. With the check off it has, although client-3 has no share of it."""
    lying(monkeypatch, "client-3", "_complain", about(0))
    lying(monkeypatch, "client-0", "_defend", falsely(how))
    scene = Scene()
    assert scene.run(**{"client-5": "decrypt"}).outcome.total.tolist() == scene.sum("client-0")
    assert (scene.server.excluded, scene.server.liars) == (("client-0",), ("client-0",))
    switch_off(monkeypatch, Exchange, "defend", condition)
    others = {"for another": ["client-4"]}.get(how, [])
    scene = Scene()
    assert scene.run().outcome.total.tolist() == scene.sum("client-3", *others)  # they cannot go on
    assert scene.server.liars == ()


def test_a_wrong_share_names_its_holder_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two liars among five the other three are not enough: the round ends, and names those two."""
    honest = ThresholdClient._recover

    def recover(self: Any) -> Recovery:
        if self.identity.name in ("client-2", "client-4"):
            limbs = unpack_shares(self._held[0][:36], 1)
            limbs[0, 0] ^= 1
            self._held[0] = pack_shares(limbs)
        return honest(self)

    monkeypatch.setattr(ThresholdClient, "_recover", recover)
    scene = Scene()
    with pytest.raises(ThresholdError) as caught:
        scene.run(**{"client-0": "decrypt"})
    assert caught.value.culprits == scene.server.liars == ("client-2", "client-4")
    switch_off(
        monkeypatch,
        ThresholdServer,
        "_take_shares",
        "self._exchange.check_shares(u, {revealed.peer: revealed.share for revealed in recovery.shares})",
    )
    scene = Scene()
    with pytest.raises(PeerError) as caught:
        scene.run(**{"client-0": "decrypt"})
    assert caught.value.culprits == ("client-0",)  # who has dealt honestly


# A server that alters, withholds or invents.


def seed_of(points: Mapping[int, bytes]) -> bytes | None:
    """client-0's, from what was opened of its boxes."""
    holders = sorted(points)[:4]
    shares = np.concatenate([unpack_shares(points[v][:36], 1) for v in holders])
    return reconstruct(np.array([holders]) + 1, shares[None])[0]


def damaging(envelope: Envelope, message: Any) -> Any:
    if isinstance(message, Delivery):
        return Delivery(
            tuple(replace(box, points=bytes(len(box.points))) if box.peer == 0 else box for box in message.boxes)
        )
    return message


def opened_with(scene: Scene, holder: int, key: bytes) -> bytes:
    """The box that client-0 dealt, under the key that it shows."""
    client = scene.current(0)
    box = client._dealing().delivered(holder)
    (points,) = dealing.opened(client._cohort, holder, [box], 1, lambda _: key).values()
    return points


def test_boxes_damaged_so_that_their_dealer_publishes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody complains, with right, and the server hands it all on. The dealer knows that the boxes are not its own.
    Controls: without the hash it opens as many as it puts up with; without that limit it opens its seed."""

    def opened() -> dict[int, bytes]:
        scene = Scene(change=damaging)
        frames = scene.phases(Phase.COMPLAIN)
        said = dict[int, Complaint]()
        for v in range(1, 6):
            altered = WIRE.encode(scene.plan, damaging(None, WIRE.decode(scene.plan, frames[f"client-{v}"])))  # type: ignore[arg-type]
            complaints: Any = WIRE.decode(scene.plan, scene.clients[f"client-{v}"].receive(altered))
            (one,) = complaints.complaints
            said[v] = replace(one, peer=v)
        scene.clients["client-0"].receive(frames["client-0"])
        accused = Accusations(tuple(said[v] for v in sorted(said)[:limit]))
        defence: Any = WIRE.decode(scene.plan, scene.clients["client-0"].receive(WIRE.encode(scene.plan, accused)))
        points.update({one.peer: opened_with(scene, one.peer, one.key) for one in defence.opened})
        return scene.current(0)._key_seed

    points, limit = dict[int, bytes](), 3
    with pytest.raises(PeerError, match="another box than was dealt"):
        opened()
    switch_off(monkeypatch, dealer, "check_complaint", "said.box != box_hash(context, holder, delivered)")
    limit = 4
    with pytest.raises(PolicyError, match="4 clients complain, boxes are opened for at most 3"):
        opened()
    assert points == {}
    limit = 3
    opened()
    assert sorted(points) == [1, 2, 3]
    limit = 5
    monkeypatch.setattr(client_module, "most_complaints", lambda *_: 5)
    assert opened() == seed_of(points)


def boxes_changed(make: Callable[[Delivery, int], Delivery]) -> Change:
    def change(envelope: Envelope, message: Any) -> Any:
        return make(message, int(envelope.receiver[-1])) if isinstance(message, Delivery) else message

    return change


DELIVERIES: dict[str, Change] = {
    "twice": boxes_changed(lambda message, u: Delivery((message.boxes[0], *message.boxes))),
    "out of order": boxes_changed(lambda message, u: Delivery(message.boxes[::-1])),
    "from nobody": boxes_changed(
        lambda message, u: Delivery((*message.boxes[:-1], replace(message.boxes[-1], peer=6)))
    ),
    "from oneself": boxes_changed(lambda message, u: Delivery((replace(message.boxes[0], peer=u),))),
}


@pytest.mark.parametrize("how", DELIVERIES)
def test_boxes_from_nobody_and_twice(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(change=DELIVERIES[how])
    scene.fails()
    assert scene.said(Complaints) == {}
    switch_off(
        monkeypatch, ThresholdClient, "_open", "not ascending(dealers) or not self._peers.keys() >= set(dealers)"
    )
    scene = Scene(change=DELIVERIES[how])
    try:
        scene.run()
    except (ThresholdError, KeyError):
        assert how in ("from nobody", "from oneself")
    else:
        assert scene.said(Complaints)


ACCUSED: dict[str, Callable[[Accusations], Accusations]] = {
    "nobody": lambda message: Accusations(()),
    "twice": lambda message: Accusations(message.complaints * 2),
    "by oneself": lambda message: Accusations((replace(message.complaints[0], peer=0),)),
    "by nobody": lambda message: Accusations((replace(message.complaints[0], peer=6),)),
    "by another": lambda message: Accusations((replace(message.complaints[0], peer=4),)),
}


@pytest.mark.usefixtures("keeping_boxes")
@pytest.mark.parametrize("how", ACCUSED)
def test_accusations_that_are_none(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """client-0 opens nothing. Controls: what stops each is switched off."""
    lying(monkeypatch, "client-3", "_complain", about(0))
    change = telling(Accusations, ACCUSED[how])
    scene = Scene(change=change)
    assert scene.run().outcome.total.tolist() == scene.sum("client-0")
    assert scene.said(Defence) == {}
    if how == "by another":
        monkeypatch.setattr(ThresholdClient, "_check_complaint", lambda *_: None)
    else:
        places = "not complaining or not ascending(complaining) or not self._peers.keys() >= set(complaining)"
        switch_off(monkeypatch, ThresholdClient, "_hear_complaints", places)
    scene = Scene(change=change)
    try:
        scene.run()
    except (IndexError, KeyError, ValueError):
        assert how in ("by oneself", "by nobody")
    else:
        assert set(scene.said(Defence)) == {"client-0"}


def test_a_box_opened_falsely_to_its_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server says that client-0 has opened is compared with the box. Control: client-1 keeps a wrong share,
    and is the one that is named for it."""
    padding_badly(monkeypatch, 1)

    def change(envelope: Envelope, message: Any) -> Any:
        if isinstance(message, JointKey) and message.opened:
            return replace(message, opened=(replace(message.opened[0], key=b"k" * 32),))
        return message

    scene = Scene(change=change)
    assert scene.run().outcome.total.tolist() == scene.sum("client-1")
    assert "client-1" not in scene.said(Upload)
    switch_off(monkeypatch, ThresholdClient, "_good_shares", OPENED, "{dealer: bytes(52) for dealer in answered}")
    scene = Scene(change=change)
    assert scene.run(**{"client-0": "decrypt"}).outcome.total.tolist() == scene.sum()
    assert scene.server.liars == ("client-1",)


def test_boxes_opened_of_whom_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    change = telling(JointKey, lambda message: replace(message, opened=(Opened(0, bytes(32)),)))
    scene = Scene(change=change)
    scene.fails()
    assert scene.said(Upload) == {}
    switch_off(monkeypatch, ThresholdClient, "_good_shares", "[one.peer for one in shown] != answered")
    scene = Scene(change=change)  # only the keys of doubted boxes are tried
    assert scene.run().outcome.total.tolist() == scene.sum()


def test_a_part_of_the_key_without_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """client-2 was given no box of client-0's: it does not encrypt under a key that may not be opened without it."""

    def change(envelope: Envelope, message: Any) -> Any:
        if isinstance(message, Delivery) and envelope.receiver == "client-2":
            return Delivery(message.boxes[1:])
        return message

    scene = Scene(change=change)
    assert scene.run().outcome.total.tolist() == scene.sum("client-2")
    assert "client-2" not in scene.said(Upload)
    condition = "not held.keys() >= dealers - {self._u}"
    switch_off(monkeypatch, ThresholdClient, "_good_shares", condition)
    with pytest.raises(KeyError):
        Scene(change=change).run()


def test_a_client_that_was_left_out_is_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has kept a share of its seed, nor signs that it may be rebuilt."""
    change = telling(Missing, lambda message: replace(message, missing=bitmap(0)))
    scene = Scene(change=change)
    scene.fails(**{"client-0": "complain"})
    assert scene.said(Recovery) == {}
    assert all(0 not in scene.current(u)._held for u in range(1, 6))
    switch_off(monkeypatch, ThresholdClient, "_good_shares", "sorted(dealers - {self._u})", "sorted(held)")
    switch_off(monkeypatch, ThresholdClient, "_hear_missing", "not missing <= self._members")
    scene = Scene(change=change)
    scene.fails(**{"client-0": "complain"})
    assert all(0 in scene.current(u)._held for u in range(1, 6))


def test_two_keys_for_two_halves() -> None:
    """With and without client-0's part: whoever was told another key than the server goes on with is not in the sum."""

    def change(envelope: Envelope, message: Any) -> Any:
        if isinstance(message, JointKey) and envelope.receiver in ("client-1", "client-2"):
            return replace(message, members=bitmap(1, 2, 3, 4, 5))
        return message

    scene = Scene(change=change)
    assert scene.run().outcome.total.tolist() == scene.sum("client-1", "client-2")
    assert from_bitmap(scene.said(JointKey)["client-1"].members, range(6)) == {1, 2, 3, 4, 5}


# Restarts.


def test_restarts_between_any_two_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With complaints in it: client-3 complains about two dealers, falsely about client-1, rightly about client-0,
    which defends itself and falls silent when its part of the key is needed. Each client is a new process for each
    message, and says the same to the same twice."""
    padding_badly(monkeypatch, 3)
    honest = ThresholdClient._open

    def opening(self: Any, message: Delivery) -> None:
        honest(self, message)
        if self.identity.name == "client-3":
            self._held.pop(1)
            self._doubted[1] = next(box for box in message.boxes if box.peer == 1)

    monkeypatch.setattr(ThresholdClient, "_open", opening)
    identities = [Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(6)]
    roster, by_name = Roster.of(identities), {identity.name: identity for identity in identities}
    plan = RoundPlan.propose(
        "threshold_ckks", roster, Encoding.integers(5), min_contributors=3, corrupt=0, dropout="0.3", session=bytes(16)
    )
    updates = {name: np.arange(5) + u for u, name in enumerate(by_name)}

    def restarted(name: str) -> Client:
        return Client(by_name[name], roster, policy=POLICY, journal=SqliteJournal(tmp_path / f"{name}.db"))

    server: Any = serve(plan, roster)
    frames = {name: restarted(name).start(plan, updates[name]) for name in by_name}
    phases = list[str]()
    while server.outcome is None:
        phases.append(str(server.phase))
        for name, frame in frames.items():
            if name != "client-0" or phases[-1] not in ("decrypt", "missing", "recover"):
                server.receive(name, frame)
        server.close(server.phase)
        frames = {}
        for name, frame in server.outbox():
            client = restarted(name)
            client.start(plan, updates[name])
            frames[name] = client.receive(frame)
            again = restarted(name)
            assert again.start(plan, updates[name]) == frames[name]
            assert again.receive(frame) == frames[name]
    assert phases == [str(phase) for phase in ThresholdServer.steps]
    assert server.disputes == (("client-3", "client-0"), ("client-3", "client-1"))
    assert server._missing == [0]
    assert server.outcome.total.tolist() == sum(updates.values()).tolist()


@pytest.mark.usefixtures("keeping_boxes")
def test_a_second_accusation_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dealer defends itself once: other complaints find it in another phase, before and after a restart."""
    scene = Scene()
    frames = scene.phases(Phase.COMPLAIN)
    said = dict[int, Complaint]()
    for v in (3, 4):
        scene.clients[f"client-{v}"].receive(frames[f"client-{v}"])
        client = scene.current(v)
        said[v] = replace(about(0)(client, Complaints(())).complaints[0], peer=v)
    scene.clients["client-0"].receive(frames["client-0"])
    first, second = (WIRE.encode(scene.plan, Accusations((said[v],))) for v in (3, 4))
    answer = scene.clients["client-0"].receive(first)
    for client in (scene.clients["client-0"], scene.restarted("client-0")):
        with pytest.raises(PeerError, match="does not belong in phase upload"):
            client.receive(second)
        assert client.receive(first) == answer
