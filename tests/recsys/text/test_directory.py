"""What is read of an encoder's directory, and what is refused: it may be a stranger's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from recsys.text.directory import Layout, Pooling, read_directory
from secagg.errors import UsageError
from tests.scenes.encoders import BERT, DISTILBERT, SENTENCES, looks_like, put

CODE = {"AutoModel": "modeling.Own"}


def refused(folder: Path) -> str:
    with pytest.raises(UsageError) as found:
        read_directory(folder)
    (line,) = str(found.value).splitlines()
    return line


@pytest.mark.parametrize(("config", "layout"), [(BERT, Layout.BERT), (DISTILBERT, Layout.DISTILBERT)])
def test_an_encoder_is_read(config: dict[str, Any], layout: Layout, tmp_path: Path) -> None:
    found = read_directory(looks_like(tmp_path, config | {"torch_dtype": "float32", "id2label": {"0": "x"}}))
    assert (found.layout, found.pooling, found.tokens) == (layout, Pooling.MEAN, 24)
    assert found.settings.keys() <= {*config, "hidden_act", "activation", "layer_norm_eps"}  # and nothing else of it
    assert (found.tokenizer, found.weights) == (b"a tokenizer", b"weights")


def test_the_smallest_sizes_are_sizes(tmp_path: Path) -> None:
    smallest = dict.fromkeys(BERT.keys() - {"model_type"}, 1)
    assert read_directory(looks_like(tmp_path, BERT | smallest)).settings.items() >= smallest.items()


def test_what_sentence_transformers_says_is_kept_to(tmp_path: Path) -> None:
    found = read_directory(looks_like(tmp_path, **SENTENCES))
    assert (found.pooling, found.tokens) == (Pooling.FIRST, 6)
    for said, tokens in (({"max_seq_length": 1}, 1), ({"max_seq_length": None}, 24), ({}, 24)):
        put(tmp_path, "sentence_bert_config.json", said)
        assert read_directory(tmp_path).tokens == tokens
    put(tmp_path, "1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "include_prompt": True})
    put(tmp_path, "sentence_bert_config.json", {"max_seq_length": 1000})
    found = read_directory(tmp_path)
    assert (found.pooling, found.tokens) == (Pooling.MEAN, 24)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "llama"}, "config.json: model_type is bert or distilbert"),
        ({"model_type": ["bert"]}, "config.json: model_type is bert or distilbert"),
        ({"model_type": None}, "config.json: model_type is bert or distilbert"),
        ({"auto_map": CODE}, r"it names code of its own \(auto_map\)"),
        ({"hidden_size": 1 << 30}, "hidden_size is a whole number from 1 to"),
        ({"hidden_size": 0}, "hidden_size is a whole number from 1 to"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers is a whole number"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is a whole number"),
        ({"num_attention_heads": True}, "num_attention_heads is a whole number"),
        ({"num_attention_heads": 3}, "3 heads do not share 8 numbers evenly"),
        ({"hidden_act": "os.system"}, "hidden_act is one of gelu"),
        ({"layer_norm_eps": "1"}, "layer_norm_eps is a number between 0 and 1"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps is a number between 0 and 1"),
        ({"layer_norm_eps": -0.5}, "layer_norm_eps is a number between 0 and 1"),
        ({"layer_norm_eps": 1.0}, "layer_norm_eps is a number between 0 and 1"),
        ({"position_embedding_type": "relative_key"}, 'position_embedding_type is "absolute"'),
        ({"is_decoder": True}, "is_decoder is false"),
        ({"add_cross_attention": True}, "add_cross_attention is false"),
    ],
)
def test_configurations_that_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        read_directory(looks_like(tmp_path, BERT | changes))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", b"{", "config.json: not JSON"),
        ("config.json", [], "config.json: it holds no dict"),
        ("config.json", b'{"a": "' + b"a" * (1 << 20) + b'"}', "config.json: it is longer than"),
        ("tokenizer_config.json", {"auto_map": CODE}, r"tokenizer_config.json: it names code of its own"),
        ("modules.json", {}, "modules.json: it holds no list"),
        ("modules.json", ["os.system"], "modules.json: there is a part beside"),
        ("modules.json", [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}], "there is a part beside"),
        ("modules.json", [{"path": "", "type": "sentence_transformers.models.Dense"}], "there is a part beside"),
        ("modules.json", [{"path": "0_Transformer", "type": "x.Transformer"}], "there is a part beside"),
        ("modules.json", [{"path": "../1_Pooling", "type": "x.Pooling"}], "there is a part beside"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "vectors are means over tokens, or that of the"),
        ("1_Pooling/config.json", {}, "vectors are means over tokens, or that of the first"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is for the tokenizer to know"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length is a number of tokens"),
        ("sentence_bert_config.json", {"max_seq_length": "6"}, "max_seq_length is a number of tokens"),
    ],
)
def test_files_that_are_refused(name: str, content: Any, said: str, tmp_path: Path) -> None:
    looks_like(tmp_path, **SENTENCES)
    read_directory(tmp_path)
    put(tmp_path, name, content)
    with pytest.raises(UsageError, match=said):
        read_directory(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "none").endswith("is no directory of a text encoder")
    assert refused(put(tmp_path, "a file", b"")).endswith("is no directory of a text encoder")
    assert "has no config.json" in refused(tmp_path)
    looks_like(tmp_path / "a")
    (tmp_path / "a" / "tokenizer.json").unlink()
    put(tmp_path / "a", "vocab.txt", b"[PAD]\n")
    assert "has no tokenizer.json: without its tokenizer an encoder reads nothing" in refused(tmp_path / "a")
    looks_like(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").unlink()
    assert "has no model.safetensors" in refused(tmp_path / "b")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "weights.pkl"])
def test_weights_in_a_pickle_are_refused(name: str, tmp_path: Path) -> None:
    looks_like(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    put(tmp_path, name, b"cos\nsystem\n(S'touch sprung'\ntR.")
    assert f"has its weights in {name}, a pickle, which can execute anything" in refused(tmp_path)


def test_a_pickle_beside_the_weights_is_not_opened(tmp_path: Path) -> None:
    looks_like(tmp_path)
    os.mkfifo(tmp_path / "pytorch_model.bin")  # whoever opens it waits
    assert read_directory(tmp_path).weights == b"weights"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "modules.json"])
def test_a_link_out_of_the_directory_is_not_followed(name: str, tmp_path: Path) -> None:
    folder = looks_like(tmp_path / "encoder", **SENTENCES)
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    assert refused(folder).endswith(f"{name}: it is a link")


@pytest.mark.parametrize("name", ["modules.json", "sentence_bert_config.json", "tokenizer_config.json"])
def test_a_link_to_nothing_is_no_missing_file(name: str, tmp_path: Path) -> None:
    folder = looks_like(tmp_path / "encoder", **SENTENCES)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "nothing")
    assert refused(folder).endswith(f"{name}: it is a link")


def test_nor_is_that_of_the_pooling(tmp_path: Path) -> None:
    folder = looks_like(tmp_path / "encoder", **SENTENCES)
    (folder / "1_Pooling").rename(tmp_path / "1_Pooling")
    (folder / "1_Pooling").symlink_to(tmp_path / "1_Pooling")
    assert refused(folder).endswith("1_Pooling: it is a link")


def test_the_digest_is_of_all_that_vectors_follow_from(tmp_path: Path) -> None:
    digests = {read_directory(looks_like(tmp_path / "0")).digest}
    for number, (name, content) in enumerate(
        [
            ("config.json", BERT | {"num_hidden_layers": 3}),
            ("config.json", BERT | {"hidden_act": "relu"}),
            ("tokenizer.json", b"another tokenizer"),
            ("model.safetensors", b"other weights"),
            ("sentence_bert_config.json", {"max_seq_length": 5}),
            ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True}),
        ],
        1,
    ):
        folder = looks_like(tmp_path / str(number), **SENTENCES)
        put(folder, name, content)
        digests.add(read_directory(folder).digest)
        assert len(digests) == number + 1
    put(tmp_path / "0", "config.json", BERT | {"transformers_version": "9", "_name_or_path": "elsewhere"})
    assert read_directory(tmp_path / "0").digest in digests  # what is not used
