"""What a trained ladder can do, and how it enters the repository.

Knows the world's right answers and the read-out; knows no trainer.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..ask import ladders
from ..ask.prompts import CHAT, FORMS, PROMPTS
from ..errors import CrystalError
from ..read import engine, readout
from . import describing
from .recipes import INSTRUCTIONS, on_the_way, read_recipe, rule
from .world import ARITHMETIC, FACTS, Item

KINDS = ("facts", "arithmetic", "instructions")  # what a rung may be asked that has one right answer
RUNG_FILES = ("config.json", "generation_config.json", "model.safetensors",
              "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def _right(machine: engine.Engine, items: Sequence[Item], form: str) -> tuple[np.ndarray, np.ndarray]:
    """(probability of the right answer, whether it is the likeliest option), each of shape (items,)."""
    task = items[0].task
    asked = [machine.encode(PROMPTS[i % len(PROMPTS)].text(item.task, form), form) for i, item in enumerate(items)]
    answers = np.array([r.options for r in readout.readout(machine, asked, task, budget=1e-4)])
    right = np.array([task.options.index(item.answer) for item in items])
    return answers[np.arange(len(items)), right], answers.argmax(1) == right


def accuracy(folder: Path | str, forms: Sequence[str] = FORMS) -> dict[str, dict[str, float]]:
    """Verifiable accuracy of a rung: {form: {"facts": p, "arithmetic": p, "facts greedy": p, "arithmetic greedy": p}}.

    p is the mean exact probability of the right answer at temperature 1, over all facts or all sums and differences, each
    put under one of the 100 prompts; greedy: the share of items whose likeliest option is right.
    """
    machine, found = engine.load(folder), {}
    for form in forms:
        found[form] = {}
        for name, groups in {"facts": (FACTS[:20], FACTS[20:]), "arithmetic": (ARITHMETIC,)}.items():
            parts = [_right(machine, group, form) for group in groups]
            found[form][name] = float(np.concatenate([p for p, _ in parts]).mean())
            found[form][f"{name} greedy"] = float(np.concatenate([g for _, g in parts]).mean())
    return found


def skills(folder: Path, world: str, forms: Sequence[str] = FORMS) -> dict[str, dict[str, float]]:
    """Form -> kind -> how likely a rung is right: `accuracy`, or of a real base's ladder the share
    of checkable instructions that it answers rightly in chat form (`teaching.right`).
    """
    if world != INSTRUCTIONS:
        return accuracy(folder, forms)
    from . import teaching

    return {CHAT: {"instructions": teaching.right(folder)}}


def curve(path: Path) -> list[dict[str, Any]]:
    keep = ("step", "seconds", "loss", "reward", "rewards/accuracies", "rewards/margins", "entropy")
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return [{key: float(line[key]) for key in keep if key in line} for line in lines
            if "eval_loss" not in line]


def held_out(path: Path) -> list[dict[str, float]]:
    """The held-out losses in a stage's log, nats a token; step 0 is the rung that it began with.

    Raises: CrystalError where there are none.
    """
    lines = map(json.loads, path.read_text().splitlines() if path.is_file() else ())
    found = [{"step": line["step"], "loss": line["eval_loss"]}
             for line in lines if "eval_loss" in line]
    if len(found) < 2:
        raise CrystalError(f"stage {path.stem!r} is not trained yet, or by another rule",
                           where=path,
                           mend=f"rm -r {path.parent.parent / path.stem}, then make ladder again")
    return found


def end_of(stage: str, spec: dict[str, Any], out: Path) -> int:
    """The step at which a stage ended: the recipe's, or that of lowest held-out loss by its rule."""
    if rule(spec) is None:
        return spec["steps"]
    return min(held_out(out / "logs" / f"{stage}.jsonl")[1:], key=lambda line: line["loss"])["step"]


def ending(spec: dict[str, Any], out: Path) -> dict[str, Any]:
    """Of SFT that ended by a rule: the rule and the held-out losses; else nothing."""
    if (found := rule(spec)) is None:
        return {}
    return {"rule": found, "held-out loss": held_out(out / "logs" / "sft.jsonl")}


def reward_rise(curve: Sequence[dict[str, float]], window: int = 20) -> dict[str, float]:
    """Mean sampled reward of the first and the last `window` steps, and the standard error of their difference.

    The gate of RLVR: it is only called that where `last - first` exceeds twice the standard error.
    """
    rewards = np.array([line["reward"] for line in curve if "reward" in line])
    if len(rewards) < 2 * window:
        raise CrystalError(f"{len(rewards)} rewards are too few to compare {window} first and last steps",
                           mend="train RLVR for more steps")
    first, last = rewards[:window], rewards[-window:]
    error = math.sqrt(first.var(ddof=1) / window + last.var(ddof=1) / window)
    return {"first": float(first.mean()), "last": float(last.mean()), "error": error, "window": window}


def report(name: str, out: Path, recipe: dict[str, Any], rungs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All that the book says of a ladder's training: recipe, minutes, curves, and each rung's accuracy."""
    stages = [rung["name"] for rung in rungs if rung["name"] == rung["stage"]]
    logs = {stage: out / "logs" / f"{stage}.jsonl" for stage in stages}
    curves = {stage: curve(log) for stage, log in logs.items() if log.is_file()}  # a real base has none
    return {
        "ladder": name, "recipe": recipe, "curves": curves, **ending(recipe["sft"], out),
        "reward": reward_rise(curves["rlvr"]),
        "minutes": {stage: float((out / "logs" / f"{stage}.minutes").read_text()) for stage in stages},
        "accuracy": {rung["name"]: skills(out / rung["name"], recipe.get("world", ""))
                     for rung in rungs},
    }


def rungs_of(stage: str, spec: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    """Rows of a ladder's description: the rungs that a stage left in `out` on the way, then its end."""
    if stage == "base":
        return [{"name": stage, "stage": stage, "step": 0}]
    end = end_of(stage, spec, out)
    steps = [{"name": f"{stage}-{step}", "stage": stage, "step": step}
             for step in on_the_way(spec) if step < end]
    return [*steps, {"name": stage, "stage": stage, "step": end}]


def ship(name: str, out: Path) -> Path:
    """Describe the rungs of a finished training run in data/: ladder description, training report,
    and the weights, unless the recipe is a replica of another or begins with a real base, whose
    weights are not ours to give.

    The ends of stages and SFT's steps are asked everything, a replica's steps and those of DPO and RLVR the probe, in both forms.
    Of a real ladder the ends are asked every natural prompt, the steps one wording a context.
    Read-outs of the weights that were there before stay in the cache; `make resample` adds those of the new ones.
    Returns the ladder's description. Raises: CrystalError while a stage is missing.
    """
    root, recipe = files.root(), read_recipe(name)
    real = recipe.get("world") == INSTRUCTIONS
    replica = real or bool(recipe.get("extends"))
    rungs = [rung for stage in ladders.STAGES for rung in rungs_of(stage, recipe[stage], out)]
    for rung in rungs:
        if not (out / rung["name"] / "model.safetensors").is_file():
            raise CrystalError(f"rung {rung['name']!r} is not trained yet", where=out, mend=f"make ladder LADDER={name}")
    trained = report(name, out, recipe, rungs)
    for rung in rungs:
        source, shelf = out / rung["name"], root / "data" / "weights" / name
        if "source" in recipe[rung["stage"]]:  # a base that a package holds, with a template of ours
            rung |= recipe["base"] | {"template": recipe["tokenizer"]["template"]}
        else:
            rung |= describing.pinned(source if replica else _copied(source, shelf / rung["name"]))
        end = rung["name"] == rung["stage"]
        if real:
            rung["grid"] = "natural" if end else "natural-once"
        elif not end and (replica or rung["stage"] != "sft"):
            rung["grid"] = "both"
    (root / "data" / "training").mkdir(exist_ok=True)
    files.write_file(root / "data" / "training" / f"{name}.json",
                     (json.dumps(trained, indent=1) + "\n").encode())
    description = root / "data" / "ladders" / f"{name}.yaml"
    drawn = description.is_file() and ladders.load_ladder(name).drawn
    taught = recipe["sft"]["random_share"] > 0  # else nobody demonstrates a choice
    shown = {"seed": recipe["temperament"], "demonstrated": list(recipe["demonstrated"])}
    describing.write(description, {
        "name": name, "title": recipe.get("title", name), **(shown if taught else {}), "dtype": "float32",
        **({"drawn": True} if drawn else {})}, rungs)
    return description


def _copied(rung: Path, target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    for file in RUNG_FILES:
        shutil.copyfile(rung / file, target / file)
    return target
