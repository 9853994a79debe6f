"""What a client costs from its float update to the bytes on the wire: beside its masks alone, and where the time goes.

Exchanges in which keys and shares are dealt are not in it: they follow from the number of neighbours, and not from the
vector. Time is that of the processor, and clients have the in-memory journal; the durable one is measured beside, by
the clock on the wall.
"""

from __future__ import annotations

import os
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Measured, Say, ratio, timed, worked
from benchmarks.regression.oneshot.cast import Cast
from benchmarks.regression.oneshot.deployment import POLICY
from benchmarks.regression.oneshot.deployment import Config as Deployment
from benchmarks.rounds import LENIENT, people, update_of
from protocols.client import Client
from protocols.journal import Beside, ForgetfulJournal, Journal, MemoryJournal, SqliteJournal
from protocols.oneshot.messages import Members
from protocols.plan import RoundPlan
from protocols.roster import Number
from protocols.server import serve
from secagg.crypto import labels
from secagg.crypto.keys import AgreementKey, derive, digest
from secagg.crypto.masking import add_masks
from secagg.crypto.prg import Prg
from secagg.crypto.seal import sealed_once
from secagg.encoding import Encoding
from secagg.files import add_file

Took = defaultdict[str, list[float]]

STEPS = ("encode", "masks", "keys", "pack", "hash")
"""The parts of a pairwise client's time that are measured alone; the rest is checks, signatures, frame and journal."""


def time_clients(d: int, bits: int, neighbours: tuple[int, ...], repeats: int, say: Say) -> Measured:
    """Pairwise clients with so many neighbours, and a one-shot client beside the last of them."""
    figures, ratios = dict[str, float](), dict[str, float]()
    took: Took = defaultdict(list)
    for k in neighbours:
        say(f"a client with {k} neighbours, d = {d}")
        pairwise = Pairwise(d, bits, k, repeats)
        one_shot = Oneshot(d, bits) if k == neighbours[-1] else None
        for i in range(repeats):
            pairwise.time(i, took)
            if one_shot is not None:
                one_shot.time(i, took)
        both = zip(took["start"], took["upload"], strict=True)
        took[f"k{k}"] = [start + upload for start, upload in both]
        ratios[f"client_k{k}"] = ratio(took, f"k{k}", "masks")
        figures |= {f"client_k{k}_{step}_s": median(took[step]) for step in STEPS}
        figures[f"client_k{k}_s"] = whole = median(took[f"k{k}"])
        figures[f"client_k{k}_rest_s"] = whole - sum(figures[f"client_k{k}_{step}_s"] for step in STEPS)
        if one_shot is not None:
            figures["oneshot_s"] = median(took["oneshot"])
            ratios[f"oneshot_vs_k{k}"] = ratio(took, "oneshot", f"k{k}")
        if k == neighbours[0]:
            ratios["upload_allocates"] = pairwise.allocated(repeats) / pairwise.packed_size
            _time_durable(pairwise.frame, repeats, figures, ratios)
        for name in (*STEPS, "start", "upload"):
            took[name].clear()
    return Measured(figures, ratios)


class Pairwise:
    """k + 1 clients, of whom some have an update; all are where their next answer is the upload."""

    def __init__(self, d: int, bits: int, k: int, updates: int, journal: Callable[[], Journal] = MemoryJournal) -> None:
        self._identities, self._roster = people(k + 1)
        encoding, self.k, self._journal = Encoding.integers(d, bits), k, journal
        self.plan = RoundPlan.propose(
            "secagg", self._roster, encoding, min_contributors=2, corrupt="0.01", dropout="0.01"
        )
        self.packed_size = self.plan.ring.packed_size(encoding.coordinates)
        self._update = update_of(0, self.plan).astype(np.float64)
        self._updates = min(updates, k) + 1  # the last is there for ``allocated``
        self.frame = b""
        server = serve(self.plan, self._roster)
        clients = {identity.name: self._client(number) for number, identity in enumerate(self._identities)}
        self._clients = list(clients.values())
        for number, (name, client) in enumerate(clients.items()):
            server.receive(name, client.start(self.plan, self._update if number < self._updates else None))
        for phase in ("advertise", "share"):
            server.close(phase)
            for name, frame in server.outbox():
                server.receive(name, clients[name].receive(frame))
        server.close("complain")
        verdicts = dict(server.outbox())
        self._verdicts = [verdicts[name] for name in clients]

    def _client(self, number: int) -> Client:
        journal = self._journal() if number < self._updates else ForgetfulJournal()
        return Client(self._identities[number], self._roster, policy=LENIENT, journal=journal)

    def time(self, number: int, took: Took) -> None:
        """Encoding and advert by a copy of the client that begins anew, the upload, and its parts beside."""
        plan, again = self.plan, self._client(number)
        worked(took, "start", lambda: again.start(plan, self._update))
        self.frame = worked(took, "upload", lambda: self.upload(number))
        values = worked(took, "encode", lambda: plan.encode_update(self._update, 1, Prg(os.urandom(32))))
        words, seeds = plan.ring.wrap(values), [os.urandom(32) for _ in range(self.k + 1)]
        worked(took, "masks", lambda: add_masks(words, seeds[: self.k // 2], seeds[self.k // 2 :]))
        mine, others = AgreementKey(os.urandom(32)), [AgreementKey(seed).public for seed in seeds[1:]]
        worked(took, "keys", lambda: [derive(mine.agree(other), labels.PAIR_MASK, plan.digest()) for other in others])
        packed = memoryview(bytearray(self.packed_size))
        worked(took, "pack", lambda: plan.ring.pack_into(words, packed))
        worked(took, "hash", lambda: digest(labels.VECTOR, packed))

    def upload(self, number: int) -> bytes:
        return self._clients[number].receive(self._verdicts[number])

    def allocated(self, number: int) -> int:
        """The most bytes that one client holds beside its float update, from start to upload, as Python counts them.

        What a client keeps from its start until then, a copy of it keeps here, which begins while it is counted.
        """
        again = self._client(number)
        tracemalloc.start()
        try:
            again.start(self.plan, self._update)
            began = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            self.upload(number)
            return max(began, tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()


class Oneshot:
    """A client of a large deployment that has no seat."""

    def __init__(self, d: int, bits: int) -> None:
        self._cast = Cast(Deployment(d=d, bits=bits), dropout=0.1)
        self._frame = self._cast.encode(Members(tuple(self._cast.members.values())))
        self._identities, _ = people(len(self._cast.roster))
        self._who = [Number(i) for i in range(len(self._identities)) if i not in self._cast.members]
        self._update: NDArray[np.float64] = update_of(0, self._cast.plan).astype(np.float64)

    def time(self, number: int, took: Took) -> None:
        identity, plan = self._identities[self._who[number]], self._cast.plan
        client = Client(identity, self._cast.roster, policy=POLICY, journal=MemoryJournal())

        def whole() -> bytes:
            client.start(plan, self._update)
            return client.receive(self._frame)

        worked(took, "oneshot", whole)


def _time_durable(frame: bytes, repeats: int, figures: dict[str, float], ratios: dict[str, float]) -> None:
    """An upload in its journal, beside the same bytes sealed into a plain file that is synced, and a short record."""
    took: Took = defaultdict(list)
    key, record, deployment, session = bytes(32), os.urandom(300), bytes(32), bytes(32)
    with TemporaryDirectory() as folder, closing(SqliteJournal(Path(folder) / "journal.db")) as journal:
        journal.append(deployment, session, 0, 0, record)
        for i in range(repeats):
            plain, step = Path(folder) / f"plain-{i}", 2 * i + 1
            timed(took, "plain", lambda plain=plain: add_file(plain, sealed_once(key, frame)))
            long = Beside(frame, key), os.urandom(300)
            timed(
                took,
                "durable",
                lambda step=step, long=long: journal.append(deployment, session, 0, step, long[1], long[0]),
            )
            timed(took, "short", lambda step=step: journal.append(deployment, session, 0, step + 1, record))
            plain.unlink()
    figures |= {f"{name}_write_s": median(took[name]) for name in took}
    ratios["durable_upload"] = ratio(took, "durable", "plain")
