"""``python -m secagg``: the command."""

from __future__ import annotations

import sys

from secagg.cli import main

if __name__ == "__main__":
    sys.exit(main())
