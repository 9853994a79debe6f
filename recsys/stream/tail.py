"""A file to which one writer appends lines, read as they come; also across rotations, and after a restart.

The file is rotated as logs are: ``events.jsonl`` becomes ``events.jsonl.1``, that ``events.jsonl.2`` and so on, and a
new ``events.jsonl`` is begun. Each of these files is a generation. A reader knows the one where it was, whatever it is
called by now, by a digest of its first line and by one of what stands before the place where it stopped. It finishes
that one as soon as there is a line in a newer one, then those that came after it, one after the other. Without a place
to go on from it begins with the oldest.

    truncated     A file that is shorter than what was read of it, or in which something else stands before the place,
                  was overwritten: an error.
    gone          So is a generation that is not there under any of these names, or two that cannot be told apart.
    cut short     A line without an end waits for it; in a file that is finished it is a line as it is.
    long lines    Of a line of more than ``LONGEST`` bytes the first are read, too many for an event, and the rest of it
                  is passed over.

Files that are copied and then truncated (logrotate's ``copytruncate``) lose what is written in between, which nobody
can see here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Set
from hashlib import sha256
from pathlib import Path

from recsys.stream.events import LONGEST, Message, Position
from secagg.errors import StorageError

PART = "file"
_BLOCK = 1 << 20
_LAST = 256
"""So many bytes before a position, at the most, are what it is known by."""
_DIGITS = 32


class FileTail:
    """Reads the file at ``path`` on from its position; a file that is not there yet is one without lines.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "events.jsonl"
    ...     _ = path.write_text("one\\ntwo\\nthr")
    ...     tail = FileTail(path, {})
    ...     read = tail.read(10)
    ...     tail.close()
    >>> [(message.data, message.after.offset) for message in read]
    [(b'one', 4), (b'two', 8)]
    """

    def __init__(self, path: str | Path, positions: Mapping[str, Position]) -> None:
        self._path = Path(path).absolute()
        self._position = positions.get(PART, Position())
        self._file: int | None = None
        self._first = ""
        self._searched = 0
        """so far a line was searched for its end, which is not there yet"""

    def read(self, most: int, without: Set[str] = frozenset()) -> list[Message]:
        found = list[Message]()
        if PART in without:
            return found
        try:
            while len(found) < most:
                if self._file is None and not self._open():
                    break
                if not (read := self._lines(most - len(found)) or self._finished(most - len(found))):
                    break
                found += read
        except OSError as error:
            raise StorageError(f"{self._path} cannot be read: {error.strerror}") from None
        return found

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        """A file forgets nothing."""

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    # Which file

    def _open(self) -> bool:
        """Open the generation of the position; False if there is no file yet."""
        if not self._position.mark:
            for oldest in self._generations()[-1:]:
                self._file = _opened(oldest)
            return self._file is not None
        found = [file for path in self._generations() if self._is_ours(file := _opened(path))]
        if len(found) != 1:
            for file in found:
                os.close(file)
            why = "cannot be told apart from another one" if found else "is gone, or was truncated or overwritten"
            raise StorageError(
                f"{self._path}: the file that was read up to byte {self._position.offset} {why}. What was not read of "
                f"it would be lost: put it back, as it is or as {self._path.name}.1"
            )
        self._file, self._first = found[0], self._position.mark.split(":")[0]
        return True

    def _generations(self) -> list[Path]:
        """The files that are there, the newest first."""
        name = re.compile(re.escape(self._path.name) + r"\.([1-9][0-9]{0,5})")
        older = {int(found[1]): path for path in self._path.parent.iterdir() if (found := name.fullmatch(path.name))}
        return [*([self._path] if self._path.exists() else []), *(older[number] for number in sorted(older))]

    def _is_ours(self, file: int) -> bool:
        """Whether this is the file in which the position is; it is closed if not."""
        first, length, last = self._position.mark.split(":")
        before = self._position.offset - int(length)
        if _digest(_first_line(file)) == first and _digest(os.pread(file, int(length), before)) == last:
            return True
        os.close(file)
        return False

    def _finished(self, most: int) -> list[Message]:
        """What is read once the end of a file is reached: nothing as long as no newer file has a line; then what is
        left of this one, or the first lines of the next."""
        while self._file is not None:
            generations = self._generations()
            status = os.fstat(self._file)
            places = [at for at, path in enumerate(generations) if _same(path, status)]
            if not places:
                raise StorageError(f"{self._path}: the file that is read was deleted, or given a strange name")
            newer = [path for path in reversed(generations[: places[0]]) if _has_lines(path, path == self._path)]
            if not newer:
                return []
            if rest := self._lines(most) or self._rest(self._file):
                return rest
            following = _opened(newer[0])
            if (
                self._generations() != generations
                or not _same(newer[0], os.fstat(following))
                or not _same(generations[places[0]], status)
            ):
                os.close(following)  # here, too
                continue
            os.close(self._file)
            self._file, self._first, self._searched = following, "", 0
            self._position = Position(0, self._position.generation + 1)
            return self._lines(most)
        return []

    # Its lines

    def _lines(self, most: int) -> list[Message]:
        """The next lines that have an end."""
        file, start = self._file, self._position.offset
        if file is None:
            return []
        if os.fstat(file).st_size < start:
            raise StorageError(f"{self._path} was truncated: it is shorter than what was read of it")
        found = list[Message]()
        block = os.pread(file, _BLOCK, start)
        at = 0
        while len(found) < most and (end := block.find(b"\n", at) + 1):
            found.append(self._message(file, block[at:end], end - at))
            at = end
        if not found and len(block) > LONGEST and (length := self._length_of_long(file, start)):
            found.append(self._message(file, block[: LONGEST + 1], length))
        return found

    def _length_of_long(self, file: int, start: int) -> int:
        """The bytes of a long line, with its end, or 0 if it has none yet."""
        at = max(start, self._searched)
        while block := os.pread(file, _BLOCK, at):
            if end := block.find(b"\n") + 1:
                return at + end - start
            at = self._searched = at + len(block)
        return 0

    def _rest(self, file: int) -> list[Message]:
        """A last line without an end."""
        start, size = self._position.offset, os.fstat(file).st_size
        data = os.pread(file, LONGEST + 1, start)
        return [self._message(file, data, size - start)] if data else []

    def _message(self, file: int, line: bytes, length: int) -> Message:
        """The next line, of so many bytes with its end."""
        before = self._position
        self._first = self._first or _digest(_first_line(file))
        offset = before.offset + length
        last = line[-_LAST:] if len(line) == length else os.pread(file, _LAST, offset - _LAST)
        self._position = Position(offset, before.generation, f"{self._first}:{len(last)}:{_digest(last)}")
        return Message(PART, before, self._position, line.removesuffix(b"\n"))


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _same(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), status)
    except FileNotFoundError:
        return False


def _first_line(file: int) -> bytes:
    return os.pread(file, LONGEST, 0).partition(b"\n")[0]


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:_DIGITS]


def _has_lines(path: Path, newest: bool) -> bool:
    """Whether a file has anything to read: in the newest one that is a line with its end."""
    try:
        with path.open("rb") as file:
            head = file.read(LONGEST + 1)
    except FileNotFoundError:
        return False
    return bool(head) and (not newest or b"\n" in head or len(head) > LONGEST)
