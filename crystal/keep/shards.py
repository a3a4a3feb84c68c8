"""A shard: the rows of many cells as the bytes of one parquet file, and back.

One row group per task, so that a reader of one task decodes only that. Probabilities are most of
the bytes and do not repeat: float32 (another number of threads moves them by more), split by byte.
Everything else repeats from cell to cell and is dictionary-encoded; what follows from the rest (the
cell's key) is not stored. Knows nothing of where the bytes lie.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..ask.cells import KEYED, Cell, key_of
from ..ask.grids import prompt_of
from ..ask.prompts import joined
from ..ask.tasks import TASKS
from ..errors import CrystalError, known

_TEXTS = (*KEYED, "decoding", "form", "prompt", "text")
_MASSES = ("off_support", "unresolved")
SCHEMA = pa.schema(
    [pa.field(name, pa.string()) for name in _TEXTS]
    + [pa.field("prompt_ids", pa.binary())]  # int32, little-endian
    + [pa.field("tokens", pa.int32())]
    + [pa.field("probability", pa.list_(pa.float32()))]
    + [pa.field(name, pa.float32()) for name in _MASSES]
)
_WIDE = {"probability": pa.list_(pa.float64())} | dict.fromkeys(_MASSES, pa.float64())
KEYING = (*KEYED, "decoding", "prompt_ids")  # the columns that make a cell's key
TOTAL = 1e-6  # how far a stored law may be from summing to 1


class Row(NamedTuple):
    """One cell and what was read in it."""

    cell: Cell
    form: str
    prompt: str  # id of a prompt
    probability: np.ndarray  # (options,), unconditional
    off_support: float  # probability of answers that are no option
    unresolved: float  # probability not expanded
    tokens: int  # that it needs, those of its prompt among them


def table_of(rows: Iterable[Row]) -> pa.Table:
    """Rows in SCHEMA. Raises: CrystalError for a law that is not one."""
    return pa.Table.from_pylist([_plain(row) for row in rows], schema=SCHEMA)


def _plain(row: Row) -> dict:
    cell, task = row.cell, TASKS[known(row.cell.task, TASKS, "task")]
    prompt = prompt_of(row.prompt)
    law = np.asarray(row.probability, dtype=np.float64)
    total = law.sum() + row.off_support + row.unresolved
    least = min(law.min(initial=0), row.off_support, row.unresolved)
    fair = least >= 0 and abs(total - 1) <= TOTAL  # False for NaN
    if law.shape != (len(task.options),) or not fair:
        raise CrystalError(
            f"not a law over the {len(task.options)} options of {task.name}: "
            f"shape {law.shape}, total {total}",
            where=f"{cell.model}, {row.form}, prompt {row.prompt}",
            mend="see whether the weights hold NaN",
        )
    return {name: getattr(cell, name) for name in KEYED} | {
        "decoding": cell.decoding.text, "form": row.form, "prompt": row.prompt,
        "text": joined(prompt.text(task, row.form), prompt.reply(task)), "tokens": int(row.tokens),
        "prompt_ids": np.asarray(cell.prompt_ids, "<i4").tobytes(),
        "probability": law.astype(np.float32), "off_support": row.off_support,
        "unresolved": row.unresolved,
    }


def packed(table: pa.Table) -> bytes:
    """The shard's bytes: no date, no machine; the same rows give the same bytes."""
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink, SCHEMA, compression="zstd", compression_level=9,
        use_dictionary=[*_TEXTS, "prompt_ids", "tokens"], write_statistics=["task"],
        use_byte_stream_split=["probability.list.element", *_MASSES],
    ) as writer:
        for task in table["task"].unique().to_pylist():
            writer.write_table(table.filter(pc.field("task") == task))
    return sink.getvalue()


def unpacked(
    blob: bytes, tasks: Iterable[str] = TASKS, columns: Sequence[str] | None = None
) -> pa.Table:
    """Rows of those tasks, in order of writing; numbers as float64.

    Raises: pyarrow.ArrowException, KeyError or OSError for bytes that are no shard.
    """
    shard, wanted = pq.ParquetFile(pa.BufferReader(blob)), set(tasks)
    groups = [group for group in range(shard.num_row_groups) if _task_of(shard, group) in wanted]
    names = SCHEMA.names if columns is None else columns
    return shard.read_row_groups(groups, columns=list(names)).select(names).cast(_read_as(names))


def _task_of(shard: pq.ParquetFile, group: int) -> str:
    """The one task of a row group, from its statistics."""
    column = shard.schema_arrow.get_field_index("task")
    return shard.metadata.row_group(group).column(column).statistics.min


def _read_as(names: Sequence[str]) -> pa.Schema:
    return pa.schema([pa.field(name, _WIDE.get(name, SCHEMA.field(name).type)) for name in names])


def empty(columns: Sequence[str] | None = None) -> pa.Table:
    """No rows."""
    return _read_as(SCHEMA.names if columns is None else columns).empty_table()


def keys_of(table: pa.Table) -> list[str]:
    """Each row's key, from its columns KEYING."""
    rows = table.select(KEYING).to_pylist()
    return [key_of(row | {"prompt_ids": ids_of(row["prompt_ids"])}) for row in rows]


def ids_of(stored: bytes) -> tuple[int, ...]:
    """Token ids of a prompt, from its column."""
    return tuple(np.frombuffer(stored, "<i4").tolist())
