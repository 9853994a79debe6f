"""What NVFlare's carriers may hold: values of another type are refused, in our words, before they are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="NOT TESTED: the adapter needs nvflare, pip install 'secagg[nvflare]'")

from nvflare.app_common.abstract.fl_model import FLModel

from protocols.adapters.nvflare.messages import FORM_KEY, FRAME_KEY, PLAN_KEY, arrays_in, bytes_in, frame_in
from secagg.errors import DecodeError, UsageError

FRAME = np.frombuffer(b"frame", np.uint8)


def test_a_frame_is_an_array_of_bytes() -> None:
    assert frame_in(FLModel(params={FRAME_KEY: FRAME})) == b"frame"
    for params in ({FRAME_KEY: FRAME.astype(np.int64)}, {FRAME_KEY: b"frame"}, {"other": FRAME}):
        with pytest.raises(DecodeError, match="no frame in this message"):
            frame_in(FLModel(params=params))


def test_plans_and_forms_are_bytes() -> None:
    task = FLModel(params={"w": np.zeros(1)}, meta={PLAN_KEY: b"plan", FORM_KEY: "form"})
    assert bytes_in(task, PLAN_KEY) == b"plan"
    for what in (FORM_KEY, "other"):
        with pytest.raises(DecodeError, match="in this task"):
            bytes_in(task, what)


def test_a_model_is_a_dictionary_of_arrays() -> None:
    assert arrays_in(FLModel(params={"w": np.float32(1)}))["w"].shape == ()
    broken: list[Any] = [{}, {"w": [1.0]}, {"w": np.zeros(1), "b": "text"}]
    for params in broken:
        with pytest.raises(UsageError, match="a model is a dictionary of numpy arrays"):
            arrays_in(FLModel(params=params))
