"""The direction of the arrows: rooms import from rooms below them, never up, not even inside a function."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import condgen

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "condgen"

ROOMS = [  # from top to bottom; rooms of one line do not import each other
    ["__main__"],
    ["cli"],
    ["train"],
    ["evaluate"],
    ["data"],
    ["draw"],
    ["store"],
    ["recipe"],
    ["autoencoder", "embedding"],
    ["model"],
    ["samplers"],
    ["cores"],
    ["likelihoods"],
    ["plugins"],
    ["testing"],
    ["probe"],
    ["condition"],
    ["npz", "native"],
    ["progress", "files"],
    ["streams"],
    ["errors"],
]
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}
PURE = {
    "autoencoder",
    "embedding",
    "model",
    "samplers",
    "cores",
    "likelihoods",
    "plugins",
    "testing",
    "probe",
    "condition",
}
"""They know nothing of files and progress bars either, though those stand below them."""
OUTSIDE = {"npz", "progress", "files"}
ENCODERS_MAY = {"streams", "errors"}
"""What a third party's encoder may import beside the names in ``condgen.__all__``."""


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that ``tree``, a file of ``package``, imports from condgen, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "condgen")
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                yield from ((node.lineno, ".".join([*above, node.module or alias.name])) for alias in node.names)
            elif node.module == "condgen":
                for alias in node.names:
                    yield node.lineno, condgen._HOME.get(alias.name, f"condgen.{alias.name}")
            elif (node.module or "").startswith("condgen."):
                yield node.lineno, node.module or ""
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and str(node.args[0].value).startswith("condgen."):
                yield node.lineno, str(node.args[0].value)


def breaches(room: str, source: str, package: str = "condgen") -> list[str]:
    """The imports in ``source``, a file of ``room`` in ``package``, that point up or sideways."""
    found = []
    for line, name in imported(ast.parse(source), package):
        target = name.split(".")[1] if "." in name else ""
        if target == room or (target == "recipes" and room == "recipe"):  # recipes/ holds data files
            continue
        sees = target in RANK and RANK[target] > RANK[room] and not (room in PURE and target in OUTSIDE)
        if not sees:
            found.append(f"line {line}: {room} imports {name}")
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(path for path in PACKAGE.rglob("*.py") if room_of(path) not in ("__init__", "encoders", "recipes"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_no_arrow_points_up(path: Path) -> None:
    assert room_of(path) in RANK, f"give {path} a room in this test and in docs/"
    package = ".".join(path.parent.relative_to(ROOT).parts)
    assert breaches(room_of(path), path.read_text(), package) == []


@pytest.mark.parametrize("path", sorted((ROOT / "encoders").glob("*.py")), ids=lambda path: path.name)
def test_encoders_import_what_a_third_party_may(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "condgen":
            assert {alias.name for alias in node.names} <= set(condgen.__all__), f"{path.name}:{node.lineno}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("condgen."):
            room = (node.module or "").split(".")[1]
            assert room in ENCODERS_MAY or room == "encoders", f"{path.name}:{node.lineno} imports {node.module}"
        elif isinstance(node, ast.Import):
            assert all(not alias.name.startswith("condgen.") for alias in node.names), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize(
    ("room", "source", "caught"),
    [
        ("store", "from condgen.recipe import Recipe", False),
        ("store", "from condgen.train import train", True),
        ("store", "def f():\n    from condgen.draw import grid", True),
        ("store", "import importlib\nimportlib.import_module('condgen.cli')", True),
        ("store", "from condgen import train", True),
        ("store", "from condgen import Condition", False),
        ("files", "from condgen.progress import Progress", True),
        ("cores", "from condgen.progress import Progress", True),
        ("evaluate", "if TYPE_CHECKING:\n    import condgen.train.loop", True),
        ("model", "from condgen.nowhere import x", True),
        ("model", "from .recipe import x", True),
        ("model", "from . import recipe", True),
        ("model", "from . import cores", False),
        ("data", "import torch\nfrom condgen.data.sources import x", False),
    ],
)
def test_a_planted_arrow_is_caught(room: str, source: str, caught: bool) -> None:
    assert bool(breaches(room, source)) is caught


def test_importing_the_package_or_its_command_line_costs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, condgen, condgen.cli, condgen.progress; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_package_on_disk_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("__init__.py")}
    assert sorted(listed) == sorted(
        {".".join(folder.parts) for folder in folders} | {"condgen.encoders", "condgen.recipes"}
    )


LIMITS = {"cores": 350, "likelihoods": 350, "train": 350}
"""Each is to be read in one sitting."""


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LIMITS.get(room_of(path), 480)
