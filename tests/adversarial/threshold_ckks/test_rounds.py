"""Threshold CKKS under attack, each time with the check and without it. ``change`` replaces what the server says.

The trust model is a curious server. What it stops of an active one, and what not, is all here: the last section shows
the attacks of an ACTIVE server that do work (docs/threat_model.md names them).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols.client import Client
from protocols.rounds.dealing import share_of
from protocols.rounds.exchange import Exchange
from protocols.rounds.phases import Phase
from protocols.rounds.steps import Step
from protocols.rounds.survivors import SignedBy
from protocols.simulation.network import Envelope
from protocols.threshold_ckks import client as client_module
from protocols.threshold_ckks.client import ThresholdClient
from protocols.threshold_ckks.cohort import Cohort
from protocols.threshold_ckks.messages import (
    SEED,
    SHARES,
    Advert,
    Aggregate,
    Agreements,
    Answer,
    Introduction,
    JointKey,
    Missing,
    Part,
    Recovery,
    Revealed,
    Survivors,
    Upload,
)
from protocols.threshold_ckks.scheme import Scheme
from protocols.threshold_ckks.server import ThresholdServer
from secagg.crypto import labels
from secagg.crypto.dealing import Polynomials
from secagg.crypto.lattice.polynomials import Coefficients, RunningSum
from secagg.crypto.shamir import pack_shares, reconstruct, unpack_shares
from secagg.errors import DecodeError, PeerError, ThresholdError, UsageError
from tests.controls import journal_by_count, switch_off
from tests.reference import lattice as reference
from tests.scenes.threshold_ckks import WIRE, Change, Scene, bitmap, telling

pytestmark = pytest.mark.thinned(4)


def opened(scheme: Scheme, upload: Upload, *seeds: bytes) -> list[int]:
    """A single upload, with the whole key."""
    c0, c1 = scheme.unpack_used(upload.c0), scheme.unpack_all(upload.c1)
    return scheme.decode(c0 + scheme.bare(c1, seeds)).tolist()


def added(scene: Scene) -> Coefficients:
    """The parts of the key that the server has so far."""
    total = RunningSum(scene.scheme.ring, 1)
    for part in scene.server._parts.values():
        total.add(part)
    return total.value()


# The key.


def test_a_contribution_to_the_key_that_is_chosen_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last client has seen all other parts and makes the sum a key of its own: with it, it opens every upload."""

    def attack() -> Scene:
        scene = Scene()
        frames = scene.phases(Phase.KEY)
        *others, last = scene.clients
        for name in others:
            scene.server.receive(name, scene.clients[name].receive(frames[name]))
        part: Any = WIRE.decode(scene.plan, scene.clients[last].receive(frames[last]))
        wanted = scene.scheme.public(b"the attacker's own seed is this!")
        chosen = scene.scheme.pack_key(wanted - added(scene))
        scene.server.receive(last, WIRE.encode(scene.plan, Part(chosen, part.dealt)))
        return scene

    with pytest.raises(PeerError, match="another part of the key") as caught:
        attack()
    assert caught.value.culprits == ("client-5",)

    check = "commitment_to(self.plan, number, part.key) != self._adverts[number].commitment"
    switch_off(monkeypatch, ThresholdServer, "_take_part", check)
    scene = attack()
    scene.server.close(Phase.KEY)
    for name, frame in scene.server.outbox():
        scene.server.receive(name, scene.clients[name].receive(frame))
    scene.server.close(Phase.COMPLAIN)
    for name, frame in scene.server.outbox():
        upload: Any = WIRE.decode(scene.plan, scene.clients[name].receive(frame))
        assert opened(scene.scheme, upload, b"the attacker's own seed is this!") == scene.updates[name].tolist()


def secrets_of(client: Client) -> list[bytes]:
    """The key seed and the key, as they would look on the wire."""
    current: Any = client.current
    secret = current._scheme.secret(current._key_seed)
    packed = current._scheme.pack_key(secret.coefficients())
    return [current._key_seed, packed[: 1 << 10], secret.words.tobytes()[: 1 << 10]]


def leaked(scene: Scene) -> set[str]:
    said = b"".join([e.frame for e in scene.passed if e.sender in scene.clients])
    return {
        name
        for name, client in scene.clients.items()
        if any(secret[at : at + 16] in said for secret in secrets_of(client) for at in range(0, len(secret) - 15, 16))
    }


def test_no_key_and_no_seed_in_what_the_server_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    """In any 16 bytes. Positive controls: boxes without a pad; a key shown as its own public half."""
    scene = Scene()
    scene.run(**{"client-1": "decrypt"})
    assert leaked(scene) == set()

    with monkeypatch.context() as patched:
        seeds = {}  # shown instead of shares: the seed itself, to everybody, under no pad

        def seed_itself(self: Any, holders: list[int]) -> Any:
            words = np.frombuffer(seeds[id(self)] + bytes(20), "<u4")
            return np.broadcast_to(words, (len(holders), len(words))).copy()

        def keeping(self: Any, secrets: list[bytes], *rest: Any) -> None:
            honest(self, secrets, *rest)
            (seeds[id(self)],) = secrets

        honest = Polynomials.__init__
        patched.setattr(Polynomials, "__init__", keeping)
        patched.setattr(Polynomials, "points", seed_itself)
        patched.setattr("protocols.rounds.dealing.padded", lambda points, keys: points)
        scene = Scene()
        scene.fails()
        assert leaked(scene) == set(scene.clients)
    with monkeypatch.context() as patched:
        shown = "self._scheme.secret(self._key_seed).coefficients()"
        switch_off(patched, ThresholdClient, "_key_part", "self._scheme.public(self._key_seed)", shown)
        scene = Scene()
        scene.fails()  # and nothing adds up
        assert leaked(scene) == set(scene.clients)


def swapped(adverts: tuple[Advert, ...], how: str) -> tuple[Advert, ...]:
    first, second, *rest = adverts
    match how:
        case "out of order":
            return (second, first, *rest)
        case "twice":
            return (first, first, *rest)
        case "unsigned":
            return (replace(first, seal_key=b"\x42" * 32), second, *rest)
        case "unknown":
            return (first, second, *rest[:-1], replace(rest[-1], client=99))
        case _:
            return adverts[:4]


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("unsigned", "check_advert"),
        ("too few", "check_cohort"),
        ("out of order", ""),  # these two the tree refuses: its own tests have the controls
        ("twice", ""),
        ("unknown", ""),
    ],
)
def test_cohorts_that_are_none(how: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adverts that no client of the roster signed, one client twice, too few: nobody shows a part of a key."""
    change = telling(Introduction, lambda message: Introduction(swapped(message.adverts, how)))
    scene = Scene(least=5, change=change)
    scene.fails()
    assert scene.said(Part) == {}
    if check:
        monkeypatch.setattr(client_module, check, lambda *_: None)
        monkeypatch.setattr(ThresholdClient, "_pad_key", lambda *_: bytes(32))  # under whatever key
        scene = Scene(least=5, change=change)
        scene.fails()
        assert len(scene.said(Part)) >= 4


def test_a_cohort_without_oneself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are all there: who is left out says nothing, and with the check off it fails in another way."""

    def change(envelope: Envelope, message: Any) -> Any:
        if isinstance(message, Introduction) and envelope.receiver == "client-2":
            return Introduction(message.adverts[:2] + message.adverts[3:])
        return message

    scene = Scene(change=change)
    assert scene.run().outcome.total.tolist() == scene.sum("client-2")
    assert set(scene.said(Part)) == set(scene.clients) - {"client-2"}
    condition = "(own := self.opening()) not in message.adverts"
    switch_off(monkeypatch, ThresholdClient, "_meet", condition, "not (own := self.opening())")
    with pytest.raises(ValueError, match="not in tuple"):
        Scene(change=change).run()


@pytest.mark.parametrize(
    ("members", "condition"),
    [
        ((0, 1, 2), "len(members) < self._least"),
        ((1, 2, 3, 4, 5), "self._u not in members"),
    ],
)
def test_a_joint_key_of_too_few_or_without_oneself(
    members: tuple[int, ...], condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key whose parts the attacker could have all; a key that oneself has no part in."""

    def change(envelope: Envelope, message: Any) -> Any:
        return replace(message, members=bitmap(*members)) if isinstance(message, JointKey) else message

    concerned = {f"client-{u}" for u in (range(6) if len(members) < 4 else set(range(6)) - set(members))}
    scene = Scene(change=change)
    scene.fails()
    assert concerned.isdisjoint(scene.said(Upload))
    switch_off(monkeypatch, ThresholdClient, "_take_key", condition)
    scene = Scene(change=change)
    scene.fails()  # the server's own code expects signatures on another key
    assert concerned & set(scene.said(Upload))


# Uploads.


def evil_upload(monkeypatch: pytest.MonkeyPatch, evil: str, change: Callable[[Any, Upload], Upload]) -> None:
    honest = ThresholdClient._upload

    def upload(self: ThresholdClient) -> Upload:
        return change(self, honest(self)) if self.identity.name == evil else honest(self)

    monkeypatch.setattr(ThresholdClient, "_upload", upload)


def signed(client: Any, upload: Upload) -> Upload:
    """With the evil client's own signature, as it should be."""
    said = client_module.digest(labels.THRESHOLD_UPLOAD, upload.c0, upload.c1)
    parts = (*client._cohort.bound(client._u), client._joint_digest, said)
    return replace(upload, signature=client.identity.key.sign(labels.THRESHOLD_UPLOAD, *parts))


UPLOAD_SIGNATURE = "verify(self.roster.keys[number], upload.signature, labels.THRESHOLD_UPLOAD, *signed)"
BAD_UPLOADS: dict[str, Callable[[Upload], Upload]] = {
    "too short": lambda upload: replace(upload, c0=upload.c0[:-1]),
    "too long": lambda upload: replace(upload, c1=bytes(upload.c1) + b"\0"),
    "nothing": lambda upload: replace(upload, c0=b"", c1=b""),
    "halves exchanged": lambda upload: replace(upload, c0=upload.c1, c1=upload.c0),
    "unreduced": lambda upload: replace(upload, c1=b"\xff" * len(upload.c1)),
}


@pytest.mark.parametrize("what", BAD_UPLOADS)
def test_ciphertexts_of_another_length_or_modulus(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """N and q follow from the plan; what does not fit them is blamed and left out, and nothing of it is added."""
    evil_upload(monkeypatch, "client-2", lambda client, upload: signed(client, BAD_UPLOADS[what](upload)))
    scene = Scene()
    result = scene.run()
    assert result.outcome.total.tolist() == scene.sum("client-2")
    assert [incident.error.culprits for incident in result.incidents] == [("client-2",)]  # type: ignore[attr-defined]


def test_without_the_check_of_residues_the_error_is_none_that_was_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = Scene().scheme
    with pytest.raises(DecodeError, match="not reduced"):
        scheme.unpack_key(b"\xff" * scheme.sizes.key_bytes)
    switch_off(monkeypatch, Coefficients, "unpack", "int(residues.max()) >= q")
    with pytest.raises(UsageError, match="not reduced"):
        scheme.unpack_key(b"\xff" * scheme.sizes.key_bytes)


def stale_upload(monkeypatch: pytest.MonkeyPatch, session: bytes) -> None:
    """client-0 says what it said in another round."""
    old = Scene(session=session)
    old.run()
    upload = old.said(Upload)["client-0"]
    assert old.scheme.sizes == Scene().scheme.sizes
    evil_upload(monkeypatch, "client-0", lambda client, honest: upload)


def test_a_ciphertext_of_another_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed for that round and that key. Without the check it is taken, and with it in the sum there is none."""
    stale_upload(monkeypatch, b"another session!")
    scene = Scene()
    assert scene.run().outcome.total.tolist() == scene.sum("client-0")
    switch_off(monkeypatch, ThresholdServer, "_add", UPLOAD_SIGNATURE)
    scene = Scene()
    scene.fails()
    assert 0 in scene.server._uploaded


def test_a_bad_upload_frames_nobody_who_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """client-0 encrypts under a key of its own, signs that it was the joint one, and falls silent. Its part of the key
    is rebuilt and right, all the others' answers are, and the sum is none."""
    honest = ThresholdClient._upload

    def upload(self: ThresholdClient) -> Any:
        if self.identity.name == "client-0":
            self._joint = self._scheme.public(bytes(32))
        return honest(self)

    monkeypatch.setattr(ThresholdClient, "_upload", upload)

    def named() -> set[str]:
        scene = Scene()
        with pytest.raises(PeerError, match="out of range") as caught:
            scene.run(**{"client-0": "decrypt"})
        return set(caught.value.culprits)

    assert named() == {f"client-{i}" for i in range(6)}
    everybody = "map(self._name, sorted(self._uploaded))"
    switch_off(monkeypatch, ThresholdServer, "_fuse", everybody, everybody.replace("uploaded", "answered"))
    assert named() == {f"client-{i}" for i in range(1, 6)}


def test_an_upload_under_another_joint_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was shown another key than the others signs another key: it is left out, the others have a sum."""

    def change(envelope: Envelope, message: Any) -> Any:
        if isinstance(message, JointKey) and envelope.receiver == "client-4":
            return replace(message, key=scene.scheme.pack_key(scene.scheme.public(bytes(32))))
        return message

    scene = Scene(change=change)
    result = scene.run()
    assert result.outcome.total.tolist() == scene.sum("client-4")
    assert [incident.error.culprits for incident in result.incidents] == [("client-4",)]  # type: ignore[attr-defined]
    switch_off(monkeypatch, ThresholdServer, "_add", UPLOAD_SIGNATURE)
    scene = Scene(change=change)
    scene.fails()
    assert 4 in scene.server._uploaded


def test_an_advert_in_somebody_elses_name(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    frame = scene.clients["client-1"].start(scene.plan, scene.updates["client-1"])
    with pytest.raises(PeerError, match="somebody else's name"):
        scene.server.receive("client-2", frame)
    switch_off(monkeypatch, ThresholdServer, "_admit", "advert.client != number")
    scene.server.receive("client-2", frame)


def test_two_plans_make_two_rounds() -> None:
    """Clients that were shown another plan sign what does not fit, from the first message on."""
    scene = Scene()
    frame = scene.clients["client-1"].start(replace(scene.plan, model=b"x" * 32), scene.updates["client-1"])
    with pytest.raises(PeerError, match="bad signature"):
        scene.server.receive("client-1", frame)


# A sum of enough, decrypted once.


@pytest.mark.parametrize(
    ("survivors", "condition"),
    [
        ((0, 1, 2), "len(survivors) < least"),
        ((1, 2, 3, 4, 5), "own not in survivors"),
    ],
)
def test_survivors_too_few_or_without_oneself(
    survivors: tuple[int, ...], condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signers() -> set[str]:
        scene = Scene(change=telling(Survivors, lambda message: replace(message, survivors=bitmap(*survivors))))
        scene.fails()  # the server's own code expects signatures on another set
        return {e.sender for e in scene.passed if e.phase == Phase.CONSISTENCY and e.sender in scene.clients}

    before = signers()
    assert before == (set() if len(survivors) < 4 else {f"client-{u}" for u in survivors})
    switch_off(monkeypatch, ThresholdClient, "_survivors_in", condition)
    assert before < signers()


def test_survivors_who_have_no_part_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """client-5 never showed one; what it is said to have uploaded nobody could open."""
    change = telling(Survivors, lambda message: replace(message, survivors=bitmap(0, 1, 2, 3, 4, 5)))

    def signers() -> int:
        scene = Scene(change=change)
        scene.fails(**{"client-5": "key"})
        return len([e for e in scene.passed if e.phase == Phase.CONSISTENCY and e.sender in scene.clients])

    assert signers() == 0
    switch_off(
        monkeypatch,
        ThresholdClient,
        "_hear_survivors",
        "not from_bitmap(message.survivors, self._holders) <= self._members",
        "False",
    )
    assert signers() == 5


def forged(scene: Scene, signatures: tuple[SignedBy, ...], how: str, label: bytes, said: bytes) -> tuple[SignedBy, ...]:
    match how:
        case "too few":
            return signatures[:3]
        case "repeated":
            return (signatures[0], *signatures[:3])
        case "forged":
            return (SignedBy(signatures[0].signer, bytes(64)), *signatures[1:])
        case _:  # by somebody of the cohort who is not among those asked
            stranger = scene.clients["client-5"].identity.key.sign(label, said)
            return (*signatures[:3], SignedBy(5, stranger))


FORGERIES = pytest.mark.parametrize(
    ("how", "condition"),
    [
        ("too few", "len(signers) < least"),
        ("repeated", "not ascending(signers) or not allowed >= set(signers)"),
        ("stranger", "not ascending(signers) or not allowed >= set(signers)"),
        (
            "forged",
            "verify(self.key_of(signer), one.signature, label, said, culprit=self.name(signer))",
        ),
    ],
)


@FORGERIES
def test_parts_are_decrypted_only_against_signatures(how: str, condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """client-5 did not upload, so it has no say on who survived."""

    def change(envelope: Envelope, message: Any) -> Any:
        if isinstance(message, Aggregate):
            agreed = scene.server._agreed.digest
            return replace(message, signatures=forged(scene, message.signatures, how, labels.SURVIVORS, agreed))
        return message

    scene = Scene(change=change)
    scene.fails(**{"client-5": "upload"})
    assert scene.said(Answer) == {}
    switch_off(monkeypatch, Cohort, "check_signers", condition)
    scene = Scene(change=change)
    assert scene.run(**{"client-5": "upload"}).outcome.total.tolist() == scene.sum("client-5")


def test_min_contributors_are_demanded_beyond_t(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five must be in the sum. Four survivors would be enough for t; clients do not sign them."""

    def run() -> Scene:
        scene = Scene(least=5)
        scene.server._least = 4  # a server that would be content
        with suppress(ThresholdError, PeerError):
            scene.run(**{"client-4": "upload", "client-5": "upload"})
        return scene

    assert run().server.outcome is None
    monkeypatch.setattr(client_module, "least_of", lambda plan: 4)
    scene = run()
    assert scene.server.outcome is not None
    assert scene.server.outcome.total.tolist() == scene.sum("client-4", "client-5")


def test_another_ciphertext_than_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server names the sum before it knows who signs. With the check off it gets one client's vector instead."""

    def change(envelope: Envelope, message: Any) -> Any:
        if isinstance(message, Aggregate):
            return replace(message, c1=scene.said(Upload)["client-0"].c1)
        return message

    scene = Scene(change=change)
    scene.fails()
    assert scene.said(Answer) == {}

    check = "self._cohort.ciphertext_digest(self._joint_digest, self._agreed.digest, message.c1) != self._ciphertext"
    switch_off(monkeypatch, ThresholdClient, "_take_aggregate", check)
    scene = Scene(change=change)
    scene.fails()  # its own sum does not open
    total = scene.scheme.unpack_used(scene.said(Upload)["client-0"].c0)
    for answer in scene.said(Answer).values():
        total += scene.scheme.unpack_used(answer.partial)
    assert scene.scheme.decode(total).tolist() == scene.updates["client-0"].tolist()


def second_aggregate(scene: Scene, name: str, frame: bytes) -> bytes:
    """Another ciphertext for the same key: client-0's upload alone, with the right signatures."""
    message: Any = WIRE.decode(scene.plan, frame)
    return WIRE.encode(scene.plan, replace(message, c1=scene.uploads["client-0"].c1))


@pytest.mark.parametrize("restart", [False, True])
def test_a_key_decrypts_once(restart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second, different request is refused, before and after a restart; the same one gets the same answer.

    Control: a table with one more row, and any ciphertext accepted. Then the second answers open one upload.
    """
    scene = Scene()
    frames = scene.phases(Phase.DECRYPT)
    answers = {name: scene.clients[name].receive(frame) for name, frame in frames.items()}
    for name, frame in frames.items():
        client = scene.restarted(name) if restart else scene.clients[name]
        with pytest.raises(PeerError, match="does not belong in phase missing"):
            client.receive(second_aggregate(scene, name, frame))
        assert client.receive(frame) == answers[name]

    check = "self._cohort.ciphertext_digest(self._joint_digest, self._agreed.digest, message.c1) != self._ciphertext"
    switch_off(monkeypatch, ThresholdClient, "_take_aggregate", check)
    again = Step(Aggregate, ThresholdClient._take_aggregate, ThresholdClient._decrypt, Phase.RECOVER)
    monkeypatch.setattr(ThresholdClient, "steps", {**ThresholdClient.steps, Phase.MISSING: again})
    total = scene.scheme.unpack_used(scene.uploads["client-0"].c0)
    for name, frame in frames.items():
        client = scene.restarted(name) if restart else scene.clients[name]
        answer: Any = WIRE.decode(scene.plan, client.receive(second_aggregate(scene, name, frame)))
        total += scene.scheme.unpack_used(answer.partial)
    assert scene.scheme.decode(total).tolist() == scene.updates["client-0"].tolist()


def evil_answer(monkeypatch: pytest.MonkeyPatch, change: Callable[[Answer], Answer]) -> None:
    honest = ThresholdClient._decrypt

    def decrypt(self: ThresholdClient) -> Answer:
        return change(honest(self)) if self.identity.name == "client-3" else honest(self)

    monkeypatch.setattr(ThresholdClient, "_decrypt", decrypt)


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: replace(answer, partial=bytes([answer.partial[0] ^ 1]) + answer.partial[1:]),
        lambda answer: replace(answer, signature=bytes(64)),
        lambda answer: replace(answer, excess=bytes(32)),
    ],
)
def test_an_answer_that_was_altered_makes_its_client_a_missing_one(
    change: Callable[[Answer], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    evil_answer(monkeypatch, change)
    scene = Scene()
    result = scene.run()
    assert result.outcome.total.tolist() == scene.sum()
    assert scene.server._missing == [3]
    assert [incident.error.culprits for incident in result.incidents] == [("client-3",)]  # type: ignore[attr-defined]

    checks = "verify(self.roster.keys[number], answer.signature, labels.THRESHOLD_PARTIAL, *signed)"
    switch_off(monkeypatch, ThresholdServer, "_take_answer", checks)
    scene = Scene()
    if change(Answer(b"ab", b"", b"")).partial == b"ab":
        assert scene.run().outcome.total.tolist() == scene.sum()
        assert (scene.server._missing == []) == (change(Answer(b"", b"", b"")).excess == b"")
    else:
        scene.fails()  # a wrong part is in the sum


# Who is missing.


def told_missing(*missing: int) -> Change:
    return telling(Missing, lambda message: replace(message, missing=bitmap(*missing)))


@pytest.mark.parametrize(
    ("change", "condition", "refusing"),
    [
        (told_missing(0), "self._u in missing", {0}),
        (told_missing(0, 1, 2), "len(missing) > len(self._members) - self._t", {3, 4}),
        (told_missing(5), "not missing <= self._members", {0, 1, 2, 3, 4}),
    ],
    ids=["naming you", "too many", "without a part"],
)
def test_missing_sets_that_nobody_signs(
    change: Change, condition: str, refusing: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """client-5 never showed a part of the key. Five parts, t = 4: no more than one may be rebuilt."""

    def signers() -> set[int]:
        scene = Scene(change=change)
        scene.fails(**{"client-5": "key"})  # the server's own code expects signatures on another set
        spoken = {e.sender for e in scene.passed if e.phase == Phase.MISSING and e.sender in scene.clients}
        return {scene.roster.number(name) for name in spoken}

    assert signers().isdisjoint(refusing)
    switch_off(monkeypatch, ThresholdClient, "_hear_missing", condition)
    assert signers() >= refusing


def test_clients_missing_for_another_ciphertext(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said to those who answered for this one. (With the check off they sign what they answered for, nothing else.)"""
    change = telling(Missing, lambda message: replace(message, ciphertext=bytes(32)))
    scene = Scene(change=change)
    scene.fails()
    assert scene.said(Recovery) == {}
    switch_off(monkeypatch, ThresholdClient, "_hear_missing", "message.ciphertext != self._ciphertext")
    scene = Scene(change=change)
    assert scene.run().outcome.total.tolist() == scene.sum()


@FORGERIES
def test_shares_are_revealed_only_against_signatures(how: str, condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """client-5 did not answer, so it has no say on who is missing."""

    def change(envelope: Envelope, message: Any) -> Any:
        if isinstance(message, Agreements):
            agreed = scene.server._missing_digest
            return Agreements(forged(scene, message.signatures, how, labels.THRESHOLD_MISSING, agreed))
        return message

    scene = Scene(change=change)
    scene.fails(**{"client-5": "decrypt"})
    assert scene.said(Recovery) == {}
    switch_off(monkeypatch, Cohort, "check_signers", condition)
    scene = Scene(change=change)
    assert scene.run(**{"client-5": "decrypt"}).outcome.total.tolist() == scene.sum()


def seed_from(recoveries: list[Recovery], holders: list[int], w: int) -> bytes:
    """A missing client's seed, from what t others revealed."""
    shares = {
        v: share.share
        for v, recovery in zip(holders, recoveries, strict=True)
        for share in recovery.shares
        if share.peer == w
    }
    chosen = sorted(shares)[:4]
    points = np.concatenate([unpack_shares(shares[v], 1) for v in chosen])
    (seed,) = reconstruct(np.array([chosen]) + 1, points[None])
    assert seed is not None
    return seed


@pytest.mark.parametrize("restart", [False, True])
def test_two_missing_sets_for_one_ciphertext(restart: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """{0, 1}, then {2, 3}, then {4, 5}: no client signs a second set, before and after a restart.

    Control: a table that goes round. Then every part of the key is rebuilt, and every upload opens.
    """

    def ask(scene: Scene, u: int, missing: tuple[int, ...]) -> Any:
        name = scene.roster.names[u]
        client = scene.restarted(name) if restart else scene.clients[name]
        frame = WIRE.encode(scene.plan, Missing(scene.server._ciphertext, bitmap(*missing)))
        return WIRE.decode(scene.plan, client.receive(frame))

    def answered() -> Scene:
        scene = Scene()
        for name, frame in scene.phases(Phase.DECRYPT).items():
            scene.server.receive(name, scene.clients[name].receive(frame))
        return scene

    scene = answered()
    for u in range(2, 6):
        ask(scene, u, (0, 1))
    for u in (4, 5):
        with pytest.raises(PeerError, match="does not belong in phase recover"):
            ask(scene, u, (2, 3))

    again = ThresholdClient.steps[Phase.RECOVER]._replace(then=Phase.MISSING)
    monkeypatch.setattr(ThresholdClient, "steps", {**ThresholdClient.steps, Phase.RECOVER: again})
    journal_by_count(monkeypatch)
    scene = answered()
    seeds = dict[int, bytes]()
    for missing in ((0, 1), (2, 3), (4, 5)):
        others = [u for u in range(6) if u not in missing]
        said = tuple(SignedBy(u, ask(scene, u, missing).signature) for u in others)
        frame = WIRE.encode(scene.plan, Agreements(said))
        recoveries: Any = [
            WIRE.decode(scene.plan, (scene.restarted(name) if restart else scene.clients[name]).receive(frame))
            for name in (scene.roster.names[u] for u in others)
        ]
        seeds |= {w: seed_from(recoveries, others, w) for w in missing}
    assert seeds == {u: scene.current(u)._key_seed for u in range(6)}
    for name, upload in scene.uploads.items():
        assert opened(scene.scheme, upload, *seeds.values()) == scene.updates[name].tolist()


# Lying clients: each costs itself only.


def evil_reply(monkeypatch: pytest.MonkeyPatch, method: str, change: Callable[[Any, Any], Any]) -> None:
    honest = getattr(ThresholdClient, method)

    def reply(self: ThresholdClient) -> Any:
        return change(self, honest(self)) if self.identity.name == "client-3" else honest(self)

    monkeypatch.setattr(ThresholdClient, method, reply)


def too_few_boxes(_: Any, part: Part) -> Part:
    return replace(part, dealt=replace(part.dealt, boxes=part.dealt.boxes[1:]))


def re_signed(client: Any, shares: tuple[Revealed, ...]) -> Recovery:
    said = (*client._cohort.bound(client._u), client._missing_digest, SHARES.encode(shares))
    return Recovery(shares, client.identity.key.sign(labels.THRESHOLD_SHARES, *said))


def unasked(client: Any, recovery: Recovery) -> Recovery:
    return re_signed(client, (*recovery.shares, Revealed(2, share_of(client._held[2], SEED))))


def twice(client: Any, recovery: Recovery) -> Recovery:
    return re_signed(client, recovery.shares * 2)


def unreduced(client: Any, recovery: Recovery) -> Recovery:
    return re_signed(client, (replace(recovery.shares[0], share=b"\xff" * 36),))


def withheld(client: Any, recovery: Recovery) -> Recovery:
    return re_signed(client, ())


def wrong(client: Any, recovery: Recovery) -> Recovery:
    (revealed,) = recovery.shares
    limbs = unpack_shares(revealed.share, 1)
    limbs[0, 4] ^= 1
    return re_signed(client, (replace(revealed, share=pack_shares(limbs)),))


CHECKED_SHARE = "self._exchange.check_shares(u, {revealed.peer: revealed.share for revealed in recovery.shares})"
FORGED_SHARES = "verify(self.roster.keys[number], recovery.signature, labels.THRESHOLD_SHARES, *signed)"


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("method", "change", "function", "condition"),
    [
        ("_deal", lambda _, part: replace(part, key=part.key[::-1]), "_take_part", None),
        (
            "_deal",
            too_few_boxes,
            "_take_part",
            None,
        ),
        ("_sign_survivors", lambda _, consent: replace(consent, signature=bytes(64)), "_take_signature", None),
        (
            "_agree",
            lambda _, agreement: replace(agreement, signature=bytes(64)),
            "_take_agreement",
            "verify(self.roster.keys[number], agreement.signature, labels.THRESHOLD_MISSING, self._missing_digest)",
        ),
        ("_recover", lambda _, recovery: replace(recovery, signature=bytes(64)), "_take_shares", FORGED_SHARES),
        ("_recover", unasked, "_take_shares", "peers != self._missing"),
        ("_recover", twice, "_take_shares", "peers != self._missing"),
        ("_recover", withheld, "_take_shares", "peers != self._missing"),
        ("_recover", wrong, "_take_shares", CHECKED_SHARE),
        ("_recover", unreduced, "_take_shares", CHECKED_SHARE),
    ],
)
def test_a_bad_message_costs_its_sender_only(
    method: str, change: Callable[[Any, Any], Any], function: str, condition: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The others have their sum. With the check off nobody is blamed, or the round ends."""
    evil_reply(monkeypatch, method, change)
    scene = Scene()
    result = scene.run(**{"client-0": "decrypt"})
    survivors = scene.server.outcome.survivors  # type: ignore[union-attr]
    assert result.outcome.total.tolist() == scene.sum(*(set(scene.clients) - set(survivors)))
    assert [incident.error.culprits for incident in result.incidents] == [("client-3",)]  # type: ignore[attr-defined]
    assert ("client-3" in survivors) == (method != "_deal")
    if condition is not None:
        switch_off(monkeypatch, ThresholdServer, function, condition)
        scene = Scene()
        try:
            incidents = scene.run(**{"client-0": "decrypt"}).incidents
        except (ThresholdError, DecodeError, PeerError):  # after a wrong share it is the silent client that is named
            assert scene.server.outcome is None
        else:
            assert incidents == ()


def test_too_few_boxes_would_displace_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    evil_reply(monkeypatch, "_deal", too_few_boxes)
    switch_off(monkeypatch, Exchange, "take", "len(dealt.boxes) != len(others)")
    with pytest.raises(ValueError, match="zip"):
        Scene().run()


# What is released says nothing about the key (Li and Micciancio 2021).


def divided(scheme: Scheme, numerator: Coefficients, c1: Coefficients) -> np.ndarray:
    """numerator / c1, as evaluations of the first block: the key, if the numerator is c1 s."""
    rows = zip(scheme.ring.primes, numerator.evaluations().words[:, 0], c1.evaluations().words[:, 0], strict=True)
    return np.array([[int(x) * pow(int(y), -1, q) % q for x, y in zip(d, c, strict=True)] for q, d, c in rows])


def test_the_key_from_one_approximate_decryption(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack: (decryption - c0) / c1. It gives the key from raw decryptions, of a single key or of a part.

    What clients answer here is flooded, and the attack gives nothing; what is released are integers.
    """
    scene = Scene(length=4096)
    scheme, seed = scene.scheme, b"a single key's seed: 32 bytes..."
    assert scheme.sizes.count == scheme.ring.degree  # answers are about whole polynomials
    c0, c1 = scheme.encrypt(scheme.public(seed), np.arange(4096), b"e" * 32)
    raw = c0 + scheme.bare(c1, [seed])
    assert (divided(scheme, raw - c0, c1) == scheme.secret(seed).words[:, 0]).all()

    def found() -> list[float]:
        """Of each client's part of the key, what fraction the attack gets right."""
        scene = Scene(length=4096)
        assert scene.run().outcome.total.tolist() == scene.sum()
        c1, shares = scheme.unpack_all(scene.server._c1_sum), list[float]()
        for name, answer in scene.said(Answer).items():
            part = scheme.secret(scene.clients[name].current._key_seed).words[:, 0]  # type: ignore[union-attr]
            shares.append(float((divided(scheme, scheme.unpack_used(answer.partial), c1) == part).mean()))
        return shares

    assert max(found()) < 0.01
    switch_off(monkeypatch, Scheme, "partial", "self.bare(c1, [seed]) + flood", "self.bare(c1, [seed])")
    assert found() == [1.0] * 6


def test_what_is_released_does_not_depend_on_the_noise_in_it() -> None:
    """Other keys, other errors, other flooding: the same integers."""
    totals = []
    for session in (bytes(16), b"another session!"):
        scene = Scene(session=session)
        totals.append(scene.run(**{"client-1": "decrypt"}).outcome.total.tolist())
    assert totals[0] == totals[1] == scene.sum()


# What an ACTIVE server can do. The trust model excludes it; nothing here stops it.


def test_active_a_malformed_ciphertext_gives_away_a_part_of_the_key() -> None:
    """c1 = K instead of a sum: the answer is K s_u + T f_u, and a large K leaves s_u above the flooding.

    A proof with each upload that it is well formed, and clients that add up c1 themselves, would stop it.
    """
    scene = Scene()
    ring, unit, count = scene.scheme.ring, scene.scheme.sizes.unit, scene.scheme.sizes.count
    factor = ring.modulus // unit // 80  # above the flooding, and s up to 40 does not wrap

    def evil(phase: Phase) -> None:
        if phase == Phase.UPLOAD:
            scene.server._c1 = RunningSum(ring, 1)
            scene.server._c1.add(Coefficients.lift(ring, [np.array([1])]).scaled(unit * factor))

    for name, frame in scene.phases(Phase.DECRYPT, evil).items():
        answer: Any = WIRE.decode(scene.plan, scene.clients[name].receive(frame))
        scaled = scene.scheme.unpack_used(answer.partial).scaled(pow(unit, -1, ring.modulus))
        numbers = [reference.integer(scaled.words[:, 0, i].tolist(), ring.primes) for i in range(count)]
        rounded = [round((x - ring.modulus if x > ring.modulus // 2 else x) / factor) for x in numbers]
        key = scene.scheme.secret(scene.clients[name].current._key_seed).coefficients()  # type: ignore[union-attr]
        assert not (key - Coefficients.lift(ring, [np.array(rounded)], blocks=1)).words[:, 0, :count].any()


def test_active_a_joint_key_of_the_servers_own() -> None:
    """Clients cannot see that the sum of the parts is one: they would have to download all parts."""
    scene, seed = Scene(), b"the server's own seed, 32 bytes."

    def evil(phase: Phase) -> None:
        if phase == Phase.COMPLAIN:
            difference = scene.scheme.public(seed) - added(scene)
            scene.server._parts[0] = scene.server._parts[0] + difference

    scene.phases(Phase.CONSISTENCY, evil)
    for name, upload in scene.uploads.items():
        assert opened(scene.scheme, upload, seed) == scene.updates[name].tolist()


def test_active_one_upload_instead_of_the_sum() -> None:
    """A client cannot tell a sum from one client's ciphertext (the same in ``ckks``)."""
    scene = Scene()

    def evil(phase: Phase) -> None:
        if phase == Phase.UPLOAD:
            victim, server = scene.uploads["client-0"], scene.server
            server._c0, server._c1 = (RunningSum(scene.scheme.ring, 1) for _ in range(2))
            server._c0.add(scene.scheme.unpack_used(victim.c0))
            server._c1.add(scene.scheme.unpack_all(victim.c1))

    frames = scene.phases(Phase.RECOVER, evil)
    for name, frame in frames.items():
        scene.server.receive(name, scene.clients[name].receive(frame))
    scene.server.close(Phase.RECOVER)
    assert scene.server.outcome is not None
    assert scene.server.outcome.total.tolist() == scene.updates["client-0"].tolist()


def test_active_a_client_called_missing_although_it_answered() -> None:
    """It refuses if it is asked; the others cannot know. Its part of the key and what it flooded with come out.

    The sum stays as hidden as it was: at least t others' parts and flooding are not.
    """
    scene = Scene()
    answers = dict[str, Any]()

    def evil(phase: Phase) -> None:
        if phase == Phase.DECRYPT:
            scene.server._answered.discard(0)

    frames = scene.phases(Phase.DECRYPT)
    for name, frame in frames.items():
        answer = scene.clients[name].receive(frame)
        answers[name] = WIRE.decode(scene.plan, answer)
        scene.server.receive(name, answer)
    evil(Phase.DECRYPT)
    scene.server.close(Phase.DECRYPT)
    told = WIRE.encode(scene.plan, Missing(scene.server._ciphertext, bitmap(0)))
    with pytest.raises(PeerError, match="answered and is called missing"):
        scene.clients["client-0"].receive(told)
    for _ in range(2):
        phase = scene.server.phase
        for name, frame in list(scene.server.outbox()):
            scene.server.receive(name, scene.clients[name].receive(frame))
        if phase == Phase.MISSING:
            scene.server.close(phase)
    scheme, (seed,) = scene.scheme, scene.server._rebuilt()
    assert seed == scene.current(0)._key_seed
    flood = scheme.unpack_used(answers["client-0"].partial) - scheme.bare(scene.server._c1.value(), [seed])
    none = scheme.partial(Coefficients.zeros(scheme.ring, 1), seed, flooded_by=scene.current(0)._drawn(
        b"flooding", *scene.current(0)._cohort.bound(0), scene.server._ciphertext
    ))  # fmt: skip
    assert scheme.pack_used(flood) == scheme.pack_used(none)
