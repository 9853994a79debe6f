"""A tiny text encoder with random weights, and a made-up population as tables with titles."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

import numpy as np

from benchmarks.studies.large.config import Config
from recsys.config import Source
from recsys.data import movielens
from recsys.data.synthetic import catalogue, population
from recsys.sources import HABITS
from secagg.errors import UsageError
from secagg.extras import needing
from secagg.files import write_file

_LETTERS = ascii_lowercase + digits + "().,-|"


def tiny_encoder(folder: Path) -> Path:
    """As Hugging Face's libraries save one; it reads letter by letter."""
    with needing("large", "a text encoder"):
        import torch
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
        from transformers import BertConfig, BertModel
        from transformers.utils import logging

    vocabulary = ["[PAD]", "[UNK]", *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        network = BertModel(BertConfig(vocab_size=len(vocabulary), intermediate_size=64, **sizes))
        for one in network.parameters():
            if one.dim() > 1:
                torch.nn.init.normal_(one, std=0.2)
    logging.disable_progress_bar()
    network.save_pretrained(folder)
    logging.enable_progress_bar()
    tokenizer = Tokenizer(
        models.WordPiece({word: number for number, word in enumerate(vocabulary)}, unk_token=vocabulary[1])
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def titled_tables(config: Config, folder: Path) -> dict[str, Any]:
    """The section ``data`` of a run, for tables that are written to ``folder``: the items that most have taken."""
    if config.data == Source.MOVIELENS:
        loaded = movielens.load(config.path)
        if loaded.items is None:
            raise UsageError(f"{config.path} has no list of films")
        events, table = loaded.interactions, loaded.items
    else:
        made = config.users, config.items, config.data_seed, HABITS[config.habits]  # type: ignore[index]
        events, table = population(*made), catalogue(*made)
    most = np.argsort(-np.bincount(events.items, minlength=len(table)), kind="stable")[: config.items]
    events = events.where(np.isin(events.items, most))
    users = np.repeat(np.arange(events.user_count), np.diff(events.starts))
    rows = zip(users.tolist(), events.items.tolist(), events.times.tolist(), strict=True)
    _write(folder / "events.csv", ["user", "item", "time"], rows)
    named = [(item, table.titles[item], "|".join(table.genres[item]), table.years[item]) for item in sorted(most)]
    _write(folder / "items.csv", ["item", "title", "genres", "year"], named)
    names = {"path": str(folder / "events.csv"), "items": str(folder / "items.csv"), "time": "time"}
    return {"source": "table", **names}


def _write(path: Path, names: list[str], rows: Any) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows(rows)
    write_file(path, text.getvalue().encode(), private=False)
