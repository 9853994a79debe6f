"""The report of a run: one HTML file for people, drawn from the run's record and its ledgers, from nothing else.

account   what is reported: the record, and what the ledgers say was spent
verdict   what it opens with: the promise, against whom, how good, what is outside
words     the course of the run, trust, who could see what, and what is not promised, in sentences
terms     words that not everybody knows, explained
curves    the three plots; plots draws them
tables    rounds, results, ledgers, configuration
page      the order of all that, and how it looks (style)
"""

from __future__ import annotations

from pathlib import Path

from recsys.report.account import Account
from secagg.at_rest import AnyFolder, Folder
from secagg.errors import UsageError
from secagg.extras import needing
from secagg.files import write_file

__all__ = ["FILE", "Account", "write_report"]

FILE = "report.html"
"""How a report is called in the directory of its run."""


def write_report(folder: AnyFolder, account: Account | None = None, out: str | Path | None = None) -> Path:
    """Draw the report of the run in ``folder``, whose ledgers nobody is writing to. It replaces an older one whole.

    ``account`` of that run, if it is at hand. Nothing but the report is written, there or elsewhere.

    >>> import tempfile
    >>> from recsys.run_record import Run
    >>> from secagg.crypto.keys import SigningKey
    >>> run = Run("A run", config={}, data={}, protocol={"name": "secagg+"}, mode="none", measured_under="nothing")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run.save(Path(folder), SigningKey(bytes(32)))
    ...     print(write_report(Path(folder)).name)
    report.html
    """
    with needing("train", "drawing a report"):
        from recsys.report.page import page

    path = Path(out) if out is not None else _place(Folder.of(folder))
    write_file(path, page(account or Account.load(folder)).encode(), private=False)
    return path


def _place(folder: Folder) -> Path:
    """Where a report is, if nobody says: a page is for reading, so it does not lie in a folder that is sealed."""
    if folder.keys is not None:
        raise UsageError(f"{folder} is sealed, and a report is for reading: say where it is to be written (--out)")
    return folder / FILE
