"""A file that others append to is read once, whatever becomes of it: rotated, truncated, replaced, cut off."""

import os
from pathlib import Path

import pytest

from recsys.stream.events import LONGEST, Position
from recsys.stream.tail import FileTail
from secagg.errors import StorageError
from tests.scenes.streams import after, append, read_all


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def rotated(path: Path) -> None:
    """As logrotate does."""
    older = sorted(path.parent.glob(f"{path.name}.*"), key=lambda one: int(one.suffix[1:]), reverse=True)
    for one in older:
        one.rename(path.with_name(f"{path.name}.{int(one.suffix[1:]) + 1}"))
    path.rename(path.with_name(f"{path.name}.1"))


def said(path: Path, position: Position | None = None) -> list[bytes]:
    """What a reader that begins now reads."""
    tail = FileTail(path, {} if position is None else {"file": position})
    try:
        return [message.data for message in read_all(tail)]
    finally:
        tail.close()


def test_lines_are_read_when_they_are_whole(path: Path) -> None:
    tail = FileTail(path, {})
    assert tail.read(9) == []  # it is not there yet
    append(path, "one\ntw")
    assert [message.data for message in tail.read(9)] == [b"one"]
    append(path, "o\n\nthree\nfour\n")
    assert [message.data for message in tail.read(2)] == [b"two", b""]
    assert tail.read(9, {"file"}) == []
    assert [message.data for message in tail.read(9)] == [b"three", b"four"]
    tail.close()


def test_every_place_can_be_gone_on_from(path: Path) -> None:
    lines = [b"a", b"", b"b" * 700, b"c", b"", b"d"]
    path.write_bytes(b"\n".join(lines) + b"\n")
    tail = FileTail(path, {})
    messages = read_all(tail, 2)
    tail.close()
    for number, message in enumerate(messages):
        assert said(path, message.after) == lines[number + 1 :]
        assert message.at.order < message.after.order


def test_rotations_lose_nothing_and_repeat_nothing(path: Path) -> None:
    """A reader that lives through all of them, and one that begins anew after each line."""
    tail, place, living, anew = FileTail(path, {}), dict[str, Position](), list[bytes](), list[bytes]()
    for number in range(40):
        append(path, f"line {number}\n")
        if number % 3 == 0:
            rotated(path)
        if number % 7 == 0:
            rotated_empty(path)
        if number % 2:
            living += [message.data for message in read_all(tail, 1 + number % 4)]
        if number % 5 == 0:
            again = FileTail(path, place)
            read = read_all(again, 3)
            again.close()
            place |= after(read)
            anew += [message.data for message in read]
    append(path, "end\n")
    again = FileTail(path, place)
    living += [message.data for message in read_all(tail)]
    anew += [message.data for message in read_all(again)]
    assert living == anew == [*(f"line {number}".encode() for number in range(40)), b"end"]
    tail.close()
    again.close()


def rotated_empty(path: Path) -> None:
    """A file that nobody wrote to is rotated, too."""
    if path.exists():
        rotated(path)
    path.touch()
    rotated(path)


def test_a_file_is_not_left_before_a_newer_one_has_a_line(path: Path) -> None:
    """Whoever has it open writes on, until told of the new one."""
    tail = FileTail(path, {})
    append(path, "one\n")
    assert len(tail.read(9)) == 1
    rotated(path)
    path.touch()
    assert tail.read(9) == []
    append(path.with_name("events.jsonl.1"), "two\nthr")
    append(path, "fo")
    assert [message.data for message in tail.read(9)] == [b"two"]
    append(path, "ur\n")
    last = read_all(tail)
    assert [(message.data, message.at.generation) for message in last] == [(b"thr", 0), (b"four", 1)]
    assert said(path, last[0].after) == [b"four"]
    tail.close()


def test_what_was_overwritten_or_is_gone_is_an_error(path: Path, tmp_path: Path) -> None:
    append(path, "one\n", "two\n", "three\n")
    tail = FileTail(path, {})
    second = tail.read(2)[-1].after
    assert said(path, second) == [b"three"]
    whole = path.read_bytes()
    for data in (b"one\n", b"one\ntoo\nthree\n", b"eno\ntwo\nthree\n", b""):
        path.write_bytes(data)
        with pytest.raises(StorageError, match="is gone, or was truncated or overwritten"):
            said(path, second)
    path.write_bytes(b"o\n")
    with pytest.raises(StorageError, match="was truncated"):
        tail.read(9)
    tail.close()
    path.write_bytes(whole)
    path.with_name("events.jsonl.7").write_bytes(whole)
    with pytest.raises(StorageError, match="cannot be told apart"):
        said(path, second)
    path.rename(tmp_path / "events-2026.jsonl")
    assert said(path, second) == [b"three"]  # the copy
    path.with_name("events.jsonl.7").unlink()
    with pytest.raises(StorageError, match="is gone"):
        said(path, second)


def test_a_file_that_is_deleted_while_it_is_read_is_an_error(path: Path) -> None:
    append(path, "one\n")
    tail = FileTail(path, {})
    assert len(tail.read(9)) == 1
    path.unlink()
    append(path, "two\n")
    with pytest.raises(StorageError, match="was deleted"):
        tail.read(9)
    tail.close()


def test_a_line_without_end_takes_no_memory_and_is_one_message(path: Path) -> None:
    tail = FileTail(path, {})
    with path.open("wb") as file:
        for _ in range(5):
            file.write(b"x" * (1 << 20))
            file.flush()
            assert tail.read(9) == []
        file.write(b"\nshort\n")
    long, short = tail.read(9)
    assert (len(long.data), short.data) == (LONGEST + 1, b"short")
    assert said(path, long.after) == [b"short"]
    tail.close()


def test_descriptors_are_closed(path: Path) -> None:
    append(path, "one\n", "two\n")
    place = FileTail(path, {})
    position = place.read(1)[0].after
    place.close()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        rotated(path)
        append(path, f"{number}\n")
        said(path, position)
    assert len(os.listdir("/proc/self/fd")) == before
