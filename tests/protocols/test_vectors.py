"""Our own wire vectors: what was on the wire when they were made is what is on the wire now, byte for byte."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from protocols import registry
from protocols.plan import RoundPlan
from secagg import errors
from secagg.errors import DecodeError
from tests.vectors import make

FOLDER = Path(make.__file__).parent
ROUNDS = ["round-secagg.json", "round-secagg-plus.json", "round-oneshot.json"]


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return content


OTHERS = ["plans.json", "messages.json", "noise.json", "round-threshold-ckks.json", "ledger.json", "journal.json"]
MESSAGES = load("messages.json")["protocols"]


@cache
def made() -> dict[str, Any]:
    """All files, as they are made now."""
    content: dict[str, Any] = json.loads(json.dumps(make.build()))
    return content


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", [*OTHERS, *ROUNDS])
def test_the_generator_still_makes_the_same_file(name: str) -> None:
    """If this fails the wire format has changed, or what is drawn as noise: think of VERSION, then run
    ``python -m tests.vectors.make``."""
    assert made()[name] == load(name)


@pytest.mark.parametrize("vector", load("plans.json")["plans"], ids=lambda vector: vector["name"])
def test_a_plan_survives_the_wire_and_keeps_its_digest(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["encoding"])
    plan = RoundPlan.decode(data)
    assert make.plain(plan) == vector["fields"]
    assert plan.encode() == data
    assert plan.digest().hex() == vector["digest"]


@pytest.mark.parametrize("vector", load("plans.json")["undecodable"], ids=lambda vector: vector["what"])
def test_a_tampered_plan_is_undecodable(vector: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        RoundPlan.decode(bytes.fromhex(vector["encoding"]))


def test_the_vectors_hold_one_frame_of_each_type() -> None:
    missing = set(registry.names())
    for group in MESSAGES:
        kinds = [kind.__name__ for kind in registry.find(group["protocol"]).messages.types]
        assert [(frame["number"], frame["type"]) for frame in group["frames"]] == list(enumerate(kinds, 1))
        missing.remove(group["protocol"])
    assert missing == {"secagg"}  # which has the messages of secagg+


@pytest.mark.parametrize("group", MESSAGES, ids=lambda group: group["protocol"])
def test_a_frame_survives_the_wire(group: dict[str, Any]) -> None:
    plan = RoundPlan.decode(bytes.fromhex(group["plan"]))
    wire = registry.find(plan.protocol).messages
    for vector in group["frames"]:
        frame = bytes.fromhex(vector["frame"])
        message = wire.decode(plan, frame)
        assert type(message).__name__ == vector["type"]
        assert make.plain(message) == vector["fields"]
        assert wire.encode(plan, message) == frame


@pytest.mark.parametrize("group", MESSAGES, ids=lambda group: group["protocol"])
def test_a_tampered_frame_is_undecodable(group: dict[str, Any]) -> None:
    plan = RoundPlan.decode(bytes.fromhex(group["plan"]))
    wire = registry.find(plan.protocol).messages
    for vector in group["undecodable"]:
        with pytest.raises(DecodeError):
            wire.decode(plan, bytes.fromhex(vector["frame"]))


@pytest.mark.parametrize("name", ROUNDS)
def test_a_recorded_round_replays_and_tampered_frames_bounce_off(name: str) -> None:
    """Every party, from its seed, says what is recorded; a tampered frame first changes nothing of that."""
    vector = load(name)
    plan = RoundPlan.decode(bytes.fromhex(vector["plan"]))
    server, clients = make.parties(plan, vector["policy"], vector["clients"])
    says = {m["name"]: clients[m["name"]].start(plan, m["update"], m["weight"]) for m in vector["clients"]}
    bounced, outbox = [], dict[str, bytes]()
    for entry in vector["frames"]:
        frame, from_client = bytes.fromhex(entry["frame"]), entry["to"] == "server"
        if entry["phase"] != server.phase:
            assert not outbox, "the server sent something else besides"
            server.close(server.phase)
            outbox = dict(server.outbox())
        assert entry["phase"] == server.phase
        assert frame == (says.pop(entry["from"]) if from_client else outbox.pop(entry["to"]))
        for tampered in entry.get("bounces", ()):
            wrong = bytes.fromhex(tampered["frame"])
            with pytest.raises(getattr(errors, tampered["error"])):
                server.receive(entry["from"], wrong) if from_client else clients[entry["to"]].receive(wrong)
            bounced.append((entry["type"], tampered["what"]))
        if from_client:
            server.receive(entry["from"], frame)
        else:
            says[entry["to"]] = clients[entry["to"]].receive(frame)
    server.close(server.phase)
    assert len(bounced) == 2 * len(registry.find(plan.protocol).messages.types)
    assert server.outcome is not None
    assert server.outcome.total.tolist() == vector["total"]
    assert list(server.outcome.survivors) == vector["survivors"]
    assert server.outcome.event.survivors_digest.hex() == vector["survivors_digest"]


@pytest.mark.parametrize("name", [*ROUNDS, "round-threshold-ckks.json"])
def test_the_recorded_sum_is_the_plain_sum_of_the_survivors(name: str) -> None:
    vector = load(name)
    plan = RoundPlan.decode(bytes.fromhex(vector["plan"]))
    alive = [m for m in vector["clients"] if m["name"] in vector["survivors"]]
    assert len(alive) == len(vector["survivors"]) < len(vector["clients"])
    for i, total in enumerate(vector["sum"]):
        expected = sum(m["weight"] * m["update"][i] for m in alive)
        slack = 0 if plan.encoding.scale == 1 else sum(m["weight"] for m in alive) * 3 / plan.encoding.scale
        assert abs(total - expected) <= slack
    if plan.encoding.weight_bound > 1:
        assert vector["weight"] == vector["total"][-1] == sum(m["weight"] for m in alive)
