"""Configuration files and ``--set`` strings: whatever is in them, out comes a configuration or one line, and what is
accepted can be written down as JSON and read again."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.case import configured
from benchmarks.regression.ckks import DEFAULTS
from recsys import config as config_module
from recsys.config import Config
from secagg.cli import main
from secagg.errors import DecodeError, UsageError
from tests.scenes.mutations import mutations

LONG = os.environ.get("SECAGG_HYPOTHESIS") == "long"
fuzz = settings(max_examples=5_000 if LONG else 150)
EXAMPLES = [path.read_bytes() for path in sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))]

DIGITS, HEXADECIMAL = "9" * 4301, "0x" + "f" * 4000
ODD_VALUES = [
    *(DIGITS, HEXADECIMAL, f"[{HEXADECIMAL}]", f"{{a = {HEXADECIMAL}}}", f"-{DIGITS}", f"1.{DIGITS}", "1e999", "-inf"),
    *("nan", "", " ", "=", "\n", "1\n[x]\ny = 2", "1 # more", "[" * 5000, "{a = " * 500, '"', "'''", '"\\ud800"'),
    *("\ud800", "0000-01-01", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "true", "none", "\x00"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809"),
]


def sections(table: dict[str, Any]) -> list[str]:
    """All keys that there are."""
    found = []
    for name, value in table.items():
        found += [f"{name}.{inner}" for inner in sections(value)] if isinstance(value, dict) and value else [name]
    return found


KNOWN = sections(Config().plain())
ODD_KEYS = ["model.settings.width", "model.settings.a.b", "nothing", "training", "", ".", "..", "a\nb", "x" * 500]
KEYS = [*KNOWN, *ODD_KEYS, "\ud800", "model.settings" + ".a" * 3000]


def checked(read: Callable[[], Config]) -> Config | None:
    """The configuration; None if it was refused as it should be."""
    try:
        config = read()
    except (UsageError, DecodeError) as error:
        said = str(error)
        assert "\n" not in said
        assert len(said) < 1000
        said.encode()  # can be printed
        return None
    assert Config.parse(json.loads(json.dumps(config.plain(), allow_nan=False))) == config
    return config


def read_as_file(data: bytes, folder: Path) -> Config | None:
    path = folder / "fuzzed.toml"
    path.write_bytes(data)
    return checked(lambda: Config.load(path))


FILES = {
    "a title of hexadecimal digits": b"title = " + HEXADECIMAL.encode(),
    "a number of digits": b"[training]\nrounds = " + DIGITS.encode(),
    "a rate that is no float": b"[training]\nrate = " + HEXADECIMAL.encode(),
    "a key of many parts": b"model.settings." + b"a." * 3000 + b"a = 1",
    "a table in tables": b"model.settings = " + b"{a = " * 30 + b"1" + b"}" * 30,
    "a key of two lines": b'"a\\nb" = 1',
    "a date": b"[model]\nsettings = {when = 1979-05-27}",
    "an infinity": b"[model]\nsettings = {most = inf}",
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_odd_files_are_refused(data: bytes, tmp_path: Path) -> None:
    assert read_as_file(data, tmp_path) is None


@pytest.mark.parametrize("what", ["a rate that is no float", "a date", "an infinity"])
def test_control_unchecked_they_break_what_comes_later(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "_check", lambda *_: None)
    with pytest.raises((TypeError, ValueError, OverflowError, RecursionError)):
        read_as_file(FILES[what], tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


@fuzz
@given(data=st.one_of(st.binary(max_size=200), *map(mutations, EXAMPLES)))
def test_files(data: bytes, folder: Path) -> None:
    read_as_file(data, folder)


def huge(bits: int) -> int:
    return 1 << bits


LEAVES = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.integers(-huge(70), huge(70)), st.floats(), st.text(max_size=20)),
    *(st.dates(), st.datetimes(), st.times(), st.builds(huge, st.just(20_000)), st.just("\ud800")),
    st.sampled_from(["none", "secagg", "mf", "0.1", "devices", "table", "active"]),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def table_of(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in entries:
        *where, name = key.split(".")
        inner: Any = table
        for section in where:
            inner = inner.setdefault(section, {}) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[name] = value
    return table


@fuzz
@given(entries=st.lists(st.tuples(st.sampled_from(KNOWN) | st.text(max_size=10), VALUES), max_size=4))
def test_tables(entries: list[tuple[str, Any]]) -> None:
    """Values of all types that TOML has, and others, mostly under keys that there are."""
    checked(lambda: Config.parse(table_of(entries)))


CHANGES = st.text(max_size=60) | st.builds(
    "{}={}".format, st.sampled_from(KEYS), st.sampled_from(ODD_VALUES) | st.text(max_size=40)
)


@fuzz
@given(changes=st.lists(CHANGES, max_size=3))
@example(changes=["training=1", "training.rounds=2"])
def test_changes(changes: list[str]) -> None:
    checked(lambda: Config.parse({}, changes))


def test_odd_values_under_every_key() -> None:
    pairs = [(key, value) for key in KEYS for value in ODD_VALUES]
    accepted = {pair for pair in pairs if checked(lambda pair=pair: Config.parse({}, ["=".join(pair)]))}  # type: ignore[misc]
    assert {("title", "none"), ("data.path", " "), ("privacy.mode", "none")} <= accepted
    assert ("model.settings.width", "9223372036854775807") in accepted
    refused = {DIGITS, HEXADECIMAL, "\ud800", "9223372036854775808", "-9223372036854775809", "1e999", "nan"}
    assert not {pair for pair in accepted if pair[1] in refused}


TOO_LONG = [f"training.rounds={DIGITS}", f"title={HEXADECIMAL}", "model.settings.a=" + "[" * 5000]


@pytest.mark.parametrize("change", TOO_LONG, ids=["digits", "hexadecimal", "brackets"])
def test_the_command_says_one_line(change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text("")
    assert main(["train", str(tmp_path / "run.toml"), "--set", change, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999", "x", "", DIGITS, "9" * 400])
def test_settings_of_benchmarks_too(value: str) -> None:
    with pytest.raises(UsageError, match="n is a whole number"):
        configured(DEFAULTS, [f"n={value}"])


def test_what_used_to_come_out() -> None:
    """The controls: this is what Python says of such numbers, and no declared error."""
    with pytest.raises(ValueError, match="digits"):
        tomllib.loads(f"rounds = {DIGITS}")
    with pytest.raises(ValueError, match="digits"):
        str(tomllib.loads(f"title = {HEXADECIMAL}")["title"])
    with pytest.raises(OverflowError):
        float(tomllib.loads(f"rate = {HEXADECIMAL}")["rate"])
    with pytest.raises(TypeError):
        json.dumps(tomllib.loads("when = 1979-05-27"))
