"""Rounds inside Flower, with dropouts in every phase, weights and metrics, under every protocol."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")

from flwr.app import Message
from flwr.serverapp.strategy import FedAvg

from protocols import registry
from protocols.adapters.form import Form
from protocols.parameters import ALLOWED
from protocols.plan import RoundPlan
from protocols.server import serve
from protocols.simulation.network import local_clients, simulate
from tests.protocols.adapters.flower.fake_flower import (
    CLIP,
    CLOCK,
    POLICY,
    config,
    federation,
    numpy,
    record,
)
from tests.protocols.adapters.flower.scene import (
    ALL,
    MODEL,
    PROTOCOLS,
    TRAIN,
    changes,
    check_exact,
    longer,
    one_round,
    secure,
)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.thinned(2)
def test_the_sum_is_the_one_that_simulate_gives(protocol: str, tmp_path: Path) -> None:
    policy = replace(POLICY, weight_bound=25)
    fed = federation(tmp_path, TRAIN, policy=policy)
    server = secure(fed, protocol=protocol, weight_bound=25, min_contributors=3)
    arrays, metrics = one_round(server, fed.grid)
    assert server.outcome is not None

    form = Form.of(MODEL, clip=CLIP, weight_bound=25, weight="num-examples")
    roster, clients = local_clients(5, policy)
    plan = RoundPlan.propose(protocol, roster, form.encoding, min_contributors=3, corrupt="0", dropout="0.4")
    updates, weights = changes(form), {f"client-{i}": min(10 * (i + 1), 25) for i in range(5)}
    simulated = simulate(serve(plan, roster), clients, updates.get, weights=weights).outcome
    assert server.outcome.total.tolist() == simulated.total.tolist()
    assert server.outcome.survivors == simulated.survivors

    total = simulated.decode()
    expected, _ = form.applied(MODEL, total.vector / total.weight)
    for name, array in numpy(arrays).items():
        assert (array.dtype, array.shape) == (MODEL[name].dtype, MODEL[name].shape)
        np.testing.assert_array_equal(array, expected[name])
    assert dict(metrics) == {}


def test_a_protocol_is_chosen_and_the_log_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fed = federation(tmp_path, TRAIN)
    with caplog.at_level("INFO", logger="flwr"):
        server = secure(fed, protocol="auto")
        one_round(server, fed.grid)
    check_exact(server, ALL)
    assert server.outcome is not None
    taken = server.outcome.event.plan.protocol
    assert taken in ALLOWED
    assert [text for one in caplog.records if (text := one.getMessage()).startswith(f"secagg: auto takes {taken}, ")]


FATES = ["lost", "unheard", "failed", "crashed"]


@pytest.mark.thinned(4)
@pytest.mark.parametrize(
    ("exchange", "fate"),
    [(now, fate) if number == now % 4 else longer(now, fate) for now in range(6) for number, fate in enumerate(FATES)],
)
def test_a_dropout_in_every_phase(exchange: int, fate: str, tmp_path: Path) -> None:
    """By default one of the four fates in each phase, and each of them in some phase; all four in each otherwise."""
    fed = federation(tmp_path, TRAIN)
    fed.grid.fate = lambda now, node: fate if (now, node) == (exchange, 102) else ""
    server = secure(fed)
    one_round(server, fed.grid)
    check_exact(server, ALL - ({"client-2"} if exchange <= 3 else set()))
    fed.grid.fate = lambda now, node: ""
    one_round(server, fed.grid, number=2)  # and it is there again in the next round
    check_exact(server, ALL)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_dropouts_under_every_protocol(protocol: str, tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)
    steps = registry.find(protocol).server.steps
    upload = [str(phase) for phase in steps if not steps[phase].optional].index("upload")
    fed.grid.fate = lambda now, node: {(upload, 101): "lost", (upload + 1, 103): "lost"}.get((now, node), "")
    server = secure(fed, protocol=protocol)
    one_round(server, fed.grid)
    check_exact(server, ALL - {"client-1"})


def test_replies_are_taken_when_they_come_until_time_is_up(tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)
    server = secure(fed, timeout=20.0)
    fed.grid.delay = lambda now, node: {(1, 101): 19.0, (2, 102): 21.0}.get((now, node), 0.3)
    began = CLOCK.now
    one_round(server, fed.grid)
    check_exact(server, ALL - {"client-2"})
    # 19 s for client 1, 20 s for client 2, 0.3 s in the last three: what is too late is one look, a tenth or a second
    assert 39.9 <= CLOCK.now - began <= 39.9 * 1.1
    assert min(CLOCK.slept) <= 0.01
    assert max(CLOCK.slept) <= 1.0
    assert len(CLOCK.slept) < 250


def test_a_message_that_flower_does_not_take_is_not_waited_for(tmp_path: Path) -> None:
    """A SuperLink says None for it."""
    fed = federation(tmp_path, TRAIN)
    push = fed.grid.push_messages

    def taken(messages: Iterable[Message]) -> Any:
        first, *others = messages
        return [None, *push(others)] if fed.grid.exchange == 1 else push([first, *others])

    fed.grid.push_messages = taken  # type: ignore[method-assign]
    server, began = secure(fed), CLOCK.now
    one_round(server, fed.grid)
    assert server.outcome is not None
    assert len(server.outcome.survivors) == 4
    assert CLOCK.now == began


def test_too_few_left_gives_nothing_and_the_next_round_runs(tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)
    fed.grid.fate = lambda now, node: "lost" if now == 2 and node >= 102 else ""
    server = secure(fed)
    assert one_round(server, fed.grid) == (None, None)
    assert server.outcome is None
    fed.grid.fate = lambda now, node: ""
    one_round(server, fed.grid, number=2)
    check_exact(server, ALL)


def test_too_few_asked_is_not_begun(tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)
    server = secure(fed, min_contributors=4, strategy=FedAvg(fraction_train=0.6))
    assert list(server.configure_train(1, record(MODEL), config(), fed.grid)) == []
    assert server.aggregate_train(1, []) == (None, None)


# Weights and metrics


def test_weights_and_metrics_under_the_mask(tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN, policy=replace(POLICY, weight_bound=25))
    server = secure(fed, weight_bound=25, metrics={"loss": 10.0})
    _, metrics = one_round(server, fed.grid)
    assert server.outcome is not None
    weights = [10, 20, 25, 25, 25]  # the largest two are bounded
    assert server.outcome.decode().weight == sum(weights)
    expected = sum(weight * (1.0 + i) for i, weight in enumerate(weights)) / sum(weights)
    assert dict(metrics) == {"loss": pytest.approx(expected, abs=1e-3)}
