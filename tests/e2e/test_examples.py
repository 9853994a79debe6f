"""Every example is run by a test: this says by which, by default or among the long ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN_BY = {
    "*.toml": "cli/test_train.py::test_the_examples_run",
    "flower": "e2e/test_flower.py::test_in_flowers_simulation",
    "flower-adapters": "e2e/test_flower_adapters.py::test_four_silos_tune_adapters_and_the_sum_is_exact",
    "nvflare": "e2e/test_nvflare.py::test_the_example",
    "stream-kafka": "recsys/stream/test_kafka.py::test_the_example_runs",
    "sparse": "protocols/test_sparse.py::test_the_example_runs",
    "protocol": "conformance/test_added_protocol.py::test_the_example_runs",
}
"""What is in examples/ -> the test that runs it."""


def test_no_example_is_left_out() -> None:
    found = [path for path in (ROOT / "examples").iterdir() if not path.name.startswith((".", "__"))]
    assert {"*.toml" if path.suffix == ".toml" else path.name for path in found} == set(RUN_BY)


@pytest.mark.parametrize("example", list(RUN_BY))
def test_its_test_is_there_and_names_it(example: str) -> None:
    file, name = RUN_BY[example].split("::")
    text = (ROOT / "tests" / file).read_text()
    assert re.search(rf"^def {name}\(", text, re.MULTILINE)
    assert "EXAMPLES" in text if example == "*.toml" else f'"examples" / "{example}"' in text
