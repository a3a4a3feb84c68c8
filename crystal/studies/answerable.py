"""How much of the mass is on options, for candidates for natural prompts, and which are kept.

A candidate is (task, context, cue). The table holds its answered mass, the sum over all options,
on every checkpoint that was asked; which option has the mass is never stored, so nothing here can
look at it. The rule (`data/prompts/README.md` says when which part of it was fixed):

    worth     of a candidate: its answered mass, at most ENOUGH, on the checkpoint where it is least
    cues      every task's WORDINGS of the largest mean worth over the pool's first FIRST contexts
    contexts  the CONTEXTS of the largest mean worth over the tasks, each put by its best cue; tasks
              whose best cue names the options are left out, for there the context hardly matters
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from ..ask.natural import (
    ANSWERED,
    CHOSEN,
    CONTEXTS,
    OPTIONS,
    POOL,
    WORDINGS,
    Pool,
    folder,
)
from ..errors import CrystalError
from ..files import write_file
from ..measure.answered import LEAST
from ..texts import is_number, read_text

ENOUGH = 0.6  # mass beyond which a candidate is not preferred to another
FIRST = 6  # contexts in which all cues are tried


class Candidate(NamedTuple):
    """A prompt that may be chosen. context: its id; cue: its number among the task's, from 1."""

    task: str
    context: str
    cue: int


class Asked(NamedTuple):
    """A checkpoint, by the name it has in the table, and the form in which it was asked."""

    checkpoint: str
    form: str


Measured = dict[Asked, dict[Candidate, float]]
_COLUMNS = ["task", "context", "cue", "checkpoint", "form", "answered"]


def load_measured() -> Measured:
    """What was measured so far; empty without a file.

    Raises: CrystalError for a row that is none.
    """
    path = folder() / ANSWERED
    if not path.exists():
        return {}
    found: Measured = {}
    for number, row in enumerate(csv.DictReader(io.StringIO(read_text(path, _mend(path)))), 2):
        fair = set(row) == set(_COLUMNS) and row["cue"].isdecimal() and is_number(row["answered"])
        if not fair:
            raise CrystalError(f"line {number} is no measurement", where=path, mend=_mend(path))
        mine = found.setdefault(Asked(row["checkpoint"], row["form"]), {})
        mine[Candidate(row["task"], row["context"], int(row["cue"]))] = float(row["answered"])
    return found


def save_measured(measured: Measured, pool: Pool) -> None:
    """Write the table, in the order of checkpoints, tasks, contexts, cues. Raises: OSError."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for asked, mine in measured.items():
        kept = [candidate for candidate in candidates(pool) if candidate in mine]
        writer.writerows([*candidate, *asked, f"{mine[candidate]:.3f}"] for candidate in kept)
    write_file(folder() / ANSWERED, out.getvalue().encode())


def candidates(
    pool: Pool, cues: Mapping[str, Iterable[int]] | None = None,
    contexts: Iterable[str] | None = None,
) -> list[Candidate]:
    """Those of these contexts, by id, and of these cues of every task. None: all."""
    every = {task: range(1, len(mine) + 1) for task, mine in pool.cues.items()}
    contexts = ids(pool) if contexts is None else contexts
    return [Candidate(task, of, cue) for task, mine in (cues or every).items()
            for of in contexts for cue in mine]


def ids(pool: Pool, first: int | None = None) -> list[str]:
    """Ids of the pool's contexts, or of the first of them."""
    return [context.id for context in pool.contexts[:first]]


def choose_cues(pool: Pool, measured: Measured) -> dict[str, list[int]]:
    """Each task's cues, the best first. Raises: CrystalError where a cue was not measured."""
    contexts, found = ids(pool, FIRST), {}
    for task, mine in pool.cues.items():
        worth = _worth(measured, task, contexts, range(1, len(mine) + 1)).mean(0)
        found[task] = [i + 1 for i in _largest(worth, WORDINGS)]
    return found


def choose_contexts(pool: Pool, measured: Measured, cues: Mapping[str, Sequence[int]]) -> list[str]:
    """Ids of the contexts, in the pool's order; cues: of every task, the best first.

    Raises: CrystalError where one was not measured.
    """
    every, tried = ids(pool), best_bare(pool, cues)
    worth = np.mean([_worth(measured, task, every, best)[:, 0] for task, best in tried.items()], 0)
    return [every[i] for i in sorted(_largest(worth, CONTEXTS))]


def best_bare(pool: Pool, cues: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The best cue of every task, where it does not name the options: contexts are tried by it.

    Raises: CrystalError where all of them do.
    """
    bare = {task: list(mine[:1]) for task, mine in cues.items()
            if OPTIONS not in pool.cues[task][mine[0] - 1]}
    if not bare:
        mend = f"add cues that do not to {folder() / POOL}"
        raise CrystalError("every best cue names the options", where=folder(), mend=mend)
    return bare


def save_chosen(pool: Pool, contexts: Sequence[str], cues: Mapping[str, Sequence[int]]) -> Path:
    """Write the choice down; the prompts are made from it. Raises: OSError."""
    texts = {task: [pool.cues[task][cue - 1] for cue in mine] for task, mine in cues.items()}
    said = {"contexts": list(contexts), "cues": texts}
    head = "# Written by `crystal screen`: chosen of natural.yaml by answered mass alone.\n"
    path = folder() / CHOSEN
    write_file(path, (head + yaml.safe_dump(said, sort_keys=False, width=95)).encode())
    return path


def report(
    measured: Measured, contexts: Sequence[str], cues: Mapping[str, Sequence[int]]
) -> Iterator[str]:
    """The median answered mass of what was chosen: a line for every checkpoint and task."""
    for asked, mine in measured.items():
        for task, chosen in cues.items():
            mass = np.array([mine[Candidate(task, of, cue)] for of in contexts for cue in chosen])
            few = f"{(mass < LEAST).sum()} of {len(mass)} under {LEAST}"
            yield f"{asked.checkpoint} {asked.form} {task}: answered {np.median(mass):.2f}, {few}"


def _worth(
    measured: Measured, task: str, contexts: Sequence[str], cues: Sequence[int]
) -> np.ndarray:
    """(contexts, cues): the smallest over checkpoints of the answered mass, cut at ENOUGH."""
    wanted = [[Candidate(task, context, cue) for cue in cues] for context in contexts]
    every = [one for row in wanted for one in row]
    lacking = [one for mine in measured.values() for one in every if one not in mine]
    if lacking or not measured:
        what = f"{len(lacking)} candidates of task {task} were not measured on every checkpoint"
        raise CrystalError(what, where=folder() / ANSWERED, mend="crystal screen --model NAME=DIR")
    mass = [[[mine[one] for one in row] for row in wanted] for mine in measured.values()]
    return np.minimum(mass, ENOUGH).min(0)


def _largest(values: np.ndarray, n: int) -> list[int]:
    """Places of the n largest, the largest first, of equal ones the earlier."""
    return np.argsort(-values, kind="stable")[:n].tolist()


def _mend(path: Path) -> str:
    return f"git checkout -- data/prompts/{path.name}"
