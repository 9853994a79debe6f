"""What can be read from a journal's file without its key is what docs/deploying.md says, and nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from protocols.journal import SqliteJournal

DEPLOYING = Path(__file__).parents[2] / "docs" / "deploying.md"
IN_CLEAR = {"deployment": bytes([1]) * 32, "session": bytes([2]) * 16, "round": 3, "step": 0}
DERIVED = {"number", "digest", "link"}
"""An entry's place, the hash of its sealed record, and of all so far."""


def test_the_document_names_all_that_stands_in_clear(tmp_path: Path) -> None:
    record = b"a sealed record of some length"
    journal = SqliteJournal(tmp_path / "alice.db")
    journal.append(*IN_CLEAR.values(), record)  # type: ignore[arg-type]
    journal._db.close()
    with closing(sqlite3.connect(tmp_path / "alice.db")) as file:
        file.row_factory = sqlite3.Row
        (row,) = file.execute("SELECT * FROM log").fetchall()
    assert set(row.keys()) == {*IN_CLEAR, *DERIVED, "record"}
    assert {name: row[name] for name in IN_CLEAR} == IN_CLEAR
    assert len(row["record"]) == len(record)
    said = " ".join(DEPLOYING.read_text().split())
    sentence = said[said.index("What can be read are ") :].partition(". ")[0]
    for name in (*IN_CLEAR, "the length of each record"):
        assert name in sentence
    assert "tells nothing" not in said
