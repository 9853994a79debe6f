"""Downloading: the right archive, whole, within its folder, or one line and nothing."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from recsys.data import download, movielens
from recsys.data.download import ARCHIVES, Archive, fetch, fetch_archive
from secagg.errors import StorageError, UsageError
from tests.controls import switch_off

RATINGS = b"userId,movieId,rating,timestamp\n1,2,3,4\n"


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


GOOD = zipped(**{"ml-tiny/": b"", "ml-tiny/ratings.csv": RATINGS, "ml-tiny/README.txt": b"research only"})


class _Server(BaseHTTPRequestHandler):
    body = b""
    sent: ClassVar[list[int]] = []
    """Megabytes of a file without an end."""

    def do_GET(self) -> None:
        if self.path == "/gone.zip":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        if self.path == "/endless.zip":
            with suppress(ConnectionError):
                while len(self.sent) < 10_000:  # 10 GB
                    self.wfile.write(bytes(1 << 20))
                    self.sent.append(1)
            return
        self.wfile.write(self.body[: len(self.body) // 2] if self.path == "/cut.zip" else self.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on this machine; proxies are left aside."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def serving(monkeypatch: pytest.MonkeyPatch, url: str, body: bytes, unpacked: int = 1 << 20) -> Archive:
    monkeypatch.setattr(_Server, "body", body)
    return Archive(url, hashlib.sha256(body).hexdigest(), len(body), unpacked)


def test_what_is_fetched_can_be_loaded_and_is_fetched_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str
) -> None:
    archive = serving(monkeypatch, f"{home}/ml-tiny.zip", GOOD)
    folder = fetch_archive("ml-tiny", archive, tmp_path / "data")
    assert folder == tmp_path / "data" / "ml-tiny"
    assert len(movielens.load(folder).interactions) == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["ml-tiny"]
    monkeypatch.setattr(_Server, "body", b"not asked again")
    assert fetch_archive("ml-tiny", archive, tmp_path / "data") == folder


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("/gone.zip", b"", "cannot be downloaded: 404 Not Found"),
        ("/cut.zip", b"", "is not the file that it should be"),
        ("/other.zip", b"!", "is not the file that it should be"),
    ],
)
def test_another_file_is_refused_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str, path: str, change: bytes, message: str
) -> None:
    archive = serving(monkeypatch, home + path, GOOD)
    monkeypatch.setattr(_Server, "body", GOOD[: -len(change)] + change if change else GOOD)
    with pytest.raises(UsageError, match=message) as caught:
        fetch_archive("ml-tiny", archive, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_file_without_an_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str) -> None:
    """Some megabytes are in buffers on the way."""
    archive = serving(monkeypatch, f"{home}/endless.zip", GOOD)
    monkeypatch.setattr(_Server, "sent", [])
    with pytest.raises(UsageError, match="is not the file that it should be"):
        fetch_archive("ml-tiny", archive, tmp_path)
    assert len(_Server.sent) < 100
    assert not list(tmp_path.iterdir())


def test_control_without_the_checksum_any_file_would_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str
) -> None:
    archive = serving(monkeypatch, f"{home}/ml-tiny.zip", GOOD)
    other = zipped(**{"ml-tiny/ratings.csv": RATINGS + b"6,6,6,6\n"})
    monkeypatch.setattr(_Server, "body", other)
    switch_off(monkeypatch, download, "_download", "size != archive.bytes or digest.hexdigest() != archive.sha256")
    assert len(movielens.load(fetch_archive("ml-tiny", archive, tmp_path)).interactions) == 2


def test_offline_is_one_line(tmp_path: Path) -> None:
    nobody = Archive("http://127.0.0.1:9/ml-tiny.zip", "", 0, 0)
    with pytest.raises(UsageError, match="are you online") as caught:
        fetch_archive("ml-tiny", nobody, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


ODD = {
    "../outside.csv": b"1",
    "/absolute.csv": b"2",
    "ml-tiny/../../outside.csv": b"3",
    "ml-tiny/deeper/file.csv": b"4",
    "ml-tiny/..": b"5",
    "top.csv": b"6",
    "ml-tiny/ratings.csv": RATINGS,
}


def test_nothing_is_unpacked_outside_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str) -> None:
    archive = serving(monkeypatch, f"{home}/odd.zip", zipped(**ODD))
    folder = fetch_archive("ml-tiny", archive, tmp_path / "a" / "data")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "a",
        "a/data",
        "a/data/ml-tiny",
        "a/data/ml-tiny/absolute.csv",
        "a/data/ml-tiny/ratings.csv",
    ]
    assert (folder / "ratings.csv").read_bytes() == RATINGS


def test_a_bomb_does_not_go_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str) -> None:
    bomb = zipped(**{"ml-tiny/a.csv": bytes(700_000), "ml-tiny/b.csv": bytes(700_000)})
    archive = serving(monkeypatch, f"{home}/bomb.zip", bomb)
    with pytest.raises(UsageError, match="unpacks to more than it may"):
        fetch_archive("ml-tiny", archive, tmp_path)
    assert not list(tmp_path.iterdir())
    switch_off(monkeypatch, download, "_copy", "copied > limit")
    assert (fetch_archive("ml-tiny", archive, tmp_path) / "b.csv").stat().st_size == 700_000  # control


@pytest.mark.parametrize("body", [b"not a zip", zipped(**{"x/a": b"1", "y/a": b"2"})])
def test_what_is_no_archive_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str, body: bytes
) -> None:
    with pytest.raises(UsageError, match="is not an archive with one folder"):
        fetch_archive("ml-tiny", serving(monkeypatch, f"{home}/x.zip", body), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str) -> None:
    archive = serving(monkeypatch, f"{home}/ml-tiny.zip", GOOD)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        fetch_archive("ml-tiny", archive, tmp_path / "file" / "data")


def test_known_archives_come_by_https_and_are_pinned(tmp_path: Path) -> None:
    for archive in ARCHIVES.values():
        assert archive.url.startswith("https://files.grouplens.org/")
        assert len(bytes.fromhex(archive.sha256)) == 32
        assert archive.bytes < archive.bytes_unpacked
    (tmp_path / "ml-1m").mkdir()
    assert fetch("ml-1m", tmp_path) == tmp_path / "ml-1m"  # there already: nothing is downloaded
