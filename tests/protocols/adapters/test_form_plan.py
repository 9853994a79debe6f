"""Which plans a client takes for those of its form: without noise the form's own encoding and no other, with noise one
that may differ in what calibration chooses, and in nothing that says how long a client's vector can be."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from dp.noise import Family, NoiseSpec
from protocols.adapters.form import Form
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PolicyError
from secagg.sketches import RandomK
from tests.controls import switch_off

MODEL = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(3, np.float32)}
FORM = Form.of(MODEL, clip=4.0, metrics={"loss": 10.0}, weight_bound=1)
PRIVATE_FORM = replace(FORM, failures=True)  # where there is noise, failures are counted
NOISE = NoiseSpec(Family.SKELLAM, Fraction(10**6), dropouts=2)
ROSTER = Roster.of([Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(5)])

CALIBRATED: list[dict[str, Any]] = [{"bits": 15}, {"rotate": True}, {"beta": Fraction(1, 2)}]
FIXED: list[dict[str, Any]] = [
    {"length": 9},
    {"length": 12},
    {"clip_l2": 4.0},
    {"clip_l2": 400.0},
    {"weight_bound": 2},
    {"users": 4},
    {"users": 4, "overlap": 2},
]


def form_for(noise: NoiseSpec | None) -> Form:
    return FORM if noise is None else PRIVATE_FORM


def plan(noise: NoiseSpec | None, **changes: Any) -> RoundPlan:
    """For the form and model, but for the encoding."""
    form = form_for(noise)
    free = {} if "clip_inf" in changes else {"clip_inf": 0.0}  # what the rest implies
    encoding = replace(form.encoding, **free, **changes)
    return RoundPlan.propose(
        "secagg", ROSTER, encoding, min_contributors=3, corrupt=0, noise=noise, model=form.model_digest(MODEL)
    )


def test_the_forms_own_encoding_is_taken_with_noise_and_without() -> None:
    assert isinstance(FORM.encoding, Encoding)
    for noise in (None, NOISE):
        form_for(noise).check_plan(plan(noise), MODEL)


@pytest.mark.parametrize("change", [*CALIBRATED, *FIXED, {"clip_inf": 1.0}], ids=str)
def test_without_noise_no_other_encoding_is_taken(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        FORM.check_plan(plan(None, **change), MODEL)


@pytest.mark.parametrize("change", CALIBRATED, ids=str)
def test_with_noise_what_calibration_chooses_may_differ(change: dict[str, Any]) -> None:
    assert plan(NOISE, **change).encoding != PRIVATE_FORM.encoding
    PRIVATE_FORM.check_plan(plan(NOISE, **change), MODEL)


@pytest.mark.parametrize("change", FIXED, ids=str)
def test_with_noise_nothing_that_says_how_long_a_vector_can_be_may_differ(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        PRIVATE_FORM.check_plan(plan(NOISE, **change), MODEL)


SILOS = replace(PRIVATE_FORM, users=4, overlap=2)


@pytest.mark.parametrize(
    "change",
    [{"users": 5}, {"users": 3}, {"overlap": 1}, {"overlap": 3}, {"sketch": RandomK(1)}, {"bits": 8, "feedback": True}],
    ids=str,
)
def test_a_plan_for_other_users_than_the_forms_is_not_taken(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for fewer silos that a user may be in has less noise, and the digest binds only what the form says."""

    def asked(**changes: Any) -> None:
        encoding = replace(SILOS.encoding, **changes)
        model = SILOS.model_digest(MODEL)
        plan = RoundPlan.propose("secagg", ROSTER, encoding, min_contributors=3, corrupt=0, noise=NOISE, model=model)
        SILOS.check_plan(plan, MODEL)

    asked()
    with pytest.raises(PolicyError, match="encoding is not that of the form"):
        asked(**change)
    switch_off(monkeypatch, Form, "check_plan", "fixed if plan.noise is not None else theirs == ours", "True")
    asked(**change)  # control
