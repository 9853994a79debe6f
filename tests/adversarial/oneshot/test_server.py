"""One-shot rounds with an honest server: what the network alters, false complaints, shares of the sum that are lies.

12 clients, all with a seat. f = 2, Q = 8.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import comb
from typing import Any

import numpy as np
import pytest

from protocols.oneshot.committee import public_of, sortition
from protocols.oneshot.messages import Answer, Upload, Vote
from protocols.oneshot.parameters import lattice_of, parameters_of, sharing_of
from protocols.oneshot.server import OneshotServer
from protocols.server import serve
from protocols.simulation.network import Faults, Simulation, simulate
from secagg.crypto.field import PRIME
from secagg.crypto.lattice import packing
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.crypto.packed import _evaluate
from secagg.errors import PeerError, UsageError
from tests.controls import switch_off
from tests.scenes.oneshot import Fixture
from tests.scenes.oneshot_deployment import FIRST, TWELVE, Scene, changing, complaint, run, scene, spoiled, total_of

Reveals = list[str]


def other_vector(here: Scene, upload: Upload) -> Upload:
    """A vector of the right length and form, for nothing."""
    return replace(upload, vector=bytes(len(upload.vector)))


def other_boxes(here: Scene, upload: Upload) -> Upload:
    return replace(upload, boxes=spoiled(here, upload.boxes, set(range(2, 8))))


@pytest.mark.parametrize(
    ("forge", "match", "condition", "culprits"),
    [
        (
            other_vector,
            "a vector that is not the signed one",
            "read.vector_hash != header.vector_hash",
            12,
        ),
        (
            other_boxes,
            "boxes that are not the signed ones",
            "read.boxes_hash != header.boxes_hash",
            1,
        ),
    ],
)
def test_uploads_altered_in_transit(
    forge: Any, match: str, condition: str, culprits: int, monkeypatch: Fixture
) -> None:
    """Turned away, and the sum is that of the others. Without the check the round is lost, and who answered, or the
    client itself, is named for it."""
    here = scene(12, **TWELVE)
    faults = Faults(corrupted=changing(here, "upload", {FIRST}, lambda upload: forge(here, upload)))
    result, _ = run(here, faults)
    (incident,) = result.incidents
    assert match in str(incident.error)
    assert result.outcome.total.tolist() == (np.array(total_of(here)) - here.updates()[FIRST]).tolist()
    switch_off(monkeypatch, OneshotServer, "_add", condition)
    with pytest.raises(PeerError) as caught:
        run(here, faults)
    assert FIRST in caught.value.culprits
    assert len(caught.value.culprits) == culprits


@pytest.mark.parametrize(
    ("how", "condition"),
    [("longer", "len(data) != ring.packed_size(count)"), ("not reduced", "int(residues.max()) >= q")],
)
def test_vectors_of_another_length_or_modulus(how: str, condition: str, monkeypatch: Fixture) -> None:
    """By a client that signs them: a vector of another ring, or residues that are none."""
    here = scene(12, **TWELVE)

    def bounced() -> list[str]:
        made = serve(here.plan, here.roster)

        def forge(upload: Upload) -> Upload:
            honest = bytes(upload.vector)
            vector = honest + b"\1" if how == "longer" else b"\xff" * 8 + honest[8:]
            return here.signed(made._committee, replace(upload, vector=vector))  # type: ignore[attr-defined]

        faults = Faults(corrupted=changing(here, "upload", {FIRST}, forge))
        try:
            result = simulate(made, here.clients(), here.updates().get, faults=faults)
        except UsageError as error:  # of the server itself: everybody's round is over
            return [str(error)]
        assert (how == "longer") == (FIRST in result.outcome.survivors) or result.incidents
        return [culprit for incident in result.incidents for culprit in incident.error.culprits]  # type: ignore[attr-defined]

    assert bounced() == [FIRST]
    switch_off(monkeypatch, Coefficients, "unpack", condition)
    assert bounced() != [FIRST]


def complaints(here: Scene, false: dict[str, Vote], cheated: set[int]) -> tuple[Simulation, Reveals]:
    """Client 10 cheats these members; ``false``: what others say instead of consenting. And to whom REVEAL went."""
    made, revealed = serve(here.plan, here.roster), Reveals()

    def cheat(upload: Upload) -> Upload:
        boxes = spoiled(here, upload.boxes, cheated)
        return here.signed(made._committee, replace(upload, boxes=boxes))  # type: ignore[attr-defined]

    spoil = changing(here, "upload", {here.names[10]}, cheat)

    def corrupted(envelope: Any) -> bytes:
        if envelope.phase == "reveal":
            revealed.append(envelope.receiver)
        if envelope.phase == "consistency" and envelope.sender in false:
            return here.encode(false[envelope.sender])
        return spoil(envelope)

    try:
        return simulate(made, here.clients(), here.updates().get, faults=Faults(corrupted=corrupted)), revealed
    except PeerError:
        assert not revealed
        assert not list(made.outbox())
        raise


def test_false_complaints_convict_nobody(monkeypatch: Fixture) -> None:
    """Three members were cheated, by client 10. It and client 11 say that client 0 did it, too."""
    here = scene(12, **TWELVE)
    false = {here.names[10]: complaint(0), here.names[11]: complaint(0)}
    with pytest.raises(PeerError, match="do not open") as caught:
        complaints(here, false, {2, 3, 4})
    assert caught.value.culprits == (here.names[10],)
    switch_off(monkeypatch, OneshotServer, "_blamed", "count > parameters_of(self.plan).private", "count > 1")
    with pytest.raises(PeerError, match="do not open") as caught:
        complaints(here, false, {2, 3, 4})
    assert caught.value.culprits == (here.names[0], here.names[10])


def test_who_was_caught_lying_is_named_with_those_complained_about(monkeypatch: Fixture) -> None:
    """Client 10 cheats four members, client 5 signs something else: with either alone a quorum would be left."""
    here = scene(12, **TWELVE)
    false = {here.names[5]: Vote(bytes(64), ())}

    def named() -> tuple[str, ...]:
        with pytest.raises(PeerError, match="do not open") as caught:
            complaints(here, false, {0, 1, 2, 3})
        return caught.value.culprits

    assert named() == (here.names[5], here.names[10])
    switch_off(monkeypatch, OneshotServer, "_blamed", "self._liars", "set()")
    assert named() == (here.names[10],)


def test_one_word_convicts_nobody(monkeypatch: Fixture) -> None:
    """A small cohort, of which a plan reckons with no corrupt member at all. Five members fall silent and one lies: a
    quorum is not left, and the one complaint would be more than none."""
    here = scene(12, corrupt="0.05", dropout=0)
    assert parameters_of(here.plan).corrupt == 0
    silent = dict.fromkeys(here.names[:5], "consistency")
    lies = changing(here, "consistency", {here.names[11]}, lambda consent: complaint(7))

    def named() -> set[str]:
        with pytest.raises(PeerError, match="do not open") as caught:
            run(here, Faults(silent, corrupted=lies))
        return set(caught.value.culprits)

    assert named() == {here.names[7], here.names[11]}
    private = "count > parameters_of(self.plan).private"
    switch_off(monkeypatch, OneshotServer, "_blamed", private, private.replace("private", "corrupt"))
    assert named() == {here.names[7]}


def test_a_client_without_a_seat_frames_no_members(monkeypatch: Fixture) -> None:
    """It uploads a vector that its shares do not fit, and signs that. Members' shares are all right."""
    here = scene(150, corrupt="0.05", dropout="0.05")
    liar = next(name for u, name in enumerate(here.names) if u not in sortition(here.plan, here.roster))

    def named() -> set[str]:
        made = serve(here.plan, here.roster)

        def cheat(upload: Upload) -> Upload:
            return here.signed(made._committee, other_vector(here, upload))  # type: ignore[attr-defined]

        with pytest.raises(PeerError, match="do not open the sum") as caught:
            simulate(
                made,
                here.clients(),
                here.updates().__getitem__,
                faults=Faults(corrupted=changing(here, "upload", {liar}, cheat)),
            )
        return set(caught.value.culprits)

    assert named() == set(here.names)
    switch_off(monkeypatch, OneshotServer, "_decoded", "{*members, *self._survivors}", "{*members}")
    named_alone = named()
    assert named_alone
    assert liar not in named_alone


def test_complaints_that_leave_a_quorum_cost_nothing(monkeypatch: Fixture) -> None:
    """Two members were cheated and two lie. Without the count, two liars would end every round."""
    here = scene(12, **TWELVE)
    false = {here.names[10]: complaint(0), here.names[11]: complaint(0, 1, 2)}
    result, revealed = complaints(here, false, {2, 3})
    assert result.outcome.total.tolist() == total_of(here)
    assert {*revealed} == {"server", *here.names}
    switch_off(monkeypatch, OneshotServer, "_pass_on_signatures", "len(self._signatures) < self._quorum", "True")
    with pytest.raises(PeerError, match="do not open"):
        complaints(here, false, {2, 3})


# Lies by who knows how shares are used. D is the polynomial with roots 4, ..., 10 and D(11) = 1: at the secrets' places
# it is small, so a first polynomial that is off by D is in range, and D(12) = 8, D(3) = -1, D(2) = -8.


def off(here: Scene, missing: list[int], lies: dict[int, int]) -> tuple[Simulation, OneshotServer]:
    """Some members add to the first element of their share; client i is holder i + 1."""

    def forge(name: str) -> Any:
        def lying(answer: Any) -> Any:
            share = np.frombuffer(answer.share, "<u4").astype(np.int64)
            share[0] = (share[0] + lies[here.roster.number(name)]) % PRIME
            return replace(answer, share=share.astype("<u4").tobytes())

        return changing(here, "reveal", {name}, lying)

    by_name = {here.names[u]: forge(here.names[u]) for u in lies}

    def corrupted(envelope: Any) -> bytes:
        change = by_name.get(envelope.sender)
        return change(envelope) if change else envelope.frame  # type: ignore[no-any-return]

    return run(here, Faults(dict.fromkeys([here.names[u] for u in missing], "reveal"), corrupted=corrupted))


def names(here: Scene, *numbers: int) -> tuple[str, ...]:
    return tuple(here.names[u] for u in numbers)


BLIND = "not arithmetic.all_below(limbs, constants.limit)"


def test_colluding_liars_up_to_half_of_the_surplus_are_exposed() -> None:
    """All twelve answer, and two may lie. They agree on another polynomial: ten say otherwise, of whom three at most
    are off theirs."""
    here = scene(12, 3000, **TWELVE)
    result, made = off(here, [], {10: 1, 11: 8})
    assert (result.outcome.total.tolist(), made.outliers) == (total_of(here), names(here, 10, 11))


def test_colluding_liars_beyond_that_end_the_round_and_frame_nobody(monkeypatch: Fixture) -> None:
    """Ten answer: nine of them are on the liars' polynomial, and only client 2 is not. Its secrets look like some, but
    do not open the vector. Without the check of that the honest one is exposed, and the sum wrong."""
    here = scene(12, 3000, **TWELVE)
    with pytest.raises(PeerError, match="do not open the sum") as caught:
        off(here, [0, 1], {10: 1, 11: 8})
    assert caught.value.culprits == tuple(here.names)
    switch_off(monkeypatch, packing, "decode", BLIND)
    result, made = off(here, [0, 1], {10: 1, 11: 8})
    assert made.outliers == names(here, 2)
    assert result.outcome.total.tolist() != total_of(here)


def test_with_a_surplus_of_one_a_liar_frames_nobody(monkeypatch: Fixture) -> None:
    """Nine answer. To leave out client 2, who is honest, gives secrets in range, as to leave out the liar does: the
    holders' numbers are consecutive. Only the vector tells. If it does not, nobody is exposed; the control takes the
    first."""
    here = scene(12, 3000, **TWELVE)
    for liar in (2, 9, 10):
        result, made = off(here, [0, 1, 11], {liar: 1})
        assert (result.outcome.total.tolist(), made.outliers) == (total_of(here), names(here, liar))
    switch_off(monkeypatch, packing, "decode", BLIND)
    with pytest.raises(PeerError, match="do not open the sum") as caught:
        off(here, [0, 1, 11], {10: 1})
    assert caught.value.culprits == tuple(here.names)
    switch_off(monkeypatch, OneshotServer, "_decoded", "len(found) != 1", "not found")
    result, made = off(here, [0, 1, 11], {10: 1})
    assert made.outliers == names(here, 2)
    assert result.outcome.total.tolist() != total_of(here)


# A vector of one value is one coefficient, and a liar can look for a lie with which it decodes. This one knows the sum
# of the secrets, which makes the search short.


@cache
def chosen_lie() -> list[int]:
    """Multiples of D for the first four polynomials, so that one coefficient of a D stays small: of the 2^46 choices
    there are some, and they are found by sorting two lists of 2^23."""
    here, shares = scene(12, 1, **TWELVE), dict[int, bytes]()

    def keep(envelope: Any) -> bytes:
        if envelope.phase == "reveal" and envelope.receiver == "server":
            shares[here.roster.number(envelope.sender)] = here.decode(envelope.frame).share
        return envelope.frame  # type: ignore[no-any-return]

    run(here, Faults(corrupted=keep))
    sharing, layout = sharing_of(here.plan), lattice_of(here.plan).layout
    q, N, base = layout.ring.modulus, layout.ring.degree, 2 * sharing.bound + 1
    middle = sharing.bound * sum(base**d for d in range(sharing.digits))
    points = tuple(range(1, sharing.threshold + 1))
    given = np.stack([sharing.unpack(shares[point - 1]) for point in points]).astype(np.uint64)
    elements = _evaluate(points, sharing._secret_points(), given).astype(np.int64)
    words = public_of(here.plan).coefficients().words[:, 0, :]
    crt = [q // p * pow(q // p, -1, p) for p in layout.ring.primes]
    a = [sum(int(r) * c for r, c in zip(column, crt, strict=True)) % q for column in words.T]
    row = np.array([x / q if 2 * x < q else (x - q) / q for x in [a[0], *[q - x for x in a[:0:-1]]]])

    def polynomial(k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Multiples, and what each adds to the first coefficient of a S, as a fraction of q."""
        multiples, out = np.arange(-1500, 1501), np.zeros(3001)
        for i in range(sharing.packing):
            old = np.full(3001, elements[i, k] + middle) % PRIME
            new = old - multiples * comb(i + 11, 7)
            out[(new < 0) | (new >= base**sharing.digits)] = np.nan
            for digit in range(sharing.digits):
                (old, before), (new, after) = np.divmod(old, base), np.divmod(new, base)
                place = (digit * sharing.packing + i) * sharing.polynomials + k
                if place < N:
                    out += row[place] * (after - before)
        return multiples[~np.isnan(out)], out[~np.isnan(out)]

    (z0, f0), (z1, f1), (z2, f2), (z3, f3) = map(polynomial, range(4))
    one, two = (np.add.outer(f0, f1).ravel() % 1, np.add.outer(f2, f3).ravel() % 1)
    by_one, by_two = np.argsort(-one), np.argsort(two)
    near = np.searchsorted(two[by_two], 1 - one[by_one]) % len(two)
    distance = np.abs(one[by_one] + two[by_two[near]] - 1)
    i, j = by_one[best := distance.argmin()], by_two[near[best]]
    assert distance[best] < (layout.tail // 2 << layout.width) / q
    return [int(z0[i // len(z1)]), int(z1[i % len(z1)]), int(z2[j // len(z3)]), int(z3[j % len(z3)])]


def chosen(here: Scene, liar: int, sign: int, missing: list[int]) -> tuple[Simulation, OneshotServer]:
    lie = [sign * multiple for multiple in chosen_lie()]

    def forge(answer: Answer) -> Answer:
        share = np.frombuffer(answer.share, "<u4").astype(np.int64)
        share[:4] = (share[:4] + lie) % PRIME
        return replace(answer, share=share.astype("<u4").tobytes())

    changed = changing(here, "reveal", {here.names[liar]}, forge)
    return run(here, Faults(dict.fromkeys(names(here, *missing), "reveal"), corrupted=changed))


def test_a_liar_with_nobody_to_contradict_it() -> None:
    """Eight answer. A limit, not a defence: the sum is wrong, and nobody knows."""
    here = scene(12, 1, **TWELVE)
    result, made = chosen(here, 10, 1, [0, 1, 2, 11])
    assert result.outcome.total.tolist() != total_of(here)
    assert made.outliers == ()


def test_a_chosen_lie_frames_nobody(monkeypatch: Fixture) -> None:
    """Nine answer, the last of them honest; without it the lie decodes, and without the liar the truth. One too many is
    no majority, and the solver of the equations always names the last: had that to be believed, it would be exposed."""
    here = scene(12, 1, **TWELVE)
    with pytest.raises(PeerError, match="do not open the sum") as caught:
        chosen(here, 2, -1, [0, 1, 11])
    assert caught.value.culprits == tuple(here.names)
    switch_off(monkeypatch, OneshotServer, "_decoded", "2 * len(wrong) > len(members) - self._quorum")
    result, made = chosen(here, 2, -1, [0, 1, 11])
    assert made.outliers == names(here, 10)
    assert result.outcome.total.tolist() != total_of(here)
