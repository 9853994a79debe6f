"""Chromium, which draws pages for tests and asks nothing of any network."""

from __future__ import annotations

import shutil

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
