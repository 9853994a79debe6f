"""Chromium, driven through a pipe: pages are opened, asked and drawn, and what they ask for is noted."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

CHROMIUM = shutil.which("chromium")
ALONE = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


class Page:
    """One page of a browser. ``requests``: every address that it asked for, in order."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes, self._rest, self._number = reads, writes, b"", 0
        self._session: dict[str, str] = {}
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.call("Page.enable")
        self.call("Network.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol, and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._heard()
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(answer["error"])
                return answer["result"]

    def ask(self, expression: str) -> Any:
        """The value of an expression, which may be a promise."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"])
        return found["result"].get("value")

    def drawn(self, width: int, height: int) -> bytes:
        """A picture of so many pixels, in PNG."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def _heard(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._reads, 1 << 16)
            if not piece:
                raise RuntimeError("the browser is gone")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


def recommended_after(page: Page) -> float:
    """After how many milliseconds the page of ``recsys.edge.web`` has recommended, from when it was asked for."""
    found: float = page.ask(_FIRST)
    return found


_FIRST = """new Promise((done, failed) => {
    const look = () => {
        const [first] = performance.getEntriesByName("recommended");
        const hint = document.getElementById("hint")?.textContent ?? "";
        if (first) done(first.startTime);
        else if (hint.includes("cannot") || performance.now() > 60000) failed(new Error(hint));
        else setTimeout(look, 5);
    };
    look();
})"""


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser whose files are in an empty folder."""
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    words = [str(CHROMIUM), *ALONE, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"]
    begin = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", *words]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(begin, pass_fds=(theirs_in, theirs_out), stdout=quiet, stderr=quiet) as process:
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield Page(ours_in, ours_out)
        finally:
            os.close(ours_out)
            os.close(ours_in)
            process.terminate()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address under which a folder is served to this machine alone."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012  # as it is declared there
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *_: Any) -> None:
        pass
