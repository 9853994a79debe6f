"""What privacy costs in time: samplers, calibration, accounting, the ledger, clipped gradients of embeddings.

Rates of samplers are of one core, AES included. The limits that ratios compare with are the issue's: seconds allowed
for accounting, calibration and appending, and Opacus' own grad sampler for embeddings.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.case import Measured, Say
from benchmarks.regression import embedding
from dp.accountants import PldAccountant, RdpAccountant, rdp
from dp.accountants.composition import Composition
from dp.calibrate import calibrate, steps_multiplier, user_level
from dp.events import Everyone, Gaussian, Guarantee, PoissonSample, Relation, Release, Trust, Unit
from dp.filter import Kind
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from secagg.crypto.keys import SigningKey
from secagg.crypto.sampling import draws
from secagg.errors import UsageError

SIGMAS = {"1": 1, "16": 16, "256": 256, "4096": 4096, "2_20": 1 << 20}
SAMPLES_PER_S, CALIBRATE_S, IDENTICAL_S, VARYING_S, SCHEDULE_S, APPEND_S = 5e6, 5.0, 2.0, 3.0, 2.0, 0.020
EXAMPLE = Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)


@dataclass(frozen=True, slots=True)
class Config:
    parts: str = "samplers,calibration,accounting,schedules,ledger,embedding"
    samples: int = 1 << 22
    rounds: int = 1000
    repeats: int = 5
    rows: int = 100_000
    examples: int = 256
    length: int = 50
    width: int = 32

    def __post_init__(self) -> None:
        if not set(self.parts.split(",")) <= _PARTS.keys():
            raise UsageError(f"parts are some of {', '.join(_PARTS)}")
        if min(self.samples, self.repeats, self.rows, self.examples, self.length, self.width) < 1 or self.rounds < 2:
            raise UsageError("all counts are at least 1, and there are 2 rounds or more")


def run(config: Config, say: Say) -> Measured:
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for part in config.parts.split(","):
        say(part)
        measured = _PARTS[part](config)
        figures |= measured.figures
        ratios |= measured.ratios
    return Measured(figures, ratios)


def _seconds(work: Callable[[], object], repeats: int = 1) -> float:
    times = []
    for _ in range(repeats):
        started = perf_counter()
        work()
        times.append(perf_counter() - started)
    return median(times)


def _samplers(config: Config) -> Measured:
    """Million samples a second on one core, the least of all sigmas against what is demanded."""
    figures: dict[str, float] = {}
    for name, sampler in (("gaussian", draws.discrete_gaussian), ("skellam", draws.skellam)):
        for label, sigma in SIGMAS.items():
            variance = Fraction(sigma * sigma)
            figures[f"{name}_table_s_{label}"] = _seconds(lambda: sampler(variance, 1, bytes(32)))  # noqa: B023
            seconds = _seconds(lambda: sampler(variance, config.samples, os.urandom(32)), config.repeats)  # noqa: B023
            figures[f"{name}_per_s_{label}"] = config.samples / seconds
    seconds = _seconds(lambda: draws.discrete_laplace(Fraction(10), config.samples, os.urandom(32)), config.repeats)
    figures["laplace_per_s_10"] = config.samples / seconds
    slowest = min(figures[f"gaussian_per_s_{label}"] for label in SIGMAS)
    return Measured(figures, {"gaussian_vs_demanded": slowest / SAMPLES_PER_S})


def _calibration(config: Config) -> Measured:
    """The slowest of three plans, up to 10,000 clients, both families."""
    worst = 0.0
    for clients, length, ring_bits in ((100, 65_536, 24), (1000, 1_000_000, 32), (10_000, 100_000, 32)):
        for family in Family:
            seconds = _seconds(
                lambda: calibrate(
                    epsilon=2, delta=1e-6, rounds=config.rounds // 10, clients=clients, length=length, clip_l2=1.0,  # noqa: B023
                    ring_bits=ring_bits, dropouts=clients // 10, colluders=clients // 20, family=family,  # noqa: B023
                )
            )  # fmt: skip
            worst = max(worst, seconds)
    return Measured({"calibrate_s": worst}, {"calibrate_vs_allowed": worst / CALIBRATE_S})


def _accounting(config: Config) -> Measured:
    """A plan of identical rounds, and one in which every round has another number of survivors; nothing is cached."""
    rate = PoissonSample(Fraction(1, 100))
    survivors = [1000 - 300 * i // config.rounds for i in range(config.rounds)]
    varying = [Gaussian(Fraction(sqrt(count / 1000))).on_grid() for count in survivors]  # each adds the same variance

    def compose(kind: type[Composition], mechanisms: list[Gaussian]) -> float:
        accountant = kind()
        for mechanism in mechanisms:
            accountant.compose(Release(mechanism, rate, EXAMPLE))
        return accountant.epsilon(1e-6)

    figures = {}
    for name, mechanisms in (("identical", [Gaussian(Fraction(1))] * config.rounds), ("varying", varying)):
        for label, kind in (("rdp", RdpAccountant), ("pld", PldAccountant)):
            rdp.curve.cache_clear()
            figures[f"{label}_{name}_s"] = _seconds(lambda: compose(kind, mechanisms))  # noqa: B023
    spec = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(10**9), dropouts=300, colluders=50)
    rdp.curve.cache_clear()

    def secure_sums() -> float:
        accountant = RdpAccountant()
        for count in survivors:
            mechanism = spec.mechanism(1000, count, 100_000, 10**7, 10**7)
            accountant.compose(Release(mechanism, Everyone(), user_level(Relation.ZERO_OUT)))
        return accountant.epsilon(1e-6)

    figures["sums_varying_s"] = _seconds(secure_sums)
    identical = max(figures["rdp_identical_s"], figures["pld_identical_s"])
    slowest = max(figures["rdp_varying_s"], figures["sums_varying_s"])  # PLD is for schedules that are planned
    return Measured(
        figures, {"identical_vs_allowed": identical / IDENTICAL_S, "varying_vs_allowed": slowest / VARYING_S}
    )


def _schedules(_config: Config) -> Measured:
    """The noise of local steps, charged round by round and as one schedule, at epsilon 8 and delta 1 / 400,000."""
    figures, parts, slowest = dict[str, float](), [], 0.0
    for steps, rate in ((15, Fraction(1)), (75, Fraction(1, 5)), (1000, Fraction(1, 100))):
        noise = {}
        for kind in (Kind.RENYI, Kind.SCHEDULE):
            started = perf_counter()
            found = steps_multiplier(
                epsilon=8,
                delta=Fraction(1, 400_000),
                steps=steps,
                sampling=PoissonSample(rate),
                guarantee=EXAMPLE,
                kind=kind,
            )
            noise[kind], seconds = float(found), perf_counter() - started
            figures[f"{kind}_noise_{steps}_steps_rate_{float(rate):g}"] = noise[kind]
        slowest = max(slowest, seconds)
        parts.append(noise[Kind.SCHEDULE] / noise[Kind.RENYI])
    figures["schedule_slowest_s"] = slowest
    return Measured(figures, {"schedule_vs_renyi_noise": max(parts), "schedule_vs_allowed": slowest / SCHEDULE_S})


def _ledger(config: Config) -> Measured:
    """Appending with sync, for sums whose survivors vary, and opening the ledger again."""
    roster = Roster.of([Identity.generate(f"client-{i}") for i in range(20)])
    found = calibrate(epsilon=4, delta=1e-6, rounds=1, clients=20, length=10_000, clip_l2=1.0, dropouts=6, colluders=1)
    plan = RoundPlan.propose("secagg", roster, found.encoding, min_contributors=14, dropout="0.3", noise=found.noise)
    budget = Budget(Fraction(30), Fraction(1, 1000), slack=Fraction(1, 10**6), kind=Kind.GDP)
    key, times = SigningKey(os.urandom(32)), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        ledger = Ledger.create(path, key, budget, user_level(Relation.ZERO_OUT), run="benchmark", elsewhere="-")
        for _ in range(config.rounds):
            reserved = plan.secure_sum(20)
            times.append(_seconds(lambda: ledger.reserve(reserved)))  # noqa: B023
            ledger.abort(reserved, "only measured")
            plan = plan.next_round()
        ledger.close()
        opened = _seconds(lambda: Ledger.open(path, key).close())
    figures = {"append_s": median(times), "append_slowest_s": max(times), "open_s": opened}
    return Measured(figures, {"append_vs_allowed": figures["append_s"] / APPEND_S})


def _embedding(config: Config) -> Measured:
    return embedding.compare(embedding.Task(config.rows, config.examples, config.length, config.width, config.repeats))


_PARTS: dict[str, Callable[[Config], Measured]] = {
    "samplers": _samplers,
    "calibration": _calibration,
    "accounting": _accounting,
    "schedules": _schedules,
    "ledger": _ledger,
    "embedding": _embedding,
}
DEFAULTS = Config()
