"""Draws on disk: of every cell the texts that were drawn and how often each; tables of them.

An open task has no list of options, hence no read-out: what can be kept is counts of raw texts.
The exact distribution of the numbers to 1000 is kept beside their draws, to check estimates. Same
guarantees as `crystal.keep.store`, in a log of its own.
"""

from __future__ import annotations

import functools
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..ask.cells import KEYED, Cell, Decoding, key_of
from ..ask.ladders import STAGES, Checkpoint, Ladder, load_ladder
from ..ask.prompts import FORMS, PERSONAS, PROBE, PROMPTS, Prompt, load_prompts
from ..ask.tasks import PHASE_TASKS, TASKS
from ..ask.tasks import read as read_answer
from ..errors import CrystalError, known
from . import manifest, store
from .manifest import DRAWS, SAMPLES, Report

TASKS_DRAWN = ("first_name", "city", "animal", "word", "thousand")
DRAWN = Decoding(kind="draws", n=10_000, max_tokens=12)
TRUTH = Decoding()  # of the exact distribution beside the draws of a task with options
COLUMNS = ("ladder", "stage", "task", "prompt", "cluster", "option", "count")

_PROMPT = {prompt.id: prompt for prompt in PROMPTS}
_SCHEMA = pa.schema(
    [pa.field(name, pa.string()) for name in ("key", *KEYED, "decoding", "form", "prompt", "text")]
    + [pa.field("prompt_ids", pa.list_(pa.int32())), pa.field("texts", pa.list_(pa.string()))]
    + [pa.field("counts", pa.list_(pa.int32())), pa.field("probability", pa.list_(pa.float64()))]
    + [pa.field("invalid", pa.float64()), pa.field("residual", pa.float64())]
)


class Row(NamedTuple):
    """One cell of decoding "draws", with texts; or of decoding "exact", with probabilities."""

    cell: Cell
    form: str
    prompt: str  # id of a prompt; the tree draws those of PROBE only
    texts: Mapping[str, int] = {}  # text -> how often it was drawn
    probability: Sequence[float] = ()  # (options,), unconditional
    invalid: float = 0.0
    residual: float = 0.0


# -- written and read


def append(ladder: str, rows: Iterable[Row], provenance: dict) -> None:
    """Write one shard of one checkpoint: all rows or none. Same draws, same bytes.

    Raises: CrystalError if a cell is already there, counts do not add up, or the disk refuses.
    """
    rows, sink = list(rows), io.BytesIO()
    ((model, revision),) = {(row.cell.model, row.cell.revision) for row in rows}
    facts = {"rows": len(rows), "model": model, "revision": revision}
    facts |= {"tasks": sorted({row.cell.task for row in rows}), "provenance": provenance}
    table = pa.Table.from_pylist([_plain(row) for row in rows], schema=_SCHEMA)
    pq.write_table(table, sink, compression="zstd", compression_level=9)
    new = [row.cell.key for row in rows]
    manifest.write_new(ladder, DRAWS, sink.getvalue(), facts, new, lambda: keys(ladder))


def _plain(row: Row) -> dict:
    cell, task = row.cell, TASKS[known(row.cell.task, TASKS, "task")]
    prompt, counts = _PROMPT[known(row.prompt, _PROMPT, "prompt")], list(row.texts.values())
    if cell.decoding.kind == "draws":
        sound = sum(counts) == cell.decoding.n and min(counts) > 0
    else:
        sound = store.is_distribution(row)
    if not sound:
        counted = f"counts that add up to n = {cell.decoding.n}"
        what = f"neither {counted} nor a distribution over the options of {task.name}"
        raise store.unsound(row, what)
    fields = {"key": cell.key, "prompt_ids": cell.prompt_ids, "texts": list(row.texts)}
    fields |= {"counts": counts, "probability": list(row.probability)}
    return store.plain(row, prompt.text(task, row.form)) | fields


def _opened(ladder: str, record: dict, columns: Sequence[str] = _SCHEMA.names) -> pa.Table:
    def parse(blob: bytes) -> pa.Table:
        shard = pq.ParquetFile(pa.BufferReader(blob))
        held = store.held_as(shard, columns)
        found = shard.read(held).select(held).rename_columns(list(columns))
        return found.cast(pa.schema([_SCHEMA.field(name) for name in columns]))

    return store.parsed(ladder, record, DRAWS, parse)


def read(ladder: str, columns: Sequence[str] = _SCHEMA.names) -> pa.Table:
    """Verified rows of any revision, form and decoding, in order of writing."""
    found = [_opened(ladder, record, columns) for record in manifest.records(ladder, DRAWS)]
    return pa.concat_tables(found or [_SCHEMA.empty_table().select(columns)])


def keys(ladder: str) -> set[str]:
    """Keys of the cells that are there, of every revision."""
    return set(read(ladder, ["key"])["key"].to_pylist())


def load_draws(
    name: str,
    *,
    tasks: Sequence[str] = TASKS_DRAWN,
    checkpoints: Sequence[str] = STAGES,
    decoding: Decoding = DRAWN,
) -> pd.DataFrame:
    """Draws of the ladder's current checkpoints in their native forms, verified; a row per cell.

    Columns: ladder, checkpoint, form, task, prompt (id), persona, template, key, texts (text ->
    count), probability (ndarray), invalid, residual; the last three mean something for
    decoding=TRUTH only. Rows in the order of checkpoints, tasks, prompts.
    Left out: other revisions, dtypes and decodings, an older reading rule, prompts reworded since.
    Raises: CrystalError for an unknown name, a corrupt or missing shard, or any of the asked-for
    cells missing.
    """
    ladder = load_ladder(name)
    chosen, asked = (
        [ladder.checkpoint(checkpoint) for checkpoint in checkpoints],
        [known(t, TASKS, "task") for t in tasks],
    )
    frame = _today(ladder, chosen, asked, PROBE, decoding=decoding.text)
    frame = frame.drop_duplicates(["checkpoint", "task", "prompt"], keep="last", ignore_index=True)
    if (absent := frame["key"].isna()).any():
        first = " ".join(frame.loc[absent, ["checkpoint", "task", "prompt"]].iloc[0])
        what = f"{absent.sum()} of {len(frame)} cells were not drawn, first {first}"
        where = manifest.folder_of(name, DRAWS)
        raise CrystalError(what, where=where, hint=manifest.fill(name, DRAWS))
    counted = zip(frame["texts"], frame["counts"])
    frame["texts"] = [dict(zip(texts, counts.tolist(), strict=True)) for texts, counts in counted]
    columns = "ladder checkpoint form task prompt persona template key texts probability".split()
    return frame[[*columns, "invalid", "residual"]]


def _today(
    ladder: Ladder,
    checkpoints: Sequence[Checkpoint],
    tasks: Sequence[str],
    prompts: Sequence[Prompt],
    form: str | None = None,
    dtype: str | None = None,
    **more: str,
) -> pd.DataFrame:
    """What is stored of situations as they would be put today; key is NaN where nothing is."""
    situations = [
        {
            "ladder": ladder.name,
            "checkpoint": checkpoint.name,
            "model": checkpoint.source,
            "revision": checkpoint.revision,
        }
        | {"form": form or checkpoint.native_form, "dtype": dtype or ladder.dtype, **more}
        for checkpoint in checkpoints
    ]
    asked = pd.DataFrame(store.asked_today(tasks, prompts))
    current = {(one.source, one.revision) for one in checkpoints}
    held = [_SCHEMA.empty_table()] + [
        _opened(ladder.name, record)
        for record in manifest.records(ladder.name, DRAWS)
        if (record["model"], record["revision"]) in current and {*tasks} & {*record["tasks"]}
    ]
    places = pd.DataFrame(situations).merge(asked, on="form")
    return places.merge(pa.concat_tables(held).to_pandas(), how="left")


def verify(name: str) -> Report:
    """Read everything: checksums, hashes, each stored cell's key, and what is missing.

    What must be there, if the ladder's description says `drawn: true`: stage ends in their native
    forms x TASKS_DRAWN x the probe prompts. Truths are not counted as missing.
    Raises: CrystalError for a corrupt manifest; a corrupt shard is a problem in the report.
    """
    ladder, seen = load_ladder(name, unpinned=True), set()
    names = ("key", *KEYED, "decoding", "form", "prompt", "prompt_ids")
    probe = [prompt.id for prompt in PROBE]

    def wrong(table: pa.Table) -> Iterator[str]:
        for row in table.to_pylist():
            if (key := key_of(row)) != row["key"]:
                yield f"cell {row['key']} should have the key {key}"
            elif key in seen:
                yield f"cell {key} is there twice"
            seen.add(key)

    wanted = [
        (
            checkpoint.source,
            checkpoint.revision,
            ladder.dtype,
            checkpoint.native_form,
            DRAWN.text,
            task,
            prompt,
        )
        for checkpoint in (ladder.ends if ladder.kind == "ladder" else ())
        for task in TASKS_DRAWN
        for prompt in probe
    ]
    opened = functools.partial(_opened, columns=names)
    return store.looked_through(ladder, DRAWS, opened, wrong, wanted, ladder.drawn)


# -- with what the stored cells of a checkpoint were read

Makings = frozenset[tuple[str, ...]]


def makings(ladder: str) -> Makings:
    """(model, revision, config_sha256, tokenizer_revision) of the cells in both logs.

    They are part of a cell's key: read with others, the same weights would give cells of two kinds.
    Draws from a server are left out: they know of neither file.
    """
    tables = store.read(ladder, columns=store.MADE), read(ladder, store.MADE)
    rows = (
        row for one in tables for row in one.group_by(list(store.MADE)).aggregate([]).to_pylist()
    )
    return frozenset(tuple(row[name] for name in store.MADE) for row in rows if row[store.MADE[-1]])


def check_makings(held: Makings, checkpoint: Checkpoint, now: tuple[str, str]) -> None:
    """Do nothing unless cells of the checkpoint are stored, none of them read with what is here
    now.

    now: config_sha256, tokenizer_revision. Raises: CrystalError naming both hashes.
    """
    then = {one[2:] for one in held if one[:2] == (checkpoint.source, checkpoint.revision)}
    if not then or now in then:
        return
    parts = zip(("config.json has", "tokenizer and chat template have"), now, min(then))
    what, new, old = next((what, new, old) for what, new, old in parts if new != old)
    logs = " ".join(f"data/{kind}/{checkpoint.ladder}" for kind in (SAMPLES, DRAWS))
    raise CrystalError(
        f"checkpoint {checkpoint.name!r}: {what} sha256 {new}, but its cells were read with {old}",
        where=checkpoint.source,
        hint="put back the files that they were read with (git checkout, or train "
        f"it again), or rm -r {logs} and {manifest.fill(checkpoint.ladder)}",
    )


# -- tables for other frameworks


def counts(name: str, *, form: str | None = None, dtype: str | None = None) -> pd.DataFrame:
    """Counts of answers to closed tasks by a ladder's stage ends, as it may be served: COLUMNS.

    A row per option, ordered by stage, task, prompt, option; 0 where nobody drew it; the empty one
    counts other answers. cluster: the persona. form: None is each checkpoint's own; dtype: the
    ladder's. All draws of a situation are added up: each lot has randomness of its own.
    Raises: CrystalError for an unknown name, a corrupt or missing shard, or no such draws.
    """
    ladder = load_ladder(name)
    closed = [task.name for task in TASKS.values() if task.closed]
    found: dict[tuple[str, str, str], Counter[str]] = {}
    if ladder.kind == "ladder":
        frame = _today(ladder, ladder.ends, closed, PROMPTS, form, dtype)
        for row in frame.dropna(subset="key").itertuples():
            if len(row.counts):
                said = found.setdefault((row.checkpoint, row.task, row.prompt), Counter())
                for text, count in zip(row.texts, row.counts.tolist(), strict=True):
                    said[read_answer(text, TASKS[row.task]) or ""] += count
    if not found:
        raise CrystalError(
            f"no draws of {name}'s closed tasks in that form and dtype",
            where=manifest.folder_of(name, DRAWS),
            hint=f"crystal draw {name} --server URL --model NAME",
        )
    table = [
        (name, *place, PERSONAS[_PROMPT[place[2]].persona], option, said[option])
        for place, said in found.items()
        for option in (*TASKS[place[1]].options, "")
    ]
    return pd.DataFrame(table, columns=list(COLUMNS))


def prompt_table() -> pd.DataFrame:
    """Every closed task, form and natural prompt.

    The model is given `text`, in the chat form as a user's message, and its answer begun with
    `reply`; raw text and reply are joined by a space where the text does not end in white space.
    cluster: what is no independent evidence twice, the context.
    """
    rows = [
        (task, form, p.id, p.cluster, p.half, p.text(TASKS[task], form), p.reply(TASKS[task]))
        for task in PHASE_TASKS
        for form in FORMS
        for p in load_prompts()
    ]
    columns = ["task", "form", "prompt", "cluster", "half", "text", "reply"]
    return pd.DataFrame(rows, columns=columns)
