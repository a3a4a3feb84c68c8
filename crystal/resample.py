"""Read a ladder's checkpoints again: keep the cells the store lacks, compare those it holds, cell by cell.

Knows the grid (rungs x forms x tasks x prompts) and the order to walk it in; how an answer is read is readout's business.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from . import manifest, store
from .cells import Cell, task_sha256
from .errors import CrystalError, known
from .grids import Situation, situations
from .ladders import Ladder, Rung, check_weights, config_sha256, load_ladder
from .prompts import ALL_FORMS, template_of
from .tasks import PHASE_TASKS, TASKS, Task

if TYPE_CHECKING:
    from .engine import Engine

# How far a probability may move on another processor, where sums are taken in another order. fp32: another number of
# threads or another batch moved 3,000 cells of nano-llama's base by 1.1e-6 at most; 50 times that. Narrower: batches of 7 in
# place of 32 moved 1,200 cells of nano-llama and nano-olmo2 by 1.5e-2 (bf16) and 2e-3 (fp16) at most; three times that, since a
# false alarm is loud. A prefix at the edge of the budget may be kept by one run and left by the other: what was left unresolved
# comes on top, per cell.
ROUNDING = {"float32": 5e-5, "bfloat16": 5e-2, "float16": 6e-3}

# A shard holds the tasks of one rung and form that were read within this time, so that a kill loses no more than this and
# the task at hand. A shard per task would lose less, but 300 small files a ladder are slow to clone and to load.
FLUSH_SECONDS = 10.0


class Drift(NamedTuple):
    """A cell that was there before: the largest move of a probability in it, and the largest that is no difference."""

    difference: float
    allowed: float
    cell: str


def resample(
    name: str, *, forms: Sequence[str] = ALL_FORMS, tasks: Sequence[str] = PHASE_TASKS, rungs: Sequence[str] | None = None,
    budget: float | None = None, missing_only: bool = False, device: str | None = None,
) -> pd.DataFrame:
    """Compute the exact read-outs of a ladder's grids; resumable after a kill at any moment. rungs: None = all.

    missing_only: leave alone what the store holds; else compute that too and compare. budget: other than the grids'.
    Returns: one row per rung, form and temperature: cells, new (written), compared, median and max (over the compared cells,
    the largest absolute difference of an option's or off_support's probability), tokens and seconds of computing.
    Tolerance of a cell: ROUNDING of the ladder's dtype, plus what either read-out left unresolved.
    Raises: CrystalError for an unknown name, weights that are not the ladder's or not pinned, or, once all is read and
    written, cells above the tolerance.
    """
    ladder = load_ladder(name, unpinned=True)  # rungs that are not asked for need no commit
    chosen = ladder.rungs if rungs is None else [ladder.rung(rung) for rung in rungs]
    forms = [known(form, ALL_FORMS, "form") for form in forms]
    closed = [task.name for task in TASKS.values() if task.closed]
    asked = [TASKS[known(task, closed, "closed task")] for task in tasks]
    for rung in chosen:
        check_weights(rung)
    grid = {rung.name: [s for s in situations(rung.grid, budget) if s.form in forms] for rung in chosen}
    parts = list(_walk(ladder, chosen, grid, asked, missing_only, device))
    _refuse_drift(name, [drift for part in parts for drift in part.drifts])
    return pd.DataFrame([part.summary() for part in parts])


def _walk(
    ladder: Ladder, rungs: Sequence[Rung], grid: Mapping[str, Sequence[Situation]], tasks: Sequence[Task], missing_only: bool,
    device: str | None,
) -> Iterator[_Part]:
    """Every rung in every situation of its grid; each checkpoint is loaded once, and unloaded before the next is."""
    from tqdm import tqdm

    from . import engine

    total = len(tasks) * sum(len(situation.prompts) for rung in rungs for situation in grid[rung.name])
    with tqdm(total=total, unit=" cells", desc=ladder.name) as bar:
        for rung in rungs:
            machine = engine.load_rung(rung, dtype=ladder.dtype, device=device)
            for situation in grid[rung.name]:
                bar.set_postfix_str(f"{rung.name}, {situation.form}")
                part = _Part(ladder, rung, situation, machine)
                for task in tasks:
                    part.read(task, missing_only)
                    bar.update(len(situation.prompts))
                part.flush()
                yield part
            machine.unload()


def _refuse_drift(name: str, drifts: Sequence[Drift]) -> None:
    over = [drift for drift in drifts if not drift.difference <= drift.allowed]
    if over:
        worst = max(over)
        raise CrystalError(
            f"{len(over)} of {len(drifts)} cells are not what the cache holds; the worst, {worst.cell}, moved by "
            f"{worst.difference:.2g} where {worst.allowed:.2g} is allowed",
            where=manifest.folder_of(name), mend=manifest.mend(name),
        )


@dataclass
class _Part:
    """One rung in one situation: what was there, and what has been read so far."""

    ladder: Ladder
    rung: Rung
    asked: Situation
    machine: Engine
    fresh: list[store.Row] = field(default_factory=list)  # read, not yet written
    drifts: list[Drift] = field(default_factory=list)
    cells: int = 0
    new: int = 0
    tokens: int = 0
    seconds: float = 0.0
    unwritten: float = 0.0  # seconds spent on `fresh`

    def __post_init__(self) -> None:
        columns = ["key", "probability", "off_support", "unresolved"]
        held = store.read(self.ladder.name, revision=self.rung.revision, columns=columns)
        self.held = {row["key"]: row for row in held.to_pylist()}
        self.config = config_sha256(self.rung)

    def read(self, task: Task, missing_only: bool) -> None:
        """Read the prompts of a task; write if it is time."""
        from . import readout

        start, decoding = time.perf_counter(), self.asked.decoding
        form, template = self.asked.form, template_of(self.asked.form)
        cells = {p.id: self._cell(task, self.machine.encode(p.text(task, form), template)) for p in self.asked.prompts}
        todo = {prompt: cell for prompt, cell in cells.items() if not (missing_only and cell.key in self.held)}
        found = readout.readout(
            self.machine, [cell.prompt_ids for cell in todo.values()], task,
            budget=decoding.budget, max_nodes=decoding.max_nodes, max_depth=decoding.max_depth,
            temperature=decoding.temperature,
        )
        for (prompt, cell), law in zip(todo.items(), found, strict=True):
            row = store.Row(cell, form, prompt, law.options, law.off_support, law.unresolved, law.tokens)
            self.tokens += law.tokens
            if cell.key in self.held:
                self.drifts.append(self._drift(row, self.held[cell.key]))
            else:
                self.fresh.append(row)
        self.cells += len(cells)
        self.unwritten += time.perf_counter() - start
        if self.unwritten > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has been read as one shard."""
        if self.fresh:
            made = store.producer(
                engine="ragged tree" if self.machine.ragged else "whole tree", device=str(self.machine.device),
                dtype=self.ladder.dtype, seconds=self.unwritten,
            )
            store.append(self.ladder.name, self.fresh, made)
        self.new, self.seconds = self.new + len(self.fresh), self.seconds + self.unwritten
        self.fresh, self.unwritten = [], 0.0

    def _cell(self, task: Task, ids: tuple[int, ...]) -> Cell:
        return Cell(
            model=self.rung.source, revision=self.rung.revision, config_sha256=self.config, dtype=self.ladder.dtype,
            tokenizer_revision=self.machine.tokenizer_revision, prompt_ids=ids, decoding=self.asked.decoding,
            task=task.name, task_sha256=task_sha256(task),
        )

    def _drift(self, row: store.Row, held: dict) -> Drift:
        law = store.kept(row.probability, self.ladder.dtype)
        now, then = np.append(law, row.off_support), np.append(held["probability"], held["off_support"])
        allowed = ROUNDING[self.ladder.dtype] + max(row.unresolved, held["unresolved"])
        cell = f"rung {self.rung.name}, {self.asked.form}, task {row.cell.task}, prompt {row.prompt}"
        return Drift(float(abs(now - then).max()), allowed, cell)

    def summary(self) -> dict:
        moved = [drift.difference for drift in self.drifts]
        return {
            "rung": self.rung.name, "form": self.asked.form, "temperature": self.asked.decoding.temperature,
            "cells": self.cells, "new": self.new, "compared": len(moved),
            "median": float(np.median(moved)) if moved else np.nan, "max": max(moved, default=np.nan),
            "tokens": self.tokens, "seconds": self.seconds,
        }
