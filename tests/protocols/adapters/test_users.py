"""What a silo puts into a sum: one bounded vector for each of its users, whatever comes of each one's training.

One user moves the silo's integers by at most what the encoding says, and nobody but the silo learns whose training
failed, or how many users there are.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocols.adapters.form import FAILED, FORM, Form
from protocols.adapters.users import Contributions, Silos, Trainings
from secagg.crypto.prg import Prg
from secagg.errors import PolicyError, UsageError
from tests.controls import switch_off

OLD = {"w": np.zeros((2, 2), np.float32), "b": np.array(1.0)}
CLIP = 32767.0
FORM_OF_OLD = Form.of(OLD, clip=CLIP, users=4)
"""With 16 bits the scale is 1: whole numbers are summed exactly."""
PRIVATE_FORM = Form.of(OLD, clip=8.0, metrics={"loss": 10.0}, users=4, overlap=2, failures=True)
LOG = logging.getLogger("tests.users")

Arrays = dict[str, NDArray[Any]]


class Panic(BaseException):
    """What Rust code raises into Python when it fails (pyo3): no ``Exception``."""


def moved(user: int) -> Arrays:
    return {"w": OLD["w"] + np.float32(user + 1), "b": OLD["b"] - user}


def trained(form: Form, train: Callable[[int], Any], count: int = 4) -> Contributions:
    found = form.contributions(OLD, lambda: Trainings(count, train), LOG, logging.DEBUG)
    assert found is not None
    return found


def summed(form: Form, contributions: Contributions | None, word: int = 0) -> NDArray[np.int64]:
    if contributions is None:
        return form.encoding.encode(None, weight=1, seed=bytes(32), rng=Prg(bytes(32)))
    return form.encoding.encode_users(contributions, seed=bytes(32), rng=Prg(bytes([word]) * 32))


def expected(*users: int) -> list[int]:
    """The sum of these users' changes, worked out here."""
    return [int(sum(user + 1 for user in users))] * 4 + [-int(sum(users))]


def test_the_sum_is_of_each_users_change() -> None:
    assert summed(FORM_OF_OLD, trained(FORM_OF_OLD, lambda user: (moved(user), {}))).tolist() == expected(0, 1, 2, 3)


def test_stacked_arrays_are_the_same_users() -> None:
    arrays = {name: np.stack([moved(user)[name] for user in range(3)]) for name in OLD}
    found = FORM_OF_OLD.contributions(OLD, lambda: Trainings.stacked(arrays, {}), LOG, logging.DEBUG)
    assert summed(FORM_OF_OLD, found).tolist() == expected(0, 1, 2)


def test_users_are_trained_one_after_the_other_and_only_when_asked_for() -> None:
    """So a model of which all users' changes do not fit into memory is possible."""
    calls = list[int]()
    vectors = iter(trained(FORM_OF_OLD, lambda user: (calls.append(user), (moved(user), {}))[1]))
    assert calls == []
    for user in range(4):
        next(vectors)
        assert calls == list(range(user + 1))


@given(
    st.lists(st.lists(st.floats(width=32) | st.floats(), min_size=5, max_size=5), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_one_user_moves_the_integers_by_no_more_than_the_sensitivity(values: list[list[float]], who: int) -> None:
    """Whatever its training comes to, and whatever that of the others: by one user's part of it in this silo."""

    def train(user: int) -> tuple[Arrays, dict[str, float]]:
        row = np.array(values[user % len(values)])
        return {"w": row[:4].reshape(2, 2), "b": row[4].reshape(())}, {"loss": row[0]}

    def without(user: int) -> tuple[Arrays, dict[str, float]]:
        if user == who:
            raise ValueError("nothing of this user")
        return train(user)

    form = replace(PRIVATE_FORM, overlap=1, failures=False)
    most = form.encoding.sensitivity().l2_squared
    alone = np.array([summed(form, [vector]) for vector in trained(form, train)])  # type: ignore[arg-type]
    assert all(sum(value * value for value in one.tolist()) <= most for one in alone)
    # The words that round differ after a user that is gone, so zero-out is looked at where nothing is rounded.
    whole = [np.rint(vector) for vector in trained(form, train)]
    rest = [np.rint(vector) for vector in trained(form, without)]
    assert [user for user in range(4) if whole[user].tolist() != rest[user].tolist()] in ([], [who])


def test_an_enormous_update_counts_for_one_clip() -> None:
    def train(user: int) -> tuple[Arrays, dict[str, float]]:
        return ({"w": OLD["w"] + np.float32(1e30), "b": OLD["b"]} if user == 2 else moved(user)), {}

    form = replace(FORM_OF_OLD, clip=64.0)
    plain, huge = (summed(form, trained(form, one)) for one in (lambda user: (moved(user), {}), train))
    total = form.encoding.decode(huge, count=1, seed=bytes(32)).vector
    others = form.encoding.decode(plain, count=1, seed=bytes(32)).vector - np.array([3, 3, 3, 3, -2])
    np.testing.assert_allclose(total - others, [32, 32, 32, 32, 0], atol=0.05)  # a vector of norm 64


def raising(error: BaseException) -> Callable[[], Any]:
    def raise_it() -> Any:
        raise error

    return raise_it


BAD: dict[str, Callable[[], Any]] = {
    "an exception": raising(ValueError("of this user's data")),
    "a panic": raising(Panic("of this user's data")),
    "NaN": lambda: ({"w": OLD["w"] + np.nan, "b": OLD["b"]}, {}),
    "infinite": lambda: ({"w": OLD["w"], "b": OLD["b"] - np.inf}, {}),
    "another shape": lambda: ({"w": np.zeros((3, 3)), "b": OLD["b"]}, {}),
    "another name": lambda: ({"w": OLD["w"]}, {}),
    "complex": lambda: ({"w": OLD["w"] * 1j, "b": OLD["b"]}, {}),
    "no answer": lambda: 3,
}


@pytest.mark.parametrize("what", BAD)
def test_a_user_whose_training_fails_is_zeros_and_the_others_stay(
    what: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(user: int) -> Any:
        return BAD[what]() if user == 1 else (moved(user), {})

    assert summed(FORM_OF_OLD, trained(FORM_OF_OLD, train)).tolist() == expected(0, 2, 3)
    assert "of this user's data" not in caplog.text  # at the level DEBUG only
    assert "the training of a user failed" in caplog.text
    switch_off(monkeypatch, Contributions, "_vector_of", "BaseException", "ZeroDivisionError")
    with pytest.raises((Exception, Panic)):
        summed(FORM_OF_OLD, trained(FORM_OF_OLD, train))  # control


def test_ctrl_c_is_no_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        summed(FORM_OF_OLD, trained(FORM_OF_OLD, lambda user: raising(KeyboardInterrupt())()))
    with pytest.raises(KeyboardInterrupt):
        FORM_OF_OLD.contributions(OLD, raising(KeyboardInterrupt()), LOG, logging.DEBUG)


def test_a_silo_above_its_cap_counts_as_nothing_and_trains_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()

    def train(user: int) -> tuple[Arrays, dict[str, float]]:
        calls.append(user)
        return moved(user), {}

    too_many = Trainings(5, train)
    found = FORM_OF_OLD.contributions(OLD, lambda: too_many, LOG, logging.DEBUG)
    assert found is None
    assert not summed(FORM_OF_OLD, found).any()
    switch_off(monkeypatch, Form, "contributions", "trainings.count > self.users")
    with pytest.raises(UsageError, match="at most 4 users"):  # control: a refusal, which would say how many there are
        summed(FORM_OF_OLD, FORM_OF_OLD.contributions(OLD, lambda: too_many, LOG, logging.DEBUG))
    assert calls == []


@pytest.mark.parametrize(
    "arrays",
    [
        {"w": np.zeros((3, 2, 2)), "b": np.zeros(2)},
        {"w": np.zeros((3, 2, 2)), "b": np.array(0.0)},
        {"w": np.array(0.0), "b": np.array(0.0)},
        {},
    ],
)
def test_arrays_with_other_leading_axes_are_of_nobody(arrays: Arrays) -> None:
    with pytest.raises(UsageError, match="leading axis of users"):
        Trainings.stacked(arrays, {})
    assert FORM_OF_OLD.contributions(OLD, lambda: Trainings.stacked(arrays, {}), LOG, logging.DEBUG) is None


def test_one_model_for_all_users_is_none() -> None:
    """A train function that knows nothing of users: its first axis is taken for them, and no shape fits."""
    arrays = {"w": np.ones((2, 2), np.float32)}
    form = Form.of({"w": np.zeros((2, 2), np.float32)}, clip=CLIP, users=4)
    found = form.contributions({"w": arrays["w"]}, lambda: Trainings.stacked(arrays, {}), LOG, logging.DEBUG)
    assert not summed(form, found).any()


def test_a_silo_without_users_is_nothing_and_no_failure() -> None:
    found = FORM_OF_OLD.contributions(
        OLD, lambda: Trainings.stacked({"w": np.zeros((0, 2, 2)), "b": np.zeros(0)}, {}), LOG, logging.DEBUG
    )
    assert found is not None
    assert not summed(FORM_OF_OLD, found).any()


def test_metrics_and_failures_are_each_users_own() -> None:
    arrays = {"w": np.zeros((4, 2, 2)), "b": np.array([1.0, 1.0, np.nan, 1.0])}

    def measured(metrics: dict[str, Any]) -> dict[str, float]:
        found = PRIVATE_FORM.contributions(OLD, lambda: Trainings.stacked(arrays, metrics), LOG, logging.DEBUG)
        assert found is not None
        return PRIVATE_FORM.applied(OLD, np.sum(list(found), axis=0) / 4)[1]

    rounded = pytest.approx
    assert measured({"loss": [1.0, 3.0, 9.0, 99.0]}) == {"loss": rounded(3.5), FAILED: rounded(0.25)}
    assert measured({"loss": np.array([1.0, np.nan, 9.0, 3.0])}) == {"loss": rounded(1.0), FAILED: rounded(0.5)}
    for none in (
        {},
        {"loss": 3.0},
        {"loss": [1.0, 2.0, 3.0]},
        {"loss": "four"},
        {"loss": np.ones((4, 1))},
        {"loss": np.ones(5)},
    ):
        assert measured(none) == {"loss": 0, FAILED: rounded(1.0)}


def test_a_training_that_is_interrupted_raises() -> None:
    """And none of it is a vector: a user whose training was cut off would count as zeros otherwise."""
    stop, calls = list[bool](), list[int]()

    def train(user: int) -> tuple[Arrays, dict[str, float]]:
        calls.append(user)
        stop.extend([True] * (user == 3))
        raise ValueError("cut off")

    def interrupted() -> None:
        if stop:
            raise PolicyError("aborted")

    found = FORM_OF_OLD.contributions(OLD, lambda: Trainings(4, train), LOG, logging.DEBUG, interrupted)
    with pytest.raises(PolicyError, match="aborted"):
        summed(FORM_OF_OLD, found)
    assert calls == [0, 1, 2, 3]


def test_a_form_of_silos_survives_its_encoding_and_is_another_model() -> None:
    assert FORM.decode(FORM.encode(PRIVATE_FORM)) == PRIVATE_FORM
    others = [PRIVATE_FORM, replace(PRIVATE_FORM, users=5), replace(PRIVATE_FORM, overlap=1)]
    assert len({form.model_digest(OLD) for form in others}) == 3
    assert (PRIVATE_FORM.encoding.users, PRIVATE_FORM.encoding.overlap) == (4, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Form.of(OLD, clip=1.0, users=4, weight_bound=2, weight="steps"),
        lambda: Form.of(OLD, clip=1.0, overlap=2),
        lambda: Form.of(OLD, clip=1.0, users=4, overlap=0),
        lambda: Trainings(-1, lambda user: ({}, {})),
        lambda: Trainings(True, lambda user: ({}, {})),
        lambda: Silos(0, 10),
        lambda: Silos(10, 0),
        lambda: Silos(10, 10, 0),
        lambda: Silos(10, 10.0),  # type: ignore[arg-type]
        lambda: Silos(10, 1 << 32),
    ],
)
def test_numbers_that_make_no_sense(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()
