"""``secagg ledger``: what a privacy budget was spent on, and whether that is true."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table

from dp.arrivals import Arrivals
from dp.filter import RESOLUTION
from dp.ledger.entries import FIELDS, canonical, parse
from dp.ledger.file import read
from dp.ledger.state import LedgerState, Row, replay
from dp.ledger.verify import book, compare, copies, verify
from dp.secure_sum import SecureSum
from dp.turns import Turns
from dp.verify_ledger import FAILED, Given, beside, columns, statement
from dp.window_filter import WindowFilter
from protocols.plan import RoundPlan
from protocols.roster import Roster
from protocols.seen_heads import heads_in
from secagg.cli import witness
from secagg.cli.exit_codes import CONSISTENT_ONLY
from secagg.cli.keyring import KeyringFile, keys_of
from secagg.cli.ledger_files import RunDir, file_of, hexadecimal, key_in
from secagg.cli.output import Json, emit, facts, line, row, say
from secagg.errors import PeerError

app = typer.Typer(
    name="ledger", suggest_commands=False, help="What a privacy budget was spent on, and whether that is true."
)


@app.command()
def show(run_dir: RunDir, keyring: KeyringFile = None, as_json: Json = False) -> None:
    """The entries, and on whose word each field stands. Whether they are true, ``verify`` says."""
    rows = read(file_of(run_dir), keys_of(keyring))
    genesis = replay(rows).genesis
    entries = [parse(body) for body, _signature in rows]
    counts = ["second", "counts"] if genesis.window is not None else []
    table = Table("entry", "phase", "round", "survivors", "epsilon", *counts, title=line(genesis.run))
    for entry, then in zip(entries[1:], _counting(rows), strict=True):
        happened = entry.get("sum", {})
        survivors = f"{happened['survivors']} of {happened['planned']}" if happened else ""
        reached = _epsilon(entry["epsilon_after"])
        where = f"{happened['round']} of {happened['session'][:8]}" if happened else entry["release"][:30]
        row(table, str(entry["number"]), entry["phase"], str(where), survivors, f"{reached:.4g}", *then)
    marks = {mark.value: ", ".join(name for name, other in FIELDS.items() if other is mark) for mark in FIELDS.values()}
    emit(as_json, {"entries": entries, "fields": FIELDS}, Group(table, "", facts(marks)))


def _counting(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Where the budget is for windows: after each entry the time of the latest release, and the epsilon of what is
    charged to one window with it."""
    state = LedgerState.begun_by(rows[0][0])
    for body, _signature in rows[1:]:
        state.read(body)
        if isinstance(spent := state.filter, WindowFilter):
            yield [str(spent.latest), f"{_epsilon(spent.reached_at(spent.latest)):.4g}"]
        else:
            yield []


@app.command()
def export(run_dir: RunDir, keyring: KeyringFile = None, as_json: Json = False) -> None:
    """All entries as JSON lines, for dp/verify_ledger.py; the schema is in docs/ledger.md."""
    rows = read(file_of(run_dir), keys_of(keyring))
    lines = [{"body": parse(body), "signature": signature.hex()} for body, signature in rows]
    if as_json:
        emit(as_json, {"entries": lines}, "")
    else:
        for entry in lines:
            say(canonical(entry).decode())


@app.command("verify")
def check(
    run_dir: RunDir,
    key: Annotated[Path | None, typer.Option(help="File with the ledger's public key, in hexadecimal.")] = None,
    head: Annotated[str | None, typer.Option(help="A head that was seen earlier, in hexadecimal.")] = None,
    against: Annotated[Path | None, typer.Option(help="A client's ledger, or a copy of this one.")] = None,
    against_key: Annotated[Path | None, typer.Option(help="File with the public key of the other ledger.")] = None,
    roster: Annotated[Path | None, typer.Option(help="The roster that signers must be in.")] = None,
    keyring: KeyringFile = None,
    as_json: Json = False,
) -> None:
    """Compute everything again, and state what is promised, what was spent, and on whose word that stands.

    Exit code 0: all is true under the key that was given, 4: something is not, 5: the ledger agrees with itself, but
    without --key (for a client's ledger: --against-key) anybody can have written it. Without --head it may be an older
    copy.
    """
    names = None if roster is None else Roster.load(roster)
    owner, other_owner, pinned = key_in(key), key_in(against_key), None if head is None else hexadecimal(head)
    own, other, keys = file_of(run_dir), None if against is None else file_of(against), keys_of(keyring)
    known, copy, common, heads = None, False, 0, 0
    try:
        rows = read(own, keys)
        of_each = LedgerState.begun_by(rows[0][0]).genesis.of_each if rows else None
        check_plan = _plan_check(names, of_each)
        state = verify(rows, owner, pinned, check_plan)
        if names is not None and of_each is not None and (of_each.names, of_each.keys) != (names.names, names.keys):
            raise PeerError("those who are charged are not the clients of the roster")
        heads = _checked_heads(state, rows)
        if other is not None:
            theirs = verify(others := read(other, keys), other_owner, also=check_plan)
            heads += _checked_heads(state, others)
            copy, common = copies(state, theirs), compare(state, theirs)
            known = other_owner is not None or theirs.genesis.owner == state.genesis.owner
    except PeerError as error:
        raise PeerError(f"{FAILED}: {error}") from None
    given = Given(
        key is not None,
        None if pinned is None else state.heads.index(pinned),
        plans=True,
        beside=beside(key, own),
        roster=roster is not None,
        against=known,
        copy=copy,
        common=common,
        heads=heads,
    )
    amounts, budget = book(state), state.genesis.budget
    said, window = statement(amounts, given), amounts.window
    if as_json:
        figures = {
            "verdict": given.verdict,
            "entries": len(state.heads),
            "head": state.head.hex(),
            "epsilon": _epsilon(state.filter.reached),
            "budget": float(budget.epsilon),
            "delta": float(budget.delta),
            "statement": said,
        }
        if window is not None:
            counts = {"second": window.latest, "epsilon": _epsilon(window.reached), "free": window.free}
            figures["window"] = {"length": window.length, "kept": window.kept, "counts": counts}
        emit(as_json, figures, "")
    else:
        for text in columns(said):
            say(text)
    if given.code == CONSISTENT_ONLY:
        raise typer.Exit(CONSISTENT_ONLY)


def _checked_heads(state: LedgerState, rows: Sequence[Row]) -> int:
    """How many heads of the ledger of this state are in plans of these entries; ``PeerError`` for one that it has not
    had: whoever signed that plan was shown another ledger."""
    of_it = [head for head in heads_in(parse(body) for body, _ in rows) if head.ledger == state.heads[0]]
    for head in of_it:
        state.check_head(head)
    return len(of_it)


def _plan_check(names: Roster | None, of_each: Turns | Arrivals | None) -> Callable[[SecureSum], None]:
    """What refuses facts that are not those of the plan, and with a roster: plans and signers that are not of it."""

    def check(what: SecureSum) -> None:
        plan = RoundPlan.charged(what)
        if names is not None:
            if of_each is None and plan.roster != names.digest:  # else it is that of those who are charged
                raise PeerError("the plan is for another roster")
            strangers = [s.name for s in what.signatures if names.keys[names.number(s.name)] != s.key]
            if strangers:
                raise PeerError("signed with a key that is not in the roster", culprits=strangers)

    return check


def _epsilon(reached: int | None) -> float:
    return float("inf") if reached is None else reached / RESOLUTION


for _command in (witness.heads, witness.prove, witness.included, witness.witness, witness.evidence):
    app.command()(_command)
