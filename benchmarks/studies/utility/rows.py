"""What a utility grid came to, row by row: as a table, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

from benchmarks import markdown
from benchmarks.studies.utility.cells import Kind
from recsys.metrics.comparing import Interval
from recsys.sentences import POPULAR

GAIN = "share of its own gain"
"""What is left, over ItemPop, of what the same recipe gains without noise."""
BEST_OF_ALL = "the best without privacy"


@dataclass(frozen=True, slots=True)
class Row:
    """A model in one of its ways, over all seeds."""

    name: str
    kind: Kind
    epsilons: tuple[float, ...]
    """the budget, or those whose recipe this is without noise"""
    metrics: Mapping[str, Interval]
    """over seeds; models are compared by the first"""
    users_error: float
    """standard error over users, of the first metric"""
    charged: float
    verified: float
    """epsilon, by the ledger, and as the auditor's script finds it"""
    against: Mapping[str, Interval] = field(default_factory=dict)
    """differences in the first metric, over the users of both"""
    ratios: Mapping[str, float] = field(default_factory=dict)
    """to the same, of the means"""
    gained: float | None = None
    """the share of what its recipe gains over ItemPop without noise, if that is certain to gain something"""
    all_budgets: bool = False
    """whether the recipe is one for all budgets"""

    @property
    def metric(self) -> str:
        return next(iter(self.metrics))

    @property
    def score(self) -> float:
        return self.metrics[self.metric].mean

    @property
    def title(self) -> str:
        if self.kind is Kind.BEST:
            return f"{self.name}, its best training without privacy"
        if self.kind is Kind.NOISELESS:
            of = "its recipe" if self.all_budgets else f"its recipe of epsilon {_listed(self.epsilons)}"
            return f"{self.name}, {of} without noise"
        return self.name

    @property
    def places(self) -> list[str]:
        """What its figures are called."""
        if self.kind is Kind.PRIVATE:
            return [f"{self.name}/{self.epsilons[0]:g}"]
        if self.kind is Kind.NOISELESS:
            return [f"{self.name}/{epsilon:g} without noise" for epsilon in self.epsilons]
        return [f"{self.name}/none"]


def best_without_privacy(rows: Sequence[Row]) -> Row:
    """The highest mean of all rows without noise, on the test: whoever is compared with it is not flattered."""
    return max((row for row in rows if row.kind is not Kind.PRIVATE), key=lambda row: row.score)


def table(rows: Sequence[Row], tied: float) -> str:
    """Markdown. Intervals are of 95%: Student's over seeds, the paired bootstrap over users for differences."""
    metrics = list(rows[0].metrics)
    compared = {
        f"minus {POPULAR}": POPULAR,
        "minus its recipe without noise": Kind.NOISELESS,
        "minus its best training": Kind.BEST,
        f"minus {BEST_OF_ALL}": BEST_OF_ALL,
    }
    titles = ["model", "epsilon", *metrics, "error over users", *compared, GAIN]
    lines = []
    for row in rows:
        means = [_value(row.metrics[metric]) for metric in metrics]
        gaps = [str(row.against[other]) if other in row.against else "" for other in compared.values()]
        epsilon = f"{row.epsilons[0]:g}" if row.kind is Kind.PRIVATE else "none"
        gained = "" if row.gained is None else f"{row.gained:.0%}"
        lines.append([row.title, epsilon, *means, f"{row.users_error:.4f}", *gaps, gained])
    notes = f"\nThe best without privacy, of these rows and by this test: {best_without_privacy(rows).title}.\n"
    notes += f"\nA tie in time decides {tied:.0%} of the tests; each seed draws another order.\n" if tied else ""
    return markdown.table(titles, lines) + notes


def plot(rows: Sequence[Row]) -> bytes:
    """A PNG: the first metric of each model by budget, with its recipe without noise on the right; references as
    lines."""
    from matplotlib.figure import Figure

    metric = rows[0].metric
    budgets = sorted({row.epsilons[0] for row in rows if row.kind is Kind.PRIVATE})
    places = {epsilon: place for place, epsilon in enumerate([*budgets, 0.0])}
    models = list(dict.fromkeys(row.name for row in rows if row.kind is Kind.PRIVATE))
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(models):
        own = sorted((row for row in rows if row.name == name and row.kind is Kind.PRIVATE), key=lambda row: row.score)
        own.sort(key=lambda row: row.epsilons)
        largest = own[-1].epsilons[0]
        own += [row for row in rows if row.name == name and row.kind is Kind.NOISELESS and largest in row.epsilons]
        found = [row.metrics[metric] for row in own]
        reach = [[one.mean - one.low for one in found], [one.high - one.mean for one in found]]
        shift = 0.04 * (number - (len(models) - 1) / 2)  # intervals side by side
        axes.errorbar(
            [places[row.epsilons[0] if row.kind is Kind.PRIVATE else 0.0] + shift for row in own],
            [one.mean for one in found],
            yerr=reach,
            marker="o",
            capsize=3,
            label=name,
        )
    styles = ("--", ":", "-.", (0, (1, 4)))
    references = (row for row in rows if row.kind is Kind.REFERENCE)
    for style, row in zip(styles, references, strict=False):
        axes.axhline(row.metrics[metric].mean, color="grey", linestyle=style, label=row.name)
    axes.set_xticks(list(places.values()), [*(f"{epsilon:g}" for epsilon in budgets), "without noise"])
    axes.set_xlabel("epsilon of a user, for the whole training")
    axes.set_ylabel(f"{metric}, all items ranked")
    axes.legend(fontsize="small")
    out = BytesIO()
    figure.savefig(out, format="png", dpi=150)
    return out.getvalue()


def _listed(epsilons: Sequence[float]) -> str:
    """
    >>> _listed((3.0, 1.0))
    '3 and 1'
    """
    return " and ".join(f"{epsilon:g}" for epsilon in epsilons)


def _value(found: Interval) -> str:
    if found.low == found.high:
        return f"{found.mean:.4f}"
    return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"
