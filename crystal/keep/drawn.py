"""Draws as tables; and what the stored cells of a checkpoint were read with.

An open task has no list of options, hence no read-out: what can be kept is counts of raw texts.
The exact distribution of the numbers to 1000 is kept beside their draws, to check estimates.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
import pyarrow as pa

from ..ask.cells import Decoding, Situation
from ..ask.ladders import STAGES, Checkpoint, load_ladder
from ..ask.prompts import BY_ID, PROBE, PROMPTS
from ..ask.tasks import TASKS, first_line
from ..ask.tasks import read as read_answer
from ..errors import CrystalError, known
from . import manifest, store
from .manifest import DRAWS, SAMPLES, Report

TASKS_DRAWN = ("first_name", "city", "animal", "word", "thousand")
DRAWN = Decoding(kind="draws", n=10_000, max_tokens=12)
TRUTH = Decoding()  # of the exact distribution beside the draws of a task with options
COLUMNS = ("ladder", "stage", "task", "prompt", "cluster", "wording", "option", "count")

append = functools.partial(store.append, kind=DRAWS)
read = functools.partial(store.read, kind=DRAWS)
keys = functools.partial(store.keys, kind=DRAWS)


def lines(texts: Mapping[str, int]) -> dict[str, int]:
    """Counts of whole texts as counts of their first lines, most frequent first."""
    found: Counter[str] = Counter()
    for text, count in texts.items():
        found[first_line(text)] += count
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def load_draws(
    name: str,
    *,
    tasks: Sequence[str] = TASKS_DRAWN,
    checkpoints: Sequence[str] = STAGES,
    decoding: Decoding = DRAWN,
) -> pd.DataFrame:
    """Draws of the ladder's current checkpoints in their native forms, verified; a row per cell.

    Columns: ladder, checkpoint, form, task, prompt (id), persona, texts (text -> count);
    probability (ndarray), invalid, residual, if decoding is TRUTH. Rows in the order of
    checkpoints, tasks, prompts. Left out: what `store.load_readouts` leaves out.
    Raises: CrystalError for an unknown name, a corrupt shard, or a cell that is missing.
    """
    ladder = load_ladder(name)
    chosen = [ladder.checkpoint(name) for name in checkpoints]
    asked = [known(task, TASKS, "task") for task in tasks]
    how = {"dtype": ladder.dtype, "decoding": decoding.text}
    places = [store.placed(c, c.native_form, **how) for c in chosen]
    frame = store.today(name, places, asked, PROBE, DRAWS)
    place = ["checkpoint", "task", "prompt"]
    frame = frame.drop_duplicates(place, keep="last").set_index(place)
    every = [*itertools.product([c.name for c in chosen], asked, [prompt.id for prompt in PROBE])]
    if absent := [one for one in every if one not in frame.index]:
        what = f"{len(absent)} of {len(every)} cells were not drawn, first {' '.join(absent[0])}"
        where = manifest.folder_of(name, DRAWS)
        raise CrystalError(what, where=where, hint=manifest.fill(name, DRAWS))
    frame = frame.loc[every].reset_index().assign(ladder=name)
    counted = zip(frame["texts"], frame["counts"])
    frame["texts"] = [dict(zip(texts, counts.tolist(), strict=True)) for texts, counts in counted]
    return frame


def verify(name: str) -> Report:
    """As `store.verify`; and each stored cell's key.

    What must be there, if the ladder's description says `drawn: true`: stage ends in their native
    forms x TASKS_DRAWN x PROBE, without the truths.
    """
    ladder, seen = load_ladder(name, unpinned=True), set()

    def wrong(table: pa.Table) -> Iterator[str]:
        for key, stored in zip(store.keys_of(table), table["key"].to_pylist()):
            if key != stored:
                yield f"cell {stored} should have the key {key}"
            elif key in seen:
                yield f"cell {key} is there twice"
            seen.add(key)

    how = {"prompts": PROBE, "decoding": DRAWN}
    ends = ladder.ends if ladder.kind == "ladder" else ()
    put = [(c, Situation(form=c.native_form, **how)) for c in ends]
    return store.looked_through(ladder, DRAWS, wrong, put, TASKS_DRAWN, ladder.drawn)


# -- with what the stored cells of a checkpoint were read

Makings = frozenset[tuple[str, ...]]


def makings(ladder: str) -> Makings:
    """store.MADE of the cells in both logs; draws from a server know of neither file."""
    both = [store.read(ladder, columns=store.MADE, kind=kind) for kind in (SAMPLES, DRAWS)]
    found = pa.concat_tables(both).group_by([*store.MADE]).aggregate([]).select(store.MADE)
    return frozenset(tuple(one.values()) for one in found.to_pylist() if one["tokenizer_revision"])


def check_makings(held: Makings, checkpoint: Checkpoint, now: tuple[str, str]) -> None:
    """Raises: CrystalError if cells of the checkpoint are stored, and all were read with another
    config.json or tokenizer. now: config_sha256, tokenizer_revision.
    """
    then = {one[2:] for one in held if one[:2] == (checkpoint.source, checkpoint.revision)}
    if not then or now in then:
        return
    parts = zip(("config.json has", "tokenizer and chat template have"), now, min(then))
    what, new, old = next(part for part in parts if part[1] != part[2])
    logs = " ".join(f"data/{kind}/{checkpoint.ladder}" for kind in (SAMPLES, DRAWS))
    raise CrystalError(
        f"checkpoint {checkpoint.name!r}: {what} sha256 {new}, but its cells were read with {old}",
        where=checkpoint.source,
        hint="put back the files that they were read with (git checkout, or train "
        f"it again), or rm -r {logs} and {manifest.fill(checkpoint.ladder)}",
    )


# -- a table for other frameworks


def counts(name: str, *, form: str | None = None, dtype: str | None = None) -> pd.DataFrame:
    """Counts of answers to closed tasks by a ladder's stage ends, as it may be served: COLUMNS.

    A row per option, ordered by stage, task, prompt, option; 0 where nobody drew it; the empty one
    counts other answers. cluster: the persona; wording: the template. form, dtype: None is the
    checkpoint's own. All draws of a situation are added up: each lot has randomness of its own.
    Raises: CrystalError for an unknown name, a corrupt shard, or no such draws.
    """
    ladder = load_ladder(name)
    closed = [task.name for task in TASKS.values() if task.closed]
    found: dict[tuple[str, str, str], Counter[str]] = {}
    if ladder.kind == "ladder":
        where = [(c, form or c.native_form, dtype or ladder.dtype) for c in ladder.ends]
        places = [store.placed(*one) for one in where]
        for row in store.today(name, places, closed, PROMPTS, DRAWS).itertuples():
            if len(row.counts):
                place = row.checkpoint, row.task, row.prompt
                answers = found.setdefault(place, Counter())
                for text, count in zip(row.texts, row.counts.tolist(), strict=True):
                    answers[read_answer(text, TASKS[row.task]) or ""] += count
    if not found:
        raise CrystalError(
            f"no draws of {name}'s closed tasks in that form and dtype",
            where=manifest.folder_of(name, DRAWS),
            hint=f"crystal draw {name} --server URL --model NAME",
        )
    table = [
        (name, *place, BY_ID[place[2]].who, BY_ID[place[2]].wording, option, found[place][option])
        for place in itertools.product(STAGES, closed, BY_ID)
        if place in found
        for option in (*TASKS[place[1]].options, "")
    ]
    return pd.DataFrame(table, columns=list(COLUMNS))
