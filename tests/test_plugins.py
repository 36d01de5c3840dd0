"""Encoders by name: found, missing, broken, claimed twice."""

from __future__ import annotations

from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from condgen import plugins
from condgen.condition import Batch, Condition, Encoder
from condgen.errors import ModelError, RecipeError


def points(monkeypatch: pytest.MonkeyPatch, *named: tuple[str, str, str]) -> None:
    """Lets the group hold these (name, target, distribution)."""
    entries = []
    for name, target, distribution in named:
        point: Any = metadata.EntryPoint(name, target, plugins.GROUP)
        entries.append(
            SimpleNamespace(name=name, value=target, load=point.load, dist=SimpleNamespace(name=distribution))
        )
    monkeypatch.setattr(metadata, "entry_points", lambda group: entries)


def test_the_installed_encoders_are_there() -> None:
    assert {"none", "vector", "labels"} <= set(plugins.encoder_names())
    assert issubclass(plugins.find_encoder("labels"), Encoder)
    assert all(not row["error"] for row in plugins.describe_encoders())


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'labels', or is there a package to pip install"):
        plugins.find_encoder("label")
    with pytest.raises(RecipeError, match=r"known here: .*labels.* pip install"):
        plugins.find_encoder("zzz")


def test_a_broken_plugin_spoils_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    points(
        monkeypatch,
        ("bad", "no_such_module_anywhere:X", "bad-package"),
        ("none", "condgen.encoders.plain:NoCondition", "condgen"),
    )
    with pytest.raises(ModelError, match="'bad' of bad-package cannot be imported"):
        plugins.find_encoder("bad")
    rows = {row["name"]: row for row in plugins.describe_encoders()}
    assert "cannot be imported" in rows["bad"]["error"] and not rows["none"]["error"]


def test_the_package_of_an_encoder_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plugins.package_of("labels") == ("condgen", metadata.version("condgen"))
    assert plugins.package_of("zzz") is None
    monkeypatch.setattr(plugins, "_registered", {"labels": Encoder})
    assert plugins.package_of("labels") is None


def test_two_owners_of_a_name_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, ("x", "condgen.encoders.plain:Vector", "one"), ("x", "condgen.encoders.labels:Labels", "two"))
    with pytest.raises(ModelError, match="one and two"):
        plugins.find_encoder("x")


def test_something_else_than_an_encoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, ("x", "math:pi", "odd"))
    with pytest.raises(ModelError, match="not a subclass"):
        plugins.find_encoder("x")


def test_an_encoder_of_this_process_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {})

    @plugins.register_encoder("none")
    class Mine(Encoder):
        def encode(self, batch: Batch) -> Condition:
            return Condition()

    assert plugins.find_encoder("none") is Mine
