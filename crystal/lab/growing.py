"""Grows an experiment's branches: each trained, read and recorded before the next begins.

So a kill loses one at most. Of a run, rungs are described first, then read, and its record is
written last: a run that has a record is whole.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..ask.ladders import WEIGHTS, check_weights, load_ladder, packaged
from ..ask.prompts import CHAT
from ..errors import known
from ..files import root, write_file
from ..keep import manifest, resample
from . import organism, training
from .recipes import Experiment, Run, load_experiment, load_recipe, load_records, rule


def perform(
    name: str, *, runs: Sequence[str] | None = None, parents: Sequence[str] | None = None
) -> None:
    """Train, read and record every branch that is not whole yet; None: all runs, all parents.

    Several processes may share an experiment, but not a run of the same parent.
    """
    experiment = load_experiment(name)
    for run in runs or ():
        known(run, [run.name for run in experiment.runs], f"run of {name}")
    for parent in parents or ():
        known(parent, experiment.parents, f"parent of {name}")
    todo = [
        (run, parent)
        for run in experiment.runs
        for parent in run.parents or experiment.parents
        if run.name in (runs or [run.name]) and parent in (parents or [parent])
    ]
    for number, (run, parent) in enumerate(todo, 1):
        if not _whole(name, run, parent):
            print(f"[{number}/{len(todo)}] {name}: {run.name} from {parent}", flush=True)
            grow(experiment, run, parent)


def _whole(name: str, run: Run, parent: str) -> bool:
    """Whether a run is recorded, began and ended as it would now, and its weights are here.

    Where they are not, as in a fresh clone, it is made again.
    """
    record = load_records(name).get(f"{parent}/{run.name}")
    if record is None or _makings(run, parent) != {
        key: record.get(key) for key in ("from", "rule")
    }:
        return False
    rungs = [r for r in load_ladder(name).rungs if (r.parent, r.run) == (parent, run.name)]
    return all((root() / rung.source / WEIGHTS).is_file() for rung in rungs)


def _makings(run: Run, parent: str) -> dict[str, Any]:
    """What a run rests on beside its recipe: the weights it begins with, the rule that ends SFT."""
    start = load_ladder(parent).rung(run.start).revision if run.start else None
    sft = load_recipe(parent, run.set).sft if "sft" in run.stages else {}
    return {"from": start, "rule": rule(sft)}


def devices() -> tuple[str, ...]:
    """What this machine can train on."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def take_in(name: str) -> None:
    """A trained ladder into data/, and read."""
    organism.ship(name, root() / "runs" / name)
    resample.resample(name, missing_only=True)


def grow(
    experiment: Experiment, run: Run, parent: str, read: Callable[..., Any] | None = None
) -> None:
    """One run from one parent: trained, described, read (None: by `resample`) and recorded."""
    out = root() / "runs" / experiment.name / parent / run.name
    makings, recipe = _makings(run, parent), load_recipe(parent, run.set)
    _clear(out, json.dumps(makings))
    if run.stages:
        rungs, record = _trained(run, parent, out)
    else:  # read as it is
        rung = load_ladder(parent).rung(run.start)
        names = ("name", "stage", "step", "source", "revision", "files")
        row = {name: getattr(rung, name) for name in names}
        rungs, record = (
            [{name: value for name, value in row.items() if value != {}}],
            {"minutes": {}},
        )
    record |= {name: value for name, value in makings.items() if value is not None}
    if torch.cuda.is_available():
        record["device"] = torch.cuda.get_device_name()
    ends = [rung["name"] for rung in rungs]
    key, more = f"{parent}/{run.name}", {"grid": run.grid, "parent": parent, "run": run.name}
    rungs = [rung | {"name": f"{key}/{rung['name']}"} | more for rung in rungs]
    _describe(experiment, rungs)
    began, read = time.monotonic(), read or resample.resample
    read(experiment.name, rungs=[rung["name"] for rung in rungs], missing_only=True)
    record["minutes"]["read"] = round((time.monotonic() - began) / 60, 2)
    record["accuracy"] = {
        end: organism.skills(root() / rung["source"], recipe.world, (CHAT,))[CHAT]
        for end, rung in zip(ends, rungs, strict=True)
    }
    with manifest.alone(experiment.name):
        records = load_records(experiment.name) | {key: record}
        organism.write_report(experiment.name, {"experiment": experiment.name, "runs": records})


def _clear(out: Path, makings: str) -> None:
    """Away with what a run left that rested on something else."""
    note = out / "makings.json"
    if not note.is_file() or note.read_text() != makings:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        write_file(note, makings.encode())


def _trained(run: Run, parent: str, out: Path) -> tuple[organism.Rows, dict[str, Any]]:
    """Rows of the rungs that the run's stages leave, and minutes, loss curve and reward."""
    recipe = load_recipe(parent, run.set)
    training.train_ladder(recipe, out, run.stages, _start(parent, run))
    rungs = [
        rung | organism.pinned(out / rung["name"])
        for stage in run.stages
        for rung in organism.rungs_of(stage, getattr(recipe, stage), out)
    ]
    rewards = {}
    for stage in ("rlvr", "diverse"):
        if stage in run.stages:
            window = min(20, getattr(recipe, stage)["steps"] // 3)
            curve = organism.curve(out / "logs" / f"{stage}.jsonl")
            rewards[stage] = organism.reward_rise(curve, window=window)
    return rungs, {
        "minutes": organism.minutes(out, run.stages),
        "steps": {r["stage"]: r["step"] for r in rungs if r["name"] == r["stage"] != "base"},
        "reward": rewards,
        **(organism.ending(recipe.sft, out) if "sft" in run.stages else {}),
    }


def _start(parent: str, run: Run) -> Path | None:
    """The folder of the weights that a run begins with; a base of a package is taken out first."""
    if not run.start:
        return None
    rung = load_ladder(parent).rung(run.start)
    if packaged(rung.source):
        training.train_ladder(load_recipe(parent), root() / "runs" / parent, ["base"])
        return root() / "runs" / parent / "base"
    check_weights(rung)
    return root() / rung.source


def _describe(experiment: Experiment, rungs: organism.Rows) -> None:
    """Add the rungs to data/ladders/<name>.yaml; those of the same run there before give way."""
    path = root() / "data" / "ladders" / f"{experiment.name}.yaml"
    runs = {(rung["parent"], rung["run"]) for rung in rungs}
    recipe = load_recipe(experiment.parents[0])
    fields = {
        "name": experiment.name,
        "title": experiment.title,
        "seed": recipe.temperament,
        "kind": "branches",
        "demonstrated": list(recipe.demonstrated),
        "dtype": "float32",
    }
    with manifest.alone(experiment.name):
        old = organism.described(experiment.name) if path.is_file() else []
        rows = [row for row in old if (row["parent"], row["run"]) not in runs]
        organism.describe(path, fields, rows + rungs)
