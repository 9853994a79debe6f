"""Liars about shares against the honest server: the sum over the others comes out exactly, or the liar is named; nobody
who is honest is, whatever the others do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.messages import MASK_KEY, SELF_MASK, Revealed
from protocols.pairwise.server import PairwiseServer
from protocols.rounds import dealing as dealing_module
from protocols.rounds import exchange as exchange_module
from protocols.rounds.dealing import Box, Dealing, Dealt, Defence, Opened
from protocols.rounds.exchange import Exchange
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.simulation.network import Faults, simulate
from secagg.crypto import dealing as secret_sharing
from secagg.crypto.dealing import Polynomials
from secagg.crypto.prg import Prg
from secagg.crypto.shamir import PRIME
from secagg.errors import DecodeError, PeerError, SecAggError, ThresholdError
from tests.controls import switch_off
from tests.scenes.client_ledgers import NAMES, Deployment
from tests.scenes.pairwise import BOTH
from tests.scenes.pairwise_round import LIAR, Round, beyond

pytestmark = pytest.mark.thinned(4)

OTHER = b"another secret".ljust(32)
DEFENDED = "not opened(self._context, one.peer, [box], self._secrets, keys.__getitem__)"


# How a dealer lies.


def redealt(machine: Any, boxes: Mapping[int, Box]) -> Dealt:
    """What this client deals, with other boxes for some, and the right proof for what it deals to all others."""
    dealing = machine._dealing()
    others = [v for v in machine._holders if v != machine._u]
    mixed = tuple(boxes.get(v, box) for v, box in zip(others, dealing.dealt.boxes, strict=True))
    seed = machine._drawn(b"polynomials", *machine._cohort.bound(machine._u))
    polynomials = Polynomials([machine._mask_key.secret, machine._self_secret], machine._t, Prg(seed))
    return Dealt(mixed, polynomials.proof(dealing_module.challenge_of(machine._cohort, machine._u, mixed)))


def good_box(machine: Any, v: int, points: bytes, key: bytes = b"") -> Box:
    """One that holds these points, whatever they are, with commitments to them; under ``key`` instead of the pad."""
    values = np.frombuffer(points, "<u4") % np.uint32(PRIME)
    padded = dealing_module.padded(values[None], [key or machine._pad_key(machine._u, v)]).astype("<u4").tobytes()
    return Box(padded, dealing_module.commitments(machine._cohort, machine._u, v, points, 2))


def of_other_secrets(machine: Any) -> Dealing:
    pad_key = lambda v: machine._pad_key(machine._u, v)  # noqa: E731
    return Dealing(machine._cohort, machine._u, machine._holders, machine._t, [OTHER, OTHER], Prg(bytes(32)), pad_key)


def nonsense(machine: Any, holders: Iterable[int]) -> Dealt:
    boxes = dict(zip([v for v in machine._holders if v != machine._u], machine._dealing().dealt.boxes, strict=True))
    return redealt(machine, {v: replace(boxes[v], points=bytes(len(boxes[v].points))) for v in holders})


def holders_of(machine: Any, count: int) -> list[int]:
    return [v for v in machine._holders if v != machine._u][:count]


Deal = Callable[[Any], Dealt]
BAD: dict[str, tuple[Deal, Callable[[Any], list[int]]]] = {
    "badly to one": (lambda m: nonsense(m, holders_of(m, 1)), lambda m: holders_of(m, 1)),
    "badly to all": (lambda m: nonsense(m, holders_of(m, 99)), lambda m: holders_of(m, 99)),
    "differently to one": (
        lambda m: redealt(m, {v: good_box(m, v, of_other_secrets(m).points[v]) for v in holders_of(m, 1)}),
        lambda m: holders_of(m, 1),
    ),
    "differently to two halves": (
        lambda m: redealt(m, {v: good_box(m, v, of_other_secrets(m).points[v]) for v in holders_of(m, 4)}),
        lambda m: holders_of(m, 4),
    ),
    "with a proof that does not fit": (
        lambda m: replace(m._dealing().dealt, proof=bytes(len(m._dealing().dealt.proof))),
        lambda m: holders_of(m, 99),
    ),
    "with commitments to nothing": (
        lambda m: redealt(
            m, {v: replace(good_box(m, v, m._dealing().points[v]), commitments=bytes(32)) for v in holders_of(m, 2)}
        ),
        lambda m: holders_of(m, 2),
    ),
}


def dealt_badly(protocol: str, how: str) -> tuple[Round, list[int]]:
    """(the round in DEFEND, who is to complain)"""
    round_ = Round(protocol)
    round_.until(Phase.SHARE)
    deal, whom = BAD[how]
    round_.hand_in(round_.liar, deal(round_.machine))
    round_.close()
    for name, said in round_.replies.items():
        about = [round_.evil.name(one.peer) for one in said.complaints]
        assert about == ([round_.liar] if round_.evil.roster.number(name) in whom(round_.machine) else [])
    round_.speak()
    round_.server.close(Phase.COMPLAIN)
    assert round_.server.phase is Phase.DEFEND
    assert round_.server.waiting_for == (round_.liar,)
    return round_, whom(round_.machine)


def judged(round_: Round) -> list[int]:
    """The rest of the round after DEFEND."""
    round_.close()
    round_.speak()
    return round_.finish()


def rest(round_: Round) -> list[int]:
    return round_.evil.plain([u for u in round_.evil.members if u != LIAR])


@pytest.mark.parametrize(
    ("protocol", "how"),
    [*[("secagg+", how) for how in BAD], ("secagg", "badly to all"), ("secagg", "differently to one")],
)
def test_a_bad_dealer_is_left_out(protocol: str, how: str) -> None:
    """Whether it says nothing to the complaints, which is no lie, or opens what does not fit."""
    round_, _ = dealt_badly(protocol, how)
    assert judged(round_) == rest(round_)
    assert (round_.server.excluded, round_.server.liars) == ((round_.liar,), ())

    round_, whom = dealt_badly(protocol, how)
    false = Defence(tuple(Opened(v, round_.machine._pad_key(LIAR, v)) for v in whom))
    with pytest.raises(PeerError, match="a key that opens no good box"):
        round_.hand_in(round_.liar, false)
    assert judged(round_) == rest(round_)
    assert round_.server.excluded == round_.server.liars == (round_.liar,)


@pytest.mark.parametrize("protocol", ["secagg+"])
@pytest.mark.parametrize("how", ["badly to one", "with a proof that does not fit"])
def test_control_a_defence_that_is_believed(protocol: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then holders refuse the verdict that speaks of it, and are lost to the round; or keep shares that are none, if
    they believe it, too, and the round is lost."""
    round_, whom = dealt_badly(protocol, how)
    switch_off(monkeypatch, Exchange, "defend", DEFENDED)
    round_.hand_in(round_.liar, Defence(tuple(Opened(v, bytes(32)) for v in whom)))
    round_.server.close(Phase.DEFEND)
    frame = dict(round_.server.outbox())[round_.evil.name(whom[0])]
    with pytest.raises(PeerError, match="shares to be kept that are not good"):
        round_.evil.clients[whom[0]].receive(frame)


def accused(protocol: str, deal: Deal) -> tuple[Round, int]:
    """(the round in DEFEND, the one holder that complains)"""
    round_ = Round(protocol)
    round_.until(Phase.SHARE)
    holder = holders_of(round_.machine, 1)[0]
    round_.hand_in(round_.liar, deal(round_.machine))
    round_.close()
    round_.speak()
    round_.server.close(Phase.COMPLAIN)
    assert round_.server._exchange.accused == [LIAR]
    assert [one.peer for one in round_.server._exchange.accusations(LIAR).complaints] == [holder]
    return round_, holder


@BOTH
def test_a_dealer_that_answers_stays(protocol: str) -> None:
    """A box under another pad than was agreed on: the holder has its share from the answer, and the sum is of all."""
    other = b"another key".ljust(32)

    def padded_otherwise(machine: Any) -> Dealt:
        v = holders_of(machine, 1)[0]
        return redealt(machine, {v: good_box(machine, v, machine._dealing().points[v], other)})

    round_, holder = accused(protocol, padded_otherwise)
    round_.hand_in(round_.liar, Defence((Opened(holder, other),)))
    round_.evil.clients[LIAR]._round.phase = Phase.UPLOAD  # it has opened its boxes
    assert judged(round_) == round_.evil.plain(round_.evil.members)
    assert (round_.server.excluded, round_.server.liars) == ((), ())
    assert round_.evil.clients[holder]._round._held[LIAR] == round_.machine._dealing().points[holder]


@BOTH
def test_a_dealer_cannot_choose_blinding_values_when_it_answers(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It commits to shares off its polynomials for an honest holder, whose box is rubbish. Once the challenge is known
    there are blinding values that fit these shares: with them the points look good, and no key gives them. Control: a
    server, and a holder, that take points for an answer."""
    chosen = dict[int, bytes]()

    def off_the_polynomials(machine: Any) -> Dealt:
        v = holders_of(machine, 1)[0]
        points = np.frombuffer(machine._dealing().points[v], "<u4").copy()
        points[:18] = (points[:18].astype(np.int64) + 1) % PRIME
        bad = Box(bytes(88), dealing_module.commitments(machine._cohort, machine._u, v, points.tobytes(), 2))
        dealt = redealt(machine, {v: bad})
        challenge = dealing_module.challenge_of(machine._cohort, machine._u, dealt.boxes)
        shown = secret_sharing.responses(dealt.proof, machine._t, [v + 1])
        weights = secret_sharing._weights([challenge], 18)[0].astype(object)
        points[18:] = [int(value) for value in (shown[0].astype(object) - points[:18].astype(object) @ weights) % PRIME]
        chosen[v] = points.astype("<u4").tobytes()
        return dealt

    round_, holder = accused(protocol, off_the_polynomials)
    box = round_.server._exchange.delivered(LIAR, holder)
    values = np.frombuffer(chosen[holder], "<u4")[None]
    assert dealing_module.fit(round_.server._cohort, holder, [box], values, 2) == [True]  # no more is asked of points
    for key in (bytes(32), chosen[holder][:32], round_.machine._pad_key(LIAR, holder)):
        with pytest.raises(PeerError, match="a key that opens no good box"):
            round_.hand_in(round_.liar, Defence((Opened(holder, key),)))
    assert judged(round_) == rest(round_)
    assert round_.server.excluded == round_.server.liars == (round_.liar,)

    round_, holder = accused(protocol, off_the_polynomials)
    unpadded = dealing_module.unpadded
    monkeypatch.setattr(
        dealing_module,
        "unpadded",
        lambda sealed, keys: (
            np.frombuffer(chosen[holder], "<u4")[None] if list(keys) == [bytes(32)] else unpadded(sealed, keys)
        ),
    )
    round_.hand_in(round_.liar, Defence((Opened(holder, bytes(32)),)))
    round_.evil.clients[LIAR]._round.phase = Phase.UPLOAD
    with pytest.raises(PeerError, match="shares of another secret than the advertised one"):
        judged(round_)
    assert round_.server.liars == (round_.liar,)


@pytest.mark.parametrize(("protocol", "complaining"), [("secagg", 1), ("secagg+", 3)])
def test_false_complaints_cost_their_dealer_one_answer(protocol: str, complaining: int) -> None:
    """An honest dealer cannot be framed: it answers as many as its policy holds for corrupt, and stays."""
    round_ = Round(protocol)
    round_.until(Phase.COMPLAIN)
    liars = [v for v in round_.server._holders[LIAR] if v != LIAR][:complaining]
    for v in liars:
        round_.falsely_complain(v, LIAR)
    round_.server._heard = {}
    round_.speak()
    round_.close()
    assert list(round_.replies) == [round_.liar]
    assert [one.peer for one in round_.replies[round_.liar].opened] == liars
    round_.speak()
    assert judged(round_) == round_.evil.plain(round_.evil.members)
    assert (round_.server.excluded, round_.server.liars) == ((), ())


@pytest.mark.parametrize("protocol", ["secagg+"])
def test_control_an_accused_dealer_without_a_say(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were whoever is complained about left out at once, one liar could exclude any number of honest clients."""
    monkeypatch.setattr(Exchange, "undefended", property(lambda exchange: {*exchange._complaints}))
    round_ = Round(protocol)
    round_.until(Phase.DEFEND)
    round_.hand_in(round_.liar, round_.replies[round_.liar])
    round_.server.close(Phase.DEFEND)
    assert round_.server.excluded == (round_.liar,)


@BOTH
@pytest.mark.parametrize("phase", [Phase.COMPLAIN, Phase.DEFEND])
def test_a_silent_dealer_is_left_out_before_anybody_masks(protocol: str, phase: Phase) -> None:
    """No mask is taken off for it in the end, and it is no liar."""
    round_ = Round(protocol)
    round_.until(phase)
    round_.close()
    round_.speak()
    assert round_.server.phase is Phase.UPLOAD
    assert round_.server.excluded == (round_.liar,)
    assert all(LIAR not in round_.evil.clients[u]._round._held for u in round_.evil.members if u != LIAR)
    assert round_.finish() == rest(round_)
    assert round_.server.masks_removed == len(round_.evil.members) - 1
    assert round_.server.liars == ()


@pytest.mark.parametrize("protocol", ["secagg"])
def test_an_upload_of_a_dealer_that_was_left_out(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It masks with all, as if nothing had been, and sends its vector; then another."""

    def intrude() -> Round:
        round_ = Round(protocol)
        round_.until(Phase.COMPLAIN)
        machine: Any = round_.machine
        round_.close()
        machine._held = {v: machine._held[v] for v in sorted(machine._held)}
        upload = machine._upload()
        for _ in range(2):
            try:
                round_.hand_in(round_.liar, upload)
            finally:
                assert round_.server.phase is Phase.UPLOAD
            upload = replace(upload, vector=bytes(upload.vector)[::-1])
        return round_

    with pytest.raises(PeerError, match="nothing is expected of this client in phase upload"):
        intrude()
    switch_off(monkeypatch, ServerRound, "_check", "number not in self._expected")
    with pytest.raises(PeerError, match="a second, different message"):  # the first is taken
        intrude()


# Secrets that are others than the advertised ones.


def deal_another(monkeypatch: pytest.MonkeyPatch, name: str, secret: int) -> None:
    """This client deals another secret than it advertised, in the best order."""
    honest = PairwiseClient._dealing

    def dealing(machine: Any) -> Dealing:
        if machine.identity.name != name:
            return honest(machine)
        secrets = [machine._mask_key.secret, machine._self_secret]
        secrets[secret] = OTHER
        seed = machine._drawn(b"polynomials", *machine._cohort.bound(machine._u))
        return Dealing(
            machine._cohort,
            machine._u,
            machine._holders,
            machine._t,
            secrets,
            Prg(seed),
            lambda v: machine._pad_key(machine._u, v),
        )

    monkeypatch.setattr(PairwiseClient, "_dealing", dealing)


@pytest.mark.parametrize(("protocol", "secret"), [("secagg", MASK_KEY), ("secagg+", SELF_MASK)])
def test_another_secret_dealt_to_all_names_its_dealer_alone(
    protocol: str, secret: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one lie that loses a round. Not believed: the sum would be wrong."""

    def ended() -> Round:
        round_ = Round(protocol)
        servers.append(round_.server)
        deal_another(monkeypatch, round_.liar, secret)
        round_.until(Phase.UPLOAD)
        assert round_.server.excluded == ()
        if secret == SELF_MASK:
            round_.hand_in(round_.liar, round_.replies[round_.liar])
        round_.close()
        while round_.server.phase is not Phase.REVEAL:
            round_.speak()
            round_.close()
        round_.speak()
        round_.server.close(Phase.REVEAL)
        return round_

    servers = list[Any]()
    with pytest.raises(PeerError, match="shares of another secret than the advertised one") as refused:
        ended()
    assert [name[-2:] for name in refused.value.culprits] == [f"{LIAR:02}"]
    assert servers[0].liars == refused.value.culprits  # what adapters hand on
    monkeypatch.setattr(PairwiseServer, "_is_secret_of", lambda *_: True)
    wrong = ended()
    assert wrong.server.outcome.total.tolist() not in (rest(wrong), wrong.evil.plain(wrong.evil.members))


@pytest.mark.parametrize("protocol", ["secagg+"])
def test_a_dealer_that_committed_to_no_share_for_a_friend(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder does not complain, and reveals words that are no field elements. It is named, and nothing is lost.
    Seen only as the sum is opened, they would end the round, and nobody would be named."""

    def collude() -> Round:
        round_ = Round(protocol)
        round_.until(Phase.SHARE)
        machine = round_.machine
        friend = holders_of(machine, 1)[0]
        points = machine._dealing().points[friend]
        twin = points[:36] + beyond(points[36:])
        round_.hand_in(round_.liar, redealt(machine, {friend: good_box(machine, friend, twin)}))
        round_.close()
        held: Any = round_.evil.clients[friend]._round
        held._held[LIAR] = twin
        held._held = dict(sorted(held._held.items()))
        held._doubted = {}
        round_.replies[round_.evil.name(friend)] = held._complain()
        while round_.server.phase is not Phase.REVEAL:
            round_.speak()
            round_.close()
        friendly = round_.replies[round_.evil.name(friend)]
        assert Revealed(LIAR, twin[36:72]) in friendly.self_shares
        with suppress(DecodeError):
            round_.hand_in(round_.evil.name(friend), friendly)
        for name, message in round_.replies.items():
            if name != round_.evil.name(friend):
                round_.hand_in(name, message)
        round_.server.close(Phase.REVEAL)
        return round_

    round_ = collude()
    assert round_.server.outcome.total.tolist() == round_.evil.plain(round_.evil.members)
    assert round_.server.liars == (round_.evil.name(holders_of(round_.machine, 1)[0]),)

    monkeypatch.setattr(exchange_module, "unpack_shares", lambda *_: None)
    with pytest.raises(DecodeError, match="a share is not reduced") as refused:
        collude()
    assert refused.value.culprits == ()


# Nobody who is honest is named, or left out, whatever a dealer sends.


@pytest.mark.parametrize("protocol", ["secagg+"])
@pytest.mark.parametrize("seed", range(3))
def test_an_honest_holder_cannot_be_framed(protocol: str, seed: int) -> None:
    """A dealer alters what it likes in its boxes and its proof, and opens what it likes; and frames come in any order,
    and twice."""
    draw, round_ = np.random.default_rng(seed), Round(protocol)
    honest = round_.until(Phase.SHARE)
    boxes = list(honest.boxes)
    for at in draw.choice(len(boxes), 3, replace=False):
        data = bytearray(boxes[at].points + boxes[at].commitments)
        data[4 * draw.integers(len(data) // 4)] ^= 1 << draw.integers(8)
        boxes[at] = Box(bytes(data[:88]), bytes(data[88:]))
    proof = honest.proof if seed % 2 else bytes(len(honest.proof))
    for dealt in (Dealt(tuple(boxes), proof), honest):
        try:
            round_.hand_in(round_.liar, dealt)
            break
        except (PeerError, DecodeError):
            continue
    while round_.server.outcome is None:
        round_.close()
        names = list(round_.replies)
        for i in draw.permutation(len(names)):
            message = round_.replies[names[i]]
            if isinstance(message, Defence) and seed % 3:
                message = Defence(tuple(replace(one, points=bytes(88)) for one in message.opened))
            for _ in range(2):
                try:
                    round_.hand_in(names[i], message)
                except PeerError as refused:
                    assert refused.culprits == (round_.liar,)  # noqa: PT017
        if round_.server.phase is Phase.REVEAL:
            round_.server.close(Phase.REVEAL)
    assert {*round_.server.liars, *round_.server.excluded} <= {round_.liar}
    left_out = {LIAR} if round_.server.excluded else set()
    assert round_.server.outcome.total.tolist() == round_.evil.plain(set(round_.evil.members) - left_out)


# What liars cost: noise, contributors, budgets.


def left_out(deployment: Deployment, count: int) -> Any:
    return deployment.run(**dict.fromkeys(NAMES[:count], "complain"))


@pytest.mark.parametrize(("protocol", "count"), [("secagg", 3), ("secagg+", 1)])
def test_who_is_left_out_counts_as_missing(protocol: str, count: int, tmp_path: Path) -> None:
    """For the noise, whose excess comes off for those who are there, and in all ledgers; its own is not charged."""
    deployment = Deployment(protocol, tmp_path)
    outcome = left_out(deployment, count).outcome
    assert deployment.server.excluded == tuple(NAMES[:count])
    assert outcome.survivors == tuple(NAMES[count:])
    theirs = list(deployment.books.entries())[-1]
    assert theirs["sum"]["survivors"] == len(NAMES) - count
    for name in NAMES[count:]:
        assert deployment.phases(name) == ["genesis", "reserve", "commit"]
        assert list(deployment.ledgers[name].entries())[-1]["cost"] == theirs["cost"]
    assert {tuple(deployment.phases(name)) for name in NAMES[:count]} == {("genesis",)}


@pytest.mark.parametrize("protocol", ["secagg"])
def test_too_many_left_out_cost_nobody_a_budget(protocol: str, tmp_path: Path) -> None:
    """Fewer than ``min_contributors`` stay: the round ends before anybody has reserved. A phase later it would not."""
    deployment = Deployment(protocol, tmp_path)
    with pytest.raises(ThresholdError, match="clients dealt shares that hold, at least 7 are needed"):
        left_out(deployment, 4)
    assert {tuple(deployment.phases(name)) for name in NAMES} == {("genesis",)}

    (tmp_path / "later").mkdir()
    later = Deployment(protocol, tmp_path / "later")
    with pytest.raises(SecAggError):
        later.run(**dict.fromkeys(NAMES[:4], "upload"))
    assert {tuple(later.phases(name)) for name in NAMES} == {("genesis", "reserve")}


@pytest.mark.parametrize("protocol", ["secagg"])
def test_another_secret_costs_one_budget_and_its_dealer_is_known(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Deployment(protocol, tmp_path)
    deal_another(monkeypatch, NAMES[3], SELF_MASK)
    with pytest.raises(PeerError, match="another secret than the advertised one") as refused:
        deployment.run()
    assert refused.value.culprits == (NAMES[3],)
    assert {tuple(deployment.phases(name)) for name in NAMES} == {("genesis", "reserve", "commit")}


@pytest.mark.parametrize("protocol", ["secagg+"])
def test_a_dealer_of_nonsense_costs_nobody_anything(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its boxes cannot be opened, and it falls silent: what once burnt everybody's budget."""
    deployment, honest = Deployment(protocol, tmp_path), PairwiseClient._deal

    def deal(machine: Any) -> Dealt:
        return nonsense(machine, holders_of(machine, 99)) if machine.identity.name == NAMES[3] else honest(machine)

    monkeypatch.setattr(PairwiseClient, "_deal", deal)
    faults = Faults({NAMES[3]: "defend"}, shuffled=bytes(32), duplicated=frozenset({"share", "complain", "upload"}))
    updates = {name: np.ones(8) for name in NAMES}
    simulation = simulate(deployment.server, deployment.clients, updates.get, faults=faults)
    assert simulation.outcome.survivors == tuple(name for name in NAMES if name != NAMES[3])
    assert deployment.server.excluded == (NAMES[3],)
    assert deployment.phases(NAMES[3]) == ["genesis"]
    assert len(deployment.server.liars) == 0
