"""Lies in the last phase of a pairwise round in which somebody has fallen silent, and survivors that are too few."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from protocols.pairwise.messages import Revealed
from protocols.pairwise.server import PairwiseServer
from protocols.rounds.exchange import Exchange
from protocols.rounds.phases import Phase
from secagg.errors import PeerError, ThresholdError
from tests.controls import switch_off
from tests.scenes.pairwise import BOTH, share_of_another, small
from tests.scenes.pairwise_round import LIAR, NOT_ASKED, Round

pytestmark = pytest.mark.thinned(4)

_UNCLAMPED = 8
"""The three lowest bits of an X25519 key are ignored."""

_BEYOND = 1 << 30
"""A limb has 29 bits."""


def revealing(protocol: str, silent: int = 5) -> Round:
    """A round whose server waits for shares; this client dealt its own and never uploaded."""
    round_ = Round(protocol)
    while round_.server.phase != Phase.REVEAL:
        quiet = round_.evil.name(silent) if round_.server.phase == Phase.UPLOAD else ""
        for name, message in round_.replies.items():
            if name != quiet:
                round_.hand_in(name, message)
        round_.close()
    return round_


def test_a_share_of_a_client_that_was_not_masked_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the cohort and has survived, and its holders are others: whoever sends shares of all clients is counted
    as a holder of all."""

    def hand_in() -> tuple[Round, int]:
        round_ = revealing("secagg+")
        message = round_.replies[round_.liar]
        strangers = round_.server._headers.keys() - set(round_.server._holders[LIAR]) - {LIAR}
        stranger = min(strangers)
        shares = sorted(
            [*message.self_shares, Revealed(stranger, message.self_shares[0].share)], key=lambda share: share.peer
        )
        round_.hand_in(round_.liar, replace(message, self_shares=tuple(shares)))
        return round_, stranger

    with pytest.raises(PeerError, match="shares of others than asked for"):
        hand_in()
    switch_off(monkeypatch, PairwiseServer, "_take_reveal", NOT_ASKED)
    monkeypatch.setattr(Exchange, "check_shares", lambda *_: None)  # two layers
    round_, stranger = hand_in()
    assert stranger in round_.server._revealed[LIAR][0]


@BOTH
def test_a_share_of_the_silent_twice(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing new, and is refused all the same: there is one message that answers what was asked."""

    def hand_in() -> Round:
        round_ = revealing(protocol)
        holder = next(name for name, message in round_.replies.items() if message.key_shares)
        message = round_.replies[holder]
        round_.hand_in(holder, replace(message, key_shares=message.key_shares * 2))
        for name, honest in round_.replies.items():
            if name != holder:
                round_.hand_in(name, honest)
        return round_

    with pytest.raises(PeerError, match="shares of others than asked for"):
        hand_in()
    switch_off(monkeypatch, PairwiseServer, "_take_reveal", NOT_ASKED)
    hand_in().server.close(Phase.REVEAL)


@BOTH
def test_a_share_of_the_silent_among_those_of_the_living(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be counted with the other holders' shares of another secret."""

    def hand_in() -> Round:
        round_ = revealing(protocol)
        holder = next(name for name, message in round_.replies.items() if message.key_shares)
        message = round_.replies[holder]
        shares = sorted([*message.self_shares, *message.key_shares], key=lambda share: share.peer)
        round_.hand_in(holder, replace(message, self_shares=tuple(shares), key_shares=()))
        return round_

    with pytest.raises(PeerError, match="shares of others than asked for"):
        hand_in()
    switch_off(monkeypatch, PairwiseServer, "_take_reveal", "len(reveal.self_shares) != len(alive)")
    with pytest.raises(PeerError, match="shares of others than asked for"):  # the order, too, is that of the kinds
        hand_in()
    switch_off(
        monkeypatch, PairwiseServer, "_take_reveal", "[share.peer for share in revealed] != alive + dropped or False"
    )
    hand_in()


@BOTH
def test_a_wrong_share_of_the_key_of_the_silent(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The masks that the silent client shared with the others are taken off with the key of its advert and with no
    other: a wrong share is done without, whether it would give another key or, beyond 32 bytes, none."""

    def with_a_liar(more: int) -> Round:
        round_ = revealing(protocol)
        dead = 5
        holding = [
            round_.evil.roster.number(name)
            for name, message in round_.replies.items()
            if any(share.peer == dead for share in message.key_shares)
        ]
        first = holding[: round_.evil.t]  # whom the server takes, if it sees nothing wrong
        for name, message in round_.replies.items():
            v = round_.evil.roster.number(name)
            if v == first[0]:
                shares = [
                    replace(share, share=share_of_another(first, v, share.share, more)) if share.peer == dead else share
                    for share in message.key_shares
                ]
                message = replace(message, key_shares=tuple(shares))
            with suppress(PeerError):
                round_.hand_in(name, message)
        round_.server.close(Phase.REVEAL)
        return round_

    for more in (_UNCLAMPED, _BEYOND):
        round_ = with_a_liar(more)
        assert len(round_.server.liars) == 1
        assert round_.server.outcome.total.tolist() == round_.evil.plain(set(round_.evil.members) - {5})
    monkeypatch.setattr(Exchange, "check_shares", lambda *_: None)
    for more in (_UNCLAMPED, _BEYOND):
        with pytest.raises(PeerError, match="another secret than the advertised one"):
            with_a_liar(more)
    monkeypatch.setattr(PairwiseServer, "_is_secret_of", lambda *_: True)
    round_ = with_a_liar(_UNCLAMPED)
    assert round_.server.outcome.total.tolist() != round_.evil.plain(set(round_.evil.members) - {5})


def test_a_wrong_share_of_ones_own_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has committed to it. It comes first, and yet those that others hold are taken, as long as there are t."""

    def total() -> list[int]:
        round_ = revealing("secagg")
        message = round_.replies.pop(round_.liar)
        holders = [v for v in round_.evil.members if v != 5][: round_.evil.t]
        assert LIAR in holders
        shares = [
            replace(share, share=share_of_another(holders, LIAR, share.share)) if share.peer == LIAR else share
            for share in message.self_shares
        ]
        round_.hand_in(round_.liar, replace(message, self_shares=tuple(shares)))
        round_.speak()
        return round_.finish()

    evil = small("secagg", corrupt=())
    assert total() == evil.plain(set(evil.members) - {5})
    switch_off(monkeypatch, PairwiseServer, "_rebuilt", "(holders == owners, owners)", "(owners,)")
    with pytest.raises(PeerError, match="another secret than the advertised one"):
        total()


@BOTH
def test_fewer_survivors_than_the_threshold(protocol: str) -> None:
    """A client signs no set below the threshold, even if the plan asks for fewer contributors; at the threshold it
    does."""
    evil = small(protocol, corrupt=())
    assert evil.plan.min_contributors < evil.t
    evil.advertise()
    evil.share()
    evil.upload()
    u = evil.honest[0]
    near = [u, *evil.others(u)]
    with pytest.raises(ThresholdError, match="survivors"):
        evil.consent(u, near[: evil.t - 1])
    assert evil.consent(u, near[: evil.t]) == evil.sign(u, near[: evil.t])
