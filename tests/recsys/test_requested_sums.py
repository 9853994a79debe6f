"""Noised sums for models: what users add, cut to its norm, with the noise that their share of the budget stands for.

Statistical tests: fixed secrets; the squares of d noise values, relative to their stated variance, add up to d within 7
standard deviations: for d = 3000 false with probability below 1e-9 (see test_federated).
"""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp.calibrate import user_level
from dp.events import Everyone, Holder, Relation, Release, Skellam
from recsys.aggregator import Request
from recsys.data.interactions import History
from recsys.deployment import Deployment
from recsys.federated import ClientData
from recsys.ideal_aggregator import IdealAggregator
from recsys.models.private_sums import Noised, exact_sums
from recsys.network import Network
from recsys.requested_sums import ResultsOnDisk, _encoded, sums_of
from recsys.run_record import Round
from recsys.secure_aggregator import SecureAggregator
from recsys.users_in_silos import UsersInSilos
from secagg import tensors
from secagg.at_rest import Folder
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.encoding import Encoding, Rounding
from secagg.errors import DecodeError, StorageError, ThresholdError, UsageError
from secagg.files import write_file
from tests.scenes.recommender import SECRET, client_data, ledger_for

WHOLE = Fraction(1)
DEPLOYMENT = Deployment(corrupt="0.15", dropout="0.34")
KIND = DEPLOYMENT.noise(6)


def devices() -> ClientData:
    return client_data((1,) * 6)


def counts(history: History) -> NDArray[np.float64]:
    return np.bincount(history, minlength=12) / len(history)


def test_without_noise_the_sum_is_the_exact_one() -> None:
    clients, done = devices(), list[Round]()
    found = sums_of(clients, SecureAggregator(DEPLOYMENT, SECRET), done=done.append)("p", 12, WHOLE, counts)
    expected = exact_sums(list(clients.train.histories()))("p", 12, WHOLE, counts)
    assert np.abs(found.vector - expected.vector).max() < 6 / 2**19
    assert (found.deviation, found.users) == (0.0, 6)
    (one,) = done
    assert (one.number, one.purpose, one.planned, one.survivors, one.measured) == (0, "p", 6, 6, {})
    assert one.bytes_up > one.planned * 12
    assert set(one.seconds) > {"updates", "upload"}


SILOS = UsersInSilos(users=18, most=9)


@pytest.mark.parametrize("aggregator", [IdealAggregator(SECRET), SecureAggregator(Deployment(), SECRET)])
def test_a_silo_adds_up_one_bounded_contribution_for_each_of_its_users(aggregator: Any) -> None:
    """Also where they add up to more than one could add; and one of them by himself counts no more than others."""
    clients, long = client_data((9, 9)), client_data((9, 9)).train.history(0)

    def loud(history: History) -> NDArray[np.float64]:
        return counts(history) * (1000 if np.array_equal(history, long) else 1)

    found = sums_of(clients, aggregator, silos=SILOS)("p", 12, WHOLE, loud)
    every = [loud(history) for history in clients.train.histories()]
    expected = sum(one / max(1.0, float(np.linalg.norm(one))) for one in every)
    assert np.linalg.norm(expected) > 2
    assert np.abs(found.vector - expected).max() < 18 / 2**19
    assert found.users == 18


def test_users_vectors_are_made_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is encoded before the next one is made."""
    told = list[str]()
    clipped = Encoding._clipped

    def heard(self: Encoding, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        told.append("encoded")
        return clipped(self, vector)

    def made(history: History) -> NDArray[np.float64]:
        told.append("made")
        return counts(history)

    monkeypatch.setattr(Encoding, "_clipped", heard)
    sums_of(client_data((3, 3)), IdealAggregator(SECRET), silos=UsersInSilos(6, 3))("p", 12, WHOLE, made)
    assert told == ["made", "encoded"] * 6


def test_a_silo_above_the_most_is_refused_before_anything_is_read() -> None:
    clients = client_data((9, 10))
    for aggregator in (IdealAggregator(SECRET), SecureAggregator(Deployment(), SECRET)):
        read = list[int]()

        def kept(history: History, read: list[int] = read) -> NDArray[np.float64]:
            read.append(len(history))
            return counts(history)

        with pytest.raises(UsageError, match="at most 9 users"):
            sums_of(clients, aggregator, silos=SILOS)("p", 12, WHOLE, kept)
        assert len(read) == 9  # those of the silo that may


def test_a_silo_without_a_most_is_refused() -> None:
    with pytest.raises(UsageError, match="has a most"):
        sums_of(client_data((2, 2)), IdealAggregator(SECRET))


def test_an_error_in_making_a_vector_is_no_refusal_of_a_client() -> None:
    """The silo that it happens in would fall silent, and the others' sum would go on."""

    def broken(history: History) -> NDArray[np.float64]:
        raise StorageError("the disk is gone")

    aggregator = SecureAggregator(DEPLOYMENT, SECRET)
    with pytest.raises(StorageError, match="the disk is gone"):
        sums_of(client_data((2,) * 6), aggregator, silos=UsersInSilos(12, 2))("p", 12, WHOLE, broken)


@pytest.mark.parametrize(("length", "most", "bits"), [(1000, 200, 32), (500_000, 200, 32), (500_000, 10**5, 40)])
def test_rounding_to_the_nearest_hardly_lengthens_and_takes_a_wider_ring_where_it_must(
    length: int, most: int, bits: int
) -> None:
    encoding, noise = _encoded(length, 1.0, Deployment(dropout="0.25").noise(20), 20, UsersInSilos(4000, most))
    assert noise is not None
    assert encoding.rounding is Rounding.NEAREST
    assert encoding.sensitivity().l2_squared <= 1.005**2 * (encoding.scale * encoding.clip_l2) ** 2 + 1
    assert bits - 4 < encoding.ring_bits(20, noise.coordinate_bound(20, length)) <= bits or bits == 32


def test_where_no_ring_is_wide_enough_for_that_rounding_is_by_lot() -> None:
    encoding, _ = _encoded(500_000, 1.0, KIND, 6, UsersInSilos(10**9, 10**9))
    assert encoding.rounding is Rounding.STOCHASTIC
    assert encoding.beta > 0


def test_a_person_in_two_silos_takes_twice_the_noise() -> None:
    single, twice = (_encoded(100, 1.0, KIND, 6, UsersInSilos(600, 100, overlap)) for overlap in (1, 2))
    assert single[0].bits == twice[0].bits
    assert single[1] is not None
    assert twice[1] is not None
    assert float(twice[1].variance / single[1].variance) == pytest.approx(4, rel=1e-6)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("silos", [None, UsersInSilos(600, 100)], ids=["devices", "silos"])
@pytest.mark.parametrize("aggregator", ["secure", "ideal"])
@pytest.mark.parametrize(("share", "deviation"), [(WHOLE, 2.0), (Fraction(1, 4), 4.0)])
def test_the_noise_is_as_large_as_said_and_larger_for_a_smaller_share(
    silos: UsersInSilos | None, aggregator: str, share: Fraction, deviation: float, tmp_path: Path
) -> None:
    """In units of one user's norm, whatever the number of users."""
    found = noised(aggregator, share, tmp_path, silos)
    assert found.deviation == pytest.approx(deviation * (6 / (6 - KIND.colluders)) ** 0.5, rel=0.05)
    squares = float(np.square(found.vector / found.deviation).sum())
    assert abs(squares - 3000) < 7 * 6000**0.5


def noised(aggregator: str, share: Fraction, folder: Path, silos: UsersInSilos | None = None) -> Noised:
    """Nobody adds anything: what is in the sum is noise. The multiplier is 2 for the honest ones."""
    clients = devices()
    guarantee = user_level(Relation.ZERO_OUT, Holder.DEVICE if silos is None else Holder.SILO)
    release = Release(Skellam(Fraction(4 << 40), 1 << 40, 1 << 40), Everyone(), guarantee)
    ledger = ledger_for(folder / "ledger.db", release, epsilon=40, slack=Fraction(1, 10**8))
    real = SecureAggregator(DEPLOYMENT, SECRET, ledger=ledger)
    chosen: Any = real if aggregator == "secure" else IdealAggregator(SECRET)
    sums = sums_of(clients, chosen, silos=silos, multiplier=2.0, noise=KIND)
    found = sums("p", 3000, share, lambda history: np.zeros(3000))
    ledger.close()
    return found


def test_noise_has_a_kind_and_a_size() -> None:
    for more in ({"multiplier": 1.0}, {"noise": KIND}):
        with pytest.raises(UsageError, match="a kind and a multiplier"):
            sums_of(devices(), IdealAggregator(SECRET), **more)  # type: ignore[arg-type]


def test_more_noise_than_a_ring_holds_is_refused() -> None:
    sums = sums_of(devices(), IdealAggregator(SECRET), multiplier=1e9, noise=KIND)
    with pytest.raises(UsageError, match="needs more than 32 bits"):
        sums("p", 12, WHOLE, counts)


# Lost clients


class Losing(IdealAggregator):
    """Loses too many clients in its first sums."""

    def __init__(self, times: int) -> None:
        super().__init__(SECRET)
        self.left, self.asked = times, list[int]()

    def aggregate(self, request: Any, update: Any) -> Any:
        self.asked.append(request.number)
        self.left -= 1
        if self.left >= 0:
            raise ThresholdError("2 clients uploaded, at least 4 are needed")
        return super().aggregate(request, update)


def test_a_sum_that_was_given_up_is_asked_for_again_under_a_new_number() -> None:
    aggregator, done = Losing(2), list[Round]()
    sums = sums_of(devices(), aggregator, done=done.append)
    sums("first", 12, WHOLE, counts)
    sums("second", 12, WHOLE, counts)
    assert aggregator.asked == [0, 1, 2, 3]
    assert [one.number for one in done] == [0, 1, 2, 3]
    assert [one.survivors for one in done] == [0, 0, 6, 6]
    assert done[0].purpose == "first, given up: 2 clients uploaded, at least 4 are needed"
    assert done[3].purpose == "second"


def test_five_times_is_the_end() -> None:
    aggregator = Losing(99)
    with pytest.raises(ThresholdError, match="first: too many clients were lost, 5 times"):
        sums_of(devices(), aggregator)("first", 12, WHOLE, counts)
    assert aggregator.asked == [0, 1, 2, 3, 4]


def test_whoever_is_silent_is_missing_from_the_sum() -> None:
    clients, done = devices(), list[Round]()
    aggregator = SecureAggregator(DEPLOYMENT, SECRET, network=Network(dropout=0.2), seed=8)
    found = sums_of(clients, aggregator, done=done.append)("p", 12, WHOLE, lambda history: np.full(12, 0.25))
    (one,) = done
    assert sum(one.silent.values()) > 0
    assert 4 <= one.survivors < 6
    assert found.vector == pytest.approx(np.full(12, one.survivors * 0.25), abs=1e-4)
    assert found.users == 6  # who came is not for a model to know


# After a crash


def two_sums(
    folder: Path, first: Any = counts, second: Any = counts, silos: UsersInSilos | None = None, **how: Any
) -> list[NDArray[np.float64]]:
    """What they come to."""
    aggregator = SecureAggregator(DEPLOYMENT, SECRET, folder=folder, **how)
    clients = devices() if silos is None else client_data((3,) * 6)
    sums = sums_of(clients, ResultsOnDisk(aggregator, folder, "checkpoint.safetensors", SECRET), silos=silos)
    return [sums(purpose, 12, WHOLE, what).vector for purpose, what in (("first", first), ("second", second))]


def other(history: History) -> NDArray[np.float64]:
    return counts(history) / 2


class Killed(BaseException):
    pass


def killed(history: History) -> NDArray[np.float64]:
    raise Killed


def test_a_sum_that_is_out_is_not_made_again(tmp_path: Path) -> None:
    """Not even asked for: what is known of it is what came out."""
    before = two_sums(tmp_path)
    after = two_sums(tmp_path, killed, killed)
    for one, another in zip(before, after, strict=True):
        assert one.tobytes() == another.tobytes()  # read from a file
    assert os.listdir(tmp_path) == ["checkpoint.safetensors"]


def test_the_first_is_known_when_the_second_is_begun_again(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        two_sums(tmp_path, second=killed)
    first, second = two_sums(tmp_path, killed, other)
    np.testing.assert_allclose(second, first / 2, atol=6 / 2**19)


@pytest.mark.parametrize("silos", [None, UsersInSilos(18, 3)], ids=["devices", "silos"])
def test_a_sum_that_was_learnt_and_not_written_down_is_finished_as_it_was_begun(
    silos: UsersInSilos | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the integers on disk: no user's vector is made again."""

    def never(folder: Folder, name: str, *pieces: bytes, private: bool) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "write", never)
        with pytest.raises(Killed):
            two_sums(tmp_path, silos=silos)
    assert os.listdir(tmp_path) == ["sum-0.sealed"]
    first, second = two_sums(tmp_path, killed, other, silos)
    np.testing.assert_allclose(second, first / 2, atol=18 / 2**19)


def test_what_was_given_up_stays_given_up(tmp_path: Path) -> None:
    """Vectors were uploaded for it, so its number stands for them."""
    lossy = {"network": Network(dropout=0.9)}
    for network in (lossy, {}):
        with pytest.raises(ThresholdError, match="first: too many clients were lost, 5 times"):
            two_sums(tmp_path, **network)
    assert os.listdir(tmp_path) == ["checkpoint.safetensors"]


def test_a_number_stands_for_one_sum(tmp_path: Path) -> None:
    two_sums(tmp_path)
    secure = SecureAggregator(DEPLOYMENT, SECRET, folder=tmp_path)
    aggregator = ResultsOnDisk(secure, tmp_path, "checkpoint.safetensors", SECRET)
    asked = Request(0, "first", devices().names, Encoding(12, 1.0, 20))
    assert aggregator.aggregate(asked, never_asked).weight == 6
    for changed in (replace(asked, purpose="another"), replace(asked, encoding=Encoding(13, 1.0, 20))):
        with pytest.raises(StorageError, match="was another one when the run began"):
            aggregator.aggregate(changed, never_asked)


def never_asked(name: str) -> NDArray[np.float64]:
    raise AssertionError(name)


def said(header: dict[str, object], purpose: bytes = b"checkpoint of sums") -> bytes:
    return b"".join(tensors.encode(header, {}, derive(SECRET, labels.STORED, purpose)))


NO_CHECKPOINTS = {
    "nothing": b"",
    "an archive": b"PK",
    "zeros": bytes(100),
    "no sums": said({}),
    "a sum that is a number": said({"sums": [1]}),
    "an answer without its vector": said(
        {
            "sums": [
                {
                    "purpose": "first",
                    "length": 12,
                    "given_up": "",
                    "answer": {
                        "weight": 6,
                        "survivors": [],
                        "silent": {},
                        "bytes_up": 0,
                        "bytes_down": 0,
                        "seconds": {},
                    },
                }
            ]
        }
    ),
    "for another purpose": said({"sums": []}, b"checkpoint of rounds"),
}


@pytest.mark.parametrize("what", NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_not_begun_anew(what: str, tmp_path: Path) -> None:
    write_file(tmp_path / "checkpoint.safetensors", NO_CHECKPOINTS[what], private=True)
    with pytest.raises(DecodeError, match="this is no checkpoint"):
        two_sums(tmp_path)


def test_control_one_without_sums_is_begun(tmp_path: Path) -> None:
    write_file(tmp_path / "checkpoint.safetensors", said({"sums": []}), private=True)
    assert len(two_sums(tmp_path)) == 2
