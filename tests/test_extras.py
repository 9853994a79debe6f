"""What is tried of each extra alone (``python -m tests.extras``) covers them all."""

import tomllib

from secagg.extras import EXTRAS
from tests.extras import ROOT, SMOKES

ASKED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_each_extra_is_tried_alone() -> None:
    assert SMOKES.keys() == {"base", *EXTRAS}
    assert all(SMOKES.values())


def test_all_brings_all() -> None:
    (everything,) = ASKED["all"]
    assert set(everything.removeprefix("secagg[").removesuffix("]").split(",")) == set(EXTRAS)
