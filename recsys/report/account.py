"""What a report is about: the record of a run, and what the ledgers beside it say was promised and spent.

A record is signed by the run's key, and the key is compared with that of the run's own ledgers; but whoever made a run
had its key. So whatever is said of privacy comes from the ledgers: the
promise from the first entry, how many clients may work together or be missing from the plans of the sums, what was
spent after a round from the entry to which the round points. All of it is verified, as far as that goes without a key.
What record and ledger both know is compared, and a report says where they differ. On the word of the record stands what
no ledger knows: quality, times, bytes, who the clients are, and all of a run without privacy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf, isfinite
from pathlib import Path
from typing import Any, Self

from dp.events import Trust
from dp.filter import RESOLUTION
from dp.ledger.entries import parse
from dp.ledger.file import read
from dp.ledger.state import LedgerState
from dp.ledger.verify import verify
from dp.secure_sum import SecureSum
from protocols import registry
from protocols.plan import RoundPlan
from protocols.registry import Protocol
from recsys.run_record import LEDGERS, Quality, Round, Run, Spending
from recsys.sentences import SHARING, START, promise
from secagg.at_rest import AnyFolder, Folder, Keyring
from secagg.errors import DecodeError, PeerError, StorageError, UsageError

TRUSTS = {"none": [], "local": ["local"], "distributed": ["distributed"], "both": ["distributed", "local"]}
"""Mode of a run -> whose noise is promised."""

METRIC = "NDCG@10"
"""What plots show, if it was measured."""


@dataclass(frozen=True, slots=True)
class Spent:
    """A promise, and what its ledger says about it."""

    promise: Spending
    """as the ledger and the plans in it have it"""
    shared: bool
    """with other runs, says the ledger"""
    state: LedgerState
    entries: tuple[Mapping[str, Any], ...]
    """Without the first, which is the promise."""
    plans: tuple[RoundPlan, ...]
    """of all its sums"""

    @classmethod
    def load(cls, path: Path, keys: Keyring | None = None) -> Self:
        """Verified, but for who wrote it."""
        plans: list[RoundPlan] = []
        rows = read(path, keys)
        state = verify(rows, also=lambda what: plans.append(RoundPlan.charged(what)))
        genesis = state.genesis
        if genesis.guarantee.trust is Trust.CENTRAL:
            raise PeerError(f"{path.name} is not the ledger of such a run: its noise is added by whoever has the data")
        shared = genesis.run == SHARING
        noises = [plan.noise for plan in plans if plan.noise is not None]
        alike = len({(plan.clients, plan.noise.dropouts) for plan in plans if plan.noise is not None}) == 1
        noise = min(noises, key=lambda noise: noise.colluders, default=None)
        planned = plans[0].clients if alike else None
        overlap = min((plan.encoding.overlap for plan in plans), default=1)
        sampled = min((plan.encoding.sampled for plan in plans), default=Fraction(1))
        guarantee, budget, of_each, window = genesis.guarantee, genesis.budget, genesis.of_each, genesis.window
        promised = promise(
            path, shared, guarantee, budget, noise, planned, overlap, of_each=of_each, window=window, sampled=sampled
        )
        return cls(promised, shared, state, tuple(parse(body) for body, _signature in rows[1:]), tuple(plans))

    @property
    def epsilon(self) -> float:
        return _epsilon(self.state.filter.reached)

    @property
    def sums(self) -> list[SecureSum]:
        """Those that took place, in their order."""
        happened = [record.happened for record in self.state.records.values()]
        return [what for what in happened if isinstance(what, SecureSum)]

    def after(self, round_: Round) -> int | None:
        """The entry to which a round points."""
        heads = [head.hex() for head in self.state.heads]
        return heads.index(round_.head) if round_.head in heads else None

    def epsilon_after(self, number: int) -> float:
        """Spent when this was the last entry."""
        return _epsilon(self.entries[number - 1]["epsilon_after"]) if number else 0.0


@dataclass(frozen=True, slots=True)
class Point:
    """How good the model was when so many rounds were done and so much was spent."""

    rounds: int
    epsilon: float | None
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Account:
    run: Run
    protocol: Protocol
    spent: tuple[Spent, ...]

    differences: tuple[str, ...] = ()
    """in what record and ledger are not of one mind"""

    @classmethod
    def load(cls, folder: AnyFolder, ledger: str | Path | None = None) -> Self:
        """``ledger``: the one that the run shares with others, which is not in its folder."""
        folder, ledger = Folder.of(folder), None if ledger is None else Path(ledger)
        run = Run.load(folder)
        run.check_kept(folder)
        name = run.protocol.get("name")
        if run.mode not in TRUSTS or name not in registry.names():
            raise DecodeError(f"the record of the run in {folder} has an unknown mode or protocol")
        spent = tuple(Spent.load(path, folder.keys) for path in _ledgers(folder.path, run, ledger))
        trusts = [each.promise.trust for each in spent]
        if trusts != TRUSTS[run.mode]:
            kept = " and ".join(trusts) or "no"
            raise StorageError(f"record and ledger differ: the mode is {run.mode}, and {kept} noise is accounted for")
        protocols = dict.fromkeys(plan.protocol for each in spent for plan in each.plans if not each.shared)
        differences = tuple(_differences(run, spent))
        run = replace(run, rounds=tuple(_accounted(entry, spent) for entry in run.rounds))
        return cls(run, registry.find(next(iter(protocols), str(name))), spent, differences)

    @property
    def rounds(self) -> list[Round]:
        """Those that were not given up."""
        return [entry for entry in self.run.rounds if entry.survivors]

    @property
    def streamed(self) -> bool:
        """Whether the run was trained on a stream."""
        return self.run.data.get("source") == "stream"

    @property
    def agreed(self) -> Mapping[str, object]:
        """What the record says of the protocol, without its mean number of clients where cohorts vary."""
        said = self.run.protocol
        alike = all(entry.planned == said.get("clients") for entry in self.run.rounds)
        return said if alike else {name: value for name, value in said.items() if name != "clients"}

    @property
    def exact(self) -> list[Point]:
        """By whoever sees all data: after rounds, or else in the end; in a stream before them, by what is new."""
        rounds = enumerate(self.rounds, 0 if self.streamed else 1)
        found = [Point(done, entry.epsilon, entry.exact) for done, entry in rounds if entry.exact]
        if not found and self.own is not None:
            found = [Point(len(self.rounds), self.epsilon, self.own.metrics)]
        return found

    @property
    def measured(self) -> list[Point]:
        """By clients in a round, of the model that the round before had left."""
        before = [0.0 if self.spent else None, *(entry.epsilon for entry in self.rounds)]
        rounds = enumerate(zip(self.rounds, before, strict=False))
        return [Point(done, epsilon, entry.measured) for done, (entry, epsilon) in rounds if entry.measured]

    @property
    def metrics(self) -> list[str]:
        """All that was measured, in the order of its appearance."""
        sources = [point.values for point in (*self.exact, *self.measured)]
        sources += [result.metrics for result in self.run.results]
        return list(dict.fromkeys(name for source in sources for name in source))

    @property
    def metric(self) -> str | None:
        """The one that plots show."""
        return METRIC if METRIC in self.metrics else next(iter(self.metrics), None)

    @property
    def own(self) -> Quality | None:
        """The result of the run's own model, which is the last to come."""
        return self.run.results[-1] if self.run.ended and self.run.results else None

    @property
    def references(self) -> list[Quality]:
        """All others, but for what is the run's own without anybody's personal head."""
        return [result for result in self.run.results if result is not self.own and result.name != START]

    @property
    def epsilon(self) -> float | None:
        """Spent, against the server, of the first budget."""
        return self.spent[0].epsilon if self.spent else None

    @property
    def least(self) -> int | None:
        """So many clients are in each sum, by the plans; None where none was signed."""
        return min((plan.min_contributors for each in self.spent for plan in each.plans), default=None)

    def figures(self) -> dict[str, object]:
        """What programs are told in the end."""
        return {
            "mode": self.run.mode,
            "rounds": len(self.rounds),
            "ended": self.run.ended,
            "results": {result.name: dict(result.metrics) for result in self.run.results},
            "epsilon": _known(self.epsilon),
            "epsilon_outsiders": _known(self.epsilon),
            "differences": list(self.differences),
            "budgets": [
                {
                    "ledger": each.promise.ledger,
                    "guarantee": f"{each.promise.unit}, {each.promise.relation}, {each.promise.trust}",
                    "holder": each.promise.holder,
                    "epsilon": _known(each.epsilon),
                    "budget": each.promise.epsilon,
                    "delta": each.promise.delta,
                    "head": each.state.head.hex(),
                }
                for each in self.spent
            ],
        }


def _ledgers(folder: Path, run: Run, shared: Path | None) -> list[Path]:
    """Where they are: what a record says of that is not followed."""
    found = [folder / name for name in LEDGERS if (folder / name).is_symlink() or (folder / name).exists()]
    if links := [path.name for path in found if path.is_symlink()]:
        raise StorageError(f"{links[0]} in {folder} is a link: a run has its ledgers itself")
    if shared is not None:
        if found:
            raise UsageError(f"the run in {folder} has a ledger of its own")
        return [shared]
    if TRUSTS[run.mode] and not found:
        raise StorageError(
            f"the ledger of the run in {folder} is missing; if it shares one, say which it is (secagg report --ledger)"
        )
    return found


def _accounted(entry: Round, spent: tuple[Spent, ...]) -> Round:
    """With what the first ledger says was spent then."""
    number = spent[0].after(entry) if spent else None
    if number is None:
        return replace(entry, epsilon=None, epsilon_left=None)
    epsilon = spent[0].epsilon_after(number)
    return replace(entry, epsilon=epsilon, epsilon_left=max(0.0, spent[0].promise.epsilon - epsilon))


def _differences(run: Run, spent: tuple[Spent, ...]) -> Iterator[str]:
    promises = {each.trust: each for each in run.spendings}
    for each in spent:
        kept, said = each.promise, promises.get(each.promise.trust)
        if said is None:
            yield f"the record does not promise what {kept.ledger} keeps account of"
            continue
        names = ["unit", "relation", "holder", "epsilon", "delta"]
        alike = "clients" in run.protocol  # else cohorts vary, and how many may collude
        names += ["colluders"] if each.plans and not each.shared and alike else []
        for name in names:
            if getattr(said, name) != getattr(kept, name):
                yield f"{name} is {getattr(said, name)}, says the record; {kept.ledger} has {getattr(kept, name)}"
    if len(run.spendings) != len(spent):
        yield f"the record promises {len(run.spendings)} budgets, and there are {len(spent)} ledgers"
    if spent:
        yield from _of_rounds(run, spent[0])
        sums = len(spent[0].sums)
        if sums > len(run.rounds) and not spent[0].shared:
            yield f"the record has {len(run.rounds)} rounds, and {sums} sums are committed in {spent[0].promise.ledger}"
        yield from _of_the_plan(run, spent[0])


def _of_rounds(run: Run, spent: Spent) -> Iterator[str]:
    """Each round that took place was charged, before the entry to which it points and after the one before."""
    distributed = spent.promise.trust == "distributed"
    commits = [entry for entry in spent.entries if entry["phase"] == "commit"]
    last, used = 0, 0
    for entry in run.rounds:
        number = spent.after(entry)
        if number is None or number < last:
            yield f"round {entry.number} points to no entry of {spent.promise.ledger}, or to one before the last"
            continue
        last = number
        accounted = _accounted(entry, (spent,))
        for name in ("epsilon", "epsilon_left"):
            said, kept = getattr(entry, name), getattr(accounted, name)
            if said != kept:
                yield f"{name} after round {entry.number} is {said}, says the record; the ledger has {kept}"
        if not entry.survivors:
            continue
        while used < len(commits) and not (not distributed or _same_sum(entry, commits[used])):
            used += 1
        if used == len(commits) or commits[used]["number"] > number:
            sizes = f"{entry.survivors} of {entry.planned} survived"
            yield f"round {entry.number}, in which {sizes}, is not in {spent.promise.ledger}"
            return
        used += 1


def _same_sum(entry: Round, commit: Mapping[str, Any]) -> bool:
    happened = commit.get("sum", {})
    return (happened.get("survivors"), happened.get("planned")) == (entry.survivors, entry.planned)


def _of_the_plan(run: Run, spent: Spent) -> Iterator[str]:
    """What the record says that the protocol was."""
    if spent.shared:
        return
    for name, attribute in (("name", "protocol"), ("clients", "clients"), ("min_contributors", "min_contributors")):
        found = {getattr(plan, attribute) for plan in spent.plans}
        if name in run.protocol and any(each != run.protocol[name] for each in found):
            listed = ", ".join(map(str, sorted(found)))
            yield f"{name} of the protocol is {run.protocol[name]}, says the record; the plans have {listed}"


def _epsilon(reached: int | None) -> float:
    return inf if reached is None else reached / RESOLUTION


def _known(epsilon: float | None) -> float | None:
    return epsilon if epsilon is not None and isfinite(epsilon) else None
