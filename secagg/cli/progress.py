"""How a run is shown while it goes on: a table that grows by a line a round, and the results in the end.

HR@10 and NDCG@10 are exact, of the model after the round, by whoever simulates, if that was asked for; "by clients" is
what these measured of the model before the round, as the server learnt it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from recsys.report import Account
from recsys.run import Watch
from recsys.run_record import Round, Run
from secagg.cli.output import Visible, line, row, say, terminal

COLUMNS = (
    "round",
    "survivors",
    "HR@10",
    "NDCG@10",
    "NDCG@10 before, by clients",
    "epsilon",
    "left",
    "up",
    "down",
    "seconds by phase",
)


IN_THE_END = "in the end, over all users (exact: outside of any guarantee)"


@contextmanager
def watching(quiet: bool) -> Iterator[Watch]:
    """On a terminal the table is drawn anew each time; elsewhere its lines are printed as they come."""
    console = terminal(aside=quiet)
    if console.is_terminal and not quiet:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            yield lambda run: live.update(Visible(_table(run)), refresh=True)
        return
    shown = 0

    def lines(run: Run) -> None:
        nonlocal shown
        for one in run.rounds[shown:]:
            if not quiet:
                cells = zip(COLUMNS, _cells(one), strict=True)
                say(", ".join(f"{name} {cell}" for name, cell in cells if cell))
        shown = len(run.rounds)

    yield lines


def outcome(account: Account, folder: Path, report: Path, notes: Iterable[str]) -> RenderableType:
    """What is said in the end. ``notes`` on the data are exact counts: for whoever has the data, and kept nowhere."""
    run = account.run
    shown: list[RenderableType] = []
    if run.results:
        results = Table("", title=IN_THE_END, title_justify="left")
        for name in run.results[-1].metrics:
            results.add_column(line(name))
        for result in run.results:
            row(results, result.name, *(f"{value:.4f}" for value in result.metrics.values()))
        shown.append(results)
    shown += [line(one) for one in (*notes, run.ended)]
    for spent in account.spent:
        given = spent.promise
        paths = (quote(str(folder / path)) for path in (given.ledger, given.key))
        command = "verify: secagg ledger verify {} --key {} --head {}".format(*paths, spent.state.head.hex())
        shown += [line(given.words), line(command, whole=True)]
    where = "outside of the guarantee: " if account.spent else ""
    shown += [line(f"{where}{one}") for one in (*run.outside, run.others)]
    return Group(*shown, line(f"report: {report}"))


def _table(run: Run) -> Table:
    references = "; ".join(f"{one.name} HR@10 {one.metrics['HR@10']:.4f}" for one in run.results)
    table = Table(title=line(f"{run.title} ({references})" if references else run.title), title_justify="left")
    rows = [_cells(one) for one in run.rounds]
    kept = [place for place in range(len(COLUMNS)) if any(cells[place] for cells in rows)]
    for place in kept:
        left = place == len(COLUMNS) - 1
        table.add_column(COLUMNS[place], justify="left" if left else "right", overflow="fold")
    for cells in rows:
        row(table, *(cells[place] for place in kept))
    return table


def _cells(one: Round) -> list[str]:
    return [
        f"{one.number}" if one.purpose == "training" else f"{one.number} {one.purpose}",
        f"{one.survivors}/{one.planned}",
        *(f"{one.exact[name]:.4f}" if name in one.exact else "" for name in COLUMNS[2:4]),
        f"{one.measured['NDCG@10']:.4f}" if "NDCG@10" in one.measured else "",
        *("" if value is None else f"{value:.3f}" for value in (one.epsilon, one.epsilon_left)),
        _bytes(one.bytes_up),
        _bytes(one.bytes_down),
        " ".join(f"{name} {value:.1f}" for name, value in one.seconds.items()),
    ]


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
