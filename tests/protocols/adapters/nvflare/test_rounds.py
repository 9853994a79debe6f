"""Rounds inside NVFlare, with dropouts in every phase, under every protocol, and what the server says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="NOT TESTED: the extra nvflare is not installed")

from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

from protocols import registry
from protocols.server import serve
from protocols.simulation.network import local_clients, simulate
from tests.protocols.adapters.nvflare.scene import (
    MODEL,
    POLICY,
    SITES,
    Federation,
    averaging,
    changes,
    check_sum,
    moved,
)


def instead(site: str, nth: int, reply: Shareable) -> Callable[[str, int, Shareable], Shareable]:
    """That one reply in place of the site's own."""
    return lambda name, count, own: reply if (name, count) == (site, nth) else own


FAILED = make_reply(ReturnCode.EXECUTION_EXCEPTION)


@pytest.mark.parametrize("protocol", registry.names())
def test_the_sum_is_that_of_the_simulation_for_every_protocol(federation: Federation, protocol: str) -> None:
    if protocol == "ckks":
        pytest.importorskip("tenseal", reason="NOT TESTED: the extra ckks is not installed")
    (outcome,) = federation.run(averaging(protocol=protocol))
    check_sum(outcome, SITES)
    assert outcome.event.plan.protocol == protocol
    client = federation.sites["site-1"].executor._client
    assert client is not None
    roster, clients = local_clients(4, client.policy)
    plan = replace(outcome.event.plan, roster=roster.digest)
    same = simulate(serve(plan, roster), clients, dict(zip(clients, changes(SITES), strict=True)).get)
    assert same.outcome.total.tolist() == outcome.total.tolist()


@pytest.mark.parametrize(("options", "taken"), [({}, {"secagg", "secagg+"}), ({"allowed": ["secagg+"]}, {"secagg+"})])
def test_a_protocol_is_chosen_of_those_that_are_allowed(
    federation: Federation, options: dict[str, Any], taken: set[str]
) -> None:
    (outcome,) = federation.run(averaging(protocol="auto", **options))
    check_sum(outcome, SITES)
    assert outcome.event.plan.protocol in taken


def test_the_model_moves_by_the_mean_in_its_own_types(federation: Federation) -> None:
    outcomes = federation.run(averaging(num_rounds=2))
    assert [outcome.event.plan.round for outcome in outcomes] == [0, 1]
    assert len({outcome.event.plan.session for outcome in outcomes}) == 1
    assert len({outcome.event.plan.model for outcome in outcomes}) == 2
    weights = federation.persistor.weights
    mean = np.mean([moved(number)["w"] for number in (1, 2, 3, 4)], axis=0)
    assert weights["w"].tolist() == (2 * mean).tolist()
    assert (weights["w"].dtype, weights["steps"].dtype, weights["steps"].shape) == (np.float32, np.int32, ())
    assert int(weights["steps"]) == 7 - 8 - 8  # -7.5 a round, to the nearest even
    assert federation.persistor.saved == 2


def test_weights_and_metrics_travel_under_the_mask(tmp_path: Path) -> None:
    federation = Federation(tmp_path, policy=POLICY.replace("weight_bound = 50", "weight_bound = 25"))
    controller = averaging(weight_bound=25, metrics={"loss": 8.0}, clip=64.0)
    (outcome,) = federation.run(controller)
    weights = {1: 10, 2: 20, 3: 25, 4: 25}  # steps, at most the bound
    total = sum(weights.values())
    assert outcome.decode().weight == total
    mean = sum(weight * moved(number)["w"] for number, weight in weights.items()) / total
    assert np.abs(federation.persistor.weights["w"] - mean).max() < 0.01
    loss = sum(weight * number for number, weight in weights.items()) / total
    assert abs(controller.moved.metrics["loss"] - loss) < 0.01


@pytest.mark.parametrize("nth", range(6))
def test_a_site_may_fail_in_any_phase(federation: Federation, nth: int) -> None:
    federation.changed = instead("site-2", nth, FAILED)
    (outcome,) = federation.run(averaging())
    check_sum(outcome, SITES if nth > 3 else ["site-1", "site-3", "site-4"])


@pytest.mark.parametrize("nth", [0, 2])
def test_a_site_may_fall_silent(federation: Federation, nth: int) -> None:
    """Then the phase ends with NVFlare's own timeout."""
    federation.lost = lambda site, count: (site, count) == ("site-2", nth)
    (outcome,) = federation.run(averaging(train_timeout=1, phase_timeout=1))
    check_sum(outcome, ["site-1", "site-3", "site-4"])


def test_a_round_need_not_wait_for_the_last(federation: Federation) -> None:
    federation.lost = lambda site, count: site == "site-2"
    (outcome,) = federation.run(averaging(min_responses=3, train_timeout=0))
    check_sum(outcome, ["site-1", "site-3", "site-4"])


def test_a_round_without_enough_sites_changes_nothing_and_the_next_one_goes_on(federation: Federation) -> None:
    federation.changed = lambda site, count, reply: FAILED if site != "site-2" and count == 0 else reply
    (outcome,) = federation.run(averaging(num_rounds=2))
    assert outcome.event.plan.round == 1
    check_sum(outcome, SITES)
    assert federation.persistor.saved == 1


def test_a_trainer_may_answer_with_a_difference(federation: Federation) -> None:
    difference = {name: array - MODEL[name] for name, array in moved(1).items()}
    federation.sites["site-1"].trainer.answer = lambda model: FLModel(params=difference, params_type=ParamsType.DIFF)
    (outcome,) = federation.run(averaging())
    check_sum(outcome, SITES)


def test_not_all_sites_need_be_asked(federation: Federation) -> None:
    (outcome,) = federation.run(averaging(num_clients=3))
    assert outcome.event.plan.clients == 3
    assert len(federation.replies) == 3 * 6
    check_sum(outcome, list(outcome.survivors))


def test_an_aborted_job_asks_for_nothing_more(federation: Federation) -> None:
    """The end of the job comes with an answer in the second phase."""

    def changed(site: str, count: int, reply: Shareable) -> Shareable:
        if count == 1:
            federation.abort.trigger(True)
        return reply

    federation.changed = changed
    assert federation.run(averaging()) == []
    assert federation.persistor.saved == 0


def test_a_site_that_is_not_in_the_roster_is_not_asked(federation: Federation) -> None:
    federation.server.components["sites"] = [*SITES, "stranger"]
    (outcome,) = federation.run(averaging())
    assert outcome.event.plan.clients == 4


def test_what_a_site_says_as_another_is_refused(federation: Federation) -> None:
    """NVFlare says from whom a result is, and the machine that the frame is another's."""
    said = dict[str, Shareable]()

    def changed(site: str, count: int, reply: Shareable) -> Shareable:
        said.setdefault(site, reply)
        return said["site-1"] if (site, count) == ("site-2", 0) else reply

    federation.changed = changed
    (outcome,) = federation.run(averaging())
    check_sum(outcome, ["site-1", "site-3", "site-4"])


@pytest.mark.parametrize("params", [{"w": np.ones(3)}, {"secagg_frame": np.ones(3)}, {"secagg_frame": b"x"}])
def test_what_is_no_frame_is_refused(federation: Federation, params: dict[str, Any]) -> None:
    federation.changed = instead("site-2", 0, FLModelUtils.to_shareable(FLModel(params=params)))
    (outcome,) = federation.run(averaging())
    check_sum(outcome, ["site-1", "site-3", "site-4"])


def test_who_lied_and_who_was_left_out_is_said(federation: Federation, caplog: pytest.LogCaptureFixture) -> None:
    no_frame = FLModel(params={"secagg_frame": np.zeros(3, np.uint8)})
    federation.changed = instead("site-2", 2, FLModelUtils.to_shareable(no_frame))
    (outcome,) = federation.run(averaging())
    check_sum(outcome, ["site-1", "site-3", "site-4"])
    line = "Round 0: caught lying: site-2; left out before the vectors were sent: site-2"
    assert sum(line in record.getMessage() for record in caplog.records) == 1


def test_a_model_that_is_not_of_numpy_arrays_ends_the_job(federation: Federation) -> None:
    federation.persistor.weights = {"w": [1.0, 2.0]}
    with pytest.raises(AssertionError, match="dictionary of numpy arrays"):
        federation.run(averaging())
