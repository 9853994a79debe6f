"""Ctrl-C, or a reader of the output that goes away: a run ends, and says how it goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from secagg.cli.exit_codes import INTERRUPTED
from secagg.cli.output import ReaderGone, say_at_once


@contextmanager
def interruptible(command: str) -> Iterator[None]:
    """Ctrl-C ends the process, with ``command``, which goes on, as the last line.

    A run may be killed at any moment, so nothing is wound up, and no exception comes up in the middle of an import, of
    somebody else's destructor or of a thread, where it can be lost or leave a traceback. Where interrupts are ignored,
    as those of background jobs are, they stay so.
    """
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:  # and not a fork of it, which a terminal interrupts, too
            say_at_once("", "secagg: interrupted. To go on:", command)
        os._exit(INTERRUPTED)

    try:
        replaced = signal.getsignal(signal.SIGINT) is signal.default_int_handler and signal.signal(signal.SIGINT, end)
    except ValueError:  # not in the main thread
        replaced = False
    try:
        yield
    except ReaderGone:
        say_at_once("secagg: nobody reads what is printed. To go on:", command)
        raise
    finally:
        if replaced:
            signal.signal(signal.SIGINT, signal.default_int_handler)
