"""NVFlare sites that are silos: one bounded vector for each user, with noise in the sum and without.

Four sites with three users each. The scale is 1, so the sums are worked out here to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="NOT TESTED: the extra nvflare is not installed")

from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

from dp.calibrate import user_level
from dp.events import Holder, Relation
from dp.filter import Budget, Kind
from dp.ledger import Ledger
from protocols.adapters.form import FORM
from protocols.adapters.nvflare import Trainings, each_user
from protocols.adapters.nvflare.messages import TRAIN_TASK
from protocols.adapters.nvflare.site import SITE_FILE
from protocols.adapters.users import Contributions
from protocols.policy import Policy
from protocols.roster import Identity
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.protocols.adapters.nvflare.scene import MODEL, POLICY, SITES, Federation, averaging, proposal, refused

SILO_POLICY = POLICY.replace("weight_bound = 50", "users = 3")
SILOS = {"most": 3, "total": 12}

Answer = Callable[[FLModel], FLModel | Shareable]


def user_arrays(site: int, user: int) -> dict[str, np.ndarray]:
    return {"w": MODEL["w"] + np.float32(site - user), "steps": MODEL["steps"] + np.int32(user)}


def stacked(site: int, users: int = 3) -> Answer:
    def answer(model: FLModel) -> FLModel:
        each = [user_arrays(site, user) for user in range(users)]
        params = {name: np.stack([one[name] for one in each]) for name in MODEL}
        return FLModel(params=params, metrics={"loss": [1.0 * site] * users})

    return answer


def differences(site: int) -> Answer:
    def answer(model: FLModel) -> FLModel:
        params = {name: array - MODEL[name] for name, array in stacked(site)(model).params.items()}
        return FLModel(params=params, params_type=ParamsType.DIFF, metrics={"loss": [1.0 * site] * 3})

    return answer


def one_by_one(site: int) -> Answer:
    return lambda model: each_user(Trainings(3, lambda user: (user_arrays(site, user), {"loss": 1.0 * site})))


def silos(folder: Path, answer: Callable[[int], Answer] = stacked, policy: str = SILO_POLICY) -> Federation:
    federation = Federation(folder, policy=policy)
    for number, name in enumerate(SITES, 1):
        federation.sites[name].trainer.answer = answer(number)
    return federation


def expected(*left_out: tuple[int, int]) -> list[int]:
    users = [(site, user) for site in (1, 2, 3, 4) for user in (0, 1, 2) if (site, user) not in left_out]
    return [sum(site - user for site, user in users)] * 6 + [sum(user for _, user in users)]


@pytest.mark.parametrize("answer", [stacked, differences, one_by_one])
def test_the_sum_is_of_all_users_changes_over_their_declared_number(
    answer: Callable[[int], Answer], tmp_path: Path
) -> None:
    federation = silos(tmp_path, answer)
    controller = averaging(silos=SILOS)
    (outcome,) = federation.run(controller)
    assert outcome.total.tolist() == expected()
    assert federation.persistor.weights["w"].tolist() == [[expected()[0] / 12] * 3] * 2
    assert int(federation.persistor.weights["steps"]) == 7 + 1  # 12 users, each by 0, 1 or 2
    for reply in federation.replies:
        assert list(FLModelUtils.from_shareable(reply).params) == ["secagg_frame"]


def test_one_users_enormous_update_moves_the_model_by_one_clip(tmp_path: Path) -> None:
    federation = silos(tmp_path, one_by_one)

    def train(user: int) -> tuple[dict[str, Any], dict[str, float]]:
        enormous = {"w": MODEL["w"] + np.float32(1e30), "steps": MODEL["steps"]}
        return enormous if user == 1 else user_arrays(2, user), {}

    federation.sites["site-2"].trainer.answer = lambda model: each_user(Trainings(3, train))
    federation.run(averaging(silos=SILOS, clip=32.0, metrics={"loss": 8.0}))
    moved = 12 * federation.persistor.weights["w"] - expected((2, 1))[0]
    np.testing.assert_allclose(moved, 32 / np.sqrt(6), atol=0.1)


def broken_user(model: FLModel) -> FLModel:
    answer = stacked(2)(model)
    answer.params["w"] = np.array(answer.params["w"])
    answer.params["w"][1, 0, 0] = np.nan
    return answer


def unequal(model: FLModel) -> FLModel:
    answer = stacked(2)(model)
    return FLModel(params=answer.params | {"steps": np.zeros(2, np.int32)})


@pytest.mark.parametrize(
    ("bad", "left_out"),
    [
        (broken_user, [(2, 1)]),
        (stacked(2, users=4), [(2, 0), (2, 1), (2, 2)]),
        (unequal, [(2, 0), (2, 1), (2, 2)]),
        (lambda model: FLModel(params=user_arrays(2, 0)), [(2, 0), (2, 1), (2, 2)]),
        (lambda model: FLModel(metrics={"loss": 1.0}), [(2, 0), (2, 1), (2, 2)]),
    ],
)
def test_what_is_no_good_is_zeros_and_looks_like_any_other(
    bad: Answer, left_out: list[tuple[int, int]], tmp_path: Path
) -> None:
    """A user's own result, or if they do not fit together that of the whole site."""
    federation = silos(tmp_path)
    federation.sites["site-2"].trainer.answer = bad
    (outcome,) = federation.run(averaging(silos=SILOS))
    assert outcome.total.tolist() == expected(*left_out)
    assert {reply.get_return_code() for reply in federation.replies} == {ReturnCode.OK}


@pytest.mark.parametrize(
    ("policy", "given"),
    [
        (SILO_POLICY, {}),
        (SILO_POLICY, {"users": 4}),
        (SILO_POLICY, {"users": 3, "overlap": 2}),
        (SILO_POLICY + "overlap = 2\n", {"users": 3}),
        (POLICY, {"users": 3}),
    ],
)
def test_a_plan_for_other_units_than_the_sites_own_is_refused_before_it_trains(
    policy: str, given: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = silos(tmp_path, policy=policy)
    site = federation.sites["site-1"]
    plan, form = proposal(federation, **given)
    assert refused(site, site.ask(plan, form))
    monkeypatch.setattr(Policy, "check", lambda self, plan, roster: None)
    site.ask(plan, form)
    assert site.trainer.calls == 1  # control


def aborted(folder: Path) -> tuple[Federation, Shareable, list[int]]:
    """The answer of site 1, whose training is aborted in the middle of its second user; and whom it trained."""
    federation, abort, calls = silos(folder), Signal(), list[int]()
    site = federation.sites["site-1"]

    def train(user: int) -> Any:
        calls.append(user)
        if user == 1:
            abort.trigger(True)
            raise ValueError("cut off")
        return user_arrays(1, user), {}

    site.trainer.answer = lambda model: each_user(Trainings(3, train))
    plan, form = proposal(federation, users=3)
    meta = {"secagg_plan": plan.encode(), "secagg_form": FORM.encode(form)}
    task = FLModelUtils.to_shareable(FLModel(params=MODEL, meta=meta, current_round=0))
    with site.engine.new_context() as fl_ctx:
        reply = site.executor.execute(TRAIN_TASK, task, fl_ctx, abort)
    site.trainer.answer = stacked(1)
    again = site.ask(plan, form).get_return_code()
    assert again == ReturnCode.OK  # it can be asked again, whether or not it had begun
    return federation, reply, calls


def test_an_abort_between_two_users_ends_the_training_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros for those who had not been trained would leave the sum to the others."""
    federation, reply, calls = aborted(tmp_path / "checked")
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert calls == [0, 1]
    assert federation.sites["site-1"].trainer.calls == 2  # nothing had been begun, so it trained again
    switch_off(monkeypatch, Contributions, "__iter__", "self.interrupted()", "None")
    federation, reply, calls = aborted(tmp_path / "control")
    assert reply.get_return_code() == ReturnCode.OK
    assert federation.sites["site-1"].trainer.calls == 1


def test_an_abort_of_the_whole_trainer_is_no_contribution(tmp_path: Path) -> None:
    federation, abort = silos(tmp_path), Signal()
    site = federation.sites["site-1"]

    def stopped(model: FLModel) -> Shareable:
        abort.trigger(True)
        return make_reply(ReturnCode.TASK_ABORTED)

    site.trainer.answer = stopped
    plan, form = proposal(federation, users=3)
    meta = {"secagg_plan": plan.encode(), "secagg_form": FORM.encode(form)}
    task = FLModelUtils.to_shareable(FLModel(params=MODEL, meta=meta, current_round=0))
    with site.engine.new_context() as fl_ctx:
        reply = site.executor.execute(TRAIN_TASK, task, fl_ctx, abort)
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION


# Noise

PRIVACY = {"epsilon": 8, "delta": 1e-3, "rounds": 1, "ring_bits": 32}


def with_ledgers(federation: Federation, of_sites: Holder = Holder.SILO, of_server: Holder = Holder.SILO) -> None:
    """A budget in each folder, that of the server with a key of its own."""
    Identity.generate("server").save(federation.local("server") / "server.key")
    for name in [*SITES, "server"]:
        local, guarantee = (
            federation.local(name),
            user_level(Relation.ZERO_OUT, of_server if name == "server" else of_sites),
        )
        budget = Budget(Fraction(8), Fraction(1, 1000), slack=Fraction(1, 10**5), kind=Kind.GDP)
        key = Identity.load(local / f"{name}.key").key
        Ledger.create(local / f"{name}.ledger", key, budget, guarantee, run="test", elsewhere="validation").close()
        beside = f'identity = "{name}.key"' if name == "server" else f'journal = "{name}.db"'
        file = local / SITE_FILE
        file.write_text(f'ledger = "{name}.ledger"\n{beside}\n{file.read_text()}')


def phases(federation: Federation, name: str) -> list[str]:
    local = federation.local(name)
    with closing(Ledger.open(local / f"{name}.ledger", Identity.load(local / f"{name}.key").key)) as ledger:
        return [str(entry["phase"]) for entry in ledger.entries()]


def test_a_private_round_is_noised_and_charged_to_everybodys_ledger(tmp_path: Path) -> None:
    """Two rounds are asked for with a budget for one: the second does not begin."""
    federation = silos(tmp_path, policy=SILO_POLICY + "noise_multiplier = 0.4\n")
    with_ledgers(federation)
    (outcome,) = federation.run(averaging(silos=SILOS, privacy=PRIVACY, clip=20.0, min_contributors=3, num_rounds=2))
    federation.close()
    plan = outcome.event.plan
    assert plan.noise is not None
    assert (plan.encoding.users, plan.noise.colluders, plan.noise.dropouts) == (3, 1, 1)
    assert outcome.total.tolist() != expected()
    assert phases(federation, "server") == ["genesis", "reserve", "commit"]
    assert phases(federation, "site-1") == ["genesis", "reserve", "commit"]


def test_a_site_whose_ledger_is_for_sites_as_units_refuses_a_sum_over_their_users(tmp_path: Path) -> None:
    federation = silos(tmp_path)
    with_ledgers(federation, of_sites=Holder.DEVICE)
    assert federation.run(averaging(silos=SILOS, privacy=PRIVACY, clip=20.0, min_contributors=3)) == []
    assert [site.trainer.calls for site in federation.sites.values()] == [0, 0, 0, 0]
    federation.close()


def test_a_private_round_without_silos_is_over_the_sites_in_the_plan(tmp_path: Path) -> None:
    federation = Federation(tmp_path, policy=POLICY.replace("weight_bound = 50", ""))
    with_ledgers(federation, Holder.DEVICE, Holder.DEVICE)
    failed = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    federation.changed = lambda site, nth, reply: failed if (site, nth) == ("site-4", 1) else reply
    controller = averaging(privacy=PRIVACY | {"rounds": 2}, clip=20.0, min_contributors=3)
    (outcome,) = federation.run(controller)
    federation.close()
    assert len(outcome.survivors) == 3
    np.testing.assert_allclose(
        controller.moved.params["w"].ravel(), outcome.decode().vector[:6] / 4, rtol=1e-6, atol=1e-9
    )
    assert set(controller.moved.metrics) == {"failed"}


@pytest.mark.parametrize("given", [{"silos": SILOS}, {"privacy": {"epsilon": 8, "delta": 1e-3}}])
def test_weights_make_no_sense_with_silos_or_noise(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="counts once"):
        averaging(weight_bound=2, **given)


def test_a_ledger_at_a_site_needs_a_journal(tmp_path: Path) -> None:
    federation = silos(tmp_path)
    with_ledgers(federation)
    file = federation.local("site-1") / SITE_FILE
    file.write_text(file.read_text().replace('journal = "site-1.db"\n', ""))
    site = federation.sites["site-1"]
    assert refused(site, site.ask(*proposal(federation, users=3)))
