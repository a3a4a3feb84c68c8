"""Draws on disk: for every cell the texts that were drawn and how often each, append-only, verified before use.

An open task has no list of options, hence no read-out: what can be kept of it is counts of texts, raw. Where a task does
have options (1-1000), its exact law may be kept beside its draws, so that what is estimated from them can be checked.
Same guarantees as `crystal.keep.store`, in a log of its own; reading a text as an answer is left to whoever loads it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..ask.cells import KEYED, Cell, Decoding, key_of, task_sha256
from ..ask.ladders import STAGES, Ladder, load_ladder
from ..ask.prompts import PROBE, PROMPTS
from ..ask.tasks import TASKS
from ..errors import CrystalError, known
from . import manifest
from .manifest import DRAWS
from .report import Report
from .shards import TOTAL

TASKS_DRAWN = ("first_name", "city", "animal", "word", "thousand")
DRAWN = Decoding(kind="draws", n=10_000, max_tokens=12)
TRUTH = Decoding()  # of the exact law beside the draws of a task with options

_PROMPT = {prompt.id: prompt for prompt in PROMPTS}
_PROBE = {prompt.id: prompt for prompt in PROBE}
_SCHEMA = pa.schema(
    [pa.field(name, pa.string()) for name in ("key", *KEYED, "decoding", "form", "prompt", "text")]
    + [pa.field("prompt_ids", pa.list_(pa.int32())), pa.field("texts", pa.list_(pa.string()))]
    + [pa.field("counts", pa.list_(pa.int32())), pa.field("probability", pa.list_(pa.float64()))]
    + [pa.field("off_support", pa.float64()), pa.field("unresolved", pa.float64())]
)


class Row(NamedTuple):
    """One cell of decoding "draws", with texts; or of decoding "exact", with a law."""

    cell: Cell
    form: str
    prompt: str  # id of a prompt; the tree draws those of PROBE only
    texts: Mapping[str, int] = {}  # text -> how often it was drawn
    probability: Sequence[float] = ()  # (options,), unconditional
    off_support: float = 0.0
    unresolved: float = 0.0


def append(ladder: str, rows: Iterable[Row], producer: dict) -> None:
    """Write one shard of one checkpoint, durably: all rows or none, as `crystal.keep.store.append`.

    Raises: CrystalError if a cell is already there, if counts do not add up to the cell's n, or if the disk refuses.
    """
    rows = list(rows)
    (model, revision), = {(row.cell.model, row.cell.revision) for row in rows}
    tasks = sorted({row.cell.task for row in rows})
    facts = {"rows": len(rows), "model": model, "revision": revision, "tasks": tasks, "producer": producer}
    blob = _parquet(rows)
    try:
        with manifest.alone(ladder, DRAWS):
            new = [row.cell.key for row in rows]
            if len({*new} - keys(ladder)) < len(new):
                raise CrystalError("cells of draws would be there twice", where=manifest.folder_of(ladder, DRAWS),
                                   mend=f"another process wrote them; go on with {manifest.fill(ladder, DRAWS)}")
            manifest.write(ladder, blob, facts, DRAWS)
    except OSError as error:
        raise manifest.refused(error, f"the draws of {len(rows)} cells", ladder, DRAWS) from error


def _parquet(rows: list[Row]) -> bytes:
    """Same draws, same bytes. Texts repeat from cell to cell: a dictionary halves them."""
    sink = io.BytesIO()
    table = pa.Table.from_pylist([_plain(row) for row in rows], schema=_SCHEMA)
    pq.write_table(table, sink, compression="zstd", compression_level=9)
    return sink.getvalue()


def _plain(row: Row) -> dict:
    cell, task = row.cell, TASKS[known(row.cell.task, TASKS, "task")]
    prompt = _PROMPT[known(row.prompt, _PROMPT, "prompt")]
    if not _sound(row):
        raise CrystalError(f"neither counts that add up to n = {cell.decoding.n} nor a law over the options of {task.name}",
                           where=f"{cell.model}, {row.form}, prompt {row.prompt}", mend="see whether the weights hold NaN")
    return {name: getattr(cell, name) for name in ("key", *KEYED)} | {
        "decoding": cell.decoding.text, "form": row.form, "prompt": row.prompt, "text": prompt.text(task, row.form),
        "prompt_ids": cell.prompt_ids, "texts": list(row.texts), "counts": list(row.texts.values()),
        "probability": list(row.probability), "off_support": row.off_support, "unresolved": row.unresolved,
    }


def _sound(row: Row) -> bool:
    if row.cell.decoding.kind == "draws":
        return sum(row.texts.values()) == row.cell.decoding.n and min(row.texts.values()) > 0
    parts = np.array([*row.probability, row.off_support, row.unresolved])
    fits = len(row.probability) == len(TASKS[row.cell.task].options) > 0
    return fits and bool((parts >= 0).all()) and abs(parts.sum() - 1) <= TOTAL  # False for NaN


def _opened(ladder: str, record: dict, columns: Sequence[str] | None = None) -> pa.Table:
    blob, names = manifest.verified(ladder, record, DRAWS), columns or _SCHEMA.names
    try:
        found = pq.read_table(pa.BufferReader(blob), columns=list(names))
        return found.select(names).cast(pa.schema([_SCHEMA.field(name) for name in names]))
    except (pa.ArrowException, KeyError, OSError) as error:
        what = f"a shard holds no draws: {' '.join(str(error).split())}"
        raise CrystalError(what, where=manifest.shard_path(ladder, record, DRAWS),
                           mend=manifest.mend(ladder, DRAWS)) from error


def keys(ladder: str) -> set[str]:
    """Keys of the cells that are there, of every revision."""
    records = manifest.records(ladder, DRAWS)
    return {key for record in records for key in _opened(ladder, record, ["key"])["key"].to_pylist()}


def makings(ladder: str) -> list[dict]:
    """Of every stored cell, what it was read with: as `crystal.keep.makings` wants it."""
    names = ["model", "revision", "config_sha256", "tokenizer_revision"]
    found = [_opened(ladder, record, names) for record in manifest.records(ladder, DRAWS)]
    return pa.concat_tables(found).group_by(names).aggregate([]).to_pylist() if found else []


def rows(name: str) -> Iterator[dict]:
    """Every stored cell of draws, verified, as its columns; of every revision, form and decoding that was drawn."""
    for record in manifest.records(name, DRAWS):
        yield from (row for row in _opened(name, record).to_pylist() if row["counts"])


def load_draws(
    name: str, *, tasks: Sequence[str] = TASKS_DRAWN, rungs: Sequence[str] = STAGES, decoding: Decoding = DRAWN,
) -> pd.DataFrame:
    """Draws of the ladder's current checkpoints in their native forms, verified; one row per cell.

    Columns: ladder, rung, form, task, prompt (id), narrator, frame, key, texts (dict text -> count), probability (ndarray),
    off_support, unresolved; the last three mean something for decoding=TRUTH only. Rows in the order of rungs, tasks, prompts.
    Left out: other revisions, dtypes and decodings, an older reading rule, prompts whose wording has changed since.
    Raises: CrystalError for an unknown name, a corrupt or missing shard, or any of the asked-for cells missing.
    """
    ladder = load_ladder(name)
    checkpoints = {(rung.source, rung.revision): rung for rung in (ladder.rung(rung) for rung in rungs)}
    hashes = {task: task_sha256(TASKS[known(task, TASKS, "task")]) for task in tasks}
    found = {}
    for record in manifest.records(name, DRAWS):
        rung = checkpoints.get((record["model"], record["revision"]))
        if rung is None or not {*tasks} & {*record["tasks"]}:
            continue
        for row in _opened(name, record).to_pylist():
            prompt, task = _PROBE.get(row["prompt"]), row["task"]
            today = (decoding.text, ladder.dtype, rung.native_form, hashes.get(task))
            same = (row["decoding"], row["dtype"], row["form"], row["task_sha256"]) == today
            if same and prompt and row["text"] == prompt.text(TASKS[task], row["form"]):
                found[rung.name, task, prompt.id] = row
    places = [(rung, task, prompt) for rung in rungs for task in tasks for prompt in _PROBE]
    if absent := [place for place in places if place not in found]:
        raise CrystalError(f"{len(absent)} of {len(places)} cells were not drawn, first {' '.join(absent[0])}",
                           where=manifest.folder_of(name, DRAWS), mend=manifest.fill(name, DRAWS))
    return pd.DataFrame([_told(name, place, found[place]) for place in places])


def _told(ladder: str, place: tuple[str, str, str], row: dict) -> dict:
    rung, task, prompt = place
    return {
        "ladder": ladder, "rung": rung, "form": row["form"], "task": task, "prompt": prompt,
        "narrator": _PROBE[prompt].narrator, "frame": _PROBE[prompt].frame.name, "key": row["key"],
        "texts": dict(zip(row["texts"], row["counts"], strict=True)), "probability": np.array(row["probability"]),
        "off_support": row["off_support"], "unresolved": row["unresolved"],
    }


def verify(name: str) -> Report:
    """Read everything: checksums, hashes, each stored cell's key, and what is missing.

    What must be there, of a ladder whose description says `drawn: true`: stage ends in their native
    forms x TASKS_DRAWN x the probe prompts. Of another (a replica, an experiment, a ladder of the
    hub), the same is counted, and nothing has to be there. Truths are not counted as missing.
    Raises: CrystalError for a corrupt manifest; a corrupt shard is a problem in the report.
    """
    ladder, records, problems = load_ladder(name, unpinned=True), manifest.records(name, DRAWS), []
    places: dict[str, tuple] = {}
    for record in records:
        try:
            table = _opened(name, record)
        except CrystalError as error:
            problems.append(str(error))
            continue
        where = f"({manifest.shard_path(name, record, DRAWS)}). Mend: {manifest.mend(name, DRAWS)}"
        if _unlike(record, table):
            problems.append(f"a shard is not what the manifest says of it {where}")
        for row in table.drop_columns(["text", "texts", "counts", "probability"]).to_pylist():
            key = key_of(row)
            if key != row["key"] or key in places:
                what = "is there twice" if key in places else f"should have the key {key}"
                problems.append(f"cell {row['key']} {what} {where}")
            places[key] = tuple(row[column] for column in _PLACE)
    held = {*places.values()}
    missing = [place for place in _grid(ladder) if place not in held]
    return Report(
        ladder=name, kind=DRAWS, shards=len(records), cells=len(places), missing=len(missing),
        bytes=sum(record["bytes"] for record in records), shipped=ladder.drawn,
        first=f"{missing[0][0]}, task {missing[0][3]}, prompt {missing[0][4]}" if missing else "",
        unlisted=manifest.unlisted(name, DRAWS), problems=tuple(problems),
    )


_PLACE = ("model", "revision", "form", "task", "prompt", "decoding")


def _grid(ladder: Ladder) -> list[tuple]:
    """Every place, as the columns _PLACE have it, that `redraw.draw` would fill."""
    ends = ladder.ends if ladder.kind == "ladder" else ()
    return [(rung.source, rung.revision, rung.native_form, task, prompt, DRAWN.text)
            for rung in ends for task in TASKS_DRAWN for prompt in _PROBE]


def _unlike(record: dict, table: pa.Table) -> bool:
    """Whether the rows of a shard differ from what its record says of them."""
    found = [sorted(set(table[name].to_pylist())) for name in ("task", "model", "revision")]
    said = [sorted(record["tasks"]), [record["model"]], [record["revision"]]]
    return found != said or len(table) != record["rows"]
