"""Lies about who is there: false keys, false clients, false places, neighbours of the server's choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from protocols.pairwise import client as client_module
from protocols.pairwise import cohort as rules
from protocols.pairwise.cohort import Cohort
from protocols.pairwise.messages import Advert
from protocols.policy import Policy
from secagg.assumptions import Adversary
from secagg.crypto import labels, merkle
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.keys import verify
from secagg.crypto.merkle import Node
from secagg.errors import PeerError, PolicyError, UsageError
from tests.controls import switch_off
from tests.scenes.pairwise import BOTH, LENGTH, Evil, Puppet, make, small

pytestmark = pytest.mark.thinned(4)

VICTIM = 2
LOW_ORDER = (1).to_bytes(32, "little")


def rob(evil: Evil, u: int) -> list[int]:
    """Introduce u, open what it deals to the corrupt, have it upload over boxes from them alone, and unmask."""
    evil.share([u])
    corrupt = [v for v in evil.others(u) if evil.puppet(v) is not None]
    evil.deal_falsely(u, corrupt)
    evil.upload([u])
    return evil.sum_of([u])


def impostors(evil: Evil) -> None:
    """The server has keys of its own for everybody but the victim, under the names of the honest."""
    evil.advertise()
    for v in evil.honest:
        if v != VICTIM:
            stolen = Puppet(evil.plan, evil.roster, evil.identities[evil.name(v)], evil.values[v], bytes([v]) * 32)
            evil.puppets[v] = stolen
            evil.adverts[v] = replace(stolen.round.opening(), signature=bytes(64))  # it cannot sign for them
    evil.found([evil.adverts[v] for v in evil.members])


@BOTH
def test_false_keys_for_the_neighbours(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    impostors(evil := small(protocol))
    with pytest.raises(PeerError, match="bad signature"):
        rob(evil, VICTIM)

    def unsigned_adverts(public: bytes, signature: bytes, label: bytes, *parts: bytes, culprit: str = "") -> None:
        if label != labels.ADVERT:
            verify(public, signature, label, *parts, culprit=culprit)

    monkeypatch.setattr(client_module, "verify", unsigned_adverts)
    impostors(evil := small(protocol))
    assert rob(evil, VICTIM) == evil.plain([VICTIM])


@BOTH
@pytest.mark.parametrize("field", ["mask_key", "seal_key", "commitment"])
def test_one_false_field(protocol: str, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part of an advert is under its signature."""

    def substitute(evil: Evil) -> None:
        evil.advertise()
        evil.found([evil.adverts[v] for v in evil.members])
        v = next(v for v in evil.others(VICTIM) if v in evil.honest)
        for attempt in range(200):  # until the changed root still makes them neighbours
            false = replace(evil.adverts[v], **{field: bytes([attempt]) + bytes(30) + b"\1"})
            evil.found([false if w == v else evil.adverts[w] for w in evil.members])
            if v in evil.others(VICTIM):
                break
        evil.share([VICTIM])

    with pytest.raises(PeerError, match=r"bad signature \[client-"):
        substitute(small(protocol))
    monkeypatch.setattr(client_module, "check_advert", lambda *_: None)
    substitute(small(protocol))


@BOTH
def test_a_neighbour_with_a_key_of_low_order(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen in time it costs nothing; taken, it breaks the client at the moment of masking, and the round with it."""

    def poison(evil: Evil) -> None:
        puppet = evil.puppets[evil.corrupt[0]].round
        evil.advertise()
        keys = (LOW_ORDER, puppet._seal_key.public, evil.adverts[evil.corrupt[0]].commitment)
        number = evil.corrupt[0]
        signed = (evil.plan.digest(), number.to_bytes(4, "big"), *keys)
        signature = puppet.identity.key.sign(labels.ADVERT, *signed)
        evil.adverts[number] = Advert(number, *keys, signature)
        evil.found([evil.adverts[v] for v in evil.members])
        victim = next(v for v in evil.others(number) if v in evil.honest)
        evil.share([victim])
        evil.share([v for v in evil.others(victim) if v in evil.honest])
        dealt = evil.boxes[victim]
        evil.deal_falsely(victim, [v for v in evil.others(victim) if v in evil.corrupt])
        evil.boxes[victim] |= dealt
        with pytest.raises(PeerError, match="unusable X25519 public key"):
            evil.upload([victim])
        with pytest.raises(UsageError, match="no round is under way"):
            evil.upload([victim])

    with pytest.raises(PeerError, match=r"unusable X25519 public key \[client-"):
        poison(small(protocol))
    monkeypatch.setattr(client_module, "check_agreement_key", lambda *_, **__: None)
    poison(small(protocol))


# Places under the root.


def crowded(evil: Evil) -> int:
    """One corrupt client at every place after the victim's, the real ones before it."""
    for u in evil.members:
        evil.adverts[u] = evil.start(u)
    liar = evil.corrupt[-1]
    evil.found([evil.adverts[v if v <= VICTIM else liar] for v in evil.members])
    return liar


@BOTH
def test_one_client_at_many_places(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the copies are seen. That they cannot hide from each client is the matter of test_sybil."""
    crowded(evil := small(protocol))
    with pytest.raises(PeerError, match="leaves out of order, or one of them twice"):
        rob(evil, VICTIM)
    switch_off(monkeypatch, merkle, "_join", "not left.low <= left.high < right.low <= right.high")
    crowded(evil := small(protocol))
    assert rob(evil, VICTIM) == evil.plain([VICTIM])


@BOTH
def test_a_client_that_is_not_in_the_roster(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by name; without the check the lookup of its key fails, an error that nobody declared."""

    def stranger(evil: Evil) -> None:
        evil.advertise()
        last = evil.members[-1]
        evil.found([*evil.leaves[:-1], replace(evil.adverts[last], client=10**6)])
        evil.share([next(u for u in evil.honest if last in evil.others(u))])

    with pytest.raises(PeerError, match="client number 1000000 is not in the roster"):
        stranger(small(protocol))
    monkeypatch.setattr(client_module, "known_client", lambda *_: None)
    with pytest.raises(IndexError):
        stranger(small(protocol))


def grind_root(evil: Evil, u: int) -> bytes:
    """A root out of thin air under which u's neighbours are the corrupt (as far as there are so many)."""
    for attempt in range(100_000):
        root = attempt.to_bytes(32, "big")
        others = Cohort(evil.plan, root, len(evil.leaves)).holders(u)
        if set(others) <= set(evil.corrupt):
            return root
    raise LookupError("no such root")


def test_a_root_that_is_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the adverts need not be under it, the server chooses a root that makes a neighbourhood of its friends."""

    def invented(evil: Evil) -> list[int]:
        evil.advertise()
        evil.cohort = Cohort(evil.plan, grind_root(evil, VICTIM), len(evil.leaves))
        message = replace(evil.introduction(VICTIM), root=evil.cohort.root)
        evil.keep_boxes(VICTIM, evil.tell(VICTIM, message))
        evil.deal_falsely(VICTIM, evil.others(VICTIM))
        evil.upload([VICTIM])
        return evil.sum_of([VICTIM])

    scene = {"clients": 14, "corrupt": range(6, 14), "parameters": GraphParameters(Graph.RING, 4, 4)}
    with pytest.raises(PeerError, match="the leaves are not under the root"):
        invented(make("secagg+", **scene))
    monkeypatch.setattr(client_module, "check_inclusion", lambda *_: None)
    assert invented(evil := make("secagg+", **scene)) == evil.plain([VICTIM])


def test_neighbours_of_the_servers_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The right root and good proofs, but of corrupt clients elsewhere on the ring."""

    def chosen(evil: Evil) -> list[int]:
        evil.advertise()
        real = Cohort.holders
        with pytest.MonkeyPatch.context() as servers_view:
            servers_view.setattr(
                evil.cohort, "holders", lambda u: friends(evil) if u == VICTIM else real(evil.cohort, u)
            )
            return rob(evil, VICTIM)

    def friends(evil: Evil) -> tuple[int, ...]:
        return tuple(evil.corrupt)[: evil.plan.parameters.degree]

    scene = {"clients": 14, "corrupt": range(6, 14), "parameters": GraphParameters(Graph.RING, 4, 4)}
    with pytest.raises(PeerError, match="not the neighbours that the cohort's hash demands"):
        chosen(make("secagg+", **scene))
    monkeypatch.setattr(Cohort, "holders", lambda cohort, u: friends(make("secagg+", **scene)))
    assert chosen(evil := make("secagg+", **scene)) == evil.plain([VICTIM])


WRONG = {
    "root": lambda m: replace(m, root=bytes(32)),
    "size": lambda m: replace(m, size=m.size - 2),
    "place": lambda m: replace(m, position=m.position + 1 if m.neighbours[0].position else m.position - 1),
    "proof too short": lambda m: replace(m, proof=m.proof[:-1]),
    "proof too long": lambda m: replace(m, proof=(*m.proof, Node(0, 0, bytes(32)))),
    "a neighbour's place": lambda m: replace(
        m, neighbours=(replace(m.neighbours[0], position=10**6), *m.neighbours[1:])
    ),
    "a neighbour's advert": lambda m: replace(
        m, neighbours=(replace(m.neighbours[0], advert=m.neighbours[1].advert), *m.neighbours[1:])
    ),
}


@pytest.mark.parametrize(
    ("protocol", "what"),
    # On the complete graph everybody is shown, and there is no proof to shorten.
    [(p, what) for p in ("secagg", "secagg+") for what in WRONG if (p, what) != ("secagg", "proof too short")],
)
def test_wrong_introductions(protocol: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, and the right one is then accepted."""
    evil = small(protocol, seed=1)  # with some seeds a wrong size gives the same neighbours
    evil.advertise()
    good = evil.introduction(VICTIM)
    wrong = WRONG[what](good)
    with pytest.raises(
        PeerError, match=r"not under the root|own place|no tree of this size|ends too early|out of order"
    ):
        evil.tell(VICTIM, wrong)
    evil.tell(VICTIM, good)

    monkeypatch.setattr(client_module, "check_inclusion", lambda *_: None)
    evil = small(protocol, seed=1)
    evil.advertise()
    if what.startswith("proof") or what == "a neighbour's advert" or (protocol, what) == ("secagg", "root"):
        evil.tell(VICTIM, wrong)
    else:  # a second check happens to speak
        with pytest.raises(PeerError, match=r"own place|not the neighbours|bad signature"):
            evil.tell(VICTIM, wrong)


def shrunk() -> tuple[Evil, int]:
    """Of 40 clients 12 are let in, the 8 corrupt among them; and one who has t of these as neighbours."""
    policy = Policy(min_contributors=12, corrupt="0.2", dropout=0, adversary=Adversary.CURIOUS, security=1)
    parameters = GraphParameters(Graph.RING, 8, 6)
    evil = make("secagg+", clients=40, corrupt=range(32, 40), parameters=parameters, min_contributors=12, policy=policy)
    evil.advertise()
    evil.found([evil.adverts[v] for v in (*range(4), *range(32, 40))])
    return evil, next(u for u in range(4) if sum(v >= 4 for v in evil.others(u)) >= evil.t)


def test_the_honest_are_kept_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """(k, t) were good for the planned clients; among those that the server lets in, the corrupt weigh more."""
    evil, u = shrunk()
    with pytest.raises(PolicyError, match="threshold 6 is too low for 8 neighbours among 12 clients"):
        rob(evil, u)
    monkeypatch.setattr(client_module, "check_cohort", lambda *_: None)
    evil, u = shrunk()
    assert rob(evil, u) == evil.plain([u])


@BOTH
def test_fewer_advertised_than_min_contributors(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def few(evil: Evil) -> None:
        evil.advertise()
        evil.found([evil.adverts[v] for v in evil.members[:8]])
        evil.share([VICTIM])

    with pytest.raises(PolicyError, match="8 clients advertised, the plan allows 9 to"):
        few(small(protocol, min_contributors=9))
    condition = "not plan.min_contributors <= size <= plan.clients"
    switch_off(monkeypatch, rules, "check_cohort", condition)
    monkeypatch.setattr(client_module, "check_cohort", rules.check_cohort)
    few(small(protocol, min_contributors=9))


def test_more_advertised_than_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring's width and (k, t) are for the planned number; one more could make the sum wrap."""

    def many(evil: Evil) -> None:
        evil.advertise()
        extra = Puppet(evil.plan, evil.roster, evil.identities[evil.name(10)], np.zeros(LENGTH, np.int64), bytes(32))
        evil.found([*evil.leaves, extra.round.opening()])
        evil.share([VICTIM])

    with pytest.raises(PolicyError, match="11 clients advertised, the plan allows 2 to 10"):
        many(small("secagg", outsiders=1))
    condition = "not plan.min_contributors <= size <= plan.clients"
    switch_off(monkeypatch, rules, "check_cohort", condition)
    monkeypatch.setattr(client_module, "check_cohort", rules.check_cohort)
    many(small("secagg", outsiders=1))
