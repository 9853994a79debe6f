"""What is said about the keys of a configuration is what stands under them, in the command as in the documentation.

To renew the page: python -m tests.recsys.test_documented
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from recsys import documented
from recsys.config import Config
from recsys.documented import WIDTH, as_markdown, as_toml, keys

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
KEYS = re.compile(r"(?<=<!-- keys of a configuration -->\n).*?(?=<!-- end of the keys -->)", re.DOTALL)


def test_the_page_says_what_the_source_says() -> None:
    (shown,) = KEYS.findall(PAGE.read_text("utf-8"))
    assert shown == as_markdown() + "\n"


def test_the_printed_file_is_the_default_configuration(tmp_path: Path) -> None:
    (path := tmp_path / "default.toml").write_text(as_toml())
    assert Config.load(path) == Config()
    assert max(map(len, as_toml().splitlines())) <= WIDTH


def leaves(table: dict[str, object], where: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in table.items():
        inner = isinstance(value, dict) and f"{where}{name}" != "model.settings"
        found |= leaves(value, f"{where}{name}.") if inner else {f"{where}{name}": value}  # type: ignore[arg-type]
    return found


def test_every_key_is_there_with_its_default_and_a_meaning() -> None:
    assert {key.name: key.default for key in keys()} == leaves(Config().plain())
    for key in keys():
        assert key.meaning, key.name
        assert all(key.values.values()), key.name
    assert {key.kind for key in keys() if key.values} == {"one of its values"}
    assert {key.name for key in keys() if key.kind == "a section"} == {"model.settings"}


@dataclass(frozen=True, slots=True)
class Undocumented:
    """A section that somebody adds."""

    first: int = 1
    """of two"""
    second: int = 2


def test_a_key_without_a_meaning_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert documented._key(Undocumented, "", "first").meaning == "of two"
    with pytest.raises(KeyError, match="second"):
        documented._key(Undocumented, "", "second")


if __name__ == "__main__":
    PAGE.write_text(KEYS.sub(lambda _: as_markdown() + "\n", PAGE.read_text("utf-8")), "utf-8")
