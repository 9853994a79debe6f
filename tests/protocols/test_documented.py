"""What the documentation shows of the protocols is what they say of themselves, and what their machines do.

To renew it: python -m tests.protocols.test_documented
"""

import re
from pathlib import Path

import pytest

from protocols import registry
from protocols.documented import mermaid, table
from protocols.rounds.phases import Phase

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "protocol.md"
THREATS = ROOT / "docs" / "threat_model.md"
TABLE = re.compile(r"(?<=<!-- table of the protocols -->\n).*?(?=<!-- end of the table -->)", re.DOTALL)
NAMES = [name for name in registry.names() if name != "secagg+"]


def block(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=<!-- diagram of {name} -->\n).*(?=<!-- end of {name} -->)", re.DOTALL)


def test_threat_models_are_written_once() -> None:
    (shown,) = TABLE.findall(THREATS.read_text("utf-8"))
    assert shown == table() + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_documentation_shows_the_machines_as_they_are(name: str) -> None:
    (shown,) = block(name).findall(PAGE.read_text("utf-8"))
    assert shown == mermaid(registry.find(name)) + "\n"


def test_both_pairwise_protocols_have_that_diagram() -> None:
    assert mermaid(registry.find("secagg")) == mermaid(registry.find("secagg+"))


@pytest.mark.parametrize("name", registry.names())
def test_every_state_is_reached_and_left(name: str) -> None:
    protocol = registry.find(name)
    text = mermaid(protocol)
    arrows = re.findall(r"^    (\S+) --> ([^\s:]+)(?:: (.*))?$", text, re.MULTILINE)
    entered, left = {after for _, after, _ in arrows}, {before for before, _, _ in arrows}
    states = {f"server_{state}" for state in (*protocol.server.steps, Phase.DONE, Phase.FAILED)}
    states |= {f"client_{state}" for state in (*protocol.client.steps, Phase.DONE)}
    assert entered - {"[*]"} == left - {"[*]"} == states
    for machine in (protocol.client, protocol.server):
        for step in machine.steps.values():
            assert f"{step.hears.__name__}" in text
            assert callable(step.check)
            assert callable(step.reply)


def test_the_methods_that_the_page_names_exist() -> None:
    protocol = registry.find("secagg")
    named = set(re.findall(r"\(`(_\w+)`\)", PAGE.read_text("utf-8")))
    assert named == {step.check.__name__ for step in protocol.client.steps.values()}


if __name__ == "__main__":
    THREATS.write_text(TABLE.sub(lambda _: table() + "\n", THREATS.read_text("utf-8")), "utf-8")
    page = PAGE.read_text("utf-8")
    for name in NAMES:
        page = block(name).sub(lambda _, name=name: mermaid(registry.find(name)) + "\n", page)  # type: ignore[misc]
    PAGE.write_text(page, "utf-8")
