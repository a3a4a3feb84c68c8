"""Read a ladder's checkpoints again: keep the cells the store lacks, compare those it holds, cell by cell.

The only writer of what is read, wherever it was read: here (`crystal.keep.batches`) or on a cluster (`crystal.keep.cluster`).
Knows what is asked for and what becomes of the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Thread
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..ask.grids import Situation
from ..ask.ladders import Ladder, Rung, check_pinned, check_weights, is_here, load_ladder
from ..ask.prompts import ALL_FORMS
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError, known
from . import makings, manifest, producers, progress, shards, store
from .batches import Plan, Read, read_here
from .cluster import Hire, read_there

# How far a probability may move on another processor, where sums are taken in another order. fp32: another number of
# threads or another batch moved 3,000 cells of nano-llama's base by 1.1e-6 at most; 50 times that. Narrower: batches of 7 in
# place of 32 moved 1,200 cells of nano-llama and nano-olmo2 by 1.5e-2 (bf16) and 2e-3 (fp16) at most; three times that, since a
# false alarm is loud. A prefix at the edge of the budget may be kept by one run and left by the other: what was left unresolved
# comes on top, per cell.
ROUNDING = {"float32": 5e-5, "bfloat16": 5e-2, "float16": 6e-3}

# A shard holds whole tasks of one rung and form: as many as this much work (tokens x parameters) takes. A form of a nano rung is
# 7e10, ten seconds of one processor, and stays whole; of a model of 100 million parameters every task is more. A kill loses no
# more than that and the task at hand. Not seconds, which would cut the same cells into other files on another machine; and a
# shard per task would be 300 small files a ladder, slow to clone and to load.
SHARD_WORK = 1e11

_COMPARED = ("probability", "off_support", "unresolved")


class Drift(NamedTuple):
    """A cell that was there before: the largest move of a probability in it, and the largest that is no difference."""

    difference: float
    allowed: float
    cell: str


def resample(
    name: str, *, forms: Sequence[str] = ALL_FORMS, tasks: Sequence[str] = PHASE_TASKS, rungs: Sequence[str] | None = None,
    budget: float | None = None, missing_only: bool = False, device: str | None = None,
    hire: Hire | None = None, say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Compute the exact read-outs of a ladder's grids; resumable after a kill at any moment.

    rungs: None = those whose weights are here; says which are not.
    missing_only: leave alone what the store holds; else compute that too and compare. budget: other than the grids'.
    hire: read by workers on Ray, to the same shards in the same order as here.
    Returns: one row per rung, form and temperature: cells, new (written), compared, median and max (over the compared cells,
    the largest absolute difference of an option's or off_support's probability), tokens (each cell's counted by
    itself) and seconds of computing.
    Tolerance of a cell: ROUNDING of the ladder's dtype, plus what either read-out left unresolved.
    Raises: CrystalError for an unknown name, weights that are not the ladder's, not here or not
    pinned, or, once all is read and written, cells above the tolerance; of a cluster, what
    `crystal.keep.cluster.read_there` does.
    """
    ladder = load_ladder(name, unpinned=True)  # rungs that are not asked for need no commit
    closed = [task.name for task in TASKS.values() if task.closed]
    plan = Plan(
        ladder=ladder, rungs=_chosen(ladder, rungs, say if hire is None else None),
        forms=tuple(known(form, ALL_FORMS, "form") for form in forms),
        tasks=tuple(known(task, closed, "closed task") for task in tasks),
        budget=budget, missing_only=missing_only, device=device, made=makings.makings(name),
    )
    for rung in plan.rungs:
        (check_pinned if hire else check_weights)(rung)  # a cluster's weights lie with its workers, which check them
    parts = _keep(plan, read_there(plan, hire) if hire else read_here(plan))
    _refuse_drift(name, [drift for part in parts for drift in part.drifts])
    return pd.DataFrame([part.summary() for part in parts])


def _chosen(
    ladder: Ladder, rungs: Sequence[str] | None, say: Callable[[str], None] | None,
) -> tuple[Rung, ...]:
    """The rungs asked for. say: None where a cluster reads, whose nodes have the weights."""
    if rungs is not None:
        return tuple(ladder.rung(rung) for rung in rungs)
    here = tuple(rung for rung in ladder.rungs if is_here(rung))
    if say is None or len(here) in (0, len(ladder.rungs)):
        return ladder.rungs
    left = ", ".join(rung.name for rung in ladder.rungs if rung not in here)
    again = f"make ladder LADDER={ladder.name}"
    say(f"left out, since their weights are not here: {left} ({again} trains them)")
    return here


def _keep(plan: Plan, reads: Iterable[Read]) -> list[_Part]:
    """Store and compare what was read, part by part; what was there when an error or Ctrl-C came is stored, too."""
    parts: list[_Part] = []
    stored = store.read(plan.ladder.name, columns=[*shards.KEYING, *_COMPARED])
    total = sum(plan.size(batch) for rung in plan.rungs for batch in plan.batches(rung.name))
    with progress.bar(total, plan.ladder.name) as bar, _Writer() as writer:
        try:
            for read in reads:
                if not parts or parts[-1].place != read.batch[:2]:
                    if parts:
                        parts[-1].flush()
                    parts.append(_Part(plan, writer, stored, *read.batch[:2]))
                    bar.set_postfix_str(f"{read.batch.rung}, {parts[-1].asked.form}", refresh=False)
                parts[-1].take(read)
                if plan.ends(read.batch):  # now, while the next rung is loaded, which may take minutes
                    parts[-1].flush()
                bar.update(plan.size(read.batch))
                writer.check()
        finally:
            if parts:
                parts[-1].flush()
    return parts


def _refuse_drift(name: str, drifts: Sequence[Drift]) -> None:
    over = [drift for drift in drifts if not drift.difference <= drift.allowed]
    if over:
        worst = max(over)
        raise CrystalError(
            f"{len(over)} of {len(drifts)} cells are not what the cache holds; the worst, {worst.cell}, moved by "
            f"{worst.difference:.2g} where {worst.allowed:.2g} is allowed",
            where=manifest.folder_of(name), mend=manifest.mend(name),
        )


class _Writer:
    """Writes one shard at a time beside the reading, lest the device wait for a disk."""

    def __init__(self) -> None:
        self.thread: Thread | None = None
        self.error: BaseException | None = None

    def append(self, *shard: object) -> None:
        """As `store.append`, once the shard before is done; whatever came of that one, this one is tried."""
        self._wait()
        self.thread = Thread(target=self._write, args=shard, daemon=True)  # else a second Ctrl-C would wait for a lock, too
        self.thread.start()

    def check(self) -> None:
        """Raises: what a write raised, once."""
        if error := self.error:
            self.error = None
            raise error

    def _write(self, *shard: object) -> None:
        try:
            store.append(*shard)
        except BaseException as error:
            self.error = self.error or error

    def _wait(self) -> None:
        thread, self.thread = self.thread, None
        if thread:
            thread.join()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()
        self.check()


@dataclass
class _Part:
    """One rung in one situation: what was there, and what has been read so far."""

    plan: Plan
    writer: _Writer
    stored: pa.Table  # what the store held when the run began
    name: str  # of the rung
    number: int  # of the situation in its grid
    fresh: list[Read] = field(default_factory=list)  # with cells that are not yet written
    drifts: list[Drift] = field(default_factory=list)
    cells: int = 0
    new: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        held = self.stored.filter(pc.field("revision") == self.rung.revision)
        self.held = dict(zip(shards.keys_of(held), held.select(_COMPARED).to_pylist(), strict=True))

    @property
    def place(self) -> tuple[str, int]:
        return self.name, self.number

    @property
    def rung(self) -> Rung:
        return self.plan.ladder.rung(self.name)

    @property
    def asked(self) -> Situation:
        return self.plan.asked(self.name)[self.number]

    def take(self, read: Read) -> None:
        """Compare what is known, keep what is new; write before a new task begins, if it is time."""
        if self.fresh and self.fresh[-1].batch.task != read.batch.task and sum(r.work for r in self.fresh) > SHARD_WORK:
            self.flush()
        self.cells += self.plan.size(read.batch)
        self.seconds += read.seconds
        self.tokens += sum(row.tokens for row in read.rows)
        self.drifts += [self._drift(row, self.held[row.cell.key]) for row in read.rows if row.cell.key in self.held]
        rows = tuple(row for row in read.rows if row.cell.key not in self.held)
        if rows:
            self.fresh.append(read._replace(rows=rows))

    def flush(self) -> None:
        """Have what is new written as one shard."""
        if not self.fresh:
            return
        fresh, self.fresh = self.fresh, []
        said = {name: " and ".join(sorted({read.made[name] for read in fresh})) for name in ("engine", "device")}
        made = producers.producer(
            **said, dtype=self.plan.ladder.dtype, seconds=sum(read.seconds for read in fresh)
        )
        rows = [row for read in fresh for row in read.rows]
        self.writer.append(self.plan.ladder.name, rows, made | {"versions": fresh[0].made["versions"]})
        self.new += len(rows)

    def _drift(self, row: store.Row, held: dict) -> Drift:
        now = np.append(row.probability, row.off_support).astype(np.float32)  # as is stored
        then = np.append(held["probability"], held["off_support"])
        allowed = ROUNDING[self.plan.ladder.dtype] + max(row.unresolved, held["unresolved"])
        cell = f"rung {self.name}, {self.asked.form}, task {row.cell.task}, prompt {row.prompt}"
        return Drift(float(abs(now - then).max()), allowed, cell)

    def summary(self) -> dict:
        moved = [drift.difference for drift in self.drifts]
        return {
            "rung": self.name, "form": self.asked.form, "temperature": self.asked.decoding.temperature,
            "cells": self.cells, "new": self.new, "compared": len(moved),
            "median": float(np.median(moved)) if moved else np.nan, "max": max(moved, default=np.nan),
            "tokens": self.tokens, "seconds": self.seconds,
        }
