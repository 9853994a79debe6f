"""Frames in Flower's records, and records in which something is that must not be there."""

from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from protocols.adapters.flower import messages as flower_messages
from protocols.adapters.flower.messages import arrays_in, frame_in, record_again, record_of
from protocols.adapters.flower.server import Secure
from secagg.errors import DecodeError, PeerError
from tests.protocols.adapters.flower.fake_flower import (
    config,
    federation,
    record,
)
from tests.protocols.adapters.flower.scene import ALL, MODEL, TRAIN, check_exact, one_round, secure


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


def test_a_model_that_is_written_in_our_way_is_not_written_again() -> None:
    """The same bytes go on. In another layout, or under another description, it is."""
    written = record_of(MODEL)
    again = record_again(written, arrays_in(written))
    assert again == written
    assert all(again[name].data is written[name].data is not again[name] for name in MODEL)

    fortran = {name: Array(np.asfortranarray(array).reshape(array.shape, order="A")) for name, array in MODEL.items()}
    other = ArrayRecord({name: Array("text", (7,), array.stype, array.data) for name, array in fortran.items()})
    assert record_again(other, arrays_in(other)) == written


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
    take = Secure._receive

    def taking(secure: Secure, current: Any, reply: Message) -> None:
        if reply.metadata.src_node_id == 103:
            for what, content in malformed(reply).items():
                take(secure, current, copied(reply, content))
                passed.append(what)
                with suppress(DecodeError, PeerError, KeyError):  # the control: what it is
                    current.machine.receive("client-3", frame_in(content))
                    let_in.append(what)
        take(secure, current, reply)

    monkeypatch.setattr(Secure, "_receive", taking)
    server.aggregate_train(1, replies)
    check_exact(server, ALL)
    assert len(passed) >= 2 * 16
    assert set(let_in) == {"a number for the name", "a list for the name", "a name of a megabyte"}


def copied(reply: Message, content: RecordDict) -> Message:
    other = copy(reply)
    other.content = content
    return other


def test_frames_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_messages, "CHUNK_BYTES", 64)
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
        frame_in(content)
    content["secagg.frame.x"] = ConfigRecord({"bytes": b""})
    with pytest.raises(DecodeError, match="missing"):
        frame_in(content)
