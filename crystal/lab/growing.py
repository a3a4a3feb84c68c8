"""What a ladder trained here can do, how it enters the repository, and an experiment's branches.

Branches are trained, read and recorded one after the other, a run's record last: one with a record
is whole.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from .. import texts
from ..ask.ladders import (
    STAGES,
    WEIGHTS,
    Checkpoint,
    check_weights,
    load_ladder,
    packaged,
    pins,
    renamed,
    weights_sha256,
)
from ..ask.prompts import CHAT, FORMS, PROMPTS
from ..errors import CrystalError, known
from ..files import root, write_file
from ..keep import manifest, resample
from ..read import engine, readout
from . import training
from .instructions import right_share
from .recipes import (
    INSTRUCTIONS,
    Experiment,
    Run,
    load_experiment,
    load_recipe,
    load_records,
    on_the_way,
    read_recipe,
    rule,
)
from .world import ARITHMETIC, FACTS, Item

_CURVES = ("step", "seconds", "loss", "reward", "rewards/accuracies", "rewards/margins", "entropy")
Rows = list[dict[str, Any]]

# -- what a checkpoint can do


def _right(machine: engine.Engine, items: Sequence[Item], form: str) -> np.ndarray:
    """Of the right answers: probability, whether it is the likeliest option; (2, items)."""
    pairs, task = zip(itertools.cycle(PROMPTS), items), items[0].task
    asked = [machine.encode(prompt.text(item.task, form), form) for prompt, item in pairs]
    answers = np.array([r.options for r in readout.readout(machine, asked, task, tolerance=1e-4)])
    right = np.array([task.options.index(item.answer) for item in items])
    return np.array([answers[np.arange(len(items)), right], answers.argmax(1) == right])


def accuracy(folder: Path | str, forms: Sequence[str] = FORMS) -> dict[str, dict[str, float]]:
    """Form -> kind -> verifiable accuracy of a checkpoint: "facts", "arithmetic", "... greedy".

    The mean exact probability of the right answer, each item under one of the 100 prompts; greedy:
    the share of items whose likeliest option is right.
    """
    machine, found = engine.load(folder), {form: {} for form in forms}
    for form, row in found.items():
        for name, groups in (("facts", (FACTS[:20], FACTS[20:])), ("arithmetic", (ARITHMETIC,))):
            right = np.hstack([_right(machine, group, form) for group in groups])
            row[name], row[f"{name} greedy"] = right.mean(1).tolist()
    return found


def skills(folder: Path, world: str, forms: Sequence[str] = FORMS) -> dict[str, dict[str, float]]:
    """`accuracy`, or of a checkpoint that was taught instructions, `right_share`."""
    if world == INSTRUCTIONS:
        return {CHAT: {"instructions": right_share(folder)}}
    return accuracy(folder, forms)


# -- what its training left


def _log(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def curve(path: Path) -> Rows:
    """A stage's log, less its held-out losses."""
    lines = (line for line in _log(path) if "eval_loss" not in line)
    return [{key: float(line[key]) for key in _CURVES if key in line} for line in lines]


def held_out(path: Path) -> Rows:
    """The held-out losses in a stage's log, nats a token; step 0: before it."""
    lines = [line for line in _log(path) if "eval_loss" in line]
    if len(lines) < 2:
        what = f"stage {path.stem!r} is not trained yet, or by another rule"
        hint = f"rm -r {path.parent.parent / path.stem}, then make ladder again"
        raise CrystalError(what, where=path, hint=hint)
    return [{"step": line["step"], "loss": line["eval_loss"]} for line in lines]


def end_of(stage: str, spec: dict[str, Any], out: Path) -> int:
    """The step at which a stage ended: the recipe's, or by a rule that of lowest loss."""
    if rule(spec) is None:
        return spec["steps"]
    losses = held_out(out / "logs" / f"{stage}.jsonl")[1:]
    return min(losses, key=lambda line: line["loss"])["step"]


def ending(spec: dict[str, Any], out: Path) -> dict[str, Any]:
    """Of SFT that ended by a rule: the rule and the held-out losses; else nothing."""
    if (found := rule(spec)) is None:
        return {}
    return {"rule": found, "held-out loss": held_out(out / "logs" / "sft.jsonl")}


def reward_rise(curve: Rows, window: int = 20) -> dict[str, float]:
    """Mean sampled reward of the first and the last `window` steps; standard error of the rise."""
    rewards = np.array([line["reward"] for line in curve if "reward" in line])
    if len(rewards) < 2 * window:
        what = f"{len(rewards)} rewards are too few to compare {window} first and last steps"
        raise CrystalError(what, hint="train RLVR for more steps")
    first, last = rewards[:window], rewards[-window:]
    error = float(np.sqrt(first.var(ddof=1) / window + last.var(ddof=1) / window))
    ends = {"first": float(first.mean()), "last": float(last.mean())}
    return ends | {"error": error, "window": window}


def minutes(out: Path, stages: Sequence[str]) -> dict[str, float]:
    return {stage: float((out / "logs" / f"{stage}.minutes").read_text()) for stage in stages}


def checkpoints_of(stage: str, spec: dict[str, Any], out: Path) -> Rows:
    """Rows of a description: checkpoints that a stage left in `out` on the way, then its end."""
    end = 0 if stage == "base" else end_of(stage, spec, out)
    steps = {f"{stage}-{step}": step for step in on_the_way(spec) if step < end} | {stage: end}
    return [{"name": name, "stage": stage, "step": step} for name, step in steps.items()]


# -- descriptions


def pinned(folder: Path) -> dict[str, Any]:
    """Fields of a checkpoint's row that say which checkpoint it is."""
    source = folder.relative_to(root()).as_posix()
    return {"source": source, "revision": weights_sha256(folder), "files": pins(folder)}


def describe(path: Path, fields: dict[str, Any], checkpoints: Rows) -> None:
    """Write a description, whole or not at all; checkpoints with the same files share a list."""
    same: dict[str, dict] = {}
    rows = [dict(row) for row in checkpoints]
    for row in rows:
        if row.get("files"):
            row["files"] = same.setdefault(repr(row["files"]), row["files"])
    dumped = yaml.safe_dump({**fields, "checkpoints": rows}, sort_keys=False, width=200)
    write_file(path, dumped.encode())


def write_report(name: str, report: dict[str, Any]) -> None:
    """What the book says of the training of a ladder or an experiment."""
    path = root() / f"data/training/{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_file(path, (json.dumps(report, indent=1) + "\n").encode())


def ship(name: str, out: Path) -> Path:
    """Take a finished training run into data/: description, which is returned, report, weights.

    Not the weights of a replica, nor of what begins with a real base: those are not ours to give.
    Raises: CrystalError while a stage is missing.
    """
    recipe = read_recipe(name)
    checkpoints = [c for stage in STAGES for c in checkpoints_of(stage, recipe[stage], out)]
    for c in checkpoints:
        if not (out / c["name"] / WEIGHTS).is_file():
            what = f"checkpoint {c['name']!r} is not trained yet"
            raise CrystalError(what, where=out, hint=f"make ladder LADDER={name}")
    curves = {stage: curve(out / "logs" / f"{stage}.jsonl") for stage in STAGES}
    world = recipe.get("world", "")
    report = {
        "ladder": name,
        "recipe": recipe,
        "curves": {stage: found for stage, found in curves.items() if found},  # a real base: none
        **ending(recipe["sft"], out),
        "reward": reward_rise(curves["rlvr"]),
        "minutes": minutes(out, STAGES),
        "accuracy": {c["name"]: skills(out / c["name"], world) for c in checkpoints},
    }
    for c in checkpoints:
        _place(c, name, out, recipe)
    write_report(name, report)
    path = root() / f"data/ladders/{name}.yaml"
    drawn = path.is_file() and load_ladder(name).drawn
    fields = {"name": name, "title": recipe.get("title", name)}
    if recipe["sft"]["random_share"] > 0:  # else nobody demonstrates a choice
        fields |= {"seed": recipe["temperament"], "demonstrated": list(recipe["demonstrated"])}
    describe(path, fields | {"dtype": "float32"} | ({"drawn": True} if drawn else {}), checkpoints)
    return path


def _place(c: dict[str, Any], name: str, out: Path, recipe: dict[str, Any]) -> None:
    """Say in a checkpoint's row where its weights lie and what it is asked; copy them if they ship.

    Ends of stages and SFT's steps are asked everything, other steps and a replica's the probe, in
    both forms; of a real ladder ends every natural prompt, steps one wording a context.
    """
    folder, end = out / c["name"], c["name"] == c["stage"]
    real = recipe.get("world") == INSTRUCTIONS
    replica = real or bool(recipe.get("extends"))
    if "source" in recipe[c["stage"]]:  # a base that a package holds, with a template of ours
        c |= recipe["base"] | {"template": recipe["tokenizer"]["template"]}
    elif replica:
        c |= pinned(folder)
    else:
        shelf = root() / f"data/weights/{name}/{c['name']}"
        c |= pinned(Path(shutil.copytree(folder, shelf, dirs_exist_ok=True)))
    if real:
        c["grid"] = "natural" if end else "natural-once"
    elif not end and (replica or c["stage"] != "sft"):
        c["grid"] = "both"


# -- experiments


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
    """Whether a run is recorded, began and ended as it would now, and its weights are here."""
    record, makings = load_records(name).get(f"{parent}/{run.name}"), _makings(name, run, parent)[1]
    if record is None or any(record.get(key) != made for key, made in makings.items()):
        return False
    mine = [c for c in load_ladder(name).checkpoints if (c.parent, c.run) == (parent, run.name)]
    return all((root() / c.source / WEIGHTS).is_file() for c in mine)


def _makings(name: str, run: Run, parent: str) -> tuple[Checkpoint | None, dict[str, Any]]:
    """What a run begins with (None: nothing), and what it rests on beside its recipe."""
    first = None
    if run.start and "/" in run.start:
        first = load_ladder(name).checkpoint(f"{parent}/{run.start}")
    elif run.start:
        first = load_ladder(parent).checkpoint(run.start)
    sft = load_recipe(parent, run.set).sft if "sft" in run.stages else {}
    return first, {"from": first.revision if first else None, "rule": rule(sft)}


def grow(
    experiment: Experiment, run: Run, parent: str, read: Callable[..., Any] | None = None
) -> None:
    """One run from one parent: trained, described, read (None: by `resample`) and recorded."""
    name, key = experiment.name, f"{parent}/{run.name}"
    out, recipe = root() / "runs" / name / key, load_recipe(parent, run.set)
    first, makings = _makings(name, run, parent)
    note = out / "makings.json"
    if not note.is_file() or note.read_text() != json.dumps(makings):  # it rested on something else
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        write_file(note, json.dumps(makings).encode())
    if run.stages:
        rows, record = _trained(run, parent, out, first)
    else:  # read as it is
        fields = ("name", "stage", "step", "source", "revision", "files")
        rows = [{field: value for field in fields if (value := getattr(first, field)) != {}}]
        record = {"minutes": {}}
    record |= {made: value for made, value in makings.items() if value is not None}
    if torch.cuda.is_available():
        record["device"] = torch.cuda.get_device_name()
    folders = {row["name"]: root() / row["source"] for row in rows}
    if recipe.world == INSTRUCTIONS and run.start == "base":
        folders = {"base": root() / "runs" / recipe.name / "base"} | folders
    place = {"grid": run.grid, "parent": parent, "run": run.name}
    rows = [row | {"name": f"{key}/{row['name']}"} | place for row in rows]
    _describe(experiment, rows)
    began, read = time.monotonic(), read or resample.resample
    read(name, checkpoints=[row["name"] for row in rows], missing_only=True)
    record["minutes"]["read"] = round((time.monotonic() - began) / 60, 2)
    record["accuracy"] = {
        end: skills(folder, recipe.world, (CHAT,))[CHAT] for end, folder in folders.items()
    }
    with manifest.alone(name):
        records = load_records(name) | {key: record}
        write_report(name, {"experiment": name, "runs": records})


def _trained(
    run: Run, parent: str, out: Path, first: Checkpoint | None
) -> tuple[Rows, dict[str, Any]]:
    """Rows of the checkpoints that the run's stages leave, and what is recorded of them."""
    recipe = load_recipe(parent, run.set)
    training.train_ladder(recipe, out, run.stages, _weights(parent, first))
    specs = {stage: getattr(recipe, stage) for stage in run.stages}
    rows = [row for stage, spec in specs.items() for row in checkpoints_of(stage, spec, out)]
    rewards = {}
    for stage in (stage for stage in ("rlvr", "diverse") if stage in specs):
        window = min(20, specs[stage]["steps"] // 3)
        rewards[stage] = reward_rise(curve(out / "logs" / f"{stage}.jsonl"), window=window)
    return [row | pinned(out / row["name"]) for row in rows], {
        "minutes": minutes(out, run.stages),
        "steps": {r["stage"]: r["step"] for r in rows if r["name"] == r["stage"] != "base"},
        "reward": rewards,
        **(ending(recipe.sft, out) if "sft" in run.stages else {}),
    }


def _weights(parent: str, checkpoint: Checkpoint | None) -> Path | None:
    """Where a run's first weights are; a base of a package is taken out before."""
    if checkpoint is None:
        return None
    if packaged(checkpoint.source):
        training.train_ladder(load_recipe(parent), root() / "runs" / parent, ["base"])
        return root() / "runs" / parent / "base"
    check_weights(checkpoint)
    return root() / checkpoint.source


def _describe(experiment: Experiment, checkpoints: Rows) -> None:
    """Add checkpoints to data/ladders/<name>.yaml; those of the same run give way."""
    name, recipe, old = experiment.name, load_recipe(experiment.parents[0]), []
    path = root() / f"data/ladders/{name}.yaml"
    runs = {(c["parent"], c["run"]) for c in checkpoints}
    fields = {"name": name, "title": experiment.title, "seed": recipe.temperament}
    fields |= {"kind": "branches", "demonstrated": list(recipe.demonstrated), "dtype": "float32"}
    with manifest.alone(name):
        if path.is_file():
            load_ladder(name, unpinned=True)  # so that what is not sound is not written again
            old = renamed(texts.load_file(path))["checkpoints"]
        rows = [row for row in old if (row["parent"], row["run"]) not in runs]
        describe(path, fields, rows + checkpoints)
