"""Two sparse sums beside the dense one: bytes that clients send, and seconds of all parties.

The rounds of the sparse sums are real, of secagg+ with all clients in this process and their keys exchanged twice; what
their parties compute is counted by the processor's clock, making the vectors included. A dense round is real, too, with
few clients. That of all clients is extrapolated from it: the server's seconds grow with the clients; a client's are
what they are there, and those of as many masks more, which are timed, as it has more neighbours among all. What keys
and shares cost it among all is left out, so the dense sum looks cheaper than it is. Its bytes are those of its vector
alone, and those of the sparse sums all that clients send; what they receive, the list of rows, is a figure beside.

Who touches what is made up: each user so many different rows, by Zipf's law, from a public seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from time import process_time, thread_time

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.case import Measured, Say
from benchmarks.rounds import people
from benchmarks.studies.bytes.config import Config
from dp.calibrate import calibrate, with_multiplier
from dp.noise import Family, NoiseSpec
from dp.threshold import threshold
from protocols.client import Client
from protocols.journal import ForgetfulJournal
from protocols.pairwise.parameters import parameters_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.server import serve
from protocols.simulation.network import Answers, Faults, Frames, Simulation, drive
from protocols.sparse import Catalogue, Released
from secagg.assumptions import Adversary
from secagg.crypto.masking import add_masks
from secagg.crypto.ring import Ring
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.encoding import Encoding

POLICY = Policy(min_contributors=2, adversary=Adversary.CURIOUS, exact_counts=True)
DELTA = Fraction(1, 10**6)
Touches = list[NDArray[np.int64]]


def run(config: Config, say: Say) -> Measured:
    figures, ratios = dict[str, float](), dict[str, float]()
    for rows in config.catalogues:
        found = _compared(config, rows, say)
        figures |= {f"sparse_{name}_{rows}": value for name, value in found.figures.items()}
        ratios |= {f"sparse_{name}_{rows}": value for name, value in found.ratios.items()}
    ratios |= {f"sparse_{name}": value for name, value in found.ratios.items()}
    return Measured(figures, ratios)


def _compared(config: Config, rows: int, say: Say) -> Measured:
    n, width = config.sparse_users, config.sparse_width
    touches = touched(rows, n, config.sparse_touches, config.sparse_zipf)
    counts = np.bincount(np.concatenate(touches), minlength=rows)
    catalogue = Catalogue(rows, width, bytes(32), cap=config.sparse_touches, least=config.sparse_least)
    dense_bytes = _packed_size(Encoding(rows * width, 1.0), n)
    plain = {"float32": 4 * rows * width, "16_bit": 2 * rows * width}
    figures, ratios = dict[str, float](), dict[str, float]()

    say(f"{n} clients, counts of {rows} rows")
    first = _round(catalogue.counts(), n, lambda i: catalogue.touched(touches[i]), catalogue.model())
    released = Released.of(catalogue, first.ran.outcome)
    if not np.array_equal(released.rows, np.flatnonzero(counts >= config.sparse_least)):
        raise RuntimeError("other rows came out than were touched often enough")
    say(f"{n} clients, the sum of {len(released.rows)} rows")
    second = _round(
        Encoding(released.length, 1.0),
        n,
        lambda i: released.restricted(_update(touches[i], width, i)),
        released.model(),
    )
    listed = len(released.encode())
    up = (sum(first.ran.bytes_up.values()) + sum(second.ran.bytes_up.values())) / n
    figures |= {
        "released_rows": len(released.rows),
        "touches_released": counts[released.rows].sum() / counts.sum(),
        "bytes_up": up,
        "bytes_list_down": listed,
        "ring_bits_counts": first.plan.ring_bits,
        "ring_bits_rows": second.plan.ring_bits,
        "dense_bytes_up": dense_bytes,
        "client_s": (first.client_s + second.client_s) / n,
        "server_s": first.server_s + second.server_s,
    }
    ratios["bytes"] = up / dense_bytes
    ratios |= {f"bytes_vs_{name}": up / size for name, size in plain.items()}

    say(f"{config.sparse_dense} clients, the dense sum of {rows * width} numbers")
    neighbours = parameters_of(second.plan).degree
    client_s, server_s = _dense(config, rows, neighbours, figures)
    figures |= {"dense_client_s": client_s, "dense_server_s": server_s, "neighbours": neighbours}
    ratios["seconds"] = (figures["client_s"] * n + figures["server_s"]) / (client_s * n + server_s)
    ratios["client_seconds"] = figures["client_s"] / client_s
    ratios["server_seconds"] = figures["server_s"] / server_s
    if config.sparse_epsilon:
        _noised(config, catalogue, counts, dense_bytes, figures, ratios)
    return Measured(figures, ratios)


def touched(rows: int, users: int, each: int, exponent: float) -> Touches:
    """For each user so many different rows, drawn one after the other by Zipf's law."""
    rng = np.random.default_rng(23)
    law = np.cumsum(np.arange(1, rows + 1) ** -exponent)

    def one() -> NDArray[np.int64]:
        drawn = np.empty(0, np.int64)
        while len(drawn) < each:
            more = np.concatenate([drawn, np.searchsorted(law, rng.random(2 * each) * law[-1])])
            _, first = np.unique(more, return_index=True)
            drawn = more[np.sort(first)][:each]
        return drawn

    return [one() for _ in range(users)]


def _update(rows: NDArray[np.int64], width: int, number: int) -> dict[int, NDArray[np.float64]]:
    vectors = np.random.default_rng(number).normal(0, 0.01, (len(rows), width))
    return dict(zip(rows.tolist(), vectors, strict=True))


def _packed_size(encoding: Encoding, clients: int, noise_bound: int = 0) -> int:
    return (encoding.coordinates * encoding.ring_bits(clients, noise_bound) + 7) // 8


@dataclass(frozen=True, slots=True)
class _Ran:
    plan: RoundPlan
    ran: Simulation
    client_s: float
    """of all clients, making their vectors included"""
    server_s: float


class _Crowd:
    """All clients of a round, one after the other."""

    def __init__(self, plan: RoundPlan, update: Callable[[int], ArrayLike]) -> None:
        self._plan, self._update, self.seconds = plan, update, 0.0
        identities, self.roster = people(plan.clients)
        self._clients = {
            one.name: Client(one, self.roster, policy=POLICY, journal=ForgetfulJournal()) for one in identities
        }

    def begin(self) -> Answers:
        for i, (name, client) in enumerate(self._clients.items()):
            yield name, self._timed(lambda client, i: client.start(self._plan, self._update(i)), client, i)

    def answers(self, requests: Frames) -> Answers:
        for name, frame in requests:
            yield name, self._timed(self._clients[name].receive, frame)

    def _timed(self, work: Callable[..., bytes], *arguments: object) -> bytes:
        began = thread_time()
        frame = work(*arguments)
        self.seconds += thread_time() - began
        return frame


def _round(encoding: Encoding, clients: int, update: Callable[[int], ArrayLike], model: bytes = bytes(32)) -> _Ran:
    _, roster = people(clients)
    plan = RoundPlan.propose("secagg+", roster, encoding, min_contributors=clients * 4 // 5, model=model)
    crowd = _Crowd(plan, update)
    began = process_time()
    ran = drive(serve(plan, roster), crowd, Faults())
    return _Ran(plan, ran, crowd.seconds, process_time() - began - crowd.seconds)


def _dense(config: Config, rows: int, neighbours: int, figures: dict[str, float]) -> tuple[float, float]:
    """Seconds of a client and of the server in a dense sum of all clients: see above."""
    few, length = config.sparse_dense, rows * config.sparse_width
    touches = touched(rows, few, config.sparse_touches, config.sparse_zipf)

    def update(number: int) -> NDArray[np.float32]:
        table = np.zeros((rows, config.sparse_width), np.float32)
        table[touches[number]] = list(_update(touches[number], config.sparse_width, number).values())
        return table.reshape(-1)

    ran = _round(Encoding(length, 1.0), few, update)
    degree = parameters_of(ran.plan).degree
    figures |= {"dense_few_client_s": ran.client_s / few, "dense_few_server_s": ran.server_s}
    masked, more = Ring(Encoding(length, 1.0).ring_bits(config.sparse_users)).zeros(length), neighbours - degree
    add_masks(masked, [os.urandom(32)])  # memory is touched
    began = thread_time()
    add_masks(masked, [os.urandom(32) for _ in range(more)])
    figures["dense_mask_s"] = (masks := thread_time() - began) / more
    return ran.client_s / few + masks, ran.server_s * config.sparse_users / few


def _noised(
    config: Config,
    catalogue: Catalogue,
    counts: NDArray[np.int64],
    dense_bytes: int,
    figures: dict[str, float],
    ratios: dict[str, float],
) -> None:
    """The bytes and rows of one pair of sums at an epsilon: noise as planned, one draw of it, and no rounds."""
    n = config.sparse_users
    kind = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(1), dropouts=n // 10, colluders=n // 20)
    asked = calibrate(
        epsilon=config.sparse_epsilon,
        delta=DELTA,
        rounds=2,
        clients=n,
        length=catalogue.rows,
        clip_l2=1.0,
        ring_bits=32,
        rotate=False,
        dropouts=kind.dropouts,
        colluders=kind.colluders,
    )
    encoding, noise = catalogue.noised(asked.noise_multiplier, kind, n)
    variance = noise.whole_variance(n, n)
    least = threshold((catalogue.least - 1) * encoding.largest, variance, catalogue.cap, catalogue.failing)
    drawn = discrete_gaussian(variance, catalogue.rows, os.urandom(32))
    rows = np.flatnonzero(counts * encoding.largest + drawn >= least)
    size = _packed_size(encoding, n, noise.coordinate_bound(n, encoding.coordinates))
    if len(rows):
        encodings = (Encoding(len(rows) * catalogue.width, 1.0, bits) for bits in range(16, 1, -1))
        found = with_multiplier(asked.noise_multiplier, kind, encodings, n, ring_bits=32)
        if found is None:
            raise RuntimeError("no ring of 32 bits holds the noise of the rows")
        size += _packed_size(found[0], n, found[1].coordinate_bound(n, found[0].coordinates))
    figures |= {
        "noised_released_rows": len(rows),
        "noised_touches_released": counts[rows].sum() / counts.sum(),
        "noised_threshold": least / encoding.largest,
        "noised_deviation": float(variance) ** 0.5 / encoding.largest,
    }
    ratios["bytes_noised"] = size / dense_bytes
