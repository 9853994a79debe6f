"""The passes over one vector that a round is made of, each beside what it cannot do without, in turns, on one thread.

*mask*    adding masks, beside writing as many bytes of AES-256 in bare counter mode into one buffer
*encode*  a float update to integers, beside as many bytes as its random words are: of 64 bits, and of 32
*pack*    ring elements to a frame, beside hashing the frame
*unpack*  a frame onto a sum, beside hashing the frame

Packing and unpacking stand beside numpy's, too, as encoding does in ``encode``. Time is that of the processor.
"""

from __future__ import annotations

import os
from hashlib import sha256
from statistics import median
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from benchmarks.case import Measured, Say, ratio, worked
from secagg.crypto.bits import plain
from secagg.crypto.masking import BLOCK_BYTES, add_masks
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Ring
from secagg.encoding import Encoding

_CLIENTS = 1000  # of whose vectors the ring holds the sum
_BESIDE = {
    "mask_vs_keystream": ("mask", "keystream"),
    "encode_vs_words": ("encode", "words"),
    "encode_float32_vs_words": ("encode_float32", "words"),
    "pack_vs_sha": ("pack", "sha"),
    "unpack_vs_sha": ("unpack", "sha"),
    "pack_compiled_vs_numpy": ("pack", "pack_numpy"),
    "unpack_compiled_vs_numpy": ("unpack", "unpack_numpy"),
}


def write_keystream(size: int) -> None:
    """``size`` bytes of AES-256 in bare counter mode, written over and over into one buffer."""
    zeros, buffer = bytes(BLOCK_BYTES), np.empty(BLOCK_BYTES, np.uint8)
    stream = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    for _ in range(-(-size // buffer.nbytes)):
        stream.update_into(zeros, buffer)  # type: ignore[arg-type]  # any buffer will do


def time_kernels(d: int, masks: int, bits: int, repeats: int, say: Say) -> Measured:
    say(f"kernels: d = {d}, {bits} bits a coordinate, {masks} masks")
    encoding, update = Encoding(d, 1.0, bits=bits), np.random.default_rng(0).standard_normal(d) / d**0.5
    ring, values = Ring(encoding.ring_bits(_CLIENTS)), np.empty(d, encoding.dtype)
    seeds, draw = [os.urandom(32) for _ in range(masks)], Prg(os.urandom(32))
    words, total, again, frame = ring.zeros(d), ring.zeros(d), ring.zeros(d), np.empty(ring.packed_size(d), np.uint8)
    took, narrow = dict[str, list[float]](), update.astype(np.float32)

    def encode(given: NDArray[Any]) -> None:
        encoding.encode_into(given, values, weight=1, seed=bytes(32), rng=draw)

    for _ in range(repeats + 1):
        worked(took, "mask", add_masks, words, seeds[::2], seeds[1::2])
        worked(took, "keystream", write_keystream, masks * words.nbytes)
        worked(took, "encode", encode, update)
        worked(took, "encode_float32", encode, narrow)
        worked(took, "words", write_keystream, 4 * d)
        worked(took, "pack_numpy", plain.pack, words, ring.bits, frame)
        worked(took, "pack", ring.pack_into, words, frame)
        worked(took, "sha", sha256, frame)
        worked(took, "unpack", ring.add_packed, frame, total)
        worked(took, "unpack_numpy", plain.add, frame, ring.bits, again)
        if not np.array_equal(total, again):
            raise AssertionError("compiled loops and numpy give different sums")
    warm = {name: seconds[1:] for name, seconds in took.items()}  # the first turn loads what is compiled
    figures = {f"{name}_s": median(seconds) for name, seconds in warm.items()}
    return Measured(figures, {name: ratio(warm, *both) for name, both in _BESIDE.items()})
