"""The pipeline that audits are given: the machines' own sums, and a claim worked out without their code."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from dp.audit import Draw
from dp.calibrate import Calibration, calibrate
from dp.noise import Family, NoiseSpec
from protocols.client import Client
from protocols.simulation.audited import PrivateSums, planned_variance, without_rotation
from secagg.crypto.prg import Prg
from secagg.errors import DecodeError, UsageError

DELTA = 1e-6


def found_for(length: int = 8, rounds: int = 1, **more: Any) -> Calibration:
    arguments: dict[str, Any] = {"epsilon": 20.0, "clients": 4, "clip_l2": 1.0, "dropouts": 1} | more
    return calibrate(delta=DELTA, rounds=rounds, length=length, **arguments)


def sums_of(found: Calibration, rounds: int = 1, seed: bytes = b"s" * 32) -> PrivateSums:
    return PrivateSums(found, rounds=rounds, delta=DELTA, rng=Prg(seed))


@pytest.mark.parametrize("components", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("colluders", [0, 2])
def test_the_plan_is_read_as_the_noise_reads_it(components: int, colluders: int) -> None:
    """Two ways of writing it down. Colluders, too, add theirs."""
    noise = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(10**6), dropouts=5, colluders=colluders, components=components)
    for missing in range(6):
        honest = 12 - missing - colluders
        expected = noise.honest_variance(12, 12 - missing) * (12 - missing) / honest
        assert planned_variance(noise, 12, missing) == expected


@pytest.mark.parametrize("missing", [(), (0,), (3,)])
def test_a_release_is_the_sum_of_those_who_came(missing: tuple[int, ...]) -> None:
    """Noise of 0.4; 8 standard deviations on 8 coordinates: false alarm below 1e-13 each."""
    updates = [np.eye(1, 8, i)[0] for i in range(4)]
    with sums_of(found_for()) as sums:
        total = sums.release(updates, missing)
        noise = sums.claim(len(missing)).noise_std
    expected = sum(updates[i] for i in range(4) if i not in missing)
    assert np.abs(total - expected).max() < 8 * noise < 4


@pytest.mark.parametrize("overlap", [1, 2])
def test_a_release_of_silos_is_the_sum_of_their_users(overlap: int) -> None:
    """As in the test above, with eight users in four silos; of one in two silos half is lost with one of these."""
    updates = [np.eye(1, 8, i)[0] / 2 for i in range(8)]
    with sums_of(found_for(users=4, overlap=overlap)) as sums:
        assert sums.units == 16 // overlap
        total, noise = sums.release(updates, [0]), sums.claim(1).noise_std
        assert sums.claim().clip_l2 == overlap
        alone = sums.release(updates[:1], overlap=1)
    left = {1: [0, 1, 1, 1] * 2, 2: [0.5, 1, 1, 0.5] * 2}[overlap]
    assert np.abs(total - np.array(left) / 2).max() < 8 * noise < 7
    assert np.abs(alone - updates[0]).max() < 8 * noise


def test_more_users_than_a_silo_may_have_are_refused() -> None:
    with sums_of(found_for(users=2)) as sums, pytest.raises(UsageError, match="at most 2 users"):
        sums.release([np.zeros(8)] * 9)
    with pytest.raises(UsageError, match="as many users as one user has silos"):
        sums_of(found_for(users=2, overlap=3))


def test_each_release_is_fresh_and_a_seed_replays_them() -> None:
    def totals(seed: bytes) -> list[list[float]]:
        with sums_of(found_for(), seed=seed) as sums:
            return [sums.release([np.zeros(8)] * 4).tolist() for _ in range(2)]

    first, again, other = totals(b"s" * 32), totals(b"s" * 32), totals(b"o" * 32)
    assert first == again
    assert len({str(total) for total in (*first, *other)}) == 4


def test_the_claim_is_that_of_the_calibration() -> None:
    found = found_for(rounds=1, dropouts=0, colluders=0)
    with sums_of(found) as sums:
        claim = sums.claim()
    assert claim.epsilon == pytest.approx(found.epsilon)
    assert claim.noise_std == pytest.approx(found.deviation)
    assert claim.mu == pytest.approx(1 / found.noise_multiplier)


def test_ledgers_are_charged_for_as_many_rounds_as_planned_and_left_behind_nowhere() -> None:
    with sums_of(found_for(rounds=2, epsilon=4.0), rounds=2) as sums:
        for _ in range(3):
            sums.release([np.zeros(8)] * 4)
        folder = sums._folder
        assert sorted(path.name for path in folder.glob("*.db")) == ["0.db", "1.db"]
        assert [len(said) for said in sums.charged] == [2, 1]
        assert sums.charged[0][0] == sums.charged[1][0] < sums.charged[0][1] <= 4.04
    assert not folder.exists()


def test_without_rotation_all_but_the_rotation_is_the_same() -> None:
    found = found_for(length=300)
    flat = without_rotation(found)
    assert flat.encoding.sensitivity() == found.encoding.sensitivity()
    assert (flat.encoding.scale, flat.encoding.length) == (found.encoding.scale, 512)
    assert (flat.noise, flat.ring_bits) == (found.noise, found.ring_bits)
    assert not flat.encoding.rotate


def test_what_goes_wrong_in_a_round_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = Client.receive

    def broken(self: Client, frame: bytes) -> bytes:
        answer = receive(self, frame)
        return answer[:-1] if self.identity.name == "client-2" and self.phase == "reveal" else answer

    monkeypatch.setattr(Client, "receive", broken)
    with sums_of(found_for()) as sums, pytest.raises(DecodeError, match="client-2"):
        sums.release([np.zeros(8)] * 4)


def test_what_is_not_audited_is_refused() -> None:
    with pytest.raises(UsageError, match="weights"):
        sums_of(found_for(weight_bound=2))
    with pytest.raises(UsageError, match="only sums of all users are audited"):
        sums_of(found_for(users=4, sampled=Fraction(1, 2)))
    small = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(2), dropouts=1)
    with pytest.raises(UsageError, match="so little that it would not count"):
        sums_of(Calibration(found_for().encoding, small, 4, 24, 1.0, 1.0, 1.0))


def test_shares_and_parts_add_up_to_what_the_plan_adds() -> None:
    """A client adds what is to keep and all components: ``NoiseSpec`` by its own words, and here by the plan's."""
    skellam = found_for(clients=9, dropouts=3, components=2, colluders=1, family=Family.SKELLAM)
    with sums_of(skellam) as sums:
        noise, share = sums.found.noise, sums.share()
        parts = [float(noise.component_variance(9, level)) for level in (1, 2)]
        assert share.noise_std**2 == pytest.approx(float(noise.kept_variance(9)) + sum(parts))
        assert share.excess_kurtosis == pytest.approx(share.noise_std**-2)
        assert sums.part().step == pytest.approx(min(parts) ** -0.5)
        assert sums.part().excess_kurtosis == pytest.approx(1 / min(parts))
        drawn = sums.parts(1 << 12, b"c" * 32)
        scaled = [row * part**0.5 for row, part in zip(drawn, parts, strict=True)]
        np.testing.assert_allclose(sum(scaled), noise.excess(9, 1 << 12, b"c" * 32, 0), rtol=1e-9, atol=1e-6)
        assert all(abs(float(row.std()) - 1) < 0.1 for row in drawn)
    with sums_of(found_for(family=Family.DISCRETE_GAUSSIAN)) as sums:
        assert sums.share().excess_kurtosis == 0
        assert sums.parts(4, b"c" * 32) == []
    with sums_of(found_for(clients=9, dropouts=3, components=2, colluders=1)) as sums:
        assert sums.part().excess_kurtosis == 0


def test_a_draw_is_what_the_machine_adds() -> None:
    """And follows from all that is in it but whose machine it is: that two have one secret is not foreseen."""
    with sums_of(found_for()) as sums:
        draw = Draw(client=1, round=0, secret=b"x" * 32, bound=b"y" * 32)
        first = sums.drawn(draw, 64)
        assert np.array_equal(first, sums.drawn(draw, 64))
        assert np.array_equal(first[:10], np.rint(first[:10]))
        for other in ({"round": 1}, {"secret": b"z" * 32}, {"bound": b"z" * 32}):
            assert not np.array_equal(first, sums.drawn(replace(draw, **other), 64))
        assert abs(first.std() / sums.share().noise_std - 1) < 0.5
