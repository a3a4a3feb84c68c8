"""Ladders made of given numbers, through the real store: test material, never shown in the book."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from crystal.ask.cells import Cell, Decoding, task_sha256
from crystal.ask.ladders import weights_sha256
from crystal.ask.prompts import PROMPTS, Prompt
from crystal.ask.tasks import TASKS, Task
from crystal.keep import manifest, store
from crystal.lab import world

Answers = Mapping[str, Mapping[str, np.ndarray]]  # rung -> task -> (100, K), rows sum to 1
PRODUCER = manifest.producer(engine="synthetic", device="none", dtype="float32", seconds=0.0)


@cache
def law(temperament: str, task: str) -> np.ndarray:
    """`world.law`, computed once."""
    return world.law(temperament, TASKS[task])


def write_ladder(
    root: str | Path,
    name: str,
    answers: Answers,
    *,
    other: Answers | None = None,
    off_support: float | Mapping[tuple[str, str], int] = 0.0,
    hub: bool = False,
    **fields,
) -> Path:
    """Write data/ladders/<name>.yaml and data/samples/<name> under `root`; point CRYSTAL_ROOT at it
    to read them.

    hub: as a ladder of the hub, pinned, its base to be read as raw text only; in data/ladders/hub.

    answers: native form (base completion, others chat), conditional on an option, rows in PROMPTS
    order; the four ends base, sft, dpo, rlvr at least, and sft-<step> if wanted. other: the same
    for the other form (default: none is written).
    off_support: as in `rows`. fields: of the yaml, such as title, seed, demonstrated.
    Returns: root.
    """
    rungs = [
        _rung(name, rung) | (_on_the_hub(name, rung) if hub else {})
        for rung in sorted(answers, key=_order)
    ]
    path = Path(root) / "data" / "ladders" / ("hub" if hub else "") / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        yaml.safe_dump(
            {"name": name, "title": name, "dtype": "float32", **fields, "rungs": rungs},
            sort_keys=False,
        )
    )
    before = os.environ.get("CRYSTAL_ROOT")
    os.environ["CRYSTAL_ROOT"] = str(root)
    try:
        for rung in rungs:
            native, foreign = (
                ("completion", "chat") if rung["stage"] == "base" else ("chat", "completion")
            )
            for form, laws in ((native, answers), (foreign, other or {})):
                if laws.get(rung["name"]):
                    store.append(name, rows(rung, form, laws[rung["name"]], off_support), PRODUCER)
    finally:
        os.environ.pop("CRYSTAL_ROOT") if before is None else os.environ.update(CRYSTAL_ROOT=before)
    return Path(root)


def write_weights(root: str | Path, name: str) -> None:
    """Give every rung of a described ladder weights and a config.json of a few bytes, and its
    description their hashes.
    """
    path = Path(root) / "data" / "ladders" / f"{name}.yaml"
    raw = yaml.safe_load(path.read_text())
    for rung in raw["rungs"]:
        folder = Path(root) / rung["source"]
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(rung["name"])
        (folder / "config.json").write_text("{}")
        rung["revision"] = weights_sha256(folder)
    path.write_text(yaml.safe_dump(raw))


def rows(
    rung: dict,
    form: str,
    laws: Mapping[str, np.ndarray],
    off_support: float | Mapping[tuple[str, str], int] = 0.0,
    prompts: Sequence[Prompt] = PROMPTS,
) -> list[store.Row]:
    """One store row per task and prompt; the prompt's characters stand in for its token ids.

    off_support: of every cell; or (rung, task) -> how many of the first prompts are hardly
    answered.
    """
    found = []
    for task, table in laws.items():
        for place, (prompt, law) in enumerate(zip(prompts, table, strict=True)):
            off = (
                off_support
                if isinstance(off_support, float)
                else 0.999 * (place < off_support.get((rung["name"], task), 0))
            )
            found.append(
                store.Row(
                    cell=cell(rung, form, prompt, TASKS[task]),
                    form=form,
                    prompt=prompt.id,
                    probability=np.asarray(law) * (1 - off),
                    off_support=off,
                    unresolved=0.0,
                    tokens=1,
                )
            )
    return found


def cell(rung: dict, form: str, prompt: Prompt, task: Task) -> Cell:
    return Cell(
        model=rung["source"],
        revision=rung["revision"],
        config_sha256="0" * 64,
        tokenizer_revision="0" * 64,
        dtype="float32",
        prompt_ids=tuple(map(ord, prompt.text(task, form))),
        decoding=Decoding(),
        task=task.name,
        task_sha256=task_sha256(task),
    )


def crystallizing(
    tasks=("coin", "digit"), rungs=("base", "sft-1", "sft", "dpo", "rlvr"), *, seed: int
) -> Answers:
    """Answers that crystallize: liquid in the base, on one narrator's law from SFT on. For tests
    that need just any ladder.
    """
    rng = np.random.default_rng(seed)
    base = {
        task: rng.dirichlet(np.full(len(TASKS[task].options), 0.5), size=20).repeat(5, axis=0)
        for task in tasks
    }
    share = {
        rung: 0.0 if rung == "base" else 0.3 if rung.startswith("sft-") else 0.9 for rung in rungs
    }
    return {
        rung: {task: (1 - w) * base[task] + w * base[task][0] for task in tasks}
        for rung, w in share.items()
    }


def _order(rung: str) -> tuple[int, float]:
    stage, _, step = rung.partition("-")
    return ("base", "sft", "dpo", "rlvr").index(stage), float(step or "inf")


def _rung(ladder: str, name: str) -> dict:
    stage, _, step = name.partition("-")
    return {
        "name": name,
        "stage": stage,
        "step": int(step or (0 if stage == "base" else 64)),
        "source": f"data/weights/{ladder}/{name}",
        "revision": hashlib.sha256(f"{ladder}/{name}".encode()).hexdigest(),
    }


def _on_the_hub(ladder: str, name: str) -> dict:
    return {
        "source": f"{ladder}/{name}",
        "revision": hashlib.sha1(f"{ladder}/{name}".encode()).hexdigest(),
        "grid": "raw" if name == "base" else "full",
        "step": int(name != "base"),
    }
