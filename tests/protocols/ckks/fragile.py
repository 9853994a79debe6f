"""The child process with one weakness, as native code has them: some bytes end it, hang it or eat all memory."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from protocols.ckks import child


class Fragile(child.Worker):
    def _loaded(self, key, public):  # type: ignore[no-untyped-def]
        self.seen = key  # memory that is given back may be used again soon, or late
        return super()._loaded(key, public)

    def _vector(self, context, scale, size, chunk):  # type: ignore[no-untyped-def]
        if chunk.startswith(b"abort"):
            os.abort()
        if chunk.startswith(b"memory"):
            return bytearray(1 << 40)
        if chunk.startswith(b"dumpable"):
            raise child.Refused(f"dumpable {child.ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)}")
        if chunk.startswith(b"hang"):
            while True:
                pass
        return super()._vector(context, scale, size, chunk)


if __name__ == "__main__":
    child._SPARE_SECONDS = 2
    if "KEEPS_KEYS" in os.environ:
        child.SECRET = ()
    child.serve(Fragile(int(sys.argv[1]), [int(bits) for bits in sys.argv[2:]]), sys.stdin.buffer, sys.stdout.buffer)
