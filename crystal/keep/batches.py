"""A ladder's grid, cut into batches of cells; one checkpoint that reads them, in this process or in a worker of a cluster.

Where the cuts lie is part of the result: in its last digits a law depends on the prompts that share its tree. So they follow
from the plan and from what the store held when the run began, and from nothing else: the cells of a task in the order of its
prompts, less those that were there, BATCH at a time. Knows nothing of who reads which batch, or of what becomes of the answers.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..ask.cells import Cell, task_sha256
from ..ask.grids import Situation, situations
from ..ask.ladders import Ladder, Rung, config_sha256
from ..ask.natural import NaturalPrompt
from ..ask.prompts import Prompt, template_of
from ..ask.tasks import TASKS, Task
from . import makings, producers, store

BATCH = 128  # prompts to a tree, as in crystal.read.engine: a call of `readout` with fewer would be cut no further


class Batch(NamedTuple):
    """The least that is read at a time."""

    rung: str
    place: int  # of the situation in the rung's grid
    task: str
    number: int  # of the batch in the task's cells


class Read(NamedTuple):
    """What came of a batch."""

    batch: Batch
    rows: tuple[store.Row, ...]  # empty where the store held all of it
    work: float  # token positions needed x parameters of the model: the same on any machine
    seconds: float
    made: dict  # engine, device and versions, for the shard's record


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be read, and in which order."""

    ladder: Ladder
    rungs: tuple[Rung, ...]
    forms: tuple[str, ...]
    tasks: tuple[str, ...]
    budget: float | None = None  # other than the grids'
    missing_only: bool = False
    device: str | None = None
    made: makings.Makings = field(default_factory=dict)  # of what the store held when the run began

    def asked(self, rung: str) -> dict[int, Situation]:
        """The situations a rung is put in, by their place in its grid."""
        grid = situations(self.ladder.rung(rung).grid, self.budget)
        return {place: situation for place, situation in enumerate(grid) if situation.form in self.forms}

    def batches(self, rung: str) -> list[Batch]:
        """Of one rung, in order. As if the store were empty: what it holds makes the last ones of a task come out empty."""
        return [
            Batch(rung, place, task, number) for place, situation in self.asked(rung).items() for task in self.tasks
            for number in range(math.ceil(len(situation.prompts) / BATCH))
        ]

    def ends(self, batch: Batch) -> bool:
        """Whether it is the last of its rung and situation."""
        prompts = self.asked(batch.rung)[batch.place].prompts
        return batch.task == self.tasks[-1] and (batch.number + 1) * BATCH >= len(prompts)

    def size(self, batch: Batch) -> int:
        """Cells of a batch, those that the store holds included."""
        return len(self._prompts(batch))

    def name_of(self, batch: Batch) -> str:
        """For a sentence."""
        form, prompts = self.asked(batch.rung)[batch.place].form, self._prompts(batch)
        return f"rung {batch.rung}, {form}, task {batch.task}, prompts {prompts[0].id} to {prompts[-1].id}"

    def _prompts(self, batch: Batch) -> tuple[Prompt | NaturalPrompt, ...]:
        return self.asked(batch.rung)[batch.place].prompts[batch.number * BATCH : (batch.number + 1) * BATCH]

    def held(self, rung: Rung) -> frozenset[str]:
        """Keys of the cells that are not to be read, as the store has them now: ask before anything of the rung is written."""
        return frozenset(store.keys(self.ladder.name, revision=rung.revision)) if self.missing_only else frozenset()


class Reader:
    """A rung, loaded. held: what `Plan.held` said.

    Raises: CrystalError as `crystal.read.engine.load_rung` and `crystal.read.readout.readout` do,
    or for another config.json or tokenizer than the rung's stored cells were read with.
    """

    def __init__(self, plan: Plan, rung: Rung, held: frozenset[str]) -> None:
        from ..read import engine

        self.plan, self.rung, self.held = plan, rung, held
        self.machine = engine.load_rung(rung, dtype=plan.ladder.dtype, device=plan.device)
        self.config = config_sha256(rung)
        makings.check(plan.made, rung, (self.config, self.machine.tokenizer_revision))
        self.cells = functools.cache(self._cells)
        self.made = {
            "engine": "ragged tree" if self.machine.ragged else "whole tree",
            "device": producers.device_name(self.machine.device),
            "versions": producers.versions(),
        }

    def read(self, batch: Batch) -> Read:
        """Read the cells of a batch that are not held."""
        from ..read import readout

        start, form = time.perf_counter(), self.plan.asked(batch.rung)[batch.place].form
        cells = self.cells(batch.place, batch.task)[batch.number * BATCH : (batch.number + 1) * BATCH]
        if not cells:
            return Read(batch, (), 0.0, 0.0, self.made)
        decoding = cells[0][1].decoding
        found = readout.readout(
            self.machine, [cell.prompt_ids for _, cell in cells], TASKS[batch.task], budget=decoding.budget,
            relative=decoding.relative, max_nodes=decoding.max_nodes,
            max_depth=decoding.max_depth, temperature=decoding.temperature,
        )
        rows = tuple(store.Row(cell, form, prompt, law.options, law.off_support, law.unresolved, law.tokens)
                     for (prompt, cell), law in zip(cells, found, strict=True))
        work = float(sum(row.tokens for row in rows)) * self.machine.model.num_parameters()
        return Read(batch, rows, work, time.perf_counter() - start, self.made)

    def _cells(self, place: int, task: str) -> list[tuple[str, Cell]]:
        """The cells of a task that are not held, each with the id of its prompt."""
        asked = self.plan.asked(self.rung.name)[place]
        every = [(p.id, self._cell(asked, task, self._encoded(p, TASKS[task], asked.form))) for p in asked.prompts]
        return [(prompt, cell) for prompt, cell in every if cell.key not in self.held]

    def _encoded(self, prompt: Prompt | NaturalPrompt, task: Task, form: str) -> tuple[int, ...]:
        return self.machine.encode(prompt.text(task, form), template_of(form), prompt.reply(task))

    def _cell(self, asked: Situation, task: str, ids: tuple[int, ...]) -> Cell:
        return Cell(
            model=self.rung.source, revision=self.rung.revision, config_sha256=self.config, dtype=self.plan.ladder.dtype,
            tokenizer_revision=self.machine.tokenizer_revision, prompt_ids=ids, decoding=asked.decoding,
            task=task, task_sha256=task_sha256(TASKS[task]),
        )

    def unload(self) -> None:
        """Give the memory back: two checkpoints may not fit beside each other."""
        self.machine.unload()


def read_here(plan: Plan) -> Iterator[Read]:
    """Every batch in the plan's order, in this process; each checkpoint is loaded once, and unloaded before the next is."""
    for rung in plan.rungs:
        reader = Reader(plan, rung, plan.held(rung))
        yield from map(reader.read, plan.batches(rung.name))
        reader.unload()
