"""Models on devices: what bytes for numbers cost, how fast one user is served beside torch, and approximate search.

quality       Models are trained, and measured on each user's last event by their own code, as a graph, and as a graph
              of bytes. ``parity`` is the largest difference of scores, ``int8_size`` and ``int8_ndcg`` are the worst
              of all models': bytes of the rounded file, and its NDCG@10, over those of floats.
exact         Ten items for one user by ``recommend``, from ids to ids, by ONNX Runtime and by the model's own code (of
              torch, or numpy) in turns, one thread each: medians of its time. Models are hardly trained.
approximate   Ten items of a million by the index, with no one in between, and which part of the ten best these are.
              Vectors and users are drawn: 32 normal numbers for an item and a bias of a tenth of a deviation of their
              products; a user is the sum of eight items, and some noise.
page          With ``web``, the folder dist of onnxruntime-web: seconds from when a page is asked for to its first list,
              of 10,000 items, in a new browser each time; served over loopback, and as one file from the disk.
seal          An authenticated checkpoint of ``sealed_mb``, written and synced, and read: sealed at rest beside plain,
              in turns, by the time that passes and by the processor's. ``seal_overhead`` is that of writing. Then
              ``bits`` of the file are flipped, one after the other: all of the head's, and others that are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.browser import CHROMIUM, browser, recommended_after, served
from benchmarks.case import Measured, Say, ratio, timed, worked
from recsys.data import movielens
from recsys.data.split import leave_last_out
from recsys.data.synthetic import population
from recsys.edge.approximate import built, nearest, opened
from recsys.edge.forms import form_of
from recsys.edge.on_device import on_device
from recsys.edge.web import library_of, pages
from recsys.metrics.ranking import evaluate
from recsys.models.autoencoder import Autoencoder
from recsys.models.ease import Ease
from recsys.models.mf import MatrixFactorisation
from recsys.models.recommender import Local
from recsys.models.sasrec import SasRec
from recsys.serving import ServedModel
from secagg import tensors
from secagg.at_rest import Folder, Keyring
from secagg.errors import AlteredError, UsageError
from secagg.files import write_file

_MODELS: Mapping[str, Callable[[int], Any]] = {
    "ease": lambda passes: Ease(200.0, items=2000),
    "mf": lambda passes: MatrixFactorisation(central=Local(passes, 128, 0.003)),
    "autoencoder": lambda passes: Autoencoder(32, central=Local(passes, 64, 0.01)),
    "sasrec": lambda passes: SasRec(central=Local(passes, 64, 0.003)),
}
_ITEMS = 10_000
_WIDTH = 32
_ASKED = 200


@dataclass(frozen=True, slots=True)
class Config:
    parts: str = "quality,exact,approximate"
    path: str = ""
    """a folder with MovieLens; empty: a made-up population"""
    users: int = 2000
    items: int = _ITEMS
    models: str = ",".join(_MODELS)
    passes: int = 20
    repeats: int = 200
    million: int = 1_000_000
    web: str = ""
    loads: int = 5
    sealed_mb: int = 100
    bits: int = 4000

    def __post_init__(self) -> None:
        if not set(self.parts.split(",")) <= _PARTS.keys():
            raise UsageError(f"parts are some of {', '.join(_PARTS)}")
        if not set(self.models.split(",")) <= _MODELS.keys():
            raise UsageError(f"models are some of {', '.join(_MODELS)}")
        if "page" in self.parts.split(",") and not self.web:
            raise UsageError("the page needs web: the folder dist of the npm package onnxruntime-web")
        if min(self.passes, self.repeats, self.loads) < 1 or self.million < 1000:
            raise UsageError("passes, repeats and loads are 1 or more, a million items 1000 or more")


def run(config: Config, say: Say) -> Measured:
    figures, ratios = dict[str, float](), dict[str, float]()
    for part in config.parts.split(","):
        found = _PARTS[part](config, say)
        figures |= found.figures
        ratios |= found.ratios
    return Measured(figures, ratios)


def _quality(config: Config, say: Say) -> Measured:
    events = movielens.load(config.path).interactions if config.path else population(config.users, config.items, 1)
    split = leave_last_out(events)
    figures, ratios = dict[str, float](), dict[str, float]()
    sizes, kept, apart = list[float](), list[float](), list[float]()
    for name in config.models.split(","):
        say(f"training {name}")
        model = _MODELS[name](config.passes)
        model.fit(split.train)
        say(f"measuring {name}")
        whole, rounded = form_of(model).onnx, form_of(model, int8=True).onnx
        floats, small = on_device(whole), on_device(rounded)
        some = list(split.train.histories())[:_ASKED]
        apart.append(float(np.abs(floats.scores(some) - model.scores(some)).max()))
        own, here, less = (evaluate(one, split).mean("NDCG@10") for one in (model, floats, small))
        sizes.append(len(rounded) / len(whole))
        kept.append(less / here)
        figures |= {f"{name}/bytes": len(whole), f"{name}/int8 bytes": len(rounded), f"{name}/parity": apart[-1]}
        figures |= {f"{name}/NDCG@10": own, f"{name}/NDCG@10 float": here, f"{name}/NDCG@10 int8": less}
        ratios |= {f"{name}/int8_size": sizes[-1], f"{name}/int8_ndcg": kept[-1]}
    figures["parity"] = max(apart)
    return Measured(figures, ratios | {"int8_size": max(sizes), "int8_ndcg": min(kept)})


def _exact(config: Config, say: Say) -> Measured:
    rng = np.random.default_rng(0)
    ids = [str(item) for item in range(_ITEMS)]
    figures, ratios = dict[str, float](), dict[str, float]()
    medians = list[float]()
    for name in config.models.split(","):
        say(f"asking {name}")
        model = _MODELS[name](1)
        if hasattr(model, "begin"):
            model.begin(_ITEMS, seed=0)
        else:
            model.fit(population(500, _ITEMS, 1))
        own, here = ServedModel(model, ids), ServedModel(on_device(form_of(model).onnx), ids)
        took = dict[str, list[float]]()
        for _ in range(config.repeats):
            history = [ids[item] for item in rng.choice(_ITEMS, 50, replace=False)]
            worked(took, "own", own.recommend, history)
            worked(took, "here", here.recommend, history)
        medians.append(1000 * median(took["here"]))
        figures |= {f"{name}/exact_ms": medians[-1], f"{name}/exact_ms by its own code": 1000 * median(took["own"])}
        ratios[f"{name}/exact_own_over_onnx"] = ratio(took, "own", "here")
    return Measured(figures | {"exact_ms": max(medians)}, ratios)


def _approximate(config: Config, say: Say) -> Measured:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((config.million, _WIDTH + 1), np.float32)
    vectors[:, -1] *= 0.1 * _WIDTH**0.5
    users = vectors[rng.integers(0, config.million, (_ASKED, 8))].sum(axis=1)
    users += rng.standard_normal(users.shape, np.float32)
    users[:, -1] = 1
    took = dict[str, list[float]]()
    say(f"an index of {config.million} items")
    data = timed(took, "build", built, vectors)
    index = opened(data, config.million)
    found = list[float]()
    for user in users:
        scores = worked(took, "exact", vectors.__matmul__, user)
        best = np.argpartition(-scores, 10)[:10]
        items, _ = worked(took, "approximate", nearest, index, user, 10)
        found.append(len(np.intersect1d(best, items)) / 10)
    figures = {
        "ann_ms": 1000 * median(took["approximate"]),
        "ann_exact_ms": 1000 * median(took["exact"]),
        "ann_recall": float(np.mean(found)),
        "ann_build_s": took["build"][0],
        "ann_bytes": float(len(data)),
    }
    return Measured(figures, {"exact_over_ann": ratio(took, "exact", "approximate")})


def _page(config: Config, say: Say) -> Measured:
    if CHROMIUM is None:
        raise UsageError("the page is measured in chromium, which is not here")
    model = SasRec()
    model.begin(_ITEMS, seed=0)
    onnx = form_of(model).onnx
    files = pages([f"Film {item}" for item in range(_ITEMS)], "A model.", library_of(Path(config.web)), onnx)
    took = dict[str, list[float]]()
    with TemporaryDirectory() as place:
        folder = Path(place) / "page"
        folder.mkdir()
        for name, data in {**files, "model.onnx": onnx}.items():
            write_file(folder / name, data, private=False)
        with served(folder) as address:
            forms = {"page_s": f"{address}/index.html", "page_file_s": (folder / "page.html").as_uri()}
            for number in range(config.loads):
                say(f"loading, {number + 1} of {config.loads}")
                for name, url in forms.items():
                    with browser(Path(place) / f"{name}-{number}") as page:
                        page.call("Page.navigate", url=url)
                        took.setdefault(name, []).append(recommended_after(page) / 1000)
    figures = {name: median(seconds) for name, seconds in took.items()}
    return Measured(figures | {"page_file_bytes": float(len(files["page.html"]))}, {})


def _seal(config: Config, say: Say) -> Measured:
    key, took = bytes(32), dict[str, list[float]]()
    arrays = {"vector": np.random.default_rng(0).standard_normal(config.sealed_mb * 125_000)}
    with TemporaryDirectory(dir=".") as place:
        folders = {"plain": Folder(place), "sealed": Folder(place, Keyring([key]))}
        say(f"{config.sealed_mb} MB, sealed and plain")
        for number in range(config.repeats // 5):
            for name in sorted(folders, reverse=bool(number % 2)):
                folder = folders[name]

                def write(folder: Folder = folder, name: str = name) -> None:
                    folder.write(name, *tensors.encode({}, arrays, key), private=True)

                def read(folder: Folder = folder, name: str = name) -> None:
                    tensors.decode(folder.read(name, private=True), key)

                for what, work in (("write", write), ("read", read)):
                    worked(took, f"{name} {what}, processor", timed, took, f"{name} {what}", work)
        noticed = _noticed(folders["sealed"], "sealed", config.bits, say)
    found = {name: median(seconds) for name, seconds in took.items()}
    both = {
        f"{what}{clock}": ratio(took, f"sealed {what}{clock}", f"plain {what}{clock}")
        for what in ("write", "read")
        for clock in ("", ", processor")
    }
    overheads = {"seal_overhead": both["write"], **{f"seal_overhead/{name}": value for name, value in both.items()}}
    return Measured(found | {"flipped bits": float(config.bits), "noticed bits": float(noticed)}, overheads)


def _noticed(folder: Folder, name: str, bits: int, say: Say) -> int:
    """How many of so many flipped bits are noticed when the file is read."""
    size, head, rng = (folder / name).stat().st_size, 8 * 128, Random(0)  # noqa: S311 no secret
    noticed = 0
    data = np.memmap(folder / name, np.uint8, "r+")
    for number in range(bits):
        bit = number if number < head else rng.randrange(head, 8 * size)
        data[bit // 8] ^= 1 << bit % 8
        try:
            folder.read(name, private=True)
        except AlteredError:
            noticed += 1
        data[bit // 8] ^= 1 << bit % 8
        if number % 500 == 0:
            say(f"{number} of {bits} bits are flipped")
    return noticed


_PARTS: Mapping[str, Callable[[Config, Say], Measured]] = {
    "quality": _quality,
    "exact": _exact,
    "approximate": _approximate,
    "page": _page,
    "seal": _seal,
}
DEFAULTS = Config()
