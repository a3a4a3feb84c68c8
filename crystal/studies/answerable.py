"""Candidates for natural prompts: how much of the mass is on options, and which are kept.

Which option has the mass is never stored, so nothing here can look at it. The rule
(`data/prompts/README.md` says when which part of it was fixed):

    worth     of a candidate: its answered mass, at most ENOUGH, on the checkpoint where it is least
    cues      every task's WORDINGS of the largest mean worth over the pool's first FIRST contexts
    contexts  the CONTEXTS of the largest mean worth over the tasks, each put by its best cue; tasks
              whose best cue names the options are left out, for there the context hardly matters
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import yaml

from ..ask.prompts import (
    ANSWERED,
    CHOSEN,
    CONTEXTS,
    OPTIONS,
    POOL,
    WORDINGS,
    Pool,
    before,
    begun,
    folder,
)
from ..ask.tasks import TASKS
from ..errors import CrystalError
from ..files import write_file
from ..measure.evidence import LEAST
from ..texts import is_number, read_text

if TYPE_CHECKING:
    from ..read.engine import Engine

ENOUGH = 0.6  # mass beyond which a candidate is not preferred to another
FIRST = 6  # contexts in which all cues are tried
BATCH = 96  # candidates to a tree; neighbours share their context, which is computed once
COARSE = {"tolerance": 0.05, "max_nodes": 40, "max_depth": 6}  # a choice needs no more


class Candidate(NamedTuple):
    """A prompt that may be chosen. context: its id; cue: its number among the task's, from 1."""

    task: str
    context: str
    cue: int


class Asked(NamedTuple):
    """A checkpoint, by its name in the table, and the form in which it was asked."""

    checkpoint: str
    form: str


Measured = dict[Asked, dict[Candidate, float]]
Cues = Mapping[str, Sequence[int]]  # of every task, the best first
_COLUMNS = [*Candidate._fields, *Asked._fields, "answered"]


# --- the table


def load_measured() -> Measured:
    """What was measured so far. Raises: CrystalError for a line that is no measurement."""
    path, found = folder() / ANSWERED, {}
    if not path.exists():
        return found
    hint = f"git checkout -- data/prompts/{path.name}"
    for number, row in enumerate(csv.DictReader(io.StringIO(read_text(path, hint))), 2):
        fair = set(row) == set(_COLUMNS) and row["cue"].isdecimal() and is_number(row["answered"])
        if not fair:
            raise CrystalError(f"line {number} is no measurement", where=path, hint=hint)
        mine = found.setdefault(Asked(row["checkpoint"], row["form"]), {})
        mine[Candidate(row["task"], row["context"], int(row["cue"]))] = float(row["answered"])
    return found


def save_measured(measured: Measured, pool: Pool) -> None:
    """Write the table. Raises: OSError."""
    out, every = io.StringIO(), candidates(pool)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for asked, mine in measured.items():
        writer.writerows([*one, *asked, f"{mine[one]:.3f}"] for one in every if one in mine)
    write_file(folder() / ANSWERED, out.getvalue().encode())


def candidates(
    pool: Pool,
    cues: Mapping[str, Iterable[int]] | None = None,
    contexts: Iterable[str] | None = None,
) -> list[Candidate]:
    """Those of these contexts, by id, and of these cues of every task; None: of all."""
    cues = cues or {task: range(1, len(mine) + 1) for task, mine in pool.cues.items()}
    contexts = ids(pool) if contexts is None else contexts
    return [Candidate(task, *one) for task in cues for one in product(contexts, cues[task])]


def ids(pool: Pool, first: int | None = None) -> list[str]:
    """Of the pool's contexts, or of the first of them."""
    return [context.id for context in pool.contexts[:first]]


# --- the rule


def choose_cues(pool: Pool, measured: Measured) -> dict[str, list[int]]:
    """Each task's cues, the best first. Raises: CrystalError where a cue was not measured."""
    contexts, found = ids(pool, FIRST), {}
    for task, mine in pool.cues.items():
        worth = _worth(measured, task, contexts, range(1, len(mine) + 1)).mean(0)
        found[task] = [i + 1 for i in _largest(worth, WORDINGS)]
    return found


def choose_contexts(pool: Pool, measured: Measured, cues: Cues) -> list[str]:
    """Ids of the contexts, in the pool's order. Raises: CrystalError where one was not measured."""
    every = ids(pool)
    tried = [_worth(measured, task, every, best) for task, best in best_bare(pool, cues).items()]
    worth = np.mean(tried, 0)[:, 0]
    return [every[i] for i in sorted(_largest(worth, CONTEXTS))]


def best_bare(pool: Pool, cues: Cues) -> dict[str, list[int]]:
    """Each task's best cue, by which contexts are tried, where it does not name the options.

    Raises: CrystalError where all of them do.
    """
    bare = {t: [best] for t, (best, *_) in cues.items() if OPTIONS not in pool.cues[t][best - 1]}
    if not bare:
        hint = f"add cues that do not to {folder() / POOL}"
        raise CrystalError("every best cue names the options", where=folder(), hint=hint)
    return bare


def save_chosen(pool: Pool, contexts: Sequence[str], cues: Cues) -> Path:
    """Write the choice, of which the prompts are made. Raises: OSError."""
    texts = {task: [pool.cues[task][cue - 1] for cue in mine] for task, mine in cues.items()}
    head = "# Written by `crystal screen`: chosen of natural.yaml by answered mass alone.\n"
    chosen, path = {"contexts": list(contexts), "cues": texts}, folder() / CHOSEN
    write_file(path, (head + yaml.safe_dump(chosen, sort_keys=False, width=95)).encode())
    return path


def report(measured: Measured, contexts: Sequence[str], cues: Cues) -> Iterator[str]:
    """The median answered mass of what was chosen, a line a checkpoint and task."""
    for asked, mine in measured.items():
        for task, chosen in cues.items():
            mass = np.array([mine[Candidate(task, of, cue)] for of in contexts for cue in chosen])
            few = f"{(mass < LEAST).sum()} of {len(mass)} under {LEAST}"
            yield f"{asked.checkpoint} {asked.form} {task}: answered {np.median(mass):.2f}, {few}"


def _worth(
    measured: Measured, task: str, contexts: Sequence[str], cues: Sequence[int]
) -> np.ndarray:
    """(contexts, cues)"""
    wanted = [Candidate(task, context, cue) for context in contexts for cue in cues]
    lacking = sum(one not in mine for mine in measured.values() for one in wanted)
    if lacking or not measured:
        what = f"{lacking} candidates of task {task} were not measured on every checkpoint"
        raise CrystalError(what, where=folder() / ANSWERED, hint="crystal screen --model NAME=DIR")
    mass = np.array([[mine[one] for one in wanted] for mine in measured.values()])
    return np.minimum(mass, ENOUGH).min(0).reshape(len(contexts), len(cues))


def _largest(values: np.ndarray, n: int) -> list[int]:
    """Their places, the largest first, of equal ones the earlier."""
    return np.argsort(-values, kind="stable")[:n].tolist()


# --- candidates put to checkpoints


def measure(
    engine: Engine, pool: Pool, wanted: Sequence[Candidate], form: str
) -> Iterator[dict[Candidate, float]]:
    """The answered mass of each candidate, of what is decided; a batch at a time."""
    from ..read.readout import readout

    contexts = {context.id: context for context in pool.contexts}
    for name in dict.fromkeys(candidate.task for candidate in wanted):
        task, mine = TASKS[name], [candidate for candidate in wanted if candidate.task == name]
        for low in range(0, len(mine), BATCH):
            batch, prompts, found = mine[low : low + BATCH], [], {}
            for _, of, cue in batch:
                reply = begun(pool.cues[name][cue - 1], task, contexts[of])
                prompts.append(engine.encode(before(contexts[of], form), form, reply))
            for one, p in zip(batch, readout(engine, prompts, task, **COARSE), strict=True):
                options = float(p.options.sum())
                found[one] = options / (options + p.invalid) if options else 0.0
            yield found


def screen(
    pool: Pool,
    subjects: Sequence[tuple[Asked, str]],
    *,
    dtype: str,
    device: str | None = None,
    say: Callable[[str], None] = print,
) -> Measured:
    """Measure what the rule needs and the table lacks, batch by batch: all cues in the first
    contexts, the best cues in all contexts, all that was chosen. subjects: checkpoint, source.
    """
    from ..read.engine import load

    measured = load_measured()
    for asked, _ in subjects:
        measured.setdefault(asked, {})

    def fill(*which) -> None:
        for asked, source in subjects:
            mine, start, done = measured[asked], time.perf_counter(), 0
            missing = [one for one in candidates(pool, *which) if one not in mine]
            if missing:
                engine = load(source, dtype=dtype, device=device)
                for found in measure(engine, pool, missing, asked.form):
                    mine |= found
                    done += len(found)
                    save_measured(measured, pool)
                    seconds = f"{time.perf_counter() - start:.0f} s"
                    say(f"{asked.checkpoint}: {done} of {len(missing)} candidates, {seconds}")
                engine.unload()

    fill(None, ids(pool, FIRST))
    cues = choose_cues(pool, measured)
    fill(best_bare(pool, cues))
    fill(cues, choose_contexts(pool, measured, cues))
    return measured
