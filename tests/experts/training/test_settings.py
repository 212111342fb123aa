"""Presets and options, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experts.training.distillation import Distillation
from experts.training.settings import (
    Settings,
    SettingsError,
    parse_arguments,
    recipe,
    training_arguments,
)


def settings(**changes: Any) -> Settings:
    return Settings(Path("model"), (Path("data"),), Path("out"), **changes)


def test_lima_is_the_papers() -> None:
    plan = recipe(settings(preset="lima"))
    assert (plan.epochs, plan.batch, plan.learning_rate) == (15, 32, 1e-5)
    assert (plan.residual_dropout, plan.max_length, plan.max_examples) == (0.3, 2048, 1000)
    arguments = training_arguments(
        Path("x"), batch=32, learning_rate=1e-5, steps=10, seed=0, **plan.arguments
    )
    assert (arguments.adam_beta1, arguments.adam_beta2) == (0.9, 0.95)
    assert (arguments.weight_decay, arguments.warmup_steps) == (0.1, 0)
    assert arguments.lr_scheduler_type == "polynomial"
    assert arguments.lr_scheduler_kwargs == {"lr_end": 1e-6, "power": 1.0}


def test_options_and_pass_through() -> None:
    plan = recipe(settings(epochs=2.0, batch=4, arguments=("weight_decay=0", "optim=sgd")))
    assert (plan.epochs, plan.batch) == (2.0, 4)
    assert plan.arguments["weight_decay"] == 0
    assert plan.arguments["optim"] == "sgd"
    assert parse_arguments(["a=1e-4", "b=true", "c=full_shard", 'd={"x": 1}']) == {
        "a": 1e-4,
        "b": True,
        "c": "full_shard",
        "d": {"x": 1},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": ("weight_decay",)}, "write key=value"),
        ({"arguments": ("learning_rate=1",)}, "option of its own"),
        ({"steps": 1, "epochs": 1.0}, "either --steps or --epochs"),
        ({"batch": 0}, "--batch must be above 0"),
        ({"held_out": 1.0}, "--held-out"),
        ({"warmup": 2.0}, "--warmup"),
        ({"distillation": Distillation(temperature=0.0)}, "--temperature"),
    ],
)
def test_bad_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        recipe(settings(**changes))


@pytest.mark.parametrize("others", [{"no_such_thing": 1}, {"optim": "bogus"}])
def test_arguments_that_transformers_refuses(others: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"refuses.*(no_such_thing|bogus)"):
        training_arguments(Path("x"), batch=1, learning_rate=1.0, steps=1, seed=0, **others)
