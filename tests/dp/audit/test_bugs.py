"""Bugs seeded into production code, each caught by the cheapest audit that can, or refused by the code around it.

A bug is one function replaced. Where production has a check of its own behind the function, the bug is refused by a
declared error before anything is measured; a second test takes that check away too, and an audit must see the bug then.
README.md has the table.
"""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp import calibrate as calibrate_module
from dp import noise as noise_module
from dp.audit import Verdict, false_alarm
from dp.audit.claim import FALSE_ALARM
from dp.calibrate import Calibration, user_level
from dp.events import Relation
from dp.filter import Filter
from dp.ledger import Budget, Ledger
from dp.noise import NoiseSpec
from protocols.client import Client
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from protocols.rounds import server as server_module
from protocols.rounds.client import ClientRound
from protocols.simulation import audited as private_sum
from secagg import coins
from secagg.crypto import labels
from secagg.crypto.keys import SigningKey, derive
from secagg.crypto.prg import Prg
from secagg.crypto.sampling import draws
from secagg.encoding import Encoding, Sum
from secagg.errors import BudgetError, PolicyError, SecAggError, UsageError
from tests.controls import switch_off
from tests.dp.audit import suite

ONE_OF_A_HUNDRED = "noise is None or self.identity.name == 'client-03'"
FAILED, FINDING = Verdict.FAILED, Verdict.FINDING
Patch = pytest.MonkeyPatch
Seed = Callable[[Patch], None]


def noised(condition: str, instead: str) -> Seed:
    """Another expression in the one function in which a client adds its noise."""
    return lambda patch: switch_off(patch, ClientRound, "noised", condition, instead)


def instead_of(owner: Any, name: str, wrong: Callable[..., Any]) -> Seed:
    """``wrong`` is given the right function as its first argument."""
    right = getattr(owner, name)
    return lambda patch: patch.setattr(owner, name, lambda *args, **more: wrong(right, *args, **more))


def halved(draw: Callable[..., Any], family: Any, variance: Fraction, *args: Any) -> Any:
    return draw(family, variance / 4, *args)


def two_blocks_of_one_stream(draw: Callable[..., Any], family: Any, variance: Fraction, count: int, seed: bytes) -> Any:
    return np.tile(draw(family, variance, count // 2, seed), 2)


def saturated(right: Callable[..., Any], self: ClientRound, *context: bytes) -> Any:
    largest = self.plan.encoding.largest
    return np.clip(right(self, *context), -largest, largest)


def averaged_over_those_who_came(decode: Callable[..., Sum], self: RoundPlan, total: Any, contributors: int) -> Sum:
    found = decode(self, total, contributors)
    return replace(found, vector=found.vector * self.clients / contributors)


def tenth(found: Calibration) -> Calibration:
    return replace(found, epsilon=found.epsilon / 10)


def forked(patch: Patch) -> None:
    """Every client is a virtual machine that is set back before each round: its random bytes are always the same."""

    def clients(count: int, policy: Any, rng: Any) -> tuple[Roster, dict[str, Client]]:
        identities = [Identity.generate(f"client-{i}", rng) for i in range(count)]
        roster = Roster.of(identities)
        made = {}
        for identity in identities:
            snapshot = sha256(identity.name.encode()).digest()
            made[identity.name] = Client(
                identity, roster, policy=policy, rng=lambda count, snapshot=snapshot: Prg(snapshot)(count)
            )
        return roster, made

    patch.setattr(private_sum, "local_clients", clients)


def unchecked(patch: Patch) -> None:
    """Without the exact check of the norm after rounding."""
    switch_off(patch, Encoding, "_round", "norm_squared <= longest", "True")


def sample(condition: str, instead: str) -> Seed:
    """Another expression in the function that draws batches."""

    def seed(patch: Patch) -> None:
        switch_off(patch, coins, "poisson_sample", condition, instead)

    return seed


def of_the_secret_only(drawn: Any, self: ClientRound, purpose: bytes, *context: bytes) -> bytes:
    return derive(self._secret, labels.CLIENT_SECRET, purpose)


def always_the_same_in_one_client(drawn: Any, self: ClientRound, purpose: bytes, *context: bytes) -> bytes:
    again = b"noise" in purpose and self.identity.name == "client-3"
    return derive(bytes(32), labels.CLIENT_SECRET, purpose) if again else drawn(self, purpose, *context)


def without_a_secret(drawn: Any, self: ClientRound, purpose: bytes, *context: bytes) -> bytes:
    public = derive(bytes(32), labels.CLIENT_SECRET, purpose, self.plan.digest())
    return public if b"noise" in purpose else drawn(self, purpose, *context)


def of_public_values(drawn: Any, self: ClientRound, purpose: bytes, *context: bytes) -> bytes:
    """Others for each client, round and upload, and anybody can draw it again."""
    public = derive(bytes(32), labels.CLIENT_SECRET, purpose, self.plan.digest(), self.identity.name.encode(), *context)
    return public if b"noise" in purpose else drawn(self, purpose, *context)


def of_the_round_only(drawn: Any, self: ClientRound, purpose: bytes, *context: bytes) -> bytes:
    """A secret that a client keeps for life, and the number of the round: two uploads of one round, one noise."""
    life = derive(self.identity.key.secret, labels.CLIENT_SECRET, purpose, bytes([self.plan.round]))
    return life if b"noise" in purpose else drawn(self, purpose, *context)


def last_one_missing(right: Callable[..., Any], *args: Any) -> Any:
    """Of what is drawn, the last number is 0."""
    out = right(*args)
    out[-1] = 0
    return out


def powers_missing(right: Callable[..., Any], *args: Any) -> Any:
    """Off by one where blocks end: the numbers 1, 2, 4, 8, ... are 0."""
    out = right(*args)
    out[[1 << k for k in range((len(out) - 1).bit_length())]] = 0
    return out


def in_proportion(right: Callable[..., Any], self: ClientRound, *context: bytes) -> Any:
    """A client adds noise as its own update is large, so that quiet clients do not disturb."""
    noised, values = right(self, *context), self.values()
    part = np.linalg.norm(values.astype(float)) / (self.plan.encoding.scale * self.plan.encoding.clip_l2)
    return values + ((noised - values) * min(part, 1)).astype(np.int64)


def blocks_of_one_stream(right: Callable[..., Any], table: Any, count: int, seed: bytes, start: int = 0) -> Any:
    """The sampler begins each of its blocks at the beginning of the stream."""
    return np.resize(right(table, min(count, 1 << 15), seed, start), count)


def adds_up_to_nothing(draw: Callable[..., Any], *args: Any) -> Any:
    """Noise is centred, as if it were data: what the vector's numbers add up to is released without any."""
    out = draw(*args)
    out -= out.sum() // len(out)
    out[0] -= out.sum()
    return out


def mirrored(draw: Callable[..., Any], family: Any, variance: Fraction, count: int, seed: bytes) -> Any:
    """Half of it is drawn, and the other half is its negative, from the end to the beginning."""
    half = draw(family, variance, -(-count // 2), seed)
    return np.concatenate([half, -half[: count // 2][::-1]])


def even(draw: Callable[..., Any], *args: Any) -> Any:
    """Rounded to even numbers: as noise in floats that are too coarse. Whether a sum is even, is released."""
    return draw(*args) >> 1 << 1


def cut(draw: Callable[..., Any], family: Any, variance: Fraction, *args: Any) -> Any:
    """Noise is kept within three deviations, so that nothing stands out."""
    return np.clip(draw(family, variance, *args), -isqrt(int(9 * variance)), isqrt(int(9 * variance)))


def never_negative(right: Callable[..., Any], self: ClientRound, *context: bytes) -> Any:
    """One client takes noise for something that is added, and drops its sign."""
    values = self.values()
    drawn = right(self, *context) - values
    return values + (np.abs(drawn) if self.identity.name == "client-3" else drawn)


def one_link(right: Any, self: NoiseSpec, clients: int, count: int, seed: bytes, level: int) -> Any:
    """All removable components come from the first seed."""
    parts = (self.component_variance(clients, j) for j in range(level + 1, self.components + 1))
    drawn = [noise_module.drawn(self.family, part, count, derive(seed, labels.NOISE_DRAW)) for part in parts]
    return sum(drawn, np.zeros(count, np.int64))


def one_part_only(right: Any, self: NoiseSpec, clients: int, count: int, seed: bytes, level: int) -> Any:
    """Of all removable components, a client adds the first."""
    return right(replace(self, components=1, dropouts=1), clients, count, seed, min(level, 1))


def in_one_client(right: Callable[..., Any], self: ClientRound, *context: bytes) -> Any:
    """One client of ten, and its last number."""
    noised = right(self, *context)
    if self.identity.name == "client-3":
        noised[-1] = self.values()[-1]
    return noised


DRAWN, CLIPPED = (ClientRound, "_drawn"), (Encoding, "_clipped")
NO_CLIP = instead_of(*CLIPPED, lambda right, self, vector: (vector, 1.0))
CLIP_BY_COORDINATE = instead_of(*CLIPPED, lambda right, self, vector: (np.clip(vector, -1, 1), 1.0))
STRETCHED = instead_of(Encoding, "_rotated", lambda right, self, vector, *rest: right(self, 2 * vector, *rest))
NO_INFLATION = instead_of(Encoding, "_longest", lambda right, self: int((self.scale * self.clip_l2) ** 2))


def clips_its_sum(
    right: Callable[..., Any], self: Encoding, vectors: Any, *, seed: bytes, rng: Any, residuals: Any = None
) -> Any:
    """Of all its users together."""
    alone = replace(self, users=0, overlap=1)
    return alone.encode(np.sum(list(vectors), axis=0), weight=1, seed=seed, rng=rng)


def of_one_silo(right: Callable[..., Any], self: Encoding) -> Any:
    """As if a person was in one silo only; or, charged for two of them, as if their parts were two sums."""
    found = right(self)
    return replace(found, l2_squared=found.l2_squared // self.overlap)


def in_encode_users(condition: str, instead: str) -> Seed:
    return lambda patch: switch_off(patch, Encoding, "encode_users", condition, instead)


COUNTED = "zip(range(count), vectors, strict=False)"

SEEN: dict[str, tuple[tuple[Seed, ...], suite.Audit, str, Verdict]] = {
    "noise halved": ((instead_of(noise_module, "drawn", halved),), suite.noise, "noise variance", FAILED),
    "noise halved, and all code but the audit agrees": (
        (instead_of(NoiseSpec, "_at_level", lambda right, self, clients, missing: right(self, clients, missing) / 4),),
        *(suite.noise, "noise variance", FAILED),
    ),
    "one client's noise missing": (
        (noised("noise is None", "noise is None or self.identity.name == 'client-3'"),),
        *(suite.noise_of_many, "noise variance", FAILED),
    ),
    "noise for touched rows only": (
        (noised("values + drawn", "values + drawn * (values != 0)"),),
        *(suite.noise, "noise variance", FAILED),
    ),
    "noised value saturated before summing": (
        (instead_of(ClientRound, "noised", saturated),),
        *(suite.noise, "gain", FAILED),
    ),
    "denominators from actual counts": (
        (instead_of(RoundPlan, "decode_total", averaged_over_those_who_came),),
        *(suite.gain_after_a_dropout, "gain", FAILED),
    ),
    "removable noise not removed": (
        (instead_of(server_module, "excess_of", lambda right, *asked: np.zeros(asked[2], np.int64)),),
        *(suite.noise_with_excess, "noise variance", FINDING),
    ),
    "removable noise removed as if nobody had dropped": (
        (instead_of(NoiseSpec, "removal_level", lambda level, self, missing: 0),),
        *(suite.noise_after_a_dropout, "noise variance", FAILED),
    ),
    "noise not raised for dropouts": (
        (instead_of(NoiseSpec, "kept_variance", lambda each, self, clients: each(replace(self, dropouts=0), clients)),),
        *(suite.noise_left_in, "noise variance", FAILED),
    ),
    "noise seeds repeated after a fork": (
        (forked, instead_of(*DRAWN, of_the_secret_only)),
        *(suite.noise, "noise repeats", FAILED),
    ),
    "one client's noise seed repeated": (
        (instead_of(*DRAWN, always_the_same_in_one_client),),
        *(suite.noise_of_many, "noise repeats", FAILED),
    ),
    "one noise seed for all clients": (
        (instead_of(*DRAWN, without_a_secret),),
        *(suite.noise, "noise variance", FINDING),
    ),
    "noise repeated within a vector": (
        (instead_of(noise_module, "drawn", two_blocks_of_one_stream),),
        *(suite.noise, "noise repeats", FAILED),
    ),
    "no noise in the last place": (
        (noised("values + drawn", "values + drawn * (drawn != drawn[-1])"),),
        *(suite.noise_in_each_place, "noise in each place", FAILED),
    ),
    "no noise in the last place, in the sampler": (
        (instead_of(draws, "sample", last_one_missing),),
        *(suite.noise_in_each_place, "noise in each place", FAILED),
    ),
    "no noise where blocks of 2^k begin": (
        (instead_of(draws, "sample", powers_missing),),
        *(suite.lone, "lone canaries", FAILED),
    ),
    "noise in proportion to the update": (
        (instead_of(ClientRound, "noised", in_proportion),),
        *(suite.noise, "noise variance", FAILED),
    ),
    "one client's last place without noise": (
        (instead_of(ClientRound, "noised", in_one_client),),
        *(suite.streams, "each client's noise", FAILED),
    ),
    "blocks of the sampler begin anew": (
        (instead_of(draws, "sample", blocks_of_one_stream),),
        *(suite.streams, "long draws that return", FAILED),
    ),
    "noise of public values": (
        (instead_of(*DRAWN, of_public_values),),
        *(suite.streams, "draws that return", FAILED),
    ),
    "noise of a lifelong secret and the round": (
        (instead_of(*DRAWN, of_the_round_only),),
        *(suite.streams, "draws that return", FAILED),
    ),
    "noise that adds up to nothing": (
        (instead_of(noise_module, "drawn", adds_up_to_nothing),),
        *(suite.noise_in_each_place, "noise in each pattern", FAILED),
    ),
    "half of the noise mirrors the other": (
        (instead_of(noise_module, "drawn", mirrored),),
        *(suite.noise_in_each_place, "twins", FAILED),
    ),
    "noise rounded to even numbers": (
        (instead_of(noise_module, "drawn", even),),
        *(suite.noise, "noise grid", FAILED),
    ),
    "tails of the noise cut": (
        (instead_of(noise_module, "drawn", cut),),
        *(suite.streams, "tails of removable parts", FAILED),
    ),
    "one client's noise never negative": (
        (instead_of(ClientRound, "noised", never_negative),),
        *(suite.noise_with_excess, "pattern peak", FAILED),
    ),
    "removable components from one seed": (
        (instead_of(NoiseSpec, "excess", one_link),),
        *(suite.streams, "removable parts that return", FAILED),
    ),
    "the first removable component only": (
        (instead_of(NoiseSpec, "excess", one_part_only),),
        *(suite.noise_after_two_dropouts, "noise variance", FAILED),
    ),
    "clip not applied, norm not checked": ((NO_CLIP, unchecked), suite.clip, "clip", FAILED),
    "clipped by coordinate, norm not checked": ((CLIP_BY_COORDINATE, unchecked), suite.clip, "clip", FAILED),
    "rotated bound wrong, norm not checked": (
        (STRETCHED, unchecked),
        *(suite.contribution_rotated, "contribution", FAILED),
    ),
    "rounding inflation ignored, norm not checked": (
        (NO_INFLATION, unchecked),
        *(suite.contribution, "contribution", FAILED),
    ),
    "norm not checked": ((unchecked,), suite.contribution, "contribution", FAILED),
    "a silo clips its sum instead of each user": (
        (instead_of(Encoding, "encode_users", clips_its_sum),),
        *(suite.inside, "contribution", FAILED),
    ),
    "a user counted twice": (
        (in_encode_users(COUNTED, "zip(range(count + 1), [*vectors, *list(vectors)[-1:]])"),),
        *(suite.inside, "contribution", FAILED),
    ),
    "the first user counted twice": (
        (in_encode_users(COUNTED, "zip(range(count + 1), [*list(vectors)[:1], *vectors])"),),
        *(suite.inside, "contribution", FAILED),
    ),
    "cap not enforced": (
        (in_encode_users("(count := len(vectors)) > self.users", "(count := len(vectors)) < 0"),),
        *(suite.inside, "users of a silo", FAILED),
    ),
    "a silo counts more users than it says": (
        (in_encode_users(COUNTED, "enumerate(vectors)"),),
        *(suite.inside, "users of a silo", FAILED),
    ),
    "a person in two silos charged twice, and no claim": (
        (instead_of(Encoding, "sensitivity", of_one_silo),),
        *(suite.inside_several, "contribution", FAILED),
    ),
    "users' norms not checked": (
        (NO_CLIP, unchecked),
        *(suite.inside_nearest, "contribution", FAILED),
    ),
    "one silo's noise missing": (
        (noised("noise is None", "noise is None or self.identity.name == 'client-3'"),),
        *(suite.noise_of_silos, "noise variance", FAILED),
    ),
    "q wrong": (
        (sample("rate.numerator << 64", "(rate.numerator << 64) * 11 // 10"),),
        *(suite.sampling, "sampling rate", FAILED),
    ),
    "fixed size taken for Poisson": (
        (sample("random_words(rng, population) < np.uint64(threshold)", "np.arange(population) < population * rate"),),
        *(suite.sampling, "cohort sizes", FAILED),
    ),
    "a fresh accountant each round": (
        (lambda patch: switch_off(patch, Filter, "commit", "self.spent + cost", "cost"),),
        *(suite.accounting, "charged", FAILED),
    ),
}

REFUSED: dict[str, tuple[tuple[Seed, ...], suite.Audit, type[SecAggError], str]] = {
    "clip not applied": ((NO_CLIP,), suite.clip, UsageError, "rounding does not get shorter"),
    "rotated bound wrong": ((STRETCHED,), suite.contribution_rotated, UsageError, "rounding does not get shorter"),
    "rounding inflation ignored": ((NO_INFLATION,), suite.contribution_coarse, UsageError, "not get shorter"),
    "a plan with the epsilon of one round": (
        (instead_of(calibrate_module, "evaluate", lambda right, *args, **more: right(*args, **{**more, "rounds": 1})),),
        *(suite.accounting, BudgetError, "epsilon could reach"),
    ),
    "a person in two silos charged twice": (
        (instead_of(Encoding, "sensitivity", of_one_silo),),
        *(suite.noise_of_silos, PolicyError, "the claim contradicts itself"),
    ),
    "amplification where there is none": (
        (instead_of(private_sum, "evaluate", lambda right, *args, **more: tenth(right(*args, **more))),),
        *(suite.noise, PolicyError, "the claim contradicts itself"),
    ),
}


@pytest.mark.thinned(6)
@pytest.mark.parametrize("name", SEEN)
def test_a_bug_is_seen(name: str, monkeypatch: Patch) -> None:
    seeds, audit, check, verdict = SEEN[name]
    for seed in seeds:
        seed(monkeypatch)
    found = {c.name: c for c in audit()}
    assert found[check].verdict is verdict


@pytest.mark.parametrize("name", REFUSED)
def test_a_bug_is_refused(name: str, monkeypatch: Patch) -> None:
    seeds, audit, error, reason = REFUSED[name]
    for seed in seeds:
        seed(monkeypatch)
    with pytest.raises(error, match=reason):
        audit()


def test_the_library_as_it_is_passes_every_audit() -> None:
    """With the runs of ``secagg audit`` in tests/cli these are all false alarms of CI, added up.

    The tests of the statistics themselves do not vary: their generators have seeds, and they state what these hide.
    """
    checks = [check for audit in suite.CHEAP for check in audit()]
    assert {check.verdict for check in checks} == {Verdict.PASSED}
    assert {audit for _, audit, *_ in (*SEEN.values(), *REFUSED.values())} == set(suite.CHEAP)
    by_command = 12 * 25 * FALSE_ALARM + 25 * FALSE_ALARM  # a dozen runs of 25 checks that can err, one of 25 more
    assert false_alarm(checks) + by_command < 5e-7


def test_a_bug_leaves_the_other_checks_alone(monkeypatch: Patch) -> None:
    """The verdict says what is wrong, not only that something is."""
    for seed in SEEN["one client's noise missing"][0]:
        seed(monkeypatch)
    verdicts = {check.name: check.verdict for check in suite.noise_of_many()}
    assert [name for name, verdict in verdicts.items() if verdict is not Verdict.PASSED] == [
        *("noise variance", "noise in each place"),
    ]


def test_a_fork_alone_repeats_no_noise(monkeypatch: Patch) -> None:
    """Seeds depend on the plan's round, too."""
    forked(monkeypatch)
    assert {check.verdict for check in suite.noise()} == {Verdict.PASSED}


def test_a_second_beginning_is_refused(tmp_path: Path) -> None:
    """A fresh accountant by hand: not while the old one is there."""
    budget, guarantee = Budget(Fraction(1), Fraction(1, 10**6), slack=Fraction(0)), user_level(Relation.ZERO_OUT)
    begun = (tmp_path / "ledger.db", SigningKey(b"l" * 32), budget, guarantee)
    Ledger.create(*begun, run="audit", elsewhere="nothing").close()
    with pytest.raises(UsageError, match="there is a ledger"):
        Ledger.create(*begun, run="audit", elsewhere="nothing")


@pytest.mark.long
@pytest.mark.parametrize(("part", "verdict"), [(1, Verdict.PASSED), (4, FAILED)])
def test_canaries_see_what_the_noise_test_sees(part: int, verdict: Verdict, monkeypatch: Patch) -> None:
    """Half the noise doubles mu: the last line of defence, for a pipeline whose inputs are not known."""
    weaker = lambda draw, family, variance, *args: draw(family, variance / part, *args)  # noqa: E731
    instead_of(noise_module, "drawn", weaker)(monkeypatch)
    assert [check.verdict for check in suite.canaries()] == [verdict, Verdict.PASSED]


@pytest.mark.long
@pytest.mark.parametrize(("condition", "verdict"), [("noise is None", Verdict.PASSED), (ONE_OF_A_HUNDRED, FAILED)])
def test_one_missing_client_of_a_hundred(condition: str, verdict: Verdict, monkeypatch: Patch) -> None:
    """2^21 coordinates; missed with probability below 1e-3 (3.6 standard deviations), raised for nothing below 1e-9."""
    noised("noise is None", condition)(monkeypatch)
    found = suite.noise(length=1 << 18, repeats=8, clients=100)
    assert found[0].verdict is verdict


def test_the_table_names_every_bug() -> None:
    table = Path(__file__).with_name("README.md").read_text("utf-8")
    assert [name for name in (*SEEN, *REFUSED) if name not in table] == []
