"""``make bench-check``: what is slower than committed is named, and noise is not."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import check
from benchmarks.case import Report

ROOT = Path(__file__).parents[2]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """What the next measurements will say, beside two limits of 2."""
    names = ("fast_vs_slow", "lean_vs_fat")
    monkeypatch.setattr(check, "limits", lambda: dict.fromkeys(names, check.Limit(1.0, 2.0)))
    to_come = list[dict[str, float]]()

    def run_case(case: str, settings: Any, say: Any) -> Report:
        return Report(case, {}, {}, "", {}, to_come.pop(0))

    monkeypatch.setattr(check, "run_case", run_case)
    return to_come


def test_what_is_slower_every_time_is_named(
    measured: list[dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    measured += [{"fast_vs_slow": 1.9, "lean_vs_fat": slow} for slow in (2.4, 2.2, 2.1)]
    assert check.main() == 1
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["fast_vs_slow", "1.90", "1.00", "2.00"]
    assert second.split() == ["lean_vs_fat", "2.10", "1.00", "2.00", "above"]
    assert measured == []


def test_noise_is_measured_again(measured: list[dict[str, float]]) -> None:
    measured += [{"fast_vs_slow": 1.0, "lean_vs_fat": 9.0}, {"fast_vs_slow": 9.0, "lean_vs_fat": 1.0}]
    assert check.main() == 0
    assert measured == []


def test_what_is_not_measured_any_more_ends_it(measured: list[dict[str, float]]) -> None:
    measured += [{"fast_vs_slow": 1.0}]
    with pytest.raises(KeyError, match="lean_vs_fat"):
        check.main()


def test_make_and_public_ci_run_it() -> None:
    assert "python -m benchmarks.check" in (ROOT / "Makefile").read_text()
    assert "make bench-check" in (ROOT / ".github" / "workflows" / "test.yml").read_text()
