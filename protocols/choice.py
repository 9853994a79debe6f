"""Which protocol a round is predicted to be the cheapest with, for whoever proposes its plan and says ``auto``.

Predicted are seconds: what the client computes that computes most, what the server computes on one core, and what a
client and the server send and receive over links of the bandwidths below. Counts follow from the plan that each
protocol would have, and times are the constants of one machine (``protocols.costs.measured``). Nothing is measured when
a choice is made, so the same question has the same answer on every machine that has the same extras. What is the same
in all protocols is left out: training, the drawing of noise, waiting for whoever is slow.

Among protocols that hold against the feared server, bear the corrupt and silent clients that are asked for, and whose
plan clients with these very fears accept, the one with the fewest seconds is taken; an older one, if it is not worse
by more than ``TIE``. Only whoever proposes chooses. What travels is a plan that names a protocol, and each client's
policy decides whether it takes part in that one.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from importlib.util import find_spec

from protocols.costs.measured import COSTS
from protocols.costs.roles import Cost, Role
from protocols.parameters import PACKAGES, Facts, check_adversary, module_of, rules_of
from secagg.assumptions import Adversary
from secagg.errors import SecAggError, UsageError
from secagg.extras import need
from secagg.printable import in_seconds

CLIENT_LINK, SERVER_LINK = 12_500_000, 125_000_000
"""Bytes a second that a client's link and the server's are taken to carry: 100 Mbit/s and 1 Gbit/s."""

TIE = 1.02
"""A protocol has to be better than an older one by more than this factor."""

COMPARED = ("secagg", "secagg+", "oneshot")
"""What is looked at besides the allowed protocols, so that one sees what these leave out."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One protocol: what a round is predicted to take with it, and why it is not to be chosen, if it is not.

    Seconds are zero where it cannot be said what it would take. ``client_bytes`` are those of the client that does
    most, up and down.
    """

    protocol: str
    client_s: float = 0.0
    server_s: float = 0.0
    client_bytes: float = 0.0
    server_bytes: float = 0.0
    why_not: str = ""

    @property
    def seconds(self) -> float:
        """Of a whole round: the client's, the server's, and those of both links."""
        links = self.client_bytes / CLIENT_LINK + self.server_bytes / SERVER_LINK
        return self.client_s + self.server_s + links


@dataclass(frozen=True, slots=True)
class Choice:
    """The protocols that were compared, from the oldest to the newest; at least one of them can be chosen."""

    candidates: tuple[Candidate, ...]

    def __post_init__(self) -> None:
        if all(one.why_not for one in self.candidates):
            reasons = "; ".join(f"{one.protocol}: {one.why_not}" for one in self.candidates)
            raise UsageError(f"auto finds no protocol. {reasons}")

    @property
    def best(self) -> Candidate:
        """
        >>> slow, fast = Candidate("secagg", server_s=9.0), Candidate("secagg+", server_s=3.0)
        >>> Choice((slow, fast)).best.protocol
        'secagg+'
        """
        best, *others = (one for one in self.candidates if not one.why_not)
        for one in others:
            if one.seconds * TIE < best.seconds:
                best = one
        return best

    @property
    def protocol(self) -> str:
        """The name of what is chosen."""
        return self.best.protocol

    @property
    def why(self) -> str:
        """One line.

        >>> refused = Candidate("oneshot", server_s=1.0, why_not="clients do not allow it")
        >>> print(Choice((Candidate("secagg", server_s=9.0), Candidate("secagg+", server_s=3.0), refused)).why)
        auto takes secagg+, 3.0 s by prediction; secagg 9.0 s; not oneshot (clients do not allow it), 1.0 s
        """
        said = [f"auto takes {self.protocol}, {in_seconds(self.best.seconds)} by prediction"]
        for one in self.candidates:
            if one != self.best:
                name = f"not {one.protocol} ({one.why_not})" if one.why_not else one.protocol
                said.append(f"{name}{',' * bool(one.why_not)} {in_seconds(one.seconds)}" if one.seconds else name)
        return "; ".join(said)


def compare(
    plan_of: Callable[[str], Facts], allowed: Set[str], adversary: Adversary, *, roster: int, corrupt: int, silent: int
) -> Choice:
    """What a round would take with each protocol.

    ``plan_of`` makes the plan that a protocol would have, or says why it cannot (``UsageError``). ``allowed`` are the
    protocols that clients take part in, ``roster`` how many clients it has. Up to ``corrupt`` clients are dishonest,
    and ``silent`` fall silent when their upload is due.
    """
    if not isinstance(allowed, Set | list | tuple) or not allowed:
        raise UsageError(f"allowed is a set of names of protocols, not {allowed!r}")
    for name in sorted(allowed):
        rules_of(name)  # an unknown one is refused, and not passed over

    def candidate(name: str) -> Candidate:
        rules = rules_of(name)
        try:
            check_adversary(name, adversary)
            if rules.extra:
                need(rules.extra, "it")
            plan = plan_of(name)
            rules.accept(plan, roster, corrupt)
        except SecAggError as error:
            return Candidate(name, why_not=str(error))
        if find_spec(f"{PACKAGES[name]}.costs") is None:
            return Candidate(name, why_not="nothing is known of what it costs")
        return _predicted(name, module_of(name, "costs").COSTS[name](plan, silent, COSTS), name in allowed)

    return Choice(tuple(candidate(name) for name in PACKAGES if name in allowed or name in COMPARED))


def _predicted(name: str, cost: Cost, allowed: bool) -> Candidate:
    def seconds(role: Role) -> float:
        return role.seconds + (role.up + role.down) / CLIENT_LINK

    heaviest = max(cost.roles, key=seconds)
    return Candidate(
        name,
        heaviest.seconds,
        cost.server_s,
        heaviest.up + heaviest.down,
        cost.up + cost.down,
        "" if allowed else "not among those that are allowed",
    )
