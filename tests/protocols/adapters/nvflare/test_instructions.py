"""What a trainer can read of the server is bound into the plan, or not handed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="NOT TESTED: the extra nvflare is not installed")

from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

from protocols.adapters.form import FORM
from protocols.adapters.nvflare import client as nvflare_client
from protocols.adapters.nvflare.client import SecureExecutor
from protocols.adapters.nvflare.messages import TRAIN_TASK
from protocols.outcome import RoundOutcome
from tests.controls import switch_off
from tests.protocols.adapters.nvflare.scene import (
    CHECK_PLAN,
    MODEL,
    SITES,
    Federation,
    Trainer,
    averaging,
    changes,
    check_sum,
    moved,
    proposal,
    refused,
)

Read = Callable[[FLModel], float]


def steer(folder: Path, read: Read, told: FLModel, **also: Any) -> tuple[list[RoundOutcome], Federation]:
    """Trainers whose rate is what ``read`` finds; the server tells something else to all sites but the first."""
    federation = Federation(folder)
    for site in federation.sites.values():
        site.trainer.answer = steered(site.trainer, read)

    def other(site: str, data: Shareable) -> Shareable:
        if site != "site-1" and data.get_header("current_round") is not None and "secagg_plan" in str(data):
            changed = FLModelUtils.from_shareable(data)
            changed.current_round, changed.total_rounds = told.current_round, told.total_rounds
            return FLModelUtils.to_shareable(changed)
        return data

    federation.told = other
    return federation.run(averaging(**also)), federation


def steered(trainer: Trainer, read: Read) -> Callable[[FLModel], FLModel]:
    def train(model: FLModel) -> FLModel:
        rate = read(model)
        new = {name: model.params[name] + rate * (array - MODEL[name]) for name, array in moved(trainer.number).items()}
        return FLModel(params=new)

    return train


STEERED: dict[str, tuple[Read, FLModel, list[tuple[Any, str, str, str]]]] = {
    "current round": (
        lambda model: float(model.current_round == 0),
        FLModel(params={}, current_round=7, total_rounds=1),
        [
            (SecureExecutor, "_train_and_join", "task.current_round != plan.round", "False"),
            (nvflare_client, "_trainer_task", "plan.round", "task.current_round"),
        ],
    ),
    "total rounds": (
        lambda model: float(model.total_rounds == 1),
        FLModel(params={}, current_round=0, total_rounds=7),
        [(SecureExecutor, "_train_and_join", CHECK_PLAN, "None")],
    ),
}


@pytest.mark.parametrize("what", STEERED)
def test_a_sum_cannot_be_made_one_sites_update(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: the sum over all four is that of site 1, to the last bit."""
    read, told, checks = STEERED[what]
    outcomes, federation = steer(tmp_path / "checked", read, told)
    assert outcomes == []
    codes = [reply.get_return_code() for reply in federation.replies]
    assert sorted(codes) == [ReturnCode.EXECUTION_EXCEPTION] * 3 + [ReturnCode.OK]
    assert [site.trainer.calls for site in federation.sites.values()] == [1, 0, 0, 0]
    for check in checks:
        switch_off(monkeypatch, *check)
    (outcome,) = steer(tmp_path / "control", read, told)[0]
    assert list(outcome.survivors) == SITES
    assert outcome.total.tolist() == changes(["site-1"])[0].tolist()


def test_the_job_is_bound(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer may read its name."""
    site, (plan, form) = federation.sites["site-1"], proposal(federation)
    site.engine.contexts.job_id = "another"
    assert refused(site, site.ask(plan, form))
    site.engine.contexts.job_id = "job"
    assert site.ask(plan, form).get_return_code() == ReturnCode.OK


def test_what_is_not_bound_is_not_handed_on(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers, the server's public properties, a start round, arrays in another memory layout, metrics, meta."""
    site, (plan, form) = federation.sites["site-1"], proposal(federation)
    seen = list[tuple[str, Any]]()

    def execute(task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        layouts = {name: array.flags.c_contiguous for name, array in shareable["DXO"]["data"].items()}
        peer = fl_ctx.get_peer_context()
        told = (fl_ctx.get_prop(FLContextKey.TASK_DATA), peer and peer.get_prop("rate"), shareable.get_peer_props())
        seen.append((repr(shareable), (layouts, *told)))
        return make_reply(ReturnCode.OK)

    monkeypatch.setattr(site.trainer, "execute", execute)
    for number in range(3):
        if number == 2:
            switch_off(monkeypatch, SecureExecutor, "_run_trainer", "fl_ctx.get_engine().new_context()", "fl_ctx")
        plan = replace(plan, session=bytes([number] * 16))  # or it is not trained for again
        model = {name: np.asfortranarray(array).reshape(array.shape, order="A") for name, array in MODEL.items()}
        meta = {"secagg_plan": plan.encode(), "secagg_form": FORM.encode(form), "rate": number}
        told = FLModel(
            params=model if number else MODEL, meta=meta, metrics={"x": number}, current_round=0, start_round=number
        )
        task = FLModelUtils.to_shareable(told)
        task.set_header("rate", number)
        task["rate"] = number
        with site.engine.new_context() as fl_ctx:
            peer = FLContext()
            peer.set_prop("rate", number, private=False, sticky=False)
            fl_ctx.set_peer_context(peer)
            task.set_peer_props(peer.get_all_public_props())
            fl_ctx.set_prop(FLContextKey.TASK_DATA, task, private=True, sticky=False)
            assert site.executor.execute(TRAIN_TASK, task, fl_ctx, Signal()).get_return_code() == ReturnCode.OK
    assert seen[0] == seen[1]
    assert "rate" not in str(seen[:2])
    assert seen[0][1] == (dict.fromkeys(MODEL, True), None, None, None)
    assert seen[2][1][2] == 2  # control: the context that the server's task came with


def in_place(trainer: Trainer) -> Callable[[FLModel], FLModel]:
    def train(model: FLModel) -> FLModel:
        for name, array in moved(trainer.number).items():
            model.params[name][...] += array - MODEL[name]
        return model

    return train


def test_a_trainer_may_train_in_place(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """In NVFlare's in-process mode a script is given the very arrays that it is sent; its change must not vanish."""
    for site in federation.sites.values():
        site.trainer.answer = in_place(site.trainer)
    (outcome,) = federation.run(averaging())
    check_sum(outcome, SITES)
    switch_off(monkeypatch, nvflare_client, "_trainer_task", "array.copy()", "array")
    (outcome,) = federation.run(averaging())
    assert not outcome.total.any()
