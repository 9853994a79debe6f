"""The ``secagg`` command. One file a command, loaded when it is called; every failure is one line and an exit code.

A command's file holds ``app``, a ``typer.Typer``: without a name for one command, with one for a group of them
(``typer.Typer(name="keys")``). At its top it imports what the base install has and what is quick: so ``--help`` works
without any extra, and a wrong call is refused at once. The rest is imported where the work begins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, cast

import typer
from typer.main import get_command

from secagg.cli.exit_codes import FAILURE, INTERRUPTED, MISSING_EXTRA, WRONG_USE, code_of, sentence
from secagg.cli.output import ReaderGone, say
from secagg.errors import SecAggError
from secagg.extras import bringing, hint
from secagg.version import found

COMMANDS = {
    "audit": ("secagg.cli.audit", "Try to prove the epsilon of a private sum wrong, with the real machines."),
    "bench": ("benchmarks.command", "Measure a case: time, bytes, memory, and ratios within one run."),
    "config": ("secagg.cli.config", "Every key of a configuration for train: what it means, and its default."),
    "demo": ("secagg.cli.demo", "The main job on made-up data: train privately, lose clients, report what it cost."),
    "export": ("secagg.cli.export", "Pack what of a run can be handed on; or its model for devices."),
    "keys": ("secagg.cli.keys", "A client's long-term identity."),
    "ledger": ("secagg.cli.ledger", "What a privacy budget was spent on, and whether that is true."),
    "params": ("secagg.cli.params", "How many neighbours and which threshold a cohort needs."),
    "protocols": ("secagg.cli.protocols", "What can be run, against whom it holds, and what it costs."),
    "recommend": ("secagg.cli.recommend", "The best items for one history, by a trained model, on this machine."),
    "report": ("secagg.cli.report", "Draw the report of a run: one HTML file."),
    "roster": ("secagg.cli.roster", "Who takes part: names and public keys."),
    "seal": ("secagg.cli.seal", "Encrypt at rest what is on the disk, or bring it under a newer key."),
    "train": ("secagg.cli.train", "Train a recommender as a file says, under secure sums, and report what it cost."),
    "unseal": ("secagg.cli.unseal", "Decrypt what is sealed at rest."),
}
"""The module of each command, which is loaded by this name when the command is called, and the line that ``secagg
--help`` shows. That of ``bench`` lives beside what it runs: nothing here imports ``benchmarks``."""

# click.ClickException: typer carries its own copy of click in later versions and exports only this grandchild of it.
_Refused = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    >>> main("report nowhere".split())  # and a line on the standard error says why
    2
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if isinstance(sys.stdout, TextIOWrapper):  # a character that is not in its encoding is written out, too
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        command = get_command(application(words))
        return int(command.main(words, prog_name="secagg", standalone_mode=False) or 0)
    except _Refused as error:
        return _fail(error.format_message(), WRONG_USE)
    except SecAggError as error:
        return _fail(str(error), code_of(error))
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except ModuleNotFoundError as error:
        if (extra := bringing(error.name or "")) is None:
            raise
        return _fail(hint(extra, f"secagg {words[0]}"), MISSING_EXTRA)
    except ReaderGone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would write the rest at its end
        return FAILURE
    except OSError as error:
        return _fail(str(error), FAILURE)


def application(words: Sequence[str]) -> typer.Typer:
    """The command tree, with only those commands loaded that ``words`` can call."""
    app = typer.Typer(
        help="Secure aggregation: a server learns the sum, and nothing else.",
        epilog=sentence(),
        add_completion=False,
        suggest_commands=False,  # click does so itself
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name, (module, summary) in COMMANDS.items():
        if name in words:
            app.add_typer(import_module(module).app)
        else:
            app.command(name, help=summary)(_group)
    return app


def _tell_version(asked: bool) -> None:
    if asked:
        say(f"secagg {found()}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What can be asked of no command in particular. It keeps a tree of one command a tree."""


def _group() -> None:
    """Does nothing: stands in for a command that is not called."""


def _fail(reason: str, code: int) -> int:
    say(f"secagg: {' '.join(reason.split())}", aside=True)
    return code
