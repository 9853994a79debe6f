"""Keys, a roster and a tiny encoder with random weights: python prepare.py COUNT FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel
from tuning.task import WORDS

from protocols.roster import Identity, Roster

SPECIAL = ["[PAD]", "[UNK]"]


def make(count: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    identities = [Identity.generate(f"silo-{i}") for i in range(count)]
    for i, identity in enumerate(identities):
        identity.save(folder / f"{i}.key")
    Roster.of(identities).save(folder / "roster.toml")
    encoder(folder / "encoder")


def encoder(folder: Path) -> None:
    """What Hugging Face's libraries save: a configuration, weights and a tokenizer of whole words."""
    words = [*SPECIAL, *WORDS]
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    network = BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=8, **sizes))
    for one in network.parameters():
        if one.dim() > 1:
            torch.nn.init.normal_(one, std=0.4)
    network.save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(WordPiece(vocab=vocabulary, unk_token=SPECIAL[1]))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    make(int(sys.argv[1]), Path(sys.argv[2]))
