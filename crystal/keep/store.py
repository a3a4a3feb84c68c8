"""Cells on disk: what was read or drawn in each, append-only, verified before it is returned.

A shard is many cells as one parquet file, with a row group per task, so that a reader of one task
decodes only that. In read-outs probabilities are most of the bytes and do not repeat: float32,
split by byte. Of draws the texts and their counts are kept. All else is dictionary-encoded.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..ask.cells import KEYED, Cell, digest, key_of, prompt_of, situations, task_sha256
from ..ask.ladders import Checkpoint, Ladder, ladder_names, load_ladder
from ..ask.prompts import ALL_FORMS, PROMPTS, NaturalPrompt, Prompt, joined
from ..ask.tasks import PHASE_TASKS, TASKS, Task
from ..errors import CrystalError, known
from . import manifest
from .manifest import DRAWS, SAMPLES, Report

_TEXTS = (*KEYED, "decoding", "form", "prompt", "text")
_MASSES = ("invalid", "residual")
_ONCE = {"invalid": "off_support", "residual": "unresolved"}  # names in older shards
_STRINGS = dict.fromkeys(_TEXTS, pa.string())
SCHEMAS = {
    SAMPLES: pa.schema(
        _STRINGS
        | {"prompt_ids": pa.binary()}  # int32, little-endian
        | {"tokens": pa.int32(), "probability": pa.list_(pa.float32())}
        | dict.fromkeys(_MASSES, pa.float32())
    ),
    DRAWS: pa.schema(
        {"key": pa.string()}
        | _STRINGS
        | {"prompt_ids": pa.list_(pa.int32()), "texts": pa.list_(pa.string())}
        | {"counts": pa.list_(pa.int32()), "probability": pa.list_(pa.float64())}
        | dict.fromkeys(_MASSES, pa.float64())
    ),
}
_WIDE = {pa.float32(): pa.float64(), pa.list_(pa.float32()): pa.list_(pa.float64())}
_PACKED = {
    SAMPLES: {
        "use_dictionary": [*_TEXTS, "prompt_ids", "tokens"],
        "use_byte_stream_split": ["probability.list.element", *_MASSES],
        "write_statistics": ["task"],
    },
    DRAWS: {},
}
KEYING = (*KEYED, "decoding", "prompt_ids")  # the columns that make a cell's key
MADE = ("model", "revision", "config_sha256", "tokenizer_revision")
TOTAL = 1e-6  # how far a stored distribution may be from summing to 1
_COLUMNS = (
    "ladder checkpoint stage step parent run form temperature task prompt persona template half "
    "probability answered invalid residual tokens"
).split()


class Row(NamedTuple):
    """One cell and what was drawn or read in it: see `crystal.read.readout.Readout`."""

    cell: Cell
    form: str
    prompt: str  # its id
    texts: Mapping[str, int] = {}  # text -> how often it was drawn
    probability: Sequence[float] = ()  # (options,), unconditional
    invalid: float = 0.0
    residual: float = 0.0
    tokens: int = 0


# -- a shard


def table_of(rows: Iterable[Row], kind: str = SAMPLES) -> pa.Table:
    """Rows as a log of that kind keeps them. Raises: CrystalError for one that is not sound."""
    return pa.Table.from_pylist([_plain(row, kind) for row in rows], schema=SCHEMAS[kind])


def _plain(row: Row, kind: str) -> dict:
    """The columns of both kinds; a schema takes its own."""
    cell, task = row.cell, TASKS[known(row.cell.task, TASKS, "task")]
    ids, p, counts = cell.prompt_ids, [*map(float, row.probability)], [*row.texts.values()]
    ids = np.asarray(ids, "<i4").tobytes() if kind == SAMPLES else ids
    text = _text(prompt_of(row.prompt), task, row.form)
    parts = np.array([*p, row.invalid, row.residual])
    if cell.decoding.kind == "draws":
        sound = sum(counts) == cell.decoding.n and min(counts) > 0
    else:
        sound = len(p) == len(task.options) > 0 and (parts >= 0).all()  # False for NaN
        sound = sound and abs(parts.sum() - 1) <= TOTAL
    if not sound:
        what = f"not a distribution over the {len(task.options)} options of {task.name}"
        what = f"{what}: shape ({len(p)},), total {parts.sum()}"
        if kind == DRAWS:
            counted = f"counts that add up to n = {cell.decoding.n}"
            what = f"neither {counted} nor a distribution over the options of {task.name}"
        where = f"{cell.model}, {row.form}, prompt {row.prompt}"
        raise CrystalError(what, where=where, hint="see whether the weights hold NaN")
    fields = {name: getattr(cell, name) for name in KEYED} | {"decoding": cell.decoding.text}
    fields |= {name: getattr(row, name) for name in ("form", "prompt", "tokens", *_MASSES)}
    fields |= {"key": cell.key, "prompt_ids": ids, "text": text}
    return fields | {"texts": [*row.texts], "counts": counts, "probability": p}


def _text(prompt: Prompt | NaturalPrompt, task: Task, form: str) -> str:
    return joined(prompt.text(task, form), prompt.reply(task))


def packed(table: pa.Table, kind: str = SAMPLES) -> bytes:
    """The shard's bytes: no date, no machine; the same rows give the same bytes."""
    sink, how = io.BytesIO(), {"compression": "zstd", "compression_level": 9} | _PACKED[kind]
    with pq.ParquetWriter(sink, table.schema, **how) as writer:
        for task in table["task"].unique().to_pylist():
            writer.write_table(table.filter(pc.field("task") == task))
    return sink.getvalue()


def unpacked(
    blob: bytes,
    tasks: Container[str] = TASKS,
    columns: Sequence[str] | None = None,
    kind: str = SAMPLES,
) -> pa.Table:
    """Rows of those tasks, in order of writing; numbers as float64. Other groups are not read.

    Raises: pyarrow.ArrowException, KeyError or OSError for bytes that are no shard.
    """
    shard, schema = pq.ParquetFile(pa.BufferReader(blob)), _wide(kind, columns)
    there, every = shard.schema_arrow.names, range(shard.num_row_groups)
    of = [shard.metadata.row_group(i).column(there.index("task")).statistics for i in every]
    groups = [i for i in every if not of[i] or of[i].min != of[i].max or of[i].min in tasks]
    held = [name if name in there else _ONCE.get(name, name) for name in schema.names]
    found = shard.read_row_groups(groups, columns=list(dict.fromkeys([*held, "task"])))
    mine = [task in tasks for task in found["task"].to_pylist()]
    found = found.filter(pa.array(mine, pa.bool_())).select(held)
    return found.rename_columns(schema.names).cast(schema)


def _wide(kind: str, columns: Sequence[str] | None) -> pa.Schema:
    kinds = dict(zip(SCHEMAS[kind].names, SCHEMAS[kind].types))
    return pa.schema([(name, _WIDE.get(kinds[name], kinds[name])) for name in columns or kinds])


def keys_of(table: pa.Table) -> list[str]:
    """Each row's key, from its columns KEYING."""
    rows = table.select(KEYING).to_pylist()
    return [key_of(row | {"prompt_ids": ids_of(row["prompt_ids"])}) for row in rows]


def ids_of(stored: bytes | list[int]) -> list[int]:
    """The token ids of a stored prompt."""
    return np.frombuffer(stored, "<i4").tolist() if isinstance(stored, bytes) else stored


# -- written and read


def append(ladder: str, rows: Iterable[Row], provenance: dict, kind: str = SAMPLES) -> Path:
    """Write one shard of one checkpoint (read-outs: in one form): all of its cells, or none.

    Raises: CrystalError if a cell is already there, a row is not sound, the disk refuses.
    """
    rows, made = list(rows), dict(provenance)
    ((model, revision),) = {(row.cell.model, row.cell.revision) for row in rows}
    facts = {"rows": len(rows), "tasks": sorted({row.cell.task for row in rows})}
    if kind == DRAWS:
        facts |= {"model": model, "revision": revision, "provenance": made}
    else:
        (form,) = {row.form for row in rows}
        when = {name: made.pop(name) for name in ("seconds", "created")}
        made["parts"] = [{"checkpoint": 0, "form": form, "rows": len(rows), **when}]
        facts |= {"forms": [form], "checkpoints": [[model, revision]], "provenance": [made]}
    blob, new = packed(table_of(rows, kind), kind), [row.cell.key for row in rows]
    there = functools.partial(keys, ladder, revision=revision, kind=kind)
    return manifest.write_new(ladder, kind, blob, facts, new, there)


def read(
    ladder: str,
    *,
    revision: str | None = None,
    tasks: Iterable[str] | None = None,
    columns: Sequence[str] | None = None,
    kind: str = SAMPLES,
) -> pa.Table:
    """Verified rows, in order of writing: SCHEMAS in float64. None = all.

    Only shards whose record can match are opened. Raises: CrystalError for a corrupt one.
    """
    wanted, schema = set(TASKS if tasks is None else tasks), _wide(kind, columns)
    names, parts = {*schema.names, "revision"}, [schema.empty_table()]
    for record in manifest.records(ladder, kind):
        held = {of for _, of in record.get("checkpoints", [(None, record.get("revision"))])}
        if (revision is None or revision in held) and wanted & set(record["tasks"]):
            found = _opened(ladder, record, kind, tasks=wanted, columns=sorted(names))
            if revision is not None:
                found = found.filter(pc.field("revision") == revision)
            parts.append(found.select(schema.names))
    return pa.concat_tables(parts)


def _opened(ladder: str, record: dict, kind: str, **which: Iterable[str]) -> pa.Table:
    """A shard's verified bytes, parsed. Raises: CrystalError if they are none of that kind."""
    blob = manifest.verified(ladder, record, kind)
    try:
        return unpacked(blob, kind=kind, **which)
    except (pa.ArrowException, KeyError, OSError) as error:
        held = "read-outs" if kind == SAMPLES else kind
        what = f"a shard holds no {held}: {' '.join(str(error).split())}"
        where = manifest.shard_path(ladder, record, kind)
        raise CrystalError(what, where=where, hint=manifest.hint(ladder, kind)) from error


def keys(ladder: str, *, revision: str | None = None, kind: str = SAMPLES) -> set[str]:
    """Keys of the cells that are there, of every revision or of one."""
    return set(keys_of(read(ladder, revision=revision, columns=KEYING, kind=kind)))


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
    return digest([repr(ladder), sorted(r["sha256"] for r in log)])


# -- today's read-outs


def load_readouts(
    name: str,
    *,
    tasks: Sequence[str] | None = None,
    forms: Sequence[str] | None = None,
    checkpoints: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Exact read-outs of current checkpoints, a row per cell, verified; None = all.

    In the order of checkpoints, forms, tasks (of crystal.ask.tasks), prompts. Columns: ladder,
    checkpoint, stage, step, parent, run, form, temperature, task, prompt (id), persona, template,
    half, probability (ndarray (K,), float64, unconditional), answered (their sum), invalid,
    residual, tokens. Left out: other revisions, tolerances and dtypes, an older reading rule,
    prompts reworded since.
    Raises: CrystalError for an unknown name, a corrupt shard, nothing found, or two read-outs.
    """
    ladder = load_ladder(name)
    forms = [known(form, ALL_FORMS, "form") for form in (ALL_FORMS if forms is None else forms)]
    tasks = [known(task, TASKS, "task") for task in (TASKS if tasks is None else tasks)]
    every = [c.name for c in ladder.checkpoints]
    wanted = every if checkpoints is None else [ladder.checkpoint(c).name for c in checkpoints]
    put = [(c, s) for c in ladder.checkpoints for s in situations(c.grid)]
    places = []
    for c, s in put:
        how = {"decoding": s.decoding.text, "temperature": s.decoding.temperature}
        places.append(placed(c, s.form, ladder.dtype, **how))
    prompts = {prompt.id: prompt for prompt in PROMPTS}
    for prompt in (prompt for _, s in put for prompt in s.prompts):
        prompts.setdefault(prompt.id, prompt)
    frame = today(name, places, tasks, prompts.values())
    frame = frame[frame["checkpoint"].isin(wanted) & frame["form"].isin(forms)]
    if frame.empty:
        what = f"no read-outs of {name} for tasks {', '.join(tasks)} in those forms and checkpoints"
        raise CrystalError(what, where=manifest.folder_of(name), hint=manifest.fill(name))
    orders = {"checkpoint": every, "form": ALL_FORMS, "task": TASKS, "prompt": prompts}
    orders["temperature"] = sorted({place["temperature"] for place in places})
    if (twice := frame.duplicated([*orders])).any():
        first = " ".join(map(str, frame.loc[twice, [*orders]].iloc[0]))
        what = f"two read-outs of {first}: by two tokenizers or config.json of the same weights"
        raise CrystalError(what, where=manifest.folder_of(name), hint=manifest.hint(name))
    ranks = {name: pd.Index([*order]).get_indexer for name, order in orders.items()}
    frame = frame.sort_values([*orders], key=lambda column: ranks[column.name](column))
    mass = [p.sum() for p in frame["probability"]]
    return frame.assign(ladder=name, answered=mass)[_COLUMNS].reset_index(drop=True)


def placed(c: Checkpoint, form: str, dtype: str, **more: object) -> dict[str, object]:
    """What `today` takes of a situation."""
    of = {name: getattr(c, name) for name in ("revision", "stage", "step", "parent", "run")}
    return of | {"model": c.source, "checkpoint": c.name, "form": form, "dtype": dtype} | more


def today(
    ladder: str,
    places: Sequence[Mapping[str, object]],
    tasks: Iterable[str],
    prompts: Iterable[Prompt | NaturalPrompt],
    kind: str = SAMPLES,
) -> pd.DataFrame:
    """What is stored of cells as they would be put today, with the fields of their places."""
    columns = [name for name in SCHEMAS[kind].names if name not in {*MADE[2:], "prompt_ids"}]
    frame = read(ladder, tasks=tasks, columns=columns, kind=kind).to_pandas()
    asked = _asked(tuple((n, task_sha256(TASKS[n])) for n in tasks), tuple(prompts))
    for one in (pd.DataFrame(places), asked):
        frame = frame.merge(one, on=[column for column in one if column in frame])
    return frame


@functools.lru_cache(maxsize=8)  # a page loads one ladder after another
def _asked(tasks: tuple[tuple[str, str], ...], prompts: tuple) -> pd.DataFrame:
    """Every prompt x form of the tasks: what a stored row must agree with or does not hold."""
    rows = [
        (task, sha256, form, p.id, _text(p, TASKS[task], form), p.persona, p.wording, p.half)
        for task, sha256 in tasks
        for form in ALL_FORMS
        for p in prompts
        if p.puts(TASKS[task])
    ]
    columns = "task task_sha256 form prompt text persona template half".split()
    return pd.DataFrame(rows, columns=columns)


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
    put = [(c, s) for c in ladder.checkpoints for s in situations(c.grid)]
    shipped = name in ladder_names()
    return looked_through(ladder, SAMPLES, wrong, put, PHASE_TASKS, shipped)


def looked_through(
    ladder: Ladder, kind: str, wrong: Callable, put: Sequence, tasks: Sequence[str], shipped: bool
) -> Report:
    """Read a whole log. wrong: of a shard; put: (checkpoint, situation) that should be there."""
    name, log = ladder.name, manifest.records(ladder.name, kind)
    place = ("model", "revision", "form", "decoding", "task", "prompt")
    problems, places, cells = [], set(), 0
    for record in log:
        try:
            found = _opened(name, record, kind)
        except CrystalError as error:
            problems.append(str(error))
            continue
        cells += len(found)
        same = found.filter(pc.field("dtype") == ladder.dtype)
        places.update(zip(*(same[column].to_pylist() for column in place)))
        where = f"({manifest.shard_path(name, record, kind)}). Hint: {manifest.hint(name, kind)}"
        problems += [f"{what} {where}" for what in wrong(found)]
    missing = [
        f"checkpoint {c.name}, {s.form}, task {task}, prompt {prompt.id}"
        for c, s in put
        for task in tasks
        for prompt in s.prompts
        if (c.source, c.revision, s.form, s.decoding.text, task, prompt.id) not in places
    ]
    size, unlisted = sum(record["bytes"] for record in log), manifest.unlisted(name, kind)
    return Report(name, kind, len(log), cells, size, missing, shipped, unlisted, tuple(problems))


def _are_distributions(table: pa.Table) -> bool:
    """Whether no row has a negative probability, and each sums to 1."""
    p = table["probability"].combine_chunks()
    parts, rows = p.flatten().to_numpy(), pc.list_parent_indices(p).to_numpy()
    masses = table["invalid"].to_numpy() + table["residual"].to_numpy()
    off = abs(np.bincount(rows, parts, len(table)) + masses - 1)
    return bool((parts >= 0).all() and (masses >= 0).all() and (off <= 2 * TOTAL).all())
