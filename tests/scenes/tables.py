"""Tables of interactions as files."""

from __future__ import annotations

from pathlib import Path


def csv(path: Path, *, users: int = 24, shift: int = 0, extra: str = "") -> str:
    """A table of events of users called u0, u1, ..."""
    lines = [f"u{user},i{(user + k + shift) % 15},{100 * k + user}" for user in range(users) for k in range(5)]
    path.write_text("\n".join(["user,item,time", *lines, *([extra] if extra else [])]) + "\n")
    return str(path)
