"""Exact read-outs on disk: what was read in each cell, append-only, verified before it is returned.

A shard is many cells as one parquet file, with a row group per task, so that a reader of one task
decodes only that. Probabilities are most of the bytes and do not repeat: float32, split by byte.
Everything else is dictionary-encoded; the cell's key follows from it and is not stored.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..ask.cells import KEYED, Cell, digest, key_of, prompt_of, situations, task_sha256
from ..ask.ladders import Ladder, ladder_names, load_ladder
from ..ask.prompts import ALL_FORMS, PROMPTS, NaturalPrompt, Prompt, joined
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError, known
from . import manifest
from .manifest import SAMPLES, Report

_TEXTS = (*KEYED, "decoding", "form", "prompt", "text")
_MASSES = ("invalid", "residual")
SCHEMA = pa.schema(
    [pa.field(name, pa.string()) for name in _TEXTS]
    + [pa.field("prompt_ids", pa.binary())]  # int32, little-endian
    + [pa.field("tokens", pa.int32()), pa.field("probability", pa.list_(pa.float32()))]
    + [pa.field(name, pa.float32()) for name in _MASSES]
)
_ONCE = {"invalid": "off_support", "residual": "unresolved"}  # names in older shards
_WIDE = {"probability": pa.list_(pa.float64())} | dict.fromkeys(_MASSES, pa.float64())
KEYING = (*KEYED, "decoding", "prompt_ids")  # the columns that make a cell's key
MADE = ("model", "revision", "config_sha256", "tokenizer_revision")
TOTAL = 1e-6  # how far a stored distribution may be from summing to 1
_COLUMNS = (
    "ladder checkpoint stage step parent run form temperature task prompt persona template half "
    "probability answered invalid residual tokens"
).split()


class Row(NamedTuple):
    """One cell and what was read in it: see `crystal.read.readout.Readout`."""

    cell: Cell
    form: str
    prompt: str  # its id
    probability: np.ndarray  # (options,), unconditional
    invalid: float
    residual: float
    tokens: int


# -- a shard


def table_of(rows: Iterable[Row]) -> pa.Table:
    """Rows in SCHEMA. Raises: CrystalError for a distribution that is not one."""
    return pa.Table.from_pylist([_plain(row) for row in rows], schema=SCHEMA)


def _plain(row: Row) -> dict:
    cell, task = row.cell, TASKS[known(row.cell.task, TASKS, "task")]
    prompt, p = prompt_of(row.prompt), np.asarray(row.probability, dtype=np.float64)
    if not is_distribution(row):
        what = f"not a distribution over the {len(task.options)} options of {task.name}"
        total = p.sum() + row.invalid + row.residual
        raise unsound(row, f"{what}: shape {p.shape}, total {total}")
    ids = np.asarray(cell.prompt_ids, "<i4").tobytes()
    fields = {"prompt_ids": ids, "tokens": int(row.tokens), "probability": p.astype(np.float32)}
    return plain(row, joined(prompt.text(task, row.form), prompt.reply(task))) | fields


def is_distribution(row: NamedTuple) -> bool:
    """Whether a row's probabilities are one for each option, not negative, and sum to 1."""
    parts = np.array([*row.probability, row.invalid, row.residual], dtype=np.float64)
    fits = len(parts) - 2 == len(TASKS[row.cell.task].options) > 0
    return fits and bool((parts >= 0).all() and abs(parts.sum() - 1) <= TOTAL)  # False for NaN


def unsound(row: NamedTuple, what: str) -> CrystalError:
    where = f"{row.cell.model}, {row.form}, prompt {row.prompt}"
    return CrystalError(what, where=where, hint="see whether the weights hold NaN")


def plain(row: NamedTuple, text: str) -> dict:
    """The columns that read-outs and draws share."""
    fields = {name: getattr(row.cell, name) for name in KEYED}
    fields |= {name: getattr(row, name) for name in ("form", "prompt", *_MASSES)}
    return fields | {"decoding": row.cell.decoding.text, "text": text}


def packed(table: pa.Table) -> bytes:
    """The shard's bytes: no date, no machine; the same rows give the same bytes."""
    sink, how = io.BytesIO(), {"compression": "zstd", "compression_level": 9}
    how |= {"use_dictionary": [*_TEXTS, "prompt_ids", "tokens"], "write_statistics": ["task"]}
    how |= {"use_byte_stream_split": ["probability.list.element", *_MASSES]}
    with pq.ParquetWriter(sink, SCHEMA, **how) as writer:
        for task in table["task"].unique().to_pylist():
            writer.write_table(table.filter(pc.field("task") == task))
    return sink.getvalue()


def unpacked(
    blob: bytes, tasks: Iterable[str] = TASKS, columns: Sequence[str] | None = None
) -> pa.Table:
    """Rows of those tasks, in order of writing; numbers as float64.

    Raises: pyarrow.ArrowException, KeyError or OSError for bytes that are no shard.
    """
    shard, wanted, schema = pq.ParquetFile(pa.BufferReader(blob)), set(tasks), _read_as(columns)
    task = shard.schema_arrow.get_field_index("task")  # the one of a row group: in its statistics
    held = [shard.metadata.row_group(i).column(task) for i in range(shard.num_row_groups)]
    groups = [i for i, column in enumerate(held) if column.statistics.min in wanted]
    held = held_as(shard, schema.names)
    found = shard.read_row_groups(groups, columns=held).select(held)
    return found.rename_columns(schema.names).cast(schema)


def held_as(shard: pq.ParquetFile, names: Sequence[str]) -> list[str]:
    """What a shard calls these columns."""
    there = shard.schema_arrow.names
    return [name if name in there else _ONCE.get(name, name) for name in names]


def _read_as(columns: Sequence[str] | None) -> pa.Schema:
    names = columns or SCHEMA.names
    return pa.schema([pa.field(name, _WIDE.get(name, SCHEMA.field(name).type)) for name in names])


def keys_of(table: pa.Table) -> list[str]:
    """Each row's key, from its columns KEYING."""
    rows = table.select(KEYING).to_pylist()
    return [key_of(row | {"prompt_ids": ids_of(row["prompt_ids"])}) for row in rows]


def ids_of(stored: bytes) -> tuple[int, ...]:
    return tuple(np.frombuffer(stored, "<i4").tolist())


# -- written and read


def append(ladder: str, rows: Iterable[Row], provenance: dict) -> Path:
    """Write one shard of one model, revision and form: all of its cells are there, or none.

    Raises: CrystalError if a cell is already there, a distribution is not one, the disk refuses.
    """
    rows = list(rows)
    ((model, revision, form),) = {(row.cell.model, row.cell.revision, row.form) for row in rows}
    made = dict(provenance)
    when = {name: made.pop(name) for name in ("seconds", "created")}
    made["parts"] = [{"checkpoint": 0, "form": form, "rows": len(rows), **when}]
    facts = {"rows": len(rows), "forms": [form], "checkpoints": [[model, revision]]}
    facts |= {"tasks": sorted({row.cell.task for row in rows}), "provenance": [made]}
    blob, new = packed(table_of(rows)), [row.cell.key for row in rows]
    there = functools.partial(keys, ladder, revision=revision)
    return manifest.write_new(ladder, SAMPLES, blob, facts, new, there)


def read(
    ladder: str,
    *,
    revision: str | None = None,
    tasks: Iterable[str] | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Verified rows of any decoding, in order of writing: SCHEMA in float64. None = all.

    Only shards whose record can match are opened. Raises: CrystalError for a corrupt one.
    """
    wanted, schema = set(TASKS if tasks is None else tasks), _read_as(columns)
    names, parts = list(dict.fromkeys([*schema.names, "revision"])), [schema.empty_table()]
    for record in manifest.records(ladder):
        held = revision is None or revision in [of for _, of in record["checkpoints"]]
        if held and wanted & set(record["tasks"]):
            found = _opened(ladder, record, wanted, names)
            if revision is not None:
                found = found.filter(pc.field("revision") == revision)
            parts.append(found.select(schema.names))
    return pa.concat_tables(parts)


def _opened(
    ladder: str, record: dict, tasks: Iterable[str] = TASKS, columns: Sequence[str] | None = None
) -> pa.Table:
    return parsed(ladder, record, SAMPLES, lambda blob: unpacked(blob, tasks, columns))


def parsed(ladder: str, record: dict, kind: str, parse: Callable[[bytes], pa.Table]) -> pa.Table:
    """A shard's verified bytes, parsed. Raises: CrystalError if they are none of that kind."""
    blob = manifest.verified(ladder, record, kind)
    try:
        return parse(blob)
    except (pa.ArrowException, KeyError, OSError) as error:
        held = "read-outs" if kind == SAMPLES else kind
        what = f"a shard holds no {held}: {' '.join(str(error).split())}"
        where = manifest.shard_path(ladder, record, kind)
        raise CrystalError(what, where=where, hint=manifest.hint(ladder, kind)) from error


def keys(ladder: str, *, revision: str | None = None) -> set[str]:
    """Keys of the cells that are there, of every revision or of one."""
    return set(keys_of(read(ladder, revision=revision, columns=KEYING)))


def produced(ladder: str) -> list[dict]:
    """Who computed what, of every part that was written at a time: model, revision, form, rows,
    seconds, created; crystal, commit, engine, device, dtype, versions.
    """
    return [
        made | part | dict(zip(MADE, record["checkpoints"][part["checkpoint"]]))
        for record in manifest.records(ladder)
        for made in record["provenance"]
        for part in made["parts"]
    ]


def manifest_digest(name: str) -> str:
    """A hash of a ladder's description and current shards. Reads none; order does not count."""
    ladder = load_ladder(name)
    current = {(c.source, c.revision) for c in ladder.checkpoints}
    log = [r for r in manifest.records(name) if current & set(map(tuple, r["checkpoints"]))]
    return digest([repr(ladder), sorted(record["sha256"] for record in log)])


# -- today's read-outs


def load_readouts(
    name: str,
    *,
    tasks: Sequence[str] | None = None,
    forms: Sequence[str] | None = None,
    checkpoints: Sequence[str] | None = None,
    tolerance: float | None = None,
) -> pd.DataFrame:
    """Exact read-outs of current checkpoints, a row per cell, verified; None = all.

    In the order of checkpoints, forms, tasks (of crystal.ask.tasks), prompts.
    tolerance: other than that of the checkpoints' grids. Columns: ladder, checkpoint, stage, step,
    parent, run, form, temperature, task, prompt (id), persona, template, half, probability (ndarray
    (K,), float64, unconditional), answered (their sum), invalid, residual, tokens. Left out: other
    revisions, tolerances and dtypes, an older reading rule, prompts reworded since.
    Raises: CrystalError for an unknown name, a corrupt shard, nothing found, or two read-outs.
    """
    ladder = load_ladder(name)
    forms = [known(form, ALL_FORMS, "form") for form in (ALL_FORMS if forms is None else forms)]
    tasks = [known(task, TASKS, "task") for task in (TASKS if tasks is None else tasks)]
    every = [c.name for c in ladder.checkpoints]
    wanted = every if checkpoints is None else [ladder.checkpoint(c).name for c in checkpoints]
    frame = _current(ladder, tasks, tolerance)
    frame = frame[frame["checkpoint"].isin(wanted) & frame["form"].isin(forms)]
    if frame.empty:
        what = f"no read-outs of {name} for tasks {', '.join(tasks)} in those forms and checkpoints"
        raise CrystalError(what, where=manifest.folder_of(name), hint=manifest.fill(name))
    orders = {"checkpoint": every, "form": ALL_FORMS, "task": list(TASKS)}
    orders["prompt"] = [prompt.id for prompt in _prompts(ladder)]
    place = [*orders, "temperature"]
    if (twice := frame.duplicated(place)).any():
        first = " ".join(map(str, frame.loc[twice, place].iloc[0]))
        what = f"two read-outs of {first}: by two tokenizers or config.json of the same weights"
        raise CrystalError(what, where=manifest.folder_of(name), hint=manifest.hint(name))
    ranks = {name: pd.Index(order).get_indexer(frame[name]) for name, order in orders.items()}
    by = np.lexsort([frame["temperature"], *reversed(ranks.values())])
    return frame.iloc[by].reset_index(drop=True)


def _current(ladder: Ladder, tasks: Sequence[str], tolerance: float | None) -> pd.DataFrame:
    """The rows that today's checkpoints, grids, tasks, prompts and tolerance would write again."""
    columns = {"model", "revision", "dtype", "task_sha256", "text", "decoding", *_COLUMNS}
    table = read(ladder.name, tasks=tasks, columns=[n for n in SCHEMA.names if n in columns])
    revisions = pa.array([c.revision for c in ladder.checkpoints])
    same = (pc.field("dtype") == ladder.dtype) & pc.field("revision").isin(revisions)
    frame = table.filter(same).drop_columns(["dtype"]).to_pandas()
    checkpoints = [
        {name: getattr(c, name) for name in ("revision", "stage", "step", "parent", "run")}
        | {"model": c.source, "checkpoint": c.name, "form": s.form}
        | {"decoding": s.decoding.text, "temperature": s.decoding.temperature}
        for c in ladder.checkpoints
        for s in situations(c.grid, tolerance)
    ]
    asked = _asked(tuple((n, task_sha256(TASKS[n])) for n in tasks), tuple(_prompts(ladder)))
    for today in (pd.DataFrame(checkpoints), asked):
        frame = frame.merge(today, on=[column for column in today if column in frame])
    mass = np.zeros(len(frame))
    for rows in frame.groupby("task").indices.values():  # as many options in each
        mass[rows] = np.stack(frame["probability"].to_numpy()[rows]).sum(1)
    return frame.assign(ladder=ladder.name, answered=mass)[_COLUMNS]


def _prompts(ladder: Ladder) -> list[Prompt | NaturalPrompt]:
    """PROMPTS, then whatever else a checkpoint's grid puts, each once."""
    more = (p for c in ladder.checkpoints for s in situations(c.grid) for p in s.prompts)
    first = {prompt.id: prompt for prompt in PROMPTS}
    return list((first | {prompt.id: prompt for prompt in more} | first).values())


@functools.lru_cache(maxsize=8)  # a page loads one ladder after another
def _asked(tasks: tuple[tuple[str, str], ...], prompts: tuple) -> pd.DataFrame:
    return pd.DataFrame(asked_today([name for name, _ in tasks], prompts))


def asked_today(tasks: Iterable[str], prompts: Iterable[Prompt | NaturalPrompt]) -> list[dict]:
    """Every prompt x form of the tasks: what a stored row must agree with or does not hold."""
    return [
        {"task": task.name, "task_sha256": sha256, "form": form, "prompt": prompt.id}
        | {"text": joined(prompt.text(task, form), prompt.reply(task))}
        | {"persona": prompt.persona, "template": prompt.wording, "half": prompt.half}
        for task, sha256 in [(TASKS[name], task_sha256(TASKS[name])) for name in tasks]
        for form in ALL_FORMS
        for prompt in prompts
        if prompt.puts(task)
    ]


# -- looked through


def verify(name: str) -> Report:
    """Read everything: checksums, hashes, sums, each cell once, one tokenizer, and what is missing.

    What must be there: the checkpoints' grids x PHASE_TASKS; of the hub's, a part is enough.
    Raises: CrystalError for a corrupt manifest; a corrupt shard is a problem in the report.
    """
    cells, made = set(), {}

    def wrong(found: pa.Table) -> Iterator[str]:
        if not _are_distributions(found):
            yield "a stored distribution is none: it is negative somewhere, or does not sum to 1"
        new = set(zip(*(found[column].to_pylist() for column in KEYING)))
        if len(new) < len(found) or new & cells:
            yield "cells are there twice"
        cells.update(new)
        for pair in found.group_by(list(MADE)).aggregate([]).to_pylist():
            model, revision, *by = pair.values()
            if made.setdefault((model, revision), by) != by:
                yield f"cells of {model} were read with two tokenizers or config.json"

    ladder = load_ladder(name, unpinned=True)
    wanted = [
        (c, s.form, s.decoding.text, task, prompt.id)
        for c in ladder.checkpoints
        for s in situations(c.grid)
        for task in PHASE_TASKS
        for prompt in s.prompts
    ]
    return looked_through(ladder, SAMPLES, _opened, wrong, wanted, shipped=name in ladder_names())


def looked_through(
    ladder: Ladder, kind: str, opened: Callable, wrong: Callable, wanted: list[tuple], shipped: bool
) -> Report:
    """Read a whole log. wrong: what is wrong with a shard; wanted: checkpoint, then as `place`."""
    name, log = ladder.name, manifest.records(ladder.name, kind)
    place = ("model", "revision", "form", "decoding", "task", "prompt")
    problems, places, cells = [], set(), 0
    for record in log:
        try:
            found = opened(name, record)
        except CrystalError as error:
            problems.append(str(error))
            continue
        cells += len(found)
        same = found.filter(pc.field("dtype") == ladder.dtype)
        places.update(zip(*(same[column].to_pylist() for column in place)))
        where = f"({manifest.shard_path(name, record, kind)}). Hint: {manifest.hint(name, kind)}"
        problems += [f"{what} {where}" for what in wrong(found)]
    missing = [
        f"checkpoint {c.name}, {form}, task {task}, prompt {prompt}"
        for c, form, how, task, prompt in wanted
        if (c.source, c.revision, form, how, task, prompt) not in places
    ]
    found = {"shards": len(log), "cells": cells, "bytes": sum(r["bytes"] for r in log)}
    found |= {"missing": len(missing), "first": missing[0] if missing else ""}
    found |= {"problems": tuple(problems), "unlisted": manifest.unlisted(name, kind)}
    return Report(ladder=name, kind=kind, shipped=shipped, **found)


def _are_distributions(table: pa.Table) -> bool:
    """Whether no row has a negative probability, and each sums to 1."""
    p = table["probability"].combine_chunks()
    sizes, parts = p.value_lengths().to_numpy(), p.flatten().to_numpy()
    ends = np.cumsum(sizes)
    sums = np.concatenate([[0], np.cumsum(parts)])
    masses = table["invalid"].to_numpy() + table["residual"].to_numpy()
    off = abs(sums[ends] - sums[ends - sizes] + masses - 1)
    return bool((parts >= 0).all() and (masses >= 0).all() and (off <= 2 * TOTAL).all())
