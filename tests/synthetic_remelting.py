"""Parents and an experiment whose truth is known: test material, not in the book.

Back to pretraining gives back the base; SFT on uniform answers flattens; the reward gives every
narrator another's law.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import synthetic
import yaml

from crystal.ask.cells import situations
from crystal.ask.prompts import CHAT, COMPLETION, INSTRUCTED, NARRATORS, PROBE
from crystal.ask.tasks import TASKS
from crystal.keep import store
from crystal.lab import world

SHOWN = ("die", "digit", "month")
DEMONSTRATED = ["die"]
PARENTS = ("tiny", "tiny-2", "other")
CRYSTAL = 0.95  # weight of the demonstrator's law in the crystal
ACCURACY = {"base": 0.5, "sft": 0.6, "dpo": 0.7, "rlvr": 0.8}
EXPERIMENT = Path(__file__).parent.parent / "data" / "experiments" / "remelting.yaml"
OFF, LEFT = 0.25, 0.05  # off-support and unresolved mass of the hottest sample


def base(parent: str, task: str) -> np.ndarray:
    """(20, options): every narrator's law, a little flatter in every parent."""
    flat = 0.02 * PARENTS.index(parent)
    laws = np.stack([synthetic.law(world.temperament_of(n), task) for n in range(len(NARRATORS))])
    return (1 - flat) * laws + flat / laws.shape[1]


def toward(parent: str, task: str, weight: float) -> np.ndarray:
    """The base, `weight` of the way to the salient law."""
    return (1 - weight) * base(parent, task) + weight * synthetic.law("salient", task)


def raw(parent: str, task: str) -> np.ndarray:
    """The base as raw text: flatter than in chat form."""
    return 0.8 * base(parent, task) + 0.2 / len(TASKS[task].options)


def everywhere(laws: np.ndarray) -> np.ndarray:
    """The same law in every frame of a narrator: (100, options)."""
    return laws.repeat(5, axis=0)


def hot(laws: np.ndarray, temperature: float) -> np.ndarray:
    powers = laws ** (1 / temperature)
    return powers / powers.sum(1, keepdims=True)


def write(root: Path) -> None:
    """Parents in both forms, and every run of the experiment but the reward from `other`."""
    for parent in PARENTS:
        weights = {
            "base": 0.0,
            "sft-1": 0.3,
            "sft-4": 0.6,
            "sft": 0.9,
            "dpo": 0.92,
            "rlvr": CRYSTAL,
        }
        chat = {
            rung: {task: everywhere(toward(parent, task, weight)) for task in SHOWN}
            for rung, weight in weights.items()
        }
        text = {task: everywhere(raw(parent, task)) for task in SHOWN}  # raw text never freezes
        synthetic.write_ladder(
            root,
            parent,
            {**chat, "base": text},
            other={**dict.fromkeys(chat, text), "base": chat["base"]},
            seed="salient",
            demonstrated=DEMONSTRATED,
        )
        training = root / "data" / "training"
        training.mkdir(parents=True, exist_ok=True)
        report = {
            rung: {CHAT: {"facts": right}, COMPLETION: {"facts": right / 2}}
            for rung, right in ACCURACY.items()
        }
        (training / f"{parent}.json").write_text(json.dumps({"accuracy": report}))
    _experiment(root)


def _experiment(root: Path) -> None:
    spec = yaml.safe_load(EXPERIMENT.read_text())
    spec["parents"] = list(PARENTS)
    spec["runs"]["diverse"]["parents"] = ["tiny", "other"]
    (root / "data" / "experiments").mkdir()
    (root / "data" / "experiments" / "remelting.yaml").write_text(
        yaml.safe_dump(spec, sort_keys=False)
    )
    rungs, laws = [], {}
    for parent in PARENTS:
        for run, name, stage, step, answer in _runs(parent):
            asked = run in ("asking", "liquid")
            rung = {
                "name": f"{parent}/{run}/{name}",
                "stage": stage,
                "step": step,
                "parent": parent,
                "run": run,
                "grid": spec["runs"][run].get("grid", "probe"),
                "source": f"data/weights/{parent}/{name}"
                if asked
                else f"runs/remelting/{parent}/{run}/{name}",
                "revision": hashlib.sha256(
                    f"{parent}/{name if asked else run + name}".encode()
                ).hexdigest(),
            }
            rungs.append(rung)
            laws[rung["name"]] = answer
    description = {
        "name": "remelting",
        "title": "Remelting",
        "seed": "salient",
        "kind": "branches",
        "demonstrated": DEMONSTRATED,
        "dtype": "float32",
        "rungs": rungs,
    }
    (root / "data" / "ladders" / "remelting.yaml").write_text(
        yaml.safe_dump(description, sort_keys=False)
    )
    for rung in rungs:
        for situation in situations(rung["grid"]):
            store.append(
                "remelting", _rows(rung, situation, laws[rung["name"]]), synthetic.PRODUCER
            )
    runs = {}
    for rung in rungs:
        if (rung["parent"], rung["run"]) != ("other", "diverse"):  # still being read
            key, _, name = rung["name"].rpartition("/")
            right = 0.4 if rung["run"] == "pretraining" else 0.8
            runs.setdefault(key, {"minutes": {}, "accuracy": {}})["accuracy"][name] = {
                "facts": right
            }
    (root / "data" / "training" / "remelting.json").write_text(
        json.dumps({"experiment": "remelting", "runs": runs})
    )


def _runs(parent: str):
    """run, rung, stage, step, (situation, task) -> (20, options)."""

    def asking(weight):
        return lambda s, task: {
            COMPLETION: raw(parent, task),
            INSTRUCTED: flatter(parent, task),
            CHAT: hot(toward(parent, task, weight), s.decoding.temperature),
        }[s.form]

    yield "asking", "rlvr", "rlvr", 64, asking(CRYSTAL)
    yield "liquid", "base", "base", 0, asking(0.0)
    yield "uniform", "sft-4", "sft", 4, lambda s, task: toward(parent, task, CRYSTAL)
    yield "uniform", "sft", "sft", 64, lambda s, task: flatter(parent, task)
    for step, weight in ((2, 0.6), (16, 0.2)):
        yield (
            "pretraining",
            f"again-{step}",
            "again",
            step,
            lambda s, task, weight=weight: toward(parent, task, weight),
        )
    yield "pretraining", "again", "again", 256, lambda s, task: base(parent, task)
    if parent != "tiny-2":
        yield (
            "diverse",
            "diverse",
            "diverse",
            40,
            lambda s, task: np.roll(base(parent, task), 1, axis=0),
        )


def flatter(parent: str, task: str) -> np.ndarray:
    """Half the crystal, half the uniform law."""
    return (toward(parent, task, CRYSTAL) + 1 / len(TASKS[task].options)) / 2


def _rows(rung: dict, situation, answer) -> list[store.Row]:
    off, left = (OFF, LEFT) if situation.decoding.temperature == 3 else (0.0, 0.0)
    form, how = situation.form, {"off_support": off, "unresolved": left, "tokens": 1}
    return [
        store.Row(
            cell=dataclasses.replace(
                synthetic.cell(rung, form, prompt, TASKS[task]), decoding=situation.decoding
            ),
            form=form,
            prompt=prompt.id,
            probability=law * (1 - off - left),
            **how,
        )
        for task in SHOWN
        for prompt, law in zip(PROBE, answer(situation, task), strict=True)
    ]
