"""examples/condgen-captions, installed as a stranger would: wheels in a virtual environment, its own tests there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "examples" / "condgen-captions"


def ran(*words: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_the_sample_package_passes_its_own_tests_beside_an_installed_condgen(tmp_path: Path) -> None:
    """torch and what else this environment has lie on the new one's path, behind its own: no gigabytes are fetched."""
    sources = tmp_path / "sources"
    for source in (ROOT, PACKAGE):  # copies: building leaves traces beside the sources
        names = subprocess.run(
            ["git", "ls-files", "-z", "."], cwd=source, capture_output=True, text=True, check=True
        ).stdout.split("\0")
        for name in filter(None, names):
            target = sources / source.name / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target, follow_symlinks=False)
    ran(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(ran(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    ran(python, "-m", "pip", "install", "-q", sources / ROOT.name, f"{sources / PACKAGE.name}[test]", cwd=tmp_path)
    where = ran(python, "-c", "import condgen as a, condgen_captions as b; print(a.__file__, b.__file__)", cwd=tmp_path)
    assert all(Path(file).is_relative_to(site) for file in where.split())
    said = ran(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=sources / PACKAGE.name)
    assert " passed" in said and "failed" not in said and "skipped" not in said
