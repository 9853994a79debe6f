"""Signed versions: what a signature is about, and that numbers are counted and remembered."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from secagg import signed_versions
from secagg.crypto.keys import SigningKey
from secagg.errors import PolicyError, StorageError, UsageError
from secagg.signed_versions import (
    Seen,
    Signatory,
    Signer,
    Version,
    What,
    check_not_older,
    remember,
    remembered,
    signed,
)
from tests.controls import switch_off

KEY, OTHER_KEY = SigningKey(b"d" * 32), SigningKey(b"e" * 32)
HOSPITALS = Signatory("hospitals", KEY.public)
DIGEST, ANOTHER = b"m" * 32, b"n" * 32
GOOD = signed("hospitals", KEY, What.MODEL, 7, DIGEST)

REFUSED = {
    "unsigned": (None, DIGEST),
    "of something else": (GOOD, ANOTHER),
    "under another number": (Version(8, GOOD.signature), DIGEST),
    "of another deployment": (signed("clinics", KEY, What.MODEL, 7, DIGEST), DIGEST),
    "under another key": (signed("hospitals", OTHER_KEY, What.MODEL, 7, DIGEST), DIGEST),
    "a roster's": (signed("hospitals", KEY, What.ROSTER, 7, DIGEST), DIGEST),
    "a folder's": (signed("hospitals", KEY, What.FOLDER, 7, DIGEST), DIGEST),
}


@pytest.mark.parametrize("what", REFUSED)
def test_only_what_this_deployment_signed_is_accepted(what: str) -> None:
    HOSPITALS.check(What.MODEL, GOOD, DIGEST)
    version, digest = REFUSED[what]
    with pytest.raises(PolicyError, match=r"^the model is not signed"):
        HOSPITALS.check(What.MODEL, version, digest)


@pytest.mark.parametrize(
    ("what", "without", "instead"),
    [
        ("of something else", "(name.encode(), u32.encode(number), digest)", "(name.encode(), u32.encode(number))"),
        ("under another number", "(name.encode(), u32.encode(number), digest)", "(name.encode(), digest)"),
        ("of another deployment", "(name.encode(), u32.encode(number), digest)", "(u32.encode(number), digest)"),
    ],
)
def test_each_part_of_what_is_signed_counts(
    what: str, without: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with one part less in what is signed, what is refused above is accepted."""
    switch_off(monkeypatch, signed_versions, "_signed", without, instead)
    good = signed("hospitals", KEY, What.MODEL, 7, DIGEST)
    version, digest = REFUSED[what]
    assert version is not None
    other = signed("clinics", KEY, What.MODEL, 7, DIGEST) if what == "of another deployment" else good
    HOSPITALS.check(What.MODEL, Version(version.number, other.signature), digest)


def test_kinds_have_labels_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(set(signed_versions._LABELS.values())) == len(What) == len(signed_versions._LABELS)
    monkeypatch.setattr(signed_versions, "_LABELS", dict.fromkeys(What, b"one for all"))
    HOSPITALS.check(What.MODEL, signed("hospitals", KEY, What.ROSTER, 7, DIGEST), DIGEST)  # the control


@pytest.mark.parametrize(
    "text", ["hospitals", "=" + "00" * 32, "hospitals=00", "hospitals=" + "g" * 64, "a\n=" + "c" * 64]
)
def test_what_is_no_deployment(text: str) -> None:
    with pytest.raises(UsageError):
        Signatory.parse(text)


def test_a_key_under_which_anybody_signs_is_none() -> None:
    for key in (bytes([1]) + bytes(31), bytes([2]) + bytes(31)):  # of order 1, and not on the curve
        with pytest.raises(UsageError, match="Ed25519 public key"):
            Signatory("hospitals", key)
    with pytest.raises(UsageError, match="32 bytes"):
        Signatory("hospitals", KEY.public + b"\0")


@pytest.mark.parametrize(("number", "length"), [(0, 64), (1 << 32, 64), (1, 63)])
def test_what_is_no_version(number: int, length: int) -> None:
    with pytest.raises(UsageError):
        Version(number, bytes(length))


def test_no_other_number_is_signed() -> None:
    for number in (0, 1 << 32):
        with pytest.raises(UsageError, match="between 1 and"):
            signed("hospitals", KEY, What.MODEL, number, DIGEST)
    with pytest.raises(UsageError, match="32 bytes"):
        signed("hospitals", KEY, What.MODEL, 1, b"short")


def test_the_newest_that_was_seen_is_the_oldest_that_is_accepted() -> None:
    assert check_not_older(What.MODEL, 1, DIGEST, None)
    assert check_not_older(What.MODEL, 8, ANOTHER, Seen(7, DIGEST))
    assert not check_not_older(What.MODEL, 7, DIGEST, Seen(7, DIGEST))
    with pytest.raises(PolicyError, match="version 6 of the model is older than version 7"):
        check_not_older(What.MODEL, 6, DIGEST, Seen(7, DIGEST))
    with pytest.raises(PolicyError, match="another model than the one that was seen here under the number 7"):
        check_not_older(What.MODEL, 7, ANOTHER, Seen(7, DIGEST))


def test_a_signer_counts_each_kind_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    def sign(what: What, digest: bytes, number: int | None = None) -> int:
        version = Signer("hospitals", KEY, tmp_path / "counted").sign(what, digest, number)
        HOSPITALS.check(what, version, digest)
        return version.number

    assert [sign(What.MODEL, digest) for digest in (DIGEST, DIGEST, ANOTHER, DIGEST)] == [1, 1, 2, 3]
    assert sign(What.ROSTER, DIGEST) == 1
    assert sign(What.MODEL, ANOTHER, 20) == 20
    assert sign(What.MODEL, ANOTHER, 20) == 20
    for number, digest in ((20, DIGEST), (19, ANOTHER)):
        with pytest.raises(PolicyError):
            sign(What.MODEL, digest, number)
    assert sign(What.MODEL, DIGEST) == 21


def test_a_number_is_on_the_disk_before_its_signature_is_out(tmp_path: Path) -> None:
    """Or a crash would make it be given twice, to two models, and clients that saw the first refuse the second."""
    with pytest.raises(StorageError):
        Signer("hospitals", KEY, tmp_path / "nowhere" / "counted").model(DIGEST)


@pytest.mark.parametrize("content", ["", "[]", '{"model": 3}', '{"model": {"number": "3", "digest": ""}}'])
def test_a_file_of_versions_that_is_none(content: str, tmp_path: Path) -> None:
    """Nothing is counted from the beginning because a file was damaged."""
    (path := tmp_path / "counted").write_text(content)
    path.chmod(0o600)
    with pytest.raises(StorageError, match="not a file of versions"):
        remembered(path)


def test_what_others_can_write_is_not_remembered(tmp_path: Path) -> None:
    remember(path := tmp_path / "counted", {"model": Seen(3, DIGEST)})
    assert remembered(path) == {"model": Seen(3, DIGEST)}
    assert json.loads(path.read_text())["model"]["number"] == 3
    os.chmod(path, 0o666)
    with pytest.raises(StorageError, match="others can get at it"):
        remembered(path)
