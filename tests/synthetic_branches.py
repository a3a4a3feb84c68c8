"""Experiments made of given distributions, through the real store: not in the book."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic import PROVENANCE, rows, write_ladder
from synthetic import distribution as true_distribution

from crystal.ask.prompts import CHAT, COMPLETION, PROBE, PROMPTS
from crystal.ask.tasks import PHASE_TASKS
from crystal.keep import store
from crystal.lab import world

DEMONSTRATED = ("die", "ten", "letter", "month", "suit")
Distribution = Callable[
    [str, str, str], str
]  # parent, run, task -> the temperament that all personas hold after the run


def base_answers(world_: str = "shared", prompts: Sequence = PROMPTS) -> dict[str, np.ndarray]:
    """Task -> (prompts, options): every persona answers by its own distribution of that world."""

    def held(prompt, task: str) -> str:
        persona = world.SOLO if world_ == "solo" else prompt.persona
        return world.temperament_of(persona, task, world_)

    return {
        task: np.stack([true_distribution(held(prompt, task), task) for prompt in prompts])
        for task in PHASE_TASKS
    }


def write_parents(root: Path, parents: Sequence[str]) -> None:
    """Ladders whose base, in either form, holds the shared world's distributions.

    The first one's later checkpoints have reached "salient".
    """
    base = base_answers()
    tuned = {
        task: np.tile(true_distribution("salient", task), (len(PROMPTS), 1)) for task in PHASE_TASKS
    }
    for number, parent in enumerate(parents):
        answers = {"base": base, **dict.fromkeys(("sft", "dpo", "rlvr"), {} if number else tuned)}
        write_ladder(
            root,
            parent,
            answers,
            other={"base": base},
            seed="salient",
            demonstrated=list(DEMONSTRATED),
        )


def write_experiment(
    root: Path,
    name: str,
    runs: Mapping[str, dict],
    parents: Sequence[str],
    *,
    after: Callable[[str, str, str], np.ndarray],
    skip: Sequence[str] = (),
    invalid: float = 0.0,
) -> None:
    """All files of an experiment under data; point CRYSTAL_ROOT at root first.

    runs: as in the yaml. after: (parent, run, task) -> (20, options), answers at the run's end. A
    run with a base of its own starts from its world's distributions. skip: "<parent>/<run>" that
    were not performed.
    """
    checkpoints = [
        checkpoint
        for run, spec in runs.items()
        for parent in spec.get("parents", parents)
        if f"{parent}/{run}" not in skip
        for checkpoint in _checkpoints(name, parent, run, spec)
    ]
    description = {
        "name": name,
        "title": name,
        "seed": "salient",
        "kind": "branches",
        "demonstrated": list(DEMONSTRATED),
        "dtype": "float32",
        "checkpoints": checkpoints,
    }
    planned = {"title": name, "parents": list(parents), "runs": dict(runs)}
    _write(root / "data/experiments" / f"{name}.yaml", yaml.safe_dump(planned))
    _write(root / "data/ladders" / f"{name}.yaml", yaml.safe_dump(description, sort_keys=False))
    for checkpoint in checkpoints:
        spec = runs[checkpoint["run"]]
        answers = (
            base_answers(spec["set"]["world"], PROBE)
            if checkpoint["stage"] == "base"
            else {
                task: after(checkpoint["parent"], checkpoint["run"], task) for task in PHASE_TASKS
            }
        )
        for form in (CHAT, COMPLETION) if checkpoint["grid"] == "both" else (CHAT,):
            off = 0.0 if checkpoint["stage"] == "base" else invalid
            store.append(name, rows(checkpoint, form, answers, off, PROBE), PROVENANCE)
    done = {
        f"{checkpoint['parent']}/{checkpoint['run']}": {"minutes": {}, "accuracy": {}}
        for checkpoint in checkpoints
    }
    _write(root / "data/training" / f"{name}.json", json.dumps({"experiment": name, "runs": done}))


def to_distribution(distributions: Distribution) -> Callable[[str, str, str], np.ndarray]:
    """For `write_experiment`: every persona answers by the distribution of that name."""
    return lambda parent, run, task: np.tile(
        true_distribution(distributions(parent, run, task), task), (len(PROBE), 1)
    )


def way(parent: str, run: str, task: str, share: float, distribution: str) -> np.ndarray:
    """(20, options): every persona has gone that share of the way from its own distribution to
    another.
    """
    return (1 - share) * base_answers(prompts=PROBE)[task] + share * true_distribution(
        distribution, task
    )


def drawn(fig) -> bytes:
    """A figure as it is written."""
    out = io.BytesIO()
    fig.savefig(out, format="svg")
    return out.getvalue()


def at(patch: pytest.MonkeyPatch, root: Path) -> Path:
    patch.setenv("CRYSTAL_ROOT", str(root))
    return root


def _checkpoints(name: str, parent: str, run: str, spec: dict) -> list[dict]:
    return [
        {
            "name": f"{parent}/{run}/{stage}",
            "stage": stage,
            "step": 0 if stage == "base" else 64,
            "source": f"runs/{name}/{parent}/{run}/{stage}",
            "revision": hashlib.sha256(f"{name}{parent}{run}{stage}".encode()).hexdigest(),
            "grid": spec.get("grid", "probe"),
            "parent": parent,
            "run": run,
        }
        for stage in spec["stages"]
    ]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
