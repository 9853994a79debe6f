"""What a Flower node remembers between two messages of a round, and what becomes of one that has forgotten it."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")

from flwr.app import Message, RecordDict
from flwr.common.serde import context_from_proto
from flwr.proto.message_pb2 import Context as ProtoContext

from protocols import registry
from protocols.adapters.flower import server as flower_server
from protocols.adapters.flower import state as flower_state
from protocols.adapters.flower.client import SecAgg
from protocols.adapters.flower.messages import content_with_frame, frame_in
from protocols.adapters.flower.state import SealedVector, StateJournal
from protocols.adapters.form import Form
from protocols.journal import MemoryJournal
from protocols.pairwise.messages import Verdict
from protocols.plan import RoundPlan
from protocols.roster import Identity
from protocols.rounds.sets import to_bitmap
from secagg.crypto.ring import Ring
from secagg.errors import PeerError, PolicyError
from tests.controls import switch_off
from tests.protocols.adapters.flower.fake_flower import (
    CLIP,
    Federation,
    Node,
    federation,
)
from tests.protocols.adapters.flower.scene import (
    ALL,
    MODEL,
    TRAIN,
    _any_plan,
    changes,
    check_exact,
    longer,
    one_round,
    refusals,
    secure,
)


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
    SealedVector(state, one, plan, os.urandom).save(b"vector")
    assert SealedVector(state, one, plan, os.urandom).load() == b"vector"
    with pytest.raises(PeerError, match="does not open"):
        SealedVector(state, other, plan, os.urandom).load()
    later = SealedVector(state, one, plan.next_round(), os.urandom)
    with pytest.raises(PolicyError, match="has been lost"):
        later.load()
    state.config_records["secagg.vector"]["plan"] = plan.next_round().digest()
    with pytest.raises(PeerError, match="does not open"):
        later.load()


def forgets(fed: Federation, exchange: int) -> None:
    """Client 2's SuperNode loses its memory before this exchange."""

    def fate(now: int, node: int) -> str:
        if (now, node) == (exchange, 102):
            fed.grid.nodes[102].state = b""
        return ""

    fed.grid.fate = fate


@pytest.mark.thinned(4)
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
    assert isinstance(kind.decode(plan, frame_in(asked.content)), Verdict)
    fewer = kind.encode(plan, Verdict(to_bitmap(range(4), range(5)), ()))
    other = flower_server._message_to(100, content_with_frame({"plan": plan.encode()}, fewer), 60.0)
    assert node.handle(other, 100, saved=False).has_error()
    if not journals:
        node.state = before[0]
        first, second = (frame_in(node.handle(m, 100, saved=False).content) for m in (asked, other))
        assert first != second  # control


def test_a_message_that_comes_again_gets_the_same_answer(tmp_path: Path) -> None:
    fed = federation(tmp_path, TRAIN)
    repeated = list[bool]()

    def again(reply: Message) -> Message:
        node, message = fed.grid.nodes[100], fed.grid.sent[-1]
        if message.metadata.dst_node_id == 100 and fed.grid.exchange in (1, 2, 3, 4):
            repeated.append(frame_in(node.handle(message, 100).content) == frame_in(reply.content))
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
