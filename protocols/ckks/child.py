"""The only code that touches TenSEAL, in a process of its own: a native abort on hostile bytes ends this, nothing else.

Not a module to import but a script for ``engine`` to start; it needs nothing of the library. Requests come in on
standard input: the number of parts, their lengths, the parts, of which the first says what to do. Answers go out on
standard output: parts as they are ready, each after its length, then ``END``, and the reason of a refusal or nothing.
Both sides read while the other still writes, so most of the copying hides behind the work.

What a request may cost in memory and processor time is limited by the operating system. It is not a jail: the process
has the rights of the one that started it.
"""

from __future__ import annotations

import resource
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
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
END = (1 << 64) - 1

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


def _limit(size: int) -> None:
    """So much memory and processor time for a request of this size, beyond what there is already."""
    try:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        mapped = 0  # not Linux: no limit on memory
    if mapped:
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _SPARE_MEMORY + 16 * size, most))
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(process_time()) + _SPARE_SECONDS + (size >> 18), most))


def serve(worker: Worker, requests: BinaryIO, answers: BinaryIO) -> None:
    while head := requests.read(HEAD.size):
        (count,) = HEAD.unpack(head)
        lengths = unpack(f">{count}Q", requests.read(8 * count))
        _limit(sum(lengths))
        parts, refused = map(requests.read, lengths), b""
        try:
            for part in worker.does[next(parts)](parts):
                answers.write(LENGTH.pack(len(part)) + part)
        except Refused as error:
            refused = str(error).encode()
        deque(parts, maxlen=0)  # what has not been looked at
        answers.write(LENGTH.pack(END) + LENGTH.pack(len(refused)) + refused)
        answers.flush()


if __name__ == "__main__":
    serve(Worker(int(sys.argv[1]), [int(bits) for bits in sys.argv[2:]]), sys.stdin.buffer, sys.stdout.buffer)
