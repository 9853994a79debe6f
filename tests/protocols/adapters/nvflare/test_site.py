"""What a site has in its own folder, and which mistakes in it are refused."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("nvflare", reason="NOT TESTED: the extra nvflare is not installed")


from protocols.adapters.nvflare import site as nvflare_site
from protocols.adapters.nvflare.site import SITE_FILE, site_client
from protocols.roster import Identity, Roster
from secagg.crypto.prg import Prg
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.protocols.adapters.nvflare.scene import Federation


def test_a_key_of_another_site_is_refused(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    local = federation.local("site-1")
    (local / "site-1.key").write_text((federation.local("site-2") / "site-2.key").read_text())
    with pytest.raises(UsageError, match="the key is that of site-2"):
        site_client(local, "site-1", ExitStack())
    switch_off(monkeypatch, nvflare_site, "site_client", "identity.name != site")
    assert nvflare_site.site_client(local, "site-1", ExitStack()).identity.name == "site-2"


@pytest.mark.parametrize("site", ["../site-2/site-2", "../site-2", "..", "/site-2", "site-2/../site-1", "site-1\0"])
def test_a_site_that_is_named_like_a_path(
    federation: Federation, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that lies elsewhere is that of another name, whatever leads to it; and no journal is begun there."""
    local, other = federation.local("site-1"), federation.local("site-2")
    (local.parent / "site-2").mkdir(exist_ok=True)
    shutil.copy(other / "site-2.key", local.parent / "site-2" / "site-2.key")
    shutil.copy(other / "site-2.key", local.parent / "site-2.key")
    (local / SITE_FILE).write_text(
        (local / SITE_FILE).read_text().replace("[policy]", "journal = '{site}.db'\n[policy]")
    )
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError), ExitStack() as held:
        site_client(local, site, held)
    assert sorted(tmp_path.rglob("*")) == before
    if site == "../site-2":  # the control: without the comparison it has that key, and a journal elsewhere
        switch_off(monkeypatch, nvflare_site, "site_client", "identity.name != site")
        with ExitStack() as held:
            assert nvflare_site.site_client(local, site, held).identity.name == "site-2"
        assert (local.parent / "site-2.db").exists()


KEY, ROSTER = "identity = '{site}.key'\n", "roster = 'roster.toml'\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{ROSTER}[policy]\nmin_contributors = 2", "where the identity is"),
        (f"{KEY}[policy]\nmin_contributors = 2", "where the roster is"),
        (f"{KEY}{ROSTER}", r"has no \[policy\]"),
        (f"{KEY}{ROSTER}policy = 3", r"has no \[policy\]"),
        (f"{KEY}{ROSTER}[policy]\nleast = 2", "least"),
        (f"{KEY}{ROSTER}[policy]\nmin_contributors = 2\nbeacon = 'xyz'", "hexadec"),
        (f"{KEY}{ROSTER}[policy]\nmin_contributors = 1", "at least 2"),
        (f"{KEY}rooster = 'roster.toml'", "says rooster"),
        ("identity =", "not a TOML file"),
        (f"identity = {'[' * 10_000}", "not a TOML file"),
        (f"identity = {'[' * 100_000}", "longer than"),
    ],
)
def test_a_folder_with_mistakes_is_refused(federation: Federation, text: str, reason: str) -> None:
    local = federation.local("site-1")
    (local / SITE_FILE).write_text(text)
    with pytest.raises(UsageError, match=reason):
        site_client(local, "site-1", ExitStack())


def test_a_folder_without_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        site_client(tmp_path, "site-1", ExitStack())


def test_a_deployment_is_a_name(tmp_path: Path) -> None:
    identity = Identity.generate("site-1", Prg(bytes(32)))
    identity.save(tmp_path / "site-1.key")
    Roster.of([identity, Identity.generate("site-2", Prg(bytes([1]) * 32))]).save(tmp_path / "roster.toml")
    words = 'identity = "{site}.key"\nroster = "roster.toml"\ndeployment = %s\n[policy]\nmin_contributors = 2\n'
    (tmp_path / SITE_FILE).write_text(words % '"hospitals"')
    assert site_client(tmp_path, "site-1", ExitStack()).identity.name == "site-1"
    (tmp_path / SITE_FILE).write_text(words % "7")
    with pytest.raises(UsageError, match="is not a name"):
        site_client(tmp_path, "site-1", ExitStack())
