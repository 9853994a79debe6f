"""Text encoders as Hugging Face's libraries save them, with random weights and a tokenizer of their own."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "alien", "big", "heat", "ran", "up", "the", "19", "##79", "##95", "(", ")", ".",
    ",", "horror", "drama", "war", "comedy", "sci", "-", "fi", "a", "b", "##a", "##b", "item",
    *"0123456789", *(f"##{digit}" for digit in "0123456789"),
]  # fmt: skip
BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
}
DISTILBERT: dict[str, Any] = {
    "model_type": "distilbert",
    "vocab_size": len(WORDS),
    "dim": 8,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 16,
    "max_position_embeddings": 24,
}
SENTENCES: dict[str, Any] = {
    "modules.json": [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "1_Pooling/config.json": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
    "sentence_bert_config.json": {"max_seq_length": 6, "do_lower_case": False},
}
"""How sentence-transformers says that the vector is that of the first of six tokens."""


def put(folder: Path, name: str, content: Any) -> Path:
    """JSON, or bytes, into a file of the directory."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def looks_like(folder: Path, config: dict[str, Any] = BERT, **others: Any) -> Path:
    """A directory with the right files, of which the weights and the tokenizer are no such thing."""
    put(folder, "config.json", config)
    put(folder, "tokenizer.json", b"a tokenizer")
    put(folder, "model.safetensors", b"weights")
    for name, content in others.items():
        put(folder, name, content)
    return folder


def encoder(folder: Path, config: dict[str, Any] = BERT, seed: int = 0) -> Path:
    """A directory with an encoder."""
    for name, content in _saved(json.dumps(config), seed).items():
        put(folder, name, content)
    return folder


@cache
def _saved(config: str, seed: int) -> dict[str, bytes]:
    """The files of an encoder, as transformers and tokenizers write them."""
    from tempfile import TemporaryDirectory

    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import BertProcessing
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel
    from transformers.utils import logging

    settings = json.loads(config)
    kind = settings.pop("model_type")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = BertModel(BertConfig(**settings)) if kind == "bert" else DistilBertModel(DistilBertConfig(**settings))
        for one in network.parameters():
            if one.dim() > 1:
                torch.nn.init.normal_(one, std=0.5)
    tokenizer = Tokenizer(WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    with TemporaryDirectory() as name:
        logging.disable_progress_bar()
        network.save_pretrained(name)
        logging.enable_progress_bar()
        tokenizer.save(f"{name}/tokenizer.json")
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}
