"""What a client insists on. The server proposes; the client refuses what it does not accept, before it says a word."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from dp.ledger.heads import SignedHead
from dp.turns import Turns
from protocols.parameters import ALLOWED, check_adversary
from protocols.plan import RoundPlan
from protocols.roster import Roster
from secagg.assumptions import Adversary, CostModel, colluders, fraction
from secagg.crypto.keys import KEY_BYTES
from secagg.encoding import Encoding
from secagg.errors import PeerError, PolicyError, UsageError
from secagg.signed_versions import Signatory, What


@dataclass(frozen=True, slots=True)
class Policy:
    """The least a client accepts.

    ``corrupt`` and ``dropout`` are the fractions of a cohort that this client fears dishonest or silent, ``security``
    the bits with which it wants its neighbourhood safe from them. They are its own: it computes with these, whatever
    the server computed with. ``adversary`` is the server that it fears, and a protocol that does not hold against that
    one cannot be among ``protocols``. ``noise_multiplier`` is the least noise in the sum, as standard deviation over
    the norm of one unit's contribution; None accepts sums without noise. ``beacon`` is random bytes that this client
    has from the deployment, or from a public source, and not from the server: what lots are drawn with, once the roster
    is fixed. ``whole_roster`` is for a roster that was itself drawn by lot: no server chooses a part of it.
    ``turns`` is for clients that take turns (``dp.turns``), each of which has it from the deployment: a plan is for all
    whose turn its number is, and for nobody else. ``weight_bound`` is the largest weight that this client ever has: a
    plan that weighs has this bound and no other, since a server that could choose bounds would find out a client's
    weight by halving. ``users`` is for a silo: the most users that it ever has, and ``overlap`` in how many silos one
    of them may be. A plan has both, or is refused: another cap would tell how many users there are, and a plan for
    another holder protects somebody else. ``sampled`` is the probability with which one of them is in a sum, 1 unless
    it was agreed on: with a larger one the noise is less than this silo counts on, and with a smaller one a sum is of
    few users.
    ``exact_counts`` is for ``protocols.sparse``: whether this client lets itself be counted, row by row, without noise
    that it demands, and its rows be added up so. That protects it from a curious server among honest clients, so
    ``adversary`` has to say the same.
    ``feedback`` is whether this client keeps, in its journal, what a sketch or few bits lose of its updates, to add it
    to later ones: a plan with feedback is refused without. Such a plan has noise that this client demands, or
    ``adversary`` is a curious server.
    ``ledger_owner`` is the key of whoever keeps the ledger that sums are charged to, from the deployment: a plan
    without a head that this key has signed is refused, and so is a head that cannot be a later one of the ledger of
    which this client has seen one (``protocols.seen_heads``).
    ``cost_model`` is how this client wants the security of lattices counted: "core-svp" refuses rings that have their
    128 bits only by the tables of the Homomorphic Encryption Standard.
    ``signed_by`` is the deployment whose signature this client asks for (``secagg.signed_versions``), as ``Signatory``
    or as text, which it has from the deployment: the roster, and the model of every plan, are then versions that this
    deployment signed, and the client goes back to no older one. Its journal has to outlive it for that.
    """

    min_contributors: int
    protocols: Set[str] = ALLOWED
    corrupt: Fraction | str | float = "0.05"
    dropout: Fraction | str | float = "0.1"
    adversary: Adversary = Adversary.ACTIVE
    security: int = 40
    noise_multiplier: Fraction | str | float | None = None
    beacon: bytes = b""
    whole_roster: bool = False
    turns: Turns | None = None
    weight_bound: int = 1
    users: int = 0
    overlap: int = 1
    sampled: Fraction | str | float = Fraction(1)
    exact_counts: bool = False
    cost_model: CostModel = CostModel.STANDARD
    feedback: bool = False
    signed_by: Signatory | str | None = None
    ledger_owner: bytes = b""

    def __post_init__(self) -> None:
        if self.min_contributors < 2:
            raise UsageError("min_contributors must be at least 2: a sum of one is that one's vector")
        if not 1 <= self.security <= 512:
            raise UsageError("security must be between 1 and 512 bits")
        if not 1 <= self.weight_bound < 1 << 31:
            raise UsageError(f"weight_bound must be between 1 and 2^31 - 1, not {self.weight_bound}")
        if not 0 <= self.users < 1 << 31 or not 1 <= self.overlap < 1 << 16:
            raise UsageError("a silo has fewer than 2^31 users, each of them in 1 to 2^16 - 1 silos")
        if self.overlap > 1 and not self.users:
            raise UsageError("only users of silos can be in more than one of them")
        object.__setattr__(self, "sampled", Fraction(self.sampled))
        if not 0 < Fraction(self.sampled) <= 1 or (self.sampled != 1 and (not self.users or self.overlap > 1)):
            raise UsageError("sampled are users of silos that are in one of them each, with a probability above 0")
        if self.noise_multiplier is not None:
            object.__setattr__(self, "noise_multiplier", Fraction(self.noise_multiplier))
        if not isinstance(self.protocols, Set | list | tuple):
            raise UsageError(f"protocols is a set of names, not {self.protocols!r}")
        if len(self.ledger_owner) not in (0, KEY_BYTES):
            raise UsageError(f"the key of a ledger's owner has {KEY_BYTES} bytes")
        if not self.protocols:
            raise UsageError("protocols has at least one name: with none every plan is refused")
        object.__setattr__(self, "protocols", frozenset(self.protocols))
        object.__setattr__(self, "corrupt", fraction(self.corrupt))
        object.__setattr__(self, "dropout", fraction(self.dropout))
        object.__setattr__(self, "adversary", Adversary(self.adversary))
        object.__setattr__(self, "cost_model", CostModel(self.cost_model))
        if isinstance(self.signed_by, str):
            object.__setattr__(self, "signed_by", Signatory.parse(self.signed_by))
        if self.exact_counts and self.adversary is Adversary.ACTIVE:
            raise UsageError(
                "exact counts hold only against a server that is curious: adversary = active says otherwise"
            )
        for protocol in sorted(self.protocols):  # none that could never be accepted
            check_adversary(protocol, self.adversary)

    @property
    def signatory(self) -> Signatory | None:
        """Whose signature this client asks for."""
        return Signatory.parse(self.signed_by) if isinstance(self.signed_by, str) else self.signed_by

    @property
    def demands_noise(self) -> bool:
        """Whether this client takes sums with noise only, and how much is its own to say: what a server that lies puts
        into a plan on its own may be as good as none."""
        return self.noise_multiplier is not None and self.noise_multiplier != 0

    def corrupt_of(self, n: int) -> int:
        """How many of n clients may be dishonest."""
        return floor(Fraction(self.corrupt) * n)

    def corrupt_in(self, plan: RoundPlan) -> int:
        """How many clients of a round may be dishonest: as many as do not count in its noise, if it has any. Where they
        could help a server to open two sums, there would be less noise between these than in either of them, unless
        each client's is enough."""
        if plan.noise is None or plan.noise.enough_alone(plan.clients):
            return self.corrupt_of(plan.clients)
        return colluders(self.corrupt, plan.clients)

    def corrupt_or_dropped_of(self, n: int) -> int:
        """How many of n clients may be dishonest or silent."""
        return self.corrupt_of(n) + floor(Fraction(self.dropout) * n)

    def check(self, plan: RoundPlan, roster: Roster) -> None:
        """Raise ``PolicyError`` unless this client may take part. What the protocol must hold is checked by it."""
        if plan.protocol not in self.protocols:
            raise PolicyError(f"protocol {plan.protocol} is not among those allowed")
        if plan.roster != roster.digest:
            raise PolicyError("the plan is for another roster")
        if (signatory := self.signatory) is not None:
            signatory.check(What.ROSTER, roster.version, roster.whole)
            signatory.check(What.MODEL, plan.version, plan.model)
        if plan.clients > len(roster):
            raise PolicyError(f"the plan speaks of {plan.clients} clients, the roster has {len(roster)}")
        if self.beacon and plan.beacon != self.beacon:
            raise PolicyError("lots would be drawn with another beacon than this client knows")
        if self.whole_roster and plan.clients != len(roster):
            raise PolicyError(f"the plan is for {plan.clients} of the {len(roster)} clients that were drawn")
        if self.turns is not None:
            self._check_turn(plan, self.turns)
        if plan.min_contributors < self.min_contributors:
            raise PolicyError(f"min_contributors {plan.min_contributors} is below the {self.min_contributors} demanded")
        if plan.encoding.weight_bound not in (1, self.weight_bound):
            raise PolicyError(f"weights are bounded by {plan.encoding.weight_bound}, not by {self.weight_bound} or 1")
        self._check_users(plan.encoding)
        self._check_ledger(plan.ledger)
        if plan.encoding.feedback and not self.feedback:
            raise PolicyError("the plan has feedback, and this client keeps nothing of its updates for later rounds")
        if plan.encoding.feedback and not self.demands_noise and self.adversary is not Adversary.CURIOUS:
            raise PolicyError(
                "feedback without noise that a policy demands holds against a curious server: one that lies can have "
                "all but one client send what they have left, and then ask for the sum of what is left"
            )
        if plan.noise is not None and plan.noise.colluders < (feared := colluders(self.corrupt, plan.clients)):
            raise PolicyError(f"the noise allows for {plan.noise.colluders} colluders, not the {feared} feared")
        if self.noise_multiplier is not None:
            self._check_noise(plan)

    def check_cost_model(self, cost_model: CostModel) -> None:
        """For protocols with lattices: whether this client is content with how the plan counts their security."""
        if self.cost_model is CostModel.CORE_SVP and cost_model is not CostModel.CORE_SVP:
            raise PolicyError(f"the ring has 128 bits of security by the {cost_model}, and not by core-SVP")

    def _check_turn(self, plan: RoundPlan, turns: Turns) -> None:
        if (plan.roster, plan.clients) != (turns.roster(plan.round), turns.size):
            raise PolicyError(f"sum {plan.round} is planned over others than those whose turn it is")

    def _check_ledger(self, head: SignedHead | None) -> None:
        """Whether the plan has a head of the ledger that this client knows of; none is a head that nobody signed."""
        if self.ledger_owner and (head is None or head.owner != self.ledger_owner):
            raise PolicyError("the plan has no head of the ledger that this client is to be charged in")
        if head is not None:
            try:
                head.check()
            except PeerError as error:
                raise PolicyError(f"the ledger's head in the plan: {error}") from None

    def _check_users(self, encoding: Encoding) -> None:
        """Whether the plan protects what this client is: one unit, or so many users with so much overlap."""
        if not encoding.users and self.users:
            raise PolicyError("the plan takes this client for one unit, and it is a silo of users")
        if encoding.users and not self.users:
            raise PolicyError("the plan is for silos of users, and this client is one unit")
        if encoding.users != self.users:
            raise PolicyError(f"the plan allows a silo {encoding.users} users, this one has agreed on {self.users}")
        if encoding.overlap != self.overlap:
            raise PolicyError(f"the plan has users in up to {encoding.overlap} silos, and they are in {self.overlap}")
        if encoding.sampled != self.sampled:
            raise PolicyError(f"the plan samples users at {encoding.sampled}, this silo has agreed on {self.sampled}")

    def _check_noise(self, plan: RoundPlan) -> None:
        least = Fraction(self.noise_multiplier or 0) ** 2 * plan.encoding.sensitivity().l2_squared
        if plan.noise is None or plan.noise.variance < least:
            raise PolicyError(f"less noise than a multiplier of {float(self.noise_multiplier or 0):g} demands")
