"""Models as graphs: the same scores, the same explanations, and with bytes for numbers nearly the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys.explaining import Additive, explained
from secagg.errors import UsageError
from tests.scenes.devices import COUNT, DEVICES, HISTORIES, trained
from tests.scenes.stored_models import events, made

pytest.importorskip("onnxruntime", reason="NOT TESTED: models for devices need onnxruntime, pip install 'secagg[edge]'")

from recsys.edge.forms import form_of
from recsys.edge.on_device import on_device


@pytest.mark.parametrize("name", DEVICES)
def test_scores_are_those_of_the_model(name: str) -> None:
    model = trained(name)
    form = form_of(model)
    device = on_device(form.onnx)
    expected = model.scores(HISTORIES)
    assert np.ptp(expected) > 0.01
    assert np.abs(device.scores(HISTORIES) - expected).max() <= 1e-4
    if form.vectors is not None:
        products = np.stack([form.vectors @ device.user(history) for history in HISTORIES])
        assert np.abs(products - expected).max() <= 1e-4
    assert isinstance(device, Additive) == isinstance(model, Additive)
    if isinstance(model, Additive):
        for history in HISTORIES:
            own, here = (explained(one, history, np.array([1, 0, 29]), COUNT) for one in (model, device))
            assert here.apart is not None
            assert np.abs(own.added - here.added).max(initial=0) <= 1e-4
            assert np.abs(own.apart - here.apart).max() <= 1e-4


@pytest.mark.parametrize("name", ["Ease", "PrivateEase"])
def test_some_of_the_items_may_take_part(name: str) -> None:
    from recsys.models.ease import Ease
    from recsys.models.private_ease import PrivateEase
    from recsys.models.private_gram import Settings

    model: Any = Ease(1.0, items=20, reach=5.0, floor=0.2) if name == "Ease" else PrivateEase(Settings(items=20))
    model.fit(events())
    for int8 in (False, True):
        device = on_device(form_of(model, int8=int8).onnx)
        assert np.abs(device.scores(HISTORIES) - model.scores(HISTORIES)).max() <= (0.02 if int8 else 1e-4)
        for history in HISTORIES:
            items = np.arange(COUNT)
            own, here = (explained(one, history, items, COUNT) for one in (model, device))
            assert np.abs(own.added - here.added).max(initial=0) <= (0.02 if int8 else 1e-4)


@pytest.mark.parametrize("name", ["Ease", "MatrixFactorisation", "Autoencoder", "SasRec", "TwoTower"])
def test_with_bytes_for_numbers_scores_are_nearly_the_same(name: str) -> None:
    model = trained(name)
    expected = model.scores(HISTORIES)
    found = on_device(form_of(model, int8=True).onnx).scores(HISTORIES)
    assert 0 < np.abs(found - expected).max() <= 0.03 * np.abs(expected).max()


def test_a_table_is_there_once() -> None:
    """The control: a number for each of its numbers, and not much more."""
    from recsys.models.autoencoder import Autoencoder

    model = Autoencoder(width=32)
    model.begin(2000, seed=0)
    whole, rounded = (len(form_of(model, int8=int8).onnx) for int8 in (False, True))
    assert 4 * 33 * 2000 < whole < 4 * 33 * 2000 + 10_000
    assert 36 * 2000 < rounded < 0.3 * whole


def test_what_has_no_form_is_refused() -> None:
    with pytest.raises(UsageError, match="NeuMf is no model for devices"):
        form_of(made("NeuMf"))
    with pytest.raises(UsageError, match="nothing in this ItemPop to be rounded"):
        form_of(trained("ItemPop"), int8=True)


def test_too_many_unknowns_are_refused() -> None:
    from recsys.models.mf import MatrixFactorisation

    model = MatrixFactorisation(width=257)
    model.begin(2, seed=0)
    with pytest.raises(UsageError, match="a factor has at most 256 numbers on a device, and here 257"):
        form_of(model)
