"""What it buys that clients take turns: the noise of a run over cohorts, and epsilon from a real ledger.

Two runs of so many rounds over cohorts of one size, at one epsilon: in one all sums are charged to everybody, in the
other each client is charged for its turns. Noise is calibrated for the cohort, its dropouts and colluders. Then the
ledger is kept, round by round, with simulated signatures of those whose turn it is, and both auditors rebuild from it
whose turn it was, what each client is charged, and the epsilon of the dearest. That the next round is refused, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.case import Measured, Say, timed
from dp import verify_ledger
from dp.calibrate import SLACK, Calibration, calibrate, release_of, user_level
from dp.events import Relation
from dp.filter import Budget
from dp.ledger import Ledger
from dp.ledger.entries import canonical, parse, survivors_digest
from dp.ledger.file import read
from dp.ledger.state import Row
from dp.ledger.verify import verify
from dp.secure_sum import SecureSum, Signed
from dp.turns import Turns, most_turns
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from recsys.deployment import Deployment
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, SigningKey, digest
from secagg.errors import BudgetError, UsageError

_GOAL = 0.33
"""How much of the noise there is to be at the most, with the defaults."""


@dataclass(frozen=True, slots=True)
class Config:
    clients: int = 1000
    size: int = 100
    rounds: int = 100
    epsilon: float = 8.0
    delta: float = 1e-5
    length: int = 1000

    def __post_init__(self) -> None:
        if not 2 <= self.size <= self.clients or self.rounds < 1:
            raise UsageError("a cohort has at least two clients and no more than there are, and there is a round")


DEFAULTS = Config()
_USER = user_level(Relation.ZERO_OUT)


def run(config: Config, say: Say) -> Measured:
    took = dict[str, list[float]]()
    say("noise")
    turns_each = most_turns(config.clients, config.size, config.rounds)
    everybody, taking_turns = _noise(config, config.rounds), _noise(config, turns_each)
    say("identities and roster")
    identities = {one.name: one for one in (Identity.generate(f"client-{i:05}") for i in range(config.clients))}
    roster = Roster.of(list(identities.values()))
    turns = Turns(roster.names, roster.keys, b"a beacon that nobody has chosen", config.size)
    with TemporaryDirectory() as folder:
        path, key = Path(folder) / "ledger.db", SigningKey(os.urandom(KEY_BYTES))
        ledger = Ledger.create(
            path, key, _budget(config, taking_turns), _USER, run="bench", elsewhere="nothing", turns=turns
        )
        for number in range(config.rounds):
            if number % 10 == 0:
                say(f"round {number}")
            what = _sum(taking_turns, turns, number)
            timed(took, "reserve", ledger.reserve, what)
            timed(took, "commit", ledger.commit, _signed(what, turns, identities, number))
        reached = ledger.epsilon
        refused = 0.0
        try:
            ledger.reserve(_sum(taking_turns, turns, config.rounds))
        except BudgetError:
            refused = 1.0
        ledger.close()
        rows = read(path)
        say("verification")
        state = timed(took, "verify", verify, rows, key.public, None, _check_plan)
        problems = timed(took, "verify_alone", list, verify_ledger.problems(_exported(rows), key.public, state.head))
    if problems or state.filter.reached is None or state.filter.reached / 10**12 != reached:
        raise UsageError(f"the ledger is not what it should be: {problems}")
    figures = {
        "turns_each": float(turns_each),
        "z_everybody": everybody.noise_multiplier,
        "z_turns": taking_turns.noise_multiplier,
        "epsilon_of_the_ledger": reached,
        "next_round_refused": refused,
        "ledger_bytes_a_round": sum(len(body) for body, _ in rows[1:]) / config.rounds,
        "genesis_bytes": float(len(rows[0][0])),
        **{f"{name}_s": sum(seconds) / len(seconds) for name, seconds in took.items()},
    }
    ratio = taking_turns.noise_multiplier / everybody.noise_multiplier
    return Measured(figures, {"z_turns_over_everybody": ratio, "of_the_goal": ratio / _GOAL})


def _noise(config: Config, rounds: int) -> Calibration:
    kind = Deployment().noise(config.size)
    return calibrate(
        epsilon=Fraction(str(config.epsilon)),
        delta=Fraction(str(config.delta)),
        rounds=rounds,
        clients=config.size,
        length=config.length,
        clip_l2=1.0,
        ring_bits=32,
        dropouts=kind.dropouts,
        colluders=kind.colluders,
        components=kind.components,
        rotate=False,
    )


def _budget(config: Config, found: Calibration) -> Budget:
    event = release_of(found.encoding, found.noise, config.size, config.size - found.noise.dropouts, _USER)
    delta = Fraction(str(config.delta))
    return Budget.suited(event, Fraction(str(config.epsilon)), delta, slack=delta * SLACK)


def _sum(found: Calibration, turns: Turns, number: int) -> SecureSum:
    """As it is planned over those whose turn it is."""
    roster = Roster.build(turns.members(number))
    least = turns.size - found.noise.dropouts
    plan = RoundPlan.propose(
        "secagg+", roster, found.encoding, min_contributors=least, noise=found.noise, session=bytes(16)
    )
    return replace(plan, round=number).secure_sum(turns.size)


def _signed(what: SecureSum, turns: Turns, identities: dict[str, Identity], number: int) -> SecureSum:
    """As if all had survived, and as many had signed as clients insist on."""
    bitmap = ((1 << turns.size) - 1).to_bytes(-(-turns.size // 8), "little")
    happened = replace(what, cohort=digest(labels.ROOT, number.to_bytes(8, "big")), bitmap=bitmap)
    agreed = survivors_digest(happened)
    signers = [identities[name] for name in turns.cohort(number)[: what.signers]]
    signatures = [Signed(one.name, one.key.public, one.key.sign(labels.SURVIVORS, agreed)) for one in signers]
    return replace(happened, signatures=tuple(signatures))


def _check_plan(what: SecureSum) -> None:
    RoundPlan.charged(what)


def _exported(rows: list[Row]) -> bytes:
    lines = [{"body": parse(body), "signature": signature.hex()} for body, signature in rows]
    return b"".join(canonical(line) + b"\n" for line in lines)
