"""Draw answers from a ladder's stage ends: every cell of the grid once, resumable after a kill at any moment.

The grid: stage ends in their native forms x tasks x the twenty probe prompts (`crystal.ask.prompts.PROBE`).
A base goes on after its answer, with the next question and its answer, until the tokens run out. Only the line of the answer
is kept. That changes no law: cutting a finished draw at its line end and stopping the model there give the same counts of lines.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from ..ask.cells import Cell, Decoding, task_sha256
from ..ask.ladders import KINDS, STAGES, Ladder, Rung, check_weights, config_sha256, load_ladder
from ..ask.prompts import PROBE, Prompt
from ..ask.tasks import TASKS, Task, first_line
from ..errors import CrystalError, known
from . import drawn, makings, producers, progress
from .drawn import DRAWN, TASKS_DRAWN, TRUTH

if TYPE_CHECKING:
    from ..read.engine import Engine

TOGETHER = 4  # prompts in one tree: a base's twenty are a hundred thousand nodes, whose keys and values are several GiB


def draw(
    name: str, *, tasks: Sequence[str] = TASKS_DRAWN, rungs: Sequence[str] = STAGES, decoding: Decoding = DRAWN,
    device: str | None = None,
) -> pd.DataFrame:
    """Draw what the ladder's log of draws lacks; for tasks with options their exact law, too.

    Returns: one row per rung and task: cells, new (drawn now), texts (distinct, of the new ones), seconds.
    Raises: CrystalError for an unknown name, or weights, config.json or tokenizer that are not
    those of the ladder or of its stored cells.
    """
    ladder = load_ladder(name)
    if ladder.kind != "ladder":
        what = f"{name} is {KINDS[ladder.kind]}, and draws are of a ladder's four stages"
        raise CrystalError(what, mend="make draw LADDER=nano-llama")
    chosen = [ladder.rung(rung) for rung in rungs]
    asked = [TASKS[known(task, TASKS, "task")] for task in tasks]
    for rung in chosen:
        check_weights(rung)
    return pd.DataFrame(list(_walk(ladder, chosen, asked, decoding, device)))


def _walk(ladder: Ladder, rungs: Sequence[Rung], tasks: Sequence[Task], decoding: Decoding, device: str | None) -> Iterator[dict]:
    """Every rung and task; each checkpoint is loaded once, and unloaded before the next is, each task's cells are a shard."""
    from ..read import engine

    held, made = drawn.keys(ladder.name), makings.makings(ladder.name)
    with progress.bar(len(rungs) * len(tasks) * len(PROBE), ladder.name) as bar:
        for rung in rungs:
            machine = engine.load_rung(rung, dtype=ladder.dtype, device=device)
            makings.check(made, rung, (config_sha256(rung), machine.tokenizer_revision))
            for task in tasks:
                bar.set_postfix_str(f"{rung.name}, {task.name}", refresh=False)
                start = time.perf_counter()
                rows = [row for part in _parts() for row in _rows(ladder, rung, machine, task, part, decoding, held)]
                seconds = time.perf_counter() - start
                if rows:
                    drawn.append(ladder.name, rows, _producer(ladder, machine, seconds))
                bar.update(len(PROBE))
                new = [row for row in rows if row.texts]
                yield {"rung": rung.name, "task": task.name, "cells": len(PROBE), "new": len(new),
                       "texts": sum(len(row.texts) for row in new), "seconds": seconds}
            machine.unload()


def _parts() -> Iterator[Sequence[Prompt]]:
    for low in range(0, len(PROBE), TOGETHER):
        yield PROBE[low : low + TOGETHER]


def _rows(
    ladder: Ladder, rung: Rung, machine: Engine, task: Task, prompts: Sequence[Prompt], decoding: Decoding, held: set[str],
) -> list[drawn.Row]:
    """What the log lacks of these prompts: draws, and the exact law where the task has options."""
    rows = []
    for wanted, found in ((decoding, _drawn), (TRUTH, _laws)) if task.closed else ((decoding, _drawn),):
        cells = {prompt.id: _cell(ladder, rung, machine, task, prompt, wanted) for prompt in prompts}
        cells = {prompt: cell for prompt, cell in cells.items() if cell.key not in held}
        if cells:
            fields = found(machine, [cell.prompt_ids for cell in cells.values()], task, wanted)
            rows += [drawn.Row(cell, rung.native_form, prompt, *field)
                     for (prompt, cell), field in zip(cells.items(), fields, strict=True)]
    return rows


def _drawn(machine: Engine, ids: Sequence[tuple[int, ...]], task: Task, wanted: Decoding) -> list[tuple]:
    from ..read.sampling import draw_many

    return [(lines(texts),) for texts in draw_many(machine, ids, wanted.n, seed=wanted.seed, max_tokens=wanted.max_tokens)]


def _laws(machine: Engine, ids: Sequence[tuple[int, ...]], task: Task, wanted: Decoding) -> list[tuple]:
    from ..read.readout import readout

    found = readout(machine, ids, task, budget=wanted.budget, relative=wanted.relative, max_nodes=wanted.max_nodes,
                    max_depth=wanted.max_depth)
    return [({}, law.options.tolist(), law.off_support, law.unresolved) for law in found]


def lines(texts: dict[str, int]) -> dict[str, int]:
    """Counts of whole texts as counts of their first lines, most frequent first."""
    found: Counter[str] = Counter()
    for text, count in texts.items():
        found[first_line(text)] += count
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _cell(ladder: Ladder, rung: Rung, machine: Engine, task: Task, prompt: Prompt, decoding: Decoding) -> Cell:
    return Cell(
        model=rung.source, revision=rung.revision, config_sha256=config_sha256(rung), dtype=ladder.dtype,
        tokenizer_revision=machine.tokenizer_revision, decoding=decoding, task=task.name, task_sha256=task_sha256(task),
        prompt_ids=machine.encode(prompt.text(task, rung.native_form), rung.native_form),
    )


def _producer(ladder: Ladder, machine: Engine, seconds: float) -> dict:
    kind = "ragged tree" if machine.ragged else "whole tree"
    return producers.producer(
        engine=kind, device=str(machine.device), dtype=ladder.dtype, seconds=seconds
    )
