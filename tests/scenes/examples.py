"""The configurations that ship as examples."""

from __future__ import annotations

from pathlib import Path

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))
