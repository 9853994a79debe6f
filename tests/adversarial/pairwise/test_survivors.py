"""Lies about who survived: to different clients, signed by the wrong people, or by too few."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

from protocols.pairwise import client as client_module
from protocols.pairwise import cohort as rules
from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.messages import ConsistencySignatures
from protocols.policy import Policy
from protocols.rounds.phases import Phase
from secagg.crypto.merkle import Node
from secagg.errors import PeerError, PolicyError, ThresholdError
from tests.controls import switch_off
from tests.scenes.pairwise import BOTH, Evil, small

pytestmark = pytest.mark.thinned(4)

VICTIM = 2


def uploaded(protocol: str, **options: object) -> Evil:
    evil = small(protocol, **options)
    evil.advertise()
    evil.share()
    evil.upload()
    return evil


def signed_by(evil: Evil, who: Iterable[int], alive: Iterable[int]) -> dict[int, bytes]:
    return {u: evil.sign(u, alive) for u in who}


# (a) The same client alive to some, dead to others.


def halves(evil: Evil) -> set[int]:
    """Honest clients to whom the victim is called a dropout, so chosen that both halves have signers and shares."""
    draw, best = np.random.default_rng(0), (-1, set[int]())
    for _ in range(200):
        dead_to = {v for v in evil.honest if v != VICTIM and draw.random() < 0.5}
        sides = (dead_to | {*evil.corrupt}, set(evil.members) - dead_to)
        signers = [len(side & set(evil.holders(v))) for side in sides for v in side & set(evil.honest)]
        shares = [len(side & set(evil.holders(VICTIM))) for side in sides]
        best = max(best, (min(signers + shares), dead_to), key=lambda found: found[0])
    return best[1]


def both_shares(evil: Evil) -> list[int]:
    """Half the honest see the victim alive, half dead; the corrupt sign both; each half hears its own signatures."""
    evil.advertise()
    evil.share()
    evil.upload()
    dead_to = halves(evil)
    views = {u: [w for w in evil.members if w != VICTIM or u not in dead_to] for u in evil.honest}
    consents = {u: evil.consent(u, views[u]) for u in evil.honest}
    for v in evil.honest:
        friends = {u: consents[u] for u in evil.honest if (u in dead_to) == (v in dead_to)}
        evil.reveal(v, friends | signed_by(evil, evil.corrupt, views[v]))
    return evil.sum_of([VICTIM])


@BOTH
def test_alive_and_dead_at_once(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """t is so high that not both halves have enough signatures. With a t that the client's own calculation refuses,
    they have, and the server gets both kinds of share."""
    with pytest.raises(ThresholdError, match="neighbours signed"):
        both_shares(small(protocol))
    weak = {
        "parameters": replace(small(protocol).plan.parameters, threshold=4),
        "policy": Policy(min_contributors=2, corrupt="0.3", dropout=0, security=1),
    }
    with pytest.raises(PolicyError, match="threshold 4 is too low"):
        both_shares(small(protocol, **weak))
    monkeypatch.setattr(rules, "check_private", lambda *_: None)
    evil = small(protocol, **weak)
    assert both_shares(evil) == evil.plain([VICTIM])


@BOTH
def test_alive_and_dead_to_the_same_client(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one set of survivors a client hears no other: neither a second consent nor the other kind of share."""

    def both_kinds(evil: Evil) -> None:
        holder = next(v for v in evil.others(VICTIM) if v in evil.honest)
        for alive in (evil.members, [u for u in evil.members if u != VICTIM]):
            evil.consent(holder, alive)
            evil.reveal(holder, signed_by(evil, [u for u in evil.holders(holder) if u in alive], alive))
        assert evil.self_shares[VICTIM][holder]
        assert evil.key_shares[VICTIM][holder]

    with pytest.raises(PeerError, match="Survivors does not belong in phase done"):
        both_kinds(uploaded(protocol))
    again = PairwiseClient.steps[Phase.REVEAL]._replace(then=Phase.CONSISTENCY)
    monkeypatch.setattr(PairwiseClient, "steps", {**PairwiseClient.steps, Phase.REVEAL: again})
    both_kinds(uploaded(protocol))


@BOTH
def test_two_consents(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def two_signatures(evil: Evil) -> None:
        first = evil.consent(VICTIM, evil.members)
        assert first != evil.consent(VICTIM, [u for u in evil.members if u != evil.others(VICTIM)[0]])

    with pytest.raises(PeerError, match="Survivors does not belong in phase reveal"):
        two_signatures(uploaded(protocol))
    again = PairwiseClient.steps[Phase.CONSISTENCY]._replace(then=Phase.CONSISTENCY)
    monkeypatch.setattr(PairwiseClient, "steps", {**PairwiseClient.steps, Phase.CONSISTENCY: again})
    two_signatures(uploaded(protocol))


@BOTH
def test_unmask_twice(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other signatures on the same set: the client has spoken."""

    def twice(evil: Evil) -> None:
        consents = {u: evil.consent(u, evil.members) for u in evil.members}
        own = list(evil.holders(VICTIM))
        evil.reveal(VICTIM, {u: consents[u] for u in own[: evil.t]})
        evil.reveal(VICTIM, {u: consents[u] for u in own[-evil.t :]})

    with pytest.raises(PeerError, match="ConsistencySignatures does not belong in phase done"):
        twice(uploaded(protocol))
    again = PairwiseClient.steps[Phase.REVEAL]._replace(then=Phase.REVEAL)
    monkeypatch.setattr(PairwiseClient, "steps", {**PairwiseClient.steps, Phase.REVEAL: again})
    twice(uploaded(protocol))


# (b) A different list for each client.


def everybody_alone(evil: Evil, liars: list[int]) -> None:
    """Each client is told that its neighbours (secagg: as many as may be lost) are dead, all but those in a group;
    the ``liars`` sign whatever is needed. The sum of the group is had, and it is too small."""
    evil.advertise()
    evil.share()
    evil.upload()
    group = evil.honest[:4] if protocol_is_complete(evil) else [VICTIM]
    doomed = {w for w in evil.honest if w not in group and any(w in evil.others(u) for u in group)}
    views = {u: [w for w in evil.members if w == u or w not in doomed] for u in evil.honest}
    own = {u: evil.consent(u, views[u]) for u in evil.honest}
    for u in evil.honest:
        evil.reveal(u, {u: own[u]} | signed_by(evil, liars, views[u]))
    assert len(group) < evil.t
    assert evil.sum_of(group) == evil.plain(group)


def protocol_is_complete(evil: Evil) -> bool:
    return evil.plan.protocol == "secagg"


@BOTH
def test_a_different_list_for_each_client(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With only its own and the corrupt signatures on its list, no client reveals."""
    with pytest.raises(ThresholdError, match=r"neighbours signed the survivors, at least \d are needed"):
        everybody_alone(evil := small(protocol), evil.corrupt)
    switch_off(monkeypatch, PairwiseClient, "_check_signatures", "len(own) < self._t")
    everybody_alone(evil := small(protocol), evil.corrupt)


def test_lists_signed_by_corrupt_strangers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members of the cohort, survivors, at least t of them, but nobody's neighbours. (On the complete graph there are
    no strangers.)"""

    def crowd() -> Evil:
        return small("secagg+", clients=40, corrupt=range(28, 40))

    evil = crowd()
    with pytest.raises(ThresholdError, match=r"neighbours signed the survivors, at least 6 are needed"):
        everybody_alone(evil, evil.corrupt)
    switch_off(monkeypatch, PairwiseClient, "_check_signatures", "len(own) < self._t", "len(signers) < self._t")
    evil = crowd()
    everybody_alone(evil, evil.corrupt)


@BOTH
def test_forged_signatures(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server signs in the neighbours' names."""

    def forge(evil: Evil) -> None:
        evil.consent(VICTIM, evil.members)
        own = list(evil.holders(VICTIM))
        evil.reveal(VICTIM, dict.fromkeys(own, evil.sign(evil.corrupt[0], evil.members)))
        assert evil.self_shares

    with pytest.raises(PeerError, match="bad signature"):
        forge(uploaded(protocol))
    monkeypatch.setattr(client_module, "check_consistency", lambda *_: None)
    forge(uploaded(protocol))


@BOTH
def test_one_signer_counted_twice(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To reach min_contributors."""

    def repeat(evil: Evil) -> None:
        evil.consent(VICTIM, evil.members)
        signed = evil.consents(VICTIM, signed_by(evil, evil.holders(VICTIM)[: evil.t], evil.members)).signatures
        more = (signed[-1],) * (evil.plan.min_contributors - len(signed))
        evil.keep_shares(VICTIM, evil.tell(VICTIM, ConsistencySignatures((*signed, *more), (), ())))

    with pytest.raises(PeerError, match="out of order, repeated, or not among the survivors"):
        repeat(uploaded(protocol, min_contributors=9))
    switch_off(monkeypatch, PairwiseClient, "_check_signatures", "not ascending(signers)")
    repeat(uploaded(protocol, min_contributors=9))


@BOTH
def test_the_signature_of_a_client_called_dead(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that uploaded signs no list without itself; a corrupt one would, to help to reach min_contributors."""

    def from_the_dead(evil: Evil) -> None:
        dead = next(u for u in evil.others(VICTIM) if u in evil.corrupt)
        alive = [u for u in evil.members if u != dead]
        evil.consent(VICTIM, alive)
        own = [u for u in evil.holders(VICTIM) if u != dead]
        more = [u for u in alive if u not in own][: evil.plan.min_contributors - len(own) - 1]
        signers = [*own, *more, dead][-evil.plan.min_contributors :]
        evil.reveal(VICTIM, signed_by(evil, signers, alive))

    with pytest.raises(PeerError, match="out of order, repeated, or not among the survivors"):
        from_the_dead(uploaded(protocol, min_contributors=9))
    switch_off(monkeypatch, PairwiseClient, "_check_signatures", "not survivors >= set(signers)")
    from_the_dead(uploaded(protocol, min_contributors=9))


@BOTH
def test_called_dead_oneself(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signature would let its neighbours reveal its mask key while the server has its vector."""

    def sign_own_death(evil: Evil) -> None:
        evil.consent(VICTIM, [u for u in evil.members if u != VICTIM])

    with pytest.raises(PeerError, match="this client uploaded and is called a dropout"):
        sign_own_death(uploaded(protocol))
    switch_off(monkeypatch, PairwiseClient, "_survivors_in", "own not in survivors")
    sign_own_death(uploaded(protocol))


# Too few.


@BOTH
def test_fewer_survivors_than_min_contributors(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def few(evil: Evil) -> None:
        close = [VICTIM, *evil.others(VICTIM)][: evil.t + 1]
        evil.consent(VICTIM, close)

    with pytest.raises(ThresholdError, match="survivors, at least 9 are needed"):
        few(uploaded(protocol, min_contributors=9))
    switch_off(monkeypatch, PairwiseClient, "_survivors_in", "len(survivors) < least")
    few(uploaded(protocol, min_contributors=9))


def few_really_there(evil: Evil, present: list[int], extra: Callable[[int], ConsistencySignatures | None]) -> None:
    """Some clients share and upload, all are called survivors. Neighbours miss the header of an upload, and shares; and
    who did not upload cannot sign."""
    consents = {u: evil.consent(u, evil.members) for u in present}
    for u in present:
        message = extra(u) or evil.consents(u, consents)
        evil.keep_shares(u, evil.tell(u, message))
    assert evil.sum_of(present) == evil.plain(present)
    assert len(present) < evil.plan.min_contributors


def uploaded_by(evil: Evil, present: list[int]) -> Evil:
    evil.share(present)
    evil.upload(present)
    return evil


def test_survivors_that_never_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def claim() -> None:
        evil = small("secagg", corrupt=(), min_contributors=9)
        evil.advertise()
        present = evil.members[: evil.t]
        few_really_there(uploaded_by(evil, present), present, lambda u: None)

    with pytest.raises(PeerError, match="shares were not to be kept here"):
        claim()
    switch_off(monkeypatch, PairwiseClient, "_hear_survivors", "not self._held.keys() >= set(alive)")
    with pytest.raises(PeerError, match="upload headers that are not those of the surviving neighbours"):
        claim()
    believe_in_uploads(monkeypatch)
    with pytest.raises(ThresholdError, match="7 clients signed the survivors, at least 9 are needed"):
        claim()
    switch_off(monkeypatch, PairwiseClient, "_check_signatures", "len(signers) < least")
    claim()


def believe_in_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours are called survivors, and no header shows it."""
    switch_off(
        monkeypatch, PairwiseClient, "_hear_survivors", "[header.position for header in message.headers] != alive"
    )


def test_contributors_from_outside_the_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outsider, in the roster but not in the cohort, signs in the place of a client that never uploaded, and is
    shown as the member there. Two such places, so that for each client one of them is a stranger's."""

    def claim(believed: bool) -> None:
        evil = small("secagg+", clients=30, corrupt=(), min_contributors=29, outsiders=1)
        evil.advertise()
        ring = evil.cohort._graph._order.tolist()
        absent = [ring[0], ring[15]]
        present = [u for u in evil.members if u not in absent]
        uploaded_by(evil, present)
        outsider = evil.outsiders[0]
        signatures = {u: evil.sign(u, evil.members) for u in present}
        lie = Node(outsider, outsider, bytes(32))

        def extra(v: int) -> ConsistencySignatures:
            place = next(w for w in absent if w not in evil.holders(v))
            true = evil.nodes[place]
            evil.nodes[place] = lie
            try:
                return evil.consents(v, signatures | {place: evil.sign(outsider, evil.members)})
            finally:
                evil.nodes[place] = true

        if believed:
            monkeypatch.setattr(client_module, "check_inclusion", lambda *_: None)
        few_really_there(evil, present, extra)

    with pytest.raises(PeerError, match="shares were not to be kept here"):
        claim(believed=False)
    switch_off(monkeypatch, PairwiseClient, "_hear_survivors", "not self._held.keys() >= set(alive)")
    believe_in_uploads(monkeypatch)
    with pytest.raises(PeerError, match=r"not under the root|out of order"):
        claim(believed=False)
    claim(believed=True)


@BOTH
def test_strangers_without_proof(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each stranger a leaf, and for nobody else."""
    evil = uploaded(protocol)
    signatures = {u: evil.consent(u, evil.members) for u in evil.members}
    good = evil.consents(VICTIM, signatures)
    wrong = replace(good, others=(*good.others, evil.nodes[0]))
    with pytest.raises(PeerError, match="signers of whom it is not shown that they are in the cohort"):
        evil.tell(VICTIM, wrong)
    evil.tell(VICTIM, good)
    switch_off(monkeypatch, PairwiseClient, "_check_signatures", "len(strangers) != len(message.others)")
    evil = uploaded(protocol)
    evil.consent(VICTIM, evil.members)
    if protocol == "secagg":
        evil.tell(VICTIM, wrong)
    else:
        with pytest.raises(ValueError, match="longer"):
            evil.tell(VICTIM, wrong)
