"""How a run is shown: lines that are printed as they come, and stay; in the end the results and a verdict.

The references, which are trained first, and the rounds are lines of one table, which fits 80 characters. In it HR@10
and NDCG@10 are exact, of the model after the round, by whoever runs this, if that was asked for. Otherwise they are
what clients measured of the model before the round, as the server learnt it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from recsys.run_record import TRAINING, Round, Run
from secagg.cli.output import as_argument, line, program, say, terminal
from secagg.printable import in_bytes, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from recsys.report import Account

COLUMNS = {"clients": 9, "HR@10": 6, "NDCG@10": 7, "epsilon": 7, "sent": 6, "time": 7}
"""And how wide they are. Before them stands the round, or the name of a reference."""
_NAMES, _BETWEEN = 25, "  "

PATIENCE = 5.0
"""After so many seconds without a line one says what is being done."""

IN_THE_END = "in the end, over all users (exact: outside of any guarantee)"


class Progress:
    """Prints what is new on record, and now and then what is being done.

    ``exact``: whether that is what is measured. ``measured``: whether anything is, in some rounds; the others then have
    no line of their own, unless they failed. ``clock`` gives seconds.
    """

    def __init__(self, *, exact: bool, measured: bool = False, clock: Callable[[], float] = monotonic) -> None:
        self._exact, self._measured, self._clock = exact, exact or measured, clock
        self._results = self._rounds = 0
        self._last = clock()

    def watch(self, run: Run) -> None:
        """What has been added to the record since the last call; but not the run's own result, which is for the end."""
        if run.ended:
            return
        if not self._results + self._rounds and (run.results or run.rounds):
            self._say(_row("", {name: name for name in COLUMNS}))
        for one in run.results[self._results :]:
            self._say(_row(one.name, _quality(one.metrics)))
        for done in run.rounds[self._rounds :]:
            quality = done.exact if self._exact else done.measured
            if quality or not (self._measured and done.survivors and done.purpose == TRAINING):
                self._say(_round(done, quality))
        self._results, self._rounds = len(run.results), len(run.rounds)

    def tell(self, doing: str) -> None:
        """Only if nothing has been printed for a while."""
        if self._clock() - self._last >= PATIENCE:
            self._say(f"  ... {doing}")

    def _say(self, text: str) -> None:
        say(text)
        self._last = self._clock()


@contextmanager
def counted(doing: str, *, shown: bool, clock: Callable[[], float] = monotonic) -> Iterator[Callable[[int, int], None]]:
    """What is told how much of how much is done: a bar on a terminal, which goes when it is over, else a line now and
    then."""
    console = terminal(aside=True)
    if not (shown and console.is_terminal):
        progress = Progress(exact=False, clock=clock)
        yield lambda done, of: progress.tell(f"{doing}: {done} of {of}") if shown else None
        return
    from rich.progress import Progress as Bar

    with Bar(console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _round(done: Round, quality: Mapping[str, float]) -> str:
    if not done.survivors:
        return f"round {done.number}: {done.purpose}"
    cells = {
        "clients": f"{done.survivors}/{done.planned}",
        **_quality(quality),
        "epsilon": "" if done.epsilon is None else f"{done.epsilon:.3f}",
        "sent": in_bytes(done.bytes_up, short=True),
        "time": f"{sum(done.seconds.values()):.1f} s",
    }
    name = f"round {done.number}" if done.purpose == TRAINING else f"sum {done.number}: {done.purpose}"
    return _row(name, cells)


def _quality(metrics: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{metrics[name]:.4f}" for name in COLUMNS if name in metrics}


def _row(name: str, cells: Mapping[str, str]) -> str:
    shown = [f"{name:{_NAMES}}", *(f"{cells.get(column, ''):>{width}}" for column, width in COLUMNS.items())]
    return _BETWEEN.join(shown).rstrip()


def outcome(account: Account, folder: Path, report: Path | None) -> RenderableType:
    """What is said in the end."""
    from rich.console import Group

    from recsys.verdict import verdict

    run = account.run
    shown = [line(each, whole=True) for each in (*_results(run), f"why it ended: {run.ended}")]
    shown += [line(spent.promise.words) for spent in account.spent]
    where = "outside of the guarantee: " if account.spent else ""
    shown += [line(f"{where}{each}") for each in (*run.outside, run.others)]
    sealed = f"the run is sealed; {program()} report {as_argument(folder)} --out FILE draws it"
    shown.append(line(f"report: {report or sealed}"))
    for spent in account.spent:
        given = spent.promise
        paths = [as_argument(folder / path) for path in (given.ledger, given.key)]
        command = "{} ledger verify {} --key {} --head {}".format(program(), *paths, spent.state.head.hex())
        shown += [line(f"verify what {given.ledger} says:"), line(command, whole=True)]
    return Group(*shown, line(f"verdict: {verdict(account)}"))


def beside_each_other(accounts: Sequence[Account]) -> RenderableType:
    """Private runs on the same users in one table, below the references of the first, and what they cost together."""
    from rich.console import Group

    from dp.verify_ledger import upwards
    from recsys.report.numbers import delta, epsilon
    from recsys.sentences import CENTRAL, WITHOUT_NOISE
    from recsys.verdict import price

    first = accounts[0]
    names = [name for name in COLUMNS if all(one.own is not None and name in one.own.metrics for one in accounts)]
    rows = [["", *names, "epsilon"]]
    for one in first.references if names else []:
        model = f"{first.run.config['model']['name']}, " if one.name in (WITHOUT_NOISE, CENTRAL) else ""
        rows.append([f"{model}{one.name}", *(f"{one.metrics[name]:.4f}" for name in names), "none"])
    for each in accounts:
        own = {} if each.own is None else each.own.metrics
        called = f"{each.run.config['model']['name']}, {each.run.mode} noise"
        rows.append([called, *(f"{own[name]:.4f}" for name in names), epsilon(each.epsilon)])
    spent = [each for one in accounts for each in one.spent]
    total = upwards(sum((Fraction(each.epsilon) for each in spent), Fraction(0)), 4)
    words = (
        f"these are {len(accounts)} runs on the same users, each with a budget of its own: who is in both has spent up "
        f"to epsilon {total} at delta {delta(sum(each.promise.delta for each in spent))}"
    )
    table = [line(each, whole=True) for each in ("", "the runs beside each other", *_aligned(rows))]
    return Group(*table, line(words), line(f"what privacy cost: {price(*accounts)}"))


def _results(run: Run) -> list[str]:
    """A table of all that was measured in the end."""
    if not run.results:
        return []
    names = list(run.results[-1].metrics)
    cells = [
        [one.name, *(f"{one.metrics[name]:.4f}" if name in one.metrics else "" for name in names)]
        for one in run.results
    ]
    return [IN_THE_END, *_aligned([["", *names], *cells])]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        _BETWEEN.join(
            (f"{row[0]:{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)))
        )
        for row in shown
    ]
