"""A client that keeps a privacy budget charges it in every protocol: before its vector leaves, and before it helps to
open the sum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protocols import registry
from protocols.client import Client
from secagg.errors import PolicyError, SecAggError, ThresholdError
from tests.controls import switch_off
from tests.scenes.client_ledgers import IDENTITIES, NAMES, ROSTER, Deployment, N
from tests.scenes.journals import KeptJournal

pytestmark = pytest.mark.thinned(4)


@pytest.mark.parametrize("protocol", registry.names())
def test_a_client_charges_what_happened(protocol: str, tmp_path: Path) -> None:
    """Also in the ledger: that it was the worst case at first, and the same facts as the server's in the end."""
    deployment = Deployment(protocol, tmp_path)
    deployment.run(**{NAMES[0]: "upload"})
    commits = [list(deployment.ledgers[name].entries())[-1] for name in NAMES[1:]]
    assert {tuple(deployment.phases(name)) for name in NAMES[1:]} == {("genesis", "reserve", "commit")}
    theirs = list(deployment.books.entries())[-1]
    for entry in commits:
        assert entry["sum"]["survivors"] == theirs["sum"]["survivors"] == N - 1
        assert entry["cost"] == theirs["cost"]


@pytest.mark.parametrize("protocol", registry.names())
def test_what_has_left_is_reserved_whatever_comes_of_it(protocol: str, tmp_path: Path) -> None:
    """A server that takes the vectors and is heard of no more may have a sum: the worst case stays in the ledger."""
    deployment = Deployment(protocol, tmp_path)
    with pytest.raises((ThresholdError, SecAggError)):
        deployment.run(**dict.fromkeys(NAMES, "consistency"))
    assert {tuple(deployment.phases(name)) for name in NAMES} == {("genesis", "reserve")}
    assert all(client.uploaded for client in deployment.clients.values())


@pytest.mark.parametrize("protocol", registry.names())
def test_the_server_commits_before_anything_is_opened(protocol: str, tmp_path: Path) -> None:
    """What it sends out with the survivors' signatures makes clients open the sum: that is in its ledger by then."""
    deployment = Deployment(protocol, tmp_path)
    opened: list[bool] = []

    def watched(name: str) -> Any:
        receive = deployment.clients[name].receive

        def hear(frame: bytes) -> bytes:
            phases = list(deployment.server.steps)
            if phases.index(deployment.server.phase) > phases.index("consistency"):
                opened.append("commit" in [entry["phase"] for entry in deployment.books.entries()])
            return receive(frame)

        return hear

    for name, client in deployment.clients.items():
        client.receive = watched(name)  # type: ignore[method-assign]
    deployment.run()
    assert opened
    assert all(opened)


@pytest.mark.parametrize("protocol", registry.names())
def test_what_the_ledger_knows_and_the_journal_does_not_is_refused(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reserved or committed: the client would draw anew, and be charged for one release of two."""
    deployment = Deployment(protocol, tmp_path)
    deployment.run()
    clients = [
        Client(one, ROSTER, policy=deployment.policy, journal=KeptJournal(), ledger=deployment.ledgers[one.name])
        for one in IDENTITIES[:2]
    ]
    for client in clients:
        with pytest.raises(PolicyError, match="the ledger knows this plan"):
            client.check(deployment.plan)
    switch_off(monkeypatch, Client, "_check_uncharged", "self._ledger.knows(worst)")
    assert not any(client.check(deployment.plan) for client in clients)  # the control: it goes on as with a new plan
