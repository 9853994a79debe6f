"""What the server does: whole rounds with and without dropouts, taking in one upload, and rounds of real clients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from statistics import median

import numpy as np

from benchmarks.case import Say, ratio, timed
from benchmarks.regression.oneshot.cast import Cast
from benchmarks.regression.oneshot.deployment import POLICY, SCENES, Config, plan_of
from benchmarks.regression.oneshot.driving import Seconds, drive
from benchmarks.rounds import check_total, people, update_of
from protocols.client import Client
from protocols.journal import ForgetfulJournal
from protocols.oneshot.parameters import lattice_of, parameters_of
from protocols.plan import RoundPlan
from protocols.roster import Roster
from protocols.rounds.phases import Phase
from protocols.server import serve
from secagg.crypto.lattice.polynomials import Coefficients, RunningSum


def time_server(config: Config, cast: Cast, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    figures["server_seats"] = parameters_of(cast.plan).members
    took: dict[str, list[float]] = defaultdict(list)
    phases: dict[str, list[Seconds]] = defaultdict(list)
    for i in range(config.rounds):
        for scene in SCENES:
            say(f"a server's round {i + 1}: n = {config.n}, d = {config.d}, dropouts: {scene}")
            seconds, extra = cast.round(scene)
            took[scene].append(sum(seconds.values()))
            phases[scene].append(seconds)
            figures["server_extra_mib"] = max(figures.get("server_extra_mib", 0.0), extra / 2**20)
    for scene in SCENES:
        figures[f"server_{scene}_s"] = median(took[scene])
        for step in phases[scene][0]:
            figures[f"server_{scene}_{step}_s"] = median(seconds[step] for seconds in phases[scene])
    ratios["server_30pct_vs_none"] = ratio(took, "after", "none")
    ratios["server_30pct_before_upload_vs_none"] = ratio(took, "before", "none")
    _take_in(config, cast, figures, ratios, say)


def _take_in(config: Config, cast: Cast, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    """One upload: decoded, verified, hashed and added, beside the same numbers in a plain ring, and in the lattice."""
    say("taking in one upload, beside unpacking and adding alone")
    layout, length, took = (
        lattice_of(cast.plan).layout,
        cast.plan.encoding.coordinates,
        defaultdict[str, list[float]](list),
    )
    count, ring = layout.coefficients(length), cast.plan.ring
    plain, total = ring.pack(ring.lift(update_of(0, cast.plan))), ring.zeros(length)
    running, vector = RunningSum(layout.ring, layout.blocks(length)), cast.vectors[0]
    server, frames = cast.joined()

    def add() -> None:
        np.add(total, ring.unpack(plain, length), out=total)

    for name, frame in frames:
        timed(took, "upload", lambda name=name, frame=frame: server.receive(name, frame))
        timed(took, "plain", add)
        timed(took, "lattice", lambda: running.add(Coefficients.unpack(layout.ring, vector, count)))
        if len(took["upload"]) == config.repeats:
            break
    figures["take_in_s"] = median(took["upload"])
    figures["plain_add_s"], figures["lattice_add_s"] = median(took["plain"]), median(took["lattice"])
    ratios["server_vs_add"] = ratio(took, "upload", "plain")
    ratios["server_vs_lattice_add"] = ratio(took, "upload", "lattice")


def time_real_rounds(config: Config, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    plan, roster = plan_of(config.real_n, config.real_d, config.drop, config)
    identities, _ = people(config.real_n)
    gone = frozenset(roster.names[: round(config.drop * config.real_n)])
    took: dict[str, list[float]] = defaultdict(list)
    for _ in range(config.rounds):
        for scene in SCENES:
            say(f"a round of {config.real_n} real clients, d = {config.real_d}, dropouts: {scene}")
            plan = plan.next_round()
            clients = {i.name: Client(i, roster, policy=POLICY, journal=ForgetfulJournal()) for i in identities}
            silent_at = {"none": "", "before": Phase.UPLOAD, "after": Phase.CONSISTENCY}[scene]
            took[scene].append(_real_round(plan, roster, clients, gone, silent_at))
    for scene in SCENES:
        figures[f"real_server_{scene}_s"] = median(took[scene])
    ratios["real_server_30pct_vs_none"] = ratio(took, "after", "none")
    ratios["real_server_30pct_before_upload_vs_none"] = ratio(took, "before", "none")


def _real_round(
    plan: RoundPlan, roster: Roster, clients: Mapping[str, Client], gone: frozenset[str], silent_at: str
) -> float:
    server = serve(plan, roster)
    phases = [str(phase) for phase in server.steps]

    def say(phase: str, name: str, frame: bytes) -> bytes | None:
        if silent_at and name in gone and phases.index(phase) >= phases.index(silent_at):
            return None
        if phase == Phase.JOIN:
            return clients[name].start(plan, update_of(roster.number(name), plan))
        return clients[name].receive(frame)

    seconds = sum(drive(server, say).values())
    there = [name for name in roster.names if not (silent_at == Phase.UPLOAD and name in gone)]
    check_total(server, np.sum([update_of(roster.number(name), plan) for name in there], axis=0))
    return seconds
