"""A recommender whose clients send a part of their updates, or few bits of them, beside the same with whole updates.

Silos train matrix factorisation and an autoencoder; a run differs from the other ones in what of an update travels, and
in nothing else: the same rounds, steps, rates and seeds. What is compared is NDCG@10 on each user's last event, all
items ranked, seed by seed, where a seed stands for a population, its silos, a first model and an order of training; of
MovieLens the data are the same for all. Sums are of the encoding that a secure sum has, without parties. What clients
send is measured in one round of secagg+ of the same runs; what they receive is the whole model in each way, and counted
in none. ``random_k`` is a twentieth of the coordinates, of 8 bits each: its bytes are those of both.

With ``training_epsilon`` the autoencoder is also trained with users of silos as the unit and noise in the sums. There
nothing is kept, so that its random-k draws anew and multiplies by 20: the server's rate is a twentieth, and the clip is
shorter by the root of that, as what travels is.

``training_out`` gets table.md and plot.png.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from statistics import mean
from typing import Any, cast

from benchmarks import markdown
from benchmarks.case import Measured, Say
from benchmarks.studies.bytes.config import Config
from benchmarks.studies.utility.recipes import RECIPES
from recsys.aggregator import Aggregator
from recsys.assembly import Prepared, prepare
from recsys.config import Config as RunConfig
from recsys.ideal_aggregator import IdealAggregator
from recsys.metrics.comparing import Interval, over_seeds
from recsys.metrics.ranking import evaluate
from recsys.models.popularity import ItemPop
from recsys.models.recommender import SharedModel
from recsys.secure_aggregator import SecureAggregator
from secagg.files import write_file

METRIC, WHOLE, POPULAR = "NDCG@10", "whole", "ItemPop"
KEPT, FEW_BITS = 0.05, 8
_SECRET = bytes(range(32))
_MODELS: Mapping[str, dict[str, Any]] = {
    "autoencoder": {"settings": {"width": 32, "fading": 0.95}, "rate": 20.0, "rank": 6},
    "mf": {"settings": {"width": 32}, "rate": 30.0, "rank": 7},
}
Scores = Mapping[tuple[str, str], Sequence[float]]
"""For each model and way the scores of the seeds, in order."""


def ways(model: str) -> dict[str, dict[str, Any]]:
    """What of an update travels."""
    return {
        WHOLE: {},
        "quantised": {"bits": 5},
        "low_rank": {"rank": _MODELS[model]["rank"]},
        "random_k": {"kept": KEPT, "bits": FEW_BITS},
    }


def run(config: Config, say: Say) -> Measured:
    found = defaultdict[tuple[str, str], list[float]](list)
    popular, sent = list[float](), dict[tuple[str, str], float]()
    for seed in range(config.training_seeds):
        for model in config.trained:
            for way, upload in ways(model).items():
                prepared = prepare(_config(config, model, upload, seed))
                found[model, way].append(score := _trained(prepared))
                if (model, way) not in sent:
                    sent[model, way] = _bytes_up(prepared)
                say(f"{model}, {way}, seed {seed}: {METRIC} {score:.4f}, {sent[model, way]:.0f} bytes an upload")
        (baseline := ItemPop()).fit(prepared.split.train)
        popular.append(evaluate(baseline, prepared.split).mean(METRIC))
    figures, ratios = {POPULAR: mean(popular), "training_clients": float(config.training_silos)}, dict[str, float]()
    for model, way in found:
        figures |= _figures(f"{model}/{way} {METRIC}", over_seeds(found[model, way]))
        figures[f"{model}/{way} bytes"] = sent[model, way]
        if way == WHOLE:
            continue
        shares = over_seeds(_shares(found, model, way))
        figures |= _figures(f"{model}/{way} share", shares)
        figures |= _figures(f"{model}/{way} gain", over_seeds(_shares(found, model, way, popular)))
        ratios[f"{model}/{way}_ndcg"] = shares.mean
        for name, before in _baselines(config, model, sent).items():
            ratios[f"{model}/{way}_bytes{name}"] = before / sent[model, way]
    for way in ("quantised", "low_rank", "random_k"):
        ratios[f"{way}_ndcg"] = min(ratios[f"{model}/{way}_ndcg"] for model in config.trained)
        for name in ("", "_vs_float32", "_vs_16_bit"):
            ratios[f"{way}_bytes{name}"] = min(ratios[f"{model}/{way}_bytes{name}"] for model in config.trained)
    if config.training_epsilon:
        figures |= _noised(config, say)
    (folder := Path(config.training_out)).mkdir(parents=True, exist_ok=True)
    write_file(folder / "table.md", _table(config, found, sent, popular).encode(), private=False)
    write_file(folder / "plot.png", _plot(config, found, sent), private=False)
    say(f"{folder / 'table.md'} and plot.png are written")
    return Measured(figures, ratios)


def _config(config: Config, model: str, upload: Mapping[str, Any], seed: int) -> RunConfig:
    return RunConfig.parse(
        {
            "seed": seed,
            "data": _data(config, seed),
            "clients": {"count": config.training_silos},
            "model": {"name": model, "settings": _MODELS[model]["settings"]},
            "training": {
                "rounds": config.training_rounds,
                "batch": 25,
                "rate": _MODELS[model]["rate"],
                "clip": 10.0,
                "measured": 0.0,
            },
            "upload": dict(upload),
            "privacy": {"mode": "none"},
            "protocol": {"adversary": "curious"},
        }
    )


def _data(config: Config, seed: int) -> dict[str, Any]:
    if config.training_path:
        return {"source": "movielens", "path": config.training_path}
    return {"users": config.training_users, "item_count": config.training_items, "seed": seed + 1}


def _trained(prepared: Prepared) -> float:
    model = _after(prepared, IdealAggregator(_SECRET), prepared.config.training.rounds)
    return evaluate(model, prepared.split).mean(METRIC)


def _after(prepared: Prepared, aggregator: Aggregator, rounds: int) -> SharedModel:
    model = cast(SharedModel, prepared.model())
    federation = prepared.federation(model, aggregator, _SECRET)
    for _ in range(rounds):
        federation.advance()
    return model


def _bytes_up(prepared: Prepared) -> float:
    """What a client sends in a round, all messages together."""
    model = cast(SharedModel, prepared.model())
    federation = prepared.federation(model, SecureAggregator(prepared.deployment, _SECRET), _SECRET)
    return federation.advance().bytes_up / len(prepared.client_data.names)


def _baselines(config: Config, model: str, sent: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """What is sent otherwise: whole updates in the same protocol; floats of 32 bits or integers of 16, in the clear."""
    numbers = prepare(_config(config, model, {}, 0)).encoding.length
    return {"": sent[model, WHOLE], "_vs_float32": 4 * numbers, "_vs_16_bit": 2 * numbers}


def _noised(config: Config, say: Say) -> dict[str, float]:
    recipe = RECIPES["autoencoder"].at(config.training_epsilon)
    found = defaultdict[str, list[float]](list)
    for seed in range(config.training_seeds):
        for way, kept in ((WHOLE, 1.0), ("random_k", KEPT)):
            training = {**recipe.training, "measured": 0.0, "clip": recipe.training["clip"] * kept**0.5}
            training["server_rate"] *= kept
            training["rounds"] = min(training["rounds"], config.training_rounds)
            table = {
                "seed": seed,
                "data": _data(config, seed),
                "clients": {"count": config.training_silos},
                "model": {"name": "autoencoder", "settings": dict(recipe.settings)},
                "training": training,
                "upload": {"kept": kept},
                "privacy": {
                    "mode": "distributed",
                    "epsilon": config.training_epsilon,
                    "n_min": 600 if config.training_path else 0,
                },
            }
            found[way].append(score := _trained(prepare(RunConfig.parse(table))))
            say(f"epsilon {config.training_epsilon:g}, {way}, seed {seed}: {METRIC} {score:.4f}")
    figures = dict[str, float]()
    for way, scores in found.items():
        figures |= _figures(f"epsilon {config.training_epsilon:g}/{way} {METRIC}", over_seeds(scores))
    return figures


def _shares(found: Scores, model: str, way: str, floor: Sequence[float] | None = None) -> list[float]:
    """Of the score of whole updates, or of their gain over ``floor``, seed by seed."""
    floor = floor or [0.0] * len(found[model, way])
    return [
        (score - least) / (whole - least)
        for score, whole, least in zip(found[model, way], found[model, WHOLE], floor, strict=True)
    ]


def _figures(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name} low": interval.low, f"{name} high": interval.high}


def _table(config: Config, found: Scores, sent: Mapping[tuple[str, str], float], popular: Sequence[float]) -> str:
    titles = ["model", "what travels", "bytes of a client in a round", METRIC, "of that of whole updates"]
    lines = [[POPULAR, "", "", f"{mean(popular):.4f}", ""]]
    for model, way in found:
        score = over_seeds(found[model, way])
        share = over_seeds(_shares(found, model, way))
        shares = "" if way == WHOLE else f"{share.mean:.1%} [{share.low:.1%}, {share.high:.1%}]"
        lines.append([model, way, f"{sent[model, way]:,.0f}", f"{score.mean:.4f} ± {score.error:.4f}", shares])
    return markdown.table(titles, lines)


def _plot(config: Config, found: Scores, sent: Mapping[tuple[str, str], float]) -> bytes:
    """A PNG: of the quality with whole updates what each way keeps, with intervals over seeds, over its bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for model, marker in zip(config.trained, "osD^", strict=False):
        for number, way in enumerate(ways(model)):
            share = over_seeds(_shares(found, model, way))
            axes.errorbar(
                sent[model, way],
                share.mean,
                yerr=[[share.mean - share.low], [share.high - share.mean]],
                marker=marker,
                color=f"C{number}",
                capsize=3,
                label=f"{way}, {model}",
            )
    axes.set_xscale("log")
    axes.set_xlabel("bytes that a client sends in a round")
    axes.set_ylabel(f"{METRIC}, of that of whole updates")
    axes.legend(fontsize="x-small", ncols=2)
    out = BytesIO()
    figure.savefig(out, format="png", dpi=150)
    return out.getvalue()
