"""Items and users that came after training: what models are worth there, beside popularity and popularity in genre.

How they are divided and ranked is in ``recsys.data.cold`` and ``recsys.metrics.cold``, what popularity in genre is in
``benchmarks.studies.large.genres``.

Figures are called MODEL/WHERE/METRIC, where WHERE is "new items" or "new users after m events"; a private model is
called by its budget ("private-ease, epsilon 8"), or "without noise". Models over texts learn from what was taken in
training, and are told of the new items afterwards; private EASE knows the whole table of items, as always. Each is a
mean over seeds of means over users, with Student's interval over seeds ("low", "high") unless it is the same for all.
"minus POPULARITY" is the difference to a baseline over users (of each user's mean over the seeds), with the interval of
a paired bootstrap. Ratios are of means.

``cold_items_vs_genre`` and ``cold_items_vs_own_genres`` are what two towers over texts have among the new items, over
what the two kinds of popularity within genre have. That model was named beforehand, for what it does on another
division of the same films (docs/text_encoders.md), and not for what it does here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.case import Measured, Say
from benchmarks.studies.large.config import Config
from benchmarks.studies.large.data import Data, data_of
from benchmarks.studies.large.models import BASELINES, GENRES, MODELS, OVER_TEXT, OWN_GENRES, TOWERS, WITH_TEXTS
from benchmarks.studies.utility.cells import Kind, of_sums
from benchmarks.studies.utility.recipes import RECIPES
from recsys.assembly import prepare
from recsys.config import Config as RunConfig
from recsys.config import Source
from recsys.metrics.cold import AMONG_NEW, evaluate_new_items, evaluate_new_users
from recsys.metrics.comparing import difference, over_seeds
from recsys.metrics.ranking import Evaluation, Scorer
from recsys.models.recommender import Recommender
from recsys.text.vectors import item_vectors

TOLD = (0, 1, 2, 5, 10)
METRIC = "NDCG@10"


def run(config: Config, say: Say) -> Measured:
    """All models, seed by seed."""
    found = defaultdict[str, list[Mapping[str, Evaluation]]](list)
    charged = dict[str, float]()
    _warn(config, say)
    for seed in range(config.seeds):
        data = data_of(config, seed)
        if not seed:
            say(_sizes(data))
        for name, model, epsilon in _models(config, data, seed):
            found[name].append(_measured(model, data))
            charged[name] = max(charged.get(name, 0.0), epsilon)
            say(f"seed {seed}, {name}: {', '.join(_short(found[name][-1]))}")
    figures, ratios = dict[str, float](), dict[str, float]()
    whole = {
        name: {where: _over_users([one[where] for one in runs]) for where in runs[0]} for name, runs in found.items()
    }
    for name, runs in found.items():
        if charged[name]:
            figures[f"{name}/epsilon charged"] = charged[name]
        for where in runs[0]:
            place, means = f"{name}/{where}", [one[where].mean(METRIC) for one in runs]
            own = whole[name][where]
            figures[place] = float(np.mean(means))
            figures[f"{place}/users"] = len(own.users)
            if min(means) < max(means):
                over = over_seeds(means)
                figures |= {f"{place}/low": over.low, f"{place}/high": over.high}
            for other in BASELINES:
                if other == name or other not in whole:
                    continue
                gap, theirs = difference(own, whole[other][where], METRIC), whole[other][where].mean(METRIC)
                figures |= {f"{place}/minus {other}": gap.mean}
                figures |= {f"{place}/minus {other} low": gap.low, f"{place}/minus {other} high": gap.high}
                if theirs:
                    ratios[f"{place} vs {other}"] = own.mean(METRIC) / theirs
    for name, other in (("cold_items_vs_genre", GENRES), ("cold_items_vs_own_genres", OWN_GENRES)):
        if (found_there := ratios.get(f"{TOWERS}/new items/{METRIC} {AMONG_NEW} vs {other}")) is not None:
            ratios[name] = found_there
    return Measured(figures, ratios)


def _warn(config: Config, say: Say) -> None:
    """What the figures will not have, or not mean."""
    over_text = [name for name in config.names if name in OVER_TEXT]
    if over_text and not config.encoder:
        say(f"LEFT OUT, since they need a text encoder (encoder=DIRECTORY): {', '.join(over_text)}")
    if over_text and config.encoder and config.data == Source.SYNTHETIC:
        say("the titles of made-up items are no words: what an encoder makes of them says nothing about encoders")


def _models(config: Config, data: Data, seed: int) -> Iterator[tuple[str, Recommender, float]]:
    """Trained, with their names, and what each cost in epsilon, by its ledger (which an auditor's script has read)."""
    vectors = item_vectors(data.items, config.encoder) if config.encoder and set(config.names) & {*OVER_TEXT} else None
    for name in config.names:
        if name in OVER_TEXT and vectors is None:
            continue
        if name in MODELS:
            if seed and config.data == Source.SYNTHETIC:
                continue  # the same events make the same model
            model = MODELS[name](data.items)
            model.fit(data.split.train)
            yield name, model, 0.0
            continue
        if vectors is not None and name in OVER_TEXT and name != WITH_TEXTS:
            from benchmarks.studies.large import texts  # which loads torch

            model = texts.MODELS[name](vectors)
            model.fit(data.split.train, *([seed] if isinstance(model, texts.ByText) else []))
            yield name, model, 0.0
            continue
        for number, epsilon in enumerate(config.budgets):
            recipe = "private-ease" if name == WITH_TEXTS else name
            prepared = prepare(_run_config(config, data, recipe, epsilon, seed), data.split.training)
            prepared = replace(prepared, items=data.items, vectors=vectors if name == WITH_TEXTS else None)
            if not number:
                yield f"{name}, without noise", of_sums(prepared, Kind.NOISELESS, ideal=True)[0], 0.0
            model, spent = of_sums(prepared, Kind.PRIVATE, ideal=True)
            yield f"{name}, epsilon {epsilon:g}", model, spent.charged


def _run_config(config: Config, data: Data, name: str, epsilon: float, seed: int) -> RunConfig:
    way = RECIPES[name].at(epsilon)
    source: dict[str, Any] = {"source": config.data, "path": config.path}
    if config.data == Source.SYNTHETIC:
        source = {"users": config.users, "item_count": config.items, "seed": config.data_seed, "habits": config.habits}
    return RunConfig.parse(
        {
            "title": f"{name}, epsilon {epsilon:g}, seed {seed}",
            "seed": seed,
            "data": source,
            "clients": {"kind": "silos", "count": config.silos},
            "model": {"name": name, "settings": dict(way.settings)},
            "training": {"measured": 0.0, **way.training},
            "privacy": {
                "mode": "distributed",
                "epsilon": epsilon,
                "n_min": config.n_min or data.split.train.user_count,
            },
        }
    )


def _measured(model: Scorer, data: Data) -> dict[str, Evaluation]:
    """By where, one metric for each user."""
    items = evaluate_new_items(model, data.split)
    found = {
        f"new items/{METRIC}": _renamed(items, METRIC),
        f"new items/{METRIC} {AMONG_NEW}": _renamed(items, f"{METRIC} {AMONG_NEW}"),
    }
    for told in TOLD:
        users = evaluate_new_users(model, data.split, told)
        found[f"new users after {told} events/{METRIC}"] = _renamed(users, METRIC)
    return found


def _renamed(found: Evaluation, name: str) -> Evaluation:
    return Evaluation(found.users, {METRIC: found.values[name]}, {}, found.skipped)


def _over_users(runs: list[Evaluation]) -> Evaluation:
    """Each user's mean over the seeds, of those who are measured in all."""
    users = runs[0].users
    for one in runs[1:]:
        users = np.intersect1d(users, one.users)
    values = [one.values[METRIC][np.searchsorted(one.users, users)] for one in runs]
    return Evaluation(users, {METRIC: np.mean(values, axis=0)}, {}, 0)


def _short(found: Mapping[str, Evaluation]) -> Iterator[str]:
    return (f"{one.mean(METRIC):.4f}" for one in found.values())


def _sizes(data: Data) -> str:
    split = data.split
    takers, new = (int((np.diff(part.targets.starts) > 0).sum()) for part in (split.for_items, split.for_users))
    known = int(split.known.sum())
    return (
        f"{split.train.user_count} users and {known} items in training; {len(data.items) - known} new items, "
        f"{len(split.for_items.targets)} events of {takers} users with these; {new} new users"
    )
