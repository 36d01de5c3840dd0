"""Some training examples lose their condition; what the model then knows without one, and who is refused it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from building import condition_for, random_images, tiny_model
from pydantic import Field
from tiny_run import tiny_recipe
from torch import Tensor

from condgen import plugins, streams
from condgen.condition import Condition, DataInfo, Encoder, Options
from condgen.errors import ModelError, RecipeError
from condgen.model import ConditionalModel
from condgen.recipe import recipe_from_dict, recipe_text, with_overrides
from condgen.recipe.build import build_model


def batch_for(model: ConditionalModel, count: int, epoch: int = 0) -> dict[str, Tensor]:
    h = condition_for(model, count)
    keys = streams.example_keys(torch.arange(count).numpy(), 0, "example", epoch)
    batch = {"image": random_images(model, count), "key": keys}
    return batch | {name: part for name, part in (("vector", h.vector), ("map", h.map)) if part is not None}


def lost(condition: Condition) -> Tensor:
    """Which examples have no condition, bool (B,): whole examples, vector and map together."""
    zero = torch.stack([(part == 0).flatten(1).all(1) for part in condition.parts])
    some = torch.stack([(part == 0).flatten(1).any(1) for part in condition.parts])
    assert torch.equal(zero, some) and bool((zero == zero[0]).all())
    return zero[0]


def test_examples_lose_their_condition_as_often_as_asked_and_only_in_training() -> None:
    model = tiny_model(conditioning="vector+map", condition_dropout=0.3).train()
    batch = batch_for(model, 4000)
    dropped = lost(model.condition(batch))
    assert abs(float(dropped.double().mean()) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)
    assert not lost(model.eval().condition(batch)).any()
    model.train()
    assert not lost(model.condition({name: part for name, part in batch.items() if name != "key"})).any()
    other = lost(model.condition(batch_for(model, 4000, epoch=1)))
    assert not torch.equal(other, dropped)  # another epoch, other examples
    assert abs(float((other & dropped).double().mean()) - 0.09) < 4 * math.sqrt(0.09 / 4000)


def test_who_loses_it_does_not_depend_on_batch_mates() -> None:
    model = tiny_model(conditioning="global", condition_dropout=0.5).train()
    batch = batch_for(model, 20)
    together = model.nll(batch)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    apart = torch.cat([model.nll({name: part[order[i : i + 3]] for name, part in batch.items()}) for i in (0, 3, 6)])
    torch.testing.assert_close(apart, together[order[:9]], rtol=1e-12, atol=0)


def test_the_loss_of_an_example_without_condition_is_that_of_no_condition() -> None:
    model = tiny_model(conditioning="vector+map", condition_dropout=0.5).train()
    batch = batch_for(model, 16)
    dropped = lost(model.condition(batch))
    assert 0 < int(dropped.sum()) < 16
    own = -model.log_prob(batch["image"], condition_for(model, 16))
    without = -model.log_prob(batch["image"])
    torch.testing.assert_close(model.nll(batch), torch.where(dropped, without, own), rtol=1e-12, atol=0)
    zeros = Condition(torch.zeros(1, 3), torch.zeros(1, 2, 8, 8))
    torch.testing.assert_close(without, -model.log_prob(batch["image"], zeros), rtol=0, atol=0)
    torch.testing.assert_close(without, -model.log_prob(batch["image"], model.no_condition(16)), rtol=0, atol=0)


def test_a_trainable_encoder_learns_from_those_that_keep_theirs_alone() -> None:
    recipe = recipe_from_dict(
        {
            "data": {"source": "npz", "image_size": 4, "channels": 1, "bit_depth": 2},
            "encoder": {"type": "labels", "code": "embedding", "size": 3, "dropout": 0.5},
            "model": {"filters": 4, "layers": 2, "kernel_size": 3},
            "train": {"max_steps": 1},
        },
        "tests",
    )
    model = build_model(recipe, DataInfo(1, 4, 4, 2, classes=tuple("abcdefgh"))).train()
    assert model.condition_dropout == 0.5
    keys = streams.example_keys(torch.arange(8).numpy(), 0, "example", 0)
    batch = {"image": random_images(model, 8), "label": torch.arange(8), "key": keys}
    model.nll(batch).sum().backward()
    gradient = dict(model.encoder.named_parameters())["embedding.weight"].grad
    assert gradient is not None
    dropped = lost(model.condition(batch))
    assert 0 < int(dropped.sum()) < 8
    assert torch.equal((gradient == 0).all(1), dropped)


def test_without_a_condition_it_samples_as_many_images_as_are_known() -> None:
    model = tiny_model(conditioning="global", condition_dropout=0.1)
    x, nats = model.sample_and_log_prob(None, 3, seed=2)
    torch.testing.assert_close(nats, model.log_prob(x).double(), rtol=1e-12, atol=0)
    assert torch.equal(x, model.sample(model.no_condition(), 3, seed=2))
    assert torch.equal(x, model.sample(Condition(), 3, seed=2))
    known, mask = random_images(model, 2), torch.zeros(8, 8, dtype=torch.bool)
    mask[:2] = True
    kept = model.sample(None, 2, known=known, mask=mask)
    assert torch.equal(kept[:, :, mask], known.repeat_interleave(2, 0)[:, :, mask])


def test_models_without_an_unconditional_branch_refuse_in_one_sentence() -> None:
    model = tiny_model(conditioning="global")
    with pytest.raises(RecipeError, match=r"never trained without its condition; train one with encoder\.dropout"):
        model.no_condition()
    with pytest.raises(RecipeError, match="is conditional: give it a condition"):
        model.log_prob(random_images(model, 1))
    plain = tiny_model()
    assert not plain.no_condition().parts


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (1.5, "encoder.dropout: expected less than 1.0, found 1.5"),
        (1, "encoder.dropout: expected less than 1.0, found 1"),
        (-0.1, "encoder.dropout: expected at least 0.0, found -0.1"),
        (math.nan, "encoder.dropout: expected .*, found nan"),
        (math.inf, "encoder.dropout: expected .*, found inf"),
        ("0.5", "encoder.dropout: expected a number, found the text '0.5'"),
        (False, "encoder.dropout: expected a number, found false"),
        (None, "encoder.dropout: expected a number, found nothing"),
    ],
)
def test_rates_that_are_refused(tmp_path: Path, value: object, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence) as error:
        tiny_recipe(tmp_path, encoder__dropout=value)
    assert error.value.field == "encoder.dropout" and error.value.exit_code == 2


def test_the_rate_belongs_to_the_section_and_not_to_the_encoder(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, encoder__dropout=0.25)
    assert recipe.encoder.dropout == 0.25 and "dropout" not in recipe.encoder.options
    assert recipe.encoder.options["code"] == "one_hot"
    assert "dropout: 0.25" in recipe_text(recipe)
    assert with_overrides(recipe, ["train.max_steps=3"]).encoder == recipe.encoder
    assert with_overrides(recipe, ["encoder.type=none"]).encoder.dropout == 0
    with pytest.raises(RecipeError, match=r"encoder\.dropot: no such field; did you mean encoder\.dropout\?"):
        with_overrides(recipe, ["encoder.dropot=0.1"])
    with pytest.raises(RecipeError, match="without an encoder there is no condition to drop") as error:
        tiny_recipe(tmp_path, encoder={"type": "none", "dropout": 0.1})
    assert error.value.field == "encoder.dropout"


def test_an_encoder_with_a_field_of_that_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Options):
        dropout: float = Field(0.0, description="Its own.")

    class Clash(Encoder):
        Options = Own
        vector_size = 1

        def encode(self, batch: Any) -> Condition:
            raise NotImplementedError

    monkeypatch.setitem(plugins._registered, "clash", Clash)
    with pytest.raises(ModelError, match="clash has a field of its own called dropout"):
        tiny_recipe(tmp_path, encoder__type="clash")
