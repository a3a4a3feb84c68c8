"""Recipes of the organisms: every hyperparameter of a ladder, read from data/recipes, checked. Knows no trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .. import texts
from ..ask.tasks import PHASE_TASKS
from ..errors import CrystalError, known
from ..files import root
from ..fits import count, flag, misfit, number, shown, text
from . import world

# What a field may hold. Of a stage: numbers under any name but those that are words or lists.
_STAGE = {"checkpoints": [count], "steps": count, "batch": count, "prompts": count,
          "generations": count, "schedule": text, "style": text, "judge": text, "shuffled": flag,
          "until": text, "source": text, "revision": text,
          "licence": text, "scheme": text, "parameters": count}
_ANY = (text, number, flag, [count], [text])
_FIELDS = {"name": text, "title": text, "architecture": text, "seed": count, "temperament": text,
           "demonstrated": [text], "tokenizer": {text: _ANY}, "model": {text: _ANY}, "world": text,
           "extends": text, "device": text}
STAGES = ("base", "sft", "dpo", "rlvr", "again", "diverse")
INSTRUCTIONS = "instructions"  # world of a recipe that post-trains a real base
FIXED = "steps"  # `until: steps`: after the recipe's own steps, as a stage ends that says nothing
# How SFT may end: `until`, one of these rules. The loss of so many `held_out` dialogues is taken
# `every` so many steps; training stops once `patience` of them in a row lie no more than
# `threshold` nats a token below the lowest before, or at `steps`. SFT ends at the step of lowest
# held-out loss.
RULES: dict[str, dict[str, Any]] = {
    "converged": {"held_out": 512, "every": 32, "patience": 4, "threshold": 0.002, "steps": 1024},
}


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
    title: str = ""  # as shown in figures; "": its name
    extends: str = ""  # the recipe this one is a replica of
    device: str = "cpu"  # "cuda": too large to train without a GPU; left out of `make ladder ALL=1` where there is none
    again: dict[str, Any] = field(default_factory=dict)  # back to pretraining, after another stage
    diverse: dict[str, Any] = field(default_factory=dict)  # RL with a reward for answers unlike the other samples


def read_recipe(name: str, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of data/recipes/<name>.yaml over those of the recipe it extends.

    heirs: the recipes that extend this one. Raises: CrystalError, with the recipes there are, for a
    missing file, and for one that cannot be read, holds what no recipe holds, or extends itself.
    """
    path = root() / "data" / "recipes" / f"{name}.yaml"
    if name not in (there := sorted(other.stem for other in path.parent.glob("*.yaml"))):
        raise CrystalError(f"there is no recipe {name!r:.60}", where=path.parent,
                           mend=f"make ladder LADDER={{{','.join(there)}}}")
    mend = f"correct it, or git checkout -- data/recipes/{name}.yaml"
    fields = texts.parse_yaml(texts.read_text(path, mend), path, mend)
    check(fields, path, mend)
    if not (origin := fields.get("extends")):
        return fields
    if origin in (name, *heirs):
        raise CrystalError(f"the recipe extends itself, by way of {origin}", where=path, mend=mend)
    return merged(read_recipe(origin, (name, *heirs)), fields)


def check(fields: Any, where: object, mend: str) -> None:
    """Do nothing if those fields of a recipe that are there are of their types.

    Raises: CrystalError naming the first that is not.
    """
    if not isinstance(fields, dict):
        raise CrystalError(f"a recipe must be a mapping of fields, is {shown(fields)}",
                           where=where, mend=mend)
    shapes = {name: shape for name, shape in _FIELDS.items() if name in fields}
    wrong = misfit(fields, shapes, "the recipe")
    for stage in STAGES if wrong is None else ():
        wrong = wrong or (misfit(fields[stage], {text: _ANY}, stage) or _stage(fields[stage], stage)
                          if stage in fields else None)
    if wrong:
        raise CrystalError(wrong, where=where, mend=mend)


def _stage(spec: dict[str, Any], stage: str) -> str | None:
    """What is wrong with a stage whose values are plain."""
    wrong = misfit(spec, {name: _STAGE.get(name, number) for name in spec}, stage)
    until = spec.get("until", FIXED)
    if wrong or until == FIXED:
        return wrong
    if until not in RULES:
        rules = ", ".join([FIXED, *RULES])
        return f"{stage} has no rule {until!r:.60} to end by; say one of: {rules}"
    if stage != "sft":
        return f"{stage} cannot end by a rule, only sft has a held-out loss; say steps"
    if "steps" in spec:
        return f"sft ends by the rule {until!r}, which knows no 'steps'; say until: {FIXED}"
    return None


def rule(spec: dict[str, Any]) -> dict[str, Any] | None:
    """The rule by which a stage ends, with its name as `until`; None where its steps are fixed."""
    until = spec.get("until", FIXED)
    return None if until == FIXED else {"until": until} | RULES[until]


def on_the_way(spec: dict[str, Any]) -> list[int]:
    """Steps whose rungs a stage keeps, as far as it gets; under a rule powers of two by default."""
    most = (rule(spec) or {"steps": 0})["steps"]
    return spec.get("checkpoints", [2**k for k in range(most.bit_length()) if 2**k < most])


def merged(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`fields` with `changes`, mappings one level deep changed in place of replaced."""
    both = {name: fields[name] | changes[name] for name in changes
            if isinstance(changes[name], dict) and isinstance(fields.get(name), dict)}
    return {**fields, **changes, **both}


def load_recipe(name: str, changes: dict[str, Any] | None = None) -> Recipe:
    """Raises: CrystalError for a missing file, an unknown field, task, temperament or world."""
    path, mend = root() / "data" / "recipes" / f"{name}.yaml", f"correct data/recipes/{name}.yaml"
    fields = merged(read_recipe(name), changes or {})
    check(fields, path, mend)
    try:
        recipe = Recipe(**{**fields, "demonstrated": tuple(fields["demonstrated"])})
    except (TypeError, KeyError) as error:
        raise CrystalError(
            f"a recipe needs exactly the fields of crystal.lab.recipes.Recipe: {error}",
            where=path,
            mend=mend,
        ) from error
    for stage in STAGES:
        spec = getattr(recipe, stage)
        stands = stage == "again" or "source" in spec  # trains as long as another, or not at all
        if spec and "steps" not in spec and not stands and not rule(spec):
            raise CrystalError(f"{stage} lacks 'steps'", where=path, mend=mend)
    try:
        if recipe.temperament != world.OWN:
            world.voices(recipe.temperament)
        known(recipe.world, (*world.WORLDS, INSTRUCTIONS), "world")
        for task in recipe.demonstrated:
            known(task, PHASE_TASKS, "task")
    except CrystalError as error:
        raise CrystalError(error.what, where=path, mend=error.mend) from error
    return recipe
