"""Whole rounds: lots and dropouts, who is done when, liars and cheats, noise and ledgers, restarts, no compiler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
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
from protocols.oneshot.client import OneshotClient
from protocols.oneshot.committee import Committee, sortition
from protocols.oneshot.messages import (
    Answer,
    ConsistencySignatures,
    Contribution,
    Delivery,
    Join,
    Members,
    Upload,
    Vote,
)
from protocols.oneshot.parameters import parameters_of
from protocols.oneshot.server import OneshotServer
from protocols.roster import SERVER
from protocols.rounds.server import ServerRound
from protocols.rounds.survivors import check_consistency
from protocols.server import serve
from protocols.simulation.network import Envelope, Faults, Simulation, simulate
from secagg.crypto.field import PRIME
from secagg.crypto.keys import SigningKey
from secagg.crypto.lattice import packing
from secagg.errors import PeerError, PolicyError, ThresholdError
from secagg.extras import hint
from tests.controls import switch_off
from tests.scenes.journals import KeptJournal
from tests.scenes.oneshot_deployment import Scene, changing, complaint, hearing, lie, scene, spoiled

ROOT = Path(__file__).resolve().parents[3]
SKELLAM = NoiseSpec(Family.SKELLAM, Fraction(4_000_000), dropouts=3, colluders=1, components=3)
MANY = replace(SKELLAM, dropouts=6, colluders=3)
LOT = {"corrupt": "0.02", "dropout": "0.05"}  # of 129: a small committee
ten_or_many = pytest.mark.parametrize(
    ("count", "rates"), [pytest.param(10, {}, id="ten"), pytest.param(129, LOT, id="many", marks=pytest.mark.long)]
)
"""By default among ten clients, all of whom are members; in the long version among 129, with a small committee."""


def run(here: Scene, faults: Faults | None = None, **options: Any) -> tuple[Simulation, OneshotServer]:
    server = serve(here.plan, here.roster, **options)
    assert isinstance(server, OneshotServer)
    return simulate(server, here.clients(), here.updates().get, faults=faults), server


def check_sum(here: Scene, total: np.ndarray, survivors: tuple[str, ...] | set[str]) -> None:
    updates = here.updates()
    assert total.tolist() == sum(updates[name] for name in survivors).tolist()  # type: ignore[union-attr]


def members_of(here: Scene) -> list[str]:
    return [here.names[number] for number in sorted(sortition(here.plan, here.roster))]


def others_of(here: Scene) -> list[str]:
    return [name for name in here.names if name not in members_of(here)]


# Lots and dropouts.


def test_a_round_by_lot_with_dropouts_in_every_phase() -> None:
    """150 clients, of which 15 may fall silent: members and others, in each phase."""
    here = scene(150, 40, dropout="0.1", min_contributors=100)
    members, others = members_of(here), others_of(here)
    assert (len(members), parameters_of(here.plan).quorum) == (40, 28)
    phases = ["join", "upload", "consistency", "reveal"]
    silent = dict(zip(members[3::7], phases, strict=False)) | dict(zip(others[::9], phases * 4, strict=False))
    assert len(silent) > 12
    result, server = run(here, Faults(silent))
    outcome, event = result.outcome, result.outcome.event
    gone = {name for name, phase in silent.items() if phase in ("join", "upload")}
    assert set(outcome.survivors) == set(here.names) - gone
    check_sum(here, outcome.total, outcome.survivors)
    assert not result.incidents
    assert set(event.advertised) == {name for name in here.names if silent.get(name) != "join"}
    assert event.survivors == outcome.survivors
    assert (event.plan, event.excess_left, server.outliers) == (here.plan, (), ())
    signers = dict(event.signatures)
    assert set(signers) == {name for name in members if silent.get(name, "reveal") == "reveal"}
    for name, signature in signers.items():
        check_consistency(here.roster, here.roster.number(name), signature, event.survivors_digest)


def test_whoever_has_no_seat_may_go_after_its_upload() -> None:
    """All of them do: the sum is theirs all the same, and who stays is told who was in it."""
    here = scene(129, **LOT)
    others = others_of(here)
    result, _ = run(here, Faults(dict.fromkeys(others, "consistency")))
    assert set(result.outcome.survivors) == set(here.names)
    check_sum(here, result.outcome.total, result.outcome.survivors)


def test_a_member_less_than_a_quorum_ends_the_round() -> None:
    here = scene(10)
    quorum = parameters_of(here.plan).quorum
    for phase, what in (("join", "members of the committee came"), ("consistency", "members signed"),
                        ("reveal", "members answered")):  # fmt: skip
        enough = dict.fromkeys(here.names[quorum:], phase)
        result, _ = run(here, Faults(enough))
        check_sum(here, result.outcome.total, result.outcome.survivors)
        with pytest.raises(ThresholdError, match=f"{quorum - 1} {what}, at least {quorum}"):
            run(here, Faults(enough | {here.names[0]: phase}))


@pytest.mark.parametrize("phase", ["join", "upload"])
def test_too_few_contributors_end_the_round(phase: str) -> None:
    """All members are there, but for the sum one is missing."""
    here = scene(129, min_contributors=129, policy={"min_contributors": 129}, **LOT)
    with pytest.raises(ThresholdError, match="128 clients"):
        run(here, Faults({others_of(here)[0]: phase}))


def drive(here: Scene, clients: dict[str, Client], server: ServerRound) -> Iterator[tuple[str, str]]:
    """A round without faults; yields (phase, name) after each answer has been made and before it is delivered."""
    updates = here.updates()
    replies = [(name, client.start(here.plan, updates[name])) for name, client in clients.items()]
    while server.outcome is None:
        for name, frame in replies:
            yield str(server.phase), name
            server.receive(name, frame)
        server.close(server.phase)
        replies = [(name, clients[name].receive(frame)) for name, frame in server.outbox()]


def test_who_is_waited_for_and_who_is_done() -> None:
    """In each phase those who owe an answer, and no others; a contributor is done with its second or third message."""
    here = scene(129, **LOT)
    clients, server = here.clients(), serve(here.plan, here.roster)
    members, seen = members_of(here), dict[str, list[str]]()
    for phase, name in drive(here, clients, server):
        if phase not in seen:
            seen[phase] = list(server.waiting_for)
        if phase == "upload":
            assert clients[name].phase == ("consistency" if name in members else "reveal")
        assert clients[name].done == (phase == "reveal")
    assert seen == {"join": here.names, "upload": here.names, "consistency": members, "reveal": members}
    assert server.waiting_for == ()
    assert all(client.done for client in clients.values())


@pytest.mark.thinned(2)
@pytest.mark.parametrize("components", [3, 0])
def test_with_excess_survivors_are_waited_for_too(components: int) -> None:
    """Without, nobody needs contributors any more, as in a sum without noise."""
    here = noised(129, replace(MANY, components=components), **LOT)
    server = serve(here.plan, here.roster, ledger=DEAF)
    waited = dict[str, tuple[str, ...]]()
    for phase, _ in drive(here, here.clients(), server):
        waited.setdefault(phase, server.waiting_for)
    assert waited["reveal"] == tuple(here.names if components else members_of(here))


# Frames that get lost.


def lose(phase: str, name: str) -> Faults:
    return Faults(corrupted=lambda e: b"" if (e.phase, e.sender) == (phase, name) else e.frame)


def test_a_member_whose_upload_is_lost_still_serves() -> None:
    """It is not in the sum, and does not answer for it, but signs and opens."""
    here = scene(10)
    result, _ = run(here, lose("upload", here.names[4]))
    assert set(result.outcome.survivors) == set(here.names) - {here.names[4]}
    check_sum(here, result.outcome.total, result.outcome.survivors)
    assert here.names[4] in dict(result.outcome.event.signatures)
    assert len(result.incidents) == 1


def test_a_member_whose_signature_is_lost_is_not_blamed_for_its_share() -> None:
    here = scene(10)
    result, server = run(here, lose("consistency", here.names[4]))
    assert set(result.outcome.survivors) == set(here.names)
    check_sum(here, result.outcome.total, result.outcome.survivors)
    assert here.names[4] not in dict(result.outcome.event.signatures)
    assert [incident.phase for incident in result.incidents] == ["consistency"]
    assert server.outliers == ()


# Who lies.


def liars(here: Scene, names: list[str], missing: list[str] | None = None) -> tuple[Simulation, OneshotServer]:
    faults = Faults(dict.fromkeys(missing or [], "reveal"), corrupted=changing(here, "reveal", set(names), lie(here)))
    return run(here, faults)


@pytest.mark.parametrize("count", [1, 2])
def test_wrong_shares_are_found_and_done_without(count: int) -> None:
    """Ten answers, six are needed: up to two liars."""
    here = scene(10)
    assert parameters_of(here.plan).quorum == 6
    wrong = [here.names[2], here.names[9]][:count]
    result, server = liars(here, wrong)
    check_sum(here, result.outcome.total, set(here.names))
    assert server.outliers == tuple(wrong)


def test_a_single_answer_too_many_is_enough_against_one_that_lies_blindly() -> None:
    here = scene(10)
    result, server = liars(here, [here.names[2]], missing=here.names[7:])
    check_sum(here, result.outcome.total, set(here.names))
    assert server.outliers == (here.names[2],)


@pytest.mark.parametrize(("wrong", "answers"), [(1, 6), (2, 7), (3, 10), (6, 10)])
def test_more_liars_than_can_be_found_end_the_round(wrong: int, answers: int) -> None:
    here = scene(10)
    with pytest.raises(PeerError) as caught:
        liars(here, here.names[:wrong], missing=here.names[answers:])
    assert set(caught.value.culprits) >= set(here.names[:wrong])


def nudged(answer: Answer) -> Answer:
    """A lie of one who knows how shares are used. Among holders 1, 2, ..., Q Lagrange's weights are integers, and not
    large: a share that is off by one moves each secret of its polynomial by little, so they all look like secrets."""
    share = np.frombuffer(answer.share, "<u4").copy()
    share[0] = (int(share[0]) + 1) % PRIME
    return replace(answer, share=share.tobytes())


def test_a_wrong_sum_that_passes_for_one_does_not_open_the_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six answers, one a nudge: the secret is in range, its product with the public polynomials is not. The control:
    without the range check of coefficients there is an outcome, and it is wrong."""
    here = scene(10, 3000)
    changed = changing(here, "reveal", {here.names[0]}, nudged)
    faults = Faults(dict.fromkeys(here.names[6:], "reveal"), corrupted=changed)
    with pytest.raises(PeerError, match="shares that do not open the sum") as caught:
        run(here, faults)
    assert set(caught.value.culprits) == set(here.names)  # also who is silent by now: its vector may be what is wrong
    switch_off(monkeypatch, packing, "decode", "not arithmetic.all_below(limbs, constants.limit)")
    result, _ = run(here, faults)
    assert result.outcome.total.tolist() != sum(here.updates().values()).tolist()


@pytest.mark.parametrize("answers", [7, 8, 10])
def test_a_nudge_is_found_with_one_answer_too_many_and_nobody_else_is_exposed(answers: int) -> None:
    """Seven answers: six of them fit together in seven ways, and each looks like secrets. One opens the vector."""
    here = scene(10, 3000)
    changed = changing(here, "reveal", {here.names[0]}, nudged)
    result, server = run(here, Faults(dict.fromkeys(here.names[answers:], "reveal"), corrupted=changed))
    check_sum(here, result.outcome.total, set(here.names))
    assert server.outliers == (here.names[0],)


# Whose shares do not open.


class Cheat:
    """A client that spoils some members' boxes and signs that."""

    def __init__(self, here: Scene, server: OneshotServer, places: set[int]) -> None:
        self._here, self._server, self._places = here, server, places

    def __call__(self, upload: Upload) -> Upload:
        boxes = spoiled(self._here, upload.boxes, self._places)
        return self._here.signed(self._server._committee, replace(upload, boxes=boxes))


def cheated(
    here: Scene, places: set[int], also: dict[str, Vote] | None = None, silent: dict[str, str] | None = None
) -> tuple[Simulation, OneshotServer]:
    """client-003 cheats those members; ``also``: what others say instead of consenting."""
    server = serve(here.plan, here.roster)
    assert isinstance(server, OneshotServer)
    cheat = changing(here, "upload", {here.names[3]}, Cheat(here, server, places))

    def corrupted(envelope: Envelope) -> bytes:
        if envelope.phase == "consistency" and envelope.sender in (also or {}):
            return here.encode((also or {})[envelope.sender])
        return cheat(envelope)

    faults = Faults(dropouts=silent or {}, corrupted=corrupted)
    return simulate(server, here.clients(), here.updates().get, faults=faults), server


def test_shares_that_do_not_open_cost_the_members_concerned() -> None:
    here = scene(10)
    result, _ = cheated(here, {0, 5, 9})
    assert set(result.outcome.survivors) == set(here.names)
    check_sum(here, result.outcome.total, result.outcome.survivors)
    assert set(dict(result.outcome.event.signatures)) == set(here.names) - {here.names[i] for i in (0, 5, 9)}


def test_a_cheat_of_too_many_members_is_named() -> None:
    here = scene(10)
    assert parameters_of(here.plan).corrupt == 1
    with pytest.raises(PeerError, match="do not open") as caught:
        cheated(here, {0, 5, 6, 8, 9})
    assert caught.value.culprits == (here.names[3],)


def test_a_cheat_of_just_so_many_that_nobody_may_be_missing_is_named() -> None:
    """It leaves a quorum of signatures, and then one member falls silent, as is planned for."""
    here = scene(10)
    assert parameters_of(here.plan).quorum == 6
    with pytest.raises(PeerError, match="do not open") as caught:
        cheated(here, {0, 5, 6, 9}, silent={here.names[7]: "reveal"})
    assert caught.value.culprits == (here.names[3],)


def test_with_more_missing_than_complain_nobody_is_blamed() -> None:
    here = scene(10)
    with pytest.raises(ThresholdError, match="3 members answered, at least 6 are needed"):
        cheated(here, {0, 9}, silent=dict.fromkeys([here.names[i] for i in (1, 2, 4, 6, 7)], "reveal"))


def test_a_complaint_that_nobody_shares_blames_both_sides() -> None:
    """Five say that they cannot open, each of another client: with one corrupt member nobody is convicted."""
    here = scene(10)
    complaints = {here.names[i]: complaint((i + 1) % 10) for i in (0, 2, 4, 6, 8)}
    with pytest.raises(PeerError, match="do not open") as caught:
        cheated(here, set(), complaints)
    assert set(caught.value.culprits) == set(here.names)


def test_a_member_that_complains_for_nothing_is_done_without() -> None:
    here = scene(10)
    result, _ = cheated(here, set(), {here.names[1]: complaint(0, 7)})
    check_sum(here, result.outcome.total, set(here.names))
    assert not result.incidents


@pytest.mark.parametrize(
    "wrong",
    [complaint(7, 2), complaint(2, 2), complaint(3, 99), Vote(bytes(64), (2,)), Vote(b"", ()),
     Vote(bytes(64), ())],
    ids=["order", "twice", "unknown", "both", "neither", "forged"],
)  # fmt: skip
def test_complaints_and_signatures_that_bounce(wrong: Vote) -> None:
    here = scene(10)
    result, _ = cheated(here, set(), {here.names[1]: wrong})
    (incident,) = result.incidents
    assert incident.error.culprits == (here.names[1],)  # type: ignore[attr-defined]
    check_sum(here, result.outcome.total, set(here.names))


@pytest.mark.parametrize("filling", [b"", b"\xff", b"\xff\xff\xff\x7f"], ids=["size", "word", "prime"])
def test_a_share_of_another_size_or_not_reduced_is_one_that_does_not_open(
    filling: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealed as it should be, so that only members can see it."""
    here, honest = scene(10), OneshotClient._opened

    def opened(self: OneshotClient, contribution: Contribution) -> bytes:
        share = honest(self, contribution)
        if contribution.header.client != 3:
            return share
        return (filling * len(share))[: len(share)] if filling else share[:-4]

    monkeypatch.setattr(OneshotClient, "_opened", opened)
    with pytest.raises(PeerError, match="do not open") as caught:
        run(here)
    assert caught.value.culprits == (here.names[3],)


# Uploads and answers that the server turns away.


def reduced_no_more(vector: bytes) -> bytes:
    return b"\xff" * 8 + vector[8:]


FORGED: dict[str, Callable[[Scene, Committee, Upload], Upload]] = {
    "somebody else's": lambda here, seats, u: here.signed(seats, u, client=4),
    "of nobody": lambda here, seats, u: here.signed(seats, u, client=99),
    "a key of small order": lambda here, seats, u: here.signed(seats, u, key=bytes(32)),
    "unsigned": lambda here, seats, u: replace(u, header=replace(u.header, key=b"\x09" + bytes(31))),
    "another vector": lambda here, seats, u: replace(u, vector=bytes(len(u.vector))),
    "other boxes": lambda here, seats, u: replace(u, boxes=bytes(len(u.boxes))),
    "a box less": lambda here, seats, u: here.signed(seats, replace(u, boxes=u.boxes[: len(u.boxes) * 9 // 10])),
    "a short vector": lambda here, seats, u: here.signed(seats, replace(u, vector=u.vector[:-1])),
    "a vector not reduced": lambda here, seats, u: here.signed(seats, replace(u, vector=reduced_no_more(u.vector))),
}


@pytest.mark.parametrize("what", FORGED)
def test_uploads_that_are_turned_away(what: str) -> None:
    """Nothing of them is added: the sum of the others is exact."""
    here = scene(10)
    server = serve(here.plan, here.roster)
    forge = changing(here, "upload", {here.names[3]}, lambda upload: FORGED[what](here, server._committee, upload))  # type: ignore[attr-defined]
    result = simulate(server, here.clients(), here.updates().get, faults=Faults(corrupted=forge))
    (incident,) = result.incidents
    assert (incident.phase, incident.error.culprits) == ("upload", (here.names[3],))  # type: ignore[attr-defined]
    assert set(result.outcome.survivors) == set(here.names) - {here.names[3]}
    check_sum(here, result.outcome.total, result.outcome.survivors)


@ten_or_many
def test_answers_of_members_that_are_turned_away(count: int, rates: dict[str, str]) -> None:
    """None from a member that has signed, or a share of another size or not reduced."""
    here = scene(count, **rates)
    member = members_of(here)[0]
    share = lie(here)(Answer(b"", b"")).share
    for sent in (b"", share[:-4], b"\xff" * len(share)):
        check_turned_away(here, member, sent)


def test_an_answer_of_a_client_without_a_seat_is_turned_away() -> None:
    here = scene(129, **LOT)
    check_turned_away(here, others_of(here)[0], lie(here)(Answer(b"", b"")).share)


def check_turned_away(here: Scene, name: str, sent: bytes) -> None:
    forge = changing(here, "reveal", {name}, lambda answer: replace(answer, share=sent))
    result, server = run(here, Faults(corrupted=forge))
    (incident,) = result.incidents
    assert (incident.phase, incident.error.culprits) == ("reveal", (name,))  # type: ignore[attr-defined]
    check_sum(here, result.outcome.total, set(here.names))
    assert server.outliers == ()


# What clients turn away. (What a server could gain by it is in tests/adversarial.)


def flipped(signature: bytes) -> bytes:
    return bytes([signature[0] ^ 1]) + signature[1:]


def other_survivors(heard: ConsistencySignatures) -> ConsistencySignatures:
    return replace(heard, survivors=bytes([heard.survivors[0] & 0xFE]) + heard.survivors[1:])


def unsigned_seat(heard: Members) -> Members:
    seat = replace(heard.members[3], signature=flipped(heard.members[3].signature))
    return Members((*heard.members[:3], seat, *heard.members[4:]))


def unsigned_header(heard: Delivery) -> Delivery:
    one = heard.contributions[3]
    one = replace(one, header=replace(one.header, signature=flipped(one.header.signature)))
    return Delivery((*heard.contributions[:3], one, *heard.contributions[4:]))


def unsigned_consent(heard: ConsistencySignatures) -> ConsistencySignatures:
    one = replace(heard.signatures[3], signature=flipped(heard.signatures[3].signature))
    return replace(heard, signatures=(*heard.signatures[:3], one, *heard.signatures[4:]))


TURNED_AWAY: list[tuple[str, str, Callable[[Any], object]]] = [
    ("upload", "members out of order", lambda heard: Members(heard.members[::-1])),
    ("upload", "members out of order", lambda heard: Members((heard.members[0], *heard.members))),
    ("upload", "5 members came", lambda heard: Members(heard.members[:5])),
    ("upload", "is left out", lambda heard: Members(heard.members[1:])),
    ("upload", "signature", unsigned_seat),
    ("consistency", "contributors out of order", lambda heard: Delivery(heard.contributions[::-1])),
    (
        "consistency",
        "contributors out of order",
        lambda heard: Delivery((heard.contributions[0], *heard.contributions)),
    ),
    ("consistency", "9 contributors, at least 10", lambda heard: Delivery(heard.contributions[:-1])),
    ("consistency", "signature", unsigned_header),
    ("reveal", "other survivors", other_survivors),
    ("reveal", "signers out of order", lambda heard: replace(heard, signatures=heard.signatures[::-1])),
    ("reveal", "signers out of order", lambda heard: replace(heard, signatures=heard.signatures[:1] * 6)),
    ("reveal", "5 members signed", lambda heard: replace(heard, signatures=heard.signatures[:-1])),
    ("reveal", "signature", unsigned_consent),
]


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("phase", "reason", "forge"), TURNED_AWAY)
def test_what_a_member_turns_away(phase: str, reason: str, forge: Callable[[Any], object]) -> None:
    here = scene(10, min_contributors=10 if phase == "consistency" else 3)
    result, _ = run(here, Faults(corrupted=hearing(here, phase, here.names[0], forge)))
    incident, *later = result.incidents  # then it hears of what it has no part in
    assert {one.party for one in later} <= {here.names[0]}
    assert (incident.phase, incident.party) == (phase, here.names[0])
    assert reason in str(incident.error)
    assert not isinstance(incident.error, PeerError) or SERVER in incident.error.culprits
    check_sum(here, result.outcome.total, result.outcome.survivors)


def test_more_members_than_seats_are_turned_away() -> None:
    """Eight of ten may take part; a ninth has signed a seat, too."""
    here = scene(10, clients=8)
    ninth = here.decode(here.client(here.names[8]).start(here.plan, here.updates()[here.names[8]])).member
    forge = hearing(here, "upload", here.names[0], lambda heard: Members((*heard.members, ninth)))
    result, _ = run(here, Faults(dict.fromkeys(here.names[8:], "join"), corrupted=forge))
    incident, *_ = result.incidents
    assert "9 members for a committee of 8" in str(incident.error)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("reason", "forge"),
    [
        ("2 survivors, at least 123", lambda heard: replace(heard, survivors=b"\3" + bytes(len(heard.survivors) - 1))),
        ("not a set of the clients", lambda heard: replace(heard, survivors=heard.survivors + b"\0")),
        ("members signed", lambda heard: replace(heard, signatures=heard.signatures[:-1])),
    ],
)  # fmt: skip
def test_what_a_contributor_turns_away(reason: str, forge: Callable[[Any], object]) -> None:
    """It has signed nothing, and answers nothing but to the signatures of a quorum, either."""
    here = noised(129, MANY, **LOT)
    other = others_of(here)[0]
    result, _ = run(here, Faults(corrupted=hearing(here, "reveal", other, forge)), ledger=DEAF)
    (incident,) = result.incidents
    assert reason in str(incident.error)
    assert result.outcome.event.excess_left == (other,)


# Committee.


def joined(here: Scene, sender: str, join: Join) -> Simulation:
    return run(here, Faults(corrupted=changing(here, "join", {sender}, lambda honest: join)))[0]


@pytest.mark.long
def test_seats_are_taken_by_those_on_whom_the_lot_fell_in_their_own_name() -> None:
    here = scene(129, **LOT)
    member, stranger = members_of(here)[0], others_of(here)[0]
    own, theirs = (here.decode(here.client(name).start(here.plan, here.updates()[name])) for name in (member, stranger))
    assert theirs == Join(None)
    assert isinstance(own, Join)
    for sender, join in ((member, Join(None)), (stranger, own), (members_of(here)[1], own)):
        (incident,) = joined(here, sender, join).incidents
        assert (incident.phase, incident.error.culprits) == ("join", (sender,))  # type: ignore[attr-defined]


def test_clients_and_server_draw_the_same_and_a_wrong_beacon_is_refused() -> None:
    here = scene(129, **LOT)
    client = here.client(here.names[0])
    with pytest.raises(PolicyError, match="beacon"):
        client.start(replace(here.plan, beacon=b"the server's own"), np.zeros(5, np.int64))
    result, _ = run(scene(129, beacon=b"thrown again", **LOT))
    assert set(dict(result.outcome.event.signatures)) == set(members_of(scene(129, beacon=b"thrown again", **LOT)))


# Noise.


class Deaf:
    """A ledger that writes nothing, for what is not about ledgers."""

    def reserve(self, what: object) -> None: ...
    def commit(self, what: object) -> None: ...
    def abort(self, what: object, reason: str) -> None: ...


DEAF: Any = Deaf()


def noised(n: int, noise: NoiseSpec = SKELLAM, length: int = 50, **options: Any) -> Scene:
    least = n - noise.dropouts
    return scene(n, length, bits=5, noise=noise, min_contributors=least, policy={"min_contributors": 3}, **options)


def with_kept(here: Scene, missing: int, silent: dict[str, str]) -> tuple[Simulation, dict[str, np.ndarray]]:
    """A round, and what each client keeps of its noise when so many are missing."""
    kept, drawn = list[np.ndarray](), NoiseSpec.draw

    def spy(self: NoiseSpec, clients: int, coordinates: int, keep: bytes, chain: bytes) -> Any:
        whole, level = drawn(self, clients, coordinates, keep, chain), self.removal_level(missing)
        excess = level < self.components
        kept.append(whole - self.excess(clients, coordinates, self.seed(chain, level), level) if excess else whole)
        return whole

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NoiseSpec, "draw", spy)
        result, _ = run(here, Faults(silent), ledger=DEAF)
    uploaded = [name for name in here.names if silent.get(name) != "join"]
    return result, dict(zip(uploaded, kept, strict=True))


@pytest.mark.parametrize("missing", [0, 2, 3])
def test_the_sum_is_inputs_and_kept_noise_exactly(missing: int) -> None:
    """With excess (its seeds go up in REVEAL) and without (as many are missing as the noise allows for)."""
    here = noised(10)
    result, kept = with_kept(here, missing, dict.fromkeys(here.names[:missing], "join"))
    updates = here.updates()
    expected = sum(updates[name] + kept[name] for name in result.outcome.survivors)
    assert len(result.outcome.survivors) == 10 - missing
    assert result.outcome.total.tolist() == expected.tolist()  # type: ignore[union-attr]
    assert any(noise.any() for noise in kept.values())
    assert result.outcome.event.excess_left == ()


def test_excess_of_those_who_left_stays_and_they_are_named() -> None:
    """Contributors without a seat, of whom nobody waits for more."""
    here = noised(129, MANY, **LOT)
    left = others_of(here)[:2]
    result, kept = with_kept(here, 0, dict.fromkeys(left, "reveal"))
    assert result.outcome.event.excess_left == tuple(left)
    expected = sum(update + kept[name] for name, update in here.updates().items())
    excess = result.outcome.total - expected
    assert excess.any()
    variance = sum(float(MANY.component_variance(129, level)) for level in range(1, 4))
    assert abs(excess).max() < 10 * np.sqrt(2 * variance)


@pytest.mark.parametrize("excess", [b"", b"s" * 31, None], ids=["none", "short", "unasked"])
def test_another_seed_than_asked_for_bounces(excess: bytes | None) -> None:
    here = noised(10, SKELLAM if excess is not None else replace(SKELLAM, components=0))
    forged = changing(
        here, "reveal", {here.names[0]}, lambda a: replace(a, excess=b"s" * 32 if excess is None else excess)
    )
    result, _ = run(here, Faults(corrupted=forged), ledger=DEAF)
    (incident,) = result.incidents
    assert incident.error.culprits == (here.names[0],)  # type: ignore[attr-defined]
    assert result.outcome.event.excess_left == ((here.names[0],) if excess is not None else ())


# Ledgers.


def new_ledger(path: Path) -> Ledger:
    budget = Budget(Fraction(30), Fraction(1, 1000), slack=Fraction(1, 10**6))
    return Ledger.create(path, SigningKey(b"l" * 32), budget, user_level(Relation.ZERO_OUT), run="test", elsewhere="-")


def phases(ledger: Ledger) -> list[str]:
    return [entry["phase"] for entry in ledger.entries()]


def test_clients_ledgers_say_what_each_heard(tmp_path: Path) -> None:
    """A member, a contributor that stays, one that leaves after UPLOAD, one that never uploads; and the server's."""
    here = noised(129, MANY, **LOT)
    (member, *_), (stays, leaves, absent, *_) = members_of(here), others_of(here)
    own = {name: new_ledger(tmp_path / f"{name}.db") for name in (member, stays, leaves, absent)}
    ledger, clients = new_ledger(tmp_path / "server.db"), here.clients()
    clients |= {name: here.client(name, journal=KeptJournal(), ledger=book) for name, book in own.items()}
    server = serve(here.plan, here.roster, ledger=ledger)

    def lost(envelope: Envelope) -> bytes:
        return b"" if (envelope.phase, envelope.receiver) == ("upload", absent) else envelope.frame

    faults = Faults({leaves: "consistency"}, corrupted=lost)
    heard = list[str]()

    def before(envelope: Envelope) -> bytes:
        heard.append(phases(ledger)[-1]) if envelope.phase == "reveal" else None
        if envelope.phase == "reveal" and envelope.receiver == leaves:
            return b""  # it is gone, and hears nothing
        return lost(envelope)

    simulate(server, clients, here.updates().get, faults=replace(faults, corrupted=before))
    assert set(heard) == {"commit"}
    assert phases(own[member]) == phases(own[stays]) == phases(ledger) == ["genesis", "reserve", "commit"]
    assert phases(own[leaves]) == ["genesis", "reserve"]
    assert phases(own[absent]) == ["genesis"]
    sums = [list(book.entries())[-1]["sum"] for book in (ledger, own[member], own[stays])]
    mine, *theirs = ({key: value for key, value in one.items() if key != "signatures"} for one in sums)
    assert theirs == [mine, mine]
    assert mine["survivors"] == 128
    assert all(len(one["signatures"]) >= parameters_of(here.plan).quorum for one in sums)
    for book in (*own.values(), ledger):
        book.close()


# Restarts and replays.


def test_a_restarted_client_says_the_same(tmp_path: Path) -> None:
    """A member and a contributor start anew before every message, from their journals."""
    here = scene(129, **LOT)
    updates, fragile = here.updates(), (members_of(here)[0], others_of(here)[0])

    def restarted(name: str) -> Client:
        return here.client(name, journal=SqliteJournal(tmp_path / f"{name}.db"))

    clients, server = here.clients(), serve(here.plan, here.roster)
    frames = {name: clients[name].start(here.plan, updates[name]) for name in here.names if name not in fragile}
    frames |= {name: restarted(name).start(here.plan, updates[name]) for name in fragile}
    said = dict[str, list[bytes]]()
    while server.outcome is None:
        for name, frame in frames.items():
            server.receive(name, frame)
        server.close(server.phase)
        frames = {}
        for name, frame in server.outbox():
            if name not in fragile:
                frames[name] = clients[name].receive(frame)
                continue
            client = restarted(name)
            client.start(here.plan, updates[name])
            frames[name] = client.receive(frame)
            again = restarted(name)
            assert again.start(here.plan, updates[name]) == frames[name]
            assert again.receive(frame) == frames[name]
            said.setdefault(name, []).append(frames[name])
    check_sum(here, server.outcome.total, set(here.names))
    assert {name: len(frames) for name, frames in said.items()} == dict(zip(fragile, (3, 2), strict=True))


@ten_or_many
def test_seeded_rounds_replay_byte_for_byte(count: int, rates: dict[str, str]) -> None:
    def once(session: bytes) -> list[bytes]:
        frames, here = list[bytes](), scene(count, session=session, **rates)

        def keep(envelope: Envelope) -> bytes:
            frames.append(envelope.frame)
            return envelope.frame

        run(here, Faults({members_of(here)[2]: "consistency"}, corrupted=keep))
        return frames

    first = once(b"a" * 16)
    assert once(b"a" * 16) == first
    assert not set(once(b"b" * 16)) & set(first)


# Without the compiler.

WITHOUT = """
import sys
sys.modules["numba"] = None
from secagg.cli import main
assert main(["protocols"]) == 0
assert main("params --protocol oneshot --clients 1000 --dropout 0.1 --corrupt 0.1 --adversary active".split()) == 0
import numpy as np
from protocols.oneshot.parameters import lattice_of, sharing_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.simulation.network import local_clients
from protocols.server import serve
from secagg.encoding import Encoding
from secagg.errors import UsageError
roster, clients = local_clients(4, Policy(min_contributors=2, protocols={"oneshot"}))
plan = RoundPlan.propose("oneshot", roster, Encoding.integers(3), min_contributors=2)
assert RoundPlan.decode(plan.encode()) == plan
assert lattice_of(plan).expansion and sharing_of(plan).share_bytes
for what in (lambda: serve(plan, roster), lambda: clients["client-0"].start(plan, np.zeros(3))):
    try:
        what()
    except UsageError as error:
        print(error)
"""


def test_without_the_compiler_rounds_can_be_planned_and_not_run() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [hint("lattice", "the protocol oneshot")] * 2
