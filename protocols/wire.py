"""Frames: version, protocol, session, round, message type, body. One codec for everything that is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from secagg.codec import Codec, Reader, fixed, struct, u8, u32
from secagg.errors import DecodeError, StrayError, UsageError

if TYPE_CHECKING:
    from protocols.plan import RoundPlan

VERSION = 4
"""The format of frames and of the plans that they are about."""

HEADER_BYTES = 1 + 1 + 16 + 4 + 1


class Draft:
    """A frame of which a long vector is written first, into its place: what stands around it depends on its hash.

    ``vector`` is that place, to be written to, and to be given to the message as its vector. When the frame is made it
    is released: a frame does not change.

    >>> draft = Draft(before=2, length=3, after=1)
    >>> draft.vector[:] = b"abc"
    >>> draft.completed(b"<<", b">")
    b'<<abc>'
    """

    __slots__ = ("_around", "_file", "vector")

    def __init__(self, before: int, length: int, after: int) -> None:
        self._file = BytesIO(bytes(before + length + after))  # CPython's shares these bytes, and copies none of them
        self._around = before, after
        self.vector = self._file.getbuffer()[before : before + length]

    def completed(self, before: bytes | bytearray, after: bytes | bytearray) -> bytes:
        """The frame, with what stands around the vector. ``BufferError`` if somebody could still write to it."""
        if (len(before), len(after)) != self._around:
            raise UsageError(f"room for {self._around} bytes around a vector, not for {len(before)} and {len(after)}")
        length = len(self.vector)
        self.vector.release()
        for start, piece in ((0, before), (len(before) + length, after)):
            self._file.seek(start)
            self._file.write(piece)
        return self._file.getvalue()


class _Around(bytearray):
    """What of a message stands before its vector and after it."""

    def __init__(self, vector: memoryview) -> None:
        self.vector, self.before = vector, 0

    def __iadd__(self, piece: Any) -> _Around:  # type: ignore[misc]
        if piece is self.vector:
            self.before = len(self)
            return self
        return super().__iadd__(piece)


class Messages:
    """The message types of one protocol, each with its number on the wire and its codec."""

    def __init__(self, code: int, types: Mapping[int, tuple[type, Codec[Any]]]) -> None:
        self._code = code
        self._by_number = dict(types)
        self._numbers = {kind: number for number, (kind, _) in types.items()}
        self.types = tuple(self._numbers)

    def encode(self, plan: RoundPlan, message: object, draft: Draft | None = None) -> bytes:
        """The frame. If the message's vector is that of a ``draft``, it is where it has to be already."""
        if draft is not None and getattr(message, "vector", None) is draft.vector:
            around = _Around(draft.vector)
            self._write(around, plan, message)
            return draft.completed(around[: around.before], around[around.before :])
        out = bytearray()
        self._write(out, plan, message)
        return bytes(out)

    def draft(self, plan: RoundPlan, blank: Callable[[memoryview], object], length: int) -> Draft:
        """Room for a message with a vector of so many bytes; ``blank`` makes one around a vector, all else as long."""
        vector = memoryview(b"")  # of a vector's length only the value differs
        around = _Around(vector)
        self._write(around, plan, blank(vector))
        return Draft(around.before, length, len(around) - around.before)

    def _write(self, out: bytearray, plan: RoundPlan, message: object) -> None:
        number = self._numbers[type(message)]
        _HEADER.write(out, _Header(VERSION, self._code, plan.session, plan.round, number))
        self._by_number[number][1].write(out, message)

    def decode(self, plan: RoundPlan, frame: bytes) -> object:
        """The message in a frame of this round; anything else is not for us.

        A frame of another round or version blames nobody: an honest party's may come late, or have been made before an
        update.
        """
        reader = Reader(frame)
        header = _HEADER.read(reader)
        if header.version != VERSION:
            raise StrayError(f"version {header.version} is not {VERSION}")
        if header.protocol != self._code:
            raise DecodeError("a frame of another protocol")
        if (header.session, header.round) != (plan.session, plan.round):
            raise StrayError("a frame of another session or round")
        if header.number not in self._by_number:
            raise DecodeError(f"unknown message type {header.number}")
        return self._by_number[header.number][1].decode(reader.take(reader.left))


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    protocol: int
    session: bytes
    round: int
    number: int


_HEADER = struct(_Header, version=u8, protocol=u8, session=fixed(16), round=u32, number=u8)
