"""The command line: one short file per command, which parses, calls one function and prints.

``outcome.py`` alone turns errors into sentences and exit codes. torch is imported inside commands, so that
``condgen --help`` answers at once.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The console script ``condgen``."""
    # OpenMP's threads spin while they wait, which is fast on idle cores and ten times slower beside another program;
    # this many turns are nearly as fast there and bearable here. Read once, when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        from condgen.cli.app import app
        from condgen.cli.outcome import run

        code = run(app(), sys.argv[1:])
    except KeyboardInterrupt:  # before run, which has a sentence for it
        code = 130
    sys.exit(code)
