"""What rounds cost with very many clients: a model, checked against real rounds where these can be run.

*model*  measures what the pieces cost on this machine (``pieces``), runs real rounds of every protocol, the server in
         one process and all its clients in another, and divides what the model (``costs``) says by what was seen:
         bytes up and down, processor seconds of the clients and of the server, the server's peak memory.
*choice* asks what ``RoundPlan.propose("auto")`` would take at some sizes, and runs a round with each protocol there:
         seconds over those of the best one (``choices``).
*table*  prints the model for clients and lengths far beyond that: flat rounds, and trees of cohorts.
*units*  prints the source of ``protocols.costs.measured``, the constants by which protocols are chosen.

With ``out`` all that is written there: ``scale.md`` (tables), ``scale.json`` (everything, by phase), ``measured.py``.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from math import floor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, ParamSpec, TypeVar

import numpy as np

from benchmarks.case import Measured, Say, commit
from benchmarks.memory import peak, start_peak
from benchmarks.rounds import check_total, people, update_of
from benchmarks.studies.scale.constants import source_of, where
from benchmarks.studies.scale.deployments import BEACON, MODELS, Deployment, cost
from benchmarks.studies.scale.pieces import measure
from benchmarks.studies.scale.tables import FEWEST, checked_table, flat_table, tree_table
from benchmarks.studies.scale.timing import processor_seconds, seconds_of
from protocols.choice import COMPARED
from protocols.client import Client
from protocols.costs.roles import Cost
from protocols.costs.units import UnitCosts
from protocols.journal import ForgetfulJournal
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.server import serve
from protocols.simulation.network import local_clients, simulate
from protocols.threshold_ckks.parameters import sizes_of
from secagg.crypto.lattice.sampling import flooding
from secagg.encoding import Encoding
from secagg.errors import UsageError
from secagg.extras import installed
from secagg.files import write_file
from secagg.machine import machine

_PARTS = ("model", "choice", "table", "units")


@dataclass(frozen=True, slots=True)
class Config:
    protocols: str = "secagg,secagg+,oneshot,ckks,threshold_ckks"
    n: str = "50,200,1000"
    d: int = 10_000
    long_n: int = 30  # 0: no round of long vectors
    long_d: int = 1_000_000
    drop: float = 0.1
    longest: float = 150
    """Real rounds that would take more seconds than this, by the model, are left out."""
    repeats: int = 3
    clients: str = "1e3,1e4,1e5,1e6,1e7,1e8"
    lengths: str = "1e4,1e5,1e6,1e7,1e8,1e9"
    cohorts: str = "100,250,1000,4000,10000"
    choices: str = "20x1e4,20x1e6,100x1e4,100x1e5,300x1e4,300x1e5"
    parts: str = "model,table"
    out: str = ""

    def __post_init__(self) -> None:
        if not set(self.parts.split(",")) <= set(_PARTS):
            raise UsageError(f"parts are some of {', '.join(_PARTS)}")
        if not set(self.protocols.split(",")) <= set(MODELS):
            raise UsageError(f"protocols are some of {', '.join(MODELS)}")
        if any(text.count("x") != 1 or min(_numbers(text.replace("x", ","))) < 4 for text in self.choices.split(",")):
            raise UsageError("choices are rounds as 100x1e5, of 4 clients or more and 4 coordinates or more")
        numbers = [*_numbers(self.n), *_numbers(self.clients), *_numbers(self.lengths), *_numbers(self.cohorts)]
        if min(numbers) < 4 or min(self.d, self.long_d, self.repeats) < 1 or (self.long_n and self.long_n < 4):
            raise UsageError("rounds have 4 clients or more, vectors a coordinate or more, pieces a trial or more")
        if not 0 <= self.drop < 0.3:
            raise UsageError("drop is a fraction of the clients below 0.3")


def _numbers(text: str) -> list[int]:
    try:
        return [int(float(number)) for number in text.split(",")]
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is not a list of numbers, separated by commas") from None


DEFAULTS = Config()
_TRIALS = 5
"""Constants are medians of so many processes' medians."""
P = ParamSpec("P")
R = TypeVar("R")


def run(config: Config, say: Say) -> Measured:
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    say("what the pieces cost")
    all_units, points = [_pieces(config)], list[Point]()
    if "model" in config.parts.split(","):
        for point in measured_points(config, all_units, say):
            points.append(point)
            figures |= point.figures
            ratios |= point.ratios
    if "choice" in config.parts.split(","):
        for chosen in choices(config, say):
            figures |= chosen.figures
            ratios |= chosen.ratios
    if "units" in config.parts.split(","):
        all_units += [_pieces(config) for _ in range(_TRIALS - 1)]
    units = _middle(all_units)
    figures |= {f"unit_{name}": value for name, value in asdict(units).items()}
    if config.out:
        _write(config, units, points)
    if "units" in config.parts.split(","):
        _say_lines(say, source_of(units, where(machine(), commit())))
    if "table" in config.parts.split(","):
        for table in _tables(config, units):
            _say_lines(say, table)
    return Measured(figures, ratios)


def _say_lines(say: Say, text: str) -> None:
    for line in text.splitlines():
        say(line)


# Real rounds.


@dataclass(frozen=True, slots=True)
class Taken:
    """What a real round took, by phase, all clients together."""

    up: dict[str, float]
    down: dict[str, float]
    clients_s: dict[str, float]
    server_s: dict[str, float]
    server_memory: int
    by_client: tuple[float, ...]
    """Seconds of each client, the most first."""


@dataclass(frozen=True, slots=True)
class Point:
    """A real round beside what the model says of it."""

    protocol: str
    deployment: Deployment
    taken: Taken
    cost: Cost

    @property
    def name(self) -> str:
        gone = f"_{float(self.deployment.gone):g}_gone" if self.deployment.gone else ""
        return f"{self.protocol}_n{self.deployment.n}_d{self.deployment.d}{gone}"

    @property
    def figures(self) -> dict[str, float]:
        """Measured."""
        taken, n = self.taken, self.deployment.n
        return {
            f"{self.name}_client_bytes_up": sum(taken.up.values()) / n,
            f"{self.name}_client_bytes_down": sum(taken.down.values()) / n,
            f"{self.name}_client_s": sum(taken.clients_s.values()) / n,
            f"{self.name}_server_s": sum(taken.server_s.values()),
            f"{self.name}_server_mib": taken.server_memory / 2**20,
        }

    @property
    def ratios(self) -> dict[str, float]:
        """Predicted over measured."""
        taken, cost = self.taken, self.cost
        found = {
            "up": cost.up / sum(taken.up.values()),
            "down": cost.down / sum(taken.down.values()),
            "client": cost.clients_s / sum(taken.clients_s.values()),
            "server": cost.server_s / sum(taken.server_s.values()),
        }
        if taken.server_memory >= _LEAST_MEMORY:
            found["memory"] = cost.server_memory / taken.server_memory
        return {f"{self.name}_predicted_{what}": ratio for what, ratio in found.items()}

    def by_phase(self) -> dict[str, dict[str, float]]:
        """Predicted and measured seconds."""
        of_clients: dict[str, float] = defaultdict(float)
        for role in self.cost.roles:
            for step in role.steps:
                of_clients[step.phase] += role.count * step.seconds
        return {
            phase: {
                "clients_s": self.taken.clients_s.get(phase, 0),
                "clients_predicted_s": of_clients[phase],
                "server_s": self.taken.server_s[phase],
                "server_predicted_s": self.cost.server[phase],
            }
            for phase in self.cost.server
        }


_LEAST_MEMORY = 16 << 20
"""Memory below this is not compared: there it depends on what the allocator had left over."""


def measured_points(config: Config, all_units: list[UnitCosts], say: Say) -> Iterator[Point]:
    for protocol in config.protocols.split(","):
        if (missing := _missing(protocol)) is not None:
            say(f"NOT MEASURED: {protocol} needs {missing}")
            continue
        for deployment in _deployments(config):
            size = f"n = {deployment.n}, d = {deployment.d}, {deployment.silent} gone"
            try:
                expected = cost(protocol, deployment, all_units[-1])
            except UsageError as error:
                say(f"{protocol}, {size}: {error}")
                continue
            if expected.clients_s + expected.server_s > config.longest:
                say(f"{protocol}, {size}: left out, {expected.clients_s + expected.server_s:.0f} s by the model")
                continue
            taken = _afresh(taken_by_round, protocol, deployment)
            all_units.append(_pieces(config))
            point = Point(protocol, deployment, taken, cost(protocol, deployment, _middle(all_units[-2:])))
            said = ", ".join(f"{name.rpartition('_')[2]} {ratio:.3f}" for name, ratio in point.ratios.items())
            say(f"{protocol}, {size}: predicted over measured {said}")
            yield point


def _pieces(config: Config) -> UnitCosts:
    protocols = set(config.protocols.split(","))
    return _afresh(measure, config.repeats, bool(protocols & {"oneshot", "threshold_ckks"}), "ckks" in protocols)


def _afresh(work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """In a new process: its peak is its own, and its memory as little used as that of a client."""
    with ProcessPoolExecutor(1, _processes()) as process:
        return process.submit(work, *arguments, **named).result()


def _processes() -> ForkServerContext:
    """Forked from one that has loaded this module and has not run anything of it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _deployments(config: Config) -> Iterator[Deployment]:
    for n in _numbers(config.n):
        yield Deployment(n, config.d, minimum=_least(n))
    middle = sorted(_numbers(config.n))[len(_numbers(config.n)) // 2]
    yield Deployment(middle, config.d, gone=Fraction(str(config.drop)), minimum=_least(middle))
    if config.long_n:
        yield Deployment(config.long_n, config.long_d, minimum=_least(config.long_n))


def _least(n: int) -> int:
    return min(FEWEST, n // 2)


def _missing(protocol: str) -> str | None:
    needs = {"oneshot": "numba", "threshold_ckks": "numba", "ckks": "tenseal"}.get(protocol)
    return needs if needs is not None and not installed(needs) else None


def _middle(units: Sequence[UnitCosts]) -> UnitCosts:
    return UnitCosts(**{field.name: median(getattr(one, field.name) for one in units) for field in fields(UnitCosts)})


class _Watch:
    """Processor seconds of one party's doings, by phase. That of CKKS has most of them done by other processes."""

    def __init__(self, protocol: str) -> None:
        self._clock = processor_seconds if protocol == "ckks" else process_time
        self._own = seconds_of(self._clock, 3)
        self.seconds: dict[str, float] = defaultdict(float)

    def __call__(self, phase: str, work: Callable[..., Any], *arguments: Any) -> Any:
        started = self._clock()
        result = work(*arguments)
        self.seconds[phase] += max(self._clock() - started - self._own, 0)
        return result


def taken_by_round(protocol: str, deployment: Deployment) -> Taken:
    """A real round; its clients live in a child process. To be run in a process that has not done much before."""
    _, roster = people(deployment.n)
    plan = deployment.proposed(protocol, roster)
    context = _processes()
    near, far = context.Pipe()
    child = context.Process(target=_clients, args=(far, plan.encode(), deployment.n), daemon=True)
    child.start()
    far.close()  # so that a child that dies is an error here, and no wait for ever
    _warm(plan)
    watch, up, down = _Watch(protocol), defaultdict[str, float](float), defaultdict[str, float](float)
    start_peak()
    before = peak()
    server = serve(plan, roster)
    silent = frozenset(roster.names[:: deployment.n // max(deployment.silent, 1)][: deployment.silent])
    speaking, requests = True, iter([(name, b"") for name in roster.names])
    while server.outcome is None:
        phase = str(server.phase)
        speaking = speaking and phase != "upload"
        while (sent := watch(phase, next, requests, None)) is not None:
            name, request = sent
            down[phase] += len(request) or len(plan.encode())
            if name in silent and not speaking:
                continue
            for part in (name.encode(), phase.encode(), request):
                near.send_bytes(part)
            answer = near.recv_bytes()
            up[phase] += len(answer)
            watch(phase, server.receive, name, answer)
        watch(phase, server.close, phase)
        requests = server.outbox()
    memory = peak() - before
    near.send_bytes(b"")
    clients_s, by_client = json.loads(near.recv_bytes())
    child.join()
    check_total(server)
    return Taken(dict(up), dict(down), clients_s, dict(watch.seconds), memory, tuple(by_client))


def _policy(protocol: str) -> Policy:
    """The benchmark chooses parameters itself; its clients accept."""
    return Policy(
        min_contributors=2,
        protocols={protocol},
        adversary=rules_of(protocol).against,
        corrupt=0,
        dropout=0,
        beacon=BEACON,
    )


def _clients(pipe: Connection, encoded: bytes, count: int) -> None:
    """The child: answer every request, and tell in the end what it took."""
    plan = RoundPlan.decode(encoded)
    identities, roster = people(count)
    clients = {i.name: Client(i, roster, policy=_policy(plan.protocol), journal=ForgetfulJournal()) for i in identities}
    _warm(plan)
    watch, by_client = _Watch(plan.protocol), dict.fromkeys(clients, 0.0)
    while name := pipe.recv_bytes().decode():
        phase, request, before = pipe.recv_bytes().decode(), pipe.recv_bytes(), sum(watch.seconds.values())
        if request:
            pipe.send_bytes(watch(phase, clients[name].receive, request))
        else:
            pipe.send_bytes(watch(phase, clients[name].start, plan, update_of(roster.number(name), plan)))
        by_client[name] += sum(watch.seconds.values()) - before
    pipe.send_bytes(json.dumps([watch.seconds, sorted(by_client.values(), reverse=True)]).encode())


def _warm(plan: RoundPlan) -> None:
    """Load what the protocol needs, start its helpers, make the samplers' tables: what is done once for many rounds."""
    roster, clients = local_clients(4, _policy(plan.protocol))
    small = RoundPlan.propose(plan.protocol, roster, Encoding.integers(8), min_contributors=2, beacon=BEACON)
    simulate(serve(small, roster), clients, {name: np.ones(8) for name in clients}.get)
    if plan.protocol == "threshold_ckks":
        flooding(sizes_of(plan).flooding, 1, bytes(32))


# What is chosen.


@dataclass(frozen=True, slots=True)
class Chosen:
    """What "auto" would take for a deployment, and seconds of real rounds with each protocol that could be taken."""

    deployment: Deployment
    protocol: str
    predicted: dict[str, float]
    measured: dict[str, float]

    @property
    def name(self) -> str:
        return f"choice_n{self.deployment.n}_d{self.deployment.d}"

    @property
    def figures(self) -> dict[str, float]:
        return {f"{self.name}_{protocol}_s": seconds for protocol, seconds in self.measured.items()}

    @property
    def over_best(self) -> float:
        """Measured seconds of what is chosen over those of the best one."""
        return self.measured[self.protocol] / min(self.measured.values())

    @property
    def ratios(self) -> dict[str, float]:
        found = {f"{self.name}_{one}_predicted": self.predicted[one] / self.measured[one] for one in self.measured}
        return found | {f"{self.name}_over_best": self.over_best}


def choices(config: Config, say: Say) -> Iterator[Chosen]:
    """Bytes on the links are the model's, which are exact."""
    for text in config.choices.split(","):
        n, d = (int(float(number)) for number in text.split("x"))
        silent = floor(Fraction(str(config.drop)) * n)  # no more than parameters are chosen for
        deployment = Deployment(n, d, gone=Fraction(silent, n), minimum=_least(n))
        choice = deployment.compare(COMPARED)
        predicted, measured = dict[str, float](), dict[str, float]()
        for one in choice.candidates:
            if one.why_not or (expected := one.seconds) > config.longest:
                say(f"n = {n}, d = {d}: {one.protocol} is left out, {one.why_not or f'{expected:.0f} s by the model'}")
                continue
            taken = _afresh(taken_by_round, one.protocol, deployment)
            members = round(n * _most_work(one.protocol, deployment))
            client_s, server_s = sum(taken.by_client[:members]) / members, sum(taken.server_s.values())
            predicted[one.protocol] = one.seconds
            measured[one.protocol] = replace(one, client_s=client_s, server_s=server_s).seconds
            say(
                f"n = {n}, d = {d}, {one.protocol}: a round {one.seconds:.3g} s by prediction, "
                f"{measured[one.protocol]:.3g} s measured (client {one.client_s:.3g}, {client_s:.3g}; "
                f"server {one.server_s:.3g}, {server_s:.3g})"
            )
        found = Chosen(deployment, choice.protocol, predicted, measured)
        say(f"n = {n}, d = {d}: auto takes {choice.protocol}, {found.over_best:.2f} of the best")
        yield found


def _most_work(protocol: str, deployment: Deployment) -> float:
    """The fraction of clients that do as much as the client that does most."""
    members = getattr(deployment.plan(protocol).parameters, "members", deployment.n)
    return members * deployment.left / deployment.n / deployment.n


# What is written.

_TREE_LENGTH = 1_000_000


def _tables(config: Config, units: UnitCosts) -> Iterator[str]:
    protocols, clients = config.protocols.split(","), _numbers(config.clients)
    for d in _numbers(config.lengths):
        yield flat_table(protocols, clients, d, units)
    for n in clients:
        if n > min(_numbers(config.cohorts)):
            yield tree_table(protocols, n, _TREE_LENGTH, _numbers(config.cohorts), units)


def _write(config: Config, units: UnitCosts, points: Sequence[Point]) -> None:
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    place = f"Commit {commit()}, {machine()['cores']} cores, {machine()['processor']}.\n"
    checked = [(point.name, point.figures, point.ratios) for point in points]
    tables = [*([checked_table(checked)] if checked else []), *_tables(config, units)]
    write_file(out / "scale.md", "\n".join([place, *tables]).encode(), private=False)
    found = {
        "config": asdict(config),
        "machine": machine(),
        "commit": commit(),
        "units": asdict(units),
        "points": {p.name: {"measured": p.figures, "ratios": p.ratios, "phases": p.by_phase()} for p in points},
    }
    if "units" in config.parts.split(","):
        write_file(out / "measured.py", source_of(units, where(machine(), commit())).encode(), private=False)
    write_file(out / "scale.json", json.dumps(found, indent=1).encode(), private=False)
