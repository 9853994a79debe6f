"""Sites with folders of their own, ready to run a job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.protocols.adapters.nvflare.scene import Federation


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    from tests.protocols.adapters.nvflare.scene import Federation

    return Federation(tmp_path)
