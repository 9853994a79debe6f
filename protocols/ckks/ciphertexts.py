"""CKKS as functions on bytes and arrays; the work is done by ``child``, in processes that may die on what they read.

A request that is refused, or that kills its process, raises ``PeerError``; the caller says whose bytes they were. If
the limits of this process (``ulimit``) leave less than a request may need, a death raises ``StorageError``, and nobody
is to blame. Idle processes are kept for the next call, so starting one (a quarter of a second) happens once, and again
after a death. What is done with a secret key is done by a process that ends with it (``child``).
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct, pack
from typing import IO

import numpy as np
from numpy.typing import NDArray

from protocols.ckks.layout import DEGREE, MODULI, Layout
from secagg.errors import PeerError, StorageError
from secagg.extras import need

_HEAD, _LENGTH, _TASK, _END, _CRAMPED = Struct(">I"), Struct(">Q"), Struct(">BQ"), (1 << 64) - 1, (1 << 64) - 2
"""As in child."""
_SCRIPT = Path(__file__).with_name("child.py")
_KEPT_BYTES = 256 << 20
"""Uploads kept until the sum is saved again. The largest part of a server's memory when vectors are short."""

_PIPE_BYTES = 1 << 20


def require() -> None:
    """``MissingExtraError`` without TenSEAL, which does the work."""
    need("ckks", "the protocol ckks")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Both halves as TenSEAL writes them; ``secret`` opens everything that was encrypted under ``public``."""

    public: bytes = field(repr=False)
    secret: bytes = field(repr=False)


def make_keys() -> KeyPair:
    with _borrowed() as child:
        public, secret = child.call(b"keys")
    return KeyPair(public, secret)


def check_public(public: bytes) -> None:
    """``PeerError`` unless these bytes are a public key for our parameters, and nothing but public."""
    with _borrowed() as child:
        child.call(b"check", public)


def encrypt(layout: Layout, public: bytes, values: NDArray[np.int64]) -> tuple[bytes, ...]:
    slots = layout.split(values).astype("<i8", copy=False)
    with _borrowed() as child:
        return tuple(child.call(b"encrypt", _task(layout), public, slots.tobytes()))


def decrypt(layout: Layout, secret: bytes, chunks: Sequence[bytes | memoryview]) -> NDArray[np.int64]:
    """The exact sum. ``PeerError`` for ciphertexts that do not parse, or hold no integers under this key."""
    with _borrowed() as child:
        slots = b"".join(child.call(b"decrypt", _task(layout), secret, *chunks))
    return layout.join(np.frombuffer(slots, "<f8"))


class Adder:
    """A sum of ciphertexts, without any key. What kills the process that adds it costs that one upload, not the sum.

    The sum lives in the process. It is saved here now and then, and what was added since is kept, so that it can be
    made again in another one.
    """

    def __init__(self, layout: Layout) -> None:
        self._task = _task(layout)
        self._saved: list[Sequence[bytes | memoryview]] = []
        self._since: list[Sequence[bytes | memoryview]] = []
        self._kept = 0
        self._held = [_take()]  # a list, so that the finalizer sees the one that is held in the end
        weakref.finalize(self, _release, self._held).atexit = False

    def add(self, chunks: Sequence[bytes | memoryview]) -> None:
        """All or nothing: after an error the sum is what it was."""
        (child,) = self._held
        try:
            child.call(b"add", self._task, *chunks)
        except (PeerError, StorageError):
            if not child.alive:
                self._start_again()
            raise
        self._since.append(chunks)
        self._kept += sum(map(len, chunks))
        if self._kept > _KEPT_BYTES:
            self._saved, self._since, self._kept = [self.total()], [], 0

    def total(self) -> tuple[bytes, ...]:
        return tuple(self._held[0].call(b"total"))

    def _start_again(self) -> None:
        self._held[0] = child = _take()
        for chunks in (*self._saved, *self._since):
            child.call(b"add", self._task, *chunks)


def _task(layout: Layout) -> bytes:
    return _TASK.pack(layout.scale_bits, layout.slots)


class _Child:
    def __init__(self) -> None:
        require()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_SCRIPT), str(DEGREE), *map(str, MODULI)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a dying process has much to say about itself
        )
        for pipe in (self._process.stdin, self._process.stdout):
            _widen(pipe)
        self.alive, self._cramped = True, False

    def call(self, *parts: bytes | memoryview) -> list[bytes]:
        self._cramped = False
        self.alive = False  # until the whole answer has been read: a broken exchange must not be gone on with
        try:
            given, refused = self._exchange(parts)
        except (OSError, EOFError):
            self.stop()
            if self._cramped:
                raise StorageError(
                    "the process that parses ciphertexts died, and limits on this one leave it less memory or time "
                    "than it may need (ulimit -Hv, ulimit -Ht)"
                ) from None
            raise PeerError("bytes on which the process that parsed them died") from None
        except BaseException:  # an interrupt: half a question or half an answer is in the pipes
            self.stop()
            raise
        self.alive = True
        if refused:
            raise PeerError(refused.decode())
        return given

    def _exchange(self, parts: Sequence[bytes | memoryview]) -> tuple[list[bytes], bytes]:
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            raise EOFError
        requests.write(_HEAD.pack(len(parts)) + pack(f">{len(parts)}Q", *map(len, parts)))
        for part in parts:
            requests.write(part)
        requests.flush()
        given = []
        while (length := _length(answers)) != _END:
            if length == _CRAMPED:
                self._cramped = True
            else:
                given.append(_read(answers, length))
        return given, _read(answers, _length(answers))

    def runs(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self.alive = False
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            _close(pipe)


def _widen(pipe: IO[bytes] | None) -> None:
    """Let more bytes be on their way, where the system allows it: the two processes wait less for each other."""
    if pipe is not None:
        with suppress(ImportError, AttributeError, OSError):  # not Linux, or not so much
            import fcntl

            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _read(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _length(pipe: IO[bytes]) -> int:
    length: int = _LENGTH.unpack(_read(pipe, _LENGTH.size))[0]
    return length


def _close(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:  # it could not write what nobody will read
        pass


_idle: list[_Child] = []
os.register_at_fork(after_in_child=_idle.clear)  # two processes must not talk into one pipe


def _take() -> _Child:
    """An idle process that has not been killed meanwhile (nobody here is to blame for that), or a new one."""
    while _idle:
        child = _idle.pop()
        if child.runs():
            return child
        child.stop()
    return _Child()


def _release(held: list[_Child]) -> None:
    (child,) = held
    if child.alive and child.runs():
        child.call(b"clear")
        _idle.append(child)


@contextmanager
def _borrowed() -> Iterator[_Child]:
    held = [_take()]
    try:
        yield held[0]
    finally:
        if held[0].alive:
            _idle.append(held[0])


@atexit.register
def _stop_all() -> None:
    while _idle:
        _idle.pop().stop()
