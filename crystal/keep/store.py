"""Cells on disk: what was read in each, append-only, verified before anything is returned.

Rows go through `append` and come back through `load_readouts`; `shards` makes bytes
of them, `manifest` keeps the bytes. Knows nothing of how cells are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..ask.cells import digest, task_sha256
from ..ask.grids import situations
from ..ask.ladders import Ladder, ladder_names, load_ladder
from ..ask.natural import NaturalPrompt
from ..ask.prompts import ALL_FORMS, PROMPTS, Prompt, joined
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError, known
from . import manifest, shards
from .report import Report
from .shards import Row

_COLUMNS = [
    "ladder", "rung", "stage", "step", "parent", "run", "form", "temperature", "task", "prompt",
    "narrator", "frame", "half", "probability", "answered", "off_support", "unresolved", "tokens",
]


def append(ladder: str, rows: Iterable[Row], producer: dict) -> Path:
    """Write one shard, durably: whenever it is killed, all of its cells are there, or none.

    All rows are of one model, revision and form. Waits while another process writes to the same
    ladder.
    Raises: CrystalError if a cell is already there (a cell is written at most once), if a law is
    not one, or if the disk refuses.
    """
    rows = list(rows)
    (model, revision, form), = {(row.cell.model, row.cell.revision, row.form) for row in rows}
    part = {"checkpoint": 0, "form": form, "rows": len(rows)}
    part |= {name: producer[name] for name in ("seconds", "created")}
    made = {name: value for name, value in producer.items() if name not in part} | {"parts": [part]}
    facts = {"rows": len(rows), "tasks": sorted({row.cell.task for row in rows}), "forms": [form],
             "checkpoints": [[model, revision]], "producers": [made]}
    blob = shards.packed(shards.table_of(rows))
    try:
        with manifest.alone(ladder):
            _refuse_known(ladder, revision, [row.cell.key for row in rows])
            return manifest.write(ladder, blob, facts)
    except OSError as error:
        raise manifest.refused(error, f"{len(rows)} cells", ladder) from error


def _refuse_known(ladder: str, revision: str, new: list[str]) -> None:
    twice = keys(ladder, revision=revision).intersection(new)
    twice = twice or {key for key in new if new.count(key) > 1}
    if twice:
        raise CrystalError(
            f"{len(twice)} of {len(new)} cells would be there twice, first {min(twice)}",
            where=manifest.folder_of(ladder),
            mend=f"another process wrote them; go on with make resample LADDER={ladder}",
        )


def read(
    ladder: str, *, revision: str | None = None, tasks: Iterable[str] | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Verified rows of any decoding, in order of writing: `shards.SCHEMA` in float64. None = all.

    Only shards whose record can match are opened; each of those is hashed whole and parsed from the
    very bytes that were hashed.
    Raises: CrystalError for a corrupt manifest or shard.
    """
    wanted, parts = set(TASKS if tasks is None else tasks), [shards.empty(columns)]
    names = columns and [*columns, *{"revision"}.difference(columns)]
    for record in manifest.records(ladder):
        held = revision is None or revision in [of for _, of in record["checkpoints"]]
        if held and wanted & set(record["tasks"]):
            found = _opened(ladder, record, wanted, names)
            if revision is not None:
                found = found.filter(pc.field("revision") == revision)
            parts.append(found.select(parts[0].column_names))
    return pa.concat_tables(parts)


def _opened(
    ladder: str, record: dict, tasks: Iterable[str] = TASKS, columns: Sequence[str] | None = None,
) -> pa.Table:
    blob = manifest.verified(ladder, record)
    try:
        return shards.unpacked(blob, tasks, columns)
    except (pa.ArrowException, KeyError, OSError) as error:
        what = f"a shard holds no read-outs: {' '.join(str(error).split())}"
        where = manifest.shard_path(ladder, record)
        raise CrystalError(what, where=where, mend=manifest.mend(ladder)) from error


def keys(ladder: str, *, revision: str | None = None) -> set[str]:
    """Keys of the cells that are there, of every revision or of one."""
    return set(shards.keys_of(read(ladder, revision=revision, columns=shards.KEYING)))


def produced(ladder: str) -> list[dict]:
    """Who computed what: a dict for every part that was written at a time.

    model, revision, form, rows, seconds, created; crystal, commit, engine, device, dtype, versions.
    """
    found = []
    for record in manifest.records(ladder):
        for made in record["producers"]:
            for part in made["parts"]:
                model, revision = record["checkpoints"][part["checkpoint"]]
                found.append({**made, **part, "model": model, "revision": revision})
    return found


def load_readouts(
    name: str, *, tasks: Sequence[str] | None = None, forms: Sequence[str] | None = None,
    rungs: Sequence[str] | None = None, budget: float | None = None,
) -> pd.DataFrame:
    """Exact read-outs of the ladder's current checkpoints, verified; one row per cell; None = all.

    budget: other than that of the rungs' grids. Columns: ladder, rung, stage, step, parent, run,
    form, temperature, task, prompt (id), narrator, frame, half, probability (ndarray (K,), float64,
    unconditional), answered (their sum), off_support, unresolved, tokens.
    Rows in the order of rungs, forms, tasks (of crystal.ask.tasks), prompts.
    Left out: other revisions, budgets and dtypes, an older reading rule, prompts reworded since.
    Raises: CrystalError for an unknown name, a corrupt or missing shard, nothing found, or two
    read-outs of one situation.
    """
    ladder = load_ladder(name)
    forms = [known(form, ALL_FORMS, "form") for form in (ALL_FORMS if forms is None else forms)]
    tasks = [known(task, TASKS, "task") for task in (TASKS if tasks is None else tasks)]
    every = [rung.name for rung in ladder.rungs]
    rungs = every if rungs is None else [ladder.rung(rung).name for rung in rungs]
    frame = _current(_stored(ladder, tasks), ladder, tasks, budget)
    frame = frame[frame["rung"].isin(rungs) & frame["form"].isin(forms)]
    if frame.empty:
        what = f"no read-outs of {name} for tasks {', '.join(tasks)} in those forms and rungs"
        raise CrystalError(what, where=manifest.folder_of(name), mend=manifest.fill(name))
    prompts = [prompt.id for prompt in _prompts(ladder)]
    orders = {"rung": every, "form": ALL_FORMS, "task": list(TASKS), "prompt": prompts}
    place = [*orders, "temperature"]
    if (twice := frame.duplicated(place)).any():
        first = " ".join(map(str, frame.loc[twice, place].iloc[0]))
        raise CrystalError(
            f"two read-outs of {first}: by two tokenizers or config.json of the same weights",
            where=manifest.folder_of(name), mend=manifest.mend(name),
        )
    ranks = {name: {value: i for i, value in enumerate(order)} for name, order in orders.items()}
    return frame.sort_values(
        place, key=lambda column: column.map(ranks.get(column.name, lambda x: x)), ignore_index=True
    )


def _stored(ladder: Ladder, tasks: Sequence[str]) -> pa.Table:
    """Rows of the ladder's dtype and current checkpoints, without what only a key needs."""
    columns = ["model", "revision", "dtype", "task_sha256", "text", "decoding",
               *(name for name in _COLUMNS if name in shards.SCHEMA.names)]
    table = read(ladder.name, tasks=tasks, columns=columns)
    current = pa.array([rung.revision for rung in ladder.rungs])
    same = (pc.field("dtype") == ladder.dtype) & pc.field("revision").isin(current)
    return table.filter(same).drop_columns(["dtype"])


def _current(
    table: pa.Table, ladder: Ladder, tasks: Sequence[str], budget: float | None,
) -> pd.DataFrame:
    """The rows that today's grids, tasks, prompts and budget would write again, with rungs."""
    frame = table.to_pandas()
    rungs = [
        {"model": rung.source, "revision": rung.revision, "rung": rung.name, "stage": rung.stage,
         "step": rung.step, "parent": rung.parent, "run": rung.run, "form": s.form,
         "decoding": s.decoding.text, "temperature": s.decoding.temperature}
        for rung in ladder.rungs for s in situations(rung.grid, budget)
    ]
    for today in (rungs, _situations(tasks, _prompts(ladder))):
        today = pd.DataFrame(today)
        frame = frame.merge(today, on=[column for column in today if column in frame])
    mass = [float(law.sum()) for law in frame["probability"]]
    return frame.assign(ladder=ladder.name, answered=mass)[_COLUMNS]


def _prompts(ladder: Ladder) -> list[Prompt | NaturalPrompt]:
    """PROMPTS, then whatever else a rung's grid puts, each once."""
    every = {prompt.id: prompt for prompt in PROMPTS}
    for prompt in (p for rung in ladder.rungs for s in situations(rung.grid) for p in s.prompts):
        every.setdefault(prompt.id, prompt)
    return list(every.values())


def _situations(tasks: Iterable[str], prompts: Iterable[Prompt | NaturalPrompt]) -> list[dict]:
    """Every prompt x form of the tasks: what a stored row must agree with or does not hold."""
    hashes = {task: task_sha256(TASKS[task]) for task in tasks}
    return [
        {"task": task, "task_sha256": sha256, "form": form, "prompt": prompt.id,
         "text": joined(prompt.text(TASKS[task], form), prompt.reply(TASKS[task])),
         "narrator": prompt.narrator, "frame": prompt.wording, "half": prompt.half}
        for task, sha256 in hashes.items() for form in ALL_FORMS for prompt in prompts
        if prompt.puts(TASKS[task])
    ]


def manifest_digest(name: str) -> str:
    """One hash over a ladder's description and its current checkpoints' shards, for freshness.

    Light: reads yaml and manifest, no shard. Order of writing, dates and machines do not count.
    """
    ladder = load_ladder(name)
    current = {(rung.source, rung.revision) for rung in ladder.rungs}
    shards = sorted(record["sha256"] for record in manifest.records(name)
                    if current & set(map(tuple, record["checkpoints"])))
    return digest([repr(ladder), shards])


def verify(name: str) -> Report:
    """Read everything: checksums, hashes, laws, each cell once, one tokenizer, and what is missing.

    What must be there: the rungs' grids x PHASE_TASKS. A ladder of the hub may be read in part,
    while its reader is at it; every other ladder ships whole.
    Raises: CrystalError for a corrupt manifest, whose shards cannot be told; a corrupt shard is a
    problem in the report.
    """
    ladder, records, problems = load_ladder(name, unpinned=True), manifest.records(name), []
    cells, places, made, count = set(), set(), {}, 0
    for record in records:
        try:
            found = _opened(name, record)
        except CrystalError as error:
            problems.append(str(error))
            continue
        wrong = [_unlike(record, found), _no_laws(found)]
        new = set(zip(*(found[column].to_pylist() for column in shards.KEYING), strict=True))
        if len(new) < len(found) or new & cells:
            wrong.append("cells are there twice")
        count, cells = count + len(found), cells | new
        places.update(zip(*(found[column].to_pylist() for column in _PLACE), strict=True))
        where = manifest.shard_path(name, record)
        for pair in found.group_by(list(_MADE)).aggregate([]).to_pylist():
            model, revision, *by = pair.values()
            if made.setdefault((model, revision), by) != by:
                wrong.append(f"cells of {model} were read with two tokenizers or config.json")
        problems += [f"{what} ({where}). Mend: {manifest.mend(name)}" for what in wrong if what]
    missing = [place for place in _grid(ladder) if place not in places]
    return Report(
        ladder=name,
        shards=len(records),
        cells=count,
        bytes=sum(record["bytes"] for record in records),
        missing=len(missing),
        first=_named(ladder, missing[0]) if missing else "",
        shipped=name in ladder_names(),
        unlisted=manifest.unlisted(name),
        problems=tuple(problems),
    )


_MADE = ("model", "revision", "config_sha256", "tokenizer_revision")
_PLACE = ("model", "revision", "dtype", "form", "decoding", "task", "prompt")


def _grid(ladder: Ladder) -> list[tuple]:
    """Every place, as the columns _PLACE have it, that the description asks for."""
    return [
        (rung.source, rung.revision, ladder.dtype, s.form, s.decoding.text, task, prompt.id)
        for rung in ladder.rungs for s in situations(rung.grid) for task in PHASE_TASKS
        for prompt in s.prompts
    ]


def _named(ladder: Ladder, place: tuple) -> str:
    rung = next(rung.name for rung in ladder.rungs if (rung.source, rung.revision) == place[:2])
    return f"rung {rung}, {place[3]}, task {place[5]}, prompt {place[6]}"


def _unlike(record: dict, table: pa.Table) -> str | None:
    """How the rows of a shard differ from what its record says of them."""
    pairs = table.group_by(["model", "revision"]).aggregate([]).to_pylist()
    found = {
        "tasks": table["task"].unique().to_pylist(),
        "forms": table["form"].unique().to_pylist(),
        "checkpoints": [list(pair.values()) for pair in pairs],
    }
    wrong = [name for name, values in found.items() if sorted(record[name]) != sorted(values)]
    wrong += ["rows"] if record["rows"] != len(table) else []
    return f"a shard's {wrong[0]} are not what the manifest says of them" if wrong else None


def _no_laws(table: pa.Table) -> str | None:
    """Whether a row's probabilities are negative or do not sum to 1."""
    laws = table["probability"].combine_chunks()
    sizes, parts = laws.value_lengths().to_numpy(), laws.flatten().to_numpy()
    ends = np.cumsum(sizes)
    sums = np.concatenate([[0], np.cumsum(parts)])
    masses = table["off_support"].to_numpy() + table["unresolved"].to_numpy()
    totals = sums[ends] - sums[ends - sizes] + masses
    fair = (
        (parts >= 0).all() and (masses >= 0).all() and (abs(totals - 1) <= 2 * shards.TOTAL).all()
    )
    return None if fair else "a stored law is none: it is negative somewhere, or does not sum to 1"
