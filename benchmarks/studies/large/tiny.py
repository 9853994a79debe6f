"""A tiny text encoder with random weights."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

from secagg.extras import needing

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
