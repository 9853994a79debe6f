"""Many deployments, or one again: ``python -m tests.simulator --rounds 10000 --jobs 2``, ``--replay SEED``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from typing import Any

from protocols import registry
from tests.simulator.deployment import KINDS, Narrowed
from tests.simulator.oracles import check_variance
from tests.simulator.parties import Failure
from tests.simulator.run import Result, Tally, run, run_many


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first one; the others follow")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--protocol", choices=registry.names())
    parser.add_argument("--liar", choices=["nobody", "client", "server"])
    parser.add_argument("--move")
    parser.add_argument("--planned", action="store_true", help="n = 20 to 60, and all liars that the plan allows for")
    parser.add_argument("--replay", type=int, metavar="SEED", help="play one seed and say what happened")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object")
    options = parser.parse_args(arguments)
    liar = "" if options.liar == "nobody" else options.liar
    narrowed = Narrowed(options.protocol, liar, options.move, options.planned)
    if options.replay is not None:
        return replay(options.replay, narrowed)
    return campaign(options.seed, options.rounds, options.jobs, narrowed, options.json)


def campaign(first: int, rounds: int, jobs: int, narrowed: Narrowed, as_json: bool) -> int:
    began, tally = time.monotonic(), Tally()
    each = -(-rounds // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        parts = [pool.submit(run_many, first, each, narrowed, worker, jobs) for worker in range(jobs)]
        for part in parts:
            tally.merge(part.result())
    wall = time.monotonic() - began
    try:
        check_variance(tally.noise)
    except Failure as failure:
        tally.failures.append((-1, str(failure)))
    if as_json:
        print(json.dumps(figures(tally, wall)))
    else:
        report(tally, wall, narrowed)
    return 1 if tally.failures else 0


def figures(tally: Tally, wall: float) -> dict[str, Any]:
    return {
        "rounds": tally.rounds,
        "rounds_per_second": tally.rounds / wall,
        "cpu_seconds_per_round": tally.cpu_seconds / max(tally.rounds, 1),
        "ends": {kind: dict(counter) for kind, counter in sorted(tally.ends.items())},
        "moves": {move: dict(counter) for move, counter in sorted(tally.moves.items())},
        "noise": {protocol: asdict(noise) for protocol, noise in sorted(tally.noise.items())},
        "failures": tally.failures,
    }


def report(tally: Tally, wall: float, narrowed: Narrowed) -> None:
    for title, table in (("deployment", tally.ends), ("move", tally.moves)):
        print(f"{title:<48} rounds, and how they ended")
        for key, counter in sorted(table.items()):
            total = sum(count for end, count in counter.items() if end != "sum computable")
            ends = ", ".join(f"{end} {count}" for end, count in sorted(counter.items()) if count)
            print(f"  {key:<46} {total:6}  {ends}")
    for protocol, noise in sorted(tally.noise.items()):
        share = noise.squares / noise.coordinates
        print(f"  noise of {protocol}: {share:.4f} of the planned variance, {noise.coordinates:.0f} coordinates")
    cpu = tally.cpu_seconds / max(tally.rounds, 1)
    print(f"{tally.rounds} rounds in {wall:.0f} s: {tally.rounds / wall:.1f} a second; {1000 * cpu:.1f} ms CPU each")
    for seed, failure in tally.failures:
        print(f"\nFAILED: {failure}")
        if seed >= 0:
            print(f"  again: {again(seed, narrowed)}")


def again(seed: int, narrowed: Narrowed) -> str:
    """The command that plays this seed once more."""
    words = [f"python -m tests.simulator --replay {seed}"]
    words += [f"--protocol {narrowed.protocol}"] if narrowed.protocol else []
    words += [f"--liar {narrowed.liar or 'nobody'}"] if narrowed.liar is not None else []
    words += [f"--move {narrowed.move}"] if narrowed.move else []
    words += ["--planned"] if narrowed.planned else []
    return " ".join(words)


def replay(seed: int, narrowed: Narrowed) -> int:
    """One seed, and if it fails, again without the faults that the failure does not need."""
    result = run(seed, narrowed)
    for kind in KINDS if result.failure else ():
        calmer = replace(narrowed, without=narrowed.without | {kind})
        if (calm := run(seed, calmer)).failure.split(":")[0] == result.failure.split(":")[0]:
            result, narrowed = calm, calmer
    if narrowed.without:
        print(f"it fails as well without: {', '.join(sorted(narrowed.without))}")
    for line in trace(result):
        print(line)
    return 1 if result.failure else 0


def trace(result: Result) -> list[str]:
    """Who said what to whom, in the order in which it arrived."""
    d, lines = result.deployment, list[str]()
    if d is None:
        return [result.failure]
    plan = d.plan
    lines.append(f"seed {d.seed}: {plan.protocol}, {plan.clients} clients, {plan.min_contributors} in the sum at least")
    lines.append(f"  {plan.parameters}")
    lines.append(f"  {plan.encoding}")
    lines.append(f"  noise {plan.noise}; up to {d.may_miss} may be missing")
    lies = [*d.moves, *(f"{name} {move}" for name, move in d.liars.items())]
    lines.append(f"  liar: {d.liar or 'nobody'} {', '.join(lies)}; corrupt: {', '.join(d.corrupt) or 'nobody'}")
    lines.append(
        f"  refusing: {dict(d.refusing)}; own budgets: {sorted(d.books)}; journals in files: {sorted(d.durable)}"
    )
    for record in result.records:
        faults = d.faults(record.number)
        lines.append(f"round {record.number}")
        lines.append(
            f"  faults: dropouts {dict(faults.dropouts)}, damaged {sorted(faults.garbled | faults.garbled_down)},"
        )
        lines.append(f"    twice {sorted(faults.duplicated)}, restarted {sorted(faults.restarts)}")
        lines += [f"  {name} refuses: {error}" for name, error in sorted(record.refused.items())]
        for one in record.said:
            kind = type(one.message).__name__ if one.message is not None else "(no message)"
            lines.append(f"  {one.phase:>10}  {one.sender} -> {one.receiver}: {kind}{'' if one.honest else ' (*)'}")
        lines += [f"  error in {phase}: {party} about {whose}: {error}" for phase, party, whose, error in record.errors]
        if record.outcome is not None:
            lines.append(f"  sum of {', '.join(record.outcome.survivors)}: {record.outcome.total.tolist()[:12]}")
        else:
            lines.append(f"  no sum from the server: {record.failed}")
    lines.append("(*) not what its sender should have said, or not as it was sent")
    lines.append(f"FAILED: {result.failure}" if result.failure else "all promises were kept")
    return lines


if __name__ == "__main__":
    sys.exit(main())
