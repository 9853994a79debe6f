"""Nodes that ask for their deployment's signature: under a server that signs, and under servers that lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")

from protocols.adapters.flower.client import SecAgg
from protocols.roster import Identity, Roster
from secagg.crypto.prg import Prg
from secagg.errors import PolicyError
from secagg.signed_versions import Signatory, Signer, Version
from tests.controls import switch_off
from tests.protocols.adapters.flower.fake_flower import Federation, federation
from tests.protocols.adapters.flower.scene import ALL, MODEL, TRAIN, check_exact, one_round, refusals, secure

HOSPITALS = Identity.generate("hospitals", Prg(b"h" * 32))
NEXT: dict[str, Any] = {**MODEL, "w": MODEL["w"] + 1}


class Deployment:
    """Five nodes with journals and the name and key of their deployment, which signs rosters; their trainings are
    counted."""

    def __init__(self, folder: Path, *, journals: bool = True) -> None:
        self.folder, self.trained = folder, list[int]()
        self.signer = Signer(HOSPITALS.name, HOSPITALS.key, folder / "hospitals.versions")

        def train(partition: int, model: dict[str, np.ndarray]) -> Any:
            self.trained.append(partition)
            return TRAIN(partition, model)

        self.fed: Federation = federation(folder, train, journals=journals)
        for node in self.fed.grid.nodes.values():
            node.config["secagg-signed-by"] = str(self.signer.signatory)
        self.roster = self.fed.roster
        self.hand_out(self.fed.roster)

    def hand_out(self, roster: Roster) -> None:
        (path := self.folder / "roster.toml").unlink()
        self.roster = roster.signed(self.signer)
        self.roster.save(path)

    def server(self, sign: Callable[[bytes], Version] | None) -> Any:
        server = secure(self.fed, sign=sign)
        server.roster = self.roster
        return server

    def refused(self, caplog: pytest.LogCaptureFixture) -> str:
        """Why all nodes refused the last round, before they trained."""
        assert self.trained == []
        [reason] = set(refusals(caplog)[-5:])
        return reason


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def test_rounds_of_a_server_that_signs(deployment: Deployment) -> None:
    server = deployment.server(deployment.signer.model)
    for number in (1, 2):
        one_round(server, deployment.fed.grid, number=number)
        check_exact(server, ALL)
        assert server.outcome.event.plan.version.number == number  # the number of the round is told to clients, too


def test_a_server_that_signs_itself(deployment: Deployment, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Under its own key, in the deployment's name."""
    own = Signer(HOSPITALS.name, Identity.generate("server").key, tmp_path / "own.versions")
    assert one_round(deployment.server(own.model), deployment.fed.grid) == (None, None)
    assert "the model is not signed by hospitals as its version 1" in deployment.refused(caplog)


def test_a_server_that_signs_one_model_and_sends_another(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """The signature of the last round's model on the next round's."""
    signatures = list[Version]()

    def sign(digest: bytes) -> Version:
        signatures.append(deployment.signer.model(digest))
        return signatures[0]

    server = deployment.server(sign)
    one_round(server, deployment.fed.grid)
    check_exact(server, ALL)
    deployment.trained.clear()
    assert one_round(server, deployment.fed.grid, NEXT, number=2) == (None, None)
    assert "the model is not signed by hospitals as its version 1" in deployment.refused(caplog)


def test_a_server_that_goes_back_to_an_older_model(
    deployment: Deployment, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a plan of a session that nobody has seen, with the signature that it had. The nodes' states are forgotten."""
    signatures: dict[bytes, Version] = {}

    def sign(digest: bytes) -> Version:
        return signatures.setdefault(digest, deployment.signer.model(digest))

    for model, number in ((MODEL, 3), (NEXT, 4)):
        one_round(server := deployment.server(sign), deployment.fed.grid, model, number=number)
        assert server.outcome is not None
    deployment.trained.clear()
    for node in deployment.fed.grid.nodes.values():
        node.state = b""
    replay = deployment.server(signatures.get)  # it has no key, and all signatures that there were
    assert one_round(replay, deployment.fed.grid, MODEL, number=3) == (None, None)
    assert "version 1 of the model is older than version 2" in deployment.refused(caplog)
    monkeypatch.setattr("protocols.newest.check_not_older", lambda *_: False)
    one_round(again := deployment.server(signatures.get), deployment.fed.grid, MODEL, number=3)  # the control
    check_exact(again, ALL)


def test_two_versions_in_one_round_are_two_rounds(deployment: Deployment) -> None:
    """A server that shows half of the nodes another version, well signed, has a sum of one half at most."""
    other = deployment.server(deployment.signer.model)
    split = list(other.configure_train(1, *_asked(NEXT), deployment.fed.grid))
    server = deployment.server(deployment.signer.model)
    swapped = {message.metadata.dst_node_id: message for message in split[:2]}
    deployment.fed.grid.tamper = lambda message: (
        swapped.pop(message.metadata.dst_node_id, message) if deployment.fed.grid.exchange == 0 else message
    )
    one_round(server, deployment.fed.grid)
    assert server.outcome is not None
    assert len(server.outcome.survivors) == 3


def _asked(model: dict[str, Any]) -> Any:
    from tests.protocols.adapters.flower.fake_flower import config, record

    return record(dict(model)), config()


def test_the_nodes_own_config_says_who_signs(
    deployment: Deployment, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the app, which comes through the server: its policy asks for nothing here."""
    assert one_round(deployment.server(None), deployment.fed.grid) == (None, None)
    assert deployment.refused(caplog) == "secagg: PolicyError: the model is not signed, and hospitals signs its own"
    said = {reply.error.reason for reply in deployment.fed.grid.said}
    assert said == {"PolicyError: this client does not accept that"}
    switch_off(monkeypatch, SecAgg, "_policy_here", "signed_by is None", "True")
    one_round(server := deployment.server(None), deployment.fed.grid)  # the control
    check_exact(server, ALL)


def test_what_a_node_keeps_in_its_state_is_not_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server makes it forget that."""
    deployment = Deployment(tmp_path, journals=False)
    assert one_round(deployment.server(deployment.signer.model), deployment.fed.grid) == (None, None)
    assert "a client that goes back to no older version needs a journal that outlives it" in deployment.refused(caplog)


def test_nodes_leave_and_come_between_rounds(deployment: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    """The last of five leaves: its own node says so in one line. Then it comes back, under a newer roster."""
    server = deployment.server(deployment.signer.model)
    one_round(server, deployment.fed.grid)
    check_exact(server, ALL)
    deployment.hand_out(Roster.of(deployment.fed.identities[:4]))
    server.roster, nodes = deployment.roster, deployment.fed.grid.nodes
    gone = nodes.pop(104)
    one_round(server, deployment.fed.grid, number=2)
    check_exact(server, ALL - {"client-4"})
    message = deployment.fed.grid.sent[-1]
    assert gone.handle(message, 104).has_error()
    assert refusals(caplog)[-1] == "secagg: UsageError: 'client-4' is not in the roster"
    nodes[104] = gone
    deployment.hand_out(deployment.fed.roster)
    server.roster = deployment.roster
    one_round(server, deployment.fed.grid, number=3)
    check_exact(server, ALL)
    assert server.roster.version.number == 3


def test_a_round_that_the_signer_refuses_does_not_begin(deployment: Deployment) -> None:
    def sign(digest: bytes) -> Version:
        raise PolicyError("this is not the model that follows from the last sum")

    server = deployment.server(sign)
    assert list(server.configure_train(1, *_asked(MODEL), deployment.fed.grid)) == []
    assert server.aggregate_train(1, []) == (None, None)


def test_another_deployment_of_the_same_key(deployment: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    for node in deployment.fed.grid.nodes.values():
        node.config["secagg-signed-by"] = str(Signatory("clinics", HOSPITALS.key.public))
    assert one_round(deployment.server(deployment.signer.model), deployment.fed.grid) == (None, None)
    assert "the roster is not signed by clinics as its version 1" in deployment.refused(caplog)
