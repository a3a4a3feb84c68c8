"""Reads a ladder's grid: keeps the cells that the store lacks, compares those it holds.

In its last digits a distribution depends on the prompts that share its tree. So a batch follows
from the plan and from what the store held when the run began: a task's cells in the order of its
prompts, less those that were there, whether it is read here or on a cluster
(`crystal.keep.cluster`).
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..ask.cells import Cell, Decoding, Situation, situations, task_sha256
from ..ask.ladders import (
    Checkpoint,
    Ladder,
    check_pinned,
    check_weights,
    config_sha256,
    is_here,
    load_ladder,
)
from ..ask.prompts import ALL_FORMS, NaturalPrompt, template_of
from ..ask.tasks import PHASE_TASKS, TASKS, Task
from ..errors import CrystalError, known
from . import drawn, manifest, store

if TYPE_CHECKING:
    from ..read.engine import Engine

# How far a probability may move where sums are taken in another order; the residual comes on top.
# Other threads or batches moved cells of nano-llama and nano-olmo2 by 1.1e-6 (fp32), 1.5e-2 (bf16)
# and 2e-3 (fp16) at most; allowed is 50 times the first, three times the others.
ROUNDING = {"float32": 5e-5, "bfloat16": 5e-2, "float16": 6e-3}

# A shard holds whole tasks of one checkpoint and form, as many as this much work (tokens x
# parameters) takes: all of a nano checkpoint's, 7e10; one of a model of 1e8 parameters. Seconds
# would cut other files on another machine.
SHARD_WORK = 1e11

SELDOM = 60.0  # seconds between two looks at a bar that a scheduler keeps in a log
_COMPARED = ("probability", "invalid", "residual")
TOGETHER = 10  # prompts of `ask` between two looks at the bar
NODES = 400  # tokens behind a prompt, at most, as for the read-outs of the book
COLUMNS = tuple("ladder stage task prompt cluster wording option probability answered".split())


def bar(total: int, name: str, unit: str = "cells", delay: float = 0) -> tqdm:
    """How far a walk over `total` cells is. delay: seconds before it is shown at all."""
    often = 0.1 if sys.stderr.isatty() else SELDOM
    return tqdm(total=total, unit=f" {unit}", desc=name, mininterval=often, delay=delay)


# -- what is to be read


class Batch(NamedTuple):
    """The least that is read at a time: a task's cells, of one situation."""

    checkpoint: str
    place: int  # of the situation in the checkpoint's grid
    task: str


class Read(NamedTuple):
    batch: Batch
    rows: tuple[store.Row, ...]  # empty where the store held all of it
    work: float  # token positions needed x parameters of the model: the same on any machine
    seconds: float
    made: dict  # engine, device and versions, for the shard's record


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be read, and in which order."""

    ladder: Ladder
    checkpoints: tuple[Checkpoint, ...]
    forms: tuple[str, ...] = ALL_FORMS
    tasks: tuple[str, ...]
    device: str | None = None
    held: frozenset[str] = frozenset()  # keys of cells not to be read
    made: drawn.Makings = frozenset()  # of what was stored when the run began

    def asked(self, batch: Batch) -> Situation:
        """The situation that a batch is of."""
        return situations(self.ladder.checkpoint(batch.checkpoint).grid)[batch.place]

    def batches(self, *checkpoints: str) -> list[Batch]:
        """Of these, else of all, in order."""
        return [
            Batch(name, place, task)
            for name in checkpoints or [c.name for c in self.checkpoints]
            for place, one in enumerate(situations(self.ladder.checkpoint(name).grid))
            if one.form in self.forms
            for task in self.tasks
        ]


# -- reading


def cell_of(
    checkpoint: Checkpoint,
    files: tuple[str, str],
    dtype: str,
    ids: Sequence[int],
    how: Decoding,
    task: Task,
) -> Cell:
    """The cell of a prompt's tokens. files: the hashes of config.json and tokenizer."""
    fields = {"model": checkpoint.source, "revision": checkpoint.revision, "dtype": dtype}
    fields |= dict(zip(("config_sha256", "tokenizer_revision"), files), prompt_ids=ids)
    return Cell(**fields, decoding=how, task=task.name, task_sha256=task_sha256(task))


class Reader:
    """A checkpoint, loaded. Raises: CrystalError as `load_checkpoint` and `check_makings`."""

    def __init__(self, plan: Plan, checkpoint: Checkpoint) -> None:
        from ..read import engine

        self.plan, self.checkpoint, self.dtype = plan, checkpoint, plan.ladder.dtype
        self.machine = engine.load_checkpoint(checkpoint, dtype=self.dtype, device=plan.device)
        self.files = config_sha256(checkpoint), self.machine.tokenizer_revision
        drawn.check_makings(plan.made, checkpoint, self.files)
        tree = "ragged tree" if self.machine.ragged else "whole tree"
        device = _named(self.machine.device)
        self.made = {"engine": tree, "device": device, "versions": manifest.versions()}

    def read(self, batch: Batch) -> Read:
        """Read the cells of a batch that are not held."""
        start = time.perf_counter()
        rows = tuple(self.rows(self.plan.asked(batch), batch.task))
        work = float(sum(row.tokens for row in rows)) * self.machine.model.num_parameters()
        return Read(batch, rows, work, time.perf_counter() - start, self.made)

    def rows(self, asked: Situation, name: str) -> list[store.Row]:
        """A task's cells, without those that are held, read or drawn."""
        task, how, cells = TASKS[name], asked.decoding, {}
        for p in asked.prompts:
            put = p.text(task, asked.form), template_of(asked.form), p.reply(task)
            ids = self.machine.encode(*put)
            cell = cell_of(self.checkpoint, self.files, self.dtype, ids, how, task)
            if cell.key not in self.plan.held:
                cells[p.id] = cell
        ids = [cell.prompt_ids for cell in cells.values()]
        if not ids:
            return []
        if how.kind == "draws":
            from ..read.sampling import draw_many

            texts = draw_many(self.machine, ids, how.n, seed=how.seed, max_tokens=how.max_tokens)
            found = [(drawn.lines(one),) for one in texts]
        else:
            from ..read.readout import readout

            read = readout(self.machine, ids, task, **how.walked)
            found = [({}, one.options, one.invalid, one.residual, one.tokens) for one in read]
        both = zip(cells.items(), found, strict=True)
        return [store.Row(cell, asked.form, prompt, *fields) for (prompt, cell), fields in both]


def _named(device: object) -> str:
    """For a shard's record; a GPU with its name."""
    if not str(device).startswith("cuda"):
        return str(device)
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def read_here(plan: Plan) -> Iterator[Read]:
    """Every batch, in order; each checkpoint is unloaded before the next is loaded."""
    for checkpoint in plan.checkpoints:
        reader = Reader(plan, checkpoint)
        yield from map(reader.read, plan.batches(checkpoint.name))
        reader.machine.unload()


# -- keeping and comparing


def resample(
    name: str,
    *,
    forms: Sequence[str] = ALL_FORMS,
    tasks: Sequence[str] = PHASE_TASKS,
    checkpoints: Sequence[str] | None = None,
    missing_only: bool = False,
    device: str | None = None,
    hire: Callable[[Plan], Iterator[Read]] | None = None,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Compute the exact read-outs of a ladder's grids; resumable after a kill at any moment.

    checkpoints: None = those whose weights are here; says which are not. missing_only: leave alone
    what the store holds; else compute that too and compare. hire: reads the batches elsewhere, as
    `cluster.Hire` does. Returns: one row per checkpoint, form and temperature: cells, new
    (written), compared, median and max over the compared cells of the largest difference of a
    probability, tokens and seconds of computing.
    Raises: CrystalError for an unknown name, weights that are not the ladder's, not here or not
    pinned, or, once all is written, cells that moved by more than ROUNDING and what either read-out
    left open; and what `hire` raises.
    """
    ladder = load_ladder(name, unpinned=True)  # checkpoints that are not asked for need no commit
    closed = [task.name for task in TASKS.values() if task.closed]
    if checkpoints is not None:
        chosen = tuple(map(ladder.checkpoint, checkpoints))
    else:  # the nodes of a cluster have the weights
        chosen = ladder.checkpoints if hire else _here(ladder, say)
    plan = Plan(
        ladder=ladder,
        checkpoints=chosen,
        forms=tuple(known(form, ALL_FORMS, "form") for form in forms),
        tasks=tuple(known(task, closed, "closed task") for task in tasks),
        device=device,
        held=frozenset(store.keys(name) if missing_only else ()),
        made=drawn.makings(name),
    )
    for checkpoint in plan.checkpoints:  # a cluster's workers check their weights
        (check_pinned if hire else check_weights)(checkpoint)
    parts = _keep(plan, (hire or read_here)(plan))
    drifts = [drift for part in parts for drift in part.drifts]
    if over := [drift for drift in drifts if not drift.difference <= drift.allowed]:
        worst = max(over)
        raise CrystalError(
            f"{len(over)} of {len(drifts)} cells are not what the cache holds; the worst, "
            f"{worst.cell}, moved by {worst.difference:.2g} where {worst.allowed:.2g} is allowed",
            where=manifest.folder_of(name),
            hint=manifest.hint(name),
        )
    return pd.DataFrame([part.summary() for part in parts])


def _here(ladder: Ladder, say: Callable[[str], None]) -> tuple[Checkpoint, ...]:
    """The checkpoints whose weights are here; all, if none is."""
    here = tuple(filter(is_here, ladder.checkpoints)) or ladder.checkpoints
    if left := ", ".join(c.name for c in ladder.checkpoints if c not in here):
        again = f"make ladder LADDER={ladder.name}"
        say(f"left out, since their weights are not here: {left} ({again} trains them)")
    return here


def _keep(plan: Plan, reads: Iterable[Read]) -> list[_Part]:
    """Store and compare what was read; so, too, what was there when an error or Ctrl-C came."""
    parts: dict[tuple, _Part] = {}
    table = store.read(plan.ladder.name, columns=[*store.KEYING, *_COMPARED])
    stored = dict(zip(store.keys_of(table), table.select(_COMPARED).to_pylist(), strict=True))
    cells = sum(len(plan.asked(batch).prompts) for batch in plan.batches())
    with bar(cells, plan.ladder.name) as shown:
        try:
            for read in reads:
                place = read.batch[:2]
                if place not in parts:
                    parts[place] = _Part(plan, stored, read.batch)
                part = parts[place]
                part.take(read)
                if read.batch.task == plan.tasks[-1]:  # to load the next may take minutes
                    part.flush()
                shown.set_postfix_str(f"{part.checkpoint}, {part.asked.form}", refresh=False)
                shown.update(len(part.asked.prompts))
        finally:
            for part in parts.values():
                part.flush()
    return list(parts.values())


class Drift(NamedTuple):
    """The largest move of a probability in a cell that was there before, and what is allowed."""

    difference: float
    allowed: float
    cell: str


class _Part:
    """One checkpoint in one situation. stored: by key, what was there when the run began."""

    def __init__(self, plan: Plan, stored: dict[str, dict], batch: Batch) -> None:
        self.ladder, self.checkpoint, self.stored = plan.ladder, batch.checkpoint, stored
        self.asked = plan.asked(batch)
        self.drifts: list[Drift] = []
        self.fresh: list[Read] = []  # with cells that are not yet written
        self.sums = Counter(cells=0, new=0, tokens=0, seconds=0.0)

    def take(self, read: Read) -> None:
        """Write, if it is time; then compare what is known, keep what is new."""
        if sum(one.work for one in self.fresh) > SHARD_WORK:
            self.flush()
        old = [row for row in read.rows if row.cell.key in self.stored]
        new = [row for row in read.rows if row.cell.key not in self.stored]
        self.drifts += map(self._drift, old)
        self.sums.update(cells=len(self.asked.prompts), new=len(new), seconds=read.seconds)
        self.sums.update(tokens=sum(row.tokens for row in read.rows))
        if new:
            self.fresh.append(read._replace(rows=tuple(new)))

    def flush(self) -> None:
        fresh, self.fresh = self.fresh, []
        if fresh:
            kinds = [{read.made[name] for read in fresh} for name in ("engine", "device")]
            engine, device = (" and ".join(sorted(kind)) for kind in kinds)
            how = {"seconds": sum(read.seconds for read in fresh), "dtype": self.ladder.dtype}
            how |= {"engine": engine, "device": device, "versions": fresh[0].made["versions"]}
            made = manifest.provenance(**how)
            rows = [row for read in fresh for row in read.rows]
            store.append(self.ladder.name, rows, made)

    def _drift(self, row: store.Row) -> Drift:
        held = self.stored[row.cell.key]
        now = np.append(row.probability, row.invalid).astype(np.float32)  # as is stored
        then = np.append(held["probability"], held["invalid"])
        allowed = ROUNDING[self.ladder.dtype] + max(row.residual, held["residual"])
        asked = f"{self.asked.form}, task {row.cell.task}, prompt {row.prompt}"
        cell = f"checkpoint {self.checkpoint}, {asked}"
        return Drift(float(abs(now - then).max()), allowed, cell)

    def summary(self) -> dict:
        moved = [drift.difference for drift in self.drifts]
        place = {"checkpoint": self.checkpoint, "form": self.asked.form}
        place |= {"temperature": self.asked.decoding.temperature}
        counts = {"cells": self.sums["cells"], "new": self.sums["new"], "compared": len(moved)}
        drift = {"median": float(np.median(moved or np.nan)), "max": max(moved, default=np.nan)}
        return place | counts | drift | {name: self.sums[name] for name in ("tokens", "seconds")}


# -- one task, put to one checkpoint: nothing is stored


def ask(
    engine: Engine,
    task: Task,
    prompts: Sequence[NaturalPrompt],
    form: str,
    about: Mapping[str, str],
) -> pd.DataFrame:
    """A row per prompt and option, exact and unconditional; `answered` is their sum.

    about: the names of ladder and stage.
    Raises: CrystalError as `readout`, or for a form that the checkpoint has not.
    """
    from ..read.readout import readout

    rows = []
    with bar(len(prompts), task.name, unit="prompts") as shown:
        for low in range(0, len(prompts), TOGETHER):
            part = prompts[low : low + TOGETHER]
            asked = [(p.text(task, form), template_of(form), p.reply(task)) for p in part]
            found = readout(engine, [engine.encode(*one) for one in asked], task, max_nodes=NODES)
            for prompt, one in zip(part, found, strict=True):
                place = (about["ladder"], about["stage"], task.name, prompt.id, prompt.cluster)
                place += (prompt.wording,)
                each = zip(task.options, one.options.tolist(), strict=True)
                rows += [(*place, option, p, one.answered) for option, p in each]
            shown.update(len(part))
    return pd.DataFrame(rows, columns=list(COLUMNS))
