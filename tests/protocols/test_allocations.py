"""What a client allocates for an upload beside the float update: its integers, the frame, and blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.regression.client_costs import Pairwise
from protocols import wire
from protocols.journal import Journal, MemoryJournal, SqliteJournal
from protocols.plan import RoundPlan
from protocols.wire import Draft, Messages

pytest.importorskip("numba", reason="NOT TESTED: what compiled encoding allocates, pip install 'secagg[fast]'")


def allocated(journal: Callable[[], Journal]) -> float:
    """Over the size of the packed vector. What is made once in a process has been made before."""
    clients = Pairwise(1_000_000, bits=16, k=22, updates=1, journal=journal)
    clients.upload(0)
    return clients.allocated(1) / clients.packed_size


@pytest.mark.parametrize("journal", ["memory", "sqlite"])
def test_an_upload_allocates_at_most_twice_its_packed_size(journal: str, tmp_path: Path) -> None:
    names = iter("abc")
    kept = MemoryJournal if journal == "memory" else lambda: SqliteJournal(tmp_path / f"{next(names)}.db")
    assert allocated(kept) < 2


@pytest.mark.long
def test_a_frame_that_is_put_together_in_the_end_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a vector in a buffer of its own, which is copied into its frame."""
    encode = Messages.encode

    def copied(messages: Messages, plan: RoundPlan, message: object, draft: Draft | None = None) -> bytes:
        return encode(messages, plan, message)

    monkeypatch.setattr(wire.Messages, "encode", copied)
    assert allocated(MemoryJournal) > 2
