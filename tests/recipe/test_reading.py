"""Recipes from files, names and overrides; every sentence about a wrong one, with its file, line and field."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from pydantic import Field

import condgen
from condgen import plugins
from condgen.cores.layers import Dropout
from condgen.errors import CondgenError, RecipeError
from condgen.recipe import (
    EncoderSection,
    Recipe,
    encoder_options,
    read_recipe,
    recipe_description,
    recipe_from_dict,
    recipe_names,
    recipe_source,
    recipe_text,
    with_overrides,
)

BASE = "train:\n  max_steps: 5\n"


class Options(condgen.Options):
    size: int = Field(3, ge=1, description="A number.")
    words: tuple[str, ...] = Field((), description="Some text.")
    kind: str = Field("plain", description="Has a default.")


class Needy(condgen.Options):
    file: str = Field(description="Has no default.")


@pytest.fixture(autouse=True)
def encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three encoders of this process, forgotten after each test."""
    monkeypatch.setattr(plugins, "_registered", {})

    @condgen.register_encoder("toy")
    class Toy(condgen.Encoder):
        pass

    @condgen.register_encoder("needy")
    class NeedyToy(condgen.Encoder):
        pass

    @condgen.register_encoder("painter")
    class Painter(condgen.Encoder):
        task = "complete"

    Toy.Options = Options
    NeedyToy.Options = Needy


def read(folder: Path, text: str | bytes, overrides: Sequence[str] = ()) -> Recipe:
    file = folder / "fashion.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recipe(file, overrides)


def refusal(folder: Path, text: str | bytes, overrides: Sequence[str] = ()) -> RecipeError:
    with pytest.raises(RecipeError) as refused:
        read(folder, text, overrides)
    error = refused.value
    assert error.exit_code == 2
    assert "\n" not in error.message
    error.message = error.message.replace(f"{folder}/", "")
    return error


IN_A_FILE = [
    # unknown fields: the nearest known one, in this section or in another
    ("train:\n  learn_rate: 3", "line 2: train.learn_rate: no such field; did you mean train.learning_rate?"),
    (BASE + "model:\n  batch_size: 4", "line 4: model.batch_size: no such field; did you mean train.batch_size?"),
    ("learning_rate: 3", "line 1: learning_rate: no such field; did you mean train.learning_rate?"),
    ("trian:\n  max_steps: 3", "line 1: trian: no such field; did you mean train?"),
    (
        BASE + "sample:\n  zzz: 1",
        "line 4: sample.zzz: no such field; sample has count, during, seed, temperature, guidance, tile, labels.",
    ),
    (
        "<<: {a: 1}",
        "line 1: <<: no such field; a recipe has extends, description, data, encoder, model, train, sample.",
    ),
    # types and ranges
    ("train:\n  max_steps: ten", "line 2: train.max_steps: expected a whole number, found the text 'ten'."),
    ("train:\n  max_steps: 0", "line 2: train.max_steps: expected at least 1, found 0."),
    ("train:\n  max_steps: 1.5", "line 2: train.max_steps: expected a whole number, found 1.5."),
    ("train:\n  max_minutes: .nan", "line 2: train.max_minutes: expected a finite number, found nan."),
    ("train:\n  max_minutes: 1e309", "line 2: train.max_minutes: expected a finite number, found inf."),
    ("train: 5", "line 1: train: expected a section (key: value), found 5."),
    (
        "train:\n  max_steps: 010",
        "line 2: train.max_steps: expected a number, found the text '010'; write it plainly, as 8 or 1e-3.",
    ),
    (
        "train:\n  max_steps: true",
        "line 2: train.max_steps: expected a number, found true; write it plainly, as 8 or 1e-3.",
    ),
    (
        BASE + "data:\n  image_size: abc",
        "line 4: data.image_size: expected a whole number or a list, found the text 'abc'.",
    ),
    (BASE + "data:\n  image_size: 1e6", "line 4: data.image_size: expected at most 1024, found 1000000.0."),
    (BASE + "data:\n  image_size: [3]", "line 4: data.image_size: expected at least 2 values, found a list of 1."),
    (BASE + "data:\n  image_size: [24, x]", "line 4: data.image_size: expected a whole number, found the text 'x'."),
    (BASE + "data:\n  root: 3", "line 4: data.root: expected text, found 3; put it in quotes."),
    (BASE + "data:\n  channels: 2", "line 4: data.channels: expected 1, 3 or 4, found 2."),
    (BASE + "data:\n  download: maybe", "line 4: data.download: expected true or false, found the text 'maybe'."),
    (BASE + "sample:\n  labels: no", "line 4: sample.labels: expected a list, found the text 'no'."),
    (
        BASE + "model:\n  likelihood: bernouli",
        "line 4: model.likelihood: expected 'auto', 'categorical', 'bernoulli', 'logistic_mixture' or "
        "'continuous_mixture', found the text 'bernouli'; did you mean bernoulli?",
    ),
    (BASE + "model:\n  layers: 1000000", "line 4: model.layers: expected at most 200, found 1000000."),
    # several fields together
    (BASE + "model:\n  kernel_size: 4", "line 4: model.kernel_size must be odd, not 4."),
    (BASE + "model:\n  first_kernel_size: 4", "line 4: model.first_kernel_size must be odd, not 4."),
    *[
        (
            BASE + f"model:\n  dropout: {rate}",
            f"line 4: model.dropout: expected 0, or 1/256 to 255/256 (0.0040 to 0.9960), found {rate}.",
        )
        for rate in (0.0019, 0.0039, 0.9961, 0.99805)
    ],
    (
        BASE + "model:\n  core: pixelcnn++\n  small_field: channels\n  filters: 50",
        "line 6: model.filters: 50 does not divide by 4, the number of sets of channels.",
    ),
    *[
        (
            BASE + f"model:\n  core: {core}\n  likelihood: {likelihood}\n  likelihood_rule: classic",
            f"line 6: model.likelihood_rule: classic is a rule of logistic_mixture, and this likelihood is {resolved}; "
            "leave it out.",
        )
        for core, likelihood, resolved in (
            ("gated", "auto", "categorical"),
            ("pixelcnn++", "categorical", "categorical"),
            ("pixelcnn++", "continuous_mixture", "continuous_mixture"),
        )
    ],
    (
        BASE + "sample:\n  guidance: 1.5",
        "line 4: sample.guidance: 1.5 compares p(x | h) with p(x), which the model learns only with encoder.dropout; "
        "set encoder.dropout, to 0.1 for one, or leave guidance out.",
    ),
    (
        BASE + "sample:\n  guidance: -1\nencoder:\n  type: toy\n  dropout: 0.0",
        "line 4: sample.guidance: -1 compares p(x | h) with p(x), which the model learns only with encoder.dropout; "
        "set encoder.dropout, to 0.1 for one, or leave guidance out.",
    ),
    (BASE + "sample:\n  guidance: -1.01", "line 4: sample.guidance: expected at least -1.0, found -1.01."),
    (BASE + "sample:\n  guidance: 101", "line 4: sample.guidance: expected at most 100.0, found 101."),
    (BASE + "sample:\n  guidance: .nan", "line 4: sample.guidance: expected a finite number, found nan."),
    (
        BASE + "model:\n  likelihood: bernoulli",
        "line 4: model.likelihood: bernoulli is for binary images; set data.bit_depth to 1.",
    ),
    (
        BASE + "data:\n  channels: 3\nmodel:\n  filters: 2",
        "line 6: model.filters: every colour needs a feature map; give at least data.channels.",
    ),
    (
        BASE + "data:\n  flip: true",
        "line 4: data.flip: drawn portraits know left from right (looking left); leave it false.",
    ),
    *[
        (
            BASE + f"encoder:\n  type: {kind}\ndata:\n  pairs: identity",
            f"line 6: data.pairs: encoder.type={kind} shows what is known of the image itself, which that of another "
            "image is not; leave data.pairs at none.",
        )
        for kind in ("masked", "painter")
    ],
    ("train:\n", "line 1: train: give max_steps or max_minutes, or training would never end."),
    # the encoder's own fields
    (
        BASE + "encoder:\n  type: toi",
        "line 4: encoder.type: no encoder 'toi' is installed; did you mean 'toy', or is there a package "
        "to pip install?",
    ),
    (BASE + "encoder:\n  type: toy\n  sise: 1", "line 5: encoder.sise: no such field; did you mean encoder.size?"),
    (BASE + "encoder:\n  type: toy\n  size: 0", "line 5: encoder.size: expected at least 1, found 0."),
    (
        BASE + "encoder:\n  size: 3\n  type: toy\n  words: [a, 2]",
        "line 6: encoder.words: expected text, found 2; put it in quotes.",
    ),
    (
        BASE + "encoder:\n  type: toy\n  size: '3'",
        "line 5: encoder.size: expected a number, found the text '3'; write it plainly, as 8 or 1e-3.",
    ),
    (BASE + "encoder:\n  type: needy", "line 3: encoder.file: this field has no default; give it a value."),
    (BASE + "encoder: toy", "line 3: encoder: expected a section (key: value), found the text 'toy'."),
    (BASE + "encoder:\n  type: 4", "line 4: encoder.type: expected text, found 4; put it in quotes."),
    # not a recipe at all (the rest is in test_strict_yaml.py)
    (BASE + BASE, "line 3: train stands here and on line 1; keep one of them."),
    # names that would move the cursor or clear the screen
    (
        '"a\\e[2J": 1',
        "line 1: a\\x1b[2J: no such field; a recipe has extends, description, data, encoder, model, train, sample.",
    ),
]


@pytest.mark.parametrize(("text", "message"), IN_A_FILE, ids=[message[:60] for _, message in IN_A_FILE])
def test_a_wrong_file_is_refused_with_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    error = refusal(tmp_path, text)
    assert error.message == f"fashion.yaml, {message}"
    assert error.file == str(tmp_path / "fashion.yaml")
    if " stands here" not in message:
        assert error.field is not None and error.field.split(".")[0] in (
            "a\x1b[2J",
            *message.replace(":", ".").replace(" ", ".").split("."),
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "fashion.yaml: the recipe is empty; write train: and its fields, for one."),
        ("- 1", "fashion.yaml: a recipe is made of sections, found a list of 1; write train: and its fields, for one."),
        (b"a: \xff", "fashion.yaml, line 1: not UTF-8 text; save the file as UTF-8."),
        ("a" * 70_000, "fashion.yaml has 70,000 bytes, more than the 65,536 allowed; give a smaller file."),
        ("description: x", "fashion.yaml: train: give max_steps or max_minutes, or training would never end."),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert refusal(tmp_path, text).message == message


OVERRIDES = [
    (["train.max_steps"], "train.max_steps: an override is section.key=value, as in train.max_steps=100."),
    (["=3"], "=3: an override is section.key=value, as in train.max_steps=100."),
    (["sample.=3"], "sample.: no such field; sample has count, during, seed, temperature, guidance, tile, labels."),
    (["a.__class__=1"], "a: no such field; a recipe has description, data, encoder, model, train, sample."),
    (["train.learn_rate=1"], "train.learn_rate: no such field; did you mean train.learning_rate?"),
    (["lerning_rate=3"], "lerning_rate: no such field; did you mean train.learning_rate?"),
    (["train.max_steps=&a 1"], "train.max_steps: anchors and aliases (& and *) are not allowed; write the value out."),
    (["train.max_steps=" + "1" * 10**7], "train.max_steps: more than 64 KiB of YAML; shorten it."),
    (["train=3"], "train: expected a section (key: value), found 3."),
    (
        ["encoder.type=nope"],
        "encoder.type: no encoder 'nope' is installed; did you mean 'none', or is there a package to pip install?",
    ),
    (["encoder.size=0"], "encoder.size: expected at least 1, found 0."),
    (["description=hello: x"], "description: expected text, found a section."),
    (["train.max_steps=-1"], "train.max_steps: expected at least 1, found -1."),
]


@pytest.mark.parametrize(("overrides", "message"), OVERRIDES, ids=[message[:60] for _, message in OVERRIDES])
def test_a_wrong_override_is_refused_without_the_file(tmp_path: Path, overrides: list[str], message: str) -> None:
    error = refusal(tmp_path, BASE + "encoder:\n  type: toy\n", overrides)
    assert (error.message, error.file) == (message, None)


def test_overrides(tmp_path: Path) -> None:
    text = BASE + "data:\n  root: x\nencoder:\n  type: toy\n  size: 7\n"
    recipe = read(tmp_path, text, ["train.max_steps=6", "train.learning_rate=1e-4", "train.max_steps=7"])
    assert (recipe.train.max_steps, recipe.train.learning_rate) == (7, 1e-4)  # the later wins
    assert read(tmp_path, text, ["data.image_size=[24, 40]"]).data.image_size == (24, 40)
    assert read(tmp_path, text, ["data.root="]).data.root is None
    assert read(tmp_path, text, ["data.root=~/$(id)/%s"]).data.root == "~/$(id)/%s"  # nothing is expanded
    assert read(tmp_path, text, ["data.root=a=b"]).data.root == "a=b"
    # Python's forms
    for form in ({"train.max_steps": 9}, {"train": {"max_steps": 9}}, {"data.root": Path("y"), "train.max_steps": 9}):
        assert with_overrides(read(tmp_path, text), form).train.max_steps == 9
    assert with_overrides(read(tmp_path, text), {"data.root": Path("y")}).data.root == "y"
    with pytest.raises(RecipeError, match=r"Overrides are a list or a mapping, found the text 'train.max_steps=1'\."):
        read(tmp_path, text, "train.max_steps=1")


def test_another_encoder_type_drops_the_guidance_with_the_dropout(tmp_path: Path) -> None:
    text = BASE + "encoder:\n  type: toy\n  dropout: 0.1\nsample:\n  guidance: 2\n"
    assert read(tmp_path, text).sample.guidance == 2
    assert read(tmp_path, text, ["encoder.size=2"]).sample.guidance == 2
    assert read(tmp_path, text, ["encoder.type=none"]).sample.guidance == 0
    assert read(tmp_path, text, ["encoder.type=labels"]).sample.guidance == 0
    kept = read(tmp_path, text, ["encoder.type=labels", "encoder.dropout=0.2", "sample.guidance=-0.5"])
    assert kept.sample.guidance == -0.5
    refused = refusal(tmp_path, text, ["encoder.dropout=0"])
    assert refused.field == "sample.guidance" and "set encoder.dropout" in refused.message


def test_another_encoder_type_drops_the_labels_of_the_grids(tmp_path: Path) -> None:
    text = BASE + "encoder:\n  type: toy\nsample:\n  seed: 3\n  labels: [a, b]\n"
    assert read(tmp_path, text).sample.labels == ("a", "b")
    changed = read(tmp_path, text, ["encoder.type=none"]).sample
    assert (changed.labels, changed.seed) == ((), 3)
    assert read(tmp_path, text, ["encoder.type=none", "sample.labels=[c]"]).sample.labels == ("c",)


def test_another_encoder_type_drops_the_old_ones_fields(tmp_path: Path) -> None:
    text = BASE + "encoder:\n  type: toy\n  size: 7\n  kind: odd\n"
    assert read(tmp_path, text).encoder.options == {"size": 7, "words": [], "kind": "odd"}  # defaults are filled in
    assert read(tmp_path, text, ["encoder.type=none"]).encoder.options == {}
    # what comes with the new type stays, in whatever order it is said
    for order in (["encoder.type=needy", "encoder.file=x"], ["encoder.file=x", "encoder.type=needy"]):
        assert read(tmp_path, text, order).encoder.options == {"file": "x"}
    assert read(tmp_path, text, ["encoder.type=toy"]).encoder.options["size"] == 7  # the same type: nothing dropped
    resolved = with_overrides(read(tmp_path, text), ["encoder.type=needy", "encoder.file=x"])
    assert resolved.encoder.options == {"file": "x"}


def test_extends(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "description: base\ntrain:\n  max_steps: 5\n  batch_size: 8\nencoder:\n  type: toy\n  size: 7\n"
    )
    recipe = read(tmp_path, "extends: base.yaml\ntrain:\n  batch_size: 16\n", ["train.seed=3"])
    assert (recipe.train.max_steps, recipe.train.batch_size, recipe.train.seed) == (5, 16, 3)
    assert recipe.description == "base"
    assert read(tmp_path, "extends: base.yaml\nencoder:\n  type: none\n").encoder.options == {}
    # an error in the file below names that file
    (tmp_path / "base.yaml").write_text("train:\n  max_step: 5\n")
    assert refusal(tmp_path, "extends: base.yaml").message == (
        "base.yaml, line 2: train.max_step: no such field; did you mean train.max_steps?"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fashion.yaml", "recipes that extend each other in a circle; remove one extends."),
        ("other.yaml", "recipes that extend each other in a circle; remove one extends."),
        ("../x.yaml", "../x.yaml lies outside the recipe's folder; copy it beside the recipe."),
        ("/etc/passwd", "/etc/passwd lies outside the recipe's folder; copy it beside the recipe."),
        ("link.yaml", "link.yaml lies outside the recipe's folder; copy it beside the recipe."),
        (
            "https://a.org/x.yaml",
            "no recipe https://a.org/x.yaml beside this file or in condgen; give the name of a file",
        ),
        ("othr.yaml", "no recipe othr.yaml beside this file or in condgen; did you mean other.yaml?"),
        ("[a]", "expected the name of one recipe, found a list of 1."),
        ('"a\\0b"', "a\\x00b lies outside the recipe's folder; copy it beside the recipe."),
        ("x" * 300, "no recipe "),
    ],
)
def test_what_cannot_be_extended(tmp_path: Path, name: str, reason: str) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (tmp_path / "x.yaml").write_text(BASE)
    (folder / "link.yaml").symlink_to(tmp_path / "x.yaml")
    (folder / "other.yaml").write_text("extends: fashion.yaml\n" + BASE)
    error = refusal(folder, f"{BASE}extends: {name}\n")
    file = "other.yaml, line 1" if name == "other.yaml" else "fashion.yaml, line 3"
    assert error.message.startswith(f"{file}: extends: {reason}")
    assert error.field == "extends"


def test_a_chain_of_recipes_has_an_end(tmp_path: Path) -> None:
    for k in range(12):
        (tmp_path / f"{k}.yaml").write_text(f"extends: {k + 1}.yaml\n" + BASE)
    (tmp_path / "12.yaml").write_text(BASE)
    assert read_recipe(tmp_path / "3.yaml").train.max_steps == 5
    with pytest.raises(RecipeError, match="more than 10 recipes in a chain"):
        read_recipe(tmp_path / "0.yaml")


def test_a_recipe_is_found_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # a folder of that name is no recipe
    assert {"quickstart", "mnist", "fashion-mnist", "cifar10-gated", "cifar10-classes"} <= set(recipe_names())
    assert read_recipe("quickstart").data.source == "portraits"
    with pytest.raises(RecipeError, match=r"There is no recipe 'quikstart'; did you mean quickstart\?"):
        read_recipe("quikstart")
    with pytest.raises(
        RecipeError, match=r"nowhere\.yaml cannot be opened \(No such file or directory\); check the path"
    ):
        read_recipe("nowhere.yaml")
    with pytest.raises(RecipeError, match=r"a_folder\.yaml is not a regular file"):
        os.mkdir("a_folder.yaml")
        read_recipe("a_folder.yaml")
    (tmp_path / "mine.yaml").write_text("extends: quickstart\ntrain:\n  batch_size: 3\n")
    assert read_recipe("mine.yaml").train.batch_size == 3


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_comes_along(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.description and recipe_description(name) == recipe.description
    assert recipe_source(name).startswith("#")  # source, hardware and time, figure, command
    assert with_overrides(recipe, ()) == recipe
    assert recipe_from_dict(recipe.model_dump(mode="json"), "config.json") == recipe


def test_a_resolved_recipe_reads_back_as_itself(tmp_path: Path) -> None:
    text = (
        "description: 'no: 1e-3'\ntrain:\n  max_minutes: 1e-9\n  adam_betas: [0.5, 0.25]\n  skip_steps: [3, 4]\n"
        "data:\n  image_size: [24, 40]\n  root: 'no'\nencoder:\n  type: toy\n  words: ['1e-3', '010', 'true', é]\n"
    )
    recipe = read(tmp_path, text)
    (tmp_path / "again.yaml").write_text(recipe_text(recipe), encoding="utf-8")
    assert read_recipe(tmp_path / "again.yaml") == recipe
    assert recipe.encoder.options["words"] == ["1e-3", "010", "true", "é"]


def test_a_program_s_recipe_names_its_source() -> None:
    with pytest.raises(RecipeError, match=r"config\.json: train\.max_steps: expected at least 1, found 0\."):
        recipe_from_dict({"train": {"max_steps": 0}}, "config.json")


def test_encoder_options_of_a_section() -> None:
    options = encoder_options(EncoderSection.model_validate({"type": "toy", "size": 4}))
    assert isinstance(options, Options) and options.size == 4
    with pytest.raises(RecipeError, match=r"^encoder\.sise: no such field; did you mean encoder\.size\?$"):
        encoder_options(EncoderSection.model_validate({"type": "toy", "sise": 4}))


def test_yes_and_no_are_truth_values_where_the_schema_says_so(tmp_path: Path) -> None:
    recipe = read(
        tmp_path, BASE + "data:\n  source: folder\n  download: no\n  flip: yes\nsample:\n  labels: [no, yes]\n"
    )
    assert (recipe.data.download, recipe.data.flip, recipe.sample.labels) == (False, True, ("no", "yes"))


def test_fields_of_the_other_core_are_legal_and_unused(tmp_path: Path) -> None:
    gated = read(tmp_path, BASE + "model:\n  small_field: channels\n  filters: 50\n  scales: 7\n")
    assert gated.model.core == "gated"
    other = read(tmp_path, BASE + "model:\n  core: pixelcnn++\n  first_kernel_size: 4\n")
    assert other.model.field == 3


@pytest.mark.parametrize("rate", [0, 1 / 256, 0.004, 0.5, 255 / 256])
def test_rates_of_dropout_that_are_256ths_or_near_one(tmp_path: Path, rate: float) -> None:
    """Each is what the layer makes of it: none at 0 alone, and never all."""
    found = read(tmp_path, BASE + f"model:\n  dropout: {rate}\n").model.dropout
    mask = Dropout(torch.zeros(1, dtype=torch.int64), found).mask((1, 1, 1, 1))
    assert (mask.threshold > 0) == (rate > 0) and math.isfinite(mask.factor)


def test_every_error_is_a_condgen_error(tmp_path: Path) -> None:
    # wrong values of every kind in every field: a sentence each time, never an exception of pydantic's
    wrong: list[object] = [None, True, -1, 1e30, "x", "\x1b", [], [[]], ["x", 1], {"a": 1}, 2**70, "é" * 200]
    tried = 0
    for section, info in Recipe.model_fields.items():
        names = list(getattr(info.annotation, "model_fields", {})) or [None]
        for name in names:
            for value in wrong:
                tried += 1
                key = f"{section}.{name}" if name else section
                try:
                    with_overrides(read(tmp_path, BASE), {key: value})
                except CondgenError as error:
                    assert error.message.isprintable() and len(error.message) < 600
    assert tried > 500
