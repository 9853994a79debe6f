"""The three plots of a report, each with its figures as a table: utility and epsilon by rounds, utility by epsilon.

Where there is nothing to draw, a sentence says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

from recsys.report.account import Account, Point
from recsys.report.markup import Group, Html, table, tag
from recsys.report.numbers import budget, epsilon, left, metric
from recsys.report.plots import Curve, plot
from recsys.sentences import CLOSED, FROZEN_MODEL

EXACT, MEASURED, SPENT, BUDGET, REFERENCES = 0, 1, 0, 5, 2
"""Colours."""

_POINTS = 2
"""A curve has no fewer."""
_ABOVE = 1.25
"""So many times the largest exact value is in the picture."""


def utility_by_rounds(account: Account) -> Html:
    title = "Utility by rounds"
    curves = []
    for label, points, colour in _measurements(account):
        x = [float(point.rounds) for point in points]
        curves.append(_measured(label, x, [point.values[account.metric or ""] for point in points], colour))
    return _utility(account, title, "rounds done", curves)


def epsilon_by_rounds(account: Account) -> Html:
    title = "Epsilon by rounds"
    if not account.spent:
        return _nothing(title, "There is no differential privacy in this run, so no epsilon bounds it.")
    promise = account.spent[0].promise
    spending = [(done, entry) for done, entry in enumerate(account.rounds, 1) if _known(entry.epsilon)]
    if not spending:
        return _nothing(title, "No round has spent anything yet.")
    x = [float(done) for done, _entry in spending]
    curves = [Curve(f"spent ({promise.trust} noise)", x, [entry.epsilon or 0.0 for _done, entry in spending], SPENT)]
    if _one_point(curves):
        return _nothing(title, f"There is one value and no curve: {epsilon(spending[0][1].epsilon)} after one round.")
    curves.append(Curve(f"budget ({budget(promise.epsilon)})", [], [promise.epsilon], BUDGET))
    columns = ["rounds done", "spent", "left"]
    rows = [[str(done), epsilon(entry.epsilon), left(entry.epsilon_left)] for done, entry in spending]
    note = "" if len(account.spent) == 1 else f"As {promise.ledger} counts it; the other ledger is further below."
    return _figure(title, "rounds done", "epsilon", curves, table(title, [Group("", columns)], rows), note)


def utility_by_epsilon(account: Account) -> Html:
    title = "Utility by epsilon"
    if not account.spent:
        return _nothing(title, "There is no epsilon to set quality against.")
    curves = []
    for label, points, colour in _measurements(account):
        known = [point for point in points if _known(point.epsilon)]
        x = [point.epsilon or 0.0 for point in known]
        curves.append(_measured(label, x, [point.values[account.metric or ""] for point in known], colour))
    return _utility(account, title, "epsilon spent, against the server", curves)


def _measurements(account: Account) -> list[tuple[str, list[Point], int]]:
    """Label, points that have the metric, and colour."""
    frozen = f"{account.metric}{FROZEN_MODEL}"
    still = [
        replace(point, values={account.metric or "": point.values[frozen]})
        for point in account.exact
        if frozen in point.values
    ]
    sources = [
        ("exact", account.exact, EXACT),
        ("of a model without later events", still, REFERENCES),
        ("under the mask", account.measured, MEASURED),
    ]
    return [(label, [p for p in points if account.metric in p.values], colour) for label, points, colour in sources]


def _measured(label: str, x: list[float], y: list[float], colour: int) -> Curve:
    return Curve(label, x, y, colour, joined=colour != MEASURED)


def _utility(account: Account, title: str, x_label: str, curves: Sequence[Curve]) -> Html:
    """Measured quality, with the final quality of reference models as horizontal lines: of those in closed form the
    best alone, so that each line has a colour of its own."""
    name, drawn = account.metric, [curve for curve in curves if curve.x]
    if name is None or not drawn:
        return _nothing(title, "Quality was not measured.")
    references = [result for result in account.references if name in result.metrics]
    closed = [result for result in references if result.name in CLOSED]
    best = max(closed, key=lambda result: result.metrics[name], default=None)
    references = [result for result in references if result not in closed or result is best]
    drawn += [Curve(o.name, [], [o.metrics[name]], REFERENCES + number) for number, o in enumerate(references)]
    drawn, note = _in_the_picture(drawn)
    if _one_point(drawn):
        return _nothing(title, f"There is one value of {name} and no curve: it is in the verdict, or in the rounds.")
    names = [n for n in account.metrics if any(n in p.values for p in (*account.exact, *account.measured))]
    rows = [
        [str(p.rounds), how, epsilon(p.epsilon), *(metric(p.values.get(n)) for n in names)]
        for how, points in (("exact", account.exact), ("under the mask", account.measured))
        for p in points
    ]
    whole = table(title, [Group("", ["rounds done", "measured", "epsilon", *names])], rows, words=(0, 1))
    return _figure(title, x_label, name, drawn, whole, note)


def _one_point(curves: Sequence[Curve]) -> bool:
    return max((len(curve.x) for curve in curves), default=0) < _POINTS


def _in_the_picture(curves: Sequence[Curve]) -> tuple[list[Curve], str]:
    """The scale is that of exact values: noise may be a hundred times as large as what it is added to."""
    exact = [value for curve in curves if curve.colour != MEASURED for value in curve.y]
    if not exact:
        return list(curves), ""
    shown, left_out = [], 0
    for curve in curves:
        if curve.colour == MEASURED:
            inside = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if 0 <= y <= _ABOVE * max(exact)]
            left_out = len(curve.x) - len(inside)
            curve = replace(curve, x=[x for x, _ in inside], y=[y for _, y in inside])
        if curve.y:
            shown.append(curve)
    if not left_out:
        return shown, ""
    values = "1 value" if left_out == 1 else f"{left_out} values"
    return shown, f"Outside of the picture, by their noise: {values} measured under the mask. The figures have them."


def _figure(title: str, x_label: str, y_label: str, curves: Sequence[Curve], figures: Html, note: str = "") -> Html:
    drawn = plot(title, x_label, y_label, curves, whole_x=x_label == "rounds done")
    shown = tag("details", tag("summary", "The figures"), figures)
    return tag("figure", tag("h3", title), drawn, *([tag("p", note, class_="note")] if note else []), shown)


def _nothing(title: str, why: str) -> Html:
    return tag("figure", tag("h3", title), tag("p", why, class_="nothing"))


def _known(value: float | None) -> bool:
    return value is not None and isfinite(value)
