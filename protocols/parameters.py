"""Parameters of protocols: how a plan carries them, how they are chosen, and which no round could run with.

A plan names its protocol and holds that protocol's parameters. What they mean is said in the protocol's own
``parameters`` module, which knows nothing of plans but these ``Facts``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from dp.noise import NoiseSpec
from secagg.assumptions import Adversary, CostModel
from secagg.codec import Codec
from secagg.encoding import Encoding
from secagg.errors import UsageError

PACKAGES = {
    "secagg": "protocols.pairwise",
    "secagg+": "protocols.pairwise",
    "ckks": "protocols.ckks",
    "oneshot": "protocols.oneshot",
    "threshold_ckks": "protocols.threshold_ckks",
}
"""protocol -> its package. A new protocol is a package and one line here; one from elsewhere adds its own line."""

AUTO = "auto"
"""Instead of a protocol's name, for who proposes a plan: the cheapest one by prediction (``protocols.choice``)."""

ALLOWED = frozenset({"secagg", "secagg+"})
"""What a client's policy allows unless it says otherwise."""


def listed(names: str) -> frozenset[str]:
    """Protocols that are named in one text, with commas between them, as a configuration or a command has them.

    >>> sorted(listed("secagg, oneshot"))
    ['oneshot', 'secagg']
    """
    return frozenset(name.strip() for name in names.split(","))


ENFORCED_UP_TO = 4096
"""Up to this many clients, a client demands signatures of ``min_contributors`` others; beyond, only of neighbours."""


class Facts(Protocol):
    """Of a plan, what the rules about its parameters depend on."""

    @property
    def protocol(self) -> str: ...
    @property
    def clients(self) -> int: ...
    @property
    def min_contributors(self) -> int: ...
    @property
    def ring_bits(self) -> int: ...
    @property
    def encoding(self) -> Encoding: ...
    @property
    def noise(self) -> NoiseSpec | None: ...
    @property
    def noise_bound(self) -> int: ...
    @property
    def parameters(self) -> object: ...
    @property
    def beacon(self) -> bytes: ...


def _content(_plan: Facts, _roster: int, _corrupt: int) -> None:
    """Accepts every plan."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a protocol says of its parameters. Its package has ``parameters.RULES``: protocol -> ``Rules``."""

    codec: Codec[Any]
    choose: Callable[[int, Fraction, Fraction, Adversary, int, int, CostModel], object]
    """(n, corrupt, dropout, adversary, security, correctness, cost model of lattices) -> parameters for a round."""
    check: Callable[[Facts], None]
    """Refuse (``UsageError``) a plan that makes no sense for anybody."""
    signers: Callable[[Facts], int]
    """How many signatures on one set of survivors a client has seen before it reveals anything for the sum. An auditor
    asks for as many."""
    against: Adversary = Adversary.ACTIVE
    """The strongest server against which the protocol holds, whatever its parameters are."""
    accept: Callable[[Facts, int, int], None] = _content
    """(plan, clients in the roster, corrupt clients) -> refuse (``SecAggError``) a plan that makes sense, and that a
    client would still refuse which demands the plan's minimum and fears what its parameters were chosen for."""
    extra: str = ""
    """The extra without which nobody can take part; the base install is enough otherwise."""


def module_of(protocol: str, name: str) -> Any:
    """A module of the protocol's package, loaded when it is first asked for."""
    if protocol == AUTO:
        raise UsageError("auto is no protocol: who proposes a plan may say so, and what is chosen then has a name")
    if protocol not in PACKAGES:
        there = ", ".join(PACKAGES)
        raise UsageError(f"unknown protocol {protocol!r}; there are {there}, and {AUTO} for whoever proposes a plan")
    return import_module(f"{PACKAGES[protocol]}.{name}")


@cache
def rules_of(protocol: str) -> Rules:
    """
    >>> rules_of("secagg+").choose(
    ...     100, Fraction(1, 20), Fraction(1, 20), Adversary.CURIOUS, 40, 20, CostModel.CORE_SVP
    ... ).threshold
    6
    """
    rules: Rules = module_of(protocol, "parameters").RULES[protocol]
    return rules


def check_adversary(protocol: str, adversary: Adversary) -> None:
    """Refuse (``UsageError``) a protocol where a server is feared against which it does not hold, and one that is not
    known.

    >>> check_adversary("secagg+", Adversary.ACTIVE)
    >>> check_adversary("ckks", Adversary.CURIOUS)
    """
    if rules_of(protocol).against is Adversary.CURIOUS and adversary is Adversary.ACTIVE:
        raise UsageError(
            f"{protocol} holds only against a server that is curious, and adversary = active says that it may lie: "
            "take another protocol, or say curious"
        )
