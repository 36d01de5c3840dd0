"""The command line: one short file per command, which parses, calls one function and prints.

``outcome.py`` alone turns errors into sentences and exit codes. torch is imported inside commands, so that
``condgen --help`` answers at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The console script ``condgen``."""
    from condgen.cli.app import app
    from condgen.cli.outcome import run

    sys.exit(run(app(), sys.argv[1:]))
