"""Sealed files: what opens, and how each thing that can be wrong with one is called."""

import os
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import at_rest
from secagg.at_rest import CHUNK, KEY_FILE, KEYS, Folder, Keyring, Sealing, add_key, opened, read_sealed
from secagg.errors import AlteredError, SealedError, StorageError, UnsealedError, UsageError, WrongKeyError
from secagg.files import write_file

OLD, NEW = bytes(32), bytes(range(32))
RING = Keyring([OLD])
HEAD = 66 + len("a")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Files of several chunks, without megabytes."""
    monkeypatch.setattr(at_rest, "CHUNK", 16)
    return 16 + 16  # with its tag


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5])
def test_a_text_of_any_length_comes_back(size: int) -> None:
    text = os.urandom(size)
    assert RING.open(RING.seal(text, "a"), "a") == text


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_pieces_are_one_text(pieces: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(at_rest, "CHUNK", 16)
        out = BytesIO()
        sealing = Sealing(out, RING, "a")
        for piece in pieces:
            sealing.write(piece)
        sealing.finish()
        assert RING.open(out.getvalue(), "a") == b"".join(pieces)
        assert len(out.getvalue()) == HEAD + len(b"".join(pieces)) + 16 * max(1, -(-len(b"".join(pieces)) // 16))


def test_the_same_text_is_never_sealed_alike() -> None:
    sealed = {RING.seal(b"text", "a")[26:] for _ in range(10)}
    assert len(sealed) == 10


def test_every_bit_that_is_flipped_is_noticed_and_is_no_wrong_key(small_chunks: int) -> None:
    sealed = RING.seal(bytes(40), "a")
    for bit in range(8 * len(sealed)):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AlteredError):
            RING.open(bytes(altered), "a")


def test_every_length_that_is_cut_is_noticed(small_chunks: int) -> None:
    sealed = RING.seal(bytes(40), "a")
    for length in range(HEAD - 1, len(sealed)):
        with pytest.raises(AlteredError):
            RING.open(sealed[:length], "a")
    with pytest.raises(AlteredError, match="a was cut short"):
        RING.open(sealed[: HEAD + small_chunks], "a")
    with pytest.raises(AlteredError):
        RING.open(sealed + b"\0", "a")


def spliced(sealed: bytes, size: int, order: list[int]) -> bytes:
    """A sealed file with its chunks in this order."""
    chunks = [sealed[at : at + size] for at in range(HEAD, len(sealed), size)]
    return sealed[:HEAD] + b"".join(chunks[number] for number in order)


@pytest.mark.parametrize("order", [[1, 0, 2], [0, 2], [0, 1, 1, 2], [2], [0, 1, 2, 0], [0, 1]])
def test_chunks_do_not_change_places(small_chunks: int, order: list[int]) -> None:
    sealed = RING.seal(bytes(40), "a")
    assert RING.open(spliced(sealed, small_chunks, [0, 1, 2]), "a") == bytes(40)
    with pytest.raises(AlteredError):
        RING.open(spliced(sealed, small_chunks, order), "a")


def test_chunks_of_two_writings_do_not_mix(small_chunks: int) -> None:
    one, other = RING.seal(bytes(40), "a"), RING.seal(bytes(40), "a")
    with pytest.raises(AlteredError):
        RING.open(one[: HEAD + small_chunks] + other[HEAD + small_chunks :], "a")


def test_no_nonce_comes_twice_and_there_is_a_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    nonces = [at_rest._nonce(number, last) for number in (0, 1, 2**32 - 1) for last in (False, True)]
    assert len(set(nonces)) == 6
    assert {len(nonce) for nonce in nonces} == {12}
    monkeypatch.setattr(at_rest, "CHUNK", 1)
    monkeypatch.setattr(at_rest, "_MOST_CHUNKS", 2)
    assert RING.open(RING.seal(b"ab", "a"), "a") == b"ab"
    with pytest.raises(StorageError, match="at most"):
        RING.seal(b"abc", "a")


@pytest.mark.parametrize(
    ("ring", "data", "error", "said"),
    [
        (Keyring([NEW]), RING.seal(b"text", "a"), WrongKeyError, f"a is sealed under key {RING.newest}"),
        (RING, b"", UnsealedError, "a is not sealed"),
        (RING, b"a longer text than any head would be" * 10, UnsealedError, "a is not sealed"),
        (RING, RING.seal(b"text", "b"), AlteredError, "another file, put in its place: it was sealed as b"),
        (RING, RING.seal(b"text", "a", bytes([1] * 16)), AlteredError, "a is of another folder"),
    ],
    ids=["wrong key", "empty", "plain", "another file", "another folder"],  # the salts are drawn: two workers differ
)
def test_what_is_wrong_has_a_name(ring: Keyring, data: bytes, error: type[StorageError], said: str) -> None:
    with pytest.raises(error, match=said):
        ring.open(data, "a")


def test_the_newest_key_seals_and_all_open() -> None:
    both, sealed = Keyring([NEW, OLD]), RING.seal(b"text", "a")
    assert both.open(sealed, "a") == b"text"
    assert not both.under_newest(sealed)
    assert both.under_newest(again := both.seal(b"text", "a"))
    assert Keyring([NEW]).open(again, "a") == b"text"
    assert NEW.hex() not in repr(both)


def test_keys_come_from_a_private_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# made in May\n{NEW.hex()}\n\n{OLD.hex()}\n")
    with pytest.raises(StorageError, match="others can get at it"):
        Keyring.load(file)
    file.chmod(0o600)
    assert Keyring.load(file).newest == Keyring([NEW]).newest
    named, given_ = {KEY_FILE: str(file)}, {KEYS: f"{NEW.hex()},{OLD.hex()}"}
    for environment in (named, given_):
        found = Keyring.of_environment(environment)
        assert repr(found) == repr(Keyring([NEW, OLD]))
    assert Keyring.of_environment({}) is None
    with pytest.raises(UsageError, match="both"):
        Keyring.of_environment(named | given_)
    for name in (KEY_FILE, KEYS):  # a secret that did not arrive
        with pytest.raises(UsageError, match=f"{name} is set, and empty"):
            Keyring.of_environment({name: ""})
    for wrong in ("", "# nothing\n", NEW.hex()[1:], "x" * 64):
        file.write_text(wrong)
        with pytest.raises(UsageError, match="64 hexadecimal digits"):
            Keyring.load(file)
    with pytest.raises(UsageError, match="no file of keys"):
        Keyring.load(tmp_path / "nowhere")
    for keys in ([], [b"short"]):
        with pytest.raises(UsageError, match="one or more keys"):
            Keyring(keys)


def test_a_key_that_another_process_adds_meanwhile_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has sealed with that key could not be opened any more."""
    path, real, others = tmp_path / "keys", at_rest.write_file, list[str]()

    def meanwhile(file: Path, *pieces: bytes, private: bool) -> None:
        monkeypatch.setattr(at_rest, "write_file", real)
        with suppress(StorageError):  # it is refused, as long as this one is at work
            add_key(path)
            others.append(Keyring.load(path).newest)
        real(file, *pieces, private=private)

    monkeypatch.setattr(at_rest, "write_file", meanwhile)
    add_key(path)
    assert all(key in repr(Keyring.load(path)) for key in others)
    add_key(path)
    assert len(path.read_text().split()) == 2


# Folders


def changed(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def test_a_folder_is_sealed_or_it_is_plain(tmp_path: Path) -> None:
    plain, sealed = Folder(tmp_path), Folder(tmp_path, RING)
    plain.write("plain", b"text", private=False)
    sealed.write("sealed", b"te", b"xt", private=True)
    assert (plain.read("plain"), sealed.read("sealed", private=True)) == (b"text", b"text")
    assert (tmp_path / "sealed").stat().st_mode & 0o777 == 0o600
    with pytest.raises(SealedError, match=f"{tmp_path}/sealed is sealed, and no key was given: {KEY_FILE}"):
        plain.read("sealed")
    with pytest.raises(UnsealedError, match=f"{tmp_path}/plain: plain is not sealed"):
        sealed.read("plain")
    for folder in (plain, sealed):
        with pytest.raises(FileNotFoundError):
            folder.read("nothing")
        assert not folder.create("plain", b"other", private=False)
        with pytest.raises(StorageError, match="longer"):
            folder.read("sealed", most=3)
    assert (tmp_path / "plain").read_bytes() == b"text"
    assert sealed.create("new", b"text", private=False)
    assert Folder(tmp_path, RING).read("new") == b"text"
    (tmp_path / "link").symlink_to(tmp_path / "sealed")
    with pytest.raises(StorageError, match="it is a link"):
        sealed.read("link")
    (tmp_path / "sealed").chmod(0o644)
    with pytest.raises(StorageError, match="others can get at it"):
        sealed.read("sealed", private=True)


def test_files_of_a_folder_are_not_exchanged_nor_mixed_with_those_of_another(tmp_path: Path) -> None:
    folders = [Folder(tmp_path / name, RING) for name in ("one", "two")]
    for folder in folders:
        folder.path.mkdir()
        folder.write("a", b"text", private=False)
        folder.write("b", b"text", private=False)
    one, two = (folder.path for folder in folders)
    changed(one / "a", lambda _: (one / "b").read_bytes())
    with pytest.raises(AlteredError, match="a is another file, put in its place: it was sealed as b"):
        Folder(one, RING).read("a")
    changed(one / "a", lambda _: (two / "a").read_bytes())
    with pytest.raises(AlteredError, match="of another folder"):
        folders[0].read("a")
    with pytest.raises(AlteredError, match=r"several folders, or one was altered: a, b$"):
        Folder(one, RING).read("b")
    assert Folder(two, RING).read("a") == b"text"


def test_a_folder_in_a_folder_is_of_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path, RING)
    (tmp_path / "private").mkdir()
    folder.within("private").write("a", b"text", private=True)
    folder.write("a", b"other", private=True)
    again = Folder(tmp_path, RING).within("private")
    assert again.read("a") == b"text"
    changed(tmp_path / "private" / "a", lambda _: (tmp_path / "a").read_bytes())
    with pytest.raises(AlteredError, match="private/a is another file, put in its place: it was sealed as a"):
        again.read("a")


def test_what_is_not_finished_is_not_there(tmp_path: Path) -> None:
    def begun() -> None:
        with Folder(tmp_path, RING).writing("a", private=True) as file:
            file.write(b"text")
            raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="the disk is full"):
        begun()
    assert list(tmp_path.iterdir()) == []


def test_a_file_alone_is_bound_to_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, RING.seal(b"text", "identity"), private=True)
    assert read_sealed(path, RING, "identity", private=True) == b"text"
    with pytest.raises(AlteredError, match=f"{path}: ledger is another file"):
        read_sealed(path, RING, "ledger")
    with pytest.raises(SealedError):
        read_sealed(path, None, "identity")


def test_reading_takes_no_second_copy(tmp_path: Path) -> None:
    import tracemalloc

    folder, size = Folder(tmp_path, RING), 20 * CHUNK
    text = bytes(size)
    tracemalloc.start()
    try:
        folder.write("a", text, private=False)
        _, most = tracemalloc.get_traced_memory()
        assert most < 4 * CHUNK
        tracemalloc.reset_peak()
        assert len(folder.read("a")) == size
        _, most = tracemalloc.get_traced_memory()
        assert most < 1.3 * size + 4 * CHUNK
    finally:
        tracemalloc.stop()


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    sealed = RING.seal(bytes(40), "a")
    with pytest.raises(AlteredError, match="cut short while"):
        opened(BytesIO(sealed), RING, "a", at_rest.NO_FOLDER, len(sealed) + 3)


def test_a_file_that_grows_is_refused_and_a_name_has_an_end() -> None:
    with pytest.raises(StorageError, match="it grows"):
        Folder("/proc/self").read("status")  # of no bytes, it says
    assert RING.open(RING.seal(b"text", "n" * 1024), "n" * 1024) == b"text"
    with pytest.raises(UsageError, match="at most 1024 bytes"):
        RING.seal(b"text", "n" * 1025)


def test_ids_of_keys_are_their_own() -> None:
    rings = [Keyring([bytes([number]) * 32]) for number in range(20)]
    assert all(one.newest != other.newest for one, other in pairwise(rings))
