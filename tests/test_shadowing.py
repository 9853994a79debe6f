"""Another package named like one of ours, earlier on the path, is refused by name when secagg is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ["dp", "protocols", "recsys", "benchmarks"]
CHECK_OFF = """
import sys, types
sys.modules["secagg._house"] = types.SimpleNamespace(refuse_shadows=lambda: None)
"""


def run(code: str, first: Path) -> subprocess.CompletedProcess[str]:
    """``code`` in a fresh interpreter that looks in ``first`` before it looks here."""
    path = os.pathsep.join([str(first), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("shape", ["{}/__init__.py", "{}.py"])
def test_a_shadow_is_refused_and_named(tmp_path: Path, room: str, shape: str) -> None:
    stranger = tmp_path / shape.format(room)
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_text("raise RuntimeError('imported')")
    done = run("import secagg", tmp_path)
    assert "ImportError" in done.stderr.splitlines()[-1]
    assert str(stranger) in done.stderr.splitlines()[-1]
    assert "RuntimeError" not in done.stderr


def test_without_the_check_the_stranger_is_imported(tmp_path: Path) -> None:
    (tmp_path / "dp.py").write_text("print('stranger')")
    assert run(CHECK_OFF + "import secagg, dp", tmp_path).stdout == "stranger\n"


def test_a_shadow_imported_before_secagg_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "dp.py").touch()
    code = f"import sys, dp; sys.path.remove({str(tmp_path)!r}); import secagg"
    assert str(tmp_path / "dp.py") in run(code, tmp_path).stderr.splitlines()[-1]


def test_a_stand_in_from_nowhere_is_refused(tmp_path: Path) -> None:
    code = "import sys, types; sys.modules['dp'] = types.ModuleType('dp'); import secagg"
    assert "ImportError" in run(code, tmp_path).stderr.splitlines()[-1]


def test_our_own_packages_are_not_shadows(tmp_path: Path) -> None:
    """Nor is a folder without __init__.py: Python prefers a real package, wherever it is on the path."""
    (tmp_path / "benchmarks").mkdir()
    code = "import secagg, dp, protocols, recsys, benchmarks; print(benchmarks.__file__)"
    assert run(code, tmp_path).stdout.strip() == str(ROOT / "benchmarks" / "__init__.py")


def test_the_stray_folder_of_a_library_we_use_is_passed_over(tmp_path: Path) -> None:
    """The wheel of opacus drops a top-level ``benchmarks``, which none of its modules import."""
    for package in ("opacus", "benchmarks"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('imported')")
    code = "import secagg, benchmarks.case; print(benchmarks.__file__)"
    assert run(code, tmp_path).stdout.strip() == str(ROOT / "benchmarks" / "__init__.py")
    (tmp_path / "dp").mkdir()
    (tmp_path / "dp" / "__init__.py").touch()  # no stray: nobody is known to leave it there
    assert str(tmp_path / "dp") in run(code, tmp_path).stderr.splitlines()[-1]
