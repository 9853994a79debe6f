"""``secagg audit``: try to prove the epsilon of a private plan wrong, with the real machines, on this machine.

Local training (``dp.training``) is attacked with crafted examples, if its extras are installed.

The plan is the one that ``dp.calibrate`` finds for what is asked. Its clients are made up and send what the audit
wants: crafted updates, known ones, and canaries (in rounds of their own: among canaries no model could be trained).
Where clients are silos, canaries and crafted updates are users among those of a silo.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table

from dp.audit import (
    Check,
    Claim,
    Scores,
    Vector,
    Verdict,
    audit_accounting,
    audit_canaries,
    audit_cap,
    audit_clip,
    audit_contribution,
    audit_lone,
    audit_noise,
    audit_parts,
    audit_streams,
    enough_coordinates,
    enough_rounds,
    estimate_mu,
    false_alarm,
    gaussian_epsilon,
    insert_canaries,
    inside_silos,
    landmarks,
    mu_interval,
    one_run_bounds,
    repeated_runs_bounds,
    spikes,
    visible_share,
)
from dp.audit.canaries import FEWEST, at_once
from dp.audit.claim import FALSE_ALARM
from dp.audit.margins import comparisons, least_mean_square
from dp.calibrate import Calibration, calibrate
from dp.noise import Family
from protocols.simulation.audited import PrivateSums, without_rotation
from secagg.cli.output import Json, emit, facts, row, say
from secagg.crypto.prg import Rng
from secagg.encoding import Encoding
from secagg.errors import MissingExtraError, PeerError, UsageError
from secagg.extras import need, needing
from secagg.files import write_file

app = typer.Typer()

CONFIDENCE = 0.95
AUDITED = ("secagg", "secagg+")
ASSUMED = (
    "Clients add their noise, keep their secrets, and collude in no greater number than the plan allows for.",
    "Mu is that of somebody who sees sums only: colluders know their own noise and see more.",
    "Masks hide what they should: that has tests of its own.",
    "Rounds differ in nothing but their seeds: those of this audit stand for those of the plan.",
    "Local training is attacked with the examples that somebody has thought of, on small models.",
    "A failed check shows that the claim is false. Passed checks do not show that it is true.",
)


@app.command()
def audit(
    clients: Annotated[int, typer.Option(help="Clients in a round: devices, or silos.")] = 10,
    users_per_silo: Annotated[
        int, typer.Option(help="The most users of a silo, who are what is private; 0: clients are devices.")
    ] = 0,
    overlap: Annotated[int, typer.Option(help="In how many silos one user may be.")] = 1,
    length: Annotated[int, typer.Option(help="Numbers in an update.")] = 4096,
    clip: Annotated[float, typer.Option(help="Bound on an update's L2 norm.")] = 1.0,
    epsilon: Annotated[float, typer.Option(help="What all rounds together may cost a user.")] = 4.0,
    delta: Annotated[float, typer.Option(help="With it.")] = 1e-6,
    rounds: Annotated[int, typer.Option(help="Rounds in which one user takes part.")] = 2,
    ring_bits: Annotated[int, typer.Option(help="Width of the ring.")] = 24,
    dropouts: Annotated[int, typer.Option(help="Clients that may be missing.")] = 2,
    colluders: Annotated[int, typer.Option(help="Clients whose noise is not counted.", min=1)] = 1,
    components: Annotated[
        int | None, typer.Option(help="Removable parts of each client's noise; default: one a dropout.")
    ] = None,
    family: Annotated[Family, typer.Option(help="Law of the noise.")] = Family.DISCRETE_GAUSSIAN,
    protocol: Annotated[str, typer.Option(help="secagg or secagg+.")] = "secagg",
    audit_rounds: Annotated[
        int, typer.Option(help="Rounds whose noise is measured; 0: enough to see one client's noise missing.")
    ] = 0,
    examples: Annotated[bool, typer.Option(help="Attack local training, too (with the extra train).")] = True,
    canaries: Annotated[int, typer.Option(help=f"Canaries, in dedicated rounds: {FEWEST} or more; 0: none.")] = FEWEST,
    out: Annotated[Path | None, typer.Option(help="Directory for audit.json; default: a new one in ./runs.")] = None,
    as_json: Json = False,
) -> None:
    """Measure what a private sum gives away, and set it against the epsilon that is claimed for it."""
    if audit_rounds < 0 or canaries < 0 or 0 < canaries < FEWEST:
        raise UsageError(f"audit-rounds is 0 or more, canaries 0 or at least {FEWEST}")
    if protocol not in AUDITED:
        raise UsageError(f"audited are rounds of {' and '.join(AUDITED)}, not of {protocol!r}")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty directory")
    need("dp", "secagg audit")
    found = calibrate(
        epsilon=epsilon,
        delta=delta,
        rounds=rounds,
        clients=clients,
        length=length,
        clip_l2=clip,
        ring_bits=ring_bits,
        dropouts=dropouts,
        colluders=colluders,
        components=dropouts if components is None else components,
        family=family,
        users=users_per_silo,
        overlap=overlap,
    )
    tell = (lambda line: None) if as_json else say
    for fact in str(found).splitlines():
        tell(fact)
    report = _audited(found, _Effort(rounds, delta, protocol, audit_rounds, canaries, examples), tell)
    run_dir = _run_dir(out)
    answer = {"run_dir": str(run_dir), "config": _config(found, rounds, delta, protocol), **report}
    text = json.dumps(answer, allow_nan=False, indent=2) + "\n"
    write_file(run_dir / "audit.json", text.encode(), private=False)
    emit(as_json, answer, _story(answer))
    if failed := [check["name"] for check in answer["checks"] if check["verdict"] == Verdict.FAILED]:
        raise PeerError(f"the claim does not hold: {', '.join(failed)} (see {run_dir / 'audit.json'})")


@dataclass(frozen=True, slots=True)
class _Effort:
    rounds: int
    delta: float
    protocol: str
    audit_rounds: int
    canaries: int
    examples: bool


def _audited(found: Calibration, effort: _Effort, tell: Callable[[str], None]) -> dict[str, Any]:
    checks, rng, encoding, scores = list[Check](), os.urandom, found.encoding, None
    settings: dict[str, Any] = {
        "rounds": effort.rounds,
        "delta": effort.delta,
        "protocol": effort.protocol,
        "rng": rng,
    }
    with PrivateSums(found, **settings) as sums, PrivateSums(without_rotation(found), **settings) as flat:
        claim, n = sums.claim(), found.clients
        few = at_once(claim, encoding.length, sums.units) if encoding.users else n
        if effort.canaries:
            tell(f"{effort.canaries} canaries")
            size = {"clients": sums.units, "canaries": few, "length": encoding.length}
            scores = insert_canaries(sums.release, claim, rounds=-(-effort.canaries // few), rng=rng, **size)
            checks += audit_canaries(scores, claim)
        tell("crafted updates")
        checks.append(
            audit_contribution(
                _encode(encoding, rng),
                l2_squared=encoding.sensitivity().l2_squared,
                length=encoding.length,
                clip_l2=encoding.clip_l2,
                step=1 / encoding.scale,
                rng=rng,
            )
        )
        if encoding.users:
            checks.append(_cap_check(flat.found.encoding, rng))
        checks.append(audit_clip(sums.release, claim, clients=sums.units, length=encoding.length, rng=rng))
        tell("contributions to single coordinates")
        places = landmarks(encoding.length, rng)
        checks.append(
            audit_lone(
                sums.release,
                claim.noise,
                places,
                clients=sums.units,
                length=encoding.length,
                height=claim.clip_l2,
                rounds=enough_rounds(len(places), claim.noise),
                rng=rng,
            )
        )
        tell("what clients draw, one by one")
        checks += audit_streams(sums.drawn, sums.share(), _some(n, rng), rng=rng)
        if found.noise.components:
            checks += audit_parts(sums.parts, sums.part(), rng=rng)
        enough = -(-enough_coordinates(1 / n, claim.excess_kurtosis) // encoding.coordinates)
        repeats = effort.audit_rounds or max(enough, enough_rounds(encoding.coordinates, claim.noise))
        for missing in sorted({0, found.noise.dropouts}):
            tell(f"{repeats} rounds of known updates, {missing} clients missing")
            checks += _noise_checks(flat, repeats, missing)
        nobody_missing = (sums.charged[0], flat.charged[0][:repeats])
        checks.append(audit_accounting(max(nobody_missing, key=len), claim))
    local, attacked = _local_training(tell) if effort.examples else ("not asked for", [])
    checks += attacked
    return {
        "claimed": {"epsilon": found.epsilon, "epsilon_of_a_round": claim.epsilon, "mu_of_a_round": claim.mu},
        "measured": _measured(scores, claim, effort.rounds, few),
        "confidence": CONFIDENCE,
        "noise_coordinates": repeats * encoding.coordinates,
        "smallest_missing_share_seen": visible_share(repeats * encoding.coordinates, claim.excess_kurtosis),
        "smallest_deviation_of_a_place": _least_deviation(repeats, encoding.coordinates, claim),
        "local_training": local,
        "checks": [_plain(check) for check in checks],
        "false_alarm": false_alarm(checks),
        "assumed": ASSUMED,
    }


def _encode(encoding: Encoding, rng: Rng) -> Callable[[Vector], NDArray[np.int64]]:
    """What becomes of an update in a client's integers, or of a user's in those of the silos that the user is in."""
    if not encoding.users:
        return lambda update: encoding.encode(update, weight=1, seed=rng(32), rng=rng)
    seed = rng(32)
    return inside_silos(
        lambda users, draw: encoding.encode_users(users, seed=seed, rng=draw),
        users=encoding.users,
        overlap=encoding.overlap,
        rng=rng,
    )


def _cap_check(grid: Encoding, rng: Rng) -> Check:
    """Of silos with more users than they may have; ``grid`` does not rotate."""
    return audit_cap(
        lambda users, draw: grid.encode_users(users, seed=bytes(32), rng=draw),
        users=grid.users,
        length=grid.length,
        height=grid.clip_inf,
        rng=rng,
    )


def _local_training(tell: Callable[[str], None]) -> tuple[str, list[Check]]:
    """What was done, in words, and what came of it."""
    try:
        with needing("train", "auditing local training"):
            from dp.audit.examples import attacks, audit_examples, shape_attack, step_claim, trainer_step
            from dp.audit.steps import audit_steps, trainer_noise
    except MissingExtraError as error:
        tell(missing := f"NOT audited: {error}")
        return missing, []

    tell("local training: crafted examples and noise")
    clip, multiplier = 1.0, Fraction(1, 64)
    claim = step_claim(clip, multiplier)
    found = audit_examples(trainer_step(clip, multiplier), claim, attacks())
    steps = audit_steps(trainer_noise(clip, multiplier), claim)
    words = f"{len(found)} attacks on dp.training.Trainer, clip {clip:g}, noise multiplier {multiplier}"
    if shape_attack() is None:
        tell(missing := "NOT audited: one more in a batch (last bits do not depend on the size of a batch here)")
        words = f"{words}; {missing}"
    named = {"example": found, "training": steps}
    return words, [replace(check, name=f"{kind}: {check.name}") for kind, checks in named.items() for check in checks]


def _least_deviation(rounds: int, coordinates: int, claim: Claim) -> float:
    """A part of the planned one: a place that has less over these rounds fails. 0: none does."""
    return math.sqrt(max(least_mean_square(rounds, claim.noise, FALSE_ALARM / comparisons(coordinates)), 0.0))


def _some(clients: int, rng: Rng) -> list[int]:
    """The first, the last and others, ten or so."""
    return list(range(clients)) if clients <= 10 else landmarks(clients, rng, more=8)


def _noise_checks(flat: PrivateSums, repeats: int, missing: int) -> list[Check]:
    """In the basis in which the noise is drawn. Of silos each has one user then."""
    encoding, gone = flat.found.encoding, range(missing)
    n, height = flat.found.clients, encoding.clip_inf
    known = spikes(n, encoding.length, repeats, height=height, clip_l2=encoding.clip_l2)
    checks = audit_noise(partial(flat.release, missing=gone, overlap=1), flat.claim(missing), known, dropped=gone)
    return [replace(check, name=f"{check.name}, {missing} missing") for check in checks]


def _measured(scores: Scores | None, claim: Claim, rounds: int, canaries: int) -> dict[str, float | None]:
    """What the canaries prove. Several rounds add up only where their noise is independent, as the checks say."""
    if scores is None:
        return {}
    error = 1 - CONFIDENCE
    mu, deviation = estimate_mu(scores)
    least = max(mu_interval(scores, error)[0], 0.0)
    together = one_run_bounds(scores, claim, guesses=len(scores.values) // 5, error=error)
    found = {
        "mu_of_a_round": mu,
        "mu_standard_error": deviation,
        "epsilon_at_least_gaussian": gaussian_epsilon(least * math.sqrt(rounds), claim.delta),
        "epsilon_of_a_round_at_least_gaussian": together.gaussian,
        "epsilon_of_a_round_at_least_one_run": together.general,
    }
    if one_a_round := _one_a_round(scores, canaries):
        repeated = repeated_runs_bounds(one_a_round, claim, error=error)
        found["epsilon_of_a_round_at_least_repeated_runs_gaussian"] = repeated.gaussian
        found["epsilon_of_a_round_at_least_repeated_runs"] = repeated.general
    return {name: _finite(value) for name, value in found.items()}


def _one_a_round(scores: Scores, canaries: int) -> Scores | None:
    """The first canary of each round: its coin and score are independent of those of other rounds."""
    present = scores.present[::canaries]
    return Scores(present, scores.values[::canaries]) if 0 < int(present.sum()) < len(present) else None


def _config(found: Calibration, rounds: int, delta: float, protocol: str) -> dict[str, Any]:
    encoding, noise = found.encoding, found.noise
    return {
        "protocol": protocol,
        "clients": found.clients,
        "length": encoding.length,
        "clip_l2": encoding.clip_l2,
        "bits": encoding.bits,
        "ring_bits": found.ring_bits,
        "unit": "user",
        "holder": "silo" if encoding.users else "device",
        "users_per_silo": encoding.users,
        "overlap": encoding.overlap,
        "relation": "zero-out",
        "trust": "distributed",
        "delta": delta,
        "rounds": rounds,
        **{name: str(value) for name, value in asdict(noise).items()},
    }


def _plain(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "observed": _finite(check.observed),
        "low": _finite(check.low),
        "high": _finite(check.high),
        "verdict": check.verdict.value,
        "false_alarm": check.false_alarm,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _run_dir(out: Path | None) -> Path:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        return out
    runs = Path("runs")
    runs.mkdir(exist_ok=True)
    for number in count(1):
        with suppress(FileExistsError):
            (found := runs / f"audit-{number}").mkdir()
            break
    return found


def _story(answer: Mapping[str, Any]) -> Group:
    checks = Table("check", "measured", "allowed", "verdict", "false alarm", box=None, pad_edge=False)
    for check in answer["checks"]:
        low, high = (None if end is None else f"{end:.4g}" for end in (check["low"], check["high"]))
        allowed = f"at most {high}" if low is None else f"at least {low}" if high is None else f"{low} to {high}"
        row(
            checks,
            check["name"],
            _number(check["observed"]),
            allowed,
            check["verdict"].upper(),
            f"{check['false_alarm']:.0e}",
        )
    claimed, measured = answer["claimed"], answer["measured"]
    bounds = Table("epsilon", "claimed", "at least", "one run", "repeated runs", box=None, pad_edge=False)
    names = ("gaussian", "one_run", "repeated_runs")
    found = [_number(measured.get(f"epsilon_of_a_round_at_least_{name}")) for name in names]
    row(bounds, "one round", _number(claimed["epsilon_of_a_round"]), *found)
    in_all = _number(measured.get("epsilon_at_least_gaussian"))
    row(bounds, f"all rounds ({answer['config']['rounds']})", _number(claimed["epsilon"]), in_all)
    mu, error = _number(measured.get("mu_of_a_round")), _number(measured.get("mu_standard_error"))
    figures = {
        "mu of a round": f"claimed {_number(claimed['mu_of_a_round'])}, measured {mu} (standard error {error})",
        "noise": f"{answer['noise_coordinates']:,} coordinates: {answer['smallest_missing_share_seen']:.1%} of the "
        "variance missing would show, or in a single place all but "
        f"{answer['smallest_deviation_of_a_place']:.1%} of the deviation",
        "local training": answer["local_training"],
        "false alarms": f"{answer['false_alarm']:.1e} in all",
        "written to": answer["run_dir"],
    }
    legend = (
        f"Bounds hold with a confidence of {answer['confidence']:.0%} each. 'At least' takes the noise for normal; the "
        "others are weak and hold for any mechanism."
    )
    return Group(checks, "", bounds, "", legend, "", facts(figures), "", "Assumed:", *map("- {}".format, ASSUMED))


def _number(value: float | None) -> str:
    """None stands for infinity, or for what was not measured."""
    return "-" if value is None else f"{value:.4g}"
