"""What NVFlare must not pack into a job: this library. The sites run the one that they have installed."""

from __future__ import annotations

from typing import Any

_PACKAGES = ["secagg", "dp", "protocols"]


def exclude_library(job: Any) -> None:
    job.set_app_packages(sorted({*job.job.app_packages, *_PACKAGES}))
