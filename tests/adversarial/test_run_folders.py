"""A run's folder comes from somebody else, in a tar: whoever looks at it writes nothing outside of it."""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import asdict
from json import dumps
from pathlib import Path

import pytest

from recsys.assembly import Prepared, prepare
from recsys.config import Config
from recsys.other_runs import RunList
from recsys.run import train
from recsys.run_record import Run, signed
from secagg.cli import main
from secagg.crypto.keys import SigningKey
from secagg.errors import DecodeError, StorageError, UsageError
from tests.scenes.recommender import config

KEY = "ssh-ed25519 AAAA attacker"
RUN = Run(f"a run\n{KEY}\n", config={}, data={}, protocol={"name": "secagg+"}, mode="none", measured_under="nothing")
MINE = "ssh-ed25519 AAAA me\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with something to lose, where the tar is unpacked."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh" / "authorized_keys").write_text(MINE)
    return tmp_path


def unpacked(home: Path, links: Mapping[str, str], run: Run | None = RUN, **files: bytes) -> Path:
    """What a stranger packed, as tar unpacks it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        record = {} if run is None else {"run.json": signed(asdict(run), SigningKey(bytes(32)))}
        for name, data in (record | files).items():
            entry = tarfile.TarInfo(f"run/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for name, target in links.items():
            entry = tarfile.TarInfo(f"run/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        tar.extractall(home, filter="fully_trusted")
    return home / "run"


KEYS = "../.ssh/authorized_keys"


def kept(home: Path) -> bool:
    here = sorted(path.name for path in home.iterdir()), [path.name for path in (home / ".ssh").iterdir()]
    return here == ([".ssh", "run"], ["authorized_keys"]) and (home / KEYS[3:]).read_text() == MINE


def naive(path: Path, data: bytes, *, private: bool) -> None:
    """A writer that is whole after a crash, too, and takes any draft for its own."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(data)
    draft.replace(path)


def test_a_report_is_written_nowhere_else(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = unpacked(home, {".report.html.draft": KEYS, "private": "../.ssh"})
    assert main(["report", str(folder)]) == 0
    assert kept(home)
    assert KEY in (folder / "report.html").read_text()
    capsys.readouterr()


def test_with_a_name_that_can_be_told_beforehand_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control, with texts as they come: a line of the sender's choice is among the keys that may log in."""
    monkeypatch.setattr("recsys.report.write_file", naive)
    monkeypatch.setattr("recsys.report.markup.printable", lambda text: text)
    folder = unpacked(home, {".report.html.draft": KEYS})
    main(["report", str(folder)])
    assert not kept(home)
    assert KEY in (home / KEYS[3:]).read_text().splitlines()


@pytest.mark.parametrize("target", [KEYS, "../.ssh/new", ".", "/dev/null"])
def test_a_link_in_the_reports_place_is_refused(home: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = unpacked(home, {"report.html": target})
    assert main(["report", str(folder)]) == 1
    assert kept(home)
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n"), "it is a link" in said.err) == ("", 1, True)


@pytest.mark.parametrize(
    ("links", "files", "why"),
    [
        ({".config.json.draft": KEYS}, (), "is not empty, and holds no run"),
        ({"private": "../.ssh"}, ("config.json",), "private: it is a link"),
        ({"ledger.pub": KEYS}, ("config.json",), "ledger.pub: it is a link"),
        ({"run.json": KEYS}, ("config.json",), "run.json"),
        ({"config.json": KEYS}, (), "config.json: it is a link"),
        ({"secret.key": KEYS}, ("config.json",), "begun by an earlier release"),
    ],
    ids=str,
)
def test_training_in_such_a_folder_writes_nothing_else(
    links: Mapping[str, str], files: tuple[str, ...], why: str, home: Path, prepared: Prepared
) -> None:
    """Also where the sender knows what will be asked for, and has put the configuration there."""
    plain = dumps(prepared.config.plain(), indent=1).encode()
    folder = unpacked(home, links, run=None, **dict.fromkeys(files, plain))
    with pytest.raises((UsageError, StorageError, DecodeError), match=why):
        train(prepared, folder, machine={}, run_list=RunList(home.parent / "state"))
    assert kept(home)


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(config("privacy.mode=none", "training.rounds=1", "evaluation.exact=false"))


@pytest.mark.parametrize("title", ["", f"a\n{KEY}\n", "a\x1b[2J", "\u202ea", "a" * 201, "a\u200b"])
def test_a_run_has_a_title_of_one_visible_line(title: str) -> None:
    with pytest.raises(UsageError, match="title is one line of 1 to 200 printable characters"):
        Config(title=title)
