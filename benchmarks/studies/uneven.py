"""What helps when silos differ: FedProx, SCAFFOLD, weights by users and heads beside FedAvg, from uneven to even silos.

Users of like taste are put into the same silos, the more so the smaller alpha (``recsys.data.partition``), and a silo
takes several passes over its users between two sums, so that it moves towards an optimum of its own. Each way trains
the same model with the same rounds and passes, without noise, and nothing is clipped: what is asked is what unevenness
costs, not what privacy does. The encoding is that of a secure sum, and there are no parties.

A seed stands for a population, its silos, a first model and an order of training: all ways have the same. So the
interval over seeds, Student's of 95%, says how the same would come out elsewhere; differences are those to FedAvg of
the same seed. All items are ranked, each user's last event is the test, and all users count the same. With heads each
user is measured by the model of its silo, and apart from that by the shared start, which is what a new silo gets.

``out`` gets table.md and plot.png.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import mean
from typing import Any, cast

from benchmarks import markdown
from benchmarks.case import Measured, Say
from recsys.assembly import Prepared, prepare
from recsys.config import Config as RunConfig
from recsys.ideal_aggregator import IdealAggregator
from recsys.metrics.comparing import Interval, over_seeds
from recsys.metrics.ranking import evaluate
from recsys.models.popularity import ItemPop
from recsys.models.recommender import SharedModel
from recsys.personal_heads import evaluated
from secagg.errors import UsageError
from secagg.files import write_file

METRIC = "NDCG@10"
FEDAVG, POPULAR, HEADS = "FedAvg", "ItemPop", "heads"
_START = "heads, a new silo"
"""The model with nobody's head."""
_EVERYBODY = 1_000_000
"""More users than any silo has."""


@dataclass(frozen=True, slots=True)
class Config:
    alphas: str = "0.1,0.3,1,10,100"
    users: int = 600
    items: int = 400
    silos: int = 20
    seeds: int = 5
    rounds: int = 20
    epochs: int = 5
    """passes of a silo over its users in a round"""
    batch: int = 32
    rate: float = 3.0
    """of all ways, fixed on validation events of other users (docs/benchmarks.md)"""
    proximal: float = 0.01
    """of FedProx"""
    out: str = "runs/uneven"

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise UsageError("an interval takes at least 2 seeds")
        if not all(alpha > 0 for alpha in self.spreads):
            raise UsageError("alphas are above 0")
        for way in self.ways:
            self.run(1.0, way, 0)  # refused here, if at all

    @property
    def spreads(self) -> list[float]:
        try:
            return [float(word) for word in self.alphas.split(",")]
        except ValueError:
            raise UsageError("alphas are numbers, separated by commas") from None

    @property
    def ways(self) -> dict[str, dict[str, Any]]:
        """What each way adds to the training."""
        return {
            FEDAVG: {},
            "FedProx": {"proximal": self.proximal},
            "SCAFFOLD": {"scaffold": True},
            "weights": {"weight_bound": _EVERYBODY},
            "SCAFFOLD, weights": {"scaffold": True, "weight_bound": _EVERYBODY},
            HEADS: {"personal": ["bias"]},
        }

    def run(self, alpha: float, way: str, seed: int) -> RunConfig:
        training = {"rounds": self.rounds, "epochs": self.epochs, "batch": self.batch, "rate": self.rate}
        return RunConfig.parse(
            {
                "title": f"{way}, alpha {alpha:g}, seed {seed}",
                "seed": seed,
                "data": {"users": self.users, "item_count": self.items, "seed": seed},
                "clients": {"count": self.silos, "spread": "dirichlet", "alpha": alpha},
                "model": {"name": "autoencoder", "settings": {"width": 8, "fading": 0.95}},
                "training": {**training, "clip": 100.0, "measured": 0.0, **self.ways[way]},
                "privacy": {"mode": "none"},
                "protocol": {"adversary": "curious"},
            }
        )


DEFAULTS = Config()

Scores = Mapping[tuple[float, str], Sequence[float]]
"""For each alpha and way the scores of the seeds, in order."""


def run(config: Config, say: Say) -> Measured:
    found, largest = defaultdict[tuple[float, str], list[float]](list), defaultdict[float, list[float]](list)
    starts, popular = defaultdict[float, list[float]](list), list[float]()
    for seed in range(config.seeds):
        for alpha in config.spreads:
            for way in config.ways:
                prepared = prepare(config.run(alpha, way, seed))
                score, start = _trained(prepared)
                found[alpha, way].append(score)
                if way == HEADS:
                    starts[alpha].append(start)
                say(f"{prepared.config.title}: {METRIC} {score:.4f}")
            sizes = [len(users) for users in prepared.client_data.members]
            largest[alpha].append(max(sizes) / sum(sizes))
        baseline = ItemPop()
        baseline.fit(prepared.split.train)
        popular.append(evaluate(baseline, prepared.split).mean(METRIC))
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "table.md", _table(config, found, largest).encode(), private=False)
    write_file(folder / "plot.png", _plot(config, found, mean(popular)), private=False)
    say(f"{folder / 'table.md'} and plot.png are written")
    figures = {POPULAR: mean(popular)}
    for alpha in config.spreads:
        figures[f"{alpha:g}/largest silo"] = mean(largest[alpha])
        figures |= _figures(f"{alpha:g}/{_START}", over_seeds(starts[alpha]))
        for way in config.ways:
            figures |= _figures(f"{alpha:g}/{way}", over_seeds(found[alpha, way]))
            if way != FEDAVG:
                figures |= _figures(f"{alpha:g}/{way} minus {FEDAVG}", _gained(found, alpha, way))
    ratios = {f"{alpha:g}/{way} vs {POPULAR}": mean(scores) / mean(popular) for (alpha, way), scores in found.items()}
    return Measured(figures, ratios)


def _trained(prepared: Prepared) -> tuple[float, float]:
    """How good each user's model is, and that without anybody's head."""
    model = cast(SharedModel, prepared.model())
    federation = prepared.federation(model, IdealAggregator(bytes(32)), bytes(32))
    for _ in range(prepared.config.training.rounds):
        federation.advance()
    start = evaluate(model, prepared.split).mean(METRIC)
    if not prepared.recipe.personal:
        return start, start
    return evaluated(federation.owned(), prepared.split).mean(METRIC), start


def _gained(found: Scores, alpha: float, way: str) -> Interval:
    """Over FedAvg, seed by seed."""
    return over_seeds([one - other for one, other in zip(found[alpha, way], found[alpha, FEDAVG], strict=True)])


def _figures(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name} low": interval.low, f"{name} high": interval.high}


def _table(config: Config, found: Scores, largest: Mapping[float, Sequence[float]]) -> str:
    others = [way for way in config.ways if way != FEDAVG]
    titles = ["alpha", "users in the largest silo", FEDAVG, *(f"{way} minus {FEDAVG}" for way in others)]
    lines = []
    for alpha in config.spreads:
        first = over_seeds(found[alpha, FEDAVG])
        gains = [str(_gained(found, alpha, way)) for way in others]
        score = f"{first.mean:.4f} [{first.low:.4f}, {first.high:.4f}]"
        lines.append([f"{alpha:g}", f"{mean(largest[alpha]):.0%}", score, *gains])
    return markdown.table(titles, lines)


def _plot(config: Config, found: Scores, popular: float) -> bytes:
    """A PNG: on the left each way by alpha, on the right its difference to FedAvg, both with intervals over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, way in enumerate(config.ways):
        shift = 1 + 0.06 * (number - 2.5)  # intervals side by side
        for axes, intervals in (
            (left, [over_seeds(found[alpha, way]) for alpha in config.spreads]),
            (right, [_gained(found, alpha, way) for alpha in config.spreads]),
        ):
            axes.errorbar(
                [alpha * shift for alpha in config.spreads],
                [one.mean for one in intervals],
                yerr=[[one.mean - one.low for one in intervals], [one.high - one.mean for one in intervals]],
                marker="o",
                capsize=3,
                label=way,
            )
    left.axhline(popular, color="grey", linestyle="--", label=POPULAR)
    left.set_ylabel(f"{METRIC}, all items ranked")
    right.set_ylabel(f"the same, minus that of {FEDAVG}")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("alpha: silos are more uneven to the left")
    left.legend(fontsize="small")
    out = BytesIO()
    figure.savefig(out, format="png", dpi=150)
    return out.getvalue()
