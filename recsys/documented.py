"""The keys of a configuration as they are documented: read from where they are declared, which is their only home.

What a key, or one of its values, means is the string under it in the source.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, get_type_hints

from recsys.config import KINDS, Config

WIDTH = 80


@dataclass(frozen=True, slots=True)
class Key:
    name: str
    """with its section: privacy.epsilon"""
    kind: str
    """text, a whole number, a number, true or false, a section, or one of its values"""
    default: Any
    meaning: str
    values: Mapping[str, str]
    """what can be chosen, and what each means; nothing where a key has other values"""


def keys() -> list[Key]:
    """All keys, in the order in which they are declared.

    >>> [key.default for key in keys() if key.name == "privacy.epsilon"]
    [8.0]
    """
    return [key for _section, found in sections() for key in found]


def sections() -> Iterator[tuple[str, list[Key]]]:
    """Each section with its keys; first those outside of any, under an empty name."""
    top = [one.name for one in fields(Config) if not is_dataclass(getattr(Config(), one.name))]
    yield "", [_key(Config, "", name) for name in top]
    for section in fields(Config):
        if section.name not in top:
            kind = type(getattr(Config(), section.name))
            yield section.name, [_key(kind, f"{section.name}.", one.name) for one in fields(kind)]


def as_toml() -> str:
    """A configuration file with every key at its default, and what it means above it.

    >>> print(as_toml().splitlines()[1])
    title = "a run"
    """
    lines = list[str]()
    for section, found in sections():
        lines += ["", f"[{section}]", ""] if section else []
        for key in found:
            lines += _comment(key.meaning, "# ")
            for value, meaning in key.values.items():
                lines += _comment(f"{value}: {meaning}", "#   ")
            lines.append(f"{key.name.rpartition('.')[2]} = {_toml(key.default)}")
    return "\n".join(lines)


def as_markdown() -> str:
    """One table a section."""
    lines = list[str]()
    for section, found in sections():
        lines += ["", f"### `[{section}]`", ""] if section else []
        lines += ["| key | default | meaning |", "| --- | --- | --- |"]
        for key in found:
            values = "".join(f"; `{value}`: {meaning}" for value, meaning in key.values.items())
            shown = f"{key.meaning}{values}".replace("``", "`").replace("|", "\\|")
            lines.append(f"| `{key.name.rpartition('.')[2]}` | `{_toml(key.default)}` | {shown} |")
    return "\n".join(lines)


def _comment(text: str, mark: str) -> list[str]:
    plain = text.replace("``", "")
    return textwrap.wrap(plain, WIDTH, initial_indent=mark, subsequent_indent=f"{mark}  ", break_on_hyphens=False)


def _toml(value: Any) -> str:
    return "{}" if value == {} else json.dumps(value)


def _key(kind: type, section: str, name: str) -> Key:
    hint = get_type_hints(kind)[name]
    default = getattr(kind(), name)
    default = list(default) if isinstance(default, tuple) else default
    values: dict[str, str] = {}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        said = _meanings(hint)
        values = {one.value: said[one.name] for one in hint}
    shown = "one of its values" if values else KINDS.get(getattr(hint, "__name__", ""), "a section")
    return Key(f"{section}{name}", shown, default, _meanings(kind)[name], values)


@cache
def _meanings(kind: type) -> dict[str, str]:
    """The string under each name that is assigned in the body of a class."""
    (made,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    found, names = dict[str, str](), list[str]()
    for node in made.body if isinstance(made, ast.ClassDef) else ():
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found |= {name: " ".join(str(node.value.value).split()) for name in names}
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names = [target.id for target in targets if isinstance(target, ast.Name)]
    return found
