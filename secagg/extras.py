"""The extras of this library: the modules that each brings, and the one way to say that one is missing.

The base install has numpy, cryptography, typer and rich. Whatever needs more asks for its extra by name, with ``need``
before it begins, or with ``needing`` around imports.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from urllib.parse import unquote, urlsplit

from secagg.errors import MissingExtraError

EXTRAS = {
    "lattice": ("numba",),
    "fast": ("nacl", "numba"),
    "ckks": ("tenseal",),
    "ray": ("ray",),
    "dp": ("dp_accounting", "numba", "scipy"),
    "train": ("dp_accounting", "matplotlib", "numba", "opacus", "scipy", "torch"),
    "recsys": ("dp_accounting", "matplotlib", "numba", "opacus", "pyarrow", "scipy", "torch"),
    "large": (
        *("dp_accounting", "matplotlib", "numba", "opacus", "peft", "pyarrow", "safetensors", "scipy", "tokenizers"),
        *("torch", "transformers"),
    ),
    "edge": ("onnx", "onnxruntime", "usearch"),
    "litert": ("ai_edge_litert", "onnx"),
    "flower": ("flwr", "ray"),
    "nvflare": ("nvflare",),
    "stream": ("confluent_kafka",),
    "peers": ("flwr", "matplotlib", "numba", "tenseal"),
}
"""extra -> the modules it brings that are imported here. The first that brings a module is the one to ask for."""


def need(extra: str, what: str) -> None:
    """Raise ``MissingExtraError`` unless all modules of an extra are installed. ``what`` needs them.

    >>> need("lattice", "a one-shot sum")
    """
    if not all(map(installed, EXTRAS[extra])):
        raise MissingExtraError(hint(extra, what))


@contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Imports in this block fail with ``MissingExtraError`` if what is missing is the extra.

    >>> with needing("lattice", "a one-shot sum"):
    ...     import numba
    """
    try:
        yield
    except (ModuleNotFoundError, MissingExtraError):
        need(extra, what)
        raise


def hint(extra: str, what: str) -> str:
    """The one line for whoever lacks an extra."""
    return f"{what} needs the extra [{extra}]: {command(extra)}"


def installed(module: str) -> bool:
    """Whether a module is there, without importing it.

    >>> installed("numba"), installed("turtles_all_the_way")
    (True, False)
    """
    return find_spec(module) is not None


def bringing(module: str) -> str | None:
    """The extra to ask for where a module is missing; None: no extra brings it.

    >>> bringing("torch.nn"), bringing("numba"), bringing("turtle")
    ('train', 'lattice', None)
    """
    top = module.partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if top in modules), None)


def command(extra: str) -> str:
    """What installs an extra beside this library: from the directory it was installed from, or is run in."""
    pip = "pip" if _pip_is_ours() else f"{quote(sys.executable)} -m pip"
    checkout, editable = _checkout()
    if checkout is None:
        return f"{pip} install 'secagg[{extra}]'"
    return f"{pip} install {'-e ' if editable else ''}{quote(f'{checkout}[{extra}]')}"


def _pip_is_ours() -> bool:
    """Whether what a shell calls pip is that of this Python."""
    folders = map(Path, os.environ.get("PATH", "").split(os.pathsep))
    return next((one for one in folders if (one / "pip").is_file()), None) == Path(sys.executable).parent


def _checkout() -> tuple[Path | None, bool]:
    """The source tree behind this library, if there is one, and whether it runs from there."""
    here = Path(__file__).resolve().parents[1]
    if (here / "pyproject.toml").is_file():
        return here, True
    try:
        origin = distribution("secagg").read_text("direct_url.json")
    except PackageNotFoundError:
        return None, False
    url = urlsplit(json.loads(origin)["url"] if origin else "")
    root = Path(unquote(url.path))
    return (root, False) if url.scheme == "file" and (root / "pyproject.toml").is_file() else (None, False)
