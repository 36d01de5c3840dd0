"""All commands under one name."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated, Any

import typer

from condgen.cli.complete import complete
from condgen.cli.doctor import doctor
from condgen.cli.embed import embed
from condgen.cli.encoders import encoders
from condgen.cli.evaluate import evaluate
from condgen.cli.from_views import colorize, upscale
from condgen.cli.import_ import import_
from condgen.cli.interpolate import interpolate
from condgen.cli.portraits import portraits
from condgen.cli.recipes import recipes
from condgen.cli.reconstruct import reconstruct
from condgen.cli.sample import sample
from condgen.cli.score import score
from condgen.cli.train import train
from condgen.cli.verify import verify

_EPILOG = (
    "RUN is a run folder, a model folder, the name of a run in ./runs, or of a model that ships with condgen: "
    "face-embedding, portraits. Every command takes --json. "
    "Exit codes: 0 done, 1 a check failed, 2 wrong command line or recipe, 3 unusable input, 4 unusable model, "
    "5 NaN or infinity, 6 the machine is in the way, 130 interrupted, 143 terminated."
)


def _version(asked: bool) -> None:
    if asked:
        print(f"condgen {metadata.version('condgen')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Conditional PixelCNNs with any encoder: p(image | anything), evaluated and sampled exactly."""


def app() -> Any:
    """The command ``condgen``, as a click group."""
    commands = typer.Typer(
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"max_content_width": 110},
    )
    commands.callback(epilog=_EPILOG)(_root)
    for command in (
        train,
        sample,
        complete,
        upscale,
        colorize,
        reconstruct,
        portraits,
        interpolate,
        embed,
        evaluate,
        score,
        verify,
        import_,
        recipes,
        encoders,
        doctor,
    ):
        # an encoder may have words of its own: --source face.jpg
        commands.command(
            command.__name__.rstrip("_"),
            context_settings={
                "ignore_unknown_options": command in (sample, complete, upscale, colorize, score, interpolate, embed)
            },
        )(command)
    return typer.main.get_command(commands)
