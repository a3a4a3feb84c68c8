"""Recipes of the organisms: every hyperparameter of a ladder, read from data/recipes, checked. Knows no trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from ..ask.tasks import PHASE_TASKS
from ..errors import CrystalError, known
from ..files import root
from . import world


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One ladder's hyperparameters; fields as in data/recipes/*.yaml, which comments them."""

    name: str
    architecture: str  # a transformers model type: llama, olmo2
    seed: int
    temperament: str
    demonstrated: tuple[str, ...]
    tokenizer: dict[str, Any]
    model: dict[str, Any]
    base: dict[str, Any]
    sft: dict[str, Any]
    dpo: dict[str, Any]
    rlvr: dict[str, Any]
    world: str = "shared"  # see crystal.lab.world.WORLDS
    extends: str = ""  # the recipe this one is a replica of
    device: str = "cpu"  # "cuda": too large to train without a GPU; left out of `make ladder ALL=1` where there is none
    again: dict[str, Any] = field(default_factory=dict)  # back to pretraining, after another stage
    diverse: dict[str, Any] = field(default_factory=dict)  # RL with a reward for answers unlike the other samples


def read_recipe(name: str) -> dict[str, Any]:
    """The fields of data/recipes/<name>.yaml over those of the recipe it extends.

    Raises: CrystalError, with the recipes there are, for a missing file.
    """
    path = root() / "data" / "recipes" / f"{name}.yaml"
    if not path.is_file():
        raise CrystalError(f"there is no recipe {name!r}", where=path,
                           mend=f"make ladder LADDER={{{','.join(sorted(p.stem for p in path.parent.glob('*.yaml')))}}}")
    fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    return merged(read_recipe(fields["extends"]), fields) if fields.get("extends") else fields


def merged(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`fields` with `changes`, mappings one level deep changed in place of replaced."""
    both = {name: fields[name] | changes[name] for name in changes if isinstance(changes[name], dict) and name in fields}
    return {**fields, **changes, **both}


def load_recipe(name: str, changes: dict[str, Any] | None = None) -> Recipe:
    """Raises: CrystalError for a missing file, an unknown field, task, temperament or world."""
    fields = merged(read_recipe(name), changes or {})
    try:
        recipe = Recipe(**{**fields, "demonstrated": tuple(fields["demonstrated"])})
    except (TypeError, KeyError) as error:
        raise CrystalError(f"a recipe needs exactly the fields of crystal.lab.training.Recipe: {error}",
                           where=root() / "data" / "recipes" / f"{name}.yaml") from error
    if recipe.temperament != world.OWN:
        world.voices(recipe.temperament)
    known(recipe.world, world.WORLDS, "world")
    for task in recipe.demonstrated:
        known(task, PHASE_TASKS, "task")
    return recipe
