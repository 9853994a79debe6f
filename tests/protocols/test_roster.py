"""Identities, rosters, and their files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import roster as roster_module
from protocols.roster import Identity, Roster
from secagg.crypto import curve25519, keys, labels
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.errors import DecodeError, UsageError
from tests.controls import switch_off
from tests.reference import ed25519

NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")


@cache
def key(i: int) -> bytes:
    return SigningKey(Prg(bytes(32), start=32 * i)(32)).public


def test_a_key_under_which_anybody_can_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With such a key in a roster its client can be made to have signed whatever one likes."""
    weak = sorted(ed25519.encodings(ed25519.small_order()))
    for public in weak:
        file = tmp_path / f"{public.hex()}.toml"
        file.write_text(f'[clients]\nalice = "{key(1).hex()}"\nbob = "{public.hex()}"\n')
        with pytest.raises(UsageError, match=r"a roster with an unusable Ed25519 public key \[bob\]"):
            Roster.build({"alice": key(1), "bob": public})
        with pytest.raises(UsageError, match=r"a roster with an unusable Ed25519 public key \[bob\]"):
            Roster.load(file)
    switch_off(monkeypatch, keys, "check_signing_key", "curve25519.unusable(public)")
    switch_off(monkeypatch, curve25519, "signed", "unusable(public)")
    monkeypatch.setattr(curve25519, "_sodium", lambda: None)
    monkeypatch.setattr(roster_module, "check_signing_key", keys.check_signing_key)
    for public in weak:
        roster = Roster.load(tmp_path / f"{public.hex()}.toml")
        forged = ed25519.forged(public, keys.transcript(labels.SURVIVORS, b"whatever one likes"))
        keys.verify(roster.keys[1], forged, labels.SURVIVORS, b"whatever one likes")


def test_a_key_that_is_none(tmp_path: Path) -> None:
    """A file's keys are points of the curve: of another one nobody has the private key."""
    file = tmp_path / "roster.toml"
    file.write_text(f'[clients]\nalice = "{key(1).hex()}"\nbob = "02{bytes(31).hex()}"\n')
    assert ed25519.with_y(2) is None
    with pytest.raises(DecodeError, match=r"not an Ed25519 public key \[bob\]"):
        Roster.load(file)


@given(st.sets(NAMES, min_size=1, max_size=20))
def test_numbers_are_places_in_the_order_of_names(names: set[str]) -> None:
    roster = Roster.build({name: key(i) for i, name in enumerate(names)})
    assert list(roster.names) == sorted(names)
    assert [roster.number(name) for name in roster.names] == list(range(len(roster)))


@given(st.permutations(["alice", "bob", "carol"]))
def test_the_digest_does_not_depend_on_the_order_of_arrival(names: list[str]) -> None:
    keys = {name: key(ord(name[0])) for name in names}
    assert Roster.build(keys).digest == Roster.build(dict(sorted(keys.items()))).digest


def test_the_digest_depends_on_everything() -> None:
    rosters = [
        {"alice": key(1), "bob": key(2)},
        {"alice": key(2), "bob": key(1)},
        {"alice": key(1), "bobb": key(2)},
        {"alice": key(1)},
        {"alice": key(1), "bob": key(2), "carol": key(3)},
    ]
    assert len({Roster.build(keys).digest for keys in rosters}) == len(rosters)


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "a/b", "é", "x" * 65, "a\n", "a\0"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UsageError, match="is not a client name"):
        Identity.generate(name)
    with pytest.raises(UsageError, match="is not a client name"):
        Roster.build({name: key(1)})


def test_wrong_rosters() -> None:
    with pytest.raises(UsageError, match="at least one client"):
        Roster.build({})
    with pytest.raises(UsageError, match="at least one client, each with one key"):
        Roster(("a", "b"), (key(1),))
    with pytest.raises(UsageError, match="sorted by name"):
        Roster(("b", "a"), (key(1), key(2)))
    with pytest.raises(UsageError, match="sorted by name and names nobody twice"):
        Roster(("a", "a"), (key(1), key(2)))
    with pytest.raises(UsageError, match="a 32-byte key of its own"):
        Roster.build({"a": key(1), "b": key(1)})
    with pytest.raises(UsageError, match="a 32-byte key of its own"):
        Roster.build({"a": key(1)[:31]})
    alice = Identity.generate("alice")
    with pytest.raises(UsageError, match="two identities have the same name"):
        Roster.of([alice, Identity.generate("alice")])
    with pytest.raises(UsageError, match="'bob' is not in the roster"):
        Roster.of([alice]).number("bob")


def test_files_come_back(tmp_path: Path) -> None:
    alice, bob = Identity.generate("alice"), Identity.generate("b.o-b@example.org")
    alice.save(tmp_path / "alice.key")
    loaded = Identity.load(tmp_path / "alice.key")
    assert (loaded.name, loaded.key.secret, loaded.key.public) == ("alice", alice.key.secret, alice.key.public)
    roster = Roster.of([alice, bob])
    roster.save(tmp_path / "roster.toml")
    assert Roster.load(tmp_path / "roster.toml") == roster


def test_an_identity_file_is_its_owners_and_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    Identity.generate("alice").save(path)
    before = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="cannot write"):
        Identity.generate("alice").save(path)
    assert path.read_bytes() == before


def test_an_identity_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """As ssh does. A link is refused, too: it says nothing about who could read what it points to yesterday."""
    Identity.generate("alice").save(path := tmp_path / "alice.key")
    (link := tmp_path / "link.key").symlink_to(path)
    with pytest.raises(UsageError, match=r"cannot read .*: it is a link"):
        Identity.load(link)
    path.chmod(0o640)
    with pytest.raises(UsageError, match=r"cannot read .*: others can get at it \(mode 640"):
        Identity.load(path)
    path.chmod(0o400)
    assert Identity.load(path).name == "alice"


GOOD_KEY = "ab" * 32
FILES = {
    "not TOML": "name = ",
    "not UTF-8": b"\xff\xfe",
    "empty": "",
    "another table": "[people]\n",
    "upper case": f'[clients]\nalice = "{GOOD_KEY.upper()}"',
    "short key": '[clients]\nalice = "abcd"',
    "a number": "[clients]\nalice = 5",
    "more than clients": f'title = "x"\n[clients]\nalice = "{GOOD_KEY}"',
    "clients as a list": "clients = []",
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_are_no_rosters(what: str, tmp_path: Path) -> None:
    path, content = tmp_path / "file.toml", FILES[what]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    with pytest.raises(DecodeError):
        Roster.load(path)
    with pytest.raises(DecodeError):
        Identity.load(path)


IDENTITIES = {
    "no secret": 'name = "alice"',
    "no name": f'secret = "{GOOD_KEY}"',
    "more": f'name = "alice"\nsecret = "{GOOD_KEY}"\nage = 5',
    "a number for a name": f'name = 5\nsecret = "{GOOD_KEY}"',
    "short": 'name = "alice"\nsecret = "abcd"',
    "no hex": f'name = "alice"\nsecret = "{"zz" * 32}"',
}


@pytest.mark.parametrize("what", IDENTITIES)
def test_files_that_are_no_identities(what: str, tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    path.write_text(IDENTITIES[what])
    path.chmod(0o600)
    with pytest.raises(DecodeError) as refused:
        Identity.load(path)
    assert GOOD_KEY not in str(refused.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for load in (Roster.load, Identity.load):
        with pytest.raises(UsageError, match="cannot read"):
            load(tmp_path / "nobody")
    with pytest.raises(UsageError, match="cannot write"):
        Roster.build({"alice": key(1)}).save(tmp_path / "nowhere" / "roster.toml")
