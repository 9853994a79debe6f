"""Sites that ask for their deployment's signature, and servers that have its key, or an old signature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("nvflare", reason="NOT TESTED: the extra nvflare is not installed")

from protocols.adapters.nvflare.server import SecureFedAvg
from protocols.adapters.nvflare.site import SITE_FILE
from protocols.plan import RoundPlan
from protocols.roster import Identity, load_signer
from secagg.crypto.prg import Prg
from secagg.signed_versions import Signer
from tests.controls import switch_off
from tests.protocols.adapters.nvflare.scene import (
    MODEL,
    POLICY,
    SITES,
    Federation,
    averaging,
    check_sum,
    moved,
    proposal,
    refused,
)

HOSPITALS = Identity.generate("hospitals", Prg(b"h" * 32))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    HOSPITALS.save(tmp_path / "hospitals.key")
    return load_signer(tmp_path / "hospitals.key")


@pytest.fixture
def federation(tmp_path: Path, signer: Signer) -> Iterator[Federation]:
    """Every site has a signed roster, a journal, and the name and key of the deployment; the server has no key."""
    policy = f'{POLICY}signed_by = "{signer.signatory}"\n'
    federation = Federation(tmp_path / "sites", policy=policy, journal=True)
    federation.roster = federation.roster.signed(signer)
    for name in (*SITES, "server"):
        (path := federation.local(name) / "roster.toml").unlink()
        federation.roster.save(path)
    yield federation
    federation.close()


def test_a_server_with_the_deployments_key(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """It signs each round's model. Control: one that forgets to is refused by all."""
    local = federation.local("server")
    HOSPITALS.save(local / "hospitals.key")
    (local / SITE_FILE).write_text('roster = "roster.toml"\nsigns = "hospitals.key"\n')
    outcomes = federation.run(averaging(num_rounds=2))
    for number, outcome in enumerate(outcomes, 1):
        assert outcome.survivors == tuple(SITES)
        assert outcome.event.plan.version is not None
        assert outcome.event.plan.version.number == number
    check_sum(outcomes[0], SITES)
    switch_off(monkeypatch, SecureFedAvg, "signed", "self._signer is None", "True")
    assert federation.run(averaging()) == []


def test_a_server_without_it_gets_an_error_and_no_training(federation: Federation) -> None:
    assert federation.run(averaging()) == []
    assert all(refused(federation.sites[name], reply) for name, reply in zip(SITES, federation.replies, strict=True))


def test_a_site_goes_back_to_no_older_model_or_roster(federation: Federation, signer: Signer) -> None:
    site, (plan, form) = federation.sites["site-1"], proposal(federation)

    def model(number: int) -> dict[str, object]:
        return {"w": moved(number)["w"], "steps": MODEL["steps"]}

    def signed(number: int) -> RoundPlan:
        instructions = {"total rounds": None, "job": "job"}
        other = replace(plan, session=bytes([number]) * 16, model=form.model_digest(model(number), instructions))  # type: ignore[arg-type]
        return other.signed(signer.model)

    old, new = signed(1), signed(2)
    assert site.ask(new, form, model(2)).get_return_code() == "OK"
    calls, site.trainer.calls = site.trainer.calls, 0
    assert calls == 1
    assert refused(site, site.ask(old, form, model(1)))
    assert refused(site, site.ask(replace(new, session=b"3" * 16, version=None), form, model(2)))
    site.executor._files.close()
    again = federation.site("site-1", site.trainer)
    assert refused(again, again.ask(old, form, model(1)))
    again.executor._files.close()
    newer = federation.roster.signed(signer, 7)
    (path := federation.local("site-1") / "roster.toml").unlink()
    newer.save(path)
    once_more = federation.site("site-1", site.trainer)
    assert once_more.ask(replace(new, session=b"4" * 16), form, model(2)).get_return_code() == "OK"
    once_more.executor._files.close()
    site.trainer.calls = 0
    path.unlink()
    federation.roster.save(path)
    last = federation.site("site-1", site.trainer)
    assert refused(last, last.ask(replace(new, session=b"5" * 16), form, model(2)))
