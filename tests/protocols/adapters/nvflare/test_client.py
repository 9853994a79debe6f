"""What an NVFlare site answers, refuses and trains: nothing but frames leaves it, whatever its training does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="NOT TESTED: the extra nvflare is not installed")

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_exception import UnsafeJobError
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, MetaKey
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.fuel.utils import fobs

from protocols.adapters.form import FORM, Form
from protocols.adapters.nvflare.client import SecureExecutor, _weight
from protocols.adapters.nvflare.messages import FRAME_TASK, TRAIN_TASK, frame_in, frame_params
from protocols.outcome import RoundOutcome
from protocols.plan import RoundPlan
from protocols.server import serve
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.protocols.adapters.nvflare.scene import (
    CHECK_PLAN,
    MODEL,
    POLICY,
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

# What leaves a site


def test_nothing_but_frames_leaves_a_site(federation: Federation) -> None:
    """Every reply of a whole job, where the trainers report a metric and a step count: one array of bytes."""
    federation.run(averaging(metrics={"loss": 8.0}, weight_bound=50))
    assert len(federation.replies) == 4 * 6
    for reply in federation.replies:
        model = FLModelUtils.from_shareable(reply)
        assert list(model.params) == ["secagg_frame"]
        assert model.params["secagg_frame"].dtype == np.uint8
        assert (model.metrics, model.meta) == (None, {})


@pytest.mark.parametrize("task", ["train", "validate", "submit_model"])
def test_the_trainer_cannot_be_reached_beside_the_wrapper(federation: Federation, task: str) -> None:
    site = federation.sites["site-1"]
    reply = site.do(task, FLModelUtils.to_shareable(FLModel(params=MODEL)))
    assert (reply.get_return_code(), site.trainer.calls) == (ReturnCode.TASK_UNKNOWN, 0)


def test_a_wrapper_that_let_other_tasks_through_would_give_the_update_away(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control to the test above."""
    through = "self.executor.execute(task_name, shareable, fl_ctx, abort_signal)"
    switch_off(monkeypatch, SecureExecutor, "execute", "make_reply(ReturnCode.TASK_UNKNOWN)", through)
    reply = federation.sites["site-1"].do("train", FLModelUtils.to_shareable(FLModel(params=MODEL)))
    assert FLModelUtils.from_shareable(reply).params["w"].tolist() == moved(1)["w"].tolist()


def test_a_plan_for_another_form_or_model_is_refused(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    site = federation.sites["site-1"]
    plan, form = proposal(federation)
    wrong = [
        (plan, replace(form, clip=1.0), MODEL),
        (plan, replace(form, arrays=form.arrays[::-1]), MODEL),
        (plan, form, MODEL | {"w": MODEL["w"] + 1}),
        (replace(plan, model=bytes(32)), form, MODEL),
    ]
    assert all(refused(site, site.ask(*one)) for one in wrong)
    switch_off(monkeypatch, SecureExecutor, "_train_and_join", CHECK_PLAN, "None")
    assert not refused(site, site.ask(*wrong[-1]))


def test_a_plan_that_the_policy_refuses_is_not_trained_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = Federation(tmp_path, policy=POLICY.replace("min_contributors = 2", "min_contributors = 4"))
    site = strict.sites["site-1"]
    plan, form = proposal(strict)
    assert refused(site, site.ask(plan, form))
    switch_off(monkeypatch, SecureExecutor, "_train_and_join", "client.check(plan)", "None")
    site.ask(plan, form)
    assert site.trainer.calls == 1  # ``Client.start`` refuses it all the same


def test_tasks_without_what_is_needed_are_refused(federation: Federation) -> None:
    site = federation.sites["site-1"]
    plan, form = proposal(federation)
    for meta in ({}, {"secagg_plan": plan.encode()}, {"secagg_plan": "text", "secagg_form": FORM.encode(form)}):
        task = FLModelUtils.to_shareable(FLModel(params=MODEL, meta=meta))
        assert refused(site, site.do(TRAIN_TASK, task))
    assert refused(site, site.do(TRAIN_TASK, Shareable()))
    assert refused(site, site.do(FRAME_TASK, Shareable()))
    frame = FLModel(params={"secagg_frame": np.zeros(9, np.uint8)})
    assert refused(site, site.do(FRAME_TASK, FLModelUtils.to_shareable(frame)))  # nothing is under way


class Panic(BaseException):
    """What Rust code raises into Python when it fails (pyo3): no ``Exception``."""


def raising(error: BaseException) -> Callable[[FLModel], FLModel]:
    def train(model: FLModel) -> FLModel:
        raise error

    return train


def coded(model: FLModel) -> Shareable:
    answer = FLModelUtils.to_shareable(FLModel(params=model.params, metrics={"loss": 12345.0}))
    answer.set_return_code(ReturnCode.EXECUTION_RESULT_ERROR)
    return answer


def counting(steps: Any) -> Callable[[FLModel], FLModel]:
    return lambda model: FLModel(params=model.params, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: steps})


FAILURES: dict[str, Callable[[FLModel], FLModel | Shareable]] = {
    "an exception": raising(ValueError("12345")),
    "an exception that ends jobs": raising(UnsafeJobError("12345")),
    "an exit": raising(SystemExit("12345")),
    "a panic of Rust code, which is no Exception": raising(Panic("12345")),
    "an error code": coded,
    "an array less": lambda model: FLModel(params={"w": model.params["w"]}),
    "NaN": lambda model: FLModel(params={name: array * np.nan for name, array in model.params.items()}),
    "lists": lambda model: FLModel(params={name: array.tolist() for name, array in model.params.items()}),
    "no model": lambda model: FLModel(metrics={"loss": 1.0}),
    "nothing": lambda model: Shareable(),
    "no step count": lambda model: FLModel(params=model.params, metrics={"loss": 1.0}),
    "no steps": counting(0),
    "half a step": counting(0.5),
    "text": counting("12345"),
}


def replies_of(folder: Path, answer: Callable[[FLModel], FLModel | Shareable] | None) -> tuple[RoundOutcome, list[Any]]:
    """A round in which site 2 trains so; what the server gets from it: codes, sizes, what is in it."""
    federation = Federation(folder)
    if answer is not None:
        federation.sites["site-2"].trainer.answer = answer
    said = list[Shareable]()

    def keep(site: str, count: int, reply: Shareable) -> Shareable:
        if site == "site-2":
            said.append(reply)
        return reply

    federation.changed = keep
    (outcome,) = federation.run(averaging(weight_bound=50))
    assert all(b"12345" not in fobs.dumps(reply) for reply in said)
    shown = [(reply.get_return_code(), len(fobs.dumps(reply)), set(reply), len(frame_of(reply))) for reply in said]
    return outcome, shown


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the server gets when nothing fails."""
    return replies_of(tmp_path_factory.mktemp("fine"), None)[1]


@pytest.mark.thinned(4)
@pytest.mark.parametrize("what", FAILURES)
def test_nobody_sees_whose_training_failed(what: str, fine: list[Any], tmp_path: Path) -> None:
    """Its answers are like any other's in every phase; what goes in is zeros, its weight included."""
    outcome, shown = replies_of(tmp_path / "failed", FAILURES[what])
    assert shown == fine
    assert len(shown) == 6
    assert list(outcome.survivors) == SITES
    total = outcome.decode()
    assert total.weight == 10 + 30 + 40
    left = [number * changes([SITES[number - 1]])[0] * 10 for number in (1, 3, 4)]
    assert total.vector.tolist() == sum(left).tolist()  # type: ignore[union-attr]


def test_control_a_failure_would_be_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Form, "contribution", "BaseException", "ZeroDivisionError")
    federation = Federation(tmp_path)
    site = federation.sites["site-1"]
    site.trainer.answer = FAILURES["NaN"]
    assert site.ask(*proposal(federation)).get_return_code() == ReturnCode.EXECUTION_EXCEPTION


def test_a_round_in_which_nobody_has_anything_changes_nothing(federation: Federation) -> None:
    for site in federation.sites.values():
        site.trainer.answer = FAILURES["NaN"]
    (outcome,) = federation.run(averaging(weight_bound=50))
    assert not outcome.total.any()
    assert federation.persistor.weights["w"].tolist() == MODEL["w"].tolist()


# Weights


def test_a_site_counts_by_its_steps_and_nothing_else(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    site = federation.sites["site-1"]
    plan, form = proposal(federation, weight_bound=50)
    other = replace(form, weight="loss")
    plan = replace(plan, model=other.model_digest(MODEL, {"total rounds": None, "job": "job"}))
    assert refused(site, site.ask(plan, other))
    switch_off(monkeypatch, Form, "check_plan", 'self.weight not in ("", weighted_by)')
    assert not refused(site, site.ask(plan, other))  # control


# How often a site trains


def finished(federation: Federation, plan: RoundPlan, replies: dict[str, Shareable]) -> RoundOutcome:
    """The round of these first answers, carried to its end."""
    server = serve(plan, federation.roster)
    for name, reply in replies.items():
        server.receive(name, frame_of(reply))
    while server.outcome is None:
        server.close(server.phase)
        for name, frame in server.outbox():
            task = FLModelUtils.to_shareable(FLModel(params=frame_params(frame)))
            server.receive(name, frame_of(federation.sites[name].do(FRAME_TASK, task)))
    return server.outcome


def scheduled(trainer: Trainer) -> Callable[[FLModel], FLModel]:
    """Its rate falls to 0 after two trainings, which the living script counts."""
    return lambda model: trainer.trained(model) if trainer.calls <= 2 else FLModel(params=model.params)


def repeated(folder: Path, *, journal: bool) -> tuple[RoundOutcome, list[int]]:
    """The server asks all sites but the third three times for one plan."""
    with closing(Federation(folder, journal=journal)) as federation:
        plan, form = proposal(federation)
        for site in federation.sites.values():
            site.trainer.answer = scheduled(site.trainer)
        replies = dict[str, Shareable]()
        for name, site in federation.sites.items():
            for _ in range(1 if name == "site-3" else 3):
                replies[name] = site.ask(plan, form)
        return finished(federation, plan, replies), [site.trainer.calls for site in federation.sites.values()]


@pytest.mark.parametrize("journal", [False, True])
def test_a_plan_is_trained_for_once(journal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: the schedules of all others are at their end, and the sum of four is the update of one."""
    outcome, calls = repeated(tmp_path / "checked", journal=journal)
    check_sum(outcome, SITES)
    assert calls == [1, 1, 1, 1]
    switch_off(monkeypatch, SecureExecutor, "_train_and_join", "client.check(plan)")
    outcome, calls = repeated(tmp_path / "control", journal=journal)
    assert list(outcome.survivors) == SITES
    assert calls == [3, 3, 1, 3]
    # a site that trains again at the rate 0 puts zeros in: the last training counts
    assert outcome.total.tolist() == changes(["site-3"])[0].tolist()


def at_once(federation: Federation, seconds: float) -> int:
    """How often site 1 trains when the same task comes twice at the same time, as NVFlare's client can hand it over."""
    site, (plan, form) = federation.sites["site-1"], proposal(federation)
    both, frames = threading.Barrier(2), list[bytes]()

    def train(model: FLModel) -> FLModel:
        with suppress(threading.BrokenBarrierError):
            both.wait(seconds)
        return site.trainer.trained(model)

    site.trainer.answer = train
    tasks = [threading.Thread(target=lambda: frames.append(frame_of(site.ask(plan, form)))) for _ in range(2)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert len(frames) == 2
    assert frames[0] == frames[1]
    return site.trainer.calls


def test_two_tasks_at_once_train_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert at_once(Federation(tmp_path / "checked"), 0.2) == 1
    found = SecureExecutor._client_and_lock
    without = lambda self, fl_ctx: (found(self, fl_ctx)[0], nullcontext())  # noqa: E731
    monkeypatch.setattr(SecureExecutor, "_client_and_lock", without)
    assert at_once(Federation(tmp_path / "control"), 60.0) == 2


def aborted(folder: Path) -> tuple[RoundOutcome, list[str | None]]:
    """The server aborts the trainings of all but site 3, and then asks all for what they have."""
    federation = Federation(folder)
    plan, form = proposal(federation)
    codes = list[str | None]()
    for name, site in federation.sites.items():
        signal = Signal()

        def stopped(model: FLModel, signal: Signal = signal) -> Shareable:
            signal.trigger(True)
            return make_reply(ReturnCode.TASK_ABORTED)

        if name != "site-3":
            site.trainer.answer = stopped
        meta = {"secagg_plan": plan.encode(), "secagg_form": FORM.encode(form)}
        task = FLModelUtils.to_shareable(FLModel(params=MODEL, meta=meta, current_round=0))
        with site.engine.new_context() as fl_ctx:
            codes.append(site.executor.execute(TRAIN_TASK, task, fl_ctx, signal).get_return_code())
        site.trainer.answer = site.trainer.trained
    replies = {name: site.ask(plan, form) for name, site in federation.sites.items()}
    return finished(federation, plan, replies), codes


def test_a_training_that_was_aborted_is_no_contribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: all but one are aborted and count as zeros, and the sum of four is the update of one."""
    outcome, codes = aborted(tmp_path / "checked")
    check_sum(outcome, SITES)
    failed = ReturnCode.EXECUTION_EXCEPTION
    assert codes == [failed, failed, ReturnCode.OK, failed]
    switch_off(monkeypatch, SecureExecutor, "_train_and_join", "abort_signal.triggered")
    outcome, codes = aborted(tmp_path / "control")
    assert list(outcome.survivors) == SITES
    assert outcome.total.tolist() == changes(["site-3"])[0].tolist()


def test_what_failed_is_not_in_the_log_that_a_job_may_stream(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    """But for its type; at DEBUG, which a site has to ask for, all of it."""
    caplog.set_level(logging.DEBUG)
    site = federation.sites["site-1"]
    site.trainer.answer = raising(ValueError("12345 was in the data"))
    assert site.ask(*proposal(federation)).get_return_code() == ReturnCode.OK
    assert "counts as nothing: ValueError" in caplog.text
    for record in caplog.records:
        shown = logging.Formatter().format(record)
        assert ("12345" in shown) == (record.levelno == logging.DEBUG and record.name.startswith("protocols"))


# Restarts, and the end of a run


def frame_of(reply: Shareable) -> bytes:
    return frame_in(FLModelUtils.from_shareable(reply))


def test_a_site_that_restarts_on_a_journal_says_the_same_again(tmp_path: Path) -> None:
    """If its vector is out. Before, its update is lost, and it stays out of the round; it is never trained again."""
    with closing(Federation(tmp_path, journal=True)) as federation:
        check_restart(federation)


def check_restart(federation: Federation) -> None:
    plan, form = proposal(federation)
    site = federation.sites["site-1"]
    replies = {name: one.ask(plan, form) for name, one in federation.sites.items()}
    again = federation.site("site-1", Trainer(1))
    assert refused(again, again.ask(plan, form))
    other = again.ask(replace(plan, min_contributors=3), form)
    assert other.get_return_code() == ReturnCode.EXECUTION_EXCEPTION

    said = list[bytes]()
    do = site.do
    site.do = lambda task, data: keep(said, do(task, data))  # type: ignore[method-assign]
    check_sum(finished(federation, plan, replies), SITES)
    assert len(said) == 5
    federation.close()  # the processes end without a word
    again = federation.site("site-1", Trainer(1))
    assert frame_of(again.ask(plan, form)) == said[-1]
    assert again.trainer.calls == 0


def keep(said: list[bytes], reply: Shareable) -> Shareable:
    said.append(frame_of(reply))
    return reply


def test_a_task_that_comes_twice_is_answered_twice_the_same(federation: Federation) -> None:
    """NVFlare sends a task again when the answer was lost."""
    plan, form = proposal(federation)
    replies = {name: site.ask(plan, form) for name, site in federation.sites.items()}
    for name, site in federation.sites.items():
        assert frame_of(site.ask(plan, form)) == frame_of(replies[name])
    do = federation.sites["site-1"].do

    def twice(task: str, data: Shareable) -> Shareable:
        reply = do(task, data)
        if task == TRAIN_TASK:
            return reply
        assert frame_of(do(task, data)) == frame_of(reply)
        assert frame_of(federation.sites["site-1"].ask(plan, form)) == frame_of(reply)  # the last that was said
        return reply

    federation.sites["site-1"].do = twice  # type: ignore[method-assign]
    check_sum(finished(federation, plan, replies), SITES)


def test_a_site_that_restarts_in_the_middle_is_a_dropout(federation: Federation) -> None:
    def changed(site: str, count: int, reply: Shareable) -> Shareable:
        if (site, count) == ("site-2", 1):
            federation.sites[site] = federation.site(site, Trainer(2))
        return reply

    federation.changed = changed
    (outcome,) = federation.run(averaging())
    check_sum(outcome, ["site-1", "site-3", "site-4"])


def test_at_the_end_of_a_run_the_journal_is_closed(tmp_path: Path) -> None:
    """Open, it fails this test (``tests/conftest.py``). What comes late is refused, and gets no new client."""
    federation = Federation(tmp_path, journal=True)
    site, (plan, form) = federation.sites["site-1"], proposal(federation)
    assert frame_of(site.ask(plan, form))
    with site.engine.new_context() as fl_ctx:
        site.executor.handle_event(EventType.END_RUN, fl_ctx)
    assert site.ask(plan, form).get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert site.trainer.calls == 1


def test_at_the_end_of_a_run_the_secrets_are_gone(federation: Federation) -> None:
    site = federation.sites["site-1"]
    plan, form = proposal(federation)
    site.ask(plan, form)
    client = site.executor._client
    assert client is not None
    assert client._journal.records(client._session(plan), 0)
    with site.engine.new_context() as fl_ctx:
        site.executor.handle_event(EventType.END_RUN, fl_ctx)
    assert not client._journal.records(client._session(plan), 0)


# The wrapped executor


def test_the_wrapped_executor_keeps_its_arrays_for_us(federation: Federation) -> None:
    executor = federation.sites["site-1"].executor
    assert executor.requires_materialized_task_result("train")
    assert not executor.requires_materialized_task_result(TRAIN_TASK)


@pytest.mark.parametrize("steps", [0, -1, 1.5, "3", None])
def test_steps_are_a_positive_whole_number(steps: Any) -> None:
    """What else the trainer says is a failed training, which the caller makes zeros of."""
    form = Form.of({"w": np.zeros(1)}, clip=1.0, weight_bound=9, weight=MetaKey.NUM_STEPS_CURRENT_ROUND)
    trained = FLModel(params={"w": np.zeros(1)}, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: np.int64(1)})
    assert _weight(form, trained) == 1
    trained.meta[MetaKey.NUM_STEPS_CURRENT_ROUND] = steps
    with pytest.raises(UsageError, match="a weighted sum needs"):
        _weight(form, trained)
