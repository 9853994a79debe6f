"""What a utility grid came to, row by row: as a table, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

from benchmarks import markdown
from recsys.metrics.comparing import Interval
from recsys.sentences import POPULAR, TUNED

NOISELESS = "itself without noise"
"""The same kind of model without privacy, trained as is best for it there."""


GAIN = "share of its own gain"
"""What is left, over ItemPop, of what the same model gains without privacy."""


@dataclass(frozen=True, slots=True)
class Row:
    """A model under one budget, over all seeds."""

    name: str
    epsilon: float
    """0 for no privacy"""
    metrics: Mapping[str, Interval]
    """over seeds"""
    users_error: float
    """standard error over users, of the first metric"""
    against: Mapping[str, Interval]
    """differences in the first metric, over the users of both"""
    gained: float
    """the share of what it would gain over ItemPop without privacy; 0 without"""
    charged: float
    verified: float
    """epsilon, by the ledger, and as the auditor's script finds it"""


def table(rows: Sequence[Row], tied: float) -> str:
    """Markdown. Intervals are of 95%: Student's over seeds, the paired bootstrap over users for differences."""
    metrics = list(rows[0].metrics)
    compared = (POPULAR, TUNED, NOISELESS)
    titles = ["model", "epsilon", *metrics, "error over users", *(f"minus {other}" for other in compared), GAIN]
    lines = []
    for row in rows:
        means = [_value(row.metrics[metric]) for metric in metrics]
        gaps = [str(row.against[other]) if other in row.against else "" for other in compared]
        epsilon, gained = (f"{row.epsilon:g}", f"{row.gained:.0%}") if row.epsilon else ("none", "")
        lines.append([row.name, epsilon, *means, f"{row.users_error:.4f}", *gaps, gained])
    note = f"\nA tie in time decides {tied:.0%} of the tests; each seed draws another order.\n" if tied else ""
    return markdown.table(titles, lines) + note


def plot(rows: Sequence[Row]) -> bytes:
    """A PNG: the first metric of each model by budget, references as lines."""
    from matplotlib.figure import Figure

    metric = next(iter(rows[0].metrics))
    budgets = sorted({row.epsilon for row in rows if row.epsilon})
    places = {epsilon: place for place, epsilon in enumerate([*budgets, 0.0])}
    models = list(dict.fromkeys(row.name for row in rows if row.epsilon))
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(models):
        own = sorted((row for row in rows if row.name == name), key=lambda row: places[row.epsilon])
        found = [row.metrics[metric] for row in own]
        reach = [[one.mean - one.low for one in found], [one.high - one.mean for one in found]]
        shift = 0.04 * (number - (len(models) - 1) / 2)  # intervals side by side
        axes.errorbar(
            [places[row.epsilon] + shift for row in own],
            [one.mean for one in found],
            yerr=reach,
            marker="o",
            capsize=3,
            label=name,
        )
    styles = ("--", ":", "-.", (0, (1, 4)))
    for style, row in zip(styles, (row for row in rows if row.name not in models), strict=False):
        axes.axhline(row.metrics[metric].mean, color="grey", linestyle=style, label=row.name)
    axes.set_xticks(list(places.values()), [*(f"{epsilon:g}" for epsilon in budgets), "none"])
    axes.set_xlabel("epsilon of a user, for the whole training")
    axes.set_ylabel(f"{metric}, all items ranked")
    axes.legend(fontsize="small")
    out = BytesIO()
    figure.savefig(out, format="png", dpi=150)
    return out.getvalue()


def _value(found: Interval) -> str:
    if found.low == found.high:
        return f"{found.mean:.4f}"
    return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"
