"""Recipes of the ladders trained here, and experiments: branches grown from their checkpoints.

data/recipes/<name>.yaml holds every hyperparameter of a ladder; data/experiments/<name>.yaml what
is done to checkpoints of several; data/training/<name>.json what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import texts
from ..ask.cells import GRIDS
from ..ask.ladders import BRANCH_STAGES
from ..ask.tasks import PHASE_TASKS
from ..errors import CrystalError, known, placed
from ..files import Maybe, anything, count, fields, flag, misfit, number, root, text
from . import world

# What a field of a stage may hold: a number under any name but these.
_STAGE = {
    **dict.fromkeys(("steps", "batch", "prompts", "generations", "parameters"), count),
    **dict.fromkeys(("schedule", "style", "judge", "until"), text),
    **dict.fromkeys(("source", "revision", "licence", "scheme"), text),
    "shuffled": flag,
    "checkpoints": [count],
}
INSTRUCTIONS = "instructions"  # world of a recipe that post-trains a real base
# How SFT may end, by its `until`; with `steps`, or without one, after its own steps. The loss of so
# many `held_out` dialogues is taken `every` so many steps; training stops once `patience` of them
# lie no more than `threshold` nats a token below the lowest before, or at `steps`. SFT ends where
# it is lowest.
RULES: dict[str, dict[str, Any]] = {
    "converged": {"held_out": 512, "every": 32, "patience": 4, "threshold": 0.002, "steps": 1024}
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
    device: str = "cpu"  # "cuda": too large to train without a GPU
    again: dict[str, Any] = field(default_factory=dict)  # back to pretraining, after another stage
    diverse: dict[str, Any] = field(default_factory=dict)  # RL that rewards unlike answers


def _names(kind: str) -> list[str]:
    return sorted(path.stem for path in (root() / "data" / kind).glob("*.yaml"))


def _file(kind: str, name: str) -> tuple[Path, str]:
    """A description, and what to do where it is not sound."""
    path = f"data/{kind}/{name}.yaml"
    return root() / path, f"correct it, or git checkout -- {path}"


def recipe_names(devices: Sequence[str] = ("cpu", "cuda")) -> list[str]:
    """Ladders that can be trained on one of these devices; originals first."""
    recipes = {name: load_recipe(name) for name in _names("recipes")}
    fitting = (name for name, recipe in recipes.items() if recipe.device in devices)
    return sorted(fitting, key=lambda name: bool(recipes[name].extends))


def read_recipe(name: str, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of data/recipes/<name>.yaml over those of the recipe it extends.

    heirs: recipes that extend this one. Raises: CrystalError for a file that is missing, no
    mapping, or extends itself.
    """
    if name not in (there := _names("recipes")):
        where, hint = root() / "data" / "recipes", f"make ladder LADDER={{{','.join(there)}}}"
        raise CrystalError(f"there is no recipe {name!r:.60}", where=where, hint=hint)
    path, hint = _file("recipes", name)
    raw = texts.load_file(path, hint, {"extends": Maybe(text)}, "the recipe")
    if (origin := raw.get("extends")) in (name, *heirs):
        what = f"the recipe extends itself, by way of {origin}"
        raise CrystalError(what, where=path, hint=hint)
    return merged(read_recipe(origin, (name, *heirs)), raw) if origin else raw


def _check_stage(spec: Any, stage: str) -> None:
    """Raises: ValueError for fields of a stage that are there and wrong."""
    wrong = misfit(spec, {text: anything}, stage)
    if wrong := wrong or misfit(spec, {name: _STAGE.get(name, number) for name in spec}, stage):
        raise ValueError(wrong)
    until = known(spec.get("until", "steps"), ["steps", *RULES], f"rule for {stage} to end by:")
    if rule(spec) and stage != "sft":
        raise ValueError(f"{stage} cannot end by a rule, only sft has a held-out loss; say steps")
    if rule(spec) and "steps" in spec:
        wrong = f"sft ends by the rule {until!r}, which knows no 'steps'; say until: steps"
        raise ValueError(wrong)


def rule(spec: dict[str, Any]) -> dict[str, Any] | None:
    """The rule by which a stage ends, its name as `until`; None where its steps are fixed."""
    until = spec.get("until")
    return {"until": until} | RULES[until] if until in RULES else None


def on_the_way(spec: dict[str, Any]) -> list[int]:
    """Steps whose checkpoints a stage keeps; by a rule, else powers of two."""
    most = (rule(spec) or {"steps": 0})["steps"]
    return spec.get("checkpoints", [2**k for k in range(most.bit_length()) if 2**k < most])


def merged(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`fields` with `changes`; in mappings, one level deep."""
    both = fields | changes
    for name, change in changes.items():
        if isinstance(change, dict) and isinstance(fields.get(name), dict):
            both[name] = fields[name] | change
    return both


def load_recipe(name: str, changes: dict[str, Any] | None = None) -> Recipe:
    """Raises: CrystalError for a missing file, an unknown field, task, temperament or world."""
    raw = merged(read_recipe(name), changes or {})
    with placed(*_file("recipes", name)):
        recipe = Recipe(**fields(raw, Recipe, "the recipe"))
        for stage in BRANCH_STAGES:
            _check_stage(spec := getattr(recipe, stage), stage)
            stands = stage == "again" or "source" in spec  # as long as another, or not at all
            if spec and "steps" not in spec and not stands and not rule(spec):
                raise ValueError(f"{stage} lacks 'steps'")
        if recipe.temperament != world.OWN:
            world.voices(recipe.temperament)
        known(recipe.world, (*world.WORLDS, INSTRUCTIONS), "world")
        for task in recipe.demonstrated:
            known(task, PHASE_TASKS, "task")
    return recipe


# -- experiments

_NUMBERS = {text: {text: number}}
_RECORD = {"minutes": {text: number}, "accuracy": _NUMBERS, "reward": Maybe(_NUMBERS)}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is done to a checkpoint of every parent."""

    name: str
    stages: tuple[str, ...] = ()  # trained one after the other; none: the checkpoint itself is read
    start: str | None = None  # the parent's checkpoint, or RUN/CHECKPOINT of here; None: own base
    grid: str = "probe"  # what its checkpoints are asked
    set: dict[str, Any] = field(default_factory=dict)  # fields of the parent's recipe that differ
    parents: tuple[str, ...] = ()  # fewer than the experiment's


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Runs x parents."""

    name: str
    title: str
    parents: tuple[str, ...]
    runs: tuple[Run, ...]


def experiment_names() -> list[str]:
    return _names("experiments")


def load_experiment(name: str) -> Experiment:
    """Raises: CrystalError for an unknown experiment, field, stage, grid, or a value of no use."""
    known(name, experiment_names(), "experiment")
    path, hint = _file("experiments", name)
    raw = texts.load_file(path, hint)
    with placed(path, hint):
        if isinstance(raw, dict):
            raw.pop("few", None)  # a list that several runs use
        found = fields(raw, Experiment, "not an experiment: it", name=None, runs={text: anything})
        if not found["parents"]:
            raise ValueError("not an experiment: its list `parents` is empty")
        runs = tuple(_run(run, spec) for run, spec in found["runs"].items())
        return Experiment(name=name, **found | {"runs": runs})


def _run(name: str, spec: Any) -> Run:
    if isinstance(spec, dict):  # Python keeps the word `from` for itself
        spec = {"start" if field == "from" else field: value for field, value in spec.items()}
    run = Run(name=name, **fields(spec, Run, f"run {name}", name=None))
    known(run.grid, GRIDS, "grid", f"correct run {name!r}")
    for stage in run.stages:
        known(stage, BRANCH_STAGES, "stage", f"correct run {name!r}")
    for stage in {*BRANCH_STAGES} & {*run.set}:
        _check_stage(run.set[stage], stage)
    return run


def load_records(name: str) -> dict[str, Any]:
    """ "<parent>/<run>" -> what was recorded of it: minutes, accuracy and, after RL, reward.

    Empty where nothing was done yet. Raises: CrystalError for a file of another shape.
    """
    path = root() / f"data/training/{name}.json"
    if not path.exists():
        return {}
    hint = f"git checkout -- data/training/{name}.json"
    return texts.load_file(path, hint, {"runs": {text: _RECORD}}, "the file of records")["runs"]
