"""The command, also as ``python -m secagg``. While what it is made of is loaded, an interrupt is one line already."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line that this process was called with, and return its exit code."""
    try:
        from secagg.cli import main as command

        return command()
    except KeyboardInterrupt:  # before the command has begun to look out for it
        sys.stderr.write("secagg: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
