"""The strategy: which node speaks for which client, who is named as a liar, and other people's strategies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import strategy as flower_strategies
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy

from protocols.adapters.flower import server as flower_server
from protocols.adapters.flower.messages import content_with_frame
from protocols.adapters.flower.server import Secure
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.protocols.adapters.flower.fake_flower import (
    Fakegrid,
    Federation,
    Node,
    Train,
    config,
    federation,
    numpy,
    record,
)
from tests.protocols.adapters.flower.scene import ALL, MODEL, PROTOCOLS, TRAIN, check_exact, longer, one_round, secure

# What a strategy sends


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
            switch_off(monkeypatch, Secure, "_receive", "current.nodes.get(name, node) != node")
        server = secure(fed)
        one_round(server, fed.grid)
        assert server.outcome is not None
        survivors.append(server.outcome.survivors)
    assert survivors == [("client-0", "client-1", "client-2", "client-3"), ("client-1", "client-2", "client-3")]


def says(fed: Federation, exchange: int, node: int, name: str) -> None:
    """In this exchange this node says in this name what is no frame."""

    def tamper(reply: Message) -> Message:
        if (fed.grid.exchange, reply.metadata.src_node_id) == (exchange, node):
            reply.content = content_with_frame({"name": name}, b"no frame")
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
    switch_off(monkeypatch, Secure, "_receive", "name in current.nodes", "True")
    assert caught(tmp_path / "control") == ("client-4",)


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


@pytest.mark.thinned(4)
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


@pytest.mark.thinned(4)
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
    refused = {kind.__name__ for kind in flower_server._NEED_SINGLE_UPDATES} | {"Krum"}
    assert set(flower_strategies.__all__) == averages | refused
