"""Ladders made of given numbers, through the real store: test material, never shown in the book."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from crystal.ask import cells
from crystal.ask.cells import Cell, Decoding, task_sha256
from crystal.ask.ladders import weights_sha256
from crystal.ask.prompts import PROMPTS, Prompt
from crystal.ask.tasks import TASKS, Task
from crystal.keep import manifest, store
from crystal.lab import world

Answers = Mapping[str, Mapping[str, np.ndarray]]  # checkpoint -> task -> (100, K), rows sum to 1
PROVENANCE = manifest.provenance(engine="synthetic", device="none", dtype="float32", seconds=0.0)


@cache
def distribution(temperament: str, task: str) -> np.ndarray:
    """`world.distribution`, computed once."""
    return world.distribution(temperament, TASKS[task])


def write_ladder(
    root: str | Path,
    name: str,
    answers: Answers,
    *,
    other: Answers | None = None,
    invalid: float | Mapping[tuple[str, str], int] = 0.0,
    hub: bool = False,
    **fields,
) -> Path:
    """Write data/ladders/<name>.yaml and data/samples/<name> under `root`; point CRYSTAL_ROOT at it
    to read them.

    hub: as a ladder of the hub, pinned, its base to be read as raw text only; in data/ladders/hub.

    answers: native form (base completion, others chat), conditional on an option, rows in PROMPTS
    order; the four ends base, sft, dpo, rlvr at least, and sft-<step> if wanted. other: the same
    for the other form (default: none is written).
    invalid: as in `rows`. fields: of the yaml, such as title, seed, demonstrated.
    Returns: root.
    """
    checkpoints = [
        _checkpoint(name, checkpoint) | (_on_the_hub(name, checkpoint) if hub else {})
        for checkpoint in sorted(answers, key=_order)
    ]
    path = Path(root) / "data" / "ladders" / ("hub" if hub else "") / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        yaml.safe_dump(
            {"name": name, "title": name, "dtype": "float32", **fields, "checkpoints": checkpoints},
            sort_keys=False,
        )
    )
    before = os.environ.get("CRYSTAL_ROOT")
    os.environ["CRYSTAL_ROOT"] = str(root)
    try:
        for checkpoint in checkpoints:
            native, foreign = (
                ("completion", "chat") if checkpoint["stage"] == "base" else ("chat", "completion")
            )
            for form, distributions in ((native, answers), (foreign, other or {})):
                if distributions.get(checkpoint["name"]):
                    store.append(
                        name,
                        rows(checkpoint, form, distributions[checkpoint["name"]], invalid),
                        PROVENANCE,
                    )
    finally:
        os.environ.pop("CRYSTAL_ROOT") if before is None else os.environ.update(CRYSTAL_ROOT=before)
    return Path(root)


def coarse(patch, tolerance: float) -> None:
    """Let the grids of the world's prompts leave that much open."""
    for name, grid in cells.GRIDS.items():
        if not callable(grid):
            decodings = [replace(s.decoding, tolerance=tolerance) for s in grid]
            grid = tuple(replace(s, decoding=how) for s, how in zip(grid, decodings))
            patch.setitem(cells.GRIDS, name, grid)


def write_weights(root: str | Path, name: str) -> None:
    """Give every checkpoint of a described ladder weights and a config.json of a few bytes, and its
    description their hashes.
    """
    path = Path(root) / "data" / "ladders" / f"{name}.yaml"
    raw = yaml.safe_load(path.read_text())
    for checkpoint in raw["checkpoints"]:
        folder = Path(root) / checkpoint["source"]
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(checkpoint["name"])
        (folder / "config.json").write_text("{}")
        checkpoint["revision"] = weights_sha256(folder)
    path.write_text(yaml.safe_dump(raw))


def rows(
    checkpoint: dict,
    form: str,
    distributions: Mapping[str, np.ndarray],
    invalid: float | Mapping[tuple[str, str], int] = 0.0,
    prompts: Sequence[Prompt] = PROMPTS,
) -> list[store.Row]:
    """One store row per task and prompt; the prompt's characters stand in for its token ids.

    invalid: of every cell; or (checkpoint, task) -> how many of the first prompts are hardly
    answered.
    """
    found = []
    for task, table in distributions.items():
        for place, (prompt, distribution) in enumerate(zip(prompts, table, strict=True)):
            off = (
                invalid
                if isinstance(invalid, float)
                else 0.999 * (place < invalid.get((checkpoint["name"], task), 0))
            )
            found.append(
                store.Row(
                    cell=cell(checkpoint, form, prompt, TASKS[task]),
                    form=form,
                    prompt=prompt.id,
                    probability=np.asarray(distribution) * (1 - off),
                    invalid=off,
                    residual=0.0,
                    tokens=1,
                )
            )
    return found


def cell(checkpoint: dict, form: str, prompt: Prompt, task: Task) -> Cell:
    return Cell(
        model=checkpoint["source"],
        revision=checkpoint["revision"],
        config_sha256="0" * 64,
        tokenizer_revision="0" * 64,
        dtype="float32",
        prompt_ids=tuple(map(ord, prompt.text(task, form))),
        decoding=Decoding(),
        task=task.name,
        task_sha256=task_sha256(task),
    )


def crystallizing(
    tasks=("coin", "digit"), checkpoints=("base", "sft-1", "sft", "dpo", "rlvr"), *, seed: int
) -> Answers:
    """Answers that crystallize: liquid in the base, on one persona's distribution from SFT on. For
    tests that need just any ladder.
    """
    rng = np.random.default_rng(seed)
    base = {
        task: rng.dirichlet(np.full(len(TASKS[task].options), 0.5), size=20).repeat(5, axis=0)
        for task in tasks
    }
    share = {
        checkpoint: 0.0 if checkpoint == "base" else 0.3 if checkpoint.startswith("sft-") else 0.9
        for checkpoint in checkpoints
    }
    return {
        checkpoint: {task: (1 - w) * base[task] + w * base[task][0] for task in tasks}
        for checkpoint, w in share.items()
    }


def _order(checkpoint: str) -> tuple[int, float]:
    stage, _, step = checkpoint.partition("-")
    return ("base", "sft", "dpo", "rlvr").index(stage), float(step or "inf")


def _checkpoint(ladder: str, name: str) -> dict:
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
