"""The audits that the bug suite runs, each on rounds of the production machines.

What must see a bug is the cheapest audit that can. All of them, false alarms summed up, must leave the library as it is
alone. Keys, masks, noise and coins come from fixed seeds, so a run is the same each time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from dp.audit import (
    Check,
    audit_accounting,
    audit_canaries,
    audit_cap,
    audit_clip,
    audit_contribution,
    audit_lone,
    audit_noise,
    audit_parts,
    audit_sampling,
    audit_streams,
    enough_rounds,
    insert_canaries,
    inside_silos,
    landmarks,
    spikes,
)
from dp.calibrate import calibrate
from protocols.simulation.audited import PrivateSums, without_rotation
from secagg.crypto.prg import Prg

DELTA = 1e-6
Audit = Callable[[], tuple[Check, ...]]


@contextmanager
def private_sums(
    length: int, *, clients: int = 10, epsilon: float = 20.0, rounds: int = 1, flat: bool = True, **changes: Any
) -> Iterator[PrivateSums]:
    """``flat``: without rotation. 20 is a lot: where the noise is small, the known inputs stand out."""
    found = calibrate(
        epsilon=epsilon, delta=DELTA, rounds=rounds, clients=clients, length=length, clip_l2=1.0, **changes
    )
    found = without_rotation(found) if flat else found
    with PrivateSums(found, rounds=rounds, delta=DELTA, rng=Prg(b"audited clients, a fixed seed...")) as sums:
        yield sums


def noise(length: int = 1 << 14, repeats: int = 2, missing: tuple[int, ...] = (), **changes: Any) -> tuple[Check, ...]:
    with private_sums(length, **changes) as sums:
        encoding, clients = sums.found.encoding, sums.found.clients
        known = spikes(clients, encoding.length, repeats, height=encoding.clip_inf, clip_l2=encoding.clip_l2)
        release = partial(sums.release, missing=missing, overlap=1)
        return audit_noise(release, sums.claim(len(missing)), known, dropped=missing)


noise_of_many = partial(noise, length=1 << 15)
REMOVABLE = {"dropouts": 2, "components": 2}
noise_with_excess = partial(noise, **REMOVABLE)
noise_after_a_dropout = partial(noise, missing=(1,), **REMOVABLE)
noise_after_two_dropouts = partial(noise, missing=(1, 2), **REMOVABLE)
noise_left_in = partial(noise, missing=(1,), family="discrete-gaussian", dropouts=2, colluders=1)
gain_after_a_dropout = partial(noise, length=64, repeats=64, missing=(1,), clients=4, dropouts=1)


noise_in_each_place = partial(noise, length=1 << 8, repeats=6, clients=4)


def lone(length: int = 1 << 8, clients: int = 5) -> tuple[Check, ...]:
    """Canaries in one coordinate each."""
    with private_sums(length, clients=clients) as sums:
        noise, rng = sums.claim().noise, Prg(b"single places, from a fixed seed")
        places, height = landmarks(length, rng), sums.found.encoding.clip_inf
        few = {"clients": clients, "length": length, "height": height, "rounds": enough_rounds(len(places), noise)}
        return (audit_lone(sums.release, noise, places, rng=rng, **few),)


def streams() -> tuple[Check, ...]:
    """What the clients' machines draw, one by one."""
    with private_sums(1 << 8, **REMOVABLE) as sums:
        rng = Prg(b"secrets of clients, a fixed seed")
        return (
            *audit_streams(sums.drawn, sums.share(), range(10), rng=rng),
            *audit_parts(sums.parts, sums.part(), rng=rng),
        )


def contribution(flat: bool = True, length: int = 1 << 10) -> tuple[Check, ...]:
    """Coarse steps: rounding matters."""
    with private_sums(length, flat=flat, ring_bits=12) as sums:
        encoding, rng = sums.found.encoding, Prg(b"rounding, from a fixed seed.....")
        return (
            audit_contribution(
                lambda update: encoding.encode(update, weight=1, seed=bytes(32), rng=rng),
                l2_squared=encoding.sensitivity().l2_squared,
                length=encoding.length,
                clip_l2=encoding.clip_l2,
                step=1 / encoding.scale,
                rng=Prg(b"crafted updates, a fixed seed..."),
            ),
        )


contribution_coarse = partial(contribution, length=1 << 14)
contribution_rotated = partial(contribution, flat=False)


def inside(overlap: int = 1, rounding: str = "stochastic") -> tuple[Check, ...]:
    """What a user changes in the integers of whole silos, and how many users these count."""
    with private_sums(1 << 8, ring_bits=24, users=3, overlap=overlap, rounding=rounding) as sums:
        encoding = sums.found.encoding
        encode = lambda users, rng: encoding.encode_users(users, seed=bytes(32), rng=rng)  # noqa: E731
        draw = Prg(b"a silo, from a fixed seed.......")
        return (
            audit_contribution(
                inside_silos(encode, users=3, overlap=overlap, rng=Prg(b"rounding, from a fixed seed.....")),
                l2_squared=encoding.sensitivity().l2_squared,
                length=encoding.length,
                clip_l2=encoding.clip_l2,
                step=1 / encoding.scale,
                rng=Prg(b"crafted updates, a fixed seed..."),
            ),
            audit_cap(encode, users=3, length=encoding.length, height=encoding.clip_inf, rng=draw),
        )


inside_several = partial(inside, overlap=2)
inside_nearest = partial(inside, rounding="nearest")
noise_of_silos = partial(noise, length=1 << 15, users=3, overlap=2)


def clip() -> tuple[Check, ...]:
    with private_sums(1 << 10, clients=4, flat=False) as sums:
        rng = Prg(b"one direction, from a fixed seed")
        return (audit_clip(sums.release, sums.claim(), clients=4, length=1 << 10, rng=rng),)


def sampling() -> tuple[Check, ...]:
    """Of the batches that ``dp.training`` draws."""
    from dp.training import Flat, Settings
    from secagg.coins import poisson_sample

    settings = Settings(Flat(1.0), noise_multiplier=1, expected_batch=100)
    charged, rng = settings.sampling(1000).rate, Prg(b"Poisson samples, one fixed seed.")
    sizes = [len(poisson_sample(1000, charged, rng)) for _ in range(1000)]
    return audit_sampling(sizes, population=1000, rate=100 / 1000)


def accounting() -> tuple[Check, ...]:
    """Three rounds of a plan for three; its ledger is the server's."""
    with private_sums(16, clients=3, rounds=3, epsilon=4.0) as sums:
        for updates in spikes(3, 16, 3, height=0.1, clip_l2=0.1):
            sums.release(updates)
        (said,) = sums.charged
        return (audit_accounting(said, sums.claim()),)


def canaries() -> tuple[Check, ...]:
    """A thousand, four a round."""
    with private_sums(256, clients=4, epsilon=4.0, flat=False) as sums:
        few = {"clients": 4, "canaries": 4, "length": 256, "rounds": 250}
        scores = insert_canaries(sums.release, sums.claim(), rng=Prg(b"coins and ways, from a fixed one"), **few)
        return audit_canaries(scores, sums.claim())


CHEAP: tuple[Audit, ...] = (
    *(noise, noise_of_many, noise_with_excess, noise_after_a_dropout, noise_after_two_dropouts),
    *(noise_left_in, gain_after_a_dropout),
    *(noise_in_each_place, lone, streams),
    *(contribution, contribution_coarse, contribution_rotated, clip, sampling, accounting),
    *(inside, inside_several, inside_nearest, noise_of_silos),
)
