"""One-shot rounds under attack, continued: lots, lists, whose shares are added, updates, secrets in frames.

Clients and attackers as in ``test_oneshot``, with lots where it says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.journal import EMPTY_HEAD, MemoryJournal
from protocols.oneshot import client
from protocols.oneshot import committee as rules
from protocols.oneshot.client import OneshotClient
from protocols.oneshot.messages import Upload, Vote
from protocols.oneshot.parameters import lattice_of
from protocols.oneshot.protocol import ONESHOT
from protocols.policy import Policy
from protocols.simulation.network import Faults
from secagg import rounding
from secagg.crypto.keys import AgreementKey
from secagg.crypto.packed import Sharing
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PeerError, PolicyError, SecAggError, UsageError
from secagg.rounding import plain
from tests.controls import Denied, switch_off
from tests.scenes.oneshot import (
    COURT,
    GROUND,
    VICTIM,
    Evil,
    Fixture,
    attempt,
    by_lot,
    cloned,
    drawn,
    make,
    short_secret,
)
from tests.scenes.oneshot_deployment import TWELVE, run, scene
from tests.scenes.updates import BAD_UPDATES


def denied(attack: Any, match: str) -> None:
    with pytest.raises(Denied, match=match):
        attack()


# Lots: 6 seats for 129 clients, of whom 8 are feared corrupt. f = 3, Q = 5.


def favoured(known: bytes) -> list[int]:
    """The corrupt are eight, and this beacon gives five of them a seat: all their shares are a quorum's."""
    seats = drawn(GROUND)
    others = [u for u in range(1, 129) if u not in seats]
    assert VICTIM not in seats
    evil = by_lot(GROUND, known, [*seats[:5], *others[:3]], [VICTIM, *seats])
    evil.corrupt = seats[:5]
    evil.join()
    evil.upload([VICTIM])
    return evil.sum_of([VICTIM])


def lax_registry(monkeypatch: Fixture) -> None:
    """The registry has its own reference to the check."""
    lax = replace(ONESHOT, check_policy=rules.check_policy)
    monkeypatch.setattr(registry, "find", lambda name: lax)


def victims(evil: Evil) -> list[int]:
    return evil.plain([VICTIM])


def test_a_beacon_of_the_servers_choice(monkeypatch: Fixture) -> None:
    attempt(lambda: favoured(COURT), PolicyError, "another beacon than this client knows")
    switch_off(monkeypatch, Policy, "check", "self.beacon and plan.beacon != self.beacon")
    assert favoured(COURT) == victims(make(clients=129))


def test_lots_for_a_client_that_knows_no_beacon(monkeypatch: Fixture) -> None:
    attempt(lambda: favoured(b""), PolicyError, "drawn by lot, and this client knows no beacon")
    switch_off(monkeypatch, rules, "check_policy", "not policy.beacon")
    lax_registry(monkeypatch)
    assert favoured(b"") == victims(make(clients=129))


def test_seats_on_which_the_lot_did_not_fall(monkeypatch: Fixture) -> None:
    """Six corrupt clients take all of them, with keys that are truly theirs."""

    def attack() -> list[int]:
        seats = drawn(COURT)
        corrupt = [u for u in range(1, 129) if u not in seats][:6]
        evil = by_lot(COURT, COURT, corrupt, [VICTIM, *corrupt])
        evil.join()
        keys = {u: AgreementKey(Prg(bytes([u]) * 32)(32)) for u in corrupt}
        evil.form([evil.forged_seat(u, key) for u, key in keys.items()])
        evil.corrupt = []
        evil.upload([VICTIM])
        shares = {u: evil.opened(VICTIM, u, key) for u, key in keys.items()}
        return evil.unmask(evil.total([evil.uploads[VICTIM]]), evil.secret(shares))

    attempt(attack, PeerError, "not those on whom the lot fell")
    switch_off(monkeypatch, OneshotClient, "_meet", "not ascending(members) or not self._eligible >= set(members)")
    assert attack() == victims(make(clients=129))


def test_lots_from_a_roster_larger_than_the_plan(monkeypatch: Fixture) -> None:
    """16 of 258 are corrupt, no more than the clients fear; but of a plan for 129 they fear 8, and 12 contribute."""

    def attack() -> list[int]:
        members = drawn(COURT, 129)
        corrupt = [u for u in range(1, 258) if u not in members][:12]
        evil = by_lot(COURT, COURT, corrupt, sorted({VICTIM, *members, *corrupt}), 129)
        evil.join()
        alive = [VICTIM, *corrupt]
        evil.upload()
        evil.reveal(members, alive, evil.ask(members, alive))
        return (np.array(evil.sum_of(alive)) - evil.plain(corrupt)).tolist()  # type: ignore[no-any-return]

    attempt(attack, PolicyError, "a cohort must be a roster of its own")
    switch_off(monkeypatch, rules, "sortition", "plan.clients != len(roster)")
    monkeypatch.setattr(client, "sortition", rules.sortition)
    assert attack() == victims(make(clients=258))


# Lists that are shown.


def shown(evil: Evil, how: str) -> Upload:
    evil.join()
    seats = evil.true_seats()
    if how == "twice":
        seats = [*seats[:3], *seats[4:], evil.forged_seat(11, AgreementKey(bytes(31) + b"\1"))]
    elif how == "out of order":
        seats = [seats[1], seats[0], *seats[2:]]
    else:
        seats = [seat for seat in seats if seat.client != VICTIM]
    evil.form(seats)
    return evil.tell(VICTIM, evil.shown)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("how", "match", "condition"),
    [
        ("twice", "out of order, repeated", "not ascending(members) or not self._eligible >= set(members)"),
        ("out of order", "out of order, repeated", "not ascending(members) or not self._eligible >= set(members)"),
        (
            "left out",
            "this client is a member and is left out",
            "self._member_key is not None and self.opening().member not in message.members",
        ),
    ],
)
def test_committees_that_are_none(how: str, match: str, condition: str, monkeypatch: Fixture) -> None:
    attempt(lambda: shown(make(), how), PeerError, match)
    switch_off(monkeypatch, OneshotClient, "_meet", condition)
    assert shown(make(), how).header.client == VICTIM


def two_committees(evil: Evil) -> Vote:
    """Client 11 has two keys, and half of the others is shown each. One of the second half is to sign them all."""
    evil.join()
    first = evil.true_seats()
    second = [*first[:-1], evil.forged_seat(11, AgreementKey(bytes(31) + b"\1"))]
    evil.corrupt = [10]
    evil.form(first)
    evil.upload(range(5))
    evil.form(second)
    evil.upload(range(5, 11))
    return evil.tell(5, evil.delivery(5, range(11)))  # type: ignore[no-any-return]


def test_two_clients_shown_two_committees(monkeypatch: Fixture) -> None:
    attempt(lambda: two_committees(make()), PeerError, "bad signature")
    switch_off(monkeypatch, rules.Committee, "bound", "self.root", "b''")
    assert len(two_committees(make()).signature) == 64


def many_committees(evil: Evil) -> list[int]:
    """Copies of the victim without a journal are shown smaller and smaller committees, in which the corrupt have other
    places. Were the polynomials the same, six points on them would be enough for the nearest lattice point."""
    evil.join()
    points = dict[int, np.ndarray]()
    for absent in range(5):
        evil.form([seat for seat in evil.true_seats() if not 1 <= seat.client <= absent])
        upload = cloned(evil, evil.values[VICTIM])
        for v in evil.corrupt:
            (holder,) = evil.holders([v])
            points[holder] = evil.opened(VICTIM, v, evil.puppets[v].round._member_key, upload)
    assert len(points) == 6
    return evil.unmask(evil.total([upload]), short_secret(evil.sharing, points))


def test_a_clone_shown_many_committees(monkeypatch: Fixture) -> None:
    denied(lambda: many_committees(make()), "out of range")
    vector = "self._fingerprint(values)"
    switch_off(monkeypatch, OneshotClient, "_upload", f"(*bound, {vector})", f"({vector},)")
    assert many_committees(make()) == victims(make())


# Whose shares are added, and how often. One other honest client, h, and the corrupt: x_h + 3 x_v gives x_h modulo 3.


def opened_by_the_honest(evil: Evil, order: list[int]) -> list[int]:
    signed = {v: evil.consent(v, order) for v in evil.honest}
    evil.reveal(evil.honest, order, signed)
    return evil.unmask(evil.total(evil.uploads[u] for u in order), evil.secret(evil.shares[frozenset(order)]))


def repeated(evil: Evil) -> list[int]:
    evil.join()
    evil.upload()
    total = opened_by_the_honest(evil, [VICTIM, VICTIM, VICTIM, 1, *evil.corrupt])
    return (np.array(total) - evil.plain(evil.corrupt)).tolist()  # type: ignore[no-any-return]


def thrice(evil: Evil) -> list[int]:
    return (3 * evil.values[VICTIM] + evil.values[1]).tolist()  # type: ignore[no-any-return]


IN_ORDER = "not ascending(clients) or len(clients) > self.plan.clients"


def test_one_contributor_three_times(monkeypatch: Fixture) -> None:
    attempt(lambda: repeated(make()), PeerError, "contributors out of order or repeated")
    switch_off(monkeypatch, OneshotClient, "_open", IN_ORDER)
    assert repeated(make()) == thrice(make())


def test_contributors_out_of_order(monkeypatch: Fixture) -> None:
    def attack() -> Vote:
        evil = make()
        evil.join()
        evil.upload()
        return evil.tell(1, evil.delivery(1, evil.present[::-1]))  # type: ignore[no-any-return]

    attempt(attack, PeerError, "contributors out of order or repeated")
    switch_off(monkeypatch, OneshotClient, "_open", IN_ORDER)
    assert attack().signature


def copied(evil: Evil) -> list[int]:
    """Both corrupt clients upload what the victim has uploaded, under its key, which they need not know."""
    evil.join()
    evil.upload()
    victim = evil.uploads[VICTIM]
    for v in evil.corrupt:
        evil.uploads[v] = evil.signed(v, victim.header.key, victim.vector, victim.boxes)
    return opened_by_the_honest(evil, [VICTIM, 1, *evil.corrupt])


def test_copies_of_a_clients_boxes(monkeypatch: Fixture) -> None:
    """The sender is in the box's key and in its associated data: either is enough."""
    denied(lambda: copied(make()), r"shares of \(10, 11\) do not open")
    with monkeypatch.context() as one:
        switch_off(one, rules.Committee, "box_key", "self.bound(sender, receiver)", "self.bound(receiver)")
        denied(lambda: copied(make()), r"shares of \(10, 11\) do not open")
    for owner in (OneshotClient, Evil):
        bound = "self._committee.bound(sender, receiver)" if owner is OneshotClient else "self.committee.bound(u, v)"
        without = "self._committee.bound(receiver)" if owner is OneshotClient else "self.committee.bound(v)"
        switch_off(monkeypatch, owner, "_associated", bound, without)
    denied(lambda: copied(make()), r"shares of \(10, 11\) do not open")
    switch_off(monkeypatch, rules.Committee, "box_key", "self.bound(sender, receiver)", "self.bound(receiver)")
    assert copied(make()) == thrice(make())


def misplaced(how: str) -> bytes:
    """A member's signature on a set with an upload in it that was not made for it, in this name."""
    evil = make()
    other = {
        "another round": lambda: replace(evil.plan, round=1),
        "another session": lambda: replace(evil.plan, session=b"another session!"),
        "another model": lambda: replace(evil.plan, model=bytes(32)[:-1] + b"\1"),
    }.get(how, lambda: evil.plan)()
    before = Evil(other, evil.roster, evil.identities, evil.corrupt, evil.policy)
    before.join()
    if how == "another committee":
        before.form([seat for seat in before.true_seats() if seat.client != 9])
    before.upload([VICTIM])
    upload = before.uploads[VICTIM]
    evil.join()
    evil.upload(range(1, 10))
    evil.uploads[VICTIM] = upload
    alive = list(range(10))
    if how == "another name":
        evil.uploads[10] = replace(upload, header=replace(upload.header, client=10))
        alive = list(range(1, 11))
    elif how == "another vector":
        evil.uploads[VICTIM] = replace(upload, header=replace(upload.header, vector_hash=bytes(32)))
    return evil.consent(1, alive)


@pytest.mark.parametrize(
    "how",
    ["another round", "another session", "another model", "another committee", "another name", "another vector"],
)
def test_uploads_out_of_place(how: str, monkeypatch: Fixture) -> None:
    """Without the signature the boxes remain, which open for nothing else either; but then it is the honest client of
    whom members complain. What the vector's hash says, only the signature knows."""
    attempt(lambda: misplaced(how), PeerError, "bad signature")
    switch_off(
        monkeypatch, OneshotClient, "_open", "check_header(self._committee, self.roster, contribution.header)", "None"
    )
    if how == "another vector":
        assert misplaced(how)
    else:
        denied(lambda: misplaced(how), "do not open")


def exchanged(how: str) -> bytes:
    evil = make()
    evil.join()
    evil.upload()
    delivery = evil.delivery(2, evil.present)
    first, second, *rest = delivery.contributions
    if how == "of two senders":
        first, second = replace(first, box=second.box), replace(second, box=first.box)
    elif how == "of another receiver":
        first = replace(first, box=evil.box(0, 3))
    else:
        first = replace(first, box=bytes([*first.box[:-17], first.box[-17] ^ 1, *first.box[-16:]]))
    consent: Vote = evil.tell(2, replace(delivery, contributions=(first, second, *rest)))
    if consent.unopened:
        raise Denied(f"{consent.unopened}")
    return consent.signature


@pytest.mark.parametrize(("how", "whose"), [("of two senders", r"\(0, 1\)"), ("of another receiver", r"\(0,\)"),
                                            ("altered", r"\(0,\)")])  # fmt: skip
def test_exchanged_boxes(how: str, whose: str, monkeypatch: Fixture) -> None:
    """The member signs nothing, and says whose they are. Without the seal it would add up what it gets."""
    denied(lambda: exchanged(how), whose)
    switch_off(
        monkeypatch,
        OneshotClient,
        "_opened",
        "open_box(sealing, contribution.box, self._associated(client, self._u))",
        "(np.frombuffer(contribution.box[12:-16], '<u4') % (2**31 - 1)).astype('<u4').tobytes()",
    )
    monkeypatch.setattr(client, "np", np, raising=False)
    assert exchanged(how)


# What a client itself may not contribute: refused before it says anything.


@pytest.mark.parametrize("what", BAD_UPDATES)
def test_bad_updates(what: str) -> None:
    evil, journal = make(), MemoryJournal()
    evil.clients[VICTIM]._journal = journal
    with pytest.raises(UsageError):
        evil.clients[VICTIM].start(evil.plan, BAD_UPDATES[what])
    assert (journal.head(), evil.clients[VICTIM].phase) == (EMPTY_HEAD, None)


def test_control_not_a_number(monkeypatch: Fixture) -> None:
    """Without the check NaN is some integer, with which the client takes part."""
    switch_off(monkeypatch, Encoding, "_clipped", "np.isfinite(vector).all()", "True")
    evil = make()
    assert evil.clients[VICTIM].start(evil.plan, BAD_UPDATES["one NaN"])


def test_an_update_too_large_counts_as_the_largest(monkeypatch: Fixture) -> None:
    """Of n such the sum does not wrap. Without that and the exact norm, one outweighs the others."""

    def begun() -> int:
        encoding = Encoding(7, clip_l2=2.0 * 7 * 32767, clip_inf=32767.0)
        values = encoding.encode([1e9] + [0.0] * 6, weight=1, seed=bytes(32), rng=Prg(bytes(32)))
        return int(values[0]) - encoding.largest

    assert begun() == 0
    monkeypatch.setattr(rounding, "kernels", lambda length: plain)
    clipped = "np.fmax(np.fmin(product, largest), -largest)"
    switch_off(monkeypatch, plain, "_scaled", clipped, "product")
    attempt(begun, UsageError, "rounding does not get shorter")
    switch_off(monkeypatch, Encoding, "_round", "norm_squared <= longest", "True")
    assert begun() > 0


# Secrets: what no frame to the server may hold, in any form that is a copy of it.


def forms(secret: np.ndarray[Any, Any], primes: tuple[int, ...]) -> Iterator[bytes]:
    """Short integers in all widths and orders, and as residues; of each the beginning."""
    for width in "1248" if int(abs(secret).max()) < 128 else "248":
        for order in "<>":
            yield secret[:24].astype(f"{order}i{width}").tobytes()
    for q in primes:
        yield (secret[:24] % q).astype("<u4").tobytes()
        yield (secret[:24] % q).astype("<u8").tobytes()


def leaked(monkeypatch: Fixture) -> set[str]:
    """Whose secrets, shares or seeds are in some frame to the server, by kind."""
    here, frames, secrets = scene(12, **TWELVE), list[bytes](), dict[str, list[bytes]]()
    primes = lattice_of(here.plan).layout.ring.primes

    def keep(envelope: Any) -> bytes:
        frames.append(envelope.frame) if envelope.receiver == "server" else None
        return envelope.frame  # type: ignore[no-any-return]

    def gaussian(variance: Fraction, count: int, seed: bytes) -> Any:
        values = sampled(variance, count, seed)
        if count > 24:
            secrets.setdefault("short", []).extend(forms(values, primes))
        return values

    def split(self: Sharing, values: Any, holders: int, rng: Any) -> Any:
        shares = dealt(self, values, holders, rng)
        secrets.setdefault("shares", []).extend(share.tobytes()[:16] for share in shares)
        return shares

    def drawn(self: OneshotClient, purpose: bytes, *context: bytes) -> bytes:
        seed = derived(self, purpose, *context)
        secrets.setdefault("seeds", []).append(seed[:16])
        return seed

    sampled, dealt, derived = client.discrete_gaussian, Sharing.split, OneshotClient._drawn
    with monkeypatch.context() as spies:
        spies.setattr(client, "discrete_gaussian", gaussian)
        spies.setattr(Sharing, "split", split)
        spies.setattr(OneshotClient, "_drawn", drawn)
        with suppress(SecAggError):  # the controls' rounds do not get to their end
            run(here, Faults(corrupted=keep))
    assert {kind: len(found) > 11 for kind, found in secrets.items()} == dict.fromkeys(
        ("short", "shares", "seeds"), True
    )
    everything = b"|".join(frames)
    return {kind for kind, found in secrets.items() if any(one in everything for one in found)}


@pytest.mark.parametrize(
    ("kind", "where", "expression", "instead"),
    [
        (
            "shares",
            "_upload",
            "seal(sealing, share.tobytes(), self._associated(self._u, member.client), nonces)",
            "bytes(28) + share.tobytes()",
        ),
        ("seeds", "opening", "self._member_key.public", "self._member_key.secret"),
        (
            "short",
            "_upload",
            "masked.pack_into(len(errors), vector)",
            "(vector := secret.astype('<i2').tobytes())",
        ),
    ],
)
def test_no_secret_and_no_share_of_one_in_what_the_server_gets(
    kind: str, where: str, expression: str, instead: str, monkeypatch: Fixture
) -> None:
    """Controls: boxes that are not sealed; a seat's secret key for its public half; the secret for what it masks."""
    assert leaked(monkeypatch) == set()
    switch_off(monkeypatch, OneshotClient, where, expression, instead)
    assert leaked(monkeypatch) == {kind}
