"""Cutting the graph: making clients mask with few, and still getting their self-mask shares.

One upload is safe as long as some honest client whose mask is on it stays unknown, and a group of uploads as long as
masks lead out of it. The server tells clients that neighbours never shared keys, so that no masks cross a cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from protocols.cohort import to_bitmap
from protocols.pairwise import client as client_module
from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.messages import Survivors
from secagg import labels
from secagg.errors import PeerError, ThresholdError
from secagg.keys import verify
from secagg.params import Graph, GraphParameters
from tests.adversarial.attack import BOTH, Denied, Evil, make, small, switch_off

VICTIM = 2


# One client masks with corrupt clients only.


def isolate(evil: Evil) -> None:
    """The victim gets boxes from the corrupt among its neighbours only; all else goes well."""
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
    with pytest.raises(ThresholdError, match=r"shares from \d neighbours, at least \d are needed"):
        isolate(small(protocol))

    switch_off(monkeypatch, PairwiseClient, "_open", "len(held) < self._t")
    isolate(evil := small(protocol))  # uploads with the corrupt clients' masks only
    assert not evil.listed(VICTIM) & (set(evil.honest) - {VICTIM})
    with pytest.raises(PeerError, match=rf"masked with \d neighbours, at least \d are needed \[{evil.name(VICTIM)}"):
        finish(evil)

    switch_off(monkeypatch, client_module, "check_header", "len(listed) < t")
    isolate(evil := small(protocol))
    finish(evil)  # they sign
    with pytest.raises(Denied, match=r"\d shares, \d are needed"):
        evil.sum_of([VICTIM])  # but do not reveal

    switch_off(monkeypatch, PairwiseClient, "_hear_survivors", "self._u in listed", "True")
    isolate(evil := small(protocol))
    finish(evil)
    assert evil.sum_of([VICTIM]) == evil.plain([VICTIM])


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
    """The uploads list t neighbours, the silent ones among them; but then too few that are listed can reveal."""
    with pytest.raises(Denied, match=r"\d shares, \d are needed"):
        cut(protocol)
    switch_off(monkeypatch, PairwiseClient, "_hear_survivors", "self._u in listed", "True")
    cut(protocol)


@BOTH
def test_cut_with_altered_headers(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server writes the missing names into the lists; but these are signed."""
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
