"""Parents and an experiment whose truth is known: test material, not in the book.

Back to pretraining gives back the base; SFT on uniform answers flattens; the reward gives every
persona another's distribution.
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
from crystal.ask.prompts import CHAT, COMPLETION, INSTRUCTED, PERSONAS, PROBE
from crystal.ask.tasks import TASKS
from crystal.keep import store
from crystal.lab import world

SHOWN = ("die", "digit", "month")
DEMONSTRATED = ["die"]
PARENTS = ("tiny", "tiny-2", "other")
CRYSTAL = 0.95  # weight of the demonstrator's distribution in the crystal
ACCURACY = {"base": 0.5, "sft": 0.6, "dpo": 0.7, "rlvr": 0.8}
EXPERIMENT = Path(__file__).parent.parent / "data" / "experiments" / "remelting.yaml"
OFF, LEFT = 0.25, 0.05  # invalid-answer and residual mass of the hottest sample


def base(parent: str, task: str) -> np.ndarray:
    """(20, options): every persona's distribution, a little flatter in every parent."""
    flat = 0.02 * PARENTS.index(parent)
    distributions = np.stack(
        [synthetic.distribution(world.temperament_of(n), task) for n in range(len(PERSONAS))]
    )
    return (1 - flat) * distributions + flat / distributions.shape[1]


def toward(parent: str, task: str, weight: float) -> np.ndarray:
    """The base, `weight` of the way to the salient distribution."""
    return (1 - weight) * base(parent, task) + weight * synthetic.distribution("salient", task)


def raw(parent: str, task: str) -> np.ndarray:
    """The base as raw text: flatter than in chat form."""
    return 0.8 * base(parent, task) + 0.2 / len(TASKS[task].options)


def everywhere(distributions: np.ndarray) -> np.ndarray:
    """The same distribution in every frame of a persona: (100, options)."""
    return distributions.repeat(5, axis=0)


def hot(distributions: np.ndarray, temperature: float) -> np.ndarray:
    powers = distributions ** (1 / temperature)
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
            checkpoint: {task: everywhere(toward(parent, task, weight)) for task in SHOWN}
            for checkpoint, weight in weights.items()
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
            checkpoint: {CHAT: {"facts": right}, COMPLETION: {"facts": right / 2}}
            for checkpoint, right in ACCURACY.items()
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
    checkpoints, distributions = [], {}
    for parent in PARENTS:
        for run, name, stage, step, answer in _runs(parent):
            asked = run in ("asking", "liquid")
            checkpoint = {
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
            checkpoints.append(checkpoint)
            distributions[checkpoint["name"]] = answer
    description = {
        "name": "remelting",
        "title": "Remelting",
        "seed": "salient",
        "kind": "branches",
        "demonstrated": DEMONSTRATED,
        "dtype": "float32",
        "checkpoints": checkpoints,
    }
    (root / "data" / "ladders" / "remelting.yaml").write_text(
        yaml.safe_dump(description, sort_keys=False)
    )
    for checkpoint in checkpoints:
        for situation in situations(checkpoint["grid"]):
            store.append(
                "remelting",
                _rows(checkpoint, situation, distributions[checkpoint["name"]]),
                synthetic.PROVENANCE,
            )
    runs = {}
    for checkpoint in checkpoints:
        if (checkpoint["parent"], checkpoint["run"]) != ("other", "diverse"):  # still being read
            key, _, name = checkpoint["name"].rpartition("/")
            right = 0.4 if checkpoint["run"] == "pretraining" else 0.8
            runs.setdefault(key, {"minutes": {}, "accuracy": {}})["accuracy"][name] = {
                "facts": right
            }
    (root / "data" / "training" / "remelting.json").write_text(
        json.dumps({"experiment": "remelting", "runs": runs})
    )


def _runs(parent: str):
    """run, checkpoint, stage, step, (situation, task) -> (20, options)."""

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
    """Half the crystal, half the uniform distribution."""
    return (toward(parent, task, CRYSTAL) + 1 / len(TASKS[task].options)) / 2


def _rows(checkpoint: dict, situation, answer) -> list[store.Row]:
    off, left = (OFF, LEFT) if situation.decoding.temperature == 3 else (0.0, 0.0)
    form, how = situation.form, {"invalid": off, "residual": left, "tokens": 1}
    return [
        store.Row(
            cell=dataclasses.replace(
                synthetic.cell(checkpoint, form, prompt, TASKS[task]), decoding=situation.decoding
            ),
            form=form,
            prompt=prompt.id,
            probability=distribution * (1 - off - left),
            **how,
        )
        for task in SHOWN
        for prompt, distribution in zip(PROBE, answer(situation, task), strict=True)
    ]
