"""The encoder computes what its libraries compute, whoever shares a batch, and refuses other weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="NOT TESTED: text encoders need transformers, pip install 'secagg[large]'")

import torch
import transformers
from safetensors.torch import load, save
from tokenizers import Tokenizer

from recsys.text.directory import read_directory
from recsys.text.encoder import Encoder
from secagg.errors import UsageError
from tests.scenes.encoders import BERT, DISTILBERT, SENTENCES, WORDS, encoder, put

SCALES = b'{"a":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}'
TEXTS = ["Alien (1979). Horror, Sci-Fi", "Heat", "", "the war the war the war the war the war the war the war the war"]


def by_transformers(folder: Path, texts: list[str], *, tokens: int = 24, first: bool = False) -> np.ndarray:
    """One text after another, by ``from_pretrained`` and with a plain mask."""
    kind = transformers.BertModel if "hidden_size" in (folder / "config.json").read_text() else None
    network = (kind or transformers.DistilBertModel).from_pretrained(folder, local_files_only=True).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(tokens)
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            places = network(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        row = (places[0] if first else places.mean(0)).numpy()
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(before)


@pytest.mark.parametrize("config", [BERT, DISTILBERT], ids=["bert", "distilbert"])
def test_vectors_are_those_of_the_library(config: dict[str, Any], tmp_path: Path) -> None:
    folder = encoder(tmp_path, config)
    rows = Encoder(read_directory(folder))(TEXTS)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, by_transformers(folder, TEXTS), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 0.01


def test_the_vector_of_the_first_of_few_tokens(tmp_path: Path) -> None:
    folder = encoder(tmp_path)
    for name, content in SENTENCES.items():
        put(folder, name, content)
    rows = Encoder(read_directory(folder))(TEXTS)
    np.testing.assert_allclose(rows, by_transformers(folder, TEXTS, tokens=6, first=True), rtol=1e-4, atol=1e-5)


def test_in_batches_with_their_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, told = Encoder(read_directory(encoder(tmp_path))), list[tuple[int, int]]()
    together = made(TEXTS)
    monkeypatch.setattr("recsys.text.encoder._AT_ONCE", 3)
    np.testing.assert_allclose(made(TEXTS, lambda *now: told.append(now)), together, rtol=1e-4, atol=1e-5)
    assert told == [(3, 4), (4, 4)]


def test_nothing_is_drawn_also_in_training_mode(tmp_path: Path) -> None:
    made = Encoder(read_directory(encoder(tmp_path)))
    before = made(TEXTS)
    made.network.train()
    state = torch.get_rng_state()
    np.testing.assert_allclose(made(TEXTS), before, rtol=1e-4, atol=1e-5)
    Encoder(read_directory(tmp_path))
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_of_single_examples_go_through(tmp_path: Path) -> None:
    """As DP-SGD takes them (``dp.training.isolate``): the same as one after another."""
    from torch.func import functional_call, grad, vmap
    from torch.nn.attention import SDPBackend, sdpa_kernel

    made = Encoder(read_directory(encoder(tmp_path)))
    tokens, there = made.tokens(TEXTS)
    parameters = dict(made.network.named_parameters())

    def loss(weights: Any, ids: Any, mask: Any) -> Any:
        added = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
        words = {"input_ids": ids[None], "attention_mask": added[None, None, None]}
        return functional_call(made.network, weights, (), words).last_hidden_state[0, 0, 0]

    with sdpa_kernel(SDPBackend.MATH):
        together = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, tokens, there)
        for number in range(len(TEXTS)):
            alone = grad(loss)(parameters, tokens[number], there[number])
            for name, one in alone.items():
                torch.testing.assert_close(together[name][number], one, rtol=1e-3, atol=1e-5)


def test_weights_of_a_network_with_a_head_and_by_old_names(tmp_path: Path) -> None:
    folder = encoder(tmp_path)
    before = Encoder(read_directory(folder))(TEXTS)
    weights = load((folder / "model.safetensors").read_bytes())
    renamed = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): one
        for name, one in weights.items()
    }
    put(folder, "model.safetensors", save(renamed | {"cls.predictions.bias": torch.zeros(3)}))
    np.testing.assert_allclose(Encoder(read_directory(folder))(TEXTS), before, rtol=1e-5, atol=1e-6)


def test_other_weights_than_the_configuration_speaks_of(tmp_path: Path) -> None:
    folder = encoder(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    weights, name, last = load(whole), "embeddings.word_embeddings.weight", "encoder.layer.1.output.LayerNorm.bias"
    for content, said in (
        (whole[:-1], "not a file of safetensors"),
        (b"weights", "not a file of safetensors"),
        (len(SCALES).to_bytes(8, "little") + SCALES + b"0", "not a file of safetensors: 'F8_E8M0'"),
        (save({one: part for one, part in weights.items() if one != name}), f"has no weights called {name}"),
        (save(weights | {name: torch.zeros(3, 8)}), f"{name} has another shape"),
        (
            save(weights | {name: torch.zeros(len(WORDS), 8, dtype=torch.int8)}),
            f"{name} has another shape, or other numbers",
        ),
        (save(weights | {name: torch.full((len(WORDS), 8), torch.nan)}), "makes no vector of some text"),
        (save(weights | {last: torch.full((8,), 1e38)}), "makes no vector of some text"),
        (save(weights | {last: torch.zeros(8), last.replace("bias", "weight"): torch.zeros(8)}), "makes no vector of"),
    ):
        put(folder, "model.safetensors", content)
        with pytest.raises(UsageError, match=said):
            Encoder(read_directory(folder))(TEXTS)


def test_nothing_is_made_as_large_as_a_configuration_says(tmp_path: Path) -> None:
    """Gigabytes by the configuration, kilobytes of weights."""
    folder = encoder(tmp_path)
    put(folder, "config.json", BERT | {"vocab_size": 1 << 20, "hidden_size": 1 << 12})
    before = torch.get_rng_state()
    with pytest.raises(UsageError, match="has another shape"):
        Encoder(read_directory(folder))
    assert torch.equal(torch.get_rng_state(), before)


def test_other_tokenizers(tmp_path: Path) -> None:
    folder = encoder(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    put(folder, "tokenizer.json", b'{"version": "1.0"}')
    with pytest.raises(UsageError, match=r"tokenizer.json is not the file of a tokenizer"):
        Encoder(read_directory(folder))
    tokenizer.add_tokens(["another"])
    put(folder, "tokenizer.json", tokenizer.to_str().encode())
    with pytest.raises(
        UsageError, match=rf"tokenizer.json has {len(WORDS) + 1} tokens, and config.json says {len(WORDS)}"
    ):
        Encoder(read_directory(folder))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda known: known["model"]["vocab"].update({"alien": len(WORDS)}),
            "has tokens with numbers for which there are no",
        ),
        (
            lambda known: known["post_processor"].update({"cls": ["[CLS]", len(WORDS)]}),
            "has tokens with numbers for which there",
        ),
        (lambda known: known["model"]["vocab"].pop("[UNK]"), "makes nothing of some text: .*UNK"),
        (lambda known: known.update({"post_processor": None}), "makes no token of some text"),
    ],
)
def test_tokenizers_that_go_beyond_the_weights(change: Any, said: str, tmp_path: Path) -> None:
    folder = encoder(tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    change(tokenizer)
    put(folder, "tokenizer.json", tokenizer)
    with pytest.raises(UsageError, match=said):
        Encoder(read_directory(folder))([*TEXTS, "zzz"])
