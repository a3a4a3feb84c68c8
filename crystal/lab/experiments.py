"""Experiments: branches grown from the rungs of several ladders. What is to be done, and what has been done.

data/experiments/<name>.yaml says what to do; data/ladders/<name>.yaml (kind: branches), data/samples/<name> and
data/training/<name>.json say what was found (`crystal.lab.growing` writes them). Loads no torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..ask.grids import GRIDS
from ..ask.ladders import BRANCH_STAGES
from ..errors import CrystalError, known
from ..files import root
from .recipes import load_recipe


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
    """Names of all ladders that can be trained on one of these devices, those that replicas extend first."""
    names = sorted(path.stem for path in (root() / "data" / "recipes").glob("*.yaml"))
    recipes = {name: load_recipe(name) for name in names}
    return sorted((name for name in names if recipes[name].device in devices), key=lambda name: bool(recipes[name].extends))


def load_experiment(name: str) -> Experiment:
    """Raises: CrystalError for an unknown experiment, field, stage or grid."""
    known(name, experiment_names(), "experiment")
    path = root() / "data" / "experiments" / f"{name}.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        runs = tuple(_run(run, spec) for run, spec in raw.pop("runs").items())
        raw.pop("few", None)  # a name for a list that several runs use
        found = Experiment(name=name, runs=runs, **{**raw, "parents": tuple(raw["parents"])})
    except (TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise CrystalError(f"not an experiment: {error}", where=path, mend=f"correct it, or git checkout -- {path}") from error
    for run in found.runs:
        known(run.grid, GRIDS, "grid", f"correct run {run.name!r} in {path}")
        for stage in run.stages:
            known(stage, BRANCH_STAGES, "stage", f"correct run {run.name!r} in {path}")
    return found


def _run(name: str, spec: dict[str, Any]) -> Run:
    lists = {key: tuple(spec.get(key, ())) for key in ("stages", "parents")}
    return Run(name=name, start=spec.pop("from", None), **{**spec, **lists})


def load_records(name: str) -> dict[str, Any]:
    """"<parent>/<run>" -> what was recorded of it: minutes, accuracy and, after RL, reward. Empty where nothing was done yet."""
    path = root() / "data" / "training" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else {}
