"""Candidates for natural prompts put to checkpoints: how much of the mass is on options at all.

Read coarsely, for a choice needs no more: up to BUDGET may stay open, and of that the same share is
taken to be answered as of the rest. The table grows batch by batch; a stopped run goes on where it
was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from ..ask.natural import Pool, before, begun
from ..ask.tasks import TASKS
from ..read.engine import Engine, load
from ..read.readout import Readout, readout
from . import answerable
from .answerable import FIRST, Asked, Candidate, Measured

BUDGET, NODES, DEPTH = 0.05, 40, 6
BATCH = 96  # candidates to a tree; neighbours share their context, which is computed once


def measure(
    engine: Engine, pool: Pool, wanted: Sequence[Candidate], form: str
) -> Iterator[dict[Candidate, float]]:
    """The answered mass of each candidate, a batch at a time."""
    contexts = {context.id: context for context in pool.contexts}
    for name in dict.fromkeys(candidate.task for candidate in wanted):
        task, mine = TASKS[name], [candidate for candidate in wanted if candidate.task == name]
        for low in range(0, len(mine), BATCH):
            batch = mine[low : low + BATCH]
            texts = [(before(contexts[of], form), begun(pool.cues[name][cue - 1], task, contexts[of]))
                     for _, of, cue in batch]
            prompts = [engine.encode(text, form, reply) for text, reply in texts]
            found = readout(engine, prompts, task, budget=BUDGET, max_nodes=NODES, max_depth=DEPTH)
            yield {one: _answered(law) for one, law in zip(batch, found, strict=True)}


def _answered(law: Readout) -> float:
    """Of what is decided. At least the root is computed, so something is."""
    options = float(law.options.sum())
    return options / (options + law.off_support) if options else 0.0


def screen(
    pool: Pool, subjects: Sequence[tuple[Asked, str]], *, dtype: str, device: str | None = None,
    say: Callable[[str], None] = print,
) -> Measured:
    """Measure what the rule of `answerable` needs on (name and form, source) of every checkpoint.

    First all cues in the first contexts; then the best cues in all contexts; then all that was
    chosen. What is in the table is not measured again.
    """
    measured = answerable.load_measured()
    for asked, _ in subjects:
        measured.setdefault(asked, {})

    def fill(*which) -> None:
        wanted = answerable.candidates(pool, *which)
        _fill(measured, pool, subjects, wanted, dtype, device, say)

    fill(None, answerable.ids(pool, FIRST))
    cues = answerable.choose_cues(pool, measured)
    fill(answerable.best_bare(pool, cues))
    fill(cues, answerable.choose_contexts(pool, measured, cues))
    return measured


def _fill(
    measured: Measured, pool: Pool, subjects: Sequence[tuple[Asked, str]],
    wanted: Sequence[Candidate], dtype: str, device: str | None, say: Callable[[str], None],
) -> None:
    for asked, source in subjects:
        mine, start = measured[asked], time.perf_counter()
        missing = [candidate for candidate in wanted if candidate not in mine]
        if not missing:
            continue
        engine, done = load(source, dtype=dtype, device=device), 0
        for found in measure(engine, pool, missing, asked.form):
            mine |= found
            done += len(found)
            answerable.save_measured(measured, pool)
            say(f"{asked.checkpoint}: {done} of {len(missing)} candidates, "
                f"{time.perf_counter() - start:.0f} s")
        engine.unload()
