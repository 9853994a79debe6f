"""Cutting the graph: making clients mask with few, and still getting their self-mask shares.

One upload is safe as long as some honest client whose mask is on it stays unknown, and a group of uploads as long as
masks lead out of it. The server tells clients that neighbours never shared keys, so that no masks cross a cut; or it
tells two parts of the ring two stories. The invariant that stops the first is that masking is mutual: whoever is in the
sum masked with each of its neighbours that is in the sum. Each client checks it for its own neighbourhood, both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from protocols.pairwise import client as client_module
from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.messages import Survivors
from protocols.policy import Policy
from protocols.roster import SERVER
from protocols.rounds.sets import to_bitmap
from secagg.crypto import labels
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.keys import verify
from secagg.errors import PeerError, PolicyError, ThresholdError
from tests.controls import switch_off
from tests.oracle.leak_oracle import Round, Verdict, View, judge, secrets_of
from tests.scenes.pairwise import BOTH, MINE, THEIRS, Evil, believe_that_masking_is_mutual, make, small

pytestmark = pytest.mark.thinned(4)

VICTIM = 2


# One client masks with corrupt clients only.


def isolate(evil: Evil) -> None:
    """The victim is told to keep the shares of the corrupt among its neighbours only; all else goes well."""
    evil.advertise()
    evil.share()
    evil.upload(senders=lambda u: evil.corrupt if u == VICTIM else None)


def finish(evil: Evil, told: Callable[[Survivors], Survivors] = lambda message: message) -> None:
    """Everybody signs that everybody survived, and reveals."""
    consents = {u: evil.sign(u, evil.members) for u in evil.corrupt}
    for u in evil.honest:
        consents[u] = evil.tell(u, told(evil.survivors(u, evil.members))).signature
    for u in evil.honest:
        evil.reveal(u, consents)


@BOTH
def test_a_client_that_is_given_no_shares(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three checks stand before the one vector, each enough alone: the client does not upload with fewer than t
    masks, its neighbours do not accept an upload with fewer, and those that are not listed reveal no self-share."""
    with pytest.raises(ThresholdError, match=r"shares of \d neighbours hold, at least \d are needed"):
        isolate(small(protocol))

    switch_off(monkeypatch, PairwiseClient, "_hear_verdict", "len(dealers) < self._t")
    isolate(evil := small(protocol))  # uploads with the corrupt clients' masks only
    assert not evil.listed(VICTIM) & (set(evil.honest) - {VICTIM})
    with pytest.raises(PeerError, match=rf"masked with \d neighbours, at least \d are needed \[{evil.name(VICTIM)}"):
        finish(evil)

    switch_off(monkeypatch, client_module, "check_header", "len(listed) < t")
    isolate(evil := small(protocol))
    with pytest.raises(PeerError, match=r"did not mask with this client|not to be kept here"):
        finish(evil)

    believe_that_masking_is_mutual(monkeypatch)
    isolate(evil := small(protocol))
    finish(evil)
    assert evil.sum_of([VICTIM]) == evil.plain([VICTIM])


# A large group masks only among itself. All clients are honest, all upload, all are called survivors, all sign.


def inner(protocol: str, silent: int = 0) -> tuple[Evil, list[int]]:
    """(scene, a group in which each has at least t holders of its shares); everybody must be in the sum."""
    if protocol == "secagg":
        evil = make(
            protocol,
            clients=9,
            parameters=GraphParameters(Graph.COMPLETE, 8, 5),
            min_contributors=9 - silent,
            length=40,
        )
        evil.advertise()
        return evil, evil.members[:6]
    ring = GraphParameters(Graph.RING, 8, 6, 20, 11)
    evil = make(protocol, clients=20, parameters=ring, min_contributors=20 - silent, length=80)
    evil.advertise()
    return evil, [u for rank, u in enumerate(evil.cohort._graph._order.tolist()) if rank % 5]


def withhold(evil: Evil, group: list[int], what: str = "verdict") -> None:
    """The group is told to keep the shares of its own members only, so that it masks among itself, or gets no others;
    the rest keeps all."""
    evil.share()
    if what == "verdict":
        evil.complain()
    evil.upload(senders=lambda u: group if u in group else None)


def judged(evil: Evil) -> Verdict:
    """What the server can compute from all that it saw, whatever it sets out to compute."""
    secrets = {evil.name(u): secrets_of(client) for u, client in evil.clients.items()}
    inputs = {evil.name(u): evil.values[u] for u in evil.members}
    return judge([Round(View(evil.plan, evil.roster, frames=evil.seen), inputs, secrets)])


@BOTH
@pytest.mark.parametrize("what", ["boxes", "verdict"])
def test_a_group_that_masks_only_among_itself(protocol: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two verdicts for two parts. Everybody had to be in the sum; the server gets the sum over the group, and with it
    that over the others, who are as few as it likes."""
    evil, group = inner(protocol)
    withhold(evil, group, what)
    for u in evil.members:
        reason = "shares were not to be kept here" if u in group else "did not mask with this client"
        if u in group or set(group) & set(evil.others(u)):
            with pytest.raises(PeerError, match=reason) as refused:
                evil.consent(u, evil.members)
            assert refused.value.culprits == (SERVER,)  # the neighbour only masked with whom it was told of
    verdict = judged(evil)
    assert verdict.safe
    assert verdict.computable == ()

    believe_that_masking_is_mutual(monkeypatch)
    evil, group = inner(protocol)
    withhold(evil, group, what)
    finish(evil)
    assert evil.sum_of(group) == evil.plain(group)
    assert len(group) < evil.plan.min_contributors
    leaked = {frozenset(name for _, name in leak.coefficients) for leak in judged(evil).leaks}
    assert frozenset(map(evil.name, group)) in leaked


@BOTH
@pytest.mark.parametrize("side", [MINE, THEIRS])
def test_each_side_of_mutual_masking(protocol: str, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one side unchecked half of the cohort signs. The others notice, but are not needed where few must sign."""
    evil, group = inner(protocol)
    withhold(evil, group)
    believers = group if side == MINE else [u for u in evil.members if u not in group]
    switch_off(monkeypatch, PairwiseClient, "_hear_survivors", side)
    for u in believers:
        evil.consent(u, evil.members)


@BOTH
def test_an_honest_server_always_satisfies_both(protocol: str) -> None:
    """Also when clients fall silent after any phase, and when one is left out because a box of its does not hold."""
    evil, _ = inner(protocol, silent=3)
    never, late = evil.members[3], evil.members[5]
    dealers = [u for u in evil.members if u != never]
    evil.share(dealers)
    first = evil.members[0]
    liar = max(evil.boxes[first])
    evil.boxes[first][liar] = replace(evil.boxes[first][liar], points=bytes(len(evil.boxes[first][liar].points)))
    evil.complain(dealers)
    assert [said.peer for said in evil.accusations(liar).complaints] == [first]
    kept = [u for u in dealers if u != liar]
    uploaders = [u for u in kept if u != late]
    evil.upload(uploaders, senders=lambda u: kept)
    consents = {u: evil.consent(u, uploaders) for u in uploaders}
    for u in uploaders:
        evil.reveal(u, consents)
    assert evil.sum_of(uploaders) == evil.plain(uploaders)
    verdict = judged(evil)
    assert verdict.safe
    assert len(verdict.computable) == 1


# Two stories for two parts of the ring. All clients are honest.


def two_stories(quorum: int) -> tuple[Evil, list[int]]:
    """One half of the ring hears that everybody survived, the other half that two in its middle did not. Each set is
    signed by more than enough, and by t neighbours of nearly everybody. (scene, the smaller set)"""
    ring = GraphParameters(Graph.RING, 8, 5, 40, quorum)
    evil = make("secagg+", clients=40, parameters=ring, min_contributors=16, length=120)
    evil.advertise()
    evil.share()
    evil.upload()
    order = evil.cohort._graph._order.tolist()
    fewer = [u for u in evil.members if u not in order[29:31]]
    stories = dict.fromkeys(order[:20], evil.members) | dict.fromkeys([*order[20:29], *order[31:]], fewer)
    consents = {u: evil.consent(u, alive) for u, alive in stories.items()}
    for v, alive in stories.items():
        signed = {u: consents[u] for u in stories if stories[u] == alive}
        if len(set(signed) & set(evil.others(v))) >= evil.t:
            evil.reveal(v, signed)
    return evil, fewer


def test_two_sets_of_survivors_on_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the clients have revealed for a sum of 40 clients and its noise; what comes out is a sum of 38."""
    with pytest.raises(ThresholdError, match="20 witnesses signed the survivors, at least 21 are needed"):
        two_stories(21)
    lax = GraphParameters(Graph.RING, 38, 20, 40, 20)
    demanding = Policy(min_contributors=16, corrupt=0, dropout=0, security=1)
    with pytest.raises(PolicyError, match="could sign two sets of survivors: at least 21 are needed"):
        make("secagg+", clients=40, parameters=lax, min_contributors=16, policy=demanding).advertise()

    switch_off(
        monkeypatch, PairwiseClient, "_check_signatures", "(seen := len(set(signers).intersection(witnesses))) < quorum"
    )
    evil, fewer = two_stories(21)
    assert evil.sum_of(fewer) == evil.plain(fewer)
    verdict = judged(evil)
    assert [set(leak.coefficients) for leak in verdict.leaks] == [{(0, evil.name(u)) for u in fewer}]


# The cohort falls into two parts at gaps of silent clients (which shared keys, so that they count as neighbours).


def gapped(protocol: str) -> tuple[Evil, list[int], list[int]]:
    """(scene, one side, silent clients) with nobody corrupt. On the ring, with t <= 3k/4, two gaps of k/4."""
    if protocol == "secagg":
        evil = make(protocol, clients=9, parameters=GraphParameters(Graph.COMPLETE, 8, 5), min_contributors=6)
        evil.advertise()
        return evil, [0, 1, 2], [6, 7, 8]
    evil = make(protocol, clients=20, parameters=GraphParameters(Graph.RING, 8, 6), min_contributors=16)
    evil.advertise()
    ring = evil.cohort._graph._order.tolist()
    return evil, ring[2:10], [*ring[:2], *ring[10:12]]


def cut(protocol: str, *, forged: bool = False) -> None:
    """No box from the far side reaches the near side, so that its masks stay inside; the other way they do, so that
    the far side holds shares of the near side's self-masks. Everybody hears the truth, signs and reveals."""
    evil, near, silent = gapped(protocol)
    evil.share()
    present = [u for u in evil.members if u not in silent]
    evil.upload(present, senders=lambda u: [*near, *silent] if u in near else None)
    consents = {u: evil.tell(u, survivors(evil, u, present, forged)).signature for u in present}
    for u in present:
        evil.reveal(u, consents)
    assert evil.sum_of(near) == evil.plain(near)
    assert len(near) < evil.plan.min_contributors


def survivors(evil: Evil, u: int, present: list[int], forged: bool) -> Survivors:
    message = evil.survivors(u, present)
    if not forged:
        return message
    lists = {v: to_bitmap(set(evil.members), evil.holders(v)) for v in present}
    return replace(message, headers=tuple(replace(h, holders=lists[h.position]) for h in message.headers))


@BOTH
def test_cut_at_gaps_of_silent_clients(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The uploads list t neighbours, the silent ones among them, but not all surviving ones."""
    with pytest.raises(PeerError, match=r"did not mask with this client|not to be kept here"):
        cut(protocol)
    believe_that_masking_is_mutual(monkeypatch)
    cut(protocol)


@BOTH
def test_cut_with_altered_headers(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server writes the missing names into the lists; but these are signed. (That the near side itself did not mask
    across the cut, it knows without a list.)"""
    switch_off(monkeypatch, PairwiseClient, "_hear_survivors", MINE)
    with pytest.raises(PeerError, match="bad signature"):
        cut(protocol, forged=True)

    def unsigned_lists(public: bytes, signature: bytes, label: bytes, *parts: bytes, culprit: str = "") -> None:
        if label != labels.UPLOAD:
            verify(public, signature, label, *parts, culprit=culprit)

    monkeypatch.setattr(client_module, "verify", unsigned_lists)
    cut(protocol, forged=True)


@BOTH
@pytest.mark.parametrize("how", ["left out", "another's", "twice"])
def test_headers_of_others(protocol: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One header for each surviving neighbour, and its own."""

    def shuffle(evil: Evil) -> None:
        evil.advertise()
        evil.share()
        evil.upload()
        message = evil.survivors(VICTIM, evil.members)
        first, second, *rest = message.headers
        headers = {"left out": (second, *rest), "another's": (second, first, *rest), "twice": (first, first, *rest)}
        evil.tell(VICTIM, replace(message, headers=headers[how]))

    with pytest.raises(PeerError, match="upload headers that are not those of the surviving neighbours"):
        shuffle(small(protocol))
    switch_off(
        monkeypatch, PairwiseClient, "_hear_survivors", "[header.position for header in message.headers] != alive"
    )
    shuffle(small(protocol))
