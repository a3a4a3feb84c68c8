"""Experiments: branches grown from the rungs of several ladders. What is to be done, what was.

data/experiments/<name>.yaml says what to do; data/ladders/<name>.yaml (kind: branches),
data/samples/<name> and data/training/<name>.json say what was found (`crystal.lab.growing` writes
them). Loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import texts
from ..ask.grids import GRIDS
from ..ask.ladders import BRANCH_STAGES
from ..errors import CrystalError, known
from ..files import root
from ..fits import anything, misfit, number, text
from . import recipes
from .recipes import load_recipe

_RUN = {"from": text, "stages": [text], "grid": text, "parents": [text], "set": {text: anything}}
_NUMBERS = {text: {text: number}}
_RECORDS = {"runs": {text: {"minutes": {text: number}, "accuracy": _NUMBERS}}}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is done to a rung of every parent."""

    name: str
    stages: tuple[str, ...] = ()  # trained one after the other; none: the rung itself is read
    start: str | None = None  # the parent's rung; None: a base of its own
    grid: str = "probe"  # what its rungs are asked
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
    """Names of all experiments under data/experiments, sorted."""
    return sorted(path.stem for path in (root() / "data" / "experiments").glob("*.yaml"))


def recipe_names(devices: Sequence[str] = ("cpu",)) -> list[str]:
    """Names of all ladders that can be trained on one of these devices; originals first."""
    names = sorted(path.stem for path in (root() / "data" / "recipes").glob("*.yaml"))
    recipes = {name: load_recipe(name) for name in names}
    return sorted(
        (name for name in names if recipes[name].device in devices),
        key=lambda name: bool(recipes[name].extends),
    )


def load_experiment(name: str) -> Experiment:
    """Raises: CrystalError for an unknown experiment, field, stage, grid, or a value of no use."""
    known(name, experiment_names(), "experiment")
    path = root() / "data" / "experiments" / f"{name}.yaml"
    mend = f"correct it, or git checkout -- data/experiments/{name}.yaml"
    raw = texts.parse_yaml(texts.read_text(path, mend), path, mend)
    shape = {"title": text, "parents": [text], "runs": {text: {text: anything}}}
    wrong = misfit(raw, shape, "the experiment")
    fields = (*shape, "few")  # few: a name for a list that several runs use
    unknown = None if wrong else next((field for field in raw if field not in fields), None)
    if wrong or unknown or not raw["parents"]:
        what = wrong or (
            f"an experiment has no field {unknown!r}" if unknown else "it has no parents"
        )
        raise CrystalError(f"not an experiment: {what}", where=path, mend=mend)
    runs = tuple(_run(run, spec, path, mend) for run, spec in raw["runs"].items())
    return Experiment(name=name, title=raw["title"], parents=tuple(raw["parents"]), runs=runs)


def _run(name: str, spec: dict[str, Any], path: Path, mend: str) -> Run:
    given = {field: shape for field, shape in _RUN.items() if field in spec}
    unknown = next((field for field in spec if field not in _RUN), None)
    if wrong := misfit(spec, given, f"run {name}"):
        raise CrystalError(wrong, where=path, mend=mend)
    if unknown:
        raise CrystalError(f"run {name} has an unknown field {unknown!r}", where=path, mend=mend)
    recipes.check(spec.get("set", {}), f"{path}, run {name}", mend)
    known(spec.get("grid", "probe"), GRIDS, "grid", f"correct run {name!r} in {path}")
    for stage in spec.get("stages", ()):
        known(stage, BRANCH_STAGES, "stage", f"correct run {name!r} in {path}")
    return Run(name=name, start=spec.get("from"), grid=spec.get("grid", "probe"),
               stages=tuple(spec.get("stages", ())), parents=tuple(spec.get("parents", ())),
               set=spec.get("set", {}))


def outdated(name: str) -> list[str]:
    """"<parent>/<run>" of the records whose SFT ended by another rule than their recipe says now."""
    runs = {run.name: run for run in load_experiment(name).runs if "sft" in run.stages}
    there, found = recipe_names(("cpu", "cuda")), []
    for key, record in load_records(name).items():
        parent, _, run = key.partition("/")
        if run in runs and parent in there:
            end = recipes.rule(load_recipe(parent, runs[run].set).sft)
            found += [key] if record.get("rule") != end else []
    return found


def load_records(name: str) -> dict[str, Any]:
    """"<parent>/<run>" -> what was recorded of it: minutes, accuracy and, after RL, reward.

    Empty where nothing was done yet. Raises: CrystalError for a file that holds no such records.
    """
    path = root() / "data" / "training" / f"{name}.json"
    if not path.exists():
        return {}
    mend = f"git checkout -- data/training/{name}.json"
    found = texts.parse_json(texts.read_text(path, mend), path, mend)
    wrong = misfit(found, _RECORDS, "the file of records")
    rewards = [] if wrong else [run.get("reward", {}) for run in found["runs"].values()]
    if wrong := wrong or misfit(rewards, [_NUMBERS], "the runs' reward"):
        raise CrystalError(wrong, where=path, mend=mend)
    return found["runs"]
