"""Real ClientApps, messages, contexts and strategies of Flower in one process; only the wires are made up.

``fake_flower.Node`` gives each message to a new process, as it were: whatever passes here survives a restart between
any two messages.
"""

import io
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from copy import copy
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import context_from_proto, message_to_proto
from flwr.proto.message_pb2 import Context as ProtoContext
from flwr.serverapp import strategy as flower_strategies
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy

from dp.calibrate import user_level
from dp.events import Relation
from dp.ledger import Budget, Ledger
from protocols import registry
from protocols.adapters import flower, flower_state
from protocols.adapters.flower import MESSAGE_TYPE, Privacy, SecAgg, Secure, only_secagg
from protocols.adapters.flower_state import KeptVector, StateJournal
from protocols.adapters.form import Form
from protocols.journal import MemoryJournal
from protocols.pairwise.messages import Verdict
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.sets import to_bitmap
from protocols.server import serve
from protocols.simulation.network import local_clients, simulate
from secagg.crypto.ring import Ring
from secagg.errors import DecodeError, PeerError, PolicyError, UsageError
from tests.adversarial.attack import switch_off
from tests.protocols.adapters.fake_flower import (
    CLIP,
    CLOCK,
    POLICY,
    Fakegrid,
    Federation,
    Node,
    Train,
    app_of,
    config,
    federation,
    integer_training,
    numpy,
    record,
)

MODEL: dict[str, NDArray[Any]] = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array(2.0),
    "n": np.array([3, 4]),
    "u": np.array([[100]], np.uint8),
    "nothing": np.empty((0, 4), np.float32),
}
TRAIN = integer_training(MODEL, 1)
RULES: dict[str, Any] = {"clip": CLIP, "min_contributors": 3, "corrupt": "0", "dropout": "0.4"}
"""Three of five are enough."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for replies takes no time."""
    CLOCK.slept.clear()
    monkeypatch.setattr(flower, "monotonic", CLOCK.monotonic)
    monkeypatch.setattr(flower, "sleep", CLOCK.sleep)


def installed(name: str) -> Any:
    try:
        serve(*_any_plan(name))
    except ImportError:
        return pytest.param(name, marks=pytest.mark.skip(reason=f"NOT TESTED: {name} needs its extra"))
    except UsageError as error:
        return pytest.param(name, marks=pytest.mark.skip(reason=f"NOT TESTED: {error}"))
    return name


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the nodes' own logs say of the messages that they refused."""
    return [text for record in caplog.records if re.match(r"secagg: \w+Error: ", text := record.getMessage())]


def _any_plan(name: str) -> tuple[RoundPlan, Roster]:
    roster = Roster.of([Identity.generate(f"c{i}") for i in range(5)])
    form = Form.of(MODEL, clip=CLIP)
    return RoundPlan.propose(name, roster, form.encoding, min_contributors=3, corrupt="0", dropout="0.4"), roster


PROTOCOLS = [installed(name) for name in registry.names()]


def secure(fed: Federation, **changes: Any) -> Secure:
    strategy = changes.pop("strategy", None) or FedAvg(fraction_evaluate=0.0)
    return Secure(strategy, fed.roster, **(RULES | changes))


def one_round(server: Secure, grid: Fakegrid, model: Mapping[str, NDArray[Any]] = MODEL, number: int = 1) -> Any:
    grid.exchange = 0
    replies = grid.send_and_receive(server.configure_train(number, record(dict(model)), config(), grid))
    return server.aggregate_train(number, replies)


def changes(
    form: Form, train: Train = TRAIN, model: dict[str, NDArray[Any]] = MODEL, count: int = 5
) -> dict[str, NDArray[np.float64]]:
    """What each client's training comes to, worked out here."""
    return {f"client-{i}": form.change(model, *train(i, dict(model))) for i in range(count)}


def check_exact(server: Secure, survivors: set[str], weights: Mapping[str, int] | None = None) -> None:
    """The sum is that of the survivors, to the last bit."""
    outcome = server.outcome
    assert outcome is not None
    assert set(outcome.survivors) == survivors
    updates = changes(Form.of(MODEL, clip=CLIP))
    expected = sum((weights or {}).get(name, 1) * updates[name] for name in survivors)
    assert outcome.total[: len(expected)].tolist() == [int(value) for value in expected]  # type: ignore[arg-type]


ALL = {f"client-{i}" for i in range(5)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
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


def longer(*values: Any) -> Any:
    """What ``make test-long`` alone looks at."""
    return pytest.param(*values, marks=pytest.mark.long)


FATES = ["lost", "unheard", "failed", "crashed"]


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


# What leaves a client


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_arrays_and_no_metrics_in_any_reply(protocol: str, tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)
    one_round(secure(fed, protocol=protocol, metrics={"loss": 10.0}, weight_bound=100), fed.grid)
    assert len(fed.grid.said) >= 4 * 5
    for reply in fed.grid.said:
        assert set(reply.content) == {"secagg", "secagg.frame.0"}
        assert set(reply.content.config_records["secagg"]) == {"name", "chunks"}
        assert not reply.content.array_records
        assert not reply.content.metric_records


def test_without_the_mod_nothing_is_uploaded_in_clear(tmp_path: Path) -> None:
    """Flower knows no function of that name there. Control: asked for an ordinary ``train``, it would upload."""
    fed, app = federation(tmp_path, TRAIN), ClientApp()

    @app.train()
    def plain(message: Message, context: Context) -> Message:
        return Message(RecordDict({"arrays": record(MODEL)}), reply_to=message)

    [message, *_] = secure(fed).configure_train(1, record(MODEL), config(), fed.grid)
    node = Node({}, lambda: app)
    with pytest.raises(ValueError, match="No train function registered with name 'secagg'"):
        node.handle(message, 1)
    clear = Message(message.content, dst_node_id=1, message_type="train")
    assert node.handle(clear, 1).content.array_records  # control


SECRET = 12345.678


class Panic(BaseException):
    """What Rust code raises into Python when it fails (pyo3): no ``Exception``."""


def raising(error: BaseException) -> Train:
    def train(partition: int, model: dict[str, NDArray[Any]]) -> Any:
        raise error

    return train


def with_metrics(**metrics: Any) -> Train:
    return lambda partition, model: (TRAIN(partition, model)[0], metrics)


def with_all(value: float) -> Train:
    return lambda partition, model: ({name: np.full(array.shape, value) for name, array in model.items()}, {})


FAILURES: dict[str, Train] = {
    "an exception": raising(ValueError(f"bad value {SECRET}")),
    "an exception of ours": raising(PolicyError(f"bad value {SECRET}")),
    "an exit": raising(SystemExit(f"bad value {SECRET}")),
    "a panic of Rust code, which is no Exception": raising(Panic(f"bad value {SECRET}")),
    "NaN": with_all(np.nan),
    "infinite": with_all(-np.inf),
    "another shape": lambda partition, model: (model | {"w": np.full((9, 9), SECRET)}, {}),
    "another name": lambda partition, model: (model | {"x": np.full(2, SECRET)}, {}),
    "complex": lambda partition, model: (model | {"w": model["w"] * 1j}, {}),
    "no answer": lambda partition, model: 3,
}
WEIGHTS: dict[str, Train] = {
    "no weight": with_metrics(loss=1.0),
    "a list": with_metrics(**{"num-examples": [3], "loss": 1.0}),
    **{
        f"{value} times": with_metrics(**{"num-examples": value, "loss": 1.0}) for value in (0, -3, 1.5, np.nan, np.inf)
    },
}


def seen(folder: Path, odd: Train, **changes: Any) -> tuple[Secure, list[Any], list[Message]]:
    """A round in which client 0 trains oddly; what the server sees of each message from it: whether it is an error,
    the records, and all sizes. Then the messages themselves."""
    folder.mkdir()
    fed = federation(folder, lambda partition, model: (odd if partition == 0 else TRAIN)(partition, model))
    server = secure(fed, **changes)
    one_round(server, fed.grid)
    said = [reply for reply in fed.grid.said if reply.metadata.src_node_id == 100]
    shapes = [
        (reply.has_error(), message_to_proto(reply).ByteSize())
        + ((sorted(reply.content), len(flower._joined(reply.content))) if reply.has_content() else ())
        for reply in said
    ]
    return server, shapes, said


WEIGHED: dict[str, Any] = {"weight_bound": 100, "metrics": {"loss": 10.0}}


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """What the server sees when nothing fails: without weights and with."""
    folder = tmp_path_factory.mktemp("fine")
    return [seen(folder / str(i), TRAIN, **options)[1] for i, options in enumerate(({}, WEIGHED))]


@pytest.mark.parametrize("what", [longer(what) if what in ("infinite", "another name") else what for what in FAILURES])
def test_nobody_sees_whose_training_failed(
    what: str, fine: list[list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends messages of the same kind and length in each phase, and zeros. Control: it would be missed.

    By default NaN stands for what is not finite, and another shape for arrays that do not fit.
    """
    server, shapes, said = seen(tmp_path / "failed", FAILURES[what])
    assert shapes == fine[0]
    assert "12345" not in str(said)
    check_exact(server, ALL, {"client-0": 0})

    switch_off(monkeypatch, flower, "_trained", "BaseException", "ZeroDivisionError")
    try:
        control = seen(tmp_path / "control", FAILURES[what])[1]
    except (ValueError, SystemExit, AttributeError, TypeError, Panic):  # Flower puts the text into its error message
        return
    assert control != shapes


ALIKE = ("-3 times", "1.5 times", "inf times")


@pytest.mark.parametrize("what", [longer(what) if what in ALIKE else what for what in WEIGHTS])
def test_nobody_sees_whose_weight_makes_no_sense(what: str, fine: list[list[Any]], tmp_path: Path) -> None:
    """And the mean is over those who did report one. By default two of five numbers that make no sense: 0 and NaN."""
    server, shapes, _ = seen(tmp_path / "failed", WEIGHTS[what], **WEIGHED)
    assert shapes == fine[1]
    assert server.outcome is not None
    assert set(server.outcome.survivors) == ALL
    assert server.outcome.decode().weight == 20 + 30 + 40 + 50


def test_a_metric_that_one_client_alone_reports_does_not_select_it(tmp_path: Path) -> None:
    """What cannot be measured counts as 0, and the change counts all the same: the sum is over all."""
    server, _, _ = seen(tmp_path / "round", with_metrics(rare=1.0), metrics={"rare": 1.0})
    assert server.outcome is not None
    form = Form.of(MODEL, clip=CLIP, metrics={"rare": 1.0})
    total = server.outcome.decode()
    updates = changes(Form.of(MODEL, clip=CLIP))
    np.testing.assert_allclose(total.vector[: form.size], sum(updates[name] for name in ALL), atol=5)  # rounding
    assert form.applied(MODEL, total.vector / 5)[1]["rare"] == pytest.approx(0.2, abs=1e-3)


def test_a_round_in_which_nobody_has_anything_changes_nothing(tmp_path: Path) -> None:
    fed = federation(tmp_path, with_all(np.nan))
    server = secure(fed, weight_bound=100)
    assert one_round(server, fed.grid) == (None, None)
    assert server.outcome is not None
    assert not server.outcome.total.any()


def test_an_error_of_the_train_function_is_not_passed_on(tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)
    app = ClientApp()

    @app.train("secagg", mods=[SecAgg(POLICY)])
    def failing(message: Message, context: Context) -> Message:
        return Message(Error(1, "12345 was in the data"), reply_to=message)

    fed.grid.nodes[100].app = lambda: app
    server = secure(fed)
    one_round(server, fed.grid)
    assert not any(reply.has_error() for reply in fed.grid.said)
    assert "12345" not in str(fed.grid.said)
    check_exact(server, ALL, {"client-0": 0})


def test_no_text_of_an_error_leaves_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may name paths, what has been spent, what this client demands. Control: it would be sent."""

    def failing(count: int) -> bytes:
        raise OSError("no randomness")

    def said(folder: Path) -> str:
        folder.mkdir()
        fed = federation(folder, PRIVATE_TRAIN, policy=NOISY)
        nodes = fed.grid.nodes
        nodes[100].config["secagg-identity"] = str(folder / "missing.key")
        nodes[101].config["secagg-journal"] = str(folder / "no" / "folder.db")
        new_ledger(folder / "2.ledger", fed.identities[2], 1).close()
        nodes[102].config["secagg-ledger"] = str(folder / "2.ledger")
        nodes[102].config["secagg-journal"] = str(folder / "2.db")
        nodes[103].app = app_of(lambda: SecAgg(replace(NOISY, noise_multiplier=987.0)), PRIVATE_TRAIN)
        nodes[104].app = app_of(lambda: SecAgg(NOISY, rng=failing), PRIVATE_TRAIN)
        one_round(private(fed, folder, rounds=1)[0], fed.grid, PRIVATE_MODEL)
        assert len(fed.grid.said) == 5
        return "\n".join(sorted(reply.error.reason for reply in fed.grid.said))

    reasons = {f"{kind.__name__}: {text}" for kind, text in flower._REASONS.items()} | {"this node failed"}
    found = said(tmp_path / "checked").split("\n")
    assert set(found) <= reasons
    assert [text.split(":")[0] for text in found] == [
        "BudgetError",
        "PolicyError",
        "UsageError",
        "UsageError",
        "this node failed",
    ]
    monkeypatch.setattr(flower, "_said_of", str)
    control = said(tmp_path / "control")
    assert "missing.key" in control
    assert "folder.db" in control
    assert "987" in control
    assert "epsilon" in control


# An app that answers nothing else


def losses_of(folder: Path, mods: list[Any]) -> tuple[list[Message], list[float]]:
    """What ``evaluate`` messages find out of a client whose loss is the squared distance from ``SECRET``."""
    folder.mkdir()
    asked = list[float]()

    def made() -> ClientApp:
        app = ClientApp(mods=mods)
        app.train("secagg", mods=[SecAgg(POLICY)])(lambda message, context: message)

        @app.evaluate()
        def evaluate(message: Message, context: Context) -> Message:
            asked.append(float(numpy(message.content["arrays"])["w"][0]))
            metrics = MetricRecord({"loss": (asked[-1] - SECRET) ** 2, "num-examples": 1})
            return Message(RecordDict({"metrics": metrics}), reply_to=message)

        app.query()(evaluate)
        app.train()(evaluate)
        app.train("other")(evaluate)
        return app

    federation(folder, TRAIN)
    node, replies = Node({}, made), list[Message]()
    for kind in ("evaluate", "query", "train", "train.other"):
        for at in (-1.0, 1.0):
            message = Message(RecordDict({"arrays": record({"w": np.array([at])})}), dst_node_id=1, message_type=kind)
            replies.append(node.handle(message, 1))
    return replies, asked


def test_a_closed_app_answers_nothing_but_our_messages(tmp_path: Path) -> None:
    """Control: without the mod two messages give the gradient of one client's loss, and so its data."""
    replies, asked = losses_of(tmp_path / "checked", [only_secagg])
    assert all(reply.has_error() for reply in replies)
    assert asked == []
    before, after = (reply.content["metrics"]["loss"] for reply in losses_of(tmp_path / "control", [])[0][:2])
    assert (before - after) / 4 == pytest.approx(SECRET)


def test_a_closed_app_takes_part_in_rounds(tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)
    for node in fed.grid.nodes.values():
        node.app = app_of(lambda: SecAgg(POLICY), TRAIN, mods=[only_secagg])
    server = secure(fed)
    one_round(server, fed.grid)
    check_exact(server, ALL)


# How often a client trains, and what it keeps from one training to the next


def scheduled(secagg: Callable[[], SecAgg], calls: dict[int, int]) -> Callable[[], ClientApp]:
    """A train function whose rate falls to 0 after two trainings, which it counts in ``context.state``."""

    def made() -> ClientApp:
        app = ClientApp()

        @app.train("secagg", mods=[secagg()])
        def train(message: Message, context: Context) -> Message:
            partition, old = int(context.node_config["partition-id"]), numpy(message.content["arrays"])
            calls[partition] = calls.get(partition, 0) + 1
            count = context.state.config_records["schedule"]["count"] if "schedule" in context.state else 0
            context.state["schedule"] = ConfigRecord({"count": count + 1})
            assert set(context.state) == {"schedule"}  # nothing of ours
            new = TRAIN(partition, old)[0] if count < 2 else old
            return Message(RecordDict({"arrays": record(new), "metrics": MetricRecord({})}), reply_to=message)

        return app

    return made


def advanced(folder: Path, *, repeats: int = 0, rounds: int = 0, **options: Any) -> tuple[Secure, dict[int, int]]:
    """A round of all, before which the server sends to all but client 3 the same plan ``repeats`` times, or plans of
    ``rounds`` sessions of their own."""
    folder.mkdir()
    fed, calls = federation(folder, TRAIN), dict[int, int]()
    for node in fed.grid.nodes.values():
        node.app = scheduled(lambda: SecAgg(POLICY, **options), calls)
    for _ in range(rounds):
        for message in secure(fed).configure_train(1, record(MODEL), config(), fed.grid):
            if message.metadata.dst_node_id != 103:
                assert fed.grid.carry(message).has_content()  # type: ignore[union-attr]
    carry = fed.grid.carry

    def insisting(message: Message) -> Message | None:
        if fed.grid.exchange == 0 and message.metadata.dst_node_id != 103:
            first = [carry(message) for _ in range(1 + repeats)]
            assert len({flower._joined(reply.content) for reply in first if reply is not None}) == 1
            return first[0]
        return carry(message)

    fed.grid.carry = insisting  # type: ignore[method-assign]
    server = secure(fed)
    one_round(server, fed.grid)
    return server, calls


def test_a_plan_is_trained_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: three trainings of all but one advance their schedules, and the sum of five is that one's update."""
    server, calls = advanced(tmp_path / "checked", repeats=2, stateful=True)
    check_exact(server, ALL)
    assert calls == dict.fromkeys(range(5), 1)
    switch_off(monkeypatch, SecAgg, "_answer", "client.check(plan)")
    server, calls = advanced(tmp_path / "control", repeats=2, stateful=True)
    check_exact(server, ALL, dict.fromkeys(ALL - {"client-3"}, 0))
    assert calls == {0: 3, 1: 3, 2: 3, 3: 1, 4: 3}


def test_a_training_remembers_nothing_of_others(tmp_path: Path) -> None:
    """Control: an app that asks for its state gives the update of the one whose schedule was not advanced."""
    server, calls = advanced(tmp_path / "checked", rounds=2)
    check_exact(server, ALL)
    assert calls == {0: 3, 1: 3, 2: 3, 3: 1, 4: 3}
    server, _ = advanced(tmp_path / "control", rounds=2, stateful=True)
    check_exact(server, ALL, dict.fromkeys(ALL - {"client-3"}, 0))


def test_a_state_that_is_kept_holds_nothing_of_ours(tmp_path: Path) -> None:
    """Nor can the app overwrite our records; what it takes out of its state, is gone."""
    fed, seen = federation(tmp_path, TRAIN), list[list[str]]()

    def made() -> ClientApp:
        app = ClientApp()

        @app.train("secagg", mods=[SecAgg(POLICY, stateful=True)])
        def train(message: Message, context: Context) -> Message:
            seen.append(sorted(context.state))
            name = "b" if context.state.pop("a", None) else "a"
            context.state.update({key: ConfigRecord({"x": 1}) for key in (name, *flower_state.OURS)})
            return Message(RecordDict({"arrays": message.content["arrays"]}), reply_to=message)

        return app

    for node in fed.grid.nodes.values():
        node.app = made
    server = secure(fed)
    for number in (1, 2, 3):
        one_round(server, fed.grid, number=number)
        assert server.outcome is not None
        assert set(server.outcome.survivors) == ALL
    assert seen == [[]] * 5 + [["a"]] * 5 + [["b"]] * 5


# What a client is told


Read = Callable[[Message, Context], float]


def steered(read: Read) -> Callable[[], ClientApp]:
    """A train function that takes its learning rate from where ``read`` finds it."""

    def made() -> ClientApp:
        app = ClientApp()

        @app.train("secagg", mods=[SecAgg(POLICY)])
        def train(message: Message, context: Context) -> Message:
            [arrays] = message.content.array_records.values()
            partition, rate = int(context.node_config["partition-id"]), read(message, context)
            old = numpy(arrays)
            trained = TRAIN(partition, old)[0]
            new = {name: array + rate * (trained[name].astype(float) - array) for name, array in old.items()}
            return Message(RecordDict({"arrays": record(new), "metrics": MetricRecord({})}), reply_to=message)

        return app

    return made


def tell(name: str, told: ConfigRecord | MetricRecord) -> Callable[[Message, Node], None]:
    def change(message: Message, node: Node) -> None:
        message.content[name] = told

    return change


def rename(message: Message, node: Node) -> None:
    message.content["frozen"] = message.content.pop("arrays")


def configure(message: Message, node: Node) -> None:
    node.run_config["rate"] = 0.0


def in_config(message: Message, context: Context) -> float:
    return float(message.content.config_records["config"]["lr"]) / 0.1  # type: ignore[arg-type]


STEERED: dict[str, tuple[Read, Callable[[Message, Node], None]]] = {
    "config": (in_config, tell("config", ConfigRecord({"lr": 0.0, "server-round": 1}))),
    "the type of a value": (
        lambda m, c: float(type(m.content.config_records["config"]["server-round"]) is int),
        tell("config", ConfigRecord({"lr": 0.1, "server-round": 1.0})),
    ),
    "a value that is not there": (
        lambda m, c: float("slow" not in m.content.config_records["config"]),
        tell("config", ConfigRecord({"lr": 0.1, "server-round": 1, "slow": False})),
    ),
    "a metric record": (
        lambda m, c: 1.0 - sum(float(r["slow"]) for r in m.content.metric_records.values()),  # type: ignore[arg-type]
        tell("told", MetricRecord({"slow": 1})),
    ),
    "a record without contents": (lambda m, c: float("told" not in m.content), tell("told", ConfigRecord({}))),
    "the name of the model": (lambda m, c: float("arrays" in m.content), rename),
    "run config": (lambda m, c: float(c.run_config["rate"]), configure),  # type: ignore[arg-type]
}


def steer(folder: Path, read: Read, change: Callable[[Message, Node], None]) -> tuple[Secure, Fakegrid]:
    """The server tells all but client 0 not to learn."""
    folder.mkdir()
    fed = federation(folder, TRAIN)
    for node in fed.grid.nodes.values():
        node.app, node.run_config = steered(read), {"rate": 1.0}

    def tamper(message: Message) -> Message:
        number = message.metadata.dst_node_id
        if fed.grid.exchange == 0 and number != 100:
            other = Message(message.content.copy(), dst_node_id=number, message_type=MESSAGE_TYPE)
            change(other, fed.grid.nodes[number])
            return other
        return message

    fed.grid.tamper = tamper
    server = secure(fed, run_config={"rate": 1.0})
    one_round(server, fed.grid)
    return server, fed.grid


@pytest.mark.parametrize("what", STEERED)
def test_a_sum_cannot_be_made_one_clients_update(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Control: the sum over all five is that of client 0, to the last bit."""
    server, grid = steer(tmp_path / "checked", *STEERED[what])
    assert server.outcome is None
    assert {r.metadata.src_node_id for r in grid.said if not r.has_error()} == {100}
    assert len(grid.said) == 5
    assert len(refusals(caplog)) == 4
    assert all("other words to those who train" in text for text in refusals(caplog))
    check_plan = "form.check_plan(plan, old, _told(records, key, context.run_id, context.run_config))"
    switch_off(monkeypatch, SecAgg, "_agreed", check_plan, "None")
    check_exact(steer(tmp_path / "control", *STEERED[what])[0], ALL, dict.fromkeys(ALL - {"client-0"}, 0))


def test_control_an_untampered_round_with_all_that_steers(tmp_path: Path) -> None:
    for number, (read, _) in enumerate(STEERED.values()):
        check_exact(steer(tmp_path / str(number), read, lambda message, node: None)[0], ALL)


def test_what_is_not_bound_is_not_handed_on(tmp_path: Path) -> None:
    """Two servers say the same and look different; the train functions get the same from both, unlike the mod."""
    contents = RecordDict(
        {
            "config": ConfigRecord({"lr": 0.1, "b": [1, 2]}),
            "m": MetricRecord({"x": 1, "y": 2.0}),
            "arrays": record(MODEL),
        }
    )
    other = RecordDict(
        {
            "arrays": ArrayRecord(
                {n: Array(a.dtype.name, (7,), "numpy.ndarray", fortran(a)) for n, a in MODEL.items()}
            ),
            "m": MetricRecord({"y": 2.0, "x": 1}),
            "config": ConfigRecord({"b": [1, 2], "lr": 0.1}),
        }
    )
    got, raw = list[str](), list[str]()
    for number, content in enumerate((contents, other)):
        (folder := tmp_path / str(number)).mkdir()
        fed = federation(folder, TRAIN)
        app = ClientApp()

        @app.train("secagg", mods=[SecAgg(POLICY)])
        def train(message: Message, context: Context) -> Message:
            assert abs(message.metadata.created_at - datetime.now().timestamp()) < 3600
            message.metadata.created_at = 0.0
            shown = replace(context, state=RecordDict(), node_config={})
            got.append(f"{message!r} {shown!r} {[vars(array) for array in message.content['arrays'].values()]}")
            return Message(message.content, reply_to=message)

        form = Form.of(MODEL, clip=CLIP)
        told = flower._told(content, "arrays", 7, {"a": 1, "b": 2})
        plan = secure(fed)._plan(form, 1, form.model(MODEL, told), 5)
        plan = replace(plan, roster=fed.roster.digest)
        content["secagg"] = ConfigRecord({"plan": plan.encode(), "form": flower.FORM.encode(form), "more": number})
        message = Message(content, dst_node_id=100, message_type=MESSAGE_TYPE, ttl=100.0 + number, group_id=f"{number}")
        for name, value in (("created_at", 1e9 + number), ("message_id", f"{number}"), ("src_node_id", number + 2)):
            message.metadata.__dict__[f"_{name}"] = value
        raw.append(repr(message))
        config = {"a": 1, "b": 2} if number else {"b": 2, "a": 1}
        context = Context(7, 100 + number, fed.grid.nodes[100].config, RecordDict(), config, series_id=number)
        assert app(message, context).has_content()
    assert got[0] == got[1]
    assert raw[0] != raw[1]


def fortran(array: NDArray[Any]) -> bytes:
    """As numpy writes it, in the other layout. (Bytes behind it are refused: ``secagg.foreign``.)"""
    out = io.BytesIO()
    np.save(out, np.asfortranarray(array).reshape(array.shape, order="A"))
    return out.getvalue()


@pytest.mark.parametrize("tells", [{"lr": 0.0}, {"lr": 0.1, "more": 1}, {}, {"lr": 1}])
def test_strategies_that_tell_clients_different_things_are_refused(tells: dict[str, Any], tmp_path: Path) -> None:
    class Personal(FedAvg):
        def configure_train(self, *arguments: Any) -> list[Message]:
            messages = list(super().configure_train(*arguments))
            first = messages[0].content
            messages[1].content = first.copy()  # the same in another message will do
            messages[-1].content = RecordDict({**first, "config": ConfigRecord(tells | {"server-round": 1})})
            return messages

    fed = federation(tmp_path, TRAIN)
    server = secure(fed, strategy=Personal())
    with pytest.raises(UsageError, match="different things"):
        server.configure_train(1, record(MODEL), config(), fed.grid)
    tells.clear()
    tells["lr"] = 0.1
    assert len(list(server.configure_train(1, record(MODEL), config(), fed.grid))) == 5


def test_a_strategy_with_a_record_of_our_name_is_refused(tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)
    with pytest.raises(UsageError, match="that is ours"):
        secure(fed, strategy=FedAvg(configrecord_key="secagg")).configure_train(1, record(MODEL), config(), fed.grid)


def test_a_client_counts_by_its_own_metric_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that could name any metric as the weight would have it summed up in clear integers."""
    fed = federation(tmp_path, TRAIN)
    server = secure(fed, strategy=FedAvg(weighted_by_key="loss", fraction_evaluate=0.0), weight_bound=100)
    assert one_round(server, fed.grid) == (None, None)
    assert len(refusals(caplog)) == 5
    assert all("does not count by the metric" in text for text in refusals(caplog))
    for node in fed.grid.nodes.values():
        node.app = app_of(lambda: SecAgg(POLICY, weighted_by="loss"), TRAIN)
    assert one_round(server, fed.grid, number=2)[0] is not None
    for node in fed.grid.nodes.values():
        node.app = app_of(lambda: SecAgg(POLICY), TRAIN)
    switch_off(monkeypatch, SecAgg, "_agreed", 'form.weight not in ("", self._weighted_by)')
    one_round(server, fed.grid, number=3)
    assert server.outcome is not None
    assert server.outcome.decode().weight == 1 + 2 + 3 + 4 + 5  # control: the sum of the losses


# What a client remembers


def state_of(node: Node) -> RecordDict:
    return context_from_proto(ProtoContext.FromString(node.state)).state


def test_the_vector_is_kept_sealed_until_it_is_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = changes(Form.of(MODEL, clip=CLIP))["client-0"]  # of integers, at scale 1
    clear = Ring(19).pack(Ring(19).lift(change.astype(np.int64)))

    def seen(folder: Path) -> tuple[list[bool], list[bool]]:
        folder.mkdir()
        fed = federation(folder, TRAIN)
        kept, in_clear = list[bool](), list[bool]()

        def look(reply: Message) -> Message:
            if reply.metadata.src_node_id == 100:
                kept.append("secagg.vector" in state_of(fed.grid.nodes[100]))
                in_clear.append(clear in fed.grid.nodes[100].state)
            return reply

        fed.grid.tamper_reply = look
        one_round(secure(fed), fed.grid)
        return kept, in_clear

    assert seen(tmp_path / "sealed") == ([True, True, True, False, False, False], [False] * 6)
    monkeypatch.setattr(flower_state, "seal", lambda key, text, associated, rng: text)
    monkeypatch.setattr(flower_state, "open_box", lambda key, box, associated: box)
    assert seen(tmp_path / "control")[1] == [True, True, True, False, False, False]


def test_another_identity_cannot_open_what_was_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fed = federation(tmp_path, TRAIN)

    def exchange_keys(now: int, node: int) -> str:
        if (now, node) == (1, 100):
            fed.grid.nodes[100].config["secagg-identity"] = str(tmp_path / "1.key")
        return ""

    fed.grid.fate = exchange_keys
    server = secure(fed)
    one_round(server, fed.grid)
    [text] = refusals(caplog)
    assert "the journal is not this client's" in text
    check_exact(server, ALL - {"client-0"})


def test_a_kept_vector_is_one_identitys_and_one_plans() -> None:
    (plan, _), state = _any_plan("secagg"), RecordDict()
    one, other = Identity.generate("a"), Identity.generate("b")
    KeptVector(state, one, plan, os.urandom).keep(b"vector")
    assert KeptVector(state, one, plan, os.urandom).vector() == b"vector"
    with pytest.raises(PeerError, match="does not open"):
        KeptVector(state, other, plan, os.urandom).vector()
    later = KeptVector(state, one, plan.next_round(), os.urandom)
    with pytest.raises(PolicyError, match="has been lost"):
        later.vector()
    state.config_records["secagg.vector"]["plan"] = plan.next_round().digest()
    with pytest.raises(PeerError, match="does not open"):
        later.vector()


def forgets(fed: Federation, exchange: int) -> None:
    """Client 2's SuperNode loses its memory before this exchange."""

    def fate(now: int, node: int) -> str:
        if (now, node) == (exchange, 102):
            fed.grid.nodes[102].state = b""
        return ""

    fed.grid.fate = fate


@pytest.mark.parametrize(
    ("exchange", "journals"),
    [
        (now, journals) if journals == (now % 2 == 0) else longer(now, journals)
        for now in range(1, 6)
        for journals in (False, True)
    ],
)
def test_a_node_that_lost_its_memory(
    exchange: int, journals: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On a journal file it goes on if its vector is out; else it stays out of the round, and there is no second one.

    By default each phase is tried once, with and without a journal file in turn; all are tried both ways otherwise.
    """
    fed = federation(tmp_path, TRAIN, journals=journals)
    forgets(fed, exchange)
    server = secure(fed)
    one_round(server, fed.grid)
    check_exact(server, ALL - ({"client-2"} if exchange <= 3 else set()))
    refused = refusals(caplog)
    if journals and exchange > 3:
        assert refused == []
    else:
        assert all(("has been lost" if journals else "nothing is known") in reason for reason in refused)
        assert len(refused) == 1  # and is not asked any more
    fed.grid.fate = lambda now, node: ""
    one_round(server, fed.grid, number=2)
    check_exact(server, ALL)


@pytest.mark.parametrize("checked", [True, False])
def test_a_lost_update_is_noticed_before_others_mask_with_it(
    checked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: without the check it deals shares first, and is missed when it should upload."""
    if not checked:
        switch_off(monkeypatch, SecAgg, "_answer", "not client.uploaded")
    fed = federation(tmp_path, TRAIN, journals=True)
    forgets(fed, 1)
    server = secure(fed)
    one_round(server, fed.grid)
    check_exact(server, ALL - {"client-2"})
    said = [reply for reply in fed.grid.said if reply.metadata.src_node_id == 102]
    assert [reply.has_error() for reply in said] == ([False, True] if checked else [False, False, False, True])


@pytest.mark.parametrize("journals", [False, True])
def test_a_client_uploads_once(journals: bool, tmp_path: Path) -> None:
    """The server asks again, with a neighbour less. Control: a node whose journal is put back uploads a second time."""
    fed = federation(tmp_path, TRAIN, journals=journals)
    before = list[bytes]()

    def keep(now: int, node: int) -> str:
        if (now, node) == (3, 100):
            before.append(fed.grid.nodes[100].state)
        return ""

    fed.grid.fate = keep
    server = secure(fed, protocol="secagg")
    one_round(server, fed.grid)
    check_exact(server, ALL)
    messages = [message for message in fed.grid.sent if message.metadata.dst_node_id == 100]
    node, asked = fed.grid.nodes[100], messages[3]
    plan = RoundPlan.decode(asked.content.config_records["secagg"]["plan"])
    kind = registry.find("secagg").messages
    assert isinstance(kind.decode(plan, flower._joined(asked.content)), Verdict)
    fewer = kind.encode(plan, Verdict(to_bitmap(range(4), range(5)), ()))
    other = flower._message(flower._carried({"plan": plan.encode()}, fewer), 100, 60.0)
    assert node.handle(other, 100, saved=False).has_error()
    if not journals:
        node.state = before[0]
        first, second = (flower._joined(node.handle(m, 100, saved=False).content) for m in (asked, other))
        assert first != second  # control


def test_a_message_that_comes_again_gets_the_same_answer(tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)
    repeated = list[bool]()

    def again(reply: Message) -> Message:
        node, message = fed.grid.nodes[100], fed.grid.sent[-1]
        if message.metadata.dst_node_id == 100 and fed.grid.exchange in (1, 2, 3, 4):
            repeated.append(flower._joined(node.handle(message, 100).content) == flower._joined(reply.content))
        return reply

    fed.grid.tamper_reply = again
    server = secure(fed)
    one_round(server, fed.grid)
    assert repeated == [True] * 4
    check_exact(server, ALL)


def test_a_journal_in_the_state_is_a_journal() -> None:
    state, memory = RecordDict(), MemoryJournal()
    for of, session, round_, step, box in [
        (b"1", b"a", 1, 0, b"1"),
        (b"1", b"a", 1, 1, b"2"),
        (b"2", b"b", 3, 0, b"3"),
        (b"1", b"a", 2, 0, b"4"),
        (b"2", b"c", 0, 0, b"5"),
    ]:
        StateJournal(state).append(of, session, round_, step, box)
        memory.append(of, session, round_, step, box)
        assert StateJournal(state).head() == memory.head()
    with pytest.raises(PolicyError, match="past round 2"):
        StateJournal(state).append(b"1", b"a", 2, 0, b"5")
    StateJournal(state).retire(b"a", 2)
    memory.retire(b"a", 2)
    for session in (b"a", b"b", b"c", b"d"):
        assert StateJournal(state).last_round(session) == memory.last_round(session)
        for round_ in range(4):
            assert StateJournal(state).records(session, round_) == memory.records(session, round_)


def test_a_finished_round_leaves_no_secrets_and_is_not_played_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fed = federation(tmp_path, TRAIN)
    one_round(secure(fed), fed.grid)
    kept = state_of(fed.grid.nodes[100]).config_records["secagg.journal"]
    assert not [key for key in kept if "." in key]
    first = next(message for message in fed.grid.sent if message.metadata.dst_node_id == 100)
    assert fed.grid.nodes[100].handle(first, 100).has_error()
    assert "is past round 1" in refusals(caplog)[-1]


# Plans, forms and models that a client refuses before it trains


def tampered(fed: Federation, change: Callable[[RecordDict], None]) -> tuple[Message, list[int]]:
    """The answer of node 100 to a first message with something else in it, and who was made to train."""
    trained = list[int]()

    def train(partition: int, model: dict[str, NDArray[Any]]) -> Any:
        trained.append(partition)
        return TRAIN(partition, model)

    for node in fed.grid.nodes.values():
        node.app = app_of(lambda: SecAgg(POLICY), train)
    messages = secure(fed).configure_train(1, record(MODEL), config(), fed.grid)
    message = next(message for message in messages if message.metadata.dst_node_id == 100)
    change(message.content)
    reply = fed.grid.carry(message)
    assert reply is not None
    return reply, trained


def other_model(content: RecordDict) -> None:
    content["arrays"] = record(MODEL | {"w": MODEL["w"] + 1})


def other_shape(content: RecordDict) -> None:
    content["arrays"] = record(MODEL | {"w": MODEL["w"].T})


def other_form(content: RecordDict) -> None:
    form = Form.of(MODEL, clip=CLIP, metrics={"loss": 1.0})
    content.config_records["secagg"]["form"] = flower.FORM.encode(form)


def other_clip(content: RecordDict) -> None:
    ours = content.config_records["secagg"]
    plan = RoundPlan.decode(ours["plan"])
    ours["plan"] = replace(plan, encoding=replace(plan.encoding, clip_l2=1e9, clip_inf=CLIP)).encode()


@pytest.mark.parametrize("change", [other_model, other_shape, other_form, other_clip])
def test_another_model_form_or_encoding_than_agreed(
    change: Callable[[RecordDict], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = federation(tmp_path, TRAIN)
    reply, trained = tampered(fed, change)
    assert "PolicyError" in str(reply.error)
    assert trained == []
    if change in (other_model, other_clip):
        check_plan = "form.check_plan(plan, old, _told(records, key, context.run_id, context.run_config))"
        switch_off(monkeypatch, SecAgg, "_agreed", check_plan, "None")
        assert tampered(fed, change)[0].has_content()  # control


@pytest.mark.parametrize(
    "policy",
    [
        replace(POLICY, min_contributors=4),
        Policy(3, protocols=frozenset({"secagg"})),
        replace(POLICY, weight_bound=99),
        replace(POLICY, noise_multiplier=1),
    ],
)
def test_nobody_trains_for_a_plan_against_the_policy(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: without the check they train first, and only then they refuse."""
    trained = list[int]()

    def train(partition: int, model: dict[str, NDArray[Any]]) -> Any:
        trained.append(partition)
        return TRAIN(partition, model)

    fed = federation(tmp_path, train, policy=policy)
    server = secure(fed, weight_bound=100)
    assert one_round(server, fed.grid) == (None, None)
    assert all("PolicyError" in str(reply.error) for reply in fed.grid.said)
    assert trained == []
    switch_off(monkeypatch, SecAgg, "_answer", "client.check(plan)", "None")
    assert one_round(server, fed.grid) == (None, None)
    assert sorted(trained) == [0, 1, 2, 3, 4]


def test_nobody_trains_twice_for_a_round_that_is_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained = list[int]()

    def train(partition: int, model: dict[str, NDArray[Any]]) -> Any:
        trained.append(partition)
        return TRAIN(partition, model)

    fed = federation(tmp_path, train)
    one_round(secure(fed), fed.grid)
    trained.clear()
    first = next(message for message in fed.grid.sent if message.metadata.dst_node_id == 100)
    assert fed.grid.nodes[100].handle(first, 100).has_error()
    assert "is past round 1" in refusals(caplog)[-1]
    assert trained == []


def test_a_message_without_our_record_is_not_trained_on(tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)
    for content in (RecordDict({"arrays": record(MODEL)}), RecordDict({"secagg": ConfigRecord({"plan": 3})})):
        reply = fed.grid.carry(Message(content, dst_node_id=100, message_type=MESSAGE_TYPE))
        assert "DecodeError" in str(reply.error)  # type: ignore[union-attr]


def test_a_model_is_one_array_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def two(content: RecordDict) -> None:
        content["more"] = record(MODEL)

    assert tampered(federation(tmp_path, TRAIN), two)[0].has_error()
    assert "one array record, not 2" in refusals(caplog)[-1]


def test_an_array_record_without_arrays_of_numpy(tmp_path: Path) -> None:
    def other(content: RecordDict) -> None:
        content["arrays"] = ArrayRecord({"w": Array("float32", (2,), "other", b"123")})

    assert "DecodeError" in str(tampered(federation(tmp_path, TRAIN), other)[0].error)


@pytest.mark.parametrize(
    ("key", "model"),
    [
        ("arrays", MODEL | {"b": np.array(3.0)}),
        ("arrays", MODEL | {"b": MODEL["b"].astype(np.float16)}),
        ("arrays", dict(reversed(MODEL.items()))),
        ("arrays", {**MODEL, "c": np.zeros(1)}),
        ("another", MODEL),
    ],
    ids=["values", "types", "order", "arrays", "key"],
)
def test_strategies_that_send_several_models_are_refused(
    key: str, model: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    class Personal(FedAvg):
        def configure_train(self, *arguments: Any) -> list[Message]:
            messages = list(super().configure_train(*arguments))
            messages[-1].content = RecordDict({key: record(model), "config": messages[0].content["config"]})
            return messages

    fed = federation(tmp_path, TRAIN)
    with pytest.raises(UsageError, match="different models"):
        secure(fed, strategy=Personal()).configure_train(1, record(MODEL), config(), fed.grid)


def test_equal_models_in_several_records_are_one(tmp_path: Path) -> None:
    class Copies(FedAvg):
        def configure_train(self, *arguments: Any) -> list[Message]:
            messages = list(super().configure_train(*arguments))
            for message in messages:
                message.content = RecordDict({**message.content, "arrays": record(MODEL)})
            return messages

    fed = federation(tmp_path, TRAIN)
    assert secure(fed, strategy=Copies()).configure_train(1, record(MODEL), config(), fed.grid)


# Who speaks


def test_a_node_with_somebody_elses_identity_adds_nothing(tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)
    fed.grid.nodes[104].config["secagg-identity"] = str(tmp_path / "0.key")
    server = secure(fed)
    one_round(server, fed.grid)
    assert server.outcome is not None
    assert server.outcome.survivors == ("client-0", "client-1", "client-2", "client-3")


def copycat(fed: Federation) -> None:
    """Node 104 says what node 100 said, in its name."""
    said = list[Message]()

    def tamper(reply: Message) -> Message:
        if fed.grid.exchange == 0 and reply.metadata.src_node_id == 100:
            said.append(reply)
        if fed.grid.exchange == 0 and reply.metadata.src_node_id == 104:
            reply.content = said[0].content
        return reply

    fed.grid.tamper_reply = tamper
    fed.grid.get_node_ids = lambda: [100, 101, 102, 103, 104]  # type: ignore[method-assign]


def test_a_node_that_repeats_anothers_words_does_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.sample", lambda population, count: list(population)[:count])
    survivors = []
    for folder in ("checked", "control"):
        (tmp_path / folder).mkdir()
        fed = federation(tmp_path / folder, TRAIN)
        copycat(fed)
        if folder == "control":
            switch_off(monkeypatch, Secure, "_take", "current.nodes.get(name, node) != node")
        server = secure(fed)
        one_round(server, fed.grid)
        assert server.outcome is not None
        survivors.append(server.outcome.survivors)
    assert survivors == [("client-0", "client-1", "client-2", "client-3"), ("client-1", "client-2", "client-3")]


def says(fed: Federation, exchange: int, node: int, name: str) -> None:
    """In this exchange this node says in this name what is no frame."""

    def tamper(reply: Message) -> Message:
        if (fed.grid.exchange, reply.metadata.src_node_id) == (exchange, node):
            reply.content = flower._carried({"name": name}, b"no frame")
        return reply

    fed.grid.tamper_reply = tamper


def test_who_lied_and_who_was_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fed = federation(tmp_path, TRAIN)
    says(fed, 2, 102, "client-2")
    server = secure(fed)
    one_round(server, fed.grid)
    check_exact(server, ALL - {"client-2"})
    assert (server.liars, server.excluded) == (("client-2",), ("client-2",))
    line = "secagg: round 1: caught lying: client-2; left out before the vectors were sent: client-2"
    assert line in [record.getMessage() for record in caplog.records]
    fed.grid.tamper_reply = lambda reply: reply
    one_round(server, fed.grid, number=2)
    assert (server.liars, server.excluded) == ((), ())
    assert sum("caught lying" in record.getMessage() for record in caplog.records) == 1


def test_nobody_is_caught_by_what_others_say_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its own first frame: the server does not know yet which node is its. Control: it would be named."""

    def caught(folder: Path) -> tuple[str, ...]:
        folder.mkdir()
        fed = federation(folder, TRAIN)
        says(fed, 0, 100, "client-4")
        fed.grid.get_node_ids = lambda: [100, 101, 102, 103, 104]  # type: ignore[method-assign]
        server = secure(fed)
        one_round(server, fed.grid)
        check_exact(server, ALL - {"client-0"})
        return server.liars

    monkeypatch.setattr("random.sample", lambda population, count: list(population)[:count])
    assert caught(tmp_path / "checked") == ()
    switch_off(monkeypatch, Secure, "_take", "name in current.nodes", "True")
    assert caught(tmp_path / "control") == ("client-4",)


@pytest.mark.parametrize("said", [{"name": "mallory", "chunks": 1}, {"name": 7, "chunks": 1}, {"chunks": 1}, {}])
def test_a_reply_that_makes_no_sense_is_passed_over(said: dict[str, Any], tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)

    def tamper(reply: Message) -> Message:
        if reply.metadata.src_node_id == 103:
            reply.content["secagg"] = ConfigRecord(said)
        return reply

    fed.grid.tamper_reply = tamper
    server = secure(fed)
    one_round(server, fed.grid)
    check_exact(server, ALL - {"client-3"})


def malformed(good: Message) -> dict[str, RecordDict]:
    """A good reply, with one thing in it that must not be there."""
    said = dict(good.content.config_records["secagg"])
    [frame] = [dict(one) for name, one in good.content.config_records.items() if name.startswith("secagg.frame.")]
    secagg, chunk = ConfigRecord(said), "secagg.frame.0"

    def other(**changes: Any) -> RecordDict:
        return RecordDict({"secagg": ConfigRecord(said | changes), chunk: ConfigRecord(frame)})

    return {
        "nothing": RecordDict({}),
        "no record of ours": RecordDict({"other": secagg}),
        "our record is of arrays": RecordDict({"secagg": record(dict(MODEL))}),
        "our record is of metrics": RecordDict({"secagg": MetricRecord({"chunks": 1})}),
        "a number for the name": other(name=7),
        "a list for the name": other(name=["client-3"]),
        "a name of a megabyte": other(name="x" * 1_000_000),
        "a billion chunks": other(chunks=1_000_000_000),
        "no chunks": other(chunks=0),
        "chunks below zero": other(chunks=-1),
        "half a chunk": other(chunks=0.5),
        "text for a chunk": RecordDict({"secagg": secagg, chunk: ConfigRecord({"bytes": "frame"})}),
        "numbers for a chunk": RecordDict({"secagg": secagg, chunk: ConfigRecord({"bytes": [1, 2, 3]})}),
        "a chunk without bytes": RecordDict({"secagg": secagg, chunk: ConfigRecord({})}),
        "an empty frame": RecordDict({"secagg": secagg, chunk: ConfigRecord({"bytes": b""})}),
        "a frame of noise": RecordDict({"secagg": secagg, chunk: ConfigRecord({"bytes": bytes(range(256))})}),
    }


def test_malformed_replies_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them in one round, before each good reply."""
    fed = federation(tmp_path, TRAIN)
    server = secure(fed)
    fed.grid.exchange = 0
    replies = list(fed.grid.send_and_receive(server.configure_train(1, record(dict(MODEL)), config(), fed.grid)))
    passed: list[str] = []
    let_in: list[str] = []
    take = Secure._take

    def taking(secure: Secure, current: Any, reply: Message) -> None:
        if reply.metadata.src_node_id == 103:
            for what, content in malformed(reply).items():
                take(secure, current, copied(reply, content))
                passed.append(what)
                with suppress(DecodeError, PeerError, KeyError):  # the control: what it is
                    current.machine.receive("client-3", flower._joined(content))
                    let_in.append(what)
        take(secure, current, reply)

    monkeypatch.setattr(Secure, "_take", taking)
    server.aggregate_train(1, replies)
    check_exact(server, ALL)
    assert len(passed) >= 2 * 16
    assert set(let_in) == {"a number for the name", "a list for the name", "a name of a megabyte"}


def copied(reply: Message, content: RecordDict) -> Message:
    other = copy(reply)
    other.content = content
    return other


# Paths


def test_paths_with_a_partition_id(tmp_path: Path) -> None:
    def made() -> SecAgg:
        return SecAgg(POLICY, identity=tmp_path / "{partition-id}.key", roster=str(tmp_path / "roster.toml"))

    fed = federation(tmp_path, TRAIN, secagg=made)
    for node in fed.grid.nodes.values():
        node.config = {"partition-id": node.config["partition-id"]}
    server = secure(fed)
    one_round(server, fed.grid)
    check_exact(server, ALL)


def test_a_node_without_identity_or_with_a_wrong_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fed = federation(tmp_path, TRAIN)
    del fed.grid.nodes[100].config["secagg-identity"]
    Identity.generate("client-1").save(tmp_path / "other.key")
    fed.grid.nodes[101].config["secagg-identity"] = str(tmp_path / "other.key")
    server = secure(fed)
    one_round(server, fed.grid)
    reasons = sorted(refusals(caplog))
    assert "no secagg-identity" in reasons[0]
    assert "the roster has another key for client-1" in reasons[1]
    check_exact(server, {"client-2", "client-3", "client-4"})


def test_run_config_says_nothing_about_identities(tmp_path: Path) -> None:
    """The server sends the run config."""
    context = Context(1, 1, {}, RecordDict(), {"secagg-identity": "x", "secagg-roster": "y"})
    with pytest.raises(UsageError, match="no secagg-identity"):
        SecAgg(POLICY)._path(context, "identity")
    with pytest.raises(UsageError, match="names a partition-id"):
        SecAgg(POLICY, identity="{partition-id}.key")._path(context, "identity")


# Weights, metrics, chunks


def test_weights_and_metrics_under_the_mask(tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN, policy=replace(POLICY, weight_bound=25))
    server = secure(fed, weight_bound=25, metrics={"loss": 10.0})
    _, metrics = one_round(server, fed.grid)
    assert server.outcome is not None
    weights = [10, 20, 25, 25, 25]  # the largest two are bounded
    assert server.outcome.decode().weight == sum(weights)
    expected = sum(weight * (1.0 + i) for i, weight in enumerate(weights)) / sum(weights)
    assert dict(metrics) == {"loss": pytest.approx(expected, abs=1e-3)}


def test_frames_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "CHUNK_BYTES", 64)
    fed = federation(tmp_path, TRAIN)
    server = secure(fed)
    one_round(server, fed.grid)
    check_exact(server, ALL)
    sizes = [
        len(part["bytes"])
        for reply in fed.grid.said
        for name, part in reply.content.config_records.items()
        if "." in name
    ]
    assert max(sizes) == 64
    assert any(len(reply.content) > 3 for reply in fed.grid.said)
    content = max((reply.content for reply in fed.grid.said), key=len)
    del content["secagg.frame.1"]
    with pytest.raises(DecodeError, match="missing"):
        flower._joined(content)
    content["secagg.frame.x"] = ConfigRecord({"bytes": b""})
    with pytest.raises(DecodeError, match="missing"):
        flower._joined(content)


# Strategies

PLAIN_MODEL = {name: MODEL[name].astype(np.float64) for name in ("w", "b")}
"""FedAvg itself turns integers into floats; the differences of these are exact."""


def plain_app(train: Train) -> Callable[[], ClientApp]:
    """The same training, uploaded in clear."""

    def made() -> ClientApp:
        app = ClientApp()

        @app.train()
        def train_function(message: Message, context: Context) -> Message:
            [arrays] = message.content.array_records.values()
            new, metrics = train(int(context.node_config["partition-id"]), numpy(arrays))
            return Message(RecordDict({"arrays": record(new), "metrics": MetricRecord(metrics)}), reply_to=message)

        @app.evaluate()
        def evaluate(message: Message, context: Context) -> Message:
            return Message(
                RecordDict({"metrics": MetricRecord({"num-examples": 1, "accuracy": 0.5})}), reply_to=message
            )

        return app

    return made


@pytest.mark.parametrize(
    "make",
    [
        FedAvg,
        lambda: FedAvgM(server_learning_rate=0.5, server_momentum=0.9),
        FedAdam,
        longer(FedYogi),
        longer(FedAdagrad),
        lambda: FedProx(proximal_mu=0.1),
    ],
)
def test_strategies_do_what_they_do_without_us(make: Callable[[], Strategy], tmp_path: Path) -> None:
    """Of the three that adapt their rates FedAdam by default."""
    fed = federation(tmp_path, TRAIN)
    plain = Fakegrid({number: Node(node.config, plain_app(TRAIN)) for number, node in fed.grid.nodes.items()})
    expected = make().start(plain, record(PLAIN_MODEL), num_rounds=3)
    server = secure(fed, strategy=make(), weight_bound=100)
    found = server.start(fed.grid, record(PLAIN_MODEL), num_rounds=3)
    for name, array in numpy(expected.arrays).items():
        np.testing.assert_allclose(numpy(found.arrays)[name], array, rtol=1e-9, atol=1e-9)
    assert found.evaluate_metrics_clientapp == expected.evaluate_metrics_clientapp


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_types_stay_what_they_are_over_rounds(protocol: str, tmp_path: Path) -> None:
    """FedAdam gives float64 back, whatever it was given."""
    fed = federation(tmp_path, TRAIN)
    server = secure(fed, strategy=FedAdam(fraction_evaluate=0.0), protocol=protocol)
    found = numpy(server.start(fed.grid, record(MODEL), num_rounds=2).arrays)
    assert {n: (a.dtype, a.shape) for n, a in found.items()} == {n: (a.dtype, a.shape) for n, a in MODEL.items()}


SINGLE = [
    lambda: flower_strategies.Krum(),
    lambda: flower_strategies.MultiKrum(),
    lambda: flower_strategies.Bulyan(),
    lambda: flower_strategies.FedMedian(),
    lambda: flower_strategies.FedTrimmedAvg(),
    lambda: flower_strategies.QFedAvg(client_learning_rate=0.1),
    lambda: flower_strategies.FedXgbBagging(),
    lambda: flower_strategies.FedXgbCyclic(),
    lambda: flower_strategies.DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 5),
    lambda: flower_strategies.DifferentialPrivacyClientSideAdaptiveClipping(FedAvg(), 0.1, 100),
]


@pytest.mark.parametrize("make", SINGLE)
def test_strategies_that_look_at_single_updates(make: Callable[[], Strategy], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="single updates"):
        secure(federation(tmp_path, TRAIN), strategy=make())


def test_every_strategy_that_flower_has_was_looked_at() -> None:
    averages = {"FedAvg", "FedAvgM", "FedAdam", "FedYogi", "FedAdagrad", "FedProx", "Strategy", "Result"}
    refused = {kind.__name__ for kind in flower._NEED_SINGLE_UPDATES} | {"Krum"}
    assert set(flower_strategies.__all__) == averages | refused


# Privacy


PRIVATE_MODEL = {"w": np.zeros(300)}
PRIVATE_TRAIN = integer_training(PRIVATE_MODEL, 2, largest=1)


def budget(epsilon: int = 8) -> Budget:
    return Budget(Fraction(epsilon), Fraction(1, 1000), slack=Fraction(1, 10**5))


def new_ledger(path: Path, identity: Identity, epsilon: int = 8) -> Ledger:
    guarantee = user_level(Relation.ZERO_OUT)
    return Ledger.create(path, identity.key, budget(epsilon), guarantee, run="test", elsewhere="evaluation")


def private(fed: Federation, folder: Path, *, rounds: int, **changes: Any) -> tuple[Secure, Ledger]:
    ledger = new_ledger(folder / "server.ledger", Identity.generate("server"))
    privacy = Privacy(epsilon=8, delta=1e-3, rounds=rounds)
    given = {"privacy": privacy, "ledger": ledger, "min_contributors": 4, "clip": 20.0, "dropout": "0.2"}
    return secure(fed, **(given | changes)), ledger


NOISY = replace(POLICY, noise_multiplier=0.5)


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

    def kept(plan: RoundPlan, update: Any, weight: int, rng: Any) -> Any:
        values = encode(plan, update, weight, rng)
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
    assert flower._joined(again.content) == flower._joined(said[-1].content)
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
