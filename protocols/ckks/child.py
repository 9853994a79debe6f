"""The only code that touches TenSEAL, in a process of its own: a native abort on hostile bytes ends this, nothing else.

Not a module to import but a script for ``engine`` to start; it needs nothing of the library. Requests come in on
standard input: the number of parts, their lengths, the parts, of which the first says what to do. Answers go out on
standard output: parts as they are ready, each after its length, then ``END``, and the reason of a refusal or nothing.
Both sides read while the other still writes, so most of the copying hides behind the work.

What a request may cost in memory and processor time is limited by the operating system. It is not a jail: the process
has the rights of the one that started it. Where limits that it inherited leave less, it says so (``CRAMPED``) before it
looks at anything: if it dies then, that may be nobody's fault.

A secret key is made, or read, by a process that does this one thing and ends: a fork, which reads the rest of the
request from the pipe by itself. No memory of it is left, and none of these processes leaves a core file.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from struct import Struct, unpack
from time import process_time
from typing import Any, BinaryIO

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # this process says nothing
    import tenseal as ts

HEAD, LENGTH, TASK = Struct(">I"), Struct(">Q"), Struct(">BQ")
"""number of parts; length of a part; bits of the scale and number of slots"""
END, CRAMPED = (1 << 64) - 1, (1 << 64) - 2
"""In place of a length: the answer is complete; it is worked on with less memory or time than it may need."""

SECRET = (b"keys", b"decrypt")
"""What is done with a secret key, each by a process of its own."""

_SPARE_MEMORY, _SPARE_SECONDS = 1 << 30, 60
_BAD = (ValueError, RuntimeError, IndexError, TypeError, KeyError, OverflowError, MemoryError)
"""What the bindings raise for bytes that they do not like. Anything else ends the process."""


class Refused(Exception):
    pass


class Worker:
    def __init__(self, degree: int, moduli: list[int]) -> None:
        self._degree, self._moduli = degree, moduli
        self._slots = degree // 2
        self._bare = self._fresh()  # its keys are never used: TenSEAL makes no context without
        self._chain = self._parameters(self._bare)
        self._total: list[Any] = []
        self._public: tuple[bytes, Any] = (b"", None)  # the last one, which is likely the next one, too
        self.does: dict[bytes, Callable[..., Iterable[bytes]]] = {
            b"keys": self.keys,
            b"check": self.check,
            b"encrypt": self.encrypt,
            b"decrypt": self.decrypt,
            b"clear": self.clear,
            b"add": self.add,
            b"total": self.total,
        }

    def _fresh(self) -> Any:
        return ts.context(ts.SCHEME_TYPE.CKKS, self._degree, -1, self._moduli, n_threads=1)

    @staticmethod
    def _parameters(context: Any) -> tuple[object, object]:
        """SEAL's hashes of degree and moduli, without and with the prime for keys."""
        data = context.seal_context().data
        return data.first_parms_id(), data.key_parms_id()

    def keys(self, _: Iterator[bytes]) -> Iterable[bytes]:
        context = self._fresh()
        return [_saved(context, public=True), _saved(context, public=False)]

    def _loaded(self, key: bytes, public: bool) -> Any:
        try:
            context = ts.context_from(key, 1)
            if self._parameters(context) != self._chain:
                raise Refused("a key for other parameters")
            if (context.has_public_key(), context.has_secret_key()) != (public, not public):
                raise Refused("not the key that was announced")
        except _BAD:
            raise Refused("not a key") from None
        return context

    def _public_key(self, key: bytes) -> Any:
        if key != self._public[0]:
            self._public = (key, self._loaded(key, public=True))
        return self._public[1]

    def check(self, parts: Iterator[bytes]) -> Iterable[bytes]:
        self._public_key(next(parts))
        return []

    def encrypt(self, parts: Iterator[bytes]) -> Iterable[bytes]:
        (bits, _), context = TASK.unpack(next(parts)), self._public_key(next(parts))
        values = np.frombuffer(next(parts), "<i8")
        for start in range(0, len(values), self._slots):
            yield ts.ckks_vector(context, values[start : start + self._slots].tolist(), 2.0**bits).serialize()

    def _vectors(self, context: Any, task: bytes, chunks: Iterator[bytes]) -> list[Any]:
        """Ciphertexts that fit each other and the task to the last parameter: what is let in here, SEAL can add."""
        bits, count = TASK.unpack(task)
        sizes = [min(self._slots, count - start) for start in range(0, count, self._slots)]
        vectors = [self._vector(context, 2.0**bits, *pair) for pair in zip(sizes, chunks, strict=False)]
        if len(vectors) < len(sizes) or next(chunks, None) is not None:
            raise Refused(f"not {len(sizes)} ciphertexts")
        return vectors

    def _vector(self, context: Any, scale: float, size: int, chunk: bytes) -> Any:
        try:
            vector = ts.ckks_vector_from(context, chunk)
            ciphertexts = vector.ciphertext()
            if vector.size() != size or len(ciphertexts) != 1:
                raise Refused("a ciphertext with another number of slots")
            (it,) = ciphertexts
            shape = (it.size(), it.scale, it.parms_id(), it.is_ntt_form())
        except _BAD:
            raise Refused("not a ciphertext") from None
        if shape != (2, scale, self._chain[0], True):
            raise Refused("a ciphertext at another level, scale or size")
        if it.is_transparent():
            raise Refused("a ciphertext that hides nothing")
        return vector

    def decrypt(self, parts: Iterator[bytes]) -> Iterable[bytes]:
        task, context = next(parts), self._loaded(next(parts), public=False)
        for vector in self._vectors(context, task, parts):
            yield np.array(vector.decrypt(), "<f8").tobytes()

    def clear(self, _: Iterator[bytes]) -> Iterable[bytes]:
        self._total = []
        return []

    def add(self, parts: Iterator[bytes]) -> Iterable[bytes]:
        vectors = self._vectors(self._bare, next(parts), parts)  # all of them, before the first is added
        if self._total:
            for total, vector in zip(self._total, vectors, strict=True):
                total.add_(vector)
        else:
            self._total = vectors
        return []

    def total(self, _: Iterator[bytes]) -> Iterable[bytes]:
        return (vector.serialize() for vector in self._total)


def _saved(context: Any, *, public: bool) -> bytes:
    saved: bytes = context.serialize(
        save_public_key=public, save_secret_key=not public, save_galois_keys=False, save_relin_keys=False
    )
    return saved


def _limit(size: int) -> bool:
    """So much memory and processor time for a request of this size, beyond what there is already; whether less than
    that was left by limits that this process inherited, and cannot raise."""
    asked = {resource.RLIMIT_CPU: int(process_time()) + _SPARE_SECONDS + (size >> 18)}
    with suppress(OSError):  # not Linux: no limit on memory
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        asked[resource.RLIMIT_AS] = mapped + _SPARE_MEMORY + 16 * size
    cramped = False
    for which, wanted in asked.items():
        _, most = resource.getrlimit(which)
        less = most != resource.RLIM_INFINITY and most < wanted
        resource.setrlimit(which, (most if less else wanted, most))
        cramped |= less
    return cramped


def _keep_quiet() -> None:
    """No core file of this process and its forks, whoever would collect it, and nothing of them for a debugger."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    with suppress(AttributeError, OSError):  # not Linux
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


class Requests:
    """A pipe of which nothing is read ahead: what comes next may be another process's."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe

    def read(self, count: int) -> bytes:
        """So many bytes, or fewer at the end."""
        data = bytearray(count)
        there = 0
        while there < count and (more := os.readv(self._pipe.fileno(), [memoryview(data)[there:]])):
            there += more
        return bytes(data[:there])


def serve(worker: Worker, pipe: BinaryIO, answers: BinaryIO) -> None:
    _keep_quiet()
    requests = Requests(pipe)
    while head := requests.read(HEAD.size):
        (count,) = HEAD.unpack(head)
        lengths = unpack(f">{count}Q", requests.read(8 * count))
        what = requests.read(lengths[0])
        if what not in SECRET:
            _answer(worker, what, lengths[1:], requests, answers)
        elif (child := os.fork()) == 0:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # it does not outlive the one that is killed for it
            _answer(worker, what, lengths[1:], requests, answers)
            os._exit(0)
        elif os.waitpid(child, 0)[1] != 0:
            os._exit(1)  # half an answer is in the pipe


def _answer(worker: Worker, what: bytes, lengths: tuple[int, ...], requests: Requests, answers: BinaryIO) -> None:
    if cramped := _limit(sum(lengths)):
        answers.write(LENGTH.pack(CRAMPED))
        answers.flush()
    parts, refused = map(requests.read, lengths), b""
    try:
        for part in worker.does[what](parts):
            answers.write(LENGTH.pack(len(part)) + part)
    except Refused as error:
        if cramped and isinstance(error.__context__, MemoryError):
            os._exit(1)
        refused = str(error).encode()
    deque(parts, maxlen=0)  # what has not been looked at
    answers.write(LENGTH.pack(END) + LENGTH.pack(len(refused)) + refused)
    answers.flush()


if __name__ == "__main__":
    serve(Worker(int(sys.argv[1]), [int(bits) for bits in sys.argv[2:]]), sys.stdin.buffer, sys.stdout.buffer)
