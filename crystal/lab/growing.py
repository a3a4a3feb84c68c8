"""Grows an experiment's branches: each trained, read and recorded before the next begins, so that a kill loses one at most.

Of a run, rungs are described first, then read, and its record is written last: a run that has a record is whole.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..ask.ladders import check_weights, load_ladder
from ..ask.prompts import CHAT
from ..ask.sources import packaged
from ..errors import known
from ..files import root, write_file
from ..keep import manifest, resample
from . import describing, organism, training
from .experiments import Experiment, Run, load_experiment, load_records
from .recipes import Recipe, load_recipe, rule


def perform(name: str, *, runs: Sequence[str] | None = None, parents: Sequence[str] | None = None) -> None:
    """Train, read and record every branch that is not whole yet; None: all runs, all parents.

    Several processes may share an experiment as long as none does another's runs of the same parent.
    """
    experiment = load_experiment(name)
    for chosen, all_, kind in ((runs, [r.name for r in experiment.runs], "run"), (parents, experiment.parents, "parent")):
        for one in chosen or ():
            known(one, all_, f"{kind} of {name}")
    todo = [(run, parent) for run in experiment.runs for parent in run.parents or experiment.parents
            if run.name in (runs or [run.name]) and parent in (parents or [parent])]
    for number, (run, parent) in enumerate(todo, 1):
        if not _whole(name, run, parent):
            print(f"[{number}/{len(todo)}] {name}: {run.name} from {parent}", flush=True)
            grow(experiment, run, parent)


def _whole(name: str, run: Run, parent: str) -> bool:
    """Whether a run is recorded, began and ended as it would now, and its weights are here.

    Where they are not, as in a fresh clone, it is made again.
    """
    record = load_records(name).get(f"{parent}/{run.name}")
    if record is None or _makings(run, parent) != {key: record.get(key) for key in ("from", "rule")}:
        return False
    return all((root() / rung.source / "model.safetensors").is_file()
               for rung in load_ladder(name).rungs if (rung.parent, rung.run) == (parent, run.name))


def _makings(run: Run, parent: str) -> dict[str, Any]:
    """What a run rests on beside its recipe: the weights it begins with, the rule that ends its SFT."""
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
    makings = _makings(run, parent)
    _clear(out, json.dumps(makings))
    rungs, record = _trained(run, parent, out) if run.stages else _as_it_is(run, parent)
    record |= {name: value for name, value in makings.items() if value is not None}
    if torch.cuda.is_available():
        record["device"] = torch.cuda.get_device_name()
    for rung in rungs:
        rung |= {"name": f"{parent}/{run.name}/{rung['name']}", "grid": run.grid, "parent": parent, "run": run.name}
    _describe(experiment, rungs)
    began = time.monotonic()
    read = read or resample.resample
    read(experiment.name, rungs=[rung["name"] for rung in rungs], missing_only=True)
    record["minutes"]["read"] = round((time.monotonic() - began) / 60, 2)
    world = load_recipe(parent, run.set).world
    record["accuracy"] = {rung["name"].rpartition("/")[2]: organism.skills(root() / rung["source"], world, (CHAT,))[CHAT]
                          for rung in rungs}
    _record(experiment.name, f"{parent}/{run.name}", record)


def _clear(out: Path, makings: str) -> None:
    """Away with what a run left that rested on something else."""
    note = out / "makings.json"
    if not note.is_file() or note.read_text() != makings:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        write_file(note, makings.encode())


def _trained(run: Run, parent: str, out: Path) -> tuple[list[dict], dict[str, Any]]:
    """Rows of the rungs that the run's stages leave, and minutes, loss curve and reward."""
    recipe = load_recipe(parent, run.set)
    training.train_ladder(recipe, out, run.stages, _start(parent, run))
    rungs = [rung for stage in run.stages
             for rung in organism.rungs_of(stage, getattr(recipe, stage), out)]
    ends = {rung["stage"]: rung["step"] for rung in rungs if rung["name"] == rung["stage"] != "base"}
    rungs = [rung | describing.pinned(out / rung["name"]) for rung in rungs]
    return rungs, {"minutes": {stage: float((out / "logs" / f"{stage}.minutes").read_text()) for stage in run.stages},
                   "steps": ends, **_rewards(recipe, run, out),
                   **(organism.ending(recipe.sft, out) if "sft" in run.stages else {})}


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


def _rewards(recipe: Recipe, run: Run, out: Path) -> dict[str, Any]:
    return {"reward": {stage: organism.reward_rise(organism.curve(out / "logs" / f"{stage}.jsonl"),
                                                   window=min(20, getattr(recipe, stage)["steps"] // 3))
                       for stage in run.stages if stage in ("rlvr", "diverse")}}


def _as_it_is(run: Run, parent: str) -> tuple[list[dict], dict[str, Any]]:
    rung = load_ladder(parent).rung(run.start)
    names = ("name", "stage", "step", "source", "revision", *(["files"] if rung.files else []))
    row = {name: getattr(rung, name) for name in names}
    return [row], {"minutes": {}}


def _describe(experiment: Experiment, rungs: list[dict]) -> None:
    """Add the rungs to data/ladders/<name>.yaml; those of the same run there before give way."""
    path = root() / "data" / "ladders" / f"{experiment.name}.yaml"
    runs = {(rung["parent"], rung["run"]) for rung in rungs}
    with manifest.alone(experiment.name):
        old = describing.rows(experiment.name) if path.is_file() else []
        rows = [row for row in old if (row["parent"], row["run"]) not in runs] + rungs
        recipe = load_recipe(experiment.parents[0])
        describing.write(
            path,
            {
                "name": experiment.name,
                "title": experiment.title,
                "seed": recipe.temperament,
                "kind": "branches",
                "demonstrated": list(recipe.demonstrated),
                "dtype": "float32",
            },
            rows,
        )


def _record(name: str, key: str, record: dict[str, Any]) -> None:
    with manifest.alone(name):
        records = {"experiment": name, "runs": load_records(name) | {key: record}}
        write_file(root() / "data" / "training" / f"{name}.json",
                   (json.dumps(records, indent=1) + "\n").encode())
