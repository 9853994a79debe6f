"""Runs over texts: from a configuration to a model that is stored, and what is refused before anything is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="NOT TESTED: text encoders need transformers, pip install 'secagg[large]'")

from recsys import same_inputs
from recsys.assembly import prepare
from recsys.models.over_text import SasRecOverText, TwoTower
from recsys.models.private_ease import PrivateEase
from recsys.models.store import load
from recsys.models.tuned_encoder import TunedEncoder
from recsys.report import write_report
from recsys.run_record import Run
from recsys.sources import data_of
from secagg import cli
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.scenes.encoders import encoder
from tests.scenes.texts import items_csv, small_run
from tests.scenes.whole_runs import Killed, contents, go


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    data_of.cache_clear()
    yield tmp_path
    data_of.cache_clear()


TUNED = (
    "model.name=tuned-encoder",
    "model.settings={width = 4, recent = 5, negatives = 4, coordinates = 4, rank = 2, encoded = 4, tokens = 6}",
)


def after_one_round(run: Run) -> None:
    if len(run.rounds) == 1:
        raise Killed


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ((), TwoTower),
        (("model.name=sasrec",), SasRecOverText),
        (("privacy.mode=distributed", "privacy.n_min=100", "training.measured=0"), TwoTower),
        (("privacy.mode=local",), TwoTower),
        (("model.name=private-ease", "model.settings={items = 10}"), PrivateEase),
        (TUNED, TunedEncoder),
        ((*TUNED, "privacy.mode=distributed", "privacy.n_min=100", "training.measured=0"), TunedEncoder),
        ((*TUNED, "privacy.mode=local"), TunedEncoder),
        ((*TUNED, "training.scaffold=true", "protocol.adversary=curious"), TunedEncoder),
        ((*TUNED, "training.personal=['user', 'top']"), TunedEncoder),
    ],
    ids=[*("two-tower", "sasrec", "distributed", "local", "private-ease"), *(f"tuned {number}" for number in range(5))],
)
def test_a_run_ends_in_a_model_that_knows_all_items(changes: tuple[str, ...], kind: type, home: Path) -> None:
    run = go(small_run(home, *changes), home / "run")
    assert run.ended == "all rounds are done"
    assert run.data["items"] == 18
    served = load(home / "run" / "model.safetensors")
    assert type(served.model) is kind
    best = served.recommend(["i1", "i2"], k=16)
    assert {"i15", "i16", "i17"} <= {item for item, _ in best.items}  # which nobody took


def test_the_record_says_which_encoder_it_was(home: Path) -> None:
    go(small_run(home, "training.rounds=1"), home / "run")
    said = json.loads((home / "run" / "run.json").read_text())["data"]["encoder"]
    assert said == prepare(small_run(home)).vectors.encoder  # type: ignore[union-attr]


@pytest.mark.parametrize(("adapter", "said"), [("lora", True), ("ffa-lora", False)])
def test_the_record_and_the_report_say_what_a_sum_of_lora_is(adapter: str, said: bool, home: Path) -> None:
    """It is never taken without being named."""
    settings = f"model.settings={{width = 4, recent = 5, negatives = 4, adapter = '{adapter}', tokens = 6}}"
    folder = home / "run"
    run = go(small_run(home, *TUNED[:1], settings, "training.rounds=1"), folder)
    assert ("not the mean of the clients' changes" in run.data.get("caution", "")) == said
    assert ("not the mean of the clients" in write_report(folder).read_text()) == said
    assert prepare(small_run(home, TUNED[0], "model.settings={}")).model().adapter == "ffa-lora"


def begun(home: Path) -> Path:
    with pytest.raises(Killed):
        go(small_run(home), home / "run", watch=after_one_round)
    return home / "run"


def test_a_run_goes_on_with_the_encoder_elsewhere(home: Path) -> None:
    folder = begun(home)
    (home / "encoder").rename(home / "moved")
    run = go(small_run(home, f"model.encoder={home / 'moved'}"), folder)
    assert len(run.rounds) == 2


def test_a_run_does_not_go_on_with_another_encoder(home: Path) -> None:
    folder = begun(home)
    encoder(home / "encoder", seed=1)
    before = contents(folder)
    with pytest.raises(UsageError, match="begun on other data"):
        go(small_run(home), folder)
    assert contents(folder) == before


def test_control_a_mark_without_the_encoder_lets_it_go_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, same_inputs, "_data", "vectors is None", "True")
    folder = begun(home)
    encoder(home / "encoder", seed=1)
    assert len(go(small_run(home), folder).rounds) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("model.encoder=",), "two-tower needs model.encoder, the directory of a text encoder"),
        (("model.encoder=/nowhere",), "/nowhere is no directory of a text encoder"),
        (("model.name=mf",), "model.encoder is for sasrec, two-tower, tuned-encoder, private-ease: mf knows no texts"),
        (("model.name=three-tower",), "unknown model 'three-tower'"),
        ((*TUNED, "model.encoder="), "tuned-encoder needs model.encoder, the directory of a text encoder"),
        ((TUNED[0], "model.settings={layers = 3}"), "layers is from 1 to 2"),
        ((TUNED[0], "model.settings={ranks = 3}"), "model.settings are adapter, .* and not 'ranks'"),
        ((TUNED[0], "model.settings={places = 3}"), "model.settings are adapter, .* and not 'places'"),
        ((TUNED[0], 'model.settings={adapter = "full"}'), "adapter is one of ffa-lora, fed-sb, lora"),
        (("data.items=",), "model.encoder needs a table of items with their titles or genres: data.items"),
        (("data.source=synthetic", "data.items="), "model.encoder is for items with texts"),
        (("model.settings={widths = 3}",), "model.settings are coordinates, .* and not 'widths'"),
        (("model.settings={coordinates = 0}",), "at least one coordinate"),
        (('model.settings={coordinates = "a"}',), "a value is of a wrong type"),
    ],
)
def test_what_is_refused_in_one_line(changes: tuple[str, ...], said: str, home: Path) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        prepare(small_run(home, *changes))
    assert "\n" not in str(refused.value)


def command(home: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """``secagg train``, from a file."""
    config = small_run(home)
    lines = [f'title = "over texts"\n[data]\nsource = "table"\npath = "{config.data.path}"\ntime = "time"']
    lines += [f'items = "{config.data.items}"\n[clients]\ncount = 6\n[training]\nrounds = 1\n[protocol]\ndropout = 0.3']
    lines += [f'[privacy]\nmode = "none"\n[model]\nname = "two-tower"\nencoder = "{config.model.encoder}"']
    (home / "run.toml").write_text("\n".join([*lines, "settings = {width = 4, recent = 5, negatives = 4}", ""]))
    capsys.readouterr()
    code = cli.main(["train", str(home / "run.toml"), "--out", str(home / "run")])
    return code, capsys.readouterr().err


def test_the_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(home, capsys) == (0, "")
    assert np.isfinite(load(home / "run" / "model.safetensors").recommend([], k=1).items[0][1])


@pytest.mark.parametrize("what", ["no text", "no tokenizer", "a pickle", "other weights"])
def test_bad_input_is_one_line_and_exit_2_and_nothing_is_written(
    what: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_run(home)
    if what == "no text":
        items_csv(home / "items.csv", silent=16)
    elif what == "no tokenizer":
        (home / "encoder" / "tokenizer.json").unlink()
    elif what == "a pickle":
        (home / "encoder" / "model.safetensors").rename(home / "encoder" / "pytorch_model.bin")
    else:
        (home / "encoder" / "model.safetensors").write_bytes(b"weights")
    code, error = command(home, capsys)
    assert code == 2
    (line,) = error.splitlines()
    assert {
        "no text": "item i16 has neither a title nor genres",
        "no tokenizer": "has no tokenizer.json",
        "a pickle": "a pickle, which can execute anything",
        "other weights": "is not a file of safetensors",
    }[what] in line
    assert not (home / "run").exists()
    assert not list((home / "CACHE").rglob("*.npy"))
