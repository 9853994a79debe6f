"""A server that uses complaints and verdicts against honest clients: to have shares opened, or kept that are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.cohort import Cohort
from protocols.pairwise.messages import MASK_KEY, Verdict
from protocols.rounds import dealer as dealer_module
from protocols.rounds import dealing as dealing_module
from protocols.rounds.dealing import Accusations, Complaint, Opened, complaint, share_of
from protocols.rounds.sets import to_bitmap
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.errors import PeerError, PolicyError
from tests.controls import switch_off
from tests.scenes.pairwise import BOTH, Evil, members_of, small, wary

pytestmark = pytest.mark.thinned(4)

VICTIM = 2
TOO_MANY = "len(complaining) > (most := self._most_complaints())"
ANOTHER_BOX = "said.box != box_hash(context, holder, delivered)"
NOT_OPENED = "[one.peer for one in shown] != answered"
NOT_HELD = "not held.keys() >= dealers - {self._u}"


def dealt(protocol: str, who: list[int] | None = None, **options: Any) -> Evil:
    """Everybody has dealt shares, or ``who``."""
    evil = small(protocol, **{"policy": wary(protocol)} | options)
    evil.advertise()
    evil.share(who)
    return evil


def keys(evil: Evil, v: int) -> Any:
    return evil.identities[evil.name(evil.leaves[v].client)].key


def stolen(evil: Evil) -> bool:
    """Whether the loot gives both secrets of the victim."""
    mask_key, self_secret = evil.mask_key(VICTIM), evil.self_secret(VICTIM)
    commitment = digest(labels.SELF_COMMITMENT, self_secret)
    return (mask_key.public, commitment) == (evil.adverts[VICTIM].mask_key, evil.adverts[VICTIM].commitment)


# Shares that are opened.


def damage(evil: Evil, holders: list[int]) -> None:
    """Honest holders get the victim's boxes altered, and complain about them; the server passes that on."""
    for v in holders:
        box = evil.boxes[v][VICTIM]
        evil.boxes[v][VICTIM] = replace(box, response=bytes(len(box.response)))
    evil.complain(holders)
    assert len(evil.accusations(VICTIM).complaints) == len(holders)
    evil.accuse(VICTIM, evil.accusations(VICTIM))


@BOTH
def test_boxes_damaged_to_have_shares_opened(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What honest holders complain about is not what the victim has made; so it opens nothing, however few they are.
    Were it to open whatever is complained about, the server would have both of its secrets."""
    evil = dealt(protocol)
    honest = [v for v in evil.others(VICTIM) if v in evil.honest]
    for few in (honest[:1], honest[:3]):
        with pytest.raises(PeerError, match="a complaint about another box than was dealt"):
            damage(evil := dealt(protocol), few)
        assert not evil.defences

    switch_off(monkeypatch, dealer_module, "check_complaint", ANOTHER_BOX)
    evil = dealt(protocol)
    with pytest.raises(PolicyError, match="clients complain, boxes are opened for at most 3"):
        damage(evil, honest)
    switch_off(monkeypatch, PairwiseClient, "_hear_complaints", TOO_MANY)
    damage(evil := dealt(protocol), honest)
    assert stolen(evil)


@BOTH
def test_more_complaints_than_liars_are_feared(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good ones, of clients that the server has in its hand, and more of these than the victim's policy knows of:
    nothing is opened. As many as it knows of are answered, with what their holders had before."""
    evil = dealt(protocol)
    liars = evil.others(VICTIM)[: 3 + 1]
    said = [evil.false_complaint(v, VICTIM) for v in liars]
    with pytest.raises(PolicyError, match="4 clients complain, boxes are opened for at most 3"):
        evil.accuse(VICTIM, Accusations(tuple(said)))
    assert not evil.defences
    defence = evil.accuse(VICTIM, Accusations(tuple(said[:3])))
    points = evil.clients[VICTIM]._round._dealing().points
    assert [one.peer for one in defence.opened] == liars[:3]
    assert all(evil.key_shares[VICTIM][v] == share_of(points[v], MASK_KEY) for v in liars[:3])
    with pytest.raises(PeerError, match="Accusations does not belong in phase upload"):  # once
        evil.accuse(VICTIM, Accusations(tuple(said[3:])))

    switch_off(monkeypatch, PairwiseClient, "_hear_complaints", TOO_MANY)
    everybody = evil.others(VICTIM)
    evil = dealt(protocol)
    evil.accuse(VICTIM, Accusations(tuple(evil.false_complaint(v, VICTIM) for v in everybody)))
    assert stolen(evil)


@BOTH
def test_what_is_opened_for_the_corrupt_they_had(protocol: str) -> None:
    evil = dealt(protocol, corrupt=range(4, 10) if protocol == "secagg" else range(6, 16))
    liars = [v for v in evil.others(VICTIM) if v in evil.corrupt][:3]
    before = [dict(evil.key_shares[VICTIM]), dict(evil.self_shares[VICTIM])]
    evil.accuse(VICTIM, Accusations(tuple(evil.false_complaint(v, VICTIM) for v in liars)))
    assert [evil.key_shares[VICTIM], evil.self_shares[VICTIM]] == before


# Complaints from elsewhere.


def elsewhere(evil: Evil, what: str) -> tuple[Complaint, int]:
    """A complaint that was signed in another context, and whose it is said to be."""
    liar, other = evil.others(VICTIM)[:2]
    box, cohort, holder = evil.boxes[liar][VICTIM], evil.cohort, liar
    if what == "round":
        cohort = Cohort(replace(evil.plan, round=1), cohort.root, cohort.size)
    elif what == "plan":
        cohort = Cohort(replace(evil.plan, model=b"another model".ljust(32)), cohort.root, cohort.size)
    elif what == "cohort":
        cohort = Cohort(evil.plan, bytes(32), cohort.size)
    elif what == "dealer":
        box = replace(box, peer=other)
    else:
        holder = other
    return replace(complaint(keys(evil, liar), cohort, holder, box), peer=liar), liar


@BOTH
@pytest.mark.parametrize("what", ["round", "plan", "cohort", "dealer", "holder"])
def test_complaints_from_elsewhere(protocol: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan, cohort, dealer and holder are signed, and are in the hash of the box."""

    def replay() -> Evil:
        evil = dealt(protocol, [VICTIM])
        said, _ = elsewhere(evil, what)
        evil.accuse(VICTIM, Accusations((said,)))
        return evil

    with pytest.raises(PeerError, match="bad signature"):
        replay()
    monkeypatch.setattr(Cohort, "bound", lambda cohort, *positions: (u32.encode(len(positions)),))
    assert replay().defences


@BOTH
@pytest.mark.parametrize("how", ["not signed", "signed by another", "nobody", "twice", "out of order", "a stranger"])
def test_complaints_of_nobody(protocol: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def accused() -> Evil:
        evil = dealt(protocol, [VICTIM])
        liars = evil.others(VICTIM)[:2]
        first, second = (evil.false_complaint(v, VICTIM) for v in liars)
        said = {
            "not signed": (replace(first, signature=bytes(64)),),
            "signed by another": (replace(first, signature=second.signature),),
            "nobody": (),
            "twice": (first, first),
            "out of order": (second, first),
            "a stranger": (replace(first, peer=10**6),),
        }[how]
        evil.accuse(VICTIM, Accusations(said))
        return evil

    with pytest.raises(
        PeerError, match=r"bad signature|complaints of others than those who hold shares, or twice of one"
    ):
        accused()
    if how.endswith(("signed", "another")):
        monkeypatch.setattr(dealing_module, "verify", lambda *_: None)
    else:
        whole = "not complaining or not ascending(complaining) or not self._peers.keys() >= set(complaining)"
        switch_off(monkeypatch, PairwiseClient, "_hear_complaints", whole)
    if how == "a stranger":
        with pytest.raises(KeyError):
            accused()
    else:
        assert accused().defences


# Verdicts.


def doubting(protocol: str) -> tuple[Evil, int]:
    """The victim has complained about one box, which the server had altered; (scene, its dealer)"""
    evil = dealt(protocol)
    dealer = evil.others(VICTIM)[0]
    box = evil.boxes[VICTIM][dealer]
    evil.boxes[VICTIM][dealer] = replace(box, points=bytes(len(box.points)))
    evil.complain([VICTIM])
    assert [one.peer for one in evil.complaints[VICTIM].complaints] == [dealer]
    return evil, dealer


def verdict(evil: Evil, *opened: Opened) -> Verdict:
    return replace(evil.verdict(VICTIM), opened=opened)


@BOTH
def test_a_verdict_with_a_complaint_that_was_not_answered(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client would mask with a dealer of whom it has no share. (Without any of the checks it stumbles.)"""
    evil, dealer = doubting(protocol)
    with pytest.raises(PeerError, match="boxes opened of others than of those whom this client complained about"):
        evil.tell(VICTIM, verdict(evil))
    evil.tell(VICTIM, evil.verdict(VICTIM, evil.boxes[VICTIM].keys() - {dealer}))  # the right one is still welcome
    assert dealer not in evil.clients[VICTIM]._round._held

    switch_off(monkeypatch, PairwiseClient, "_good_shares", NOT_OPENED)
    evil, _ = doubting(protocol)
    with pytest.raises(KeyError):
        evil.tell(VICTIM, verdict(evil))


@BOTH
def test_a_box_opened_falsely(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an altered box nothing can be opened but what its commitments say: here the true points fit neither. Believed,
    it is held, and revealed one day."""
    evil, dealer = doubting(protocol)
    with pytest.raises(PeerError, match="shares to be kept that are not good"):
        evil.tell(VICTIM, verdict(evil, Opened(dealer, bytes(32))))
    evil, dealer = doubting(protocol)
    monkeypatch.setattr(dealing_module, "fit", lambda context, holder, boxes, found, secrets: [True] * len(boxes))
    evil.tell(VICTIM, verdict(evil, Opened(dealer, bytes(32))))
    assert dealer in evil.clients[VICTIM]._round._held


@BOTH
def test_a_box_opened_of_whom_nobody_complained(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is the one that there is to it. Were it longer, it would not replace a share that is good."""

    def exchanged() -> tuple[bytes, Evil]:
        evil, dealer = doubting(protocol)
        other = evil.others(VICTIM)[1]
        evil.tell(
            VICTIM,
            replace(evil.verdict(VICTIM, evil.boxes[VICTIM].keys() - {dealer}), opened=(Opened(other, bytes(32)),)),
        )
        return evil.clients[VICTIM]._round._held[other], evil

    with pytest.raises(PeerError, match="boxes opened of others than of those whom this client complained about"):
        exchanged()
    switch_off(monkeypatch, PairwiseClient, "_good_shares", NOT_OPENED)
    held, evil = exchanged()
    assert held == evil.clients[evil.others(VICTIM)[1]]._round._dealing().points[VICTIM]


@BOTH
def test_a_verdict_with_a_dealer_that_was_never_delivered(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> Evil:
        evil = dealt(protocol)
        missing = evil.others(VICTIM)[0]
        evil.complain([VICTIM], senders=lambda u: evil.boxes[u].keys() - {missing})
        evil.tell(VICTIM, evil.verdict(VICTIM))
        return evil

    with pytest.raises(PeerError, match="shares to be kept that are not good, or were never delivered here"):
        told()
    switch_off(monkeypatch, PairwiseClient, "_good_shares", NOT_HELD)
    with pytest.raises(KeyError):
        told()


def test_a_verdict_that_leaves_its_receiver_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the complete graph it can see that. Whether the others were told the same, it asks later."""

    def told() -> Any:
        evil = dealt("secagg")
        evil.complain([VICTIM])
        return evil.tell(
            VICTIM, replace(evil.verdict(VICTIM), dealers=to_bitmap({*evil.others(VICTIM)}, evil.holders(VICTIM)))
        )

    with pytest.raises(PeerError, match="this client dealt its shares and is left out"):
        told()
    switch_off(monkeypatch, PairwiseClient, "_hear_verdict", "self._u in self._holders and self._u not in dealers")
    assert told().header.position == VICTIM


@BOTH
@pytest.mark.parametrize("what", ["verdict", "accusations"])
def test_after_masking_it_is_too_late(protocol: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another verdict would be another vector under masks that were used; the same gets the same answer."""

    def again(evil: Evil) -> list[Any]:
        evil.complain([VICTIM])
        first = evil.tell(VICTIM, evil.verdict(VICTIM))
        assert evil.tell(VICTIM, evil.verdict(VICTIM)) == first
        if what == "accusations":
            liar = evil.others(VICTIM)[0]
            return [first, evil.tell(VICTIM, Accusations((evil.false_complaint(liar, VICTIM),)))]
        return [first, evil.tell(VICTIM, evil.verdict(VICTIM, list(evil.boxes[VICTIM])[1:]))]

    with pytest.raises(PeerError, match="does not belong in phase consistency"):
        again(dealt(protocol))
    steps = dict(PairwiseClient.steps)
    for phase in list(steps)[3:4]:
        steps[phase] = steps[phase]._replace(then=list(steps)[2])
    monkeypatch.setattr(PairwiseClient, "steps", steps)
    first, second = again(dealt(protocol))
    assert first != second


# A dealer that was left out.


def without(protocol: str) -> tuple[Evil, int, list[int]]:
    """All are told a verdict without one corrupt dealer, and mask; it uploads all the same. (scene, it, the others)"""
    evil = dealt(protocol)
    gone = evil.corrupt[-1]
    rest = [u for u in evil.members if u != gone]
    evil.complain()
    evil.upload(rest, senders=lambda u: rest)
    evil.upload([gone])
    return evil, gone, rest


@BOTH
@pytest.mark.parametrize("called", ["alive", "dead"])
def test_nobody_reveals_anything_of_who_was_left_out(
    protocol: str, called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called alive, its neighbours do not sign; called dead, they have no share of it any more. Had they kept their
    shares, and did they sign, either secret of it would be revealed."""

    def revealed() -> tuple[int, int]:
        evil, gone, rest = without(protocol)
        alive = evil.members if called == "alive" else rest
        honest = [u for u in evil.honest if gone in evil.others(u)]
        for u in honest:
            evil.consent(u, alive)
        for u in honest:
            evil.reveal(u, {v: evil.sign(v, alive) for v in rest})
        return (
            sum(v in honest for v in evil.self_shares.get(gone, {})),
            sum(v in honest for v in evil.key_shares.get(gone, {})),
        )

    def signing() -> None:
        switch_off(monkeypatch, PairwiseClient, "_hear_survivors", "not self._held.keys() >= set(alive)")

    if called == "alive":
        with pytest.raises(PeerError, match="a surviving neighbour whose shares were not to be kept here"):
            revealed()
        signing()
    assert revealed() == (0, 0)  # also if they signed
    keeping(monkeypatch)
    self_shares, key_shares = revealed()
    assert (self_shares > 0, key_shares > 0) == (called == "alive", called == "dead")


def keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients mask with whom they are told to, and forget nobody's shares."""
    heard, upload = PairwiseClient._hear_verdict, PairwiseClient._upload

    def hear(machine: Any, message: Verdict) -> None:
        before = dict(machine._held)
        heard(machine, message)
        machine._all = before | machine._held

    def masked(machine: Any) -> Any:
        answer = upload(machine)
        machine._held = dict(sorted(machine._all.items()))
        return answer

    monkeypatch.setattr(PairwiseClient, "_hear_verdict", hear)
    monkeypatch.setattr(PairwiseClient, "_upload", masked)


@BOTH
def test_masks_are_those_of_the_verdict(protocol: str) -> None:
    """Each lists whom it was told of, and the sum of them comes out exactly, without the one left out."""
    evil, gone, rest = without(protocol)
    for u in rest:
        assert gone not in members_of(evil.headers[u].holders, evil.holders(u))
    consents = {u: evil.consent(u, rest) for u in rest}
    for u in evil.honest:
        evil.reveal(u, consents)
    assert evil.sum_of(rest) == evil.plain(rest)
