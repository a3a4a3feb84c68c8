"""Cells on disk: what was read in each, append-only, verified before anything is returned.

Rows go through `append` and come back through `load_readouts` and `answers`; `manifest` keeps the bytes.
Knows nothing of how cells are computed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .. import __version__
from ..ask.cells import KEYED, Cell, digest, key_of, task_sha256
from ..ask.grids import situations
from ..ask.ladders import Ladder, load_ladder
from ..ask.prompts import ALL_FORMS, PROMPTS, Prompt
from ..ask.tasks import TASKS
from ..errors import CrystalError, known
from ..files import root
from . import manifest

_PROMPT = {prompt.id: prompt for prompt in PROMPTS}
_SCHEMA = pa.schema(
    [pa.field(name, pa.string()) for name in ("key", *KEYED, "decoding", "form", "prompt", "text")]
    + [pa.field("prompt_ids", pa.list_(pa.int32())), pa.field("probability", pa.list_(pa.float64()))]
    + [pa.field("off_support", pa.float64()), pa.field("unresolved", pa.float64()), pa.field("tokens", pa.int64())]
)
_COLUMNS = [
    "ladder", "rung", "stage", "step", "parent", "run", "form", "temperature", "task", "prompt", "narrator", "frame", "half",
    "key", "probability", "off_support", "unresolved", "tokens",
]
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


@dataclass(frozen=True)
class Report:
    """What `verify` found."""

    ladder: str
    shards: int
    cells: int
    bytes: int
    missing: int  # of the rungs' grids x every task that was read anywhere in it
    unlisted: tuple[str, ...]  # files no manifest line names: left by a kill, never read, safe to delete
    problems: tuple[str, ...]  # sentences

    def __str__(self) -> str:
        said = f"{self.ladder}: {self.cells} cells in {self.shards} shards ({self.bytes / 2**20:.1f} MiB), {self.missing} missing"
        said += f", {len(self.unlisted)} unlisted files ({', '.join(self.unlisted)})" if self.unlisted else ""
        return "\n".join([said, *self.problems])


def producer(*, engine: str, device: str, dtype: str, seconds: float) -> dict:
    """Who computed a shard: versions, commit, device, engine, dtype, seconds of computing and the time in UTC."""
    return {
        "crystal": __version__, "commit": _commit(), "engine": engine, "device": device, "dtype": dtype,
        "seconds": round(seconds, 3),
        "versions": versions(), "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Of the packages a read-out depends on, as they are installed here."""
    return {name: _version(name) for name in ("torch", "transformers", "numpy")}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _commit() -> str:
    """The commit, with -dirty where tracked files differ from it; "unknown" outside a repository."""
    command = ["git", "-C", str(root()), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return "unknown"


def append(ladder: str, rows: Iterable[Row], producer: dict) -> Path:
    """Write one shard, durably: when it returns, the cells are there; when it raises or is killed, all or none of them are.

    All rows are of one model, revision and form. Waits while another process writes to the same ladder.
    Raises: CrystalError if a cell is already there (a cell is written at most once), if a law is not one,
    or if the disk refuses.
    """
    rows = list(rows)
    (model, revision, form), = {(row.cell.model, row.cell.revision, row.form) for row in rows}
    tasks = sorted({row.cell.task for row in rows})
    facts = {"rows": len(rows), "model": model, "revision": revision, "form": form, "tasks": tasks, "producer": producer}
    blob = _parquet(rows)
    try:
        with manifest.alone(ladder):
            _refuse_known(ladder, revision, [row.cell.key for row in rows])
            return manifest.write(ladder, blob, facts)
    except OSError as error:
        raise CrystalError(
            f"could not write {len(rows)} cells: {error.strerror or error}; none of them was kept",
            where=manifest.folder_of(ladder),
            mend=f"make room (or mend the permissions) there, then go on with make resample LADDER={ladder}",
        ) from error


def _refuse_known(ladder: str, revision: str, new: list[str]) -> None:
    twice = keys(ladder, revision=revision).intersection(new) or {key for key in new if new.count(key) > 1}
    if twice:
        raise CrystalError(
            f"{len(twice)} of {len(new)} cells would be there twice, first {min(twice)}", where=manifest.folder_of(ladder),
            mend=f"another process wrote them; go on with make resample LADDER={ladder}",
        )


def _parquet(rows: list[Row]) -> bytes:
    """Same cells, same bytes: no date, no machine. One row group per task, so that a reader of one task decodes only that.

    Probabilities are most of the bytes and do not repeat: split by byte, only the digits that `kept` leaves cost anything.
    """
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink, _SCHEMA, compression="zstd", compression_level=9, use_dictionary=False,
        use_byte_stream_split=["probability.list.element"], write_statistics=["task"],
    ) as writer:
        for task in dict.fromkeys(row.cell.task for row in rows):
            writer.write_table(pa.Table.from_pylist([_plain(row) for row in rows if row.cell.task == task], schema=_SCHEMA))
    return sink.getvalue()


def kept(law: np.ndarray, dtype: str) -> np.ndarray:
    """Probabilities as they are stored: those of a float32 model to float32's digits, 6e-8 of each, which halves the files.

    Another number of threads moves them by more. float64 again, so that sums do not round.
    """
    return law.astype(np.float32).astype(np.float64) if dtype == "float32" else law


def _plain(row: Row) -> dict:
    cell, task = row.cell, TASKS[known(row.cell.task, TASKS, "task")]
    law = np.asarray(row.probability, dtype=np.float64)
    total = law.sum() + row.off_support + row.unresolved
    fair = bool((law >= 0).all()) and row.off_support >= 0 and row.unresolved >= 0 and abs(total - 1) <= TOTAL  # False for NaN
    if law.shape != (len(task.options),) or not fair:
        raise CrystalError(
            f"not a law over the {len(task.options)} options of {task.name}: shape {law.shape}, total {total}",
            where=f"{cell.model}, {row.form}, prompt {row.prompt}", mend="see whether the weights hold NaN",
        )
    return {name: getattr(cell, name) for name in ("key", *KEYED)} | {
        "decoding": cell.decoding.text, "form": row.form, "prompt": row.prompt, "text": _PROMPT[row.prompt].text(task, row.form),
        "prompt_ids": cell.prompt_ids, "probability": kept(law, cell.dtype),
        "off_support": float(row.off_support), "unresolved": float(row.unresolved), "tokens": int(row.tokens),
    }


def read(
    ladder: str, *, revision: str | None = None, tasks: Sequence[str] | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """Verified raw rows of any decoding, in order of writing; empty where there are none; None = all.

    Only shards whose record can match are opened; each of those is hashed whole and parsed from the very bytes that were hashed.
    """
    wanted = set(TASKS if tasks is None else tasks)
    parts = [_SCHEMA.empty_table().select(columns or _SCHEMA.names)]
    for record in manifest.records(ladder):
        if (revision is None or revision == record["revision"]) and wanted & set(record["tasks"]):
            shard = pq.ParquetFile(pa.BufferReader(manifest.verified(ladder, record)))
            groups = [group for group in range(shard.num_row_groups) if _task_of(shard, group) in wanted]
            parts.append(shard.read_row_groups(groups, columns=columns))
    return pa.concat_tables(parts)


def _task_of(shard: pq.ParquetFile, group: int) -> str:
    """The one task of a row group, from its statistics."""
    return shard.metadata.row_group(group).column(_SCHEMA.get_field_index("task")).statistics.min


def keys(ladder: str, *, revision: str | None = None) -> set[str]:
    """Keys of the cells that are there, of every revision or of one."""
    return set(read(ladder, revision=revision, columns=["key"])["key"].to_pylist())


def load_readouts(
    name: str, *, tasks: Sequence[str] | None = None, forms: Sequence[str] | None = None,
    rungs: Sequence[str] | None = None, budget: float | None = None,
) -> pd.DataFrame:
    """Exact read-outs of the ladder's current checkpoints, verified; one row per cell; None = all.

    budget: other than that of the rungs' grids. Columns: ladder, rung, stage, step, parent, run, form, temperature, task,
    prompt (id), narrator, frame, half, key, probability (ndarray (K,), unconditional), off_support, unresolved, tokens.
    Rows in the order of rungs, forms, tasks (of crystal.ask.tasks), prompts.
    Left out: other revisions, budgets and dtypes, an older reading rule, prompts whose wording has changed since.
    Raises: CrystalError for an unknown name, a corrupt or missing shard, nothing found, or two read-outs of one situation.
    """
    ladder = load_ladder(name)
    forms = [known(form, ALL_FORMS, "form") for form in (ALL_FORMS if forms is None else forms)]
    tasks = [known(task, TASKS, "task") for task in (TASKS if tasks is None else tasks)]
    rungs = [ladder.rung(rung).name for rung in rungs] if rungs is not None else [rung.name for rung in ladder.rungs]
    frame = _current(read(name, tasks=tasks), ladder, tasks, budget)
    frame = frame[frame["rung"].isin(rungs) & frame["form"].isin(forms)]
    if frame.empty:
        what = f"no read-outs of {name} for tasks {', '.join(tasks)} in the forms and rungs asked for"
        raise CrystalError(what, where=manifest.folder_of(name), mend=f"make resample LADDER={name}")
    orders = {"rung": [rung.name for rung in ladder.rungs], "form": ALL_FORMS, "task": list(TASKS), "prompt": list(_PROMPT)}
    place = [*orders, "temperature"]
    if (twice := frame.duplicated(place)).any():
        raise CrystalError(
            f"two read-outs of {' '.join(map(str, frame.loc[twice, place].iloc[0]))}: by two tokenizers or config.json of the "
            "same weights",
            where=manifest.folder_of(name), mend=manifest.mend(name),
        )
    ranks = {name: {value: i for i, value in enumerate(order)} for name, order in orders.items()}
    return frame.sort_values(place, key=lambda column: column.map(ranks.get(column.name, lambda x: x)), ignore_index=True)


def _current(table: pa.Table, ladder: Ladder, tasks: Sequence[str], budget: float | None) -> pd.DataFrame:
    """The rows that today's ladder, grids, tasks, prompts and budget would write again, joined with their rungs."""
    frame = table.filter(pc.field("dtype") == ladder.dtype).drop_columns(["prompt_ids", "dtype"]).to_pandas()
    rungs = [
        {"model": rung.source, "revision": rung.revision, "rung": rung.name, "stage": rung.stage, "step": rung.step,
         "parent": rung.parent, "run": rung.run, "form": s.form, "decoding": s.decoding.text,
         "temperature": s.decoding.temperature}
        for rung in ladder.rungs for s in situations(rung.grid, budget)
    ]
    for today in (rungs, _situations(tasks)):
        today = pd.DataFrame(today)
        frame = frame.merge(today, on=[column for column in today if column in frame])
    return frame.assign(ladder=ladder.name)[_COLUMNS]


def _situations(tasks: Iterable[str]) -> list[dict]:
    """Every prompt x form of the tasks: what a stored row must agree with, and what it does not hold itself."""
    return [
        {"task": task, "task_sha256": sha256, "form": form, "prompt": prompt.id, "text": prompt.text(TASKS[task], form),
         "narrator": prompt.narrator, "frame": prompt.frame.name, "half": prompt.half}
        for task, sha256 in ((task, task_sha256(TASKS[task])) for task in tasks) for form in ALL_FORMS for prompt in PROMPTS
    ]


def answers(
    frame: pd.DataFrame, rung: str, task: str, form: str | None = None, *, prompts: Sequence[Prompt] = PROMPTS,
    temperature: float = 1.0,
) -> np.ndarray:
    """Shape (prompts, options): how `rung` answers `task`, conditional on answering with an option; rows in the order of prompts.

    frame: of one ladder, from `load_readouts`. form=None: the rung's native form, raw text for a base, chat once tuned.
    The mass that was divided out stands in the frame beside it (off_support, unresolved).
    Raises: CrystalError if any of the prompts is missing or gives no option any mass.
    """
    ladder, *others = frame["ladder"].unique()
    rows = frame[(frame["rung"] == rung) & (frame["task"] == task)]
    form = form or ("completion" if set(rows["stage"]) == {"base"} else "chat")
    where = f"{ladder}, rung {rung}, task {task}, form {form}"
    if others:
        raise CrystalError("the frame holds several ladders", where=where, mend="select one: frame[frame.ladder == ...]")
    rows, wanted = rows[(rows["form"] == form) & (rows["temperature"] == temperature)], [prompt.id for prompt in prompts]
    laws = dict(zip(rows["prompt"], rows["probability"], strict=True))
    if absent := [prompt for prompt in wanted if prompt not in laws]:
        what = f"{len(absent)} of {len(wanted)} prompts are missing, first {absent[0]}"
        raise CrystalError(what, where=where, mend=f"make resample LADDER={ladder}")
    table = np.stack([laws[prompt] for prompt in wanted])
    mass = table.sum(axis=1, keepdims=True)
    if (mass <= 0).any():
        what = f"prompt {wanted[mass.argmin()]} gives no option any mass"
        raise CrystalError(what, where=where, mend="choose another task or form")
    return table / mass


def manifest_digest(name: str) -> str:
    """One hash over the ladder's description and the shards that belong to its current checkpoints, for page freshness.

    Light: reads yaml and manifest, no shard. Order of writing, dates and machines do not count.
    """
    ladder = load_ladder(name)
    current = {(rung.source, rung.revision) for rung in ladder.rungs}
    shards = sorted(r["sha256"] for r in manifest.records(name) if (r["model"], r["revision"]) in current)
    return digest([repr(ladder), shards])


def verify(name: str) -> Report:
    """Read everything: checksums, hashes, that each stored cell has the key it claims, and what is missing of the grid.

    Raises: CrystalError for a corrupt manifest, whose shards cannot be told; a corrupt shard is a problem in the report.
    """
    ladder, records, problems, places = load_ladder(name, unpinned=True), manifest.records(name), [], {}
    for record in records:
        try:
            shard = pq.ParquetFile(pa.BufferReader(manifest.verified(name, record)))
        except CrystalError as error:
            problems.append(str(error))
            continue
        for row in shard.read().drop_columns(["text", "probability"]).to_pylist():
            key = key_of(row)
            if key != row["key"] or key in places:
                what = "is there twice" if key in places else f"should have the key {key}"
                problems.append(f"cell {row['key']} {what} ({manifest.shard_path(name, record)}). Mend: {manifest.mend(name)}")
            places[key] = (row["model"], row["revision"], row["form"], row["decoding"], row["task"], row["prompt"])
    return Report(
        ladder=name, shards=len(records), cells=len(places), bytes=sum(record["bytes"] for record in records),
        missing=_missing(ladder, set(places.values())), unlisted=manifest.unlisted(name), problems=tuple(problems),
    )


def _missing(ladder: Ladder, places: set[tuple]) -> int:
    tasks = {place[4] for place in places}
    return sum(
        (rung.source, rung.revision, s.form, s.decoding.text, task, prompt.id) not in places
        for rung in ladder.rungs for s in situations(rung.grid) for task in tasks for prompt in s.prompts
    )
