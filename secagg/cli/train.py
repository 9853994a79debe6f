"""``secagg train``: train a recommender as a file says, under secure sums, and report what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from textwrap import wrap
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.config import Config
from recsys.run_start import existing_run
from recsys.sentences import described
from secagg.at_rest import Folder
from secagg.cli.interrupts import interruptible
from secagg.cli.keyring import KeyringFile, keys_of
from secagg.cli.output import WIDTH, Json, as_argument, emit, program, say
from secagg.cli.progress import Progress, counted, outcome
from secagg.extras import need

if TYPE_CHECKING:
    from rich.console import RenderableType

    from recsys.report import Account

app = typer.Typer()

NO_MORE: Mapping[Path, Config] = MappingProxyType({})
OVER = "nothing is trained: this run has ended before"


KeepSecrets = Annotated[
    bool, typer.Option("--keep-secrets", help="Do not delete the secrets in the run's private directory at its end.")
]


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="What to do: a TOML file such as those in examples/.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, over what the file says.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run; one begun there goes on.")] = None,
    keep_secrets: KeepSecrets = False,
    keyring: KeyringFile = None,
    as_json: Json = False,
) -> None:
    """Train as CONFIG says. A run that was stopped goes on where it was."""
    asked, keys = Config.load(config, settings or []), keys_of(keyring)
    folder, words = Folder(out or Path("runs") / config.stem, keys), ["train", as_argument(config)]
    words += [] if keyring is None else [f"--keyring {as_argument(keyring)}"]
    with interruptible(again(words, settings, folder.path, keep_secrets, as_json)):
        done = carry_out(asked, folder, as_json, keep_secrets)
        emit(as_json, done.figures(), done.shown())


def again(words: list[str], settings: list[str] | None, folder: Path, keep_secrets: bool, as_json: bool) -> str:
    """The command that goes on with a run, to be copied."""
    flags = ("--keep-secrets",) * keep_secrets + ("--json",) * as_json
    changes = [f"--set {quote(setting)}" for setting in settings or []]
    return " ".join([program(), *words, *changes, f"--out {as_argument(folder)}", *flags])


@dataclass(frozen=True, slots=True)
class CarriedOut:
    """A run that has ended, and what is said of it."""

    folder: Path
    account: Account
    report: Path | None
    """None where the run is sealed at rest: the page would be the one file in it that is not"""
    over: bool
    """whether it had ended before"""

    def figures(self) -> dict[str, object]:
        """What programs are told."""
        from recsys.verdict import verdict

        report = None if self.report is None else str(self.report)
        told = {"run_dir": str(self.folder), "report": report, "nothing_left_to_do": self.over}
        return {**told, **self.account.figures(), "verdict": verdict(self.account)}

    def shown(self) -> RenderableType:
        """What people are told."""
        return outcome(self.account, self.folder, self.report)


def carry_out(
    config: Config, folder: Folder, as_json: bool, keep_secrets: bool, before: Mapping[Path, Config] = NO_MORE
) -> CarriedOut:
    """Check everything, then run it and write the report. What takes long is announced before.

    This is done ``before`` other runs, in these directories, and is refused if one of them cannot be carried out.
    """
    from recsys.assembly import check_names, prepare, vectors_of
    from recsys.sources import data_of

    check_names(config)
    begun = existing_run(folder, config)
    for other, later in before.items():
        existing_run(Folder(other, folder.keys), later)
    need("train", "training a recommender")
    over = begun is not None and bool(begun.ended)
    tell = _silent if as_json else say
    for text in dict.fromkeys((config.title, described(config))):
        for line in wrap(text, WIDTH):
            tell(line)
    if over:
        tell(OVER)
    tell("making up the data" if config.made_up else "reading the data")
    _, notes, items = data_of(config.data)
    for note in notes:  # exact counts: for whoever has the data, and kept nowhere
        tell(f"  {note}")
    with counted("vectors of texts", shown=not as_json) as watch:
        vectors_of(config, items, watch)
    tell("loading what trains (some seconds), computing the noise that the budget needs")
    from recsys.other_runs import RunList
    from recsys.report import Account, write_report
    from recsys.run import train as run
    from secagg.machine import machine

    prepared = prepare(config)
    if prepared.deployment.why:
        tell(prepared.deployment.why)
    if prepared.caution:
        tell(f"mind that {prepared.caution}")
    for later in before.values():
        prepare(later)
    if config.measured_exactly and not (over or config.streamed):
        tell("first, for comparison: models without privacy (exact: outside of any guarantee)")
    progress = Progress(exact=config.measured_exactly, measured=prepared.recipe.measured > 0)
    run(
        prepared,
        folder,
        machine=machine(),
        run_list=RunList(),
        watch=_silent if as_json else progress.watch,
        tell=_silent if as_json else progress.tell,
        keep_secrets=keep_secrets,
    )
    ledger = Path(config.privacy.ledger).resolve() if config.privacy.ledger else None
    account = Account.load(folder, ledger)
    report = write_report(folder, account) if folder.keys is None else None
    return CarriedOut(folder.path, account, report, over)


def _silent(news: object) -> None:
    """Programs are told in the end."""
