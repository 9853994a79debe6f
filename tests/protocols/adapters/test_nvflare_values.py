"""What NVFlare's carriers may hold: values of another type are refused, in our words, before they are used."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="NOT TESTED: the adapter needs nvflare, pip install 'secagg[nvflare]'")

from nvflare.app_common.abstract.fl_model import FLModel, MetaKey

from protocols.adapters import nvflare as adapter
from protocols.adapters.form import Form
from protocols.roster import Identity, Roster
from secagg.crypto.prg import Prg
from secagg.errors import DecodeError, UsageError

FRAME = np.frombuffer(b"frame", np.uint8)


def test_a_frame_is_an_array_of_bytes() -> None:
    assert adapter._frame_in(FLModel(params={adapter._FRAME: FRAME})) == b"frame"
    for params in ({adapter._FRAME: FRAME.astype(np.int64)}, {adapter._FRAME: b"frame"}, {"other": FRAME}):
        with pytest.raises(DecodeError, match="no frame in this message"):
            adapter._frame_in(FLModel(params=params))


def test_plans_and_forms_are_bytes() -> None:
    task = FLModel(params={"w": np.zeros(1)}, meta={adapter._PLAN: b"plan", adapter._FORM: "form"})
    assert adapter._bytes_in(task, adapter._PLAN) == b"plan"
    for what in (adapter._FORM, "other"):
        with pytest.raises(DecodeError, match="in this task"):
            adapter._bytes_in(task, what)


def test_a_model_is_a_dictionary_of_arrays() -> None:
    assert adapter._arrays(FLModel(params={"w": np.float32(1)}))["w"].shape == ()
    broken: list[Any] = [{}, {"w": [1.0]}, {"w": np.zeros(1), "b": "text"}]
    for params in broken:
        with pytest.raises(UsageError, match="a model is a dictionary of numpy arrays"):
            adapter._arrays(FLModel(params=params))


@pytest.mark.parametrize("steps", [0, -1, 1.5, "3", None])
def test_steps_are_a_positive_whole_number(steps: Any) -> None:
    """What else the trainer says is a failed training, which the caller makes zeros of."""
    form = Form.of({"w": np.zeros(1)}, clip=1.0, weight_bound=9, weight=MetaKey.NUM_STEPS_CURRENT_ROUND)
    trained = FLModel(params={"w": np.zeros(1)}, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: np.int64(1)})
    assert adapter._weight(form, trained) == 1
    trained.meta[MetaKey.NUM_STEPS_CURRENT_ROUND] = steps
    with pytest.raises(UsageError, match="a weighted sum needs"):
        adapter._weight(form, trained)


def test_a_deployment_is_a_name(tmp_path: Path) -> None:
    identity = Identity.generate("site-1", Prg(bytes(32)))
    identity.save(tmp_path / "site-1.key")
    Roster.of([identity, Identity.generate("site-2", Prg(bytes([1]) * 32))]).save(tmp_path / "roster.toml")
    words = 'identity = "{site}.key"\nroster = "roster.toml"\ndeployment = %s\n[policy]\nmin_contributors = 2\n'
    (tmp_path / adapter.SITE_FILE).write_text(words % '"hospitals"')
    assert adapter.site_client(tmp_path, "site-1", ExitStack()).identity.name == "site-1"
    (tmp_path / adapter.SITE_FILE).write_text(words % "7")
    with pytest.raises(UsageError, match="is not a name"):
        adapter.site_client(tmp_path, "site-1", ExitStack())
