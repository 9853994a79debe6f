"""Files are written by ``secagg.files``, and by nothing else: a second way would need all of its care again."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["secagg", "dp", "protocols", "recsys", "benchmarks", "examples"]
THE_WAY = Path("secagg/files.py")

ALLOWED = {
    ("dp/ledger/file.py", "sqlite3.connect"): "a file that secagg.files has made or checked",
    ("protocols/journal.py", "sqlite3.connect"): "the same",
    ("dp/verify_ledger.py", "sqlite3.connect"): "for reading only",
    ("recsys/other_runs.py", "sqlite3.connect"): "the same",
    ("recsys/stream/journal.py", "sqlite3.connect"): "a file that secagg.files has made or checked",
    ("recsys/stream/tail.py", "os.open"): "for reading only",
    ("benchmarks/studies/flow/kills.py", "one.rename"): "a file is rotated in a temporary folder",
    ("benchmarks/studies/flow/kills.py", "stream.rename"): "the same",
    ("recsys/data/download.py", "unpacked.rename"): "a directory of a random name gets its own",
    ("secagg/cli/__init__.py", "os.open"): "the null device, for output that nobody reads",
    ("benchmarks/browser.py", "shutil.which"): "where a program is",
    ("benchmarks/memory.py", "Path.write_text"): "Linux is told by /proc/self/clear_refs to count anew",
    ("benchmarks/regression/embedding.py", "Path.write_text"): "the same",
}
"""(file, call) -> why it needs no care"""

OF_OS = {"open", "link", "symlink", "rename", "renames", "replace", "truncate", "mkfifo", "mknod"}
OF_PATHS = {"write_text", "write_bytes", "touch", "rename", "symlink_to", "hardlink_to"}
OF_MODULES = {"shutil", "tempfile.mkstemp", "tempfile.NamedTemporaryFile", "tempfile.TemporaryFile", "sqlite3.connect"}
OPENERS = {"", "io", "gzip", "builtins", "tarfile", "codecs"}
UNPACKING = {"extract", "extractall"}
TO_MEMORY = {"save", "savez", "savez_compressed", "savefig", "savetxt"}
"""of numpy, torch and matplotlib: fine where they fill a ``BytesIO`` or ``StringIO`` of the same function"""


def writers(source: str) -> Iterator[tuple[int, str]]:
    """(line, call) of whatever can write a file."""
    tree = ast.parse(source)
    memory = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        if dotted(node.value.func).endswith(("BytesIO", "StringIO"))
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _writes(node, memory):
            yield node.lineno, dotted(node.func)
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "tempfile", "shutil", "sqlite3", "io"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in OF_MODULES or node.module == "shutil" or (node.module == "os" and alias.name in OF_OS):
                    yield node.lineno, name


def _writes(call: ast.Call, memory: set[str]) -> bool:
    name = dotted(call.func)
    owner, _, last = name.rpartition(".")
    if any(word.arg == "fileobj" for word in call.keywords):  # into a file that somebody has opened
        return False
    if last in ("open", "ZipFile", "GzipFile"):
        return owner == "os" or _mode_writes(call, 0 if last == "open" and owner not in OPENERS else 1)
    if owner in ("np", "numpy", "torch") or last == "savefig":
        first = call.args[0] if call.args else None
        return last in TO_MEMORY and not (isinstance(first, ast.Name) and first.id in memory)
    one = len(call.args) == 1 and not call.keywords
    return (
        name in OF_MODULES
        or owner == "shutil"
        or (owner == "os" and last in OF_OS)
        or (isinstance(call.func, ast.Attribute) and (last in OF_PATHS | UNPACKING or (last == "replace" and one)))
        or last in ("FileHandler", "fdopen", "FileIO")
    )


def _mode_writes(call: ast.Call, place: int) -> bool:
    """Of methods other than that of paths, which are called ``open`` as well, arguments are no modes."""
    named = [word.value for word in call.keywords if word.arg == "mode"]
    given = call.args[place : place + 1] if place or all(map(_mode, call.args[:1])) else []
    return any(not _mode(one) or bool(set("wax+") & set(str(one.value))) for one in named or given)


def _mode(node: ast.expr) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and set(node.value) <= set("rwaxbt+")


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a name with attributes; what comes before a call is named by what is called."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return dotted(node.func)
    return node.id if isinstance(node, ast.Name) else "?"


@pytest.mark.parametrize("package", PACKAGES)
def test_nobody_else_writes_files(package: str) -> None:
    files = [file for file in sorted((ROOT / package).rglob("*.py")) if file.relative_to(ROOT) != THE_WAY]
    assert files
    found = [
        f"{file.relative_to(ROOT)}:{line} {call}"
        for file in files
        for line, call in writers(file.read_text("utf-8"))
        if (str(file.relative_to(ROOT)), call) not in ALLOWED
    ]
    assert found == []


def test_what_is_allowed_is_still_there() -> None:
    there = {(name, call) for name, _ in ALLOWED for _, call in writers((ROOT / name).read_text("utf-8"))}
    assert there >= ALLOWED.keys()


@pytest.mark.parametrize(
    "source",
    [
        "open('a', 'w')",
        "open('a', mode='xb')",
        "open('a', how)",
        "path.open('ab')",
        "path.open(mode='r+')",
        "Path('a').write_text('b')",
        "(folder / 'a').write_bytes(b'')",
        "path.touch()",
        "draft.replace(path)",
        "os.replace(a, b)",
        "os.rename(a, b)",
        "os.open(path, flags)",
        "os.fdopen(3, 'w')",
        "from os import replace",
        "import shutil\nshutil.copy(a, b)",
        "from shutil import move",
        "tempfile.mkstemp()",
        "from tempfile import NamedTemporaryFile",
        "sqlite3.connect(path)",
        "np.save(path, array)",
        "numpy.savez(path, a=array)",
        "torch.save(model, path)",
        "figure.savefig(path)",
        "archive.extractall(folder)",
        "logging.FileHandler('log')",
        "zipfile.ZipFile(path, 'w')",
        "tarfile.open(path, 'w')",
        "tarfile.open(path, mode='x')",
    ],
)
def test_a_second_way_is_found(source: str) -> None:
    assert len(list(writers(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "open('a')",
        "Ledger.open(path, key)",
        "archive.open('a/b')",
        "path.open('rb')",
        "path.open(newline='')",
        "text.replace('a', 'b')",
        "replace(record, rounds=())",
        "out = io.BytesIO()\nnp.savez(out, a=array)",
        "identity.save(path)",
        "tarfile.open(fileobj=file, mode='w')",
        "zipfile.ZipFile(path)",
    ],
)
def test_reading_and_memory_are_not(source: str) -> None:
    assert list(writers(source)) == []
