"""What is mutated: the checks of a source file, found in its syntax tree, and how each of them is taken away.

``sites`` walks a fresh tree and gives every mutant of it as a ``Site``, whose ``apply`` changes that tree in place.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]

CHECKS = ("check", "known", "need", "require", "verify")
"""A call that stands alone and whose name begins like this is a check: it raises or does nothing."""

PARTS = 8
"""So many parts under one label are looked at."""

WATCHED = 3
"""To be raised when ``instrument`` tells more than before."""

KEYS, LABELS = "secagg/crypto/keys.py", "secagg/crypto/labels.py"

Holder: TypeAlias = Callable[[ast.expr], Callable[[], None]]
"""Takes what is to stand in a place and gives the action that puts it there."""

_MOVES = ("exchange", "next", "pop", "popleft", "random_words", "read", "readline", "recv", "rng", "take", "urandom")
"""Calls that answer otherwise the second time."""

_CONDITIONS = (ast.BoolOp, ast.Compare)
_YES_OR_NO = (("true", True), ("false", False))
_STRICT = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one check. ``function`` is the hash of the function's source, without which a name is worth little.

    ``operator`` is one of:

    never      a guard (``if ...: raise``) never raises
    operand    one operand of ``and`` or ``or`` is left out
    bound      ``<`` becomes ``<=`` or the other way round
    part       one link of a chain of comparisons is left out
    call       a call of a check is left out
    true       a function that answers yes or no says yes
    false      the same function says no
    least      one argument of ``max`` or ``min`` is left out
    charge     a step of a transition table charges no ledger
    context    one part of what is hashed or signed under a label is left out, wherever the label is used
    label      a label is the same as the next one
    """

    path: str
    place: str
    operator: str
    source: str
    line: int
    function: str

    @property
    def name(self) -> str:
        return f"{self.path}::{self.place}::{self.operator}::{self.source}"

    @property
    def key(self) -> str:
        return sha256(self.name.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Site:
    mutant: Mutant
    anchor: ast.stmt
    """The statement that runs when the check runs."""
    apply: Callable[[], None]
    original: ast.expr | None = None
    """The whole condition, where the mutant is another condition, and has no other effect."""
    variant: ast.expr | None = None
    """What it becomes."""
    put: Holder | None = None
    """Puts another expression in its place."""


def sites(path: str, tree: ast.Module) -> list[Site]:
    """Every mutant of this file, in an order that depends on nothing but its text."""
    if path == LABELS:
        return list(_labels(path, tree))
    found = [*_Walk(path).of(tree), *(_contexts(tree) if path == KEYS else ())]
    return [replace(site, mutant=mutant) for mutant, site in zip(_distinct(found), found, strict=True)]


def mutants(path: str) -> list[Mutant]:
    return [site.mutant for site in sites(path, parse(path))]


def parse(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), filename=str(ROOT / path))


def mutated(path: str, name: str) -> ast.Module:
    """The tree of this file with one mutant in it."""
    tree = parse(path)
    (site,) = [site for site in sites(path, tree) if site.mutant.name == name]
    site.apply()
    return ast.fix_missing_locations(tree)


def _distinct(found: list[Site]) -> Iterator[Mutant]:
    """Two checks that look the same in one function are counted: ``... #2``."""
    seen = Counter[str]()
    for site in found:
        mutant = site.mutant
        seen[mutant.name] += 1
        if (count := seen[mutant.name]) > 1:
            mutant = replace(mutant, source=f"{mutant.source} #{count}")
        yield mutant


class _Walk:
    """Goes through one file and remembers in which function it is."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: list[Site] = []

    def of(self, tree: ast.Module) -> list[Site]:
        self._body(tree.body, (), tree)
        return self._found

    def _body(self, body: list[ast.stmt], place: tuple[str, ...], scope: ast.AST) -> None:
        for statement in list(body):
            self._statement(body, statement, place, scope)

    def _statement(self, body: list[ast.stmt], statement: ast.stmt, place: tuple[str, ...], scope: ast.AST) -> None:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not any("njit" in ast.unparse(decorator) for decorator in statement.decorator_list):  # not for numba
                inner = statement if not isinstance(statement, ast.ClassDef) else scope
                self._body(statement.body, (*place, statement.name), inner)
            return
        add = _Adder(self._found, self._path, place, scope, statement)
        if isinstance(statement, ast.If) and any(isinstance(last, ast.Raise) for last in statement.body):
            add.guard(statement)
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            called = statement.value.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name.lstrip("_").startswith(CHECKS):
                add.call(body, statement)
        if isinstance(statement, ast.Return) and statement.value is not None and _answers_yes_or_no(scope):
            add.answer(statement)
        if isinstance(statement, ast.Assign):
            add.kept(statement)
        if not isinstance(statement, ast.Raise):  # what an error says is no check
            add.smaller(statement)
        add.charges(statement)
        for field in ("body", "orelse", "finalbody"):
            self._body(getattr(statement, field, []), place, scope)
        for handler in getattr(statement, "handlers", []):
            self._body(handler.body, place, scope)
        for case in getattr(statement, "cases", []):
            self._body(case.body, place, scope)


@dataclass(frozen=True, slots=True)
class _Adder:
    found: list[Site]
    path: str
    place: tuple[str, ...]
    scope: ast.AST
    statement: ast.stmt

    def _add(
        self,
        operator: str,
        source: str,
        apply: Callable[[], None],
        original: ast.expr | None = None,
        variant: ast.expr | None = None,
        put: Holder | None = None,
    ) -> None:
        place = ".".join(self.place) or "<module>"
        owner = self.scope if isinstance(self.scope, ast.FunctionDef) else self.statement
        mutant = Mutant(self.path, place, operator, source, self.statement.lineno, fingerprint(owner))
        if original is None or _moves(original):
            self.found.append(Site(mutant, self.statement, apply))
        else:
            self.found.append(Site(mutant, self.statement, apply, original, deepcopy(variant), put))

    def guard(self, statement: ast.If) -> None:
        self._condition(statement.test, _putter(statement, "test"), (("never", False),))

    def answer(self, statement: ast.Return) -> None:
        if statement.value is not None:
            self._condition(statement.value, _putter(statement, "value"), _YES_OR_NO)

    def kept(self, statement: ast.Assign) -> None:
        """A condition that is given a name, to be asked later."""
        value = statement.value
        if isinstance(value, _CONDITIONS) and not _moves(value):
            self._condition(value, _putter(statement, "value"), _YES_OR_NO)
        for i, element in enumerate(value.elts if isinstance(value, ast.Tuple) else ()):
            if isinstance(element, _CONDITIONS) and isinstance(value, ast.Tuple):
                self._condition(element, _placer(value.elts, i), _YES_OR_NO)

    def call(self, body: list[ast.stmt], statement: ast.Expr) -> None:
        self._add("call", ast.unparse(statement), lambda: _replace(body, statement, ast.Pass()))

    def _condition(self, original: ast.expr, put: Holder, constants: tuple[tuple[str, bool], ...]) -> None:
        """A constant in its place; its operands and comparisons, one at a time."""
        whole = ast.unparse(original)

        def change(operator: str, text: str, holder: Holder, node: ast.expr, instead: ast.expr) -> None:
            holder(instead)()
            variant = instead if node is original else deepcopy(original)
            holder(node)()
            self._add(operator, text, holder(instead), original, variant, put)

        for operator, value in constants:
            if whole != str(value):
                change(operator, whole, put, original, ast.Constant(value))
        for node, holder in [(original, put), *_below(original)]:
            if isinstance(node, ast.BoolOp):
                for i, value in enumerate(node.values):
                    rest = [*node.values[:i], *node.values[i + 1 :]]
                    instead = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
                    change("operand", f"{ast.unparse(value)} // {whole}", holder, node, instead)
            if isinstance(node, ast.Compare):
                links = _links(node)
                for i, operator in enumerate(node.ops):
                    text = f"{ast.unparse(links[i])} // {whole}"
                    if (other := _STRICT.get(type(operator))) is not None:
                        ops = [*node.ops[:i], other(), *node.ops[i + 1 :]]
                        change("bound", text, holder, node, ast.Compare(node.left, list(ops), node.comparators))
                    if len(links) > 1:
                        rest = [*links[:i], *links[i + 1 :]]
                        change("part", text, holder, node, rest[0] if len(rest) == 1 else ast.BoolOp(ast.And(), rest))

    def smaller(self, statement: ast.stmt) -> None:
        if not self.path.startswith(
            ("protocols/", "dp/ledger/", "dp/verify_ledger", "secagg/params", "secagg/hypergeometric")
        ):
            return
        for node, holder in list(_own_expressions(statement)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("max", "min"):
                bare = not any(isinstance(argument, ast.Starred) for argument in node.args)
                for argument in node.args if len(node.args) > 1 and bare and not node.keywords else ():
                    rest = [other for other in node.args if other is not argument]
                    instead = rest[0] if len(rest) == 1 else ast.Call(node.func, rest, [])
                    text = f"{ast.unparse(argument)} // {ast.unparse(node)}"
                    if isinstance(statement, ast.If):  # what counts is whether the condition is another one
                        whole, put = statement.test, _putter(statement, "test")
                        holder(instead)()
                        variant = deepcopy(whole)
                        holder(node)()
                        self._add("least", text, holder(instead), whole, variant, put)
                    else:
                        self._add("least", text, holder(instead), node, instead, holder)

    def charges(self, statement: ast.stmt) -> None:
        for node, holder in list(_own_expressions(statement)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Step" and len(node.args) == 5:
                self._add("charge", ast.unparse(node), holder(ast.Call(node.func, node.args[:4], [])))


def _contexts(tree: ast.Module) -> Iterator[Site]:
    """Leave out one part of all that is hashed, derived or signed under one label: on both sides alike."""
    for name, value in label_values().items():
        for i in range(PARTS):
            mutant = Mutant(KEYS, "transcript", "context", f"{name}[{i}]", 1, sha256(value).hexdigest()[:8])
            yield Site(mutant, tree.body[-1], lambda value=value, i=i: _without_part(tree, value, i))


def _without_part(tree: ast.Module, label: bytes, i: int) -> None:
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name in ("transcript", "digest"):
            cut = f"if label == {label!r}: parts = parts[:{i}] + parts[{i + 1}:]"
            _insert(function.body, function.body[1], ast.parse(cut).body)


def label_values() -> dict[str, bytes]:
    return {
        statement.target.id: ast.literal_eval(statement.value)
        for statement in parse(LABELS).body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value
    }


def _labels(path: str, tree: ast.Module) -> Iterator[Site]:
    names = list(label_values())
    for statement in tree.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            other = label_values()[names[(names.index(name) + 1) % len(names)]]
            mutant = Mutant(path, "<module>", "label", name, statement.lineno, fingerprint(statement))
            constant = ast.Constant(other)
            yield Site(mutant, statement, lambda at=statement, constant=constant: setattr(at, "value", constant))


def instrument(path: str) -> ast.Module:
    """The tree of this file, which tells what runs, to three functions that ``run`` provides.

    ``_secagg_runs(path, line)`` before a statement with mutants, ``_secagg_raises(name)`` when a check refuses, and
    ``_secagg_chooses(original, variants)`` in the place of a condition: it can compare what the condition is with what
    it would be.
    """
    tree = parse(path)
    found = [site for site in sites(path, tree) if site.mutant.operator not in ("context", "label")]
    conditions: dict[int, list[Site]] = {}
    for site in found:
        if site.original is not None:
            conditions.setdefault(id(site.original), []).append(site)
    for group in reversed(conditions.values()):  # the inner ones first
        (put, original), variants = (group[0].put, group[0].original), []
        if put is not None and original is not None:
            for site in group:
                if site.variant is not None:
                    variants.append(ast.Tuple([ast.Constant(site.mutant.name), _lambda(site.variant)], ast.Load()))
            choice = ast.Name("_secagg_chooses", ast.Load())
            put(ast.Call(choice, [_lambda(original), ast.Tuple(variants, ast.Load())], []))()
    for site in found:
        if site.mutant.operator == "never" and site.original is None and isinstance(site.anchor, ast.If):
            tell = ast.parse(f"_secagg_raises({site.mutant.name!r})").body
            _insert(site.anchor.body, site.anchor.body[0], tell)
    anchors = {site.anchor: site.mutant for site in found}
    calls = {site.anchor: site.mutant.name for site in found if site.mutant.operator == "call"}
    for parent in list(ast.walk(tree)):
        for field in ("body", "orelse", "finalbody"):
            body = getattr(parent, field, None)
            for statement in [one for one in body if one in anchors] if isinstance(body, list) else ():
                _insert(body, statement, ast.parse(f"_secagg_runs({path!r}, {anchors[statement].line})").body)
                if (name := calls.get(statement)) is not None:
                    tell = ast.parse(f"try: pass\nexcept BaseException: _secagg_raises({name!r}); raise").body[0]
                    if isinstance(tell, ast.Try):
                        _replace(body, statement, tell)
                        tell.body = [statement]
    if path == KEYS:
        for function in tree.body:
            if isinstance(function, ast.FunctionDef) and function.name in ("transcript", "digest"):
                _insert(function.body, function.body[1], ast.parse("_secagg_hashes(label, len(parts))").body)
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if not hasattr(child, "lineno") and hasattr(node, "lineno"):
                ast.copy_location(child, node)
    return ast.fix_missing_locations(tree)


def _lambda(body: ast.expr) -> ast.Lambda:
    nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.Lambda(nothing, body)


def _moves(condition: ast.expr) -> bool:
    """Whether it cannot be asked twice."""
    for node in ast.walk(condition):
        if isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name.lstrip("_") in _MOVES:
                return True
    return False


def fingerprint(node: ast.AST) -> str:
    """A hash of code that does not see comments, docstrings or line numbers."""
    body = getattr(node, "body", None)
    if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        shown = "\n".join(map(ast.unparse, body[1:]))
        arguments = ast.unparse(node.args) if isinstance(node, ast.FunctionDef) else ""
        shown = f"{arguments}\n{shown}"
    else:
        shown = ast.unparse(node)
    return sha256(shown.encode()).hexdigest()[:8]


def _answers_yes_or_no(scope: ast.AST) -> bool:
    return isinstance(scope, ast.FunctionDef) and scope.returns is not None and ast.unparse(scope.returns) == "bool"


def _links(node: ast.Compare) -> list[ast.expr]:
    values = [node.left, *node.comparators]
    return [ast.Compare(values[i], [operator], [values[i + 1]]) for i, operator in enumerate(node.ops)]


def _putter(owner: ast.AST, field: str) -> Holder:
    return lambda new: lambda: setattr(owner, field, new)


def _placer(elements: list[ast.expr], i: int) -> Holder:
    return lambda new: lambda: elements.__setitem__(i, new)


def _below(node: ast.AST) -> Iterator[tuple[ast.AST, Holder]]:
    """All expressions in this one, each with a way to put another in its place."""
    for field in node._fields:
        yield from _expressions(node, field)


def _expressions(owner: ast.AST, field: str) -> Iterator[tuple[ast.AST, Holder]]:
    value = getattr(owner, field, None)
    if isinstance(value, ast.AST):
        yield value, _putter(owner, field)
        yield from _below(value)
    elif isinstance(value, list):
        for i, element in enumerate(value):
            if isinstance(element, ast.expr):
                yield element, _placer(value, i)
            if isinstance(element, ast.AST) and not isinstance(element, ast.stmt | ast.excepthandler):
                yield from _below(element)


def _own_expressions(statement: ast.stmt) -> Iterator[tuple[ast.AST, Holder]]:
    """The expressions of a statement, without those of the statements inside it."""
    for field in statement._fields:
        if field not in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _expressions(statement, field)


def _replace(body: list[ast.stmt], old: ast.stmt, new: ast.stmt) -> None:
    body[next(i for i, statement in enumerate(body) if statement is old)] = ast.copy_location(new, old)


def _insert(body: list[ast.stmt], before: ast.stmt, new: list[ast.stmt]) -> None:
    at = next(i for i, statement in enumerate(body) if statement is before)
    for statement in new:
        for node in ast.walk(statement):
            ast.copy_location(node, before)
    body[at:at] = new
