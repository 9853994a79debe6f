"""Positive controls: with one check switched off, the attack that a test runs has to succeed.

``switch_off`` recompiles one production function with one condition replaced. It fails if the condition is not there
exactly once, so a control cannot go stale unnoticed.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import linecache
import sys
import textwrap
from hashlib import sha256
from typing import Any

import pytest

from protocols.client import Client


class Denied(Exception):
    """The attacker lacks a secret that it would need."""


def switch_off(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, condition: str, instead: str = "False") -> None:
    """Recompile ``owner.name`` with the one expression ``condition`` replaced by ``instead``."""
    function = inspect.unwrap(inspect.getattr_static(owner, name))
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    wanted = ast.unparse(ast.parse(condition, mode="eval"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.expr) and ast.unparse(node) == wanted]
    if len(found) != 1:
        raise LookupError(f"{len(found)} expressions {condition!r} in {name}: the check has moved, adapt the control")

    class Swap(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            if ast.unparse(node) == "super()":  # it looks for the class around it, and there is none here
                return ast.parse("super(__owner, self)", mode="eval").body
            return ast.parse(instead, mode="eval").body if node is found[0] else self.generic_visit(node)

    module, made = sys.modules[function.__module__], dict[str, Any]()
    monkeypatch.setitem(module.__dict__, "__owner", owner)
    source = ast.unparse(ast.fix_missing_locations(Swap().visit(tree)))
    file = f"<control {sha256(source.encode()).hexdigest()}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file  # to switch off more in it
    exec(
        compile(source, file, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True),
        module.__dict__,
        made,
    )
    monkeypatch.setattr(owner, name, made[function.__name__])


def journal_by_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Number an answer when it is written, and not when its request comes in: then the journal takes one of each thread
    that asks."""
    journaled = Client._journaled

    def by_count(self: Client, current: Any, _step: int, *said: Any) -> bytes:
        return journaled(self, current, len(self._answered), *said)

    monkeypatch.setattr(Client, "_journaled", by_count)
