"""The page about embedding lists the public API; its client and server bear a crowd, and connections that are lost."""

from __future__ import annotations

import doctest
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

import secagg
from secagg import Client, Encoding, Identity, Policy, Roster, RoundPlan

PAGE = Path(__file__).resolve().parents[2] / "docs" / "embedding.md"


def test_the_page_lists_the_public_names() -> None:
    table = PAGE.read_text("utf-8").partition("| from `secagg` |")[2].partition("\n\n")[0]
    listed = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(listed) == sorted(secagg.__all__)


def test_client_and_server_stay_short() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert [len(block.splitlines()) < 50 for block in blocks] == [True] * 3


def page_code() -> dict[str, Any]:
    """The names that the page's server and client define."""
    server, client, _together = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for block in (server, client):
        exec("".join(example.source for example in doctest.DocTestParser().get_examples(block)), names)
    return names


def losing(handler: Any, lost: Counter[tuple[str, str]]) -> Any:
    """A handler under which two clients in ten lose connections: of one, requests that the server has not seen yet; of
    the other, answers to requests that it has."""

    class Losing(handler):  # type: ignore[misc]
        def _once(self, method: str) -> bool:
            name = self.path.strip("/")
            lost[name, method] += 1
            return lost[name, method] % 2 == 1

        def do_GET(self) -> None:
            if not (self.path.endswith("1") and self._once("GET")):
                super().do_GET()  # else nothing is said, and the connection ends

        def do_POST(self) -> None:
            if self.path.endswith("2") and self._once("POST"):
                self.answer = lambda body: None
            elif self.path.endswith("1") and self._once("POST"):
                return
            super().do_POST()

    return Losing


@pytest.mark.long
@pytest.mark.parametrize("count", [100])
def test_a_hundred_clients_and_lost_connections(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's code: all connect at once, some connections end without an answer, and everybody is in the sum."""
    code, lost = page_code(), Counter[tuple[str, str]]()
    identities = [Identity.generate(f"client-{i:03}") for i in range(count)]
    roster = Roster.of(identities)
    plan = RoundPlan.propose("secagg+", roster, Encoding.integers(5), min_contributors=90)
    http = code["Server"](("127.0.0.1", 0), losing(code["Handler"], lost))
    assert http.request_queue_size >= count
    http.rounds = code["Rounds"](plan, roster, seconds=120)
    serving = Thread(target=http.serve_forever)
    serving.start()
    try:
        url, policy = f"http://127.0.0.1:{http.server_port}", Policy(min_contributors=90)
        clients = [Client(identity, roster, policy=policy) for identity in identities]
        with ThreadPoolExecutor(count) as threads:
            ended = list(threads.map(lambda client: code["take_part"](url, client, lambda: np.arange(5)), clients))
    finally:
        http.shutdown()
        serving.join()
        http.server_close()
    capsys.readouterr()
    http.rounds.take("client-002", b"the same again, too late")
    http.rounds.take("a stranger", b"")
    assert len(capsys.readouterr().out.splitlines()) == 2, "both are refused in a line each"
    outcome = http.rounds.server.outcome
    assert ended == [True] * count
    assert len(outcome.survivors) == count
    assert outcome.total.tolist() == [0, count, 2 * count, 3 * count, 4 * count]
    assert {name[-1] for name, _ in lost} == {"1", "2"}
    assert sum(lost.values()) > count, "connections were lost"
    assert http.rounds.server.liars == ()
