"""``condgen encoders``: what ``encoder.type`` may be here."""

from __future__ import annotations

from condgen.cli.options import Debug, Json, Quiet
from condgen.cli.outcome import answer
from condgen.errors import shown


def encoders(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """List the encoders that are installed; a broken one with the reason."""
    from condgen.plugins import describe_encoders

    rows = describe_encoders()
    width = max(len(shown(row["name"])) for row in rows)
    lines = []
    for row in rows:
        summary = f"broken: {row['error']}" if row["error"] else row["summary"]
        lines.append(f"{shown(row['name']):<{width}}  {shown(summary)} [{shown(row['source'])}]")
    answer({"encoders": rows}, "\n".join(lines), as_json)
