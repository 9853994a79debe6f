"""How much noise a run has, what it costs at the most, and the budgets for that.

Noise is calibrated before anything is written; what no noise can make private, or no budget allows, is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from dp.calibrate import SLACK, Calibration, calibrate, release_of, steps_multiplier, user_level
from dp.events import Gaussian, Guarantee, Holder, Relation, Release, Trust, Unit
from dp.filter import Budget, Filter, Kind, PrivacyCost
from dp.windows import Window
from recsys.config import ClientKind, Config, Privacy
from recsys.data.split import Split
from recsys.deployment import Deployment
from recsys.federated import ClientData, LocalPrivacy
from recsys.participation import Draw
from recsys.requested_sums import beta_of, ways
from recsys.users_in_silos import UsersInSilos
from secagg.encoding import Rounding
from secagg.errors import UsageError
from secagg.sketches import Sketch

if TYPE_CHECKING:
    from dp.training import Settings

_SAMPLED_BITS = 8
"""The ring is so much narrower where cohorts differ in size. So there is room for larger cohorts, and for smaller ones,
in which each client draws more noise."""


@dataclass(frozen=True, slots=True)
class PlannedCost:
    """The most that a run will cost any client: ``count`` releases like ``event``, for which ``samples`` samples are
    drawn."""

    event: Release
    count: int
    samples: int = 0

    def cost(self, budget: Budget) -> PrivacyCost:
        """What it takes from a budget."""
        return PrivacyCost.of(self.event, self.count, self.samples, budget.kind, budget.delta - budget.slack)

    def suited(self, budget: Budget, epsilon: float) -> Budget:
        """The budget with another epsilon, and the same kind, delta and slack."""
        return Budget.suited(self.event, Fraction(str(epsilon)), budget.delta, budget.slack)


@dataclass(frozen=True, slots=True)
class DistributedNoise:
    """Noise inside the sums, what it costs, and the budget for that."""

    found: Calibration
    planned: PlannedCost
    budget: Budget
    guarantee: Guarantee


@dataclass(frozen=True, slots=True)
class LocalNoise:
    """Noise in local training, what it costs, and the budget for that."""

    settings: Settings
    planned: PlannedCost
    budget: Budget
    guarantee: Guarantee


def delta_of(privacy: Privacy, units: int) -> Fraction:
    """The delta of the configuration, or 1 / (100 n) for a public number n of units, rounded down to three digits.

    Delta is the probability with which the guarantee may fail altogether, and a mechanism that publishes one unit of n
    at random has delta 1/n: so more than 1/n is refused.

    >>> float(delta_of(Privacy(), 610)), float(delta_of(Privacy(n_min=600), 610))
    (1.63e-05, 1.66e-05)
    """
    public = privacy.n_min or units
    made = 1 / (100 * Decimal(public))
    delta = Fraction(made.quantize(Decimal(1).scaleb(made.adjusted() - 2), ROUND_FLOOR))
    if privacy.delta:
        delta = Fraction(str(privacy.delta))
    most = max(public, units)
    if delta > Fraction(1, most):
        named = "privacy.delta" if privacy.delta else "delta, made from privacy.n_min,"
        raise UsageError(
            f"{named} = {float(delta):g} is more than one over the number of units, {most}: publishing one of them "
            "whole, at random, would be as private"
        )
    return delta


def distributed_noise(
    config: Config,
    deployment: Deployment,
    planned: int,
    length: int,
    delta: Fraction,
    silos: UsersInSilos | None,
    *,
    in_rounds: bool,
    charged: int,
    sketch: Sketch | None,
) -> DistributedNoise:
    """``charged``: for how many sums any client is charged, at the most."""
    privacy, kind = config.privacy, deployment.noise(planned)
    rounds = charged if in_rounds else 1

    def tried(ring_bits: int, rounding: Rounding) -> Calibration:
        return calibrate(
            epsilon=Fraction(str(privacy.epsilon)),
            delta=delta,
            rounds=rounds,
            clients=planned,
            length=length,
            clip_l2=config.training.clip if in_rounds else 1.0,
            ring_bits=ring_bits - _SAMPLED_BITS if config.training.draw is Draw.POISSON else ring_bits,
            dropouts=kind.dropouts,
            colluders=kind.colluders,
            components=kind.components,
            rotate=False,
            beta=beta_of(rounding),
            users=0 if silos is None else silos.most,
            overlap=1 if silos is None else silos.overlap,
            rounding=rounding,
            sampled=Fraction(str(config.training.sampled)),
            sketch=sketch,
        )

    found = _first(tried, ways(silos))
    guarantee = user_level(Relation.ZERO_OUT, Holder.DEVICE if silos is None else Holder.SILO)
    if config.streamed:
        guarantee = replace(guarantee, unit=Unit.USER_WINDOW)
    event = release_of(found.encoding, found.noise, planned, planned - kind.dropouts, guarantee)
    budget = _budget(event, privacy, delta)
    samples = rounds * found.noise.samples(planned, found.encoding.coordinates)
    return DistributedNoise(found, PlannedCost(event, rounds, samples), budget, guarantee)


def window_of(config: Config) -> Window | None:
    """What the unit of privacy is in a stream, and when its sums are."""
    if not (config.streamed and config.private):
        return None
    stream = config.stream
    return Window(stream.window, stream.replay, stream.begin, stream.every)


def _first(tried: Callable[[int, Rounding], Calibration], choices: Iterator[tuple[int, Rounding]]) -> Calibration:
    """What the first choice gives that can be made private; ``UsageError`` as with the last, if none can."""
    *others, last = choices
    for choice in others:
        with suppress(UsageError):
            return tried(*choice)
    return tried(*last)


def local_noise(config: Config, client_data: ClientData, data: Split) -> LocalNoise:
    """Noise for all steps of a run. They are one schedule; but what several runs share cannot be one, and there each
    round is charged by itself, which takes 5 to 8% more noise."""
    from dp.training import Flat, Settings

    privacy = config.privacy
    unit = Unit.EXAMPLE if config.clients.kind is ClientKind.DEVICES else Unit.USER
    guarantee = Guarantee(unit, Relation.ZERO_OUT, Trust.LOCAL)
    units = data.train.user_count if unit is Unit.USER else len(data.train)
    delta = delta_of(privacy, units)
    steps = config.training.rounds * privacy.steps
    trial = LocalPrivacy(Settings(Flat(privacy.clip), Fraction(1), 1), privacy.share, privacy.steps, privacy.rate, unit)
    sampling = trial.event(client_data.examples(client_data.names, unit)).sampling
    epsilon, kind = Fraction(str(privacy.epsilon)), Kind.RENYI if privacy.ledger else Kind.SCHEDULE
    z = steps_multiplier(epsilon=epsilon, delta=delta, steps=steps, sampling=sampling, guarantee=guarantee, kind=kind)
    event = Release(Gaussian(z), sampling, guarantee)
    budget = _budget(event, privacy, delta) if privacy.ledger else Budget(epsilon, delta, delta * SLACK, kind=kind)
    planned = PlannedCost(event, steps)
    Filter.of(budget).reserve("all rounds", planned.cost(budget))  # refused here, if at all
    return LocalNoise(Settings(Flat(privacy.clip), z, 1), planned, budget, guarantee)


def _budget(event: Release, privacy: Privacy, delta: Fraction) -> Budget:
    """The budget for releases like ``event``, with a part of delta set aside for imperfect samplers."""
    return Budget.suited(event, Fraction(str(privacy.epsilon)), delta, slack=delta * SLACK)
