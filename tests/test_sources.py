"""Our own sources hold none of the calls that run code from files, hide errors or draw from a global generator."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "condgen").rglob("*.py"), *(ROOT / "encoders").glob("*.py")])
FILES = [path for path in FILES if not {"encoders", "recipes"} & set(path.relative_to(ROOT).parts[1:-1])]

MODULES = {
    "pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "random",
    "torch.hub", "torch.package", "torch.distributed.checkpoint",
}  # fmt: skip
NAMES = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "torch.load", "torch.save", "torch.jit.load", "os.system", "os.popen", "tempfile.mktemp",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.safe_load",
    "torch.seed", "np.random.seed", "numpy.random.seed",
}  # fmt: skip
METHODS = {
    "extractall", "extract", "broadcast_object_list", "all_gather_object", "gather_object", "scatter_object_list",
}  # fmt: skip
MAY_PRINT = ("condgen/cli/", "condgen/progress.py")
MAY_SEED = {"condgen/recipe/build.py", "condgen/train/loop.py"}
"""torch's own initialisers draw from the global generator, and somebody else's encoder may."""
MAY_IMPORT_WEIGHTS = "condgen/store/foreign.py"
"""Where a state dict of another program is read, with ``weights_only=True``."""
GENERATORS = {"Philox", "Generator", "BitGenerator", "SeedSequence"}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def forbidden(source: str, name: str) -> list[str]:
    """What ``source``, the file ``name``, should not hold."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
            found += [f"{node.lineno}: import {m}" for m in modules if m in MODULES or m.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            full = {module, module.split(".")[0], *(f"{module}.{alias.name}" for alias in node.names)}
            found += [f"{node.lineno}: import {m}" for m in sorted(full & (MODULES | CALLS))]
        elif isinstance(node, ast.Call):
            found += [f"{node.lineno}: {reason}" for reason in _call(node, name)]
        elif isinstance(node, ast.Assign):
            targets = {dotted(target).rpartition(".")[2] for target in node.targets}
            if targets & {"MAX_IMAGE_PIXELS", "LOAD_TRUNCATED_IMAGES"} and getattr(node.value, "value", 0) in (
                None,
                True,
            ):
                found.append(f"{node.lineno}: {targets}")
        elif isinstance(node, ast.Attribute) and dotted(node).startswith(("torch.hub.", "torch.package.")):
            found.append(f"{node.lineno}: {dotted(node)}")
    return found


def _call(node: ast.Call, name: str) -> list[str]:
    called, words = dotted(node.func), {word.arg: getattr(word.value, "value", "?") for word in node.keywords}
    last = called.rpartition(".")[2]
    reasons = []
    imports = called == "torch.load" and words.get("weights_only") is True and name == MAY_IMPORT_WEIGHTS
    if (called in NAMES | CALLS and not imports) or (isinstance(node.func, ast.Attribute) and last in METHODS):
        reasons.append(called)
    if called in ("np.load", "numpy.load") and words.get("allow_pickle") is not False:
        reasons.append(f"{called} without allow_pickle=False")
    if words.get("shell") or "trust_remote_code" in words or words.get("allow_pickle") is True:
        reasons.append(f"{called} with {sorted(map(str, words))}")
    if called == "print" and not name.startswith(MAY_PRINT):
        reasons.append("print outside the command line")
    if called == "torch.manual_seed" and name not in MAY_SEED:
        reasons.append(called)
    if called.startswith(("np.random.", "numpy.random.")) and last not in GENERATORS:
        reasons.append(called)
    if called in ("torch.rand", "torch.randn", "torch.randint", "torch.randperm") and "generator" not in words:
        reasons.append(f"{called} without a generator")
    return reasons


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_no_forbidden_call(path: Path) -> None:
    assert forbidden(path.read_text(), str(path.relative_to(ROOT))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from torch import hub",
        "from torch import load",
        "import torch.distributed.checkpoint as dcp",
        "torch.load('x')",
        "torch.save({}, 'x')",
        "torch.hub.load('x')",
        "yaml.load(text, yaml.Loader)",
        "eval('1')",
        "exec('1')",
        "compile('1', '', 'eval')",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "np.load('x')",
        "np.load('x', allow_pickle=True)",
        "tar.extractall('x')",
        "tempfile.mktemp()",
        "Image.MAX_IMAGE_PIXELS = None",
        "ImageFile.LOAD_TRUNCATED_IMAGES = True",
        "torch.distributed.broadcast_object_list([1])",
        "print(1)",
        "np.random.rand(3)",
        "torch.randn(3)",
        "torch.manual_seed(0)",
        "import random",
    ],
)
def test_a_planted_call_is_caught(line: str) -> None:
    assert forbidden(f"def f():\n    {line}", "condgen/x.py")


@pytest.mark.parametrize(
    "line",
    [
        "model.eval()",
        "re.compile('x')",
        "torch.compile(model)",
        "np.load('x', allow_pickle=False)",
        "np.random.Philox(key=1)",
        "torch.randn(3, generator=g)",
        "safetensors.torch.load(data)",
    ],
)
def test_a_harmless_call_is_not(line: str) -> None:
    assert forbidden(line, "condgen/x.py") == []


def test_foreign_weights_are_read_without_unpickling_code() -> None:
    safe, file = "torch.load(f, weights_only=True)", MAY_IMPORT_WEIGHTS
    assert forbidden(safe, file) == []
    assert forbidden(safe, "condgen/x.py") and forbidden("torch.load(f)", file)
    assert forbidden("torch.load(f, weights_only=False)", file)
