"""An auditor's own check of a privacy ledger: python verify_ledger.py LEDGER [--key HEX|FILE] [--head HASH]

LEDGER is a ``ledger.db``, or what ``secagg ledger export`` makes of one. The script imports nothing of the library that
wrote it (only ``cryptography``, for Ed25519), and computes everything again from the facts, with formulas taken from
the papers: hash tree, signatures, noise variances, costs, sums, limits, epsilons. It prints a statement:
what is promised, what was spent, and on whose word that stands; or a line for each problem, and no statement.

Exit codes: 0, verified under the key that was given; 4, something is wrong; 5, the ledger agrees with itself, but
without a key anybody can have written it; 2, wrong use, or a file that cannot be read; 6, ``cryptography`` is missing.
Without a head it may be an older copy. The fields are described in docs/ledger.md.
"""

from __future__ import annotations

import argparse
import cmath
import hashlib
import heapq
import json
import math
import re
import sqlite3
import sys
import textwrap
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal, getcontext, localcontext
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

VERIFIED, WRONG_USE, WRONG, CONSISTENT_ONLY, MISSING = 0, 2, 4, 5, 6  # exit codes
try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    if __name__ != "__main__":
        raise
    sys.stderr.write("verify_ledger.py: cryptography is not installed: pip install cryptography\n")
    sys.exit(MISSING)

RESOLUTION = 10**12
ORDERS = [*range(2, 65), *range(72, 257, 8), 320, 384, 448, 512, 768, 1024]
LONGEST_LINE = 500
PATIENCE = 2  # seconds, with a ledger that is in use
LABEL, COLUMNS = 12, 80  # of a statement: where its text begins, and ends
ABSOLUTE, RELATIVE = 3, 1e-8  # units, and a fraction: what floating point may differ by
UNDERSTATED = 0.01  # by which part the epsilon of a sampled schedule may be below our own
GRID, TAIL, STEEPEST = 1 << 13, 30, 1 << 8  # of sums of losses: numbers, -log of what is cut off, and largest tilt
AT_COMMIT = "survivors cohort bitmap signatures survivors_digest missing honest components_removed variance_held"
AFTER = "release:text total:number?* total_samples:number epsilon_before:number? epsilon_after:number?"
CHARGED = f"number:number previous:hex phase:text time:number? cost:number?* samples:number {AFTER}"
FIELDS = {  # of each kind of record: its fields, and what stands there (see ``need_value``)
    "genesis": """number:number previous:hex phase:text schema:count accountant:text run:text elsewhere:text data:hex
        turns:record? arrivals:record? window:record? unit:text relation:text trust:text holder:text epsilon:above
        delta:above slack:rational kind:text order:number orders:count* units:above limits:integer*
        samples_limit:number owner:hex""",
    "turns": "names:text* keys:hex* beacon:hex size:count",
    "arrivals": "names:text* keys:hex* size:count",
    "window": "length:count kept:count start:number every:count",
    "reserve": CHARGED,
    "commit": CHARGED,
    "abort": f"number:number previous:hex phase:text reason:text {AFTER}",
    "sum": """plan:hex plan_digest:hex session:hex round:number roster:hex planned:count noise:record dimension:count
        clip_l2:above scale:above rotated:truth beta:rational l2_squared:count l1:count weight_bound:count
        users:number overlap:count rounding:text sampled:above ring_bits:count signers:count variance_each:above
        variance_components:above* sampling:text seen_by:text survivors:count cohort:hex bitmap:hex
        signatures:record* survivors_digest:hex missing:number honest:count components_removed:number
        variance_held:above members:text*""",
    "noise": "family:text variance:above dropouts:number colluders:number components:number",
    "signature": "name:text key:hex signature:hex",
    "steps": "event:record count:count sampling:text seen_by:text",
    "Selection": "kind:text release:record steps:count mean_runs:above",
    "Release": "kind:text mechanism:record sampling:record guarantee:record",
    "Guarantee": "kind:text unit:text relation:text trust:text holder:text",
    "Gaussian": "kind:text noise_multiplier:above",
    "DiscreteLaplace": "kind:text scale:above l1:count",
    "Skellam": "kind:text variance:above l2_squared:count l1:count",
    "DiscreteGaussians": "kind:text variance:above draws:count dimension:count l2_squared:count",
    "Everyone": "kind:text",
    "PoissonSample": "kind:text rate:above",
    "FixedSizeSample": "kind:text size:count population:count",
}
PRIME = 2**255 - 19
ORDER_8 = 0x5FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER = {0, 1, PRIME - 1, ORDER_8, PRIME - ORDER_8}  # y of Ed25519's points of order 1, 2, 4 and 8
MOST_SECONDS, LAST_SECOND = 1 << 40, 1 << 73
MOST_PARTIES, MOST_COMPONENTS, LARGEST_EPSILON = 10_000_000, 65_535, 500
FARTHEST = Fraction(1, 2**40)  # from Gaussian noise, in log ratio: all that a budget of kind gdp pays for
LEAST_DRAW, CLOSE = 8, Fraction(104, 10**36)  # CLOSE is above e(2) = 2 (e^(-8 pi^2) + e^(-32 pi^2) + ...)
UNITS_OF_PRIVACY, TRUSTS = ("example", "user", "user-window"), ("local", "distributed", "central")
HOLDERS, ROUNDINGS = ("device", "silo"), ("stochastic", "nearest", "exact")
RELATIONS = ("add-or-remove", "replace-one", "zero-out")
MECHANISMS = ("Gaussian", "DiscreteLaplace", "Skellam", "DiscreteGaussians")
SAMPLINGS = ("Everyone", "PoissonSample", "FixedSizeSample")
VERSIONS = {"gdp": ("gdp/1", []), "renyi": ("rdp/2", ORDERS), "schedule": ("pld/1", [])}


class Problem(Exception):
    """Something that an honest ledger does not hold."""


def need(condition: Any, problem: str) -> None:
    if not condition:
        raise Problem(problem)


def need_fields(value: Any, kind: str) -> None:
    """A record of this kind: these fields and no other, in each what should stand there."""
    asked = dict(field.split(":") for field in FIELDS[kind].split())
    need(isinstance(value, dict) and value.keys() == asked.keys(), f"{kind} has other fields")
    for name, what in asked.items():
        need_value(value[name], what, f"{name} of {kind}")


def need_value(value: Any, what: str, where: str) -> None:
    """``*``: a list of such; ``?``: or null. Truth values are no numbers, though Python thinks so."""
    many, or_null, one = what.endswith("*"), "?" in what, what.rstrip("*").rstrip("?")
    need(not many or type(value) is list, f"{where} is no list")
    fits, problem = WHAT[one], f"{where} is no {one}"
    for item in value if many else [value]:
        need((or_null and item is None) or fits(item), problem)


def digest(label: bytes, *parts: bytes) -> bytes:
    """SHA-256 over parts that each have their length in front, 8 bytes."""
    return hashlib.sha256(transcript(label, *parts)).digest()


def transcript(label: bytes, *parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in (label, *parts))


def with_leaf(subtrees: list[tuple[int, bytes]], entry: bytes) -> list[tuple[int, bytes]]:
    """The full subtrees of a Merkle tree (RFC 9162, section 2.1.1), sizes and hashes, when there is one more leaf."""
    grown = [*subtrees, (1, hashlib.sha256(b"\0" + entry).digest())]
    while len(grown) > 1 and grown[-2][0] == grown[-1][0]:
        (size, left), (_, right) = grown[-2:]
        grown[-2:] = [(2 * size, hashlib.sha256(b"\1" + left + right).digest())]
    return grown


def root_over(subtrees: list[tuple[int, bytes]]) -> bytes:
    found = subtrees[-1][1]
    for _, subtree in reversed(subtrees[:-1]):
        found = hashlib.sha256(b"\1" + subtree + found).digest()
    return found


def check_signature(key: bytes, signature: bytes, message: bytes, problem: str) -> None:
    need(usable(key), f"{problem}: under such a key anybody can sign")
    need(usable(signature[:32]), problem)  # libraries differ in whether they take such a point
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Problem(problem) from None


def usable(point: bytes) -> bool:
    y = int.from_bytes(point, "little") % 2**255
    return y < PRIME and y not in SMALL_ORDER


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def rational(text: Any) -> Fraction:
    need(isinstance(text, str) and re.fullmatch(r"[0-9]+(/[1-9][0-9]*)?", text), f"{text!r} is not a rational")
    value = Fraction(text)
    need(str(value) == text, f"{text} is not reduced")
    return value


def decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / value.denominator


WHAT: dict[str, Callable[[Any], Any]] = {
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) is int and value >= 0,
    "count": lambda value: type(value) is int and value > 0,
    "truth": lambda value: type(value) is bool,
    "text": lambda value: type(value) is str and re.fullmatch("[^\ud800-\udfff]{1,1000}", value, re.DOTALL),
    "hex": lambda value: type(value) is str and re.fullmatch("([0-9a-f]{2})*", value),
    "rational": lambda value: rational(value) >= 0,
    "above": lambda value: rational(value) > 0,
    "record": lambda value: type(value) is dict,
}


# Exact Gaussian accounting


def moved_squared(event: Any, guarantee: dict[str, str]) -> Fraction:
    """mu^2 of an event record. Everything but Gaussian noise without sampling is refused."""
    need(event["kind"] == "Release", "a budget of kind gdp has no bound for a search")
    mechanism, sampling, stretch = checked(event, guarantee)
    known = mechanism["kind"] in ("Gaussian", "DiscreteGaussians") and sampling["kind"] == "Everyone"
    need(known, "a budget of kind gdp has no bound for noise that is not Gaussian, or sampled")
    if mechanism["kind"] == "Gaussian":
        return (stretch / rational(mechanism["noise_multiplier"])) ** 2
    return Fraction(stretch**2 * mechanism["l2_squared"]) / (rational(mechanism["variance"]) - 4)


def holds(epsilon: Fraction, delta: Fraction, moved: Fraction) -> bool:
    """Balle and Wang 2018, Theorem 8, for mu^2 = moved: delta_G(epsilon - 2h) <= (1 - h) delta with h = 2^-40."""
    if moved == 0:
        return True
    epsilon -= 2 * FARTHEST
    with localcontext(Context(60)):
        mu = decimal(moved).sqrt()
        near, far = decimal(epsilon) / mu - mu / 2, decimal(epsilon) / mu + mu / 2
        if abs(near) > 40:  # a Gaussian's tail from there on is below 10^-347
            return near > 0
    with localcontext(Context(80 + int(far * far / 2))):  # the terms of a tail cancel
        mu = decimal(moved).sqrt()
        near, far = decimal(epsilon) / mu - mu / 2, decimal(epsilon) / mu + mu / 2
        return tail(near) - decimal(epsilon).exp() * tail(far) <= decimal((1 - FARTHEST) * delta)


def tail(x: Decimal) -> Decimal:
    """Phi(-x) = 1/2 - (x - x^3 / (1! 2 3) + x^5 / (2! 2^2 5) - ...) / sqrt(2 pi)."""
    power, total, n = x, x, 0
    smallest = Decimal(10) ** -getcontext().prec
    while abs(power) > smallest:
        n += 1
        power *= -x * x / (2 * n)
        total += power / (2 * n + 1)
    return Decimal("0.5") - total / root_of_two_pi(getcontext().prec)


@lru_cache(64)
def root_of_two_pi(digits: int) -> Decimal:
    """By the arithmetic-geometric mean (Brent 1976, Salamin 1976)."""
    with localcontext(Context(digits + 10)):
        a, b, t, power = Decimal(1), 1 / Decimal(2).sqrt(), Decimal("0.25"), 1
        while abs(a - b) > Decimal(10) ** -(digits + 5):
            a, b, t, power = (a + b) / 2, (a * b).sqrt(), t - power * ((a - b) / 2) ** 2, 2 * power
        return (2 * (a + b) ** 2 / (4 * t)).sqrt()


# The privacy loss of a schedule: equal steps of Gaussian noise with Poisson sampling


def of_schedule(event: Any, guarantee: dict[str, str]) -> tuple[Fraction, Fraction]:
    """Noise multiplier, over how far neighbours move a step, and rate. What no schedule is made of is refused."""
    need(event["kind"] == "Release", "a schedule is no search")
    mechanism, sampling, stretch = checked(event, guarantee)
    known = mechanism["kind"] == "Gaussian" and sampling["kind"] in ("Everyone", "PoissonSample")
    need(known, "no schedule is made of such steps")
    rate = rational(sampling["rate"]) if sampling["kind"] == "PoissonSample" else Fraction(1)
    need(rate == 1 or stretch == 1, "no schedule is made of samples in which one is replaced")
    return rational(mechanism["noise_multiplier"]) / stretch, rate


@lru_cache(16)
def suffices(epsilon: int, z: Fraction, rate: Fraction, steps: int, delta: Fraction) -> bool:
    """Whether so many units of epsilon are what the schedule costs at delta: without sampling exactly the least that
    holds, and otherwise not below our own computation by more than ``UNDERSTATED``."""
    if rate == 1:
        enough, less = (holds(Fraction(units, RESOLUTION), delta, steps / z**2) for units in (epsilon, epsilon - 1))
        return epsilon > 0 and enough and (epsilon == 1 or not less)
    above = epsilon / RESOLUTION * (1 + UNDERSTATED)
    need(float(z) > 1 / 64 and above <= 2 * LARGEST_EPSILON, "a schedule of so little noise has no bound")
    return all(failing(above, float(z), float(rate), steps, way) <= delta for way in (1, -1))


def failing(epsilon: float, z: float, q: float, steps: int, way: int) -> float:
    """The delta at epsilon of P^steps against Q^steps for P = (1-q) N(0, z^2) + q N(1, z^2) and Q = N(0, z^2), or with
    ``way`` -1 of Q^steps against P^steps: E (1 - e^(epsilon - L))+, with L the sum of the steps' privacy losses.

    The law of a loss is tilted by e^(power loss), so that the mean of L is about epsilon (Cramer 1938), put onto a grid
    that keeps its mean and variance, and L's is found by a Fourier transform. The grid is as wide as Chernoff's bound
    asks for.
    """
    if way == -1 and -steps * math.log1p(-q) <= epsilon:  # the most that can be lost
        return 0.0
    low, high = 0.0, 1.0
    while high < STEEPEST and steps * tilted_loss(high, z, q, way)[1] < epsilon:
        low, high = high, 2 * high
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if steps * tilted_loss(middle, z, q, way)[1] < epsilon else (low, middle)
    scale, mean, law = tilted_loss(low, z, q, way)
    deviation = math.sqrt(steps * math.fsum(math.exp(log) * loss**2 for log, loss in law))
    tilts = [sign * 2.0**k / deviation for sign in (1, -1) for k in range(-3, 8)]
    bounds = [(steps * log_of_sum([log + t * loss for log, loss in law]) + TAIL) / abs(t) for t in tilts]
    width = 2 * max(min(bounds[:11]), min(bounds[11:])) / GRID
    masses = [0.0] * GRID
    for log, loss in law:  # Lax and Wendroff 1960: no frequency grows
        place, mass = loss / width, math.exp(log)
        nearest = round(place)
        off = place - nearest
        for step, part in ((-1, off * (off - 1) / 2), (0, 1 - off * off), (1, off * (off + 1) / 2)):
            masses[(nearest + step) % GRID] += mass * part
    total = 0.0
    for place, mass in enumerate(transformed([one**steps for one in transformed(masses, -1)], 1)):
        loss = steps * mean + width * (place - GRID if place >= GRID // 2 else place)
        if loss > epsilon:
            total += mass.real / GRID * math.exp(steps * scale - low * loss) * -math.expm1(epsilon - loss)
    return total


def tilted_loss(power: float, z: float, q: float, way: int) -> tuple[float, float, list[tuple[float, float]]]:
    """log E e^(power loss), the mean of the loss under the tilted law, and that law: logarithms of probabilities, and
    losses less their mean. By the trapezoidal rule, which for such functions errs exponentially little."""
    spacing, reach = min(z, z * z) / 6, power + 12 * z
    points = [n * spacing for n in range(math.floor(-reach / spacing), math.ceil((1 + reach) / spacing) + 1)]
    logs, losses = [], []
    for x in points:
        loss = log_of_sum([math.log1p(-q), math.log(q) + (2 * x - 1) / (2 * z * z)])
        under_q = math.log(spacing / z) - math.log(2 * math.pi) / 2 - x * x / (2 * z * z)
        logs.append(under_q + (loss if way == 1 else 0) + power * way * loss)
        losses.append(way * loss)
    scale = log_of_sum(logs)
    mean = math.fsum(math.exp(log - scale) * loss for log, loss in zip(logs, losses, strict=True))
    return scale, mean, [(log - scale, loss - mean) for log, loss in zip(logs, losses, strict=True)]


def log_of_sum(logs: list[float]) -> float:
    top = max(logs)
    return top + math.log(math.fsum(math.exp(x - top) for x in logs))


def transformed(values: list[Any], sign: int) -> list[Any]:
    """The discrete Fourier transform of a power of two of numbers (Cooley and Tukey 1965)."""
    if len(values) == 1:
        return values
    even, odd = transformed(values[::2], sign), transformed(values[1::2], sign)
    turned = [root * one for root, one in zip(roots(len(values), sign), odd, strict=True)]
    pairs = list(zip(even, turned, strict=True))
    return [a + b for a, b in pairs] + [a - b for a, b in pairs]


@lru_cache(64)
def roots(number: int, sign: int) -> list[complex]:
    return [cmath.exp(sign * 2j * math.pi * k / number) for k in range(number // 2)]


# Renyi divergences at one order a, in nats


def gaussian(a: int, z: float) -> float:
    """Mironov 2017, Proposition 7."""
    return a / (2 * z * z)


@lru_cache(4096)
def sampled_gaussian(a: int, z: float, q: float) -> float:
    """Mironov, Talwar and Zhang 2019, Section 3.3: sum over k of C(a,k) q^k (1-q)^(a-k) e^(k(k-1)/2z^2), less 1."""
    if q == 1:
        return gaussian(a, z)
    logs = []
    for k in range(2, a + 1):
        x = k * (k - 1) / (2 * z * z)
        binomial = math.lgamma(a + 1) - math.lgamma(k + 1) - math.lgamma(a - k + 1)
        logs.append(binomial + k * math.log(q) + (a - k) * math.log1p(-q) + x + math.log(-math.expm1(-x)))
    return log1p_of_sum(logs) / (a - 1)


def log1p_of_sum(logs: list[float]) -> float:
    """log(1 + sum of e^x)."""
    top = max(logs)
    total = top + math.log(sum(math.exp(x - top) for x in logs))
    return total + math.log1p(math.exp(-total)) if total > 0 else math.log1p(math.exp(total))


@lru_cache(4096)
def fixed_size_gaussian(a: int, z: float, q: float) -> float:
    """Wang, Balle and Kasiviswanathan 2019, Theorem 27, for noise of z replacements' norm."""
    if q == 1:
        return gaussian(a, z)
    logs = []
    for j in range(2, a + 1):
        binomial = math.lgamma(a + 1) - math.lgamma(j + 1) - math.lgamma(a - j + 1)
        plain = math.log(2) + j * (j - 1) / (2 * z * z)
        if j == 2:
            bound = min(math.log(4) + math.log(math.expm1(1 / (z * z))), math.log(2) + 1 / (z * z))
        elif a <= 256:  # beyond, the simpler bound is as good
            moments = log_moments(z)
            bound = min(plain, math.log(4) + (moments[j // 2 * 2] + moments[(j + 1) // 2 * 2]) / 2)
        else:
            bound = plain
        logs.append(binomial + j * math.log(q) + bound)
    return log1p_of_sum(logs) / (a - 1)


@lru_cache(64)
def log_moments(z: float) -> dict[int, float]:
    """log of B(l) = sum over i of (-1)^i C(l,i) e^(i(i-1)/2z^2), for even l up to 256; B is E (p/q - 1)^l."""
    with localcontext() as context:
        context.prec = 1200  # terms cancel
        unit = (1 / (2 * Decimal(z) ** 2)).exp()
        powers = [unit ** (i * (i - 1)) for i in range(257)]
        found = {}
        for even in range(2, 257, 2):
            total = sum((-1) ** i * math.comb(even, i) * powers[i] for i in range(even + 1))
            found[even] = math.log(total.scaleb(-total.adjusted())) + total.adjusted() * math.log(10)
    return found


def discrete_laplace(a: int, pure: float) -> float:
    """Bun and Steinke 2016, Proposition 3.3; and the divergence is at most pure epsilon."""
    return min(pure, a * pure * pure / 2)


def skellam(a: int, variance: float, l2_squared: int, l1: int) -> float:
    """Agarwal, Kairouz and Liu 2021, Theorem 3.5; variance is theirs, 2 mu there being mu here."""
    extra = min(((2 * a - 1) * l2_squared + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
    return a * l2_squared / (2 * variance) + extra


def discrete_gaussians(a: int, variance: Fraction, draws: int, dimension: int, l2_squared: int) -> float:
    """docs/gaussian_sums.md: within h, in log ratio, of a Gaussian of variance - 4 that is rounded."""
    h = 2 * draws * dimension * CLOSE
    return float(a * l2_squared / (2 * (variance - 4)) + Fraction(2 * a - 1, a - 1) * h)


def curve(event: Any, guarantee: dict[str, str]) -> list[float]:
    """Divergences of an event record at all orders."""
    need(event["kind"] in ("Selection", "Release"), "an event is a release or a selection")
    need_fields(event, event["kind"])
    if event["kind"] == "Selection":  # Papernot and Steinke 2022, Theorem 2, eta = 1
        need(event["release"]["kind"] == "Release" and rational(event["mean_runs"]) > 1, "a search of one run, or less")
        one = [event["steps"] * value for value in curve(event["release"], guarantee)]
        mean = float(rational(event["mean_runs"]))
        fixed = min(2 * ((1 - 1 / a) * r + math.log(mean) / a) for a, r in zip(ORDERS, one, strict=True))
        all_orders = [r + fixed + math.log(mean) / (a - 1) for a, r in zip(ORDERS, one, strict=True)]
        return [min(all_orders[i:]) for i in range(len(ORDERS))]
    mechanism, sampling, stretch = checked(event, guarantee)
    kinds, relation = (mechanism["kind"], sampling["kind"]), guarantee["relation"]
    if kinds == ("Gaussian", "PoissonSample") and stretch == 1:
        z, q = float(rational(mechanism["noise_multiplier"])), float(rational(sampling["rate"]))
        return [sampled_gaussian(a, z, q) for a in ORDERS]
    if kinds == ("Gaussian", "FixedSizeSample") and stretch == 2:
        z = float(rational(mechanism["noise_multiplier"])) / 2
        return [fixed_size_gaussian(a, z, sampling["size"] / sampling["population"]) for a in ORDERS]
    if kinds == ("DiscreteGaussians", "PoissonSample") and stretch == 1:
        # Mixtures of laws that are within h of others, in log ratio, are within h of the mixtures of these.
        z = 1 / math.sqrt(Fraction(mechanism["l2_squared"]) / (rational(mechanism["variance"]) - 4))
        q, draws, dimension = float(rational(sampling["rate"])), mechanism["draws"], mechanism["dimension"]
        far = [float(Fraction(2 * a - 1, a - 1) * 2 * draws * dimension * CLOSE) for a in ORDERS]
        return [sampled_gaussian(a, z, q) + more for a, more in zip(ORDERS, far, strict=True)]
    need(sampling["kind"] == "Everyone", f"no bound is known for {kinds} under {relation}")
    if mechanism["kind"] == "Gaussian":
        z = float(rational(mechanism["noise_multiplier"])) / stretch
        return [gaussian(a, z) for a in ORDERS]
    if mechanism["kind"] == "DiscreteLaplace":
        pure = float(stretch * mechanism["l1"] / rational(mechanism["scale"]))
        return [discrete_laplace(a, pure) for a in ORDERS]
    variance, l2_squared = rational(mechanism["variance"]), stretch**2 * mechanism["l2_squared"]
    if mechanism["kind"] == "Skellam":
        return [skellam(a, float(variance), l2_squared, stretch * mechanism["l1"]) for a in ORDERS]
    return [discrete_gaussians(a, variance, mechanism["draws"], mechanism["dimension"], l2_squared) for a in ORDERS]


def checked(event: Any, guarantee: dict[str, str]) -> tuple[Any, Any, int]:
    """Mechanism and sampling of a release, and how far the sum moves between neighbours, in contributions."""
    need_fields(event, "Release")
    need(
        event["guarantee"] == {"kind": "Guarantee", **guarantee}, "a release under another guarantee than the budget's"
    )
    mechanism, sampling = event["mechanism"], event["sampling"]
    kinds = mechanism["kind"], sampling["kind"]
    need(kinds[0] in MECHANISMS and kinds[1] in SAMPLINGS, f"unknown mechanism or sampling {kinds}")
    need_fields(mechanism, kinds[0])
    need_fields(sampling, kinds[1])
    need(kinds[0] != "Gaussian" or guarantee["trust"] != "distributed", "noise inside a secure sum is discrete")
    need(kinds[1] != "PoissonSample" or rational(sampling["rate"]) <= 1, "a rate above 1")
    need(kinds[1] != "FixedSizeSample" or sampling["size"] <= sampling["population"], "more than the population")
    large = kinds[0] != "DiscreteGaussians" or rational(mechanism["variance"]) >= LEAST_DRAW
    need(large, "discrete Gaussians of a parameter below 8 have no bound")
    return mechanism, sampling, 2 if guarantee["relation"] == "replace-one" else 1


@lru_cache(16)
def limits(epsilon: Fraction, delta: Fraction, main_order: int) -> list[int]:
    """Canonne, Kamath and Steinke 2020, Proposition 12, for each order's share of delta; in units, rounded down."""
    found = []
    with localcontext() as context:
        context.prec = 50
        for order in ORDERS:
            share = Fraction(99, 100) if order == main_order else Fraction(1, 100 * (len(ORDERS) - 1))
            most = decimal(delta * share * order).ln() / (order - 1) - decimal(1 - Fraction(1, order)).ln()
            found.append(math.floor((decimal(epsilon) + most) * RESOLUTION))
    return found


def samples(epsilon: Fraction, slack: Fraction) -> int:
    """So many, each within 2^-128 of its law, add no more than the slack to delta."""
    with localcontext() as context:
        context.prec = 50
        return math.floor(decimal(slack * 2**128) / (1 + decimal(epsilon).exp()))


def check_sum(facts: Any, committed: bool, guarantee: dict[str, str]) -> tuple[Any, int]:
    """Everything about one secure sum that follows from something else. Returns its event and samples."""
    plan_digest, noise = digest(b"secagg/v1/plan", bytes.fromhex(facts["plan"])), facts["noise"]
    need(facts["plan_digest"] == plan_digest.hex(), "plan_digest is not that of the plan")
    need(guarantee["trust"] == "distributed", "noise in a secure sum is distributed, the guarantee is not")
    need((len(facts["session"]), facts["round"] >> 32) == (32, 0), "no session and round")
    need(len(facts["roster"]) == 64, "no roster")
    need(facts["planned"] <= MOST_PARTIES and facts["weight_bound"] < 1 << 31, "more clients than a round can have")
    holder, most = ("silo", facts["planned"]) if facts["users"] else ("device", 1)
    need(holder == guarantee["holder"], f"a {holder} holds each unit of the sum, and none of the budget")
    need(facts["overlap"] <= most and facts["users"] < 1 << 31, "no user can be in so many silos, and no silo so large")
    need(facts["rounding"] in ROUNDINGS, "unknown rounding")
    q = rational(facts["sampled"])
    need(q == 1 or (q < 1 and facts["users"] and facts["overlap"] == 1), "sampled are users of one silo each")
    need(facts["weight_bound"] == 1 or not facts["users"], "users inside silos have no weights")
    need(facts["signers"] <= facts["planned"], "more signatures demanded than there are clients")
    need(2 <= facts["ring_bits"] <= 64 and rational(facts["beta"]) < 1, "no ring, or no probability")
    n, survivors, colluders = facts["planned"], facts["survivors"], noise["colluders"]
    dropouts, m, missing = noise["dropouts"], noise["components"], n - survivors
    need(0 <= missing <= dropouts and facts["missing"] == missing, "more clients are missing than the noise allows for")
    need(facts["honest"] == survivors - colluders > 0, "nobody honest is left")
    need(m <= min(dropouts, MOST_COMPONENTS), "more removable components than can be")
    # Jiang, Wang and Chen 2024 (XNoise), with m levels: level j is for a_j = ceil(j dropouts / m) missing clients
    target = rational(noise["variance"])
    levels = [-(-j * dropouts // m) for j in range(m + 1)] if m else [dropouts]
    at_level = [target / (n - missing_then - colluders) for missing_then in levels]
    kept = next(j for j, missing_then in enumerate(levels) if missing_then >= missing)
    need(rational(facts["variance_each"]) == at_level[0], "variance_each does not follow")
    parts = [str(b - a) for a, b in pairwise(at_level)]
    need(facts["variance_components"] == parts, "variance_components do not follow")
    need(facts["components_removed"] == m - kept, "components_removed does not follow")
    held = (survivors - colluders) * at_level[kept]
    need(rational(facts["variance_held"]) == held >= target, "variance_held does not follow")
    sampling = {"kind": "PoissonSample", "rate": str(q)} if q < 1 else {"kind": "Everyone"}
    seen_by = "silo" if q < 1 else "server"
    need((facts["sampling"], facts["seen_by"]) == (sampling["kind"], seen_by), "sampling does not follow")
    cohort, bitmap = bytes.fromhex(facts["cohort"]), bytes.fromhex(facts["bitmap"])
    agreed = digest(b"secagg/v1/pairwise/survivors", plan_digest, cohort, bitmap)
    need(facts["survivors_digest"] == agreed.hex(), "survivors_digest does not follow")
    signatures = facts["signatures"]
    if committed:
        need(len(cohort) == 32, "survivors of no cohort")
        need(sum(byte.bit_count() for byte in bitmap) == survivors, "survivors are not those of the bitmap")
        need(len(signatures) == len({signed["key"] for signed in signatures}), "two signatures by one key")
        need(len(signatures) >= facts["signers"], "fewer signed the survivors than clients insist on")
    else:
        need(not (cohort or bitmap or signatures) and missing == dropouts, "the worst case was not reserved")
    for signed in signatures:
        need_fields(signed, "signature")
        key, signature = bytes.fromhex(signed["key"]), bytes.fromhex(signed["signature"])
        problem = f"{signed['name']} did not sign these survivors"
        check_signature(key, signature, transcript(b"secagg/v1/pairwise/survivors", agreed), problem)
    if noise["family"] == "skellam":
        mechanism = {"kind": "Skellam", "variance": str(held), "l2_squared": facts["l2_squared"], "l1": facts["l1"]}
    else:
        need(noise["family"] == "discrete-gaussian", "unknown noise")
        need(at_level[0] >= LEAST_DRAW, "shares of noise are too small for a bound")
        need(all(b - a >= LEAST_DRAW for a, b in pairwise(at_level)), "parts of the noise are too small for a bound")
        mechanism = {"kind": "DiscreteGaussians", "variance": str(held), "draws": (survivors - colluders) * (1 + kept)}
        mechanism |= {"dimension": facts["dimension"], "l2_squared": facts["l2_squared"]}
    event = {"kind": "Release", "mechanism": mechanism, "sampling": sampling}
    return {**event, "guarantee": {"kind": "Guarantee", **guarantee}}, n * facts["dimension"] * (1 + m)


class Turns:
    """Clients in a cyclic order, of whom each sum is over the next few."""

    def __init__(self, facts: Any) -> None:
        need_fields(facts, "turns")
        self.names, self.keys, self.size = clients_in(facts)
        beacon, names = bytes.fromhex(facts["beacon"]), [name.encode() for name in self.names]
        need(0 < len(beacon) <= 64, "no beacon")
        drawn_from = digest(b"secagg/v1/ledger/turns", beacon, *names)
        self.order = sorted(
            zip(self.names, self.keys, strict=True),
            key=lambda one: digest(b"secagg/v1/ledger/turns", drawn_from, one[0].encode()),
        )

    def members(self, number: int) -> dict[str, str]:
        """Names and keys of those whose turn this sum is."""
        places = range(number * self.size, (number + 1) * self.size)
        return dict(sorted(self.order[place % len(self.order)] for place in places))

    def charged(self, facts: Any) -> list[str]:
        """Who is charged for a sum: all whose turn it is."""
        need(not facts["members"], "whose turn it is, no names say")
        return charged_over(facts, self.members(facts["round"]), self.size, "it is not its turn")


class Arrivals:
    """Clients of whom each sum is over those that it names."""

    def __init__(self, facts: Any) -> None:
        need_fields(facts, "arrivals")
        self.names, self.keys, self.size = clients_in(facts)

    def charged(self, facts: Any) -> list[str]:
        """Who is charged for a sum: all whom it names."""
        chosen = set(facts["members"])
        members = {name: key for name, key in zip(self.names, self.keys, strict=True) if name in chosen}
        need(list(members) == facts["members"], f"sum {facts['round']} names strangers, or not each once and in order")
        return charged_over(facts, members, self.size, "it is not in it")


def clients_in(facts: Any) -> tuple[list[str], list[str], int]:
    """Names and keys of all clients, and how many of them are in a sum."""
    names, keys, size = facts["names"], facts["keys"], facts["size"]
    need(all(a < b for a, b in pairwise(names)), "those who are charged are not sorted, or one is there twice")
    need(len(keys) == len(set(keys)) == len(names), "not each that is charged has a key of its own")
    need(all(len(key) == 64 for key in keys), "no keys")
    need(2 <= size <= len(names), "more are in a sum together than there are")
    return names, keys, size


def charged_over(facts: Any, members: dict[str, str], size: int, otherwise: str) -> list[str]:
    """The names of those who are charged for a sum, which is over all of them and signed by nobody else. Number and
    roster are those of the plan that was signed."""
    number, plan = facts["round"], bytes.fromhex(facts["plan"])
    parts = [part for name, key in members.items() for part in (name.encode(), bytes.fromhex(key))]
    roster = digest(b"secagg/v1/roster", *parts)
    begins = 4 + int.from_bytes(plan[:4], "big") + 16  # after the protocol's name, and the session
    agreed = plan[begins : begins + 36] == number.to_bytes(4, "big") + roster
    need(agreed, f"sum {number} is not planned over the clients that are charged")
    whole = (facts["roster"], facts["planned"], len(members)) == (roster.hex(), size, size)
    need(whole, f"sum {number} is not over all of them")
    need(facts["overlap"] == 1, "where each client is charged for its own sums, no two of them hold data of one user")
    for one in facts["signatures"]:
        whose = members.get(one["name"]) == one["key"]
        need(whose, f"{one['name']} signed sum {number}: {otherwise}, or not its key")
    return list(members)


class Windows:
    """Releases in time, each of which is charged to the windows of all stretches of time that it is in.

    A stretch ends with a release, and lasts for as long as the events of one window can be in releases.
    """

    def __init__(self, facts: Any) -> None:
        need_fields(facts, "window")
        self.length, self.kept, self.start, self.every = (facts[name] for name in ("length", "kept", "start", "every"))
        need(max(facts.values()) <= MOST_SECONDS, "a window of too many seconds")
        self.span = self.length + self.kept
        self.times: list[int] = []
        self.places: dict[str, int] = {}  # of the releases that are reserved
        self.charged: list[tuple[int, int]] = []  # of each release: mu^2, samples
        self.ends: list[list[int]] = []  # of the stretch that ends with it: the same, of all that are in it
        self.first = 0  # release of the latest stretch
        self.dearest: tuple[list[Any], list[Any]] = ([], [])  # heaps of what stretches came to, and some no longer do

    def time_of(self, body: Any) -> int:
        """The second of a release: a sum's follows from the number in its plan, and steps say theirs."""
        time: int = body["time"]
        if "sum" in body:
            facts, plan = body["sum"], bytes.fromhex(body["sum"]["plan"])
            begins = 4 + int.from_bytes(plan[:4], "big") + 16  # after the protocol's name, and the session
            agreed = plan[begins : begins + 4] == facts["round"].to_bytes(4, "big")
            need(agreed, f"sum {facts['round']} has another number in its plan")
            need(time == self.start + facts["round"] * self.every, "time is not that of the number of the sum")
        need(time is not None and time <= LAST_SECOND, "is of no time")
        return time

    def reserve(self, name: str, time: int) -> None:
        need(not self.times or time >= self.times[-1], "goes back in time")
        running = self.ends[-1] if self.ends else (0, 0)
        while self.first < len(self.times) and self.times[self.first] <= time - self.span:
            running = [a - b for a, b in zip(running, self.charged[self.first], strict=True)]
            self.first += 1
        self.places[name] = len(self.times)
        self.times.append(time)
        self.charged.append((0, 0))
        self.ends.append([*running])

    def charge(self, name: str, cost: tuple[int, int]) -> None:
        """A release costs so much now, and not what it did before."""
        place = self.places[name]
        more = [now - before for now, before in zip(cost, self.charged[place], strict=True)]
        self.charged[place] = cost
        for end in range(place, len(self.times)):
            if self.times[end] >= self.times[place] + self.span:
                break
            for which, heap in enumerate(self.dearest):
                self.ends[end][which] += more[which]
                heapq.heappush(heap, (-self.ends[end][which], end))

    def most(self) -> tuple[int, int]:
        """The most that any stretch comes to, of each."""
        for which, heap in enumerate(self.dearest):
            while heap and -heap[0][0] != self.ends[heap[0][1]][which]:
                heapq.heappop(heap)
        moved, drawn = (-heap[0][0] if heap else 0 for heap in self.dearest)
        return moved, drawn

    def book(self, delta: Fraction) -> Window:
        """What is said of them, at the time of the latest release."""
        now = self.ends[-1][0] if self.ends else 0
        recent = zip(self.times[self.first :], self.charged[self.first :], strict=True)
        free = [time + self.span for time, (moved, _) in recent if moved]
        return Window(
            self.length, self.kept, self.times[-1] if self.times else 0, least_of(now, delta), (*free[:1], *free[-1:])
        )


EVERYBODY = ""  # to whom a sum is charged where all are in every sum


class Audit:
    """One ledger, entry by entry."""

    def __init__(self, key: bytes | None) -> None:
        self.key = key
        self.subtrees: list[tuple[int, bytes]] = []  # of the tree over all entries
        self.heads: list[bytes] = []  # the root over the first entry, the first two, and so on
        self.open: dict[str, Any] = {}  # of each release: recorded and recomputed divergences, samples, facts, clients
        self.done: set[str] = set()
        self.spent: dict[str, Any] = {}  # of each client that is charged alone, or of all: costs twice, and samples
        self.of_each: Turns | Arrivals | None = None
        self.windows: Windows | None = None
        self.numbers: dict[int, str] = {}  # of sums, where clients take turns
        self.gaussian, self.scheduled, self.failing, self.reached = False, False, Fraction(0), 0
        self.schedule: Any = None  # what was reserved as a whole: cost, samples, facts
        self.genesis: Any = None
        self.sums: list[Sum] = []
        self.steps: list[int] = []
        self.aborted = 0
        self.allowed: dict[str, tuple[int, int, Fraction]] = {}  # of each sum: colluders, silos of one user, rate

    def entry(self, line: str, last: bool) -> None:
        """Raise ``Problem`` unless this entry may be next. Only the last one is signed, as the last."""
        outer = json.loads(line, parse_float=_no_float, parse_constant=_no_float)
        need(canonical(outer) == line and outer.keys() == {"body", "signature"}, "not as it was exported")
        body, previous = outer["body"], self.heads[-1] if self.heads else bytes(32)
        self.subtrees = with_leaf(self.subtrees, canonical(body).encode())
        self.heads.append(root_over(self.subtrees))
        need(body["previous"] == previous.hex(), "does not follow the entry before")
        need(body["number"] == len(self.heads) - 1, "is out of place")
        need((body["phase"] == "genesis") == (body["number"] == 0), "a ledger has one genesis, its first entry")
        if body["number"] == 0:
            self.begin(body)
        need_value(outer["signature"], "hex", "signature")
        signature, count = bytes.fromhex(outer["signature"]), len(self.heads)
        if last:
            need(signature, "the ledger has been cut short: nobody has signed that it ends here")
            root = b64encode(self.heads[-1]).decode()
            note = f"secagg/v1/ledger/head/{self.heads[0].hex()}\n{count}\n{root}\n"
            check_signature(self.key or b"", signature, note.encode(), "bad signature")
        else:
            need(not signature, "is signed as the last one, and is not")
        if body["number"]:
            self.follow(body)

    def begin(self, body: Any) -> None:
        need_fields(body, "genesis")
        need(body["unit"] in UNITS_OF_PRIVACY and body["trust"] in TRUSTS, "unknown unit or trust")
        need(body["relation"] in RELATIONS and body["holder"] in HOLDERS, "unknown relation or holder")
        need((body["unit"], body["holder"]) != ("example", "silo"), "the unit inside a silo is a user, or a window")
        cut = (body["unit"], body["relation"]) != ("user-window", "add-or-remove")
        need(cut, "events that come or go beside others move a contribution like another one: replace-one")
        bounded = (body["relation"], body["trust"]) != ("add-or-remove", "distributed")
        need(bounded, "a missing client takes its noise along: under distributed trust no add-or-remove")
        self.key = self.key or bytes.fromhex(body["owner"])
        need(body["owner"] == self.key.hex(), "is signed by another key")
        need(body["kind"] in VERSIONS, "is a budget of an unknown kind")
        self.gaussian, self.scheduled = body["kind"] == "gdp", body["kind"] == "schedule"
        version = (5, *VERSIONS[body["kind"]])
        need((body["schema"], body["accountant"], body["orders"]) == version, "is of another version")
        need(body["units"] == f"1/{RESOLUTION}", "is in other units")
        need(len(body["data"]) in (0, 64), "data are marked with 32 bytes, or not at all")
        self.genesis, self.guarantee = body, {name: body[name] for name in ("unit", "relation", "trust", "holder")}
        epsilon, delta, slack = (rational(body[name]) for name in ("epsilon", "delta", "slack"))
        need(epsilon <= LARGEST_EPSILON and slack < delta < 1, "is no budget")
        need(body["order"] in ORDERS if body["kind"] == "renyi" else body["order"] == 0, "is no budget")
        self.budget, self.limits, self.most_samples = (
            math.ceil(epsilon * RESOLUTION),
            body["limits"],
            body["samples_limit"],
        )
        self.failing = delta - slack
        if self.gaussian:
            need(self.failing >= Fraction(1, 10**100) and len(self.limits) == 1 and self.limits[0] >= 0, "is no budget")
            most, more = (Fraction(self.limits[0] + extra, RESOLUTION) for extra in (0, 1))
            maximal = holds(epsilon, self.failing, most) and not holds(epsilon, self.failing, more)
            need(maximal, "the limit does not follow")
        elif self.scheduled:
            need(self.failing >= Fraction(1, 10**100), "is no budget")
            need(self.limits == [math.floor(epsilon * RESOLUTION)], "the limit does not follow")
        else:
            most_of_each = limits(epsilon, self.failing, body["order"])
            for order, limit, most_of_it in zip(ORDERS, self.limits, most_of_each, strict=True):
                need(limit == most_of_it, f"the limit of order {order} does not follow")
        most_samples = samples(epsilon, slack)
        if self.gaussian:  # which each may be 2 CLOSE farther from Gaussian noise
            most_samples = min(most_samples, math.floor(FARTHEST / (2 * CLOSE)))
        need(self.most_samples == most_samples, "samples_limit does not follow")
        zeros = [0] * (len(ORDERS) if body["kind"] == "renyi" else 1)
        need(body["turns"] is None or body["arrivals"] is None, "clients take turns, or come when they are ready")
        if body["turns"] is not None or body["arrivals"] is not None:
            mine = self.gaussian, body["relation"], body["trust"]
            self.of_each = Turns(body["turns"]) if body["arrivals"] is None else Arrivals(body["arrivals"])
            need(mine == (True, "zero-out", "distributed"), "each is charged alone for sums of kind gdp, and zero-out")
        windowed = body["unit"] == "user-window"
        need((body["window"] is not None) == windowed, "a window is what a unit of its own is about, and no other")
        if windowed:
            need(self.gaussian and self.of_each is None, "windows are for budgets of kind gdp that clients do not have")
            self.windows = Windows(body["window"])
        names = [EVERYBODY] if self.of_each is None else self.of_each.names
        self.spent = dict.fromkeys(names, (zeros, zeros, 0))

    def follow(self, body: Any) -> None:
        name, phase = body["release"], body["phase"]
        need(phase in ("reserve", "commit", "abort"), f"{phase!r} is no phase")
        charged = [field for field in ("sum", "steps") if field in body]
        need(len(charged) == (phase != "abort"), "is about no release, or about two")
        need_fields({field: value for field, value in body.items() if field not in charged}, phase)
        before = self.total()
        if phase == "reserve":
            need(name not in self.open and name not in self.done, f"{name} was reserved before")
            need(not self.scheduled or not (self.open or self.done), "is beside the one schedule of this budget")
            charge = self.charge(body)
            if self.windows is not None:
                self.windows.reserve(name, self.windows.time_of(body))
            self.open[name] = charge
            self.count(name, charge)
            if "sum" in body:
                facts = body["sum"]
                self.allowed[name] = facts["noise"]["colluders"], facts["overlap"], rational(facts["sampled"])
        elif self.scheduled:
            self.go_on(name, body)
        else:
            need(name in self.open, f"nothing is reserved for {name}")
            reserved = self.open.pop(name)
            if phase == "commit":
                self.done.add(name)
                charge = self.charge(body)
                self.count(name, charge)
                self.commit(reserved, charge, before)
                if self.windows is not None:
                    then = self.windows.times[self.windows.places[name]]
                    need(self.windows.time_of(body) == then, "is of another time than what was reserved")
                self.remember(body)
            else:
                self.aborted += 1
                self.count(name, ([0], [0], 0))
                self.allowed.pop(name, None)
                self.numbers = {number: one for number, one in self.numbers.items() if one != name}
        total = self.total()
        need((body["total"], body["total_samples"]) == (total[0], total[2]), "the sums are wrong")
        for field, (recorded, recomputed, _) in (("epsilon_before", before), ("epsilon_after", total)):
            epsilon = body[field]
            if self.scheduled:
                need([epsilon] == recorded, f"{field} is not what the sums come to")
                continue
            if self.gaussian:
                need(self.comes_to(recorded[0], epsilon), f"{field} is not what the sums come to")
                continue
            own = self.epsilon(recomputed)
            need(epsilon == self.epsilon(recorded), f"{field} is not what the sums come to")
            need(
                own is None or abs(epsilon - own) <= RESOLUTION / 1000,
                f"{field} is {epsilon / RESOLUTION}, not {own / RESOLUTION}",
            )
        self.reached = epsilon
        if phase == "reserve":
            need(epsilon is not None and epsilon <= self.budget, "exceeds the budget")
            need(not self.gaussian or total[0][0] <= self.limits[0], "exceeds the budget")
            need(total[2] <= self.most_samples, "draws more samples than the slack of delta allows")

    def count(self, name: str, charge: Any) -> None:
        """A release costs so much now, to the windows that it is charged to."""
        if self.windows is not None:
            self.windows.charge(name, (charge[0][0], charge[2]))

    def commit(self, reserved: Any, charge: Any, before: Any) -> None:
        """Added up even if it is wrong, so that one problem is not followed by many."""
        for name in charge[4]:
            self.spent[name] = added([self.spent[name], charge[:3]])
        for now, limit, actual, allowed in zip(before[0], self.limits, charge[0], reserved[0], strict=True):
            relied_on = now is not None and now <= limit
            need(not relied_on or (actual is not None and actual <= allowed), "costs more than was reserved")
        need(charge[3] == reserved[3] and charge[2] <= reserved[2], "is not what was reserved")

    def go_on(self, name: str, body: Any) -> None:
        """So many steps of the schedule are taken by now: more than before, and no more than were reserved."""
        need(body["phase"] == "commit", "gives back a schedule that may have been begun")
        need(name in self.open or name in self.done, f"nothing is reserved for {name}")
        cost, samples, planned = self.schedule
        facts = body.get("steps")
        need_fields(facts, "steps")
        need({**facts, "count": planned["count"]} == planned, "is not what was reserved")
        need((body["cost"], body["samples"]) == (cost, samples), "is charged something else than was reserved")
        need(sum(self.steps) < facts["count"] <= planned["count"], "is no further step of the schedule")
        self.steps = [facts["count"]]
        if name in self.open:
            self.spent[EVERYBODY] = added([self.spent[EVERYBODY], self.open.pop(name)[:3]])
            self.done.add(name)

    def remember(self, body: Any) -> None:
        if "sum" in body:
            facts = body["sum"]
            keys = frozenset(signed["key"] for signed in facts["signatures"])
            self.sums.append(Sum(facts["survivors"], facts["planned"], keys))
        else:
            self.steps.append(body["steps"]["count"])

    def book(self) -> Book:
        """What the entries amount to. Only of a ledger that nothing is wrong with."""
        body = self.genesis
        return Book(
            **{name: body[name] for name in ("run", "elsewhere", "data", "owner")},
            **self.guarantee,
            budget=rational(body["epsilon"]),
            delta=rational(body["delta"]),
            kind=body["kind"],
            reached=self.reached,
            sums=self.sums,
            steps=self.steps,
            reserved=len(self.open),
            aborted=self.aborted,
            colluders=min((colluders for colluders, _, _ in self.allowed.values()), default=None),
            overlap=min((overlap for _, overlap, _ in self.allowed.values()), default=1),
            sampled=min((sampled for _, _, sampled in self.allowed.values()), default=Fraction(1)),
            entries=len(self.heads),
            head=self.heads[-1].hex(),
            turns=(self.of_each.size, len(self.of_each.names)) if isinstance(self.of_each, Turns) else None,
            arrivals=(self.of_each.size, len(self.of_each.names)) if isinstance(self.of_each, Arrivals) else None,
            window=None if self.windows is None else self.windows.book(self.failing),
        )

    def charge(self, body: Any) -> tuple[Any, list[Any], int, Any, list[str]]:
        """Recorded costs, our own, samples, the facts that the plan fixes, and who is charged; all checked."""
        cost, samples, planned, count = body["cost"], body["samples"], None, 1
        clients = [EVERYBODY]
        need(self.windows is not None or body["time"] is None, "says a time, and its budget is not for windows")
        if "sum" in body:
            facts = body["sum"]
            need_fields(facts, "sum")
            need_fields(facts["noise"], "noise")
            need(body["release"] == facts["plan_digest"], "is not named after its plan")
            planned = {name: value for name, value in facts.items() if name not in AT_COMMIT.split()}
            event, drawn = check_sum(facts, body["phase"] == "commit", self.guarantee)
            need(samples == drawn, "samples do not follow")
            if self.of_each is not None:
                clients, number = self.of_each.charged(facts), facts["round"]
                taken = self.numbers.setdefault(number, body["release"]) != body["release"]
                need(not taken or isinstance(self.of_each, Arrivals), f"sum {number} is on record under another plan")
            else:
                need(not facts["members"], "names those in a sum, and charges everybody")
        else:
            need(self.of_each is None, "where each client is charged for its own sums, only secure sums are charged")
            facts = body["steps"]
            need_fields(facts, "steps")
            event, count = facts["event"], facts["count"]
            sampling = (event["release"] if event["kind"] == "Selection" else event)["sampling"]["kind"]
            seen_by = "everybody" if sampling == "Everyone" else "nobody"
            need((facts["sampling"], facts["seen_by"]) == (sampling, seen_by), "sampling is not the event's")
        if self.scheduled:
            need("steps" in body, "a schedule is of steps")
            z, rate = of_schedule(event, self.guarantee)
            known = type(cost[0]) is int and len(cost) == 1 and count <= 1 << 62
            need(known and suffices(cost[0], z, rate, count, self.failing), "is charged less than it costs")
            self.schedule = cost, samples, facts
            return cost, cost, samples, planned, clients
        if self.gaussian:
            own = [count * math.ceil(moved_squared(event, self.guarantee) * RESOLUTION)]
            need(cost == own, "is charged something else than it costs")
            mechanism = event["mechanism"]
            drawn = mechanism["draws"] * mechanism["dimension"] if mechanism["kind"] == "DiscreteGaussians" else 0
            need(samples >= count * drawn, "is charged with fewer samples than were drawn")
            return cost, own, samples, planned, clients
        exact = [count * value * RESOLUTION for value in curve(event, self.guarantee)]
        for order, recorded, value in zip(ORDERS, cost, exact, strict=True):
            enough = recorded is None or recorded >= value * (1 - RELATIVE) - ABSOLUTE * count
            need(enough, f"is charged less at order {order} than it costs")
        return cost, exact, samples, planned, clients

    def total(self) -> Any:
        """What is spent and reserved together: the most by any client, where each is charged for its own sums, or by
        any window."""
        need(self.spent, "the ledger has no budget")
        if self.windows is not None:
            moved, drawn = self.windows.most()
            return [moved], [moved], drawn
        totals = {name: [spent] for name, spent in self.spent.items()}
        for charge in self.open.values():
            for name in charge[4]:
                totals[name].append(charge[:3])
        every = [added(parts) if parts[1:] else parts[0] for parts in totals.values()]
        if self.of_each is None:
            return every[0]
        most = [max(total[0][0] for total in every)]
        return most, most, max(total[2] for total in every)

    def comes_to(self, moved: Any, epsilon: Any) -> bool:
        """Whether this is the least epsilon, in units, that holds for a sum of mu^2 that is within the limit."""
        if moved == 0:
            return bool(epsilon == 0)
        if epsilon is None or not 0 <= epsilon <= 2 * LARGEST_EPSILON * RESOLUTION:
            return False
        return least(epsilon, moved, self.failing)

    def epsilon(self, total: Any) -> Any:
        if all(used == 0 for used in total):
            return 0
        rooms = [limit - used for limit, used in zip(self.limits, total, strict=True) if used is not None]
        return max(0, self.budget - max(rooms)) if rooms else None


@lru_cache(8)
def least(epsilon: int, moved: int, delta: Fraction) -> bool:
    exact = Fraction(moved, RESOLUTION)
    holding = [holds(Fraction(units, RESOLUTION), delta, exact) for units in (epsilon, epsilon - 1)]
    return holding[0] and (epsilon == 0 or not holding[1])


def least_of(moved: int, delta: Fraction) -> int:
    """The least epsilon, in units, that holds for so much mu^2, which is within a limit."""
    low, high = -1, 2 * LARGEST_EPSILON * RESOLUTION
    while high - low > 1:
        middle = (low + high) // 2
        enough = holds(Fraction(middle, RESOLUTION), delta, Fraction(moved, RESOLUTION))
        low, high = (low, middle) if enough else (middle, high)
    return high


def added(charges: Any) -> Any:
    recorded, recomputed, samples = zip(*charges, strict=True)
    sums = [None if None in column else sum(column) for column in zip(*recorded, strict=True)]
    return sums, [sum(column) for column in zip(*recomputed, strict=True)], sum(samples)


def _no_float(text: str) -> Any:
    raise Problem(f"{text}: a ledger has no floats")


def problems(data: bytes, key: bytes | None, head: bytes | None, audit: Audit | None = None) -> Iterator[str]:
    """What is wrong with an export. ``audit``: a new one, if its book is wanted afterwards."""
    audit, lines = audit or Audit(key), data.split(b"\n")
    if lines.pop() != b"" or not lines:
        yield "the export is cut off"
    for number, line in enumerate(lines):
        try:
            audit.entry(line.decode("ascii"), last=number == len(lines) - 1)
        except Problem as problem:
            yield f"entry {number}: {problem}"
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            yield f"entry {number}: is none: {type(error).__name__} {error}"
        if audit.genesis is None:  # nothing that follows can be looked at
            return
    if head is not None and head not in audit.heads:
        yield "the pinned head is not in the ledger: it is older, or another one"


# The statement, in the words that ``secagg ledger verify`` takes from here


@dataclass(frozen=True)
class Sum:
    """A secure sum that is committed."""

    survivors: int
    planned: int
    keys: frozenset[str]
    """of those who signed"""


@dataclass(frozen=True)
class Window:
    """A unit of the events within a stretch of time, and what still counts of what was spent."""

    length: int
    kept: int
    latest: int
    """the second of the latest release"""
    reached: int
    """the epsilon of what is charged to one window with it"""
    free: tuple[int, ...]
    """when the first of that, and all of it, is charged to no window any more; nothing if nothing is"""


@dataclass(frozen=True)
class Book:
    """What the entries of a ledger amount to. Texts are as its keeper chose them."""

    run: str
    elsewhere: str
    data: str
    unit: str
    relation: str
    trust: str
    holder: str
    owner: str
    kind: str
    budget: Fraction
    delta: Fraction
    reached: int | None
    sums: list[Sum]
    steps: list[int]
    """how many, of each release that is committed"""
    reserved: int
    aborted: int
    colluders: int | None
    """clients whose noise does not count: the fewest of any sum that is committed or reserved; None: there is none"""
    overlap: int
    """in how many silos one user may be: the fewest of any such sum; 1 if there is none"""
    sampled: Fraction
    """with which probability a user is in a sum: the smallest of any such sum; 1 if there is none"""
    entries: int
    head: str
    turns: tuple[int, int] | None = None
    """how many clients are in a sum, and how many take turns; None: they do not"""
    arrivals: tuple[int, int] | None = None
    """how many clients are in a sum, and of how many; None: not whoever is ready. Without either every sum is charged
    to everybody"""
    window: Window | None = None


@dataclass(frozen=True)
class Given:
    """What a verification had to go by, beside the ledger, and what it looked at."""

    key: bool
    head: int | None = None
    """the entry that it is the head of; None: no head was given"""
    plans: bool = False
    """were decoded, and compared with the facts"""
    beside: bool = False
    """the key was a file in the folder of the ledger: whoever made the one can have made the other"""
    roster: bool = False
    against: bool | None = None
    """another ledger: under a known key, or not; None: there was none"""
    copy: bool = False
    """of this one, it begins with the same entry"""
    common: int = 0
    """releases that were compared with those of that one"""
    heads: int = 0
    """signed heads of this ledger that were found in plans, and compared with it"""

    @property
    def code(self) -> int:
        return VERIFIED if self.key and self.against is not False else CONSISTENT_ONLY

    @property
    def verdict(self) -> str:
        if self.code == CONSISTENT_ONLY:
            missing, which = ("--against-key", "the other ledger") if self.key else ("--key", "it")
            return f"internally consistent only: without {missing} anybody can have written {which}"
        found = "verified, under a key from the ledger's own folder" if self.beside else "verified"
        return found if self.head is not None else f"{found}, but it may be an older copy: give --head"


FAILED = "failed: nothing in this ledger can be relied on"
UNIT = {
    ("user", "device"): "user: all that one user contributes",
    ("example", "device"): "example: one record, such as one interaction",
    ("user", "silo"): "user: all that one user contributes inside {}, which {} it and {} not held to epsilon",
    ("user-window", "device"): "user-window: {window}",
    ("user-window", "silo"): "user-window: {window}, inside {}, which {} them and {} not held to epsilon",
}
RELATION = {
    "add-or-remove": "one {} more or less",
    "replace-one": "one {} exchanged for another",
    "zero-out": "one {} whose contribution becomes zero, while it stays known that it took part",
}
RELATION_OF_WINDOWS = {
    "replace-one": "these events exchanged for others of the same person, or left out",
    "zero-out": (
        "all becomes zero that this person contributes to releases which may hold one of these events, while it stays "
        "known that it took part"
    ),
}
TRUST = {
    "local": "each party adds its noise by itself; against everybody else, the server too",
    "distributed": "clients add shares of noise inside secure sums; against the server",
    "central": "whoever has the data adds the noise; against those who see what is released",
}


UNITS_OF_TIME = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
COUNTED = {
    "gdp": "mu^2 of Gaussian noise",
    "renyi": "divergences",
    "schedule": "the epsilon of the whole schedule, which is reserved at once",
}


def statement(book: Book, given: Given) -> dict[str, str]:
    """What a verified ledger says, and on whose word: label and text, both free of what a terminal obeys."""
    guarantee = f"{book.trust}: {TRUST[book.trust]}"
    if book.colluders:
        guarantee += f" and up to {counted(book.colluders, 'colluding client')}"
    elif book.colluders == 0:
        guarantee += ", not a client, which knows its own noise"
    if book.sampled < 1:
        rate = f"a probability of {book.sampled} at the least"
        guarantee += f"; a user is in a sum with {rate}, by a coin that nobody but its silo may see"
    reached = "no bound" if book.reached is None else upwards(Fraction(book.reached, RESOLUTION), 4)
    steps = f"{counted(len(book.steps), 'release')} of {counted(sum(book.steps), 'step')} by one party"
    releases = [counted(len(book.sums), "secure sum")] if book.sums else []
    releases += [steps] if book.steps else []
    standing = f"; {book.reserved} reserved and open" if book.reserved else ""
    standing += f"; {book.aborted} aborted" if book.aborted else ""
    found = {
        "verdict": given.verdict,
        "run": quoted(book.run),
        "unit": unit(book),
        "relation": f"{book.relation}: {relation(book)}",
        "trust": guarantee,
        "epsilon": f"{reached} of a budget of {upwards(book.budget, 4)}, spent or reserved, rounded up",
        **({} if book.turns is None else {"turns": taken(book)}),
        **({} if book.arrivals is None else {"arrivals": ready(book)}),
        **({} if book.window is None else {"window": counting(book.window)}),
        "delta": upwards(book.delta, 4),
        "releases": f"{' and '.join(releases) or 'none'} committed{standing}",
        "signers": signers(book, given),
        "entries": str(book.entries),
        "head": book.head,
        "key": book.owner,
        "data": book.data or "not said whose they are",
    }
    owner = "the key that was given" if given.key else "the key that the ledger itself names, whosever it is,"
    found["recomputed"] = (
        f"hash tree, {COUNTED[book.kind]}, samples, limits and epsilons, from the facts in the ledger; "
        f"{owner} has signed that these are all entries"
    )
    if given.head is not None:
        last = given.head == book.entries - 1
        later = f"entry {given.head}, and of what is to come after that it shows nothing"
        found["recomputed"] += f"; the head that was given is that of {'the last entry' if last else later}"
    if given.against is not None:
        common = counted(given.common, "committed sum")
        agreed = f"has {common} in common with it, and does not contradict it"
        nothing = "has no committed sum in common with it: that they were compared shows nothing"
        copy = "is a copy of this one, and goes on no further"
        found["recomputed"] += f"; the other ledger {copy if given.copy else agreed if given.common else nothing}"
    if book.sums:
        compared = "compared with it" if given.plans else "not compared with it here: secagg ledger verify does"
        found["signed"] = (
            f"with those keys: plan and survivors of {counted(len(book.sums), 'secure sum')}; noise, clipping, "
            f"sampling and number of clients are in the plan, and were {compared}"
        )
        if given.heads:
            found["signed"] += f"; {counted(given.heads, 'head')} of this ledger in plans, each of which it has had"
    own = "run, unit, relation, trust, holder, budget, delta, whose data, what is elsewhere"
    own += ", names, keys and beacon of those who take turns" if book.turns else ""
    own += ", names and keys of those who may be in a sum" if book.arrivals else ""
    own += ", how long a window is and events are kept, which second is that of a sum's number" if book.window else ""
    alone = [f"by whoever keeps the ledger: {own}"]
    of_steps = "mechanism, sampling, time and number" if book.window else "mechanism, sampling and number"
    alone += [f"{of_steps} of {counted(sum(book.steps), 'step')}"] if book.steps else []
    alone += [f"the facts of {counted(book.reserved, 'open reservation')}"] if book.reserved else []
    alone += [f"that nothing came of {counted(book.aborted, 'aborted release')}"] if book.aborted else []
    found["asserted"] = "; ".join(alone)
    found["elsewhere"] = f"charged elsewhere, or not at all, in its keeper's words: {quoted(book.elsewhere)}"
    found["not shown"] = (
        "that the noise was added, that nothing was released beside this ledger, and that no other ledger is about the "
        "same data"
    )
    if book.window is not None:
        found["not shown"] += ", and that whoever contributes forgets events in time"
    return found


def unit(book: Book) -> str:
    """Whose data are protected. In how many silos a user really is, nobody can see."""
    several = f"up to {book.overlap} silos", "see", "are"
    window = "" if book.window is None else within(book.window.length)
    held = several if book.overlap > 1 else ("one silo", "sees", "is")
    return UNIT[book.unit, book.holder].format(*held, window=window)


def relation(book: Book) -> str:
    return RELATION[book.relation].format(book.unit) if book.window is None else RELATION_OF_WINDOWS[book.relation]


def within(length: int) -> str:
    """The unit of a window."""
    return f"all events of one person within {lasting(length)}"


def lasting(seconds: int) -> str:
    """A number of seconds, in the largest unit of which it is a multiple."""
    unit, name = next(one for one in UNITS_OF_TIME if seconds % one[0] == 0)
    return counted(seconds // unit, name)


def counting(window: Window) -> str:
    """What is charged to a window, and when it comes back."""
    apart = lasting(window.length + window.kept)
    said = (
        f"an event may be in releases for {lasting(window.kept)} from its own time on, so releases less than {apart} "
        "apart are charged to one window, and epsilon is the most that any window was charged; for all that a person "
        "does nothing is promised"
    )
    if window.free:
        reached = upwards(Fraction(window.reached, RESOLUTION), 4)
        said += (
            f"; at second {window.latest}, that of the latest release, epsilon {reached} counts, of which the first "
            f"part comes back at second {window.free[0]}, and all by second {window.free[-1]}"
        )
    return said


def taken(book: Book) -> str:
    size, clients = book.turns or (0, 0)
    holder = "silo" if book.holder == "silo" else "client"
    return (
        f"each sum is over the next {size} of {clients} {holder}s in a cyclic order that beacon and names fix, and is "
        f"charged to all of these, whoever took part; epsilon is that of the {holder} to which most is charged"
    )


def ready(book: Book) -> str:
    size, clients = book.arrivals or (0, 0)
    holder = "silo" if book.holder == "silo" else "client"
    return (
        f"each sum is over {size} of {clients} {holder}s that were ready, and is charged to all of these, whom it "
        f"names; who was ready, and when, is public; epsilon is that of the {holder} to which most is charged"
    )


def signers(book: Book, given: Given) -> str:
    if not book.sums:
        return "no client has signed anything: no secure sum is committed"
    numbers = sorted({len(one.keys) for one in book.sums})
    between = f"{numbers[0]} to {numbers[-1]}" if numbers[1:] else str(numbers[0])
    planned = sorted({one.planned for one in book.sums})
    of = f"{planned[0]} to {planned[-1]}" if planned[1:] else str(planned[0])
    survivors = f"{min(one.survivors for one in book.sums)} or more of {of} clients"
    every = len(frozenset.union(*(one.keys for one in book.sums)))
    whose = (
        "all are in the roster that was given"
        if given.roster
        else "not compared with a roster: the ledger itself names them, and whether they are clients' is not known here"
    )
    return f"{between} keys signed the survivors of each sum ({survivors}), {counted(every, 'key')} in all; {whose}"


def counted(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def upwards(value: Fraction, digits: int) -> str:
    """A number in so many significant digits, rounded up."""
    found = Context(prec=digits, rounding=ROUND_CEILING).divide(value.numerator, Decimal(value.denominator)).normalize()
    return f"{found:f}" if not found or found >= Fraction(1, 1000) else str(found)


def quoted(text: str) -> str:
    """Text of the ledger's keeper: in quotation marks, which none in it can end, and in visible ASCII."""
    return '"' + "".join(f"\\{one}" if one in '"\\' else visible(one) for one in text) + '"'


def visible(text: str) -> str:
    """What whoever wrote the ledger put into it, in characters that no terminal obeys."""
    codes = ((one, ord(one)) for one in text)
    return "".join(
        one if " " <= one <= "~" else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}" for one, code in codes
    )


def columns(said: Mapping[str, str]) -> Iterator[str]:
    """A statement, line by line. Text of the ledger's keeper cannot begin a line where a label does."""
    for label, text in said.items():
        first, later = label.ljust(LABEL), " " * LABEL
        yield from textwrap.wrap(
            text, COLUMNS, initial_indent=first, subsequent_indent=later, break_on_hyphens=False, drop_whitespace=True
        )


# The command


SCHEMA = [
    "CREATE TABLE entries (number INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE head (place INTEGER PRIMARY KEY CHECK (place = 0), signature BLOB NOT NULL)",
    "CREATE TRIGGER no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
]


class Unreadable(Exception):
    """A file that cannot be looked at."""


def export_of(path: Path) -> bytes:
    """The export of a ledger, whether the file is one or the ledger itself. Nothing is written."""
    try:
        data = path.read_bytes()
    except OSError as error:
        hint = ": name a file in it" if path.is_dir() else ""
        raise Unreadable(f"cannot read {path}: {error.strerror}{hint}") from None
    if not data.startswith(b"SQLite format 3\0"):
        return data
    if 2 in data[18:20]:
        raise Unreadable(f"cannot read {path}: it has a write-ahead log, as ledgers of older versions")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            schema = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_master ORDER BY rowid")]
            sound = database.execute("PRAGMA integrity_check(1)").fetchall() == [("ok",)]
            if schema != SCHEMA or not sound:
                raise Problem("this is no ledger, or it has been altered")
            rows = database.execute("SELECT body FROM entries ORDER BY number").fetchall()
            ends = database.execute("SELECT signature FROM head").fetchall()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.OperationalError):
            raise Unreadable(f"cannot read {path}: {error}; it may be in use, or a copy taken while it was") from None
        raise Problem(f"this is no ledger, or it has been altered: {error}") from None
    signatures = [b""] * (len(rows) - 1) + [bytes(end) for (end,) in ends]
    if len(signatures) != len(rows) or any(type(body) is not bytes for (body,) in rows):
        raise Problem("entries of the ledger are missing")
    pairs = zip(rows, signatures, strict=True)
    return b"".join(b'{"body":%s,"signature":"%s"}\n' % (body, end.hex().encode()) for (body,), end in pairs)


def public_key(text: str) -> tuple[bytes, Path | None]:
    """The key, and the file that it was in."""
    try:
        path = Path(text) if Path(text).is_file() else None
        found = bytes.fromhex(path.read_text("ascii") if path else text)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error.strerror}") from None
    except ValueError:
        found = b""
    if len(found) != 32:
        raise argparse.ArgumentTypeError(f"{text} is neither 64 hexadecimal digits nor a file of them")
    return found, path


def beside(key: Path | None, ledger: Path) -> bool:
    """Whether the key came in the ledger's folder."""
    return key is not None and key.resolve().parent == ledger.resolve().parent


def head_of(text: str) -> bytes:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text} is not 64 hexadecimal digits")
    return bytes.fromhex(text)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line."""
        self.exit(WRONG_USE, f"verify_ledger.py: {shown(message)}\n")


def main(arguments: list[str] | None = None) -> int:
    codes = (
        "Exit code 0: verified under --key, 4: something is wrong, 5: consistent with itself, and nothing more, 2: "
        "wrong use, or a file that cannot be read, 6: the package cryptography is missing."
    )
    parser = Parser(description="Check a privacy ledger, and state what it says on whose word.", epilog=codes)
    parser.add_argument("ledger", type=Path, help="ledger.db, or its export (JSON lines)")
    parser.add_argument("--key", type=public_key, help="Ed25519 public key: 64 hexadecimal digits, or a file of them")
    parser.add_argument("--head", type=head_of, help="a head that the ledger must have had: 64 hexadecimal digits")
    options = parser.parse_args(arguments)
    key, file = options.key or (None, None)
    audit = Audit(key)
    try:
        found = list(problems(export_of(options.ledger), key, options.head, audit))
    except Unreadable as error:
        parser.error(str(error))
    except Problem as problem:
        found = [str(problem)]
    if found:
        printed = [*columns({"verdict": FAILED}), *(shown(f"{'problem':<{LABEL}}{problem}") for problem in found)]
        code = WRONG
    else:
        pinned = None if options.head is None else audit.heads.index(options.head)
        given = Given(key is not None, pinned, beside=beside(file, options.ledger))
        printed, code = list(columns(statement(audit.book(), given))), given.code
    sys.stdout.write("".join(f"{line}\n" for line in printed))
    return code


def shown(line: str) -> str:
    """One line of characters that no terminal obeys, and not too long."""
    seen = visible(line)
    return seen if len(seen) <= LONGEST_LINE else f"{seen[:LONGEST_LINE]} ..."


if __name__ == "__main__":
    sys.exit(main())
