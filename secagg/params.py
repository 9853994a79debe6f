"""How many neighbours (k) and which threshold (t) make a round private and likely to finish.

The rule is Bell et al. 2020 ("Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020,
Section 3.2 and Theorem 3.10), for n clients of which a fraction ``corrupt`` (gamma) is dishonest and a fraction
``dropout`` (delta) goes silent. With B = floor(gamma n) + floor(delta n), HG the hypergeometric law
(population n, marked, draws k), the smallest even k is taken for which

1. the honest surviving clients stay connected: n(n-k-1)/2 * B!(n-k)! / (n!(B-k)!) < 2^-(security+1) when k <= B;
2. no neighbourhood holds too many corrupt clients: t1 = least with Pr[HG(floor(gamma n)) > t1] <= 2^-(security+1)/n;
3. no neighbourhood loses too many clients: t2 = largest with Pr[HG(ceil((1-delta) n)) < t2] <= 2^-correctness/n.

The threshold is t1 + 1 against a curious server. Against an active server two disjoint quorums among one client's
neighbours must be impossible even when the corrupt ones answer twice, so t1 is first raised to ceil((t1+k-1.25)/2).

On a ring those quorums speak for one neighbourhood each: a server could tell two parts of the ring two stories, and
both would be believed. So in active rounds w witnesses, the same for all and drawn by the same hash, speak for the
whole cohort, and q of them must agree. With f such that Pr[HG(floor(gamma n), w draws) > f] <= 2^-security, w is about
the smallest number for which

4. no two sets are both signed: q = floor((w + f) / 2) + 1, since each honest witness signs once;
5. enough witnesses stay: Pr[HG(floor(delta n), w draws) > w - q] <= 2^-correctness.

On the complete graph a client's neighbours are all the others and t is already such a q.
No probability is undercounted: see ``secagg.hypergeometric``.

The smallest k is searched without trying each. Rule 1 is monotone: both n-k-1 and Pr[all k are lost] fall with k, so it
is found by bisection. Rules 2 and 3 are not, since thresholds are whole numbers. But of k+1 neighbours at most one more
is marked than of the first k, so t1, t2 and (t1+k-1.25)/2 rise by 0 or 1 from k to k+1; if the threshold is g above t2
at k, it is above t2 for all degrees below k+g. Up to ``EXACT_UP_TO`` neighbours the answer is the smallest k. Beyond,
where no client could pay for it, degrees are tried in steps of a 64th, and it can be as much larger.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from math import ceil, comb, floor, log2

from secagg.assumptions import MAX_CLIENTS, Adversary, fraction
from secagg.crypto.graph import Graph, GraphParameters
from secagg.errors import PolicyError, UsageError
from secagg.hypergeometric import EXACT_UP_TO, least_marked, log2_chance, log2_error, most_marked, most_marked_between

GRINDING_BITS = 80
"""Added to ``security`` in active rounds: the graph is a hash of adverts, and corrupt clients may try many adverts."""

GRINDING_FLOOR = 64
"""What must be left of these bits for the clients that really advertised; of 1000, each absence costs about 1/20."""


def corrupt_neighbours(n: int, corrupt: int, degree: int, bits: int) -> int:
    """Least t1 with Pr[a client has more than t1 corrupt neighbours] <= 2^-bits / n (rule 2).

    >>> corrupt_neighbours(1000, 50, 30, 41)
    16
    """
    return most_marked(n, corrupt, degree, bits, times=n)


def surviving_neighbours(n: int, survivors: int, degree: int, bits: int) -> int:
    """Largest t2 with Pr[a client keeps fewer than t2 neighbours] <= 2^-bits / n (rule 3)."""
    return least_marked(n, survivors, degree, bits, times=n)


def _connected(n: int, degree: int, gone: int, bits: int) -> bool:
    """Rule 1: the graph stays connected when ``gone`` clients are lost, except with probability 2^-bits.

    B!(n-k)! / (n!(B-k)!) is the chance that all of k drawn are among the B lost.
    """
    if degree > gone or degree >= n - 1:
        return True
    excess = log2(n) + log2(n - degree - 1) + bits - 1 + log2_chance(n, gone, degree, degree)
    if abs(excess) > log2_error(n) or degree > EXACT_UP_TO:
        return excess < -log2_error(n)
    return n * (n - degree - 1) * comb(gone, degree) << bits < 2 * comb(n, degree)


def _raised(t1: int, degree: int, adversary: Adversary) -> int:
    """t1, or what the module's text raises it to against an active server."""
    return t1 if adversary is Adversary.CURIOUS else ceil(Fraction(4 * (t1 + degree) - 5, 8))


@lru_cache(maxsize=1024)
def least_threshold(n: int, corrupt: int, degree: int, adversary: Adversary, security: int) -> int:
    """Smallest private threshold for a k-ring in which ``corrupt`` of the n clients (a count) are dishonest."""
    t1 = corrupt_neighbours(n, corrupt, degree, security + 1)
    return max(_raised(t1, degree, adversary) + 1, 2)


def complete_threshold(n: int, corrupt: int) -> int:
    """Smallest private threshold on the complete graph: more than half of the honest, plus all the corrupt."""
    return max((n + corrupt) // 2 + 1, 2)


@lru_cache(maxsize=1024)
def least_quorum(n: int, corrupt: int, witnesses: int, security: int) -> int:
    """How many of the witnesses must sign a set of survivors so that no second one can be signed (rule 4).

    >>> least_quorum(1000, 50, 88, 120), least_quorum(100, 5, 100, 120)
    (64, 53)
    """
    f = corrupt if witnesses >= n else most_marked(n, corrupt, witnesses, security)
    return (min(witnesses, n) + f) // 2 + 1


@lru_cache(maxsize=256)
def choose_witnesses(
    n: int, corrupt: int, silent: int, least_cohort: int, security: int, least_security: int, correctness: int
) -> tuple[int, int]:
    """(w, q): witnesses, and how many must agree, also if only ``least_cohort`` of the n clients advertise.

    ``corrupt`` and ``silent`` are counts. If no sample is large enough, everybody is a witness.

    >>> choose_witnesses(1000, 50, 100, 900, 120, 104, 20)
    (88, 64)
    """

    def quorum(witnesses: int) -> int:
        return max(
            least_quorum(n, corrupt, witnesses, security),
            least_quorum(least_cohort, corrupt, min(witnesses, least_cohort), least_security),
        )

    for witnesses in _sample_sizes(n):
        q = quorum(witnesses)
        if q <= min(witnesses - most_marked(n, silent, witnesses, correctness), least_cohort):
            return witnesses, q
    return n, quorum(n)


def _sample_sizes(n: int) -> Iterator[int]:
    """Sample sizes from 8 to below n: in steps of 8 at first, later of a sixteenth."""
    size = 8
    while size < n:
        yield size
        size += max(8, size // 16 // 8 * 8)


@lru_cache(maxsize=256)
def choose(
    n: int,
    corrupt: Fraction,
    dropout: Fraction,
    adversary: Adversary = Adversary.ACTIVE,
    security: int = 40,
    correctness: int = 20,
) -> GraphParameters:
    """The smallest k-ring that satisfies the rule, or the complete graph where n is too small for one.

    >>> choose(1000, Fraction(1, 20), Fraction(1, 20), Adversary.CURIOUS) == GraphParameters(Graph.RING, 30, 17)
    True
    >>> choose(1000, Fraction(1, 10), Fraction(1, 10), Adversary.ACTIVE) == GraphParameters(Graph.RING, 96, 67)
    True
    >>> choose(4, Fraction(1, 4), Fraction(1, 4)) == GraphParameters(Graph.COMPLETE, 3, 3)
    True
    """
    corrupt, dropout = fraction(corrupt), fraction(dropout)
    _check_feasible(n, corrupt, dropout, adversary, security, correctness)
    return _smallest(n, corrupt, dropout, adversary, security, security, correctness, least_cohort=n)


def choose_for_round(
    n: int, corrupt: Fraction, dropout: Fraction, adversary: Adversary, security: int = 40, correctness: int = 20
) -> GraphParameters:
    """What a real round uses: grinding bits against an active server, and enough also for the smallest cohort planned.

    Clients that stay away before the graph is drawn make the corrupt weigh more, so rule 2 must also hold for n less
    ``dropout`` of it (there with ``GRINDING_FLOOR``), which is what a client checks when it sees the cohort. Rule 1
    only gets easier: who stays away cannot fall silent later. Witnesses are chosen here, because only a real round has
    any.

    >>> chosen = choose_for_round(1000, Fraction(1, 10), Fraction(1, 10), Adversary.ACTIVE)
    >>> chosen.degree, chosen.threshold, chosen.witnesses, chosen.quorum
    (140, 104, 120, 91)
    """
    corrupt, dropout = fraction(corrupt), fraction(dropout)
    planned, floored = (GRINDING_BITS, GRINDING_FLOOR) if adversary is Adversary.ACTIVE else (0, 0)
    _check_feasible(n, corrupt, dropout, adversary, security, correctness)
    bad, silent = floor(corrupt * n), floor(dropout * n)
    bits = security + planned, security + floored
    chosen = _smallest(n, corrupt, dropout, adversary, *bits, correctness, n - silent)
    if chosen.graph is Graph.COMPLETE or adversary is Adversary.CURIOUS:
        return chosen
    witnesses, quorum = choose_witnesses(n, bad, silent, n - silent, *bits, correctness)
    return replace(chosen, witnesses=witnesses, quorum=quorum)


def _smallest(
    n: int,
    corrupt: Fraction,
    dropout: Fraction,
    adversary: Adversary,
    security: int,
    least_security: int,
    correctness: int,
    least_cohort: int,
) -> GraphParameters:
    bad, gone, staying = floor(corrupt * n), floor(dropout * n), ceil((1 - dropout) * n)

    def needed(degree: int, seen: int) -> int:
        return max(
            least_threshold(n, bad, degree, adversary, security),
            least_threshold(least_cohort, bad, seen, adversary, least_security),
        )

    def lacking(degree: int, seen: int) -> int:
        """By how much the threshold is at least above what rule 3 allows."""
        t1, _ = most_marked_between(n, bad, degree, security + 1, n)
        least_t1, _ = most_marked_between(least_cohort, bad, seen, least_security + 1, least_cohort)
        lost, _ = most_marked_between(n, n - staying, degree, correctness, n)
        threshold = max(_raised(t1, degree, adversary), _raised(least_t1, seen, adversary)) + 1
        return threshold - (degree - lost)

    # The least degree that rule 1 allows: from n - 1 on nobody can be cut off.
    degree = 2 * bisect_left(range(1, n), True, key=lambda half: _connected(n, 2 * half, bad + gone, security + 1)) + 2
    while degree < n - 1:
        seen = min(degree, least_cohort - 1)
        if (steps := lacking(degree, seen)) <= 0:
            threshold = needed(degree, seen)
            if threshold <= min(surviving_neighbours(n, staying, degree, correctness), seen):
                return GraphParameters(Graph.RING, degree, threshold)
        if degree > EXACT_UP_TO:
            steps = max(steps, degree // 64)
        degree += max(2, steps + steps % 2)
    return complete(n, corrupt, dropout)


def _check_feasible(
    n: int, corrupt: Fraction, dropout: Fraction, adversary: Adversary, security: int, correctness: int
) -> None:
    if not 2 <= n <= MAX_CLIENTS:
        raise UsageError(f"clients must be between 2 and {MAX_CLIENTS}, not {n}")
    if not 1 <= security <= 512 or not 1 <= correctness <= 512:
        raise UsageError("security and correctness parameters must be between 1 and 512 bits")
    load = corrupt + (dropout if adversary is Adversary.CURIOUS else 2 * dropout)
    if load > Fraction(9, 10):
        terms = "corrupt + dropout" if adversary is Adversary.CURIOUS else "corrupt + 2 dropout"
        raise UsageError(f"infeasible: {terms} = {float(load):g} against {adversary} servers, must be at most 0.9")


def complete(n: int, corrupt: Fraction, dropout: Fraction) -> GraphParameters:
    """The complete graph of Bonawitz et al. 2017 with its least private threshold."""
    threshold, left = complete_threshold(n, floor(corrupt * n)), n - floor(dropout * n)
    if threshold > left:
        raise UsageError(f"infeasible: {n} clients need threshold {threshold}, but only {left} are sure to stay")
    return GraphParameters(Graph.COMPLETE, n - 1, threshold)


def check_private(
    n: int, corrupt: int, gone: int, parameters: GraphParameters, adversary: Adversary, security: int
) -> None:
    """Refuse parameters under which ``corrupt`` of n clients (counts, not fractions) could break somebody's privacy.

    ``gone`` is how many clients may be corrupt or silent together. This is what a client runs itself, for the
    planned n and again for the clients that really showed up.

    >>> check_private(1000, 50, 100, GraphParameters(Graph.RING, 30, 12), Adversary.CURIOUS, 40)
    Traceback (most recent call last):
    secagg.errors.PolicyError: threshold 12 is too low for 30 neighbours among 1000 clients: at least 17 is needed
    """
    degree = min(parameters.degree, n - 1)
    if parameters.graph is Graph.COMPLETE:
        needed = complete_threshold(n, corrupt)
    else:
        if not _connected(n, degree, gone, security + 1):
            raise PolicyError(f"{degree} neighbours do not keep {n} clients connected when {gone} are lost")
        needed = least_threshold(n, corrupt, degree, adversary, security)
    if parameters.threshold < needed:
        raise PolicyError(
            f"threshold {parameters.threshold} is too low for {degree} neighbours among {n} clients: "
            f"at least {needed} is needed"
        )
    if parameters.graph is Graph.RING and adversary is Adversary.ACTIVE:
        witnesses = min(parameters.witnesses, n)
        if not witnesses or parameters.quorum < (least := least_quorum(n, corrupt, witnesses, security)):
            raise PolicyError(
                f"{parameters.quorum} of {witnesses} witnesses among {n} clients could sign two sets of survivors"
                + (f": at least {least} are needed" if witnesses else "")
            )
