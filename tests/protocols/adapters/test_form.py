from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from dp.calibrate import calibrate
from protocols.adapters.form import FAILED, FORM, METRICS_NORM, ArraySpec, Form, MetricSpec
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from secagg.crypto.prg import Prg
from secagg.errors import DecodeError, PolicyError, UsageError
from tests.controls import switch_off

TYPES = ["<f2", "<f4", "<f8", ">f4", "|i1", "<i2", ">i4", "<i8", "|u1", "<u2", "<u4", "<u8", "|b1"]
OLD = {"w": np.ones((2, 3), np.float32), "b": np.array(2.0), "n": np.array([5, 6]), "on": np.array([True, False])}
FORM_OF_OLD = Form.of(OLD, clip=4.0, metrics={"loss": 10.0, "accuracy": 1.0}, weight_bound=9, weight="steps")
PRIVATE_FORM = Form.of(OLD, clip=4.0, metrics={"loss": 10.0, "accuracy": 1.0}, failures=True)
ROSTER = Roster.of([Identity.generate(name) for name in ("ann", "bob", "cat", "dan")])

models = st.lists(
    st.sampled_from(TYPES).flatmap(
        lambda dtype: hnp.arrays(
            dtype, hnp.array_shapes(min_dims=0, min_side=0), elements=st.integers(0, 1 if dtype == "|b1" else 50)
        )
    ),
    min_size=1,
).filter(lambda arrays: sum(array.size for array in arrays) > 0)


def plan_for(form: Form, arrays: dict[str, NDArray[Any]], **changes: Any) -> RoundPlan:
    given = {"model": form.model_digest(arrays), "min_contributors": 3, "dropout": "0.25"} | changes
    encoding = given.pop("encoding", form.encoding)
    return RoundPlan.propose("secagg", ROSTER, encoding, **given)


@given(models)
def test_a_change_applied_gives_the_new_arrays_with_types_and_shapes(arrays: list[NDArray[Any]]) -> None:
    old = {f"array {i}": array for i, array in enumerate(arrays)}
    new = {name: np.flip(array) if array.ndim else array for name, array in old.items()}
    form = Form.of(old, clip=1e6, metrics={"loss": 4.0})
    back, metrics = form.applied(old, form.change(old, dict(reversed(new.items())), {"loss": 1.5}))
    assert metrics == {"loss": pytest.approx(1.5)}
    assert list(back) == list(old)
    for name, array in new.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back[name], array)


@given(models, st.lists(st.floats(1e-3, 1e3), max_size=3), st.booleans())
def test_a_form_survives_its_encoding(arrays: list[NDArray[Any]], largest: list[float], rotate: bool) -> None:
    metrics = {f"metric {i}": value for i, value in enumerate(largest)}
    form = Form.of(dict(zip("abcdefghij", arrays, strict=False)), clip=2.5, metrics=metrics, bits=12, rotate=rotate)
    assert FORM.decode(FORM.encode(form)) == form
    assert form.encoding.length == form.length == form.model_length + len(metrics)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=9), st.lists(st.floats(-1e9, 1e9), max_size=4))
def test_the_encoding_has_nothing_left_to_clip(values: list[float], measured: list[float]) -> None:
    old = {"w": np.zeros(len(values))}
    metrics = {f"m{i}": 1.0 for i in range(len(measured))}
    form = Form.of(old, clip=3.0, metrics=metrics)
    change = form.change(old, {"w": np.array(values)}, dict(zip(metrics, measured, strict=True)))
    assert np.linalg.norm(change[: form.model_length]) <= 3.0 * (1 + 1e-12)
    assert np.linalg.norm(change) <= form.encoding.clip_l2 * (1 + 1e-12)
    assert np.linalg.norm(change[form.model_length :]) <= METRICS_NORM * 3.0 * (1 + 1e-12)


def test_what_is_short_enough_is_not_touched() -> None:
    old, new = {"w": np.zeros(3)}, {"w": np.array([0.1, -0.2, 0.3])}
    assert Form.of(old, clip=1.0).change(old, new).tolist() == [0.1, -0.2, 0.3]
    assert Form.of(old, clip=32767.0).encoding.scale == 1.0  # what the tests of exact sums rest on


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(value: float) -> None:
    new = OLD | {"w": np.full((2, 3), value, np.float32)}
    with pytest.raises(UsageError, match="NaN or infinite"):
        FORM_OF_OLD.change(OLD, new, {"loss": 1.0, "accuracy": 0.5})


@pytest.mark.parametrize(
    "new",
    [
        OLD | {"w": np.ones((3, 2), np.float32)},
        OLD | {"more": np.ones(1)},
        {name: array for name, array in OLD.items() if name != "b"},
    ],
)
def test_other_names_or_shapes_are_refused(new: dict[str, NDArray[Any]]) -> None:
    with pytest.raises(UsageError, match="other names or shapes"):
        FORM_OF_OLD.change(OLD, new, {"loss": 1.0, "accuracy": 0.5})
    with pytest.raises(UsageError, match="other names or shapes"):
        FORM_OF_OLD.restored(new)


@pytest.mark.parametrize("value", [None, np.nan, np.inf, -np.inf, 10**400, "text", [1.0, 2.0], {}])
def test_a_missing_metric_counts_as_zero_and_the_rest_stays(value: Any) -> None:
    new, metrics = OLD | {"b": np.array(2.5)}, {"loss": 2.5} | ({} if value is None else {"accuracy": value})
    assert FORM_OF_OLD.missing_metrics(metrics) == ["accuracy"]
    whole = FORM_OF_OLD.change(OLD, new, {"loss": 2.5, "accuracy": 0.5})
    change = FORM_OF_OLD.change(OLD, new, metrics)
    assert change[:-1].tolist() == whole[:-1].tolist()
    assert change[-1] == 0 != whole[-1]
    moved, measured = PRIVATE_FORM.applied(OLD, PRIVATE_FORM.change(OLD, new, metrics))
    assert measured == {"loss": pytest.approx(2.5), "accuracy": 0, FAILED: pytest.approx(1)}
    assert float(moved["b"]) == 2.5


def test_what_failed_is_nothing_but_a_count_where_there_is_noise() -> None:
    assert FORM_OF_OLD.failure_vector() is None
    failed = PRIVATE_FORM.failure_vector()
    assert failed is not None
    whole = PRIVATE_FORM.change(OLD, OLD | {"b": np.array(2.5)}, {"loss": 2.5, "accuracy": 0.5})
    assert np.flatnonzero(failed).tolist() == [PRIVATE_FORM.length - 1]
    assert whole[-1] == 0
    _, measured = PRIVATE_FORM.applied(OLD, (failed + 4 * whole) / 5)
    assert measured == {"loss": pytest.approx(2.0), "accuracy": pytest.approx(0.4), FAILED: pytest.approx(0.2)}
    everything = PRIVATE_FORM.change(OLD, OLD | {"b": np.array(1e9)}, {"loss": 1e9})
    assert np.linalg.norm(everything) <= PRIVATE_FORM.clip_l2 * (1 + 1e-12)


def test_a_large_metric_is_clipped() -> None:
    change = FORM_OF_OLD.change(OLD, OLD, {"loss": -99.0, "accuracy": 1e9, "ignored": 3.0})
    assert FORM_OF_OLD.applied(OLD, change)[1] == {"loss": pytest.approx(-10.0), "accuracy": pytest.approx(1.0)}


@pytest.mark.parametrize("array", [np.ones(2, complex), np.array(["text"]), np.array([None]), np.ones(1, "M8[s]")])
def test_types_without_a_sum_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match="only floats, integers and booleans"):
        Form.of({"w": array}, clip=1.0)
    with pytest.raises(UsageError, match="only floats, integers and booleans"):
        FORM_OF_OLD.change(OLD, OLD | {"w": np.ones((2, 3), complex)}, {"loss": 1.0, "accuracy": 1.0})


def test_integers_stop_at_their_ends_and_64_bits_of_them_are_not_floats() -> None:
    huge = (1 << 63) - 1
    old = {"i": np.array([huge, 3]), "u": np.array([(1 << 64) - 1, 1], np.uint64), "s": np.array([120, -120], np.int8)}
    form = Form.of(old, clip=1e3)
    still, _ = form.applied(old, form.change(old, old))
    assert still["i"].tolist() == [huge, 3]
    assert still["u"].tolist() == [(1 << 64) - 1, 1]
    moved, _ = form.applied(old, np.array([1.4, 1.6, 5.0, -5.0, 100.0, -100.0]))
    assert [moved[name].tolist() for name in old] == [[huge, 5], [(1 << 64) - 1, 0], [127, -128]]
    flags = {"on": np.array([True, False, False])}
    assert Form.of(flags, clip=1.0).applied(flags, np.array([-0.6, 0.6, 0.4]))[0]["on"].tolist() == [False, True, False]


def test_what_comes_back_from_other_code_gets_its_types_again() -> None:
    floats = {name: array.astype(np.float64) + 0.4 for name, array in OLD.items()}
    restored = FORM_OF_OLD.restored(floats)
    assert {name: array.dtype for name, array in restored.items()} == {name: array.dtype for name, array in OLD.items()}
    assert restored["n"].tolist() == [5, 6]
    assert restored["on"].tolist() == [True, False]
    np.testing.assert_allclose(restored["w"], 1.4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: replace(FORM_OF_OLD, clip=0.0),
        lambda: replace(FORM_OF_OLD, clip=float("nan")),
        lambda: replace(FORM_OF_OLD, bits=1),
        lambda: replace(FORM_OF_OLD, weight_bound=0),
        lambda: replace(FORM_OF_OLD, weight=""),
        lambda: replace(FORM_OF_OLD, weight_bound=1),
        lambda: replace(PRIVATE_FORM, metrics=(MetricSpec(FAILED, 1.0),)),
        lambda: replace(FORM_OF_OLD, arrays=(), metrics=()),
        lambda: replace(FORM_OF_OLD, arrays=FORM_OF_OLD.arrays * 2),
        lambda: replace(FORM_OF_OLD, metrics=FORM_OF_OLD.metrics * 2),
        lambda: MetricSpec("loss", 0.0),
        lambda: MetricSpec("loss", float("inf")),
        lambda: ArraySpec("w", "<f16", (1,)),
        lambda: ArraySpec("w", "f4,f4", (1,)),
        lambda: ArraySpec("w", "<f4", (-1,)),
    ],
)
def test_forms_that_make_no_sense(make: Any) -> None:
    with pytest.raises(UsageError):
        make()


def test_a_form_of_nothing_is_not_a_form() -> None:
    with pytest.raises(UsageError, match="1 to"):
        Form.of({"w": np.empty(0)}, clip=1.0)
    with pytest.raises(DecodeError):
        FORM.decode(FORM.encode(FORM_OF_OLD).replace(b"<f4", b"|O8"))


def test_the_model_hash_is_of_names_types_shapes_values_and_form() -> None:
    flat = {name: array.ravel() for name, array in OLD.items()}
    renamed = {name.upper(): array for name, array in OLD.items()}
    other = OLD | {"w": OLD["w"] + np.float32(1e-7)}
    variants = [
        FORM_OF_OLD.model_digest(OLD),
        FORM_OF_OLD.model_digest(other),
        replace(FORM_OF_OLD, clip=5.0).model_digest(OLD),
        replace(FORM_OF_OLD, weight="loss").model_digest(OLD),
        replace(FORM_OF_OLD, weight_bound=10).model_digest(OLD),
        Form.of(OLD, clip=4.0, metrics={"loss": 10.0}, failures=True).model_digest(OLD),
        FORM_OF_OLD.model_digest(OLD, {"rate": 1.0}),
        FORM_OF_OLD.model_digest(OLD, {"rate": 1}),
        Form.of(flat, clip=4.0).model_digest(flat),
        Form.of(renamed, clip=4.0).model_digest(renamed),
        Form.of(OLD, clip=4.0).model_digest(OLD),
        Form.of(OLD, clip=4.0, metrics={"loss": 10.0}).model_digest(OLD),
    ]
    assert len(set(variants)) == len(variants)
    strided = OLD | {"w": np.ones((3, 2), np.float32).T}
    assert FORM_OF_OLD.model_digest(strided) == variants[0]
    with pytest.raises(UsageError, match="another form"):
        FORM_OF_OLD.model_digest(flat)


class TestPlans:
    def test_the_plan_of_the_form_is_accepted(self) -> None:
        FORM_OF_OLD.check_plan(plan_for(FORM_OF_OLD, OLD), OLD, weighted_by="steps")

    def test_another_form_than_that_of_the_model(self) -> None:
        plan = plan_for(FORM_OF_OLD, OLD)
        with pytest.raises(PolicyError, match="not that of the model"):
            FORM_OF_OLD.check_plan(plan, OLD | {"w": OLD["w"].astype(np.float64)}, weighted_by="steps")
        with pytest.raises(PolicyError, match="not that of the model"):
            FORM_OF_OLD.check_plan(plan, dict(reversed(OLD.items())), weighted_by="steps")

    @pytest.mark.parametrize("change", [{"clip_l2": 400.0}, {"bits": 15}, {"rotate": True}, {"weight_bound": 8}])
    def test_another_encoding(self, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        encoding = replace(FORM_OF_OLD.encoding, clip_inf=0.0, **change)
        plan = plan_for(FORM_OF_OLD, OLD, encoding=encoding)
        with pytest.raises(PolicyError, match="encoding is not that of the form"):
            FORM_OF_OLD.check_plan(plan, OLD, weighted_by="steps")
        switch_off(monkeypatch, Form, "check_plan", "theirs == ours", "True")
        FORM_OF_OLD.check_plan(plan, OLD, weighted_by="steps")  # control

    def test_another_model_or_form(self, monkeypatch: pytest.MonkeyPatch) -> None:
        other = OLD | {"n": np.array([7, 8])}
        as_large = replace(FORM_OF_OLD, metrics=(MetricSpec("loss", 1.0), MetricSpec("accuracy", 1.0)))
        with pytest.raises(PolicyError, match="another model"):
            FORM_OF_OLD.check_plan(plan_for(FORM_OF_OLD, OLD), other, weighted_by="steps")
        with pytest.raises(PolicyError, match="another model"):
            as_large.check_plan(plan_for(FORM_OF_OLD, OLD), OLD, weighted_by="steps")
        with pytest.raises(PolicyError, match="other instructions"):
            FORM_OF_OLD.check_plan(plan_for(FORM_OF_OLD, OLD), OLD, {"rate": 0.0}, weighted_by="steps")
        switch_off(monkeypatch, Form, "check_plan", "plan.model != self.model_digest(arrays, instructions)")
        FORM_OF_OLD.check_plan(plan_for(FORM_OF_OLD, OLD), other, weighted_by="steps")  # control

    def test_failures_are_counted_with_noise_and_not_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An exact count would tell all the others about the last one."""
        silent = replace(PRIVATE_FORM, failures=False)
        asked = {"epsilon": 8, "delta": 1e-3, "rounds": 2, "clients": 4, "dropouts": 1, "clip_l2": silent.clip_l2}
        found = calibrate(length=silent.length, **asked)
        exact = plan_for(PRIVATE_FORM, OLD)
        noisy = plan_for(silent, OLD, encoding=found.encoding, noise=found.noise)
        for form, plan in ((PRIVATE_FORM, exact), (silent, noisy)):
            with pytest.raises(PolicyError, match="failures are counted"):
                form.check_plan(plan, OLD)
        switch_off(monkeypatch, Form, "check_plan", "self.failures != (plan.noise is not None)")
        PRIVATE_FORM.check_plan(exact, OLD)  # control

    def test_a_private_plan_has_its_own_bits_and_rotation_but_the_forms_norm(self) -> None:
        form = Form.of(OLD, clip=4.0, metrics={"loss": 10.0}, failures=True)
        asked = {"epsilon": 8, "delta": 1e-3, "rounds": 2, "clients": 4, "length": form.length, "dropouts": 1}
        found = calibrate(clip_l2=form.clip_l2, **asked)
        plan = plan_for(form, OLD, encoding=found.encoding, noise=found.noise)
        assert plan.encoding != form.encoding
        form.check_plan(plan, OLD)
        for other in (calibrate(clip_l2=form.clip, **asked), calibrate(clip_l2=form.clip_l2, weight_bound=2, **asked)):
            with pytest.raises(PolicyError, match="encoding is not that of the form"):
                form.check_plan(plan_for(form, OLD, encoding=other.encoding, noise=other.noise), OLD)


def test_an_app_that_lets_numpy_raise_tells_nothing() -> None:
    """An underflow on one client's data would be an error after the plan was accepted."""
    old = {"w": np.zeros(3)}
    form = Form.of(old, clip=1.0, metrics={"p": 1.0})

    def encoded() -> list[int]:
        change = form.change(old, {"w": np.array([1e-200, 1e-300, 0.5])}, {"p": 1e-200})
        return form.encoding.encode(change, weight=1, seed=bytes(32), rng=Prg(bytes(32))).tolist()  # type: ignore[no-any-return]

    expected = encoded()
    with np.errstate(all="raise"):
        assert encoded() == expected
