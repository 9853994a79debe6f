"""Sums over whoever is ready, in the real protocols: nine clients, of whom six are in a buffer and one may be missing.

What a client checks, one by one, each with a control; what both sides' ledgers make of it; and what a server that
decides who comes next cannot have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp import verify_ledger
from dp.calibrate import Calibration, calibrate, release_of, user_level
from dp.events import Relation
from dp.filter import Budget
from dp.ledger import Ledger
from dp.ledger.file import read
from dp.ledger.verify import compare, verify
from dp.secure_sum import SecureSum
from protocols.buffers import Buffer, Buffers, Contributor, Start, weight
from protocols.journal import SqliteJournal
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, Simulation, drive
from secagg.crypto.keys import SigningKey
from secagg.encoding import Encoding
from secagg.errors import BudgetError, DecodeError, PolicyError, SecAggError, ThresholdError, UsageError
from secagg.signed_versions import Signer
from tests.controls import switch_off
from tests.scenes.journals import KeptJournal
from tests.scenes.ledger import KEY, exported

LENGTH, SIZE, MISSING = 8, 6, 1
NAMES = tuple(f"c{i}" for i in range(9))
IDENTITIES = {name: Identity(name, SigningKey(name.encode().ljust(32, b"."))) for name in NAMES}
ROSTER = Roster.of(list(IDENTITIES.values()))
BUFFERS = Buffers(ROSTER, SIZE, MISSING, corrupt="0.1", staleness=3)
PLAIN = Encoding.integers(LENGTH, bits=12)
USER, DELTA, MOST = user_level(Relation.ZERO_OUT), Fraction(1, 10**5), 2


def version(number: int) -> Start:
    return Start(number, bytes([number]) * 32)


def buffer_of(starts: Mapping[str, int], current: int, buffers: Buffers = BUFFERS) -> Buffer:
    started = {name: version(number) for name, number in starts.items()}
    return Buffer.of(current, buffers.staleness, started, version(current).model)


@cache
def calibrated(most: int = MOST) -> Calibration:
    kind: dict[str, Any] = {"clients": SIZE, "dropouts": MISSING, "colluders": 1, "components": 1}
    return calibrate(epsilon=8, delta=DELTA, rounds=most, length=LENGTH, clip_l2=1.0, **kind)


def budget() -> Budget:
    found = calibrated()
    event = release_of(found.encoding, found.noise, SIZE, SIZE - MISSING, USER)
    return Budget.suited(event, Fraction(8), DELTA, slack=DELTA / 100)


def plan_of(
    buffer: Buffer, number: int = 0, *, protocol: str = "secagg", noised: bool = False, **more: Any
) -> RoundPlan:
    plan = RoundPlan.propose(
        protocol,
        BUFFERS.cohort(buffer.names),
        calibrated().encoding if noised else PLAIN,
        min_contributors=SIZE - MISSING,
        corrupt="1/6",
        dropout="1/6",
        noise=calibrated().noise if noised else None,
        session=b"s" * 16,
        model=buffer.model(),
    )
    return replace(plan, round=number, **more)


class Parties:
    """The clients of one buffer, each with its update."""

    def __init__(
        self, mine: Mapping[str, Contributor], plan: RoundPlan, buffer: Buffer, update: Callable[[str], Any]
    ) -> None:
        self.mine, self.plan, self.buffer, self.update = mine, plan, buffer, update
        self.clients: dict[str, Any] = {}

    def begin(self) -> Any:
        for name in self.buffer.names:
            try:
                self.clients[name], frame = self.mine[name].start(self.plan, self.buffer, self.update(name))
            except UsageError:
                raise
            except SecAggError as error:
                yield name, error
            else:
                yield name, frame

    def answers(self, requests: Any) -> Any:
        for name, frame in requests:
            yield name, self.clients[name].receive(frame)


def contributors(starts: Mapping[str, int], **more: Any) -> dict[str, Contributor]:
    made = {name: Contributor(BUFFERS, IDENTITIES[name], **more) for name in starts}
    for name, number in starts.items():
        made[name].begin(number, version(number).model)
    return made


def sum_up(
    mine: Mapping[str, Contributor],
    plan: RoundPlan,
    buffer: Buffer,
    update: Callable[[str], Any],
    ledger: Ledger | None = None,
    gone: Mapping[str, str] | None = None,
) -> Simulation:
    server = serve(plan, BUFFERS.cohort(buffer.names), ledger=ledger)
    return drive(server, Parties(mine, plan, buffer, update), Faults(dropouts=gone or {}))


STARTS = {"c0": 5, "c2": 5, "c3": 2, "c5": 4, "c7": 2, "c8": 5}


@pytest.mark.parametrize("protocol", ["secagg", "secagg+", "oneshot"])
def test_a_buffer_is_the_sum_of_weighed_updates(protocol: str) -> None:
    """Of versions 5, 4 and 2, for version 5: 1, 1/sqrt(2) and 1/2 of what each has. One is missing in the end."""
    buffer = buffer_of(STARTS, 5)
    plan, phase = plan_of(buffer, protocol=protocol), "advertise" if protocol != "oneshot" else "upload"
    updates = {name: np.full(LENGTH, 4.0 * (1 + number)) for number, name in enumerate(NAMES)}
    updates["c5"] = np.full(LENGTH, 24 * np.sqrt(2))
    mine = contributors(STARTS, policy=BUFFERS.policy(protocols={protocol}))
    ran = sum_up(mine, plan, buffer, updates.__getitem__, gone={"c8": phase})
    total = 4 * 1 + 4 * 3 + 0.5 * 4 * (4 + 8) + 24
    assert ran.outcome.survivors == ("c0", "c2", "c3", "c5", "c7")
    assert np.allclose(ran.outcome.decode().vector, total, atol=1e-9)


def test_no_more_may_be_missing_than_was_agreed_on() -> None:
    buffer = buffer_of(STARTS, 5)
    gone = {"c8": "upload", "c0": "upload"}
    with pytest.raises(ThresholdError):
        sum_up(contributors(STARTS), plan_of(buffer), buffer, lambda name: np.zeros(LENGTH), gone=gone)


def test_the_weight_is_at_most_one_and_comes_before_the_clip() -> None:
    """Whatever the update, integers stay within the sensitivity; a stale one that is too long is cut like any other."""
    assert all(0 < weight(age) <= 1 for age in range(100))
    assert [weight(age) > weight(age + 1) for age in range(20)] == [True] * 20
    buffer = buffer_of(STARTS, 5)
    plan = plan_of(buffer, noised=True)
    for name, number in (("c0", 5), ("c3", 2)):
        mine = contributors({name: number})[name]
        client, _ = mine.start(plan, buffer, np.full(LENGTH, 1e6))
        packed = plan.ring.centred(plan.ring.unpack(client.encoded(), plan.encoding.coordinates)).astype(np.int64)
        assert 0 < int((packed**2).sum()) <= plan.encoding.sensitivity().l2_squared
    silent = contributors({"c3": 2})["c3"]
    client, _ = silent.start(plan, buffer, None)
    assert not np.frombuffer(client.encoded(), np.uint8).any()


def test_a_silos_users_are_each_weighed() -> None:
    users = 4
    silo = replace(PLAIN, users=users)
    buffer = buffer_of(STARTS, 5)
    plan = replace(plan_of(buffer), encoding=silo, ring_bits=24)
    mine = contributors({"c3": 2}, policy=BUFFERS.policy(users=users))["c3"]
    client, _ = mine.start(plan, buffer, [np.full(LENGTH, 2.0 * one) for one in range(1, 4)])
    packed = plan.ring.centred(plan.ring.unpack(client.encoded(), plan.encoding.coordinates))
    assert packed.tolist() == [1 + 2 + 3] * LENGTH


def check_plan(what: SecureSum) -> None:
    RoundPlan.charged(what)


# What a client checks


def lies() -> dict[str, tuple[RoundPlan, Buffer, Start, str, str]]:
    """What is told to c3, the version that it started from, what it says to that, and the check that makes it."""
    honest, two = buffer_of(STARTS, 5), version(2)
    other = {**STARTS, "c3": 3}
    forged = replace(honest, models=(*honest.models[:3], b"x" * 32))
    ages = buffer_of({**STARTS, "c0": 1}, 5, replace(BUFFERS, staleness=9))
    return {
        "another buffer": (plan_of(buffer_of(other, 5)), honest, two, "another buffer", "plan.model != buffer.model()"),
        "another size": (
            plan_of(more := buffer_of({**STARTS, "c1": 5}, 5)),
            more,
            two,
            "is of 6 clients",
            "plan.clients != self.size",
        ),
        "others": (
            plan_of(honest, roster=BUFFERS.cohort(NAMES[:6]).digest),
            honest,
            two,
            "others than those",
            "plan.roster != self._digest_of(buffer.names)",
        ),
        "strangers": (
            plan_of(honest, model=(lost := replace(honest, names=(*honest.names[:-1], "zoe"))).model()),
            lost,
            two,
            "others than those",
            "plan.roster != self._digest_of(buffer.names)",
        ),
        "lots": (plan_of(honest, beacon=b"dice"), honest, two, "lots", "plan.beacon"),
        "too stale for us": (plan_of(ages), ages, two, "9 versions old", "buffer.staleness > self.staleness"),
        "another start": (
            plan_of(buffer_of(other, 5)),
            buffer_of(other, 5),
            Start(2, version(3).model),
            "started from version 2",
            "name not in buffer.names or buffer.version - buffer.staleness_of(name) != start.version",
        ),
        "an older plan": (
            plan_of(buffer_of(STARTS, 5)),
            buffer_of(STARTS, 5),
            Start(7, version(2).model),
            "started from version 7",
            "name not in buffer.names or buffer.version - buffer.staleness_of(name) != start.version",
        ),
        "another model": (
            plan_of(forged),
            forged,
            two,
            "another one here",
            "buffer.models[buffer.staleness_of(name)] != start.model",
        ),
    }


@pytest.mark.parametrize("lie", list(lies()))
def test_what_a_client_refuses(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: without the check it takes part."""
    plan, buffer, start, said, check = lies()[lie]
    mine = Contributor(BUFFERS, IDENTITIES["c3"])
    mine.begin(start.version, start.model)
    with pytest.raises(PolicyError, match=said):
        mine.start(plan, buffer, np.zeros(LENGTH))
    switch_off(monkeypatch, Buffers, "check", check)
    BUFFERS.check(plan, buffer, "c3", start)


def test_who_is_not_named_takes_no_part() -> None:
    buffer = buffer_of(STARTS, 5)
    with pytest.raises(PolicyError, match="does not say that c1"):
        contributors({"c1": 5})["c1"].start(plan_of(buffer), buffer, np.zeros(LENGTH))


def test_an_update_goes_into_one_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none that nothing is known of goes into any. The same plan again is the same round."""
    first, second = buffer_of(STARTS, 5), buffer_of({**STARTS, "c5": 5}, 5)
    mine = contributors({"c3": 2})["c3"]
    _, frame = mine.start(plan_of(first), first, np.zeros(LENGTH))
    mine.check(plan_of(first), first)
    with pytest.raises(PolicyError, match="is in another buffer"):
        mine.check(plan_of(second, 1), second)
    assert frame
    fresh = Contributor(BUFFERS, IDENTITIES["c3"])
    with pytest.raises(PolicyError, match="does not know its start"):
        fresh.check(plan_of(first), first)
    switch_off(monkeypatch, Contributor, "check", "self._plan not in (b'', plan.digest())")
    mine.check(plan_of(second, 1), second)


def test_a_client_goes_to_no_older_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Than it was given, or than a buffer that it was in was for."""
    mine, buffer = contributors({"c3": 2})["c3"], buffer_of(STARTS, 5)
    with pytest.raises(PolicyError, match="older than 2"):
        mine.begin(1, version(1).model)
    mine.start(plan_of(buffer), buffer, np.zeros(LENGTH))
    with pytest.raises(PolicyError, match="older than 5"):
        mine.begin(4, version(4).model)
    mine.begin(5, version(5).model)
    switch_off(monkeypatch, Contributor, "begin", "version < self._newest")
    mine.begin(1, version(1).model)


def test_a_number_is_one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a client was told of it, or a buffer had it: no other model has that number later."""
    mine, buffer, forged = contributors({"c3": 2})["c3"], buffer_of(STARTS, 5), b"x" * 32
    with pytest.raises(PolicyError, match="version 2 is another one"):
        mine.begin(2, forged)
    mine.start(plan_of(buffer), buffer, np.zeros(LENGTH))
    with pytest.raises(PolicyError, match="version 5 is another one"):
        mine.begin(5, forged)
    mine.begin(5, version(5).model)
    mine.begin(6, version(6).model)
    started = {name: version(5) for name in STARTS} | {"c3": version(6)}
    good = Buffer.of(6, BUFFERS.staleness, started, version(6).model)
    mine.check(plan_of(good, 1), good)
    lie = replace(good, models=(good.models[0], forged))
    with pytest.raises(PolicyError, match="version 5 is another one"):
        mine.check(plan_of(lie, 1), lie)
    switch_off(monkeypatch, Contributor, "_check_known", "self._known.get(number, model) != model")
    mine.check(plan_of(lie, 1), lie)
    mine.begin(6, forged)


def test_what_a_client_remembers_of_versions_has_an_end() -> None:
    mine = Contributor(BUFFERS, IDENTITIES["c3"])
    for number in range(20):
        mine.begin(number, version(number).model)
    mine.begin(19, version(19).model)
    assert len(mine._known) == BUFFERS.staleness + 1


def test_what_is_no_buffer() -> None:
    good = buffer_of(STARTS, 5)
    assert Buffer.decode(good.encode()) == good
    wrong: list[dict[str, Any]] = [
        {"version": 4},
        {"version": 6},
        {"staleness": 2},
        {"staleness": 1 << 20},
        {"names": good.names[::-1]},
        {"names": ("c0", *good.names[:-1])},
        {"starts": good.starts[:-1]},
        {"starts": ()},
        {"models": good.models[:-1]},
        {"models": (*good.models, b"y" * 32)},
    ]
    for change in wrong:
        with pytest.raises(UsageError):
            replace(good, **change)
    with pytest.raises(UsageError, match="c1 started from another version 5"):
        Buffer.of(5, 3, {"c0": version(5), "c1": Start(5, b"x" * 32)}, version(5).model)
    with pytest.raises(UsageError, match="versions 2 to 5"):
        buffer_of({**STARTS, "c0": 1}, 5)
    with pytest.raises(UsageError):
        Start(-1, bytes(32))
    data = good.encode()
    for cut in (data[:-1], data + b"0", data[:40]):
        with pytest.raises(DecodeError):
            Buffer.decode(cut)


def test_each_thing_a_buffer_says_is_in_the_plan() -> None:
    good = buffer_of(STARTS, 5)
    others = [
        replace(good, staleness=4),
        replace(good, models=(b"x" * 32, *good.models[1:])),
        replace(good, starts=(4, *good.starts[1:])),
        replace(good, names=(*good.names[:-1], "d")),
        replace(buffer_of({name: number + 1 for name, number in STARTS.items()}, 6), models=good.models),
    ]
    assert len({one.model() for one in [good, *others]}) == 6


# Colluders are counted over the whole roster


def test_all_the_dishonest_may_be_in_one_buffer() -> None:
    """Of 40 clients a tenth is dishonest: 4, of a buffer of 12 as of one of 20. The policy reckons with these in the
    noise and in the graph, where a cohort drawn by lot has about its part."""
    roster = Roster.build({f"c{i:02}": bytes([i]) * 31 + b"\1" for i in range(40)})
    for size in (12, 20):
        buffers = Buffers(roster, size, 2, corrupt="0.1")
        policy, noise = buffers.policy(), buffers.noise(Fraction(size - 6))
        assert (buffers.colluders, policy.corrupt_of(size), policy.min_contributors) == (4, 4, size - 2)
        assert noise.kept_variance(size) == 1  # V / (K - A - C)
        assert noise.honest_variance(size, size - 2) == size - 6
    with pytest.raises(UsageError, match="fewer than two are left"):
        Buffers(roster, 7, 2, corrupt="0.1")
    for wrong in ({"size": 1}, {"size": 41}, {"missing": -1}, {"staleness": -1}):
        with pytest.raises(UsageError):
            Buffers(roster, **{"size": 12, **wrong})


def test_noise_for_a_cohorts_part_of_the_dishonest_is_refused() -> None:
    """As it would be for a cohort that nobody chose: a twelfth of 6 is 1, and here a third of nine is 3."""
    fearful, buffer = replace(BUFFERS, corrupt="0.3"), buffer_of(STARTS, 5)
    assert fearful.colluders == 3
    mine = Contributor(fearful, IDENTITIES["c3"])
    mine.begin(2, version(2).model)
    with pytest.raises(PolicyError, match="1 colluders, not the 3 feared"):
        mine.check(plan_of(buffer, noised=True), buffer)


# What is charged


def books(path: Path, *, epsilon: int = 8, key: SigningKey = KEY, **more: Any) -> Ledger:
    return Ledger.create(path, key, replace(budget(), epsilon=Fraction(epsilon)), USER, run="b", elsewhere="-", **more)


def test_a_lifetime_bound_on_both_sides(tmp_path: Path) -> None:
    """Noise for two contributions of each. The server's ledger charges whom a buffer names, the clients' own what they
    have uploaded for; the third contribution of c3 is refused by whichever remembers. All auditors agree."""
    ledger = books(tmp_path / "ledger.db", arrivals=BUFFERS.arrivals)
    own = books(tmp_path / "own.db", key=SigningKey(b"k" * 32))
    starts = dict(STARTS)
    mine, journal = contributors(starts), KeptJournal()
    mine["c3"] = Contributor(BUFFERS, IDENTITIES["c3"], journal=journal, ledger=own)
    mine["c3"].begin(2, version(2).model)
    for number in range(MOST):
        buffer = buffer_of(starts, 5 + number)
        plan = plan_of(buffer, number, noised=True)
        ran = sum_up(mine, plan, buffer, lambda name: np.full(LENGTH, 0.01), ledger)
        assert "c3" in ran.outcome.survivors
        starts = dict.fromkeys(STARTS, 5 + number)
        for name, one in mine.items():
            one.begin(starts[name], version(starts[name]).model)
    spent = ledger._known.filter.each  # type: ignore[union-attr]
    assert {name for name, one in spent.items() if one.spent.amounts != (0,)} == set(STARTS)
    buffer = buffer_of(starts, 7)
    with pytest.raises(BudgetError, match="epsilon could reach"):
        mine["c3"].check(plan_of(buffer, 2, noised=True), buffer)
    with pytest.raises(BudgetError, match="client c0"):
        sum_up(mine, plan_of(buffer, 2, noised=True), buffer, lambda name: np.zeros(LENGTH), ledger)
    rest = dict.fromkeys(("c1", "c4", "c6", "c0", "c2", "c5"), 6)
    with pytest.raises(BudgetError, match="client c0"):
        serve(plan_of(other := buffer_of(rest, 7), 3, noised=True), BUFFERS.cohort(other.names), ledger=ledger)
    ledger.close()
    own.close()
    rows, kept = read(tmp_path / "ledger.db"), read(tmp_path / "own.db")
    state = verify(rows, KEY.public, also=check_plan)
    assert compare(state, verify(kept)) == MOST
    assert list(verify_ledger.problems(exported(rows), KEY.public, None)) == []


def test_a_client_that_was_killed_goes_on_with_its_buffer(tmp_path: Path) -> None:
    """A restarted client that is told the same start says its first frame again, byte for byte."""
    buffer, path = buffer_of(STARTS, 5), tmp_path / "journal.db"
    plan, frames = plan_of(buffer), list[bytes]()
    for _ in range(2):
        journal = SqliteJournal(path)
        mine = contributors({"c3": 2}, journal=journal)["c3"]
        frames.append(mine.start(plan, buffer, np.full(LENGTH, 2.0))[1])
        journal.close()
    assert frames[0] == frames[1]
    other = buffer_of({**STARTS, "c0": 4}, 5)
    journal = SqliteJournal(path)
    again = contributors({"c3": 2}, journal=journal)["c3"]
    again.start(plan_of(other, 1), other, np.zeros(LENGTH))
    with pytest.raises(PolicyError, match="is in another buffer"):
        again.start(plan, buffer, np.zeros(LENGTH))
    journal.close()


def test_a_signed_roster_makes_signed_buffers(tmp_path: Path) -> None:
    """Where clients ask for signatures, a cohort is signed as its roster is, and what is signed as the model is the
    buffer: one that the deployment did not sign is refused."""
    signer = Signer("deployment", SigningKey(b"d" * 32), tmp_path / "deployment.versions")
    buffers = replace(BUFFERS, roster=ROSTER.signed(signer))
    policy, buffer = buffers.policy(signed_by=signer.signatory), buffer_of(STARTS, 5)
    journal = SqliteJournal(tmp_path / "journal.db")
    mine = Contributor(buffers, IDENTITIES["c3"], policy=policy, journal=journal)
    mine.begin(2, version(2).model)
    with pytest.raises(PolicyError, match="is not signed"):
        mine.check(plan_of(buffer), buffer)
    mine.check(plan_of(buffer).signed(signer.model), buffer)
    journal.close()
