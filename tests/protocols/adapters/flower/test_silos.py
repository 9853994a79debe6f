"""Flower nodes that are silos: one bounded vector for each user, and the sum of them all.

Three silos with four users each. The scale is 1, so the sums are worked out here to the last bit.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto
from flwr.serverapp.strategy import FedAvg

from dp.calibrate import user_level
from dp.events import Holder, Relation
from dp.ledger import Ledger
from protocols.adapters.flower import EachUser, Privacy, SecAgg, Secure, Silos, Trainings
from protocols.adapters.flower.messages import frame_in
from protocols.adapters.form import FORM, Form
from protocols.policy import Policy
from protocols.roster import Identity
from secagg.errors import UsageError
from tests.protocols.adapters.flower.fake_flower import CLIP, POLICY, Federation, config, federation, numpy, record
from tests.protocols.adapters.flower.scene import PROTOCOLS, budget, longer, one_round, refusals

MODEL: dict[str, NDArray[Any]] = {"w": np.zeros((2, 3)), "b": np.array(2.0)}
SILOS = Silos(most=4, total=12)
SILO = replace(POLICY, weight_bound=1, users=4, min_contributors=2)
RULES: dict[str, Any] = {"clip": CLIP, "min_contributors": 2, "corrupt": "0", "dropout": "0.34", "silos": SILOS}

Answer = Callable[[int, Message], Message]
"""What the train function of this silo replies with."""


def change(silo: int, user: int) -> NDArray[np.float64]:
    """What this user's training adds to each coordinate of the model."""
    return np.random.default_rng([silo, user]).integers(-9, 10, 7).astype(np.float64)


def user_arrays(silo: int, user: int) -> dict[str, NDArray[Any]]:
    step = change(silo, user)
    return {"w": MODEL["w"] + step[:6].reshape(2, 3), "b": MODEL["b"] + step[6]}


def stacked(silo: int, message: Message, users: int = 4) -> Message:
    each = [user_arrays(silo, user) for user in range(users)]
    arrays = record({name: np.stack([one[name] for one in each]) for name in MODEL})
    metrics = MetricRecord({"loss": [float(silo + user) for user in range(users)]})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def one_by_one(silo: int, message: Message) -> Message:
    trainings = Trainings(4, lambda user: (user_arrays(silo, user), {"loss": float(silo + user)}))
    return EachUser(trainings, reply_to=message)


def silos(folder: Path, answer: Answer = stacked, *, policy: Policy = SILO, journals: bool = False) -> Federation:
    def made() -> ClientApp:
        app = ClientApp()

        @app.train("secagg", mods=[SecAgg(policy)])
        def train(message: Message, context: Context) -> Message:
            return answer(int(context.node_config["partition-id"]), message)

        return app

    fed = federation(folder, lambda partition, model: (model, {}), count=3, journals=journals)
    for node in fed.grid.nodes.values():
        node.app = made
    return fed


def secure(fed: Federation, **changes: Any) -> Secure:
    return Secure(FedAvg(fraction_evaluate=0.0), fed.roster, **(RULES | changes))


def check_exact(server: Secure, arrays: Any, left_out: tuple[tuple[int, int], ...] = ()) -> None:
    assert server.outcome is not None
    assert len(server.outcome.survivors) == 3
    users = [(silo, user) for silo in range(3) for user in range(4) if (silo, user) not in left_out]
    total = sum(change(*one) for one in users)
    assert server.outcome.total.tolist()[:7] == total.tolist()  # type: ignore[union-attr]
    np.testing.assert_array_equal(numpy(arrays)["w"], MODEL["w"] + total[:6].reshape(2, 3) / 12)


@pytest.mark.parametrize("answer", [stacked, one_by_one])
@pytest.mark.parametrize("protocol", [one if one in ("secagg+", "oneshot") else longer(one) for one in PROTOCOLS])
def test_the_sum_is_of_all_users_changes_over_their_declared_number(
    protocol: str, answer: Answer, tmp_path: Path
) -> None:
    fed = silos(tmp_path, answer)
    server = secure(fed, protocol=protocol)
    arrays, _ = one_round(server, fed.grid, MODEL)
    check_exact(server, arrays)
    for reply in fed.grid.said:  # nothing else leaves a silo
        assert set(reply.content) == {"secagg", "secagg.frame.0"}


def test_metrics_are_means_over_the_declared_number_of_users(tmp_path: Path) -> None:
    fed = silos(tmp_path)
    _, metrics = one_round(secure(fed, metrics={"loss": 10.0}), fed.grid, MODEL)
    assert dict(metrics) == {"loss": pytest.approx((0 + 1 + 2) / 3 + (0 + 1 + 2 + 3) / 4, abs=1e-2)}


def test_a_silo_that_is_missing_does_not_change_what_the_sum_is_divided_by(tmp_path: Path) -> None:
    fed = silos(tmp_path)
    fed.grid.fate = lambda now, node: "lost" if (now, node) == (2, 102) else ""
    server = secure(fed)
    arrays, _ = one_round(server, fed.grid, MODEL)
    total = sum(change(silo, user) for silo in range(2) for user in range(4))
    np.testing.assert_array_equal(numpy(arrays)["w"], MODEL["w"] + total[:6].reshape(2, 3) / 12)  # type: ignore[index]


def test_one_users_enormous_update_moves_the_model_by_one_clip(tmp_path: Path) -> None:
    def answer(silo: int, message: Message) -> Message:
        def train(user: int) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
            enormous = {"w": MODEL["w"] + 1e300, "b": MODEL["b"]}
            return enormous if (silo, user) == (1, 2) else user_arrays(silo, user), {}

        return EachUser(Trainings(4, train), reply_to=message)

    fed = silos(tmp_path, answer)
    server = secure(fed, clip=60.0)
    arrays, _ = one_round(server, fed.grid, MODEL)
    others = sum(change(silo, user) for silo in range(3) for user in range(4) if (silo, user) != (1, 2))
    moved = 12 * numpy(arrays)["w"] - others[:6].reshape(2, 3)  # type: ignore[index]
    np.testing.assert_allclose(moved, 60 / np.sqrt(6), atol=0.1)  # 12 users, each rounded to a step of 0.002


def test_a_user_that_fails_is_zeros_and_nobody_sees_whose_training_it_was(tmp_path: Path) -> None:
    def not_a_number(silo: int, message: Message) -> Message:
        reply = stacked(silo, message)
        if silo == 1:
            arrays = numpy(reply.content.array_records["arrays"])
            broken = arrays["w"].copy()
            broken[2, 0, 0] = np.nan
            reply.content["arrays"] = record(arrays | {"w": broken})
        return reply

    shapes = []
    for name, answer, left_out in (("fine", stacked, ()), ("failed", not_a_number, ((1, 2),))):
        (folder := tmp_path / name).mkdir()
        fed = silos(folder, answer)
        server = secure(fed)
        arrays, _ = one_round(server, fed.grid, MODEL)
        check_exact(server, arrays, left_out)
        said = [reply for reply in fed.grid.said if reply.metadata.src_node_id == 101]
        shapes.append([(message_to_proto(reply).ByteSize(), len(frame_in(reply.content))) for reply in said])
    assert shapes[0] == shapes[1]


def too_many(silo: int, message: Message) -> Message:
    return stacked(silo, message, users=5)


def unequal(silo: int, message: Message) -> Message:
    reply = stacked(silo, message)
    reply.content["arrays"] = record(numpy(reply.content.array_records["arrays"]) | {"b": np.zeros(3)})
    return reply


def one_for_all(silo: int, message: Message) -> Message:
    return Message(RecordDict({"arrays": record(user_arrays(silo, 0))}), reply_to=message)


def more_lazily(silo: int, message: Message) -> Message:
    return EachUser(Trainings(5, lambda user: (user_arrays(silo, user), {})), reply_to=message)


@pytest.mark.parametrize("bad", [too_many, longer(more_lazily), unequal, longer(one_for_all)])
def test_a_silo_that_answers_for_too_many_or_in_other_shapes_is_zeros(
    bad: Answer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And its node's log says so; the server sees nothing of it."""
    fed = silos(tmp_path, lambda silo, message: (bad if silo == 1 else stacked)(silo, message))
    server = secure(fed)
    arrays, _ = one_round(server, fed.grid, MODEL)
    check_exact(server, arrays, tuple((1, user) for user in range(4)))
    assert "all users count as nothing" in caplog.text or bad is one_for_all
    assert not any(reply.has_error() for reply in fed.grid.said)


@pytest.mark.parametrize(
    ("policy", "given"),
    [
        (SILO, {"silos": None}),  # the silo itself as the unit: each user would be protected k times worse
        (SILO, {"silos": Silos(5, 12)}),
        longer(SILO, {"silos": Silos(3, 12)}),
        (replace(SILO, overlap=2), {"silos": SILOS}),
        longer(SILO, {"silos": Silos(4, 12, overlap=2)}),
        longer(replace(SILO, users=0), {"silos": SILOS}),
    ],
)
def test_a_plan_for_other_units_than_the_silos_own_is_refused_before_it_trains(
    policy: Policy, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = list[int]()

    def answer(silo: int, message: Message) -> Message:
        trained.append(silo)
        return stacked(silo, message)

    fed = silos(tmp_path, answer, policy=policy)
    server = secure(fed, **given)
    assert one_round(server, fed.grid, MODEL) == (None, None)
    assert all("PolicyError" in str(reply.error) for reply in fed.grid.said)
    assert trained == []
    monkeypatch.setattr(Policy, "check", lambda self, plan, roster: None)
    one_round(server, fed.grid, MODEL, number=2)
    assert sorted(trained) == [0, 1, 2]  # control


@pytest.mark.parametrize("other", [longer({"users": 3}), {"users": 0}, {"users": 4, "overlap": 2}])
def test_a_form_for_other_units_than_the_plans_is_refused(
    other: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is what is paid for, the form is what the silo trains by."""
    trained = list[int]()

    def answer(silo: int, message: Message) -> Message:
        trained.append(silo)
        return stacked(silo, message)

    def asked(number: int) -> Message:
        first = next(iter(secure(fed).configure_train(number, record(MODEL), config(), fed.grid)))
        first.content.config_records["secagg"]["form"] = FORM.encode(Form.of(MODEL, clip=CLIP, **other))
        reply = fed.grid.carry(first)
        assert reply is not None
        return reply

    fed = silos(tmp_path, answer)
    assert "PolicyError" in str(asked(1).error)
    assert trained == []
    monkeypatch.setattr(Form, "check_plan", lambda self, *given, **more: None)
    asked(2)
    assert len(trained) == 1  # control


# Noise


WIDE = {"w": np.zeros(300)}


def wide_answer(silo: int, message: Message) -> Message:
    return EachUser(Trainings(4, lambda user: ({"w": np.full(300, 0.01 * user)}, {})), reply_to=message)


def silo_ledger(path: Path, identity: Identity, epsilon: int = 8, holder: Holder = Holder.SILO) -> Ledger:
    guarantee = user_level(Relation.ZERO_OUT, holder)
    return Ledger.create(path, identity.key, budget(epsilon), guarantee, run="test", elsewhere="evaluation")


def private(fed: Federation, ledger: Ledger, rounds: int = 1) -> Secure:
    privacy = Privacy(epsilon=8, delta=1e-3, rounds=rounds)
    return secure(fed, privacy=privacy, ledger=ledger, clip=20.0)


def test_a_private_round_is_charged_to_ledgers_of_users_inside_silos(tmp_path: Path) -> None:
    fed = silos(tmp_path, wide_answer, policy=replace(SILO, noise_multiplier=0.4), journals=True)
    own = tmp_path / "own.ledger"
    silo_ledger(own, fed.identities[0]).close()
    fed.grid.nodes[100].config["secagg-ledger"] = str(own)
    with closing(silo_ledger(tmp_path / "server.ledger", Identity.generate("server"))) as ledger:
        server = private(fed, ledger)
        _, metrics = one_round(server, fed.grid, WIDE)
        assert server.outcome is not None
        plan = server.outcome.event.plan
        assert plan.noise is not None
        assert (plan.encoding.users, plan.encoding.overlap) == (4, 1)
        assert plan.noise.colluders == 1  # a silo knows its own noise, however few there are
        assert plan.noise.dropouts == 1
        assert [entry["phase"] for entry in ledger.entries()] == ["genesis", "reserve", "commit"]
        assert ledger.epsilon <= 8
        error = server.outcome.decode().vector[:300] - 0.01 * (0 + 1 + 2 + 3) * 3
        deviation = float(plan.noise.variance) ** 0.5 / plan.encoding.scale
        # 300 coordinates: the root mean square is off by a factor of 2 with probability far below 1e-9
        assert 0.5 * deviation < float(np.sqrt(np.square(error).mean())) < 2 * deviation
        assert "failed" in metrics
    with closing(Ledger.open(own, fed.identities[0].key)) as mine:
        assert [entry["phase"] for entry in mine.entries()] == ["genesis", "reserve", "commit"]


def test_a_ledger_for_clients_as_units_takes_no_sum_over_silos(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the server's nor a silo's own."""
    fed = silos(tmp_path, wide_answer, policy=replace(SILO, noise_multiplier=0.4), journals=True)
    own = tmp_path / "own.ledger"
    silo_ledger(own, fed.identities[0], holder=Holder.DEVICE).close()
    fed.grid.nodes[100].config["secagg-ledger"] = str(own)
    with closing(silo_ledger(tmp_path / "server.ledger", Identity.generate("server"))) as ledger:
        one_round(server := private(fed, ledger), fed.grid, WIDE)
        assert server.outcome is not None
        assert server.outcome.survivors == ("client-1", "client-2")
    assert any("a silo holds each unit of the sum" in text for text in refusals(caplog))
    with (
        closing(silo_ledger(tmp_path / "2.ledger", Identity.generate("server"), holder=Holder.DEVICE)) as ledger,
        pytest.raises(UsageError, match="a silo holds each unit of the sum"),
    ):
        one_round(private(fed, ledger), fed.grid, WIDE, number=2)


def test_weights_make_no_sense_in_silos(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="every user counts once"):
        secure(silos(tmp_path), weight_bound=2)
