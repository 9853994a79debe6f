"""``python -m tests.mutants``: see the README next to this file."""

from __future__ import annotations

import argparse
import ast
import os
import random
import sys
import tomllib
from collections import Counter
from difflib import unified_diff
from pathlib import Path

from tests.mutants.operators import ROOT, Mutant, mutated, parse
from tests.mutants.run import KEPT, Book, Verdict, hunt, reach, stratum_mutants, warm
from tests.mutants.strata import STRATA, Stratum

EQUIVALENT = Path(__file__).with_name("equivalent.toml")


def main() -> int:
    options = _options()
    os.chdir(ROOT)
    for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(threads, "1")  # before numpy is imported: forks share the processors
    chosen = [stratum for stratum in STRATA if not options.stratum or stratum.name in options.stratum]
    found = {stratum.name: stratum_mutants(stratum) for stratum in chosen}
    equivalent = equivalents()
    if options.only:
        found = {
            name: [mutant for mutant in here if mutant.key in options.only or mutant.name in options.only]
            for name, here in found.items()
        }
        chosen = [stratum for stratum in chosen if found[stratum.name]]
        for here in found.values():
            for mutant in here:
                print(f"{mutant.name}\n{_difference(mutant)}")
    if options.list:
        for here in found.values():
            for mutant in here:
                print(mutant.key, mutant.name)
        return 0
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(KEPT / "pycache")  # forks compile unmutated files once
    book = Book(KEPT / "results.jsonl")
    warm(late=any(stratum.name in ("recommender", "adapters") for stratum in chosen))
    paths = sorted({path for stratum in STRATA for path in stratum.source_files()} - {"secagg/crypto/labels.py"})
    results: dict[str, dict[str, Verdict]] = {}
    for stratum in chosen:
        results[stratum.name] = _run(stratum, found[stratum.name], equivalent, book, paths, options)
    return _report(chosen, found, equivalent, results)


def _run(
    stratum: Stratum,
    here: list[Mutant],
    equivalent: dict[str, str],
    book: Book,
    paths: list[str],
    options: argparse.Namespace,
) -> dict[str, Verdict]:
    files = stratum.test_files()
    wanted = [mutant for mutant in here if mutant.name not in equivalent or options.equivalent or options.only]
    if options.sample:
        wanted = random.Random(options.seed).sample(wanted, min(options.sample, len(wanted)))
    verdicts = {} if options.only else {m.name: known for m in wanted if (known := book.known(m, files)) is not None}
    fresh = [mutant for mutant in wanted if mutant.name not in verdicts]
    by_name = {mutant.name: mutant for mutant in wanted}

    def say(text: str) -> None:
        print(f"{stratum.name}: {text}", flush=True)

    def done(verdict: Verdict) -> None:
        verdicts[verdict.mutant] = verdict
        book.add(verdict)
        mutant = by_name[verdict.mutant]
        if verdict.outcome in ("survived", "unreached") and not _no_such_part(mutant, verdict):
            say(f"{verdict.outcome} {_line(mutant)}")

    if fresh:
        reached = reach(files, paths, options.jobs, say)
        say(f"{len(fresh)} mutants")
        hunt(fresh, files, reached, options.jobs, done, book.killers())
    if options.only:
        for verdict in verdicts.values():
            print(f"{verdict.outcome} by {verdict.by or 'nothing'} in {verdict.seconds} s; by hand:")
            file = verdict.by or " ".join(files)
            print(f"  SECAGG_MUTANT='{verdict.mutant}' \\\n    python -m pytest -x -p tests.mutants.plugin '{file}'")
    return verdicts


def _report(
    chosen: list[Stratum],
    found: dict[str, list[Mutant]],
    equivalent: dict[str, str],
    results: dict[str, dict[str, Verdict]],
) -> int:
    columns = ("killed", "hung", "equivalent", "survived", "unreached")
    print(f"\n{'stratum':16}{'mutants':>9}" + "".join(f"{column:>12}" for column in columns))
    total, left, wrong = Counter[str](), list[str](), list[str]()
    for stratum in chosen:
        row = Counter[str]()
        for mutant in found[stratum.name]:
            verdict = results[stratum.name].get(mutant.name)
            if mutant.name in equivalent:
                row["equivalent"] += 1
                if verdict is not None and verdict.outcome in ("killed", "hung"):
                    wrong.append(f"not equivalent, {verdict.by} kills it: {_line(mutant)}")
            elif verdict is not None and not _no_such_part(mutant, verdict):
                row[verdict.outcome] += 1
                if verdict.outcome in ("survived", "unreached"):
                    left.append(f"{verdict.outcome} {_line(mutant)}")
        row["mutants"] = sum(row[column] for column in columns)
        total += row
        print(f"{stratum.name:16}{row['mutants']:9}" + "".join(f"{row[column]:12}" for column in columns))
    print(f"{'all':16}{total['mutants']:9}" + "".join(f"{total[column]:12}" for column in columns))
    if left:
        print(f"\n{len(left)} left; see one with: python -m tests.mutants --only KEY")
    for line in (*left, *wrong):
        print(f"  {line}")
    return 1 if left or wrong else 0


def _no_such_part(mutant: Mutant, verdict: Verdict) -> bool:
    """Nothing is ever hashed under this label with so many parts."""
    return mutant.operator == "context" and verdict.outcome == "unreached"


def _line(mutant: Mutant) -> str:
    return f"{mutant.key} {mutant.name} (line {mutant.line})"


def equivalents() -> dict[str, str]:
    """Mutants that change nothing, and why. An entry whose code has changed stops everything."""
    by_name = {mutant.name: mutant for stratum in STRATA for mutant in stratum_mutants(stratum)}
    known: dict[str, str] = {}
    stale = list[str]()
    for entry in tomllib.loads(EQUIVALENT.read_text()).get("equivalent", []):
        mutant = by_name.get(entry["mutant"])
        if mutant is None:
            stale.append(f"there is no mutant {entry['mutant']}")
        elif mutant.function != entry["function"]:
            stale.append(f"{mutant.name} is in code that has changed (now {mutant.function}): think again")
        known[entry["mutant"]] = entry["why"]
    if stale:
        raise SystemExit("\n".join([f"{EQUIVALENT.name} is stale:", *stale]))
    return known


def _difference(mutant: Mutant) -> str:
    before = ast.unparse(parse(mutant.path)).splitlines()
    after = ast.unparse(mutated(mutant.path, mutant.name)).splitlines()
    return "\n".join(unified_diff(before, after, "unmutated", "mutated", lineterm="", n=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    names = [stratum.name for stratum in STRATA]
    parser.add_argument("--stratum", action="append", choices=names, help="only this one; may be given again")
    parser.add_argument("--only", action="append", help="only this mutant, by key or name, and show it")
    parser.add_argument("--sample", type=int, help="so many of each stratum, by lot")
    parser.add_argument("--seed", type=int, default=0, help="of the lot")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--equivalent", action="store_true", help="try those too that are said to be equivalent")
    parser.add_argument("--list", action="store_true", help="say which mutants there are, and run nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
