"""What a Flower node answers, refuses and trains: nothing but frames leaves it, whatever its training does."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto
from flwr.serverapp.strategy import FedAvg

from protocols.adapters.flower import client as flower_client
from protocols.adapters.flower.client import SecAgg, only_secagg
from protocols.adapters.flower.messages import MESSAGE_TYPE, frame_in
from protocols.adapters.flower.server import Secure
from protocols.adapters.flower.state import RECORD_NAMES
from protocols.adapters.form import FORM, Form
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.protocols.adapters.flower.fake_flower import (
    CLIP,
    POLICY,
    Federation,
    Node,
    Train,
    app_of,
    config,
    federation,
    numpy,
    record,
)
from tests.protocols.adapters.flower.scene import (
    ALL,
    FAILURES,
    MODEL,
    NOISY,
    PRIVATE_MODEL,
    PRIVATE_TRAIN,
    PROTOCOLS,
    SECRET,
    TRAIN,
    Panic,
    changes,
    check_exact,
    longer,
    new_ledger,
    one_round,
    private,
    refusals,
    secure,
    with_all,
)

# What leaves a client


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.thinned(2)
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


def with_metrics(**metrics: Any) -> Train:
    return lambda partition, model: (TRAIN(partition, model)[0], metrics)


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
        + ((sorted(reply.content), len(frame_in(reply.content))) if reply.has_content() else ())
        for reply in said
    ]
    return server, shapes, said


WEIGHED: dict[str, Any] = {"weight_bound": 100, "metrics": {"loss": 10.0}}


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """What the server sees when nothing fails: without weights and with."""
    folder = tmp_path_factory.mktemp("fine")
    return [seen(folder / str(i), TRAIN, **options)[1] for i, options in enumerate(({}, WEIGHED))]


@pytest.mark.thinned(4)
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

    switch_off(monkeypatch, Form, "contribution", "BaseException", "ZeroDivisionError")
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
    expected = sum(updates[name] for name in ALL)
    np.testing.assert_allclose(total.vector[: form.model_length], expected, atol=5)  # rounding
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

    reasons = {f"{kind.__name__}: {text}" for kind, text in flower_client._PUBLIC_REASONS.items()}
    found = said(tmp_path / "checked").split("\n")
    assert set(found) <= reasons | {"this node failed"}
    assert [text.split(":")[0] for text in found] == [
        "BudgetError",
        "PolicyError",
        "UsageError",
        "UsageError",
        "this node failed",
    ]
    monkeypatch.setattr(flower_client, "_public_reason", str)
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
            assert len({frame_in(reply.content) for reply in first if reply is not None}) == 1
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
            context.state.update({key: ConfigRecord({"x": 1}) for key in (name, *RECORD_NAMES)})
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


def same(secagg: SecAgg) -> SecAgg:
    return secagg


def ranks(folder: Path, own: dict[int, int], trained: list[int], *, checked: bool) -> Federation:
    """Clients whose own adapters are of these ranks; a training with arrays of another one fails."""

    def train(partition: int, old: dict[str, NDArray[Any]]) -> Any:
        trained.append(partition)
        if old["up"].shape != (6, own[partition]):
            raise ValueError("shapes do not fit")
        return {"up": old["up"] + 1}, {}

    fed = federation(folder, train)
    for i, node in enumerate(fed.grid.nodes.values()):
        shapes = {"up": (6, own[i])}
        secagg = SecAgg(POLICY, arrays=partial(dict, shapes) if checked else None)
        node.app = app_of(partial(same, secagg), train)
    return fed


def test_who_has_adapters_of_another_rank_refuses_before_it_trains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line, and nothing is in its state. Control: without its own shapes it trains, fails, and sends zeros."""
    model, own = {"up": np.zeros((6, 8))}, {0: 8, 1: 8, 2: 4, 3: 8, 4: 8}
    for name, survivors, mean in (("checked", ALL - {"client-2"}, 1.0), ("control", ALL, 0.8)):
        (tmp_path / name).mkdir()
        trained = list[int]()
        fed = ranks(tmp_path / name, own, trained, checked=name == "checked")
        server = secure(fed)
        arrays, _ = one_round(server, fed.grid, model)
        assert server.outcome is not None
        assert set(server.outcome.survivors) == survivors
        assert (2 in trained) == (name == "control")
        np.testing.assert_allclose(numpy(arrays)["up"], mean, rtol=0.1)
        if name == "checked":
            (line,) = [one for one in caplog.messages if "other arrays than the round" in one]
            assert line.endswith("there 'up' is (6, 8), here (6, 4)")
            assert "\n" not in line


# Weights


def test_a_client_counts_by_its_own_metric_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that could name any metric as the weight would have it summed up in clear integers."""
    fed = federation(tmp_path, TRAIN)
    server = secure(fed, strategy=FedAvg(weighted_by_key="loss", fraction_evaluate=0.0), weight_bound=100)
    assert one_round(server, fed.grid) == (None, None)
    assert len(refusals(caplog)) == 5
    assert all("is not weighted by the metric" in text for text in refusals(caplog))
    for node in fed.grid.nodes.values():
        node.app = app_of(lambda: SecAgg(POLICY, weighted_by="loss"), TRAIN)
    assert one_round(server, fed.grid, number=2)[0] is not None
    for node in fed.grid.nodes.values():
        node.app = app_of(lambda: SecAgg(POLICY), TRAIN)
    switch_off(monkeypatch, Form, "check_plan", 'self.weight not in ("", weighted_by)')
    one_round(server, fed.grid, number=3)
    assert server.outcome is not None
    assert server.outcome.decode().weight == 1 + 2 + 3 + 4 + 5  # control: the sum of the losses


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
    content.config_records["secagg"]["form"] = FORM.encode(form)


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
        check_plan = "form.check_plan(plan, old, instructions, weighted_by=self._weighted_by)"
        switch_off(monkeypatch, SecAgg, "_checked_task", check_plan, "None")
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
