"""What a train function can read of the server is bound into the plan, or not handed on."""

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from protocols.adapters.flower.client import SecAgg
from protocols.adapters.flower.messages import MESSAGE_TYPE, instructions_in
from protocols.adapters.flower.server import Secure
from protocols.adapters.form import FORM, Form
from tests.controls import switch_off
from tests.protocols.adapters.flower.fake_flower import (
    CLIP,
    POLICY,
    Fakegrid,
    Node,
    federation,
    numpy,
    record,
)
from tests.protocols.adapters.flower.scene import ALL, MODEL, TRAIN, check_exact, one_round, refusals, secure

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


@pytest.mark.thinned(4)
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
    assert all("other instructions to those who train" in text for text in refusals(caplog))
    check_plan = "form.check_plan(plan, old, instructions, weighted_by=self._weighted_by)"
    switch_off(monkeypatch, SecAgg, "_checked_task", check_plan, "None")
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
        told = instructions_in(content, "arrays", 7, {"a": 1, "b": 2})
        plan = secure(fed)._plan(form, 1, form.model_digest(MODEL, told), 5)
        plan = replace(plan, roster=fed.roster.digest)
        content["secagg"] = ConfigRecord({"plan": plan.encode(), "form": FORM.encode(form), "more": number})
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
