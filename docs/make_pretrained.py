"""Makes the models that ship with the package out of two runs, fp16, with their cards.

condgen train face-embedding data.image_size=24 ...     (the commands stand in the cards)
python docs/make_pretrained.py --embedding runs/face-embedding --portraits runs/portraits
python benchmarks/portrait_figures.py ... > figures.json
python docs/make_pretrained.py --embedding runs/face-embedding --portraits runs/portraits --figures figures.json
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import condgen
from condgen.data import open_data
from condgen.evaluate.verification import verification_report
from condgen.recipe import Recipe, read_recipe
from condgen.recipe.schema import EncoderSection
from condgen.store import load, save_model

FOLDER = Path(condgen.__file__).parent / "pretrained"
SEEN = (
    "**Trained on drawn portraits alone**: pictures that condgen draws by itself (`data.source: portraits`). It has "
    "never seen a photograph, nor a picture of a real person."
)
EMBEDDING = (
    "# face-embedding: who is in a drawn portrait, as a unit vector",
    SEEN,
    "A small convolutional network of 0.68 million parameters (fp16 here, fp32 once loaded): a picture of {side}x"
    "{side} pixels of an aligned face becomes {size} numbers; pictures of one person lie near each other. Triplets.",
    "    {command}",
    "{steps:,} steps in {minutes:.0f} minutes, one thread on a core of its own, AMD EPYC (avx512).",
    "Over all pairs of {examples:,} pictures of {people} drawn people of the test split: AUC {auc:.4f}, TAR {tar:.3f} "
    "at FAR 1e-3 (brightness-normalised raw pixels: AUC {baseline:.4f}).",
    "Of photographs it tells light, colours, hair and glasses rather than people: nobody can be recognised by it. It "
    "is what `encoder.weights: face-embedding` of a recipe, `condgen embed --model face-embedding` and the model "
    "`portraits` use.",
)
PORTRAITS = (
    "# portraits: new portraits of the person in one picture",
    SEEN,
    "Gated PixelCNN with a mixture of logistics at {side}x{side} pixels, {parameters:.2f} million parameters beside "
    "those of the frozen encoder `face-embedding` (fp16 here, fp32 once loaded). The condition is the embedding of "
    "another picture of the same person and the mean colours of its face, hair and background; it enters as a bias and "
    "as a map.",
    "    {command}",
    "{steps:,} steps in {minutes:.0f} minutes, one thread on a core of its own, AMD EPYC (avx512).",
    "    condgen portraits --source face.jpg\n    condgen interpolate a.jpg b.jpg",
    "{figures}",
    "What comes out is a drawing: of a photograph it keeps the colours of face and hair rather than the features. It "
    "cannot be used to recognise or imitate anybody.",
)


def text(parts: Sequence[str], **values: Any) -> str:
    """The paragraphs of a card, filled in and broken into lines; indented ones are code."""
    filled = "\n\n".join(parts).format(**values).split("\n\n")
    broken = [part if part.startswith(("    ", "#")) else textwrap.fill(part, 110, **_WHOLE) for part in filled]
    return "\n\n".join(broken) + "\n"


_WHOLE: Any = {"break_long_words": False, "break_on_hyphens": False}


def portable(recipe: Recipe) -> Recipe:
    """The recipe with the encoder's weights by the name under which they ship."""
    section = recipe.encoder.model_dump()
    if section.get("weights"):
        section["weights"] = "face-embedding"
    return recipe.model_copy(update={"encoder": EncoderSection.model_validate(section)})


def spent(run: Path) -> dict[str, float]:
    """Steps and minutes of the last checkpoint."""
    last = max((run / "checkpoints").glob("step-*"))
    state = json.loads((last / "state.json").read_text())
    return {"steps": int(last.name.removeprefix("step-")), "minutes": state["counters"]["seconds"] / 60}


def changes(recipe: Recipe, name: str) -> str:
    """The command that trains such a run: the recipe by name, and what of it was changed."""
    base, own = read_recipe(name).model_dump(mode="json"), recipe.model_dump(mode="json")
    words = [
        f"{section}.{field}={value}"
        for section, fields in own.items()
        if isinstance(fields, dict)
        for field, value in fields.items()
        if base[section].get(field) != value
    ]
    return " ".join(["condgen train", name, *words])


def figures_of(report: dict[str, Any]) -> str:
    """What benchmarks/portrait_figures.py found, in words."""
    drawn, walk, photos = report["drawings"], report["walk"], report["photographs"]
    parts = (
        "Measured by `benchmarks/portrait_figures.py` at temperature {temperature}{guided}:",
        "{people} drawn people never seen, {portraits} portraits each: by its embedding a portrait found its own "
        "source {found[share]:.1%} +- {found[ci95]:.1%} of the time (chance {chance:.0%}; real other views "
        "{found_real[share]:.1%}). Portraits of one source differ by {variety:.1f} of 255, real views by "
        "{variety_real:.1f}.",
        "A walk of {steps} steps: neighbours differ by {neighbours:.2f}, two rows by {between_rows:.1f}.",
        "{photographed} photographs (one each of so many people, Labeled Faces in the Wild; measured, never trained "
        "on), {portraits} portraits each: rank correlation of source and portraits {face_colour:.2f} in the colour of "
        "the face, {hair_brightness:.2f} in the brightness of the hair region. By its embedding a portrait found its "
        "own photograph {own[share]:.1%} of the time (chance {photo_chance:.0%}).",
    )
    guided = f" and guidance {report['guidance']:g}" if report["guidance"] else ""
    values = drawn | walk | {"temperature": report["temperature"], "guided": guided, "chance": 1 / drawn["people"]}
    values |= {key: photos[key] for key in ("face_colour", "hair_brightness")}
    values |= {"photographed": photos["people"], "own": photos["found"], "photo_chance": 1 / photos["people"]}
    return text(parts, **values).strip()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--embedding", type=Path, required=True)
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--figures", type=Path, default=None, help="the JSON of benchmarks/portrait_figures.py")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    model = load(options.embedding)
    data = open_data(model.recipe.data, "test")
    found, _ = verification_report(model, data, limit=3000)
    card = text(
        EMBEDDING,
        side=model.info.height,
        size=model.encoder.vector_size,
        command=changes(model.recipe, "face-embedding"),
        examples=found["examples"],
        people=found["people"],
        auc=found["auc"],
        tar=found["tar_at_far_1e-3"],
        baseline=found["baseline_auc"],
        **spent(options.embedding),
    )
    save_model(model, portable(model.recipe), FOLDER / "face-embedding", card, force=True, halved=True)
    model = load(options.portraits)
    recipe = portable(model.recipe).model_copy(update={"sample": read_recipe("portraits").sample})  # as drawn today
    card = text(
        PORTRAITS,
        side=model.info.height,
        parameters=sum(weight.numel() for weight in model.core.parameters()) / 1e6,
        command=changes(recipe, "portraits"),
        figures="" if options.figures is None else figures_of(json.loads(options.figures.read_text())),
        **spent(options.portraits),
    )
    save_model(model, recipe, FOLDER / "portraits", card, force=True, halved=True)


if __name__ == "__main__":
    main()
