"""Rounds with noise: what is charged to whose ledger, and the count of failures."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")


from dp.ledger import Ledger
from protocols.adapters.flower.client import SecAgg
from protocols.adapters.flower.messages import frame_in
from protocols.adapters.form import Form
from protocols.plan import RoundPlan
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.protocols.adapters.flower.fake_flower import (
    config,
    federation,
    numpy,
    record,
)
from tests.protocols.adapters.flower.scene import (
    FAILURES,
    NOISY,
    PRIVATE_MODEL,
    PRIVATE_TRAIN,
    TRAIN,
    changes,
    new_ledger,
    one_round,
    private,
    refusals,
    secure,
)


def test_a_private_round_is_noised_charged_and_divided_by_the_plan(tmp_path: Path) -> None:
    fed = federation(tmp_path, PRIVATE_TRAIN, policy=NOISY)
    fed.grid.fate = lambda now, node: "lost" if (now, node) == (2, 102) else ""
    server, ledger = private(fed, tmp_path, rounds=2)
    arrays, metrics = one_round(server, fed.grid, PRIVATE_MODEL)
    assert list(metrics) == ["failed"]
    assert server.outcome is not None
    assert len(server.outcome.survivors) == 4
    assert [entry["phase"] for entry in ledger.entries()] == ["genesis", "reserve", "commit"]
    total = server.outcome.decode().vector[:-1]  # the last counts failures
    np.testing.assert_allclose(numpy(arrays)["w"], total / 5)  # not 4: the denominator says nothing about who was there

    form = Form.of(PRIVATE_MODEL, clip=20.0)
    updates = changes(form, PRIVATE_TRAIN, PRIVATE_MODEL)
    assert metrics["failed"] == pytest.approx(server.outcome.decode().vector[-1] / 5 / (0.25 * 20.0))
    error = total - sum(updates[name] for name in server.outcome.survivors)
    plan = server.outcome.event.plan
    assert plan.noise is not None
    deviation = float(plan.noise.variance) ** 0.5 / plan.encoding.scale
    # 300 coordinates: the root mean square is off by a factor of 2 with probability far below 1e-9
    assert 0.5 * deviation < float(np.sqrt(np.square(error).mean())) < 2 * deviation


def test_failures_are_counted_under_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients 0 and 1 fail. What they put in, before the noise, is one at the last place, and nothing else."""
    added = list[NDArray[np.float64]]()
    encode = RoundPlan.encode_update

    def kept(plan: RoundPlan, update: Any, *rest: Any) -> Any:
        values = encode(plan, update, *rest)
        added.append(plan.decode_total(values, 1).vector)
        return values

    monkeypatch.setattr(RoundPlan, "encode_update", kept)
    fed = federation(
        tmp_path, lambda partition, model: (FAILURES["NaN"] if partition < 2 else PRIVATE_TRAIN)(partition, model)
    )
    server, _ = private(fed, tmp_path, rounds=1)
    _, metrics = one_round(server, fed.grid, PRIVATE_MODEL)
    assert server.outcome is not None
    assert len(server.outcome.survivors) == 5
    share, scale = 0.25 * 20.0, server.outcome.event.plan.encoding.scale
    counts = sorted((round(abs(vector[-1]) / share, 1), np.abs(vector[:-1]).max() < 0.5) for vector in added)
    assert counts == [(0.0, False)] * 3 + [(1.0, True)] * 2
    plan = server.outcome.event.plan
    assert plan.noise is not None
    deviation = float(plan.noise.variance) ** 0.5 / scale / share / 5
    assert abs(metrics["failed"] - 0.4) < 8 * deviation  # beyond 8 deviations: probability below 1e-14


def test_when_the_budget_is_spent_nobody_is_asked(tmp_path: Path) -> None:
    fed = federation(tmp_path, PRIVATE_TRAIN, policy=NOISY)
    server, ledger = private(fed, tmp_path, rounds=1)
    assert one_round(server, fed.grid, PRIVATE_MODEL)[0] is not None
    spent = ledger.epsilon
    assert list(server.configure_train(2, record(PRIVATE_MODEL), config(), fed.grid)) == []
    assert server.aggregate_train(2, []) == (None, None)
    assert ledger.epsilon == spent


def test_a_client_keeps_its_own_budget(tmp_path: Path) -> None:
    fed = federation(tmp_path, PRIVATE_TRAIN, policy=NOISY, journals=True)
    for number, epsilon in ((0, 8), (1, 1)):
        path = tmp_path / f"{number}.ledger"
        new_ledger(path, fed.identities[number], epsilon).close()
        fed.grid.nodes[100 + number].config["secagg-ledger"] = str(path)
    server, _ = private(fed, tmp_path, rounds=1)
    one_round(server, fed.grid, PRIVATE_MODEL)
    assert server.outcome is not None
    assert server.outcome.survivors == ("client-0", "client-2", "client-3", "client-4")
    [refused] = [reply for reply in fed.grid.said if reply.has_error()]
    assert "BudgetError" in str(refused.error)
    assert Ledger.open(tmp_path / "0.ledger", fed.identities[0].key).epsilon > 1


def test_a_budget_needs_a_journal_on_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``context.state`` remembers, a server makes it forget: it says which series a run belongs to. Control: the
    client itself does not believe in such a journal either."""

    def said(folder: Path) -> str:
        folder.mkdir()
        fed = federation(folder, PRIVATE_TRAIN, policy=NOISY)
        new_ledger(folder / "0.ledger", fed.identities[0]).close()
        fed.grid.nodes[100].config["secagg-ledger"] = str(folder / "0.ledger")
        server, ledger = private(fed, folder, rounds=1)
        one_round(server, fed.grid, PRIVATE_MODEL)
        assert server.outcome is not None
        assert "client-0" not in server.outcome.survivors
        ledger.close()
        return refusals(caplog)[-1]

    assert "a secagg-ledger needs a secagg-journal" in said(tmp_path / "one")
    switch_off(monkeypatch, SecAgg, "_journal", "self._path(context, 'ledger')")
    assert "pass journal=SqliteJournal(path)" in said(tmp_path / "other")


def test_a_node_in_its_next_run_is_charged_for_no_second_release(tmp_path: Path) -> None:
    """Its state is gone, its journal is not: asked once more for the same plan, it repeats its last words."""
    fed = federation(tmp_path, PRIVATE_TRAIN, policy=NOISY, journals=True)
    node, path = fed.grid.nodes[100], tmp_path / "0.ledger"
    new_ledger(path, fed.identities[0]).close()
    node.config["secagg-ledger"] = str(path)
    fed.grid.fate = lambda now, number: "lost" if (now, number) == (4, 100) else ""  # it does not hear whose sum it is
    server, ledger = private(fed, tmp_path, rounds=1)
    one_round(server, fed.grid, PRIVATE_MODEL)
    assert server.outcome is not None
    assert "client-0" in server.outcome.survivors
    first = next(message for message in fed.grid.sent if message.metadata.dst_node_id == 100)
    said = [reply for reply in fed.grid.said if not reply.has_error() and reply.metadata.src_node_id == 100]
    node.state = b""
    again = node.handle(first, 100)
    assert frame_in(again.content) == frame_in(said[-1].content)
    with closing(Ledger.open(path, fed.identities[0].key)) as own:
        assert [entry["phase"] for entry in own.entries()] == ["genesis", "reserve"]
    ledger.close()


def test_clients_that_want_noise_refuse_a_plan_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fed = federation(tmp_path, TRAIN, policy=NOISY)
    assert one_round(secure(fed), fed.grid) == (None, None)
    assert len(refusals(caplog)) == 5
    assert all("less noise" in text for text in refusals(caplog))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"ledger": None}, "charged to a ledger"),
        ({"privacy": None}, "charged to a ledger"),
        ({"weight_bound": 2}, "every client counts once"),
    ],
)
def test_privacy_that_makes_no_sense(given: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        private(federation(tmp_path, TRAIN), tmp_path, rounds=1, **given)
