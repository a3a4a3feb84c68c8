"""Drawn answers to closed tasks as one table of counts: what a ladder says where its laws cannot be read out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pandas as pd

from ..ask.cells import task_sha256
from ..ask.ladders import load_ladder
from ..ask.prompts import NARRATORS, PROMPTS
from ..ask.tasks import TASKS, read
from ..errors import CrystalError
from ..files import mend_of, write_file
from ..texts import cell
from . import drawn, manifest

COLUMNS = ("ladder", "stage", "task", "prompt", "unit", "option", "count")
_PROMPT = {prompt.id: prompt for prompt in PROMPTS}


def counts(name: str, *, form: str | None = None, dtype: str | None = None) -> pd.DataFrame:
    """Counts of answers by the stage ends of a ladder: COLUMNS, a row per option, ordered by stage, task, prompt, option.

    unit: the narrator. An empty option counts the answers that are none of them. Options nobody drew have count 0.
    form: None is each rung's own; dtype: None is the ladder's. All draws of a situation at temperature 1 are added up,
    whoever drew them: each lot has randomness of its own. Left out: as in `drawn.load_draws`.
    Raises: CrystalError for an unknown name, a corrupt or missing shard, or where there are no such draws.
    """
    ladder = load_ladder(name)
    ends = {(rung.source, rung.revision): rung for rung in ladder.ends} if ladder.kind == "ladder" else {}
    hashes = {task.name: task_sha256(task) for task in TASKS.values() if task.closed}
    found: dict[tuple[str, str, str], Counter[str]] = {}
    for row in drawn.rows(name):
        rung, task, prompt = ends.get((row["model"], row["revision"])), row["task"], _PROMPT.get(row["prompt"])
        if rung is None or prompt is None or row["task_sha256"] != hashes.get(task) or row["dtype"] != (dtype or ladder.dtype):
            continue
        today = (form or rung.native_form, prompt.text(TASKS[task], row["form"]), 1.0)
        if (row["form"], row["text"], json.loads(row["decoding"])["temperature"]) == today:
            said = found.setdefault((rung.name, task, prompt.id), Counter())
            for text, count in zip(row["texts"], row["counts"], strict=True):
                said[read(text, TASKS[task]) or ""] += count
    if not found:
        raise CrystalError(f"no draws of {name}'s closed tasks in that form and dtype",
                           where=manifest.folder_of(name, manifest.DRAWS), mend=f"crystal draw {name} --server URL --model NAME")
    table = [(name, rung.name, task, prompt, NARRATORS[_PROMPT[prompt].narrator], option, said[option])
             for rung in ends.values() for task in hashes for prompt in _PROMPT
             if (said := found.get((rung.name, task, prompt))) is not None for option in (*TASKS[task].options, "")]
    return pd.DataFrame(table, columns=list(COLUMNS))


def write(frame: pd.DataFrame, path: str | Path) -> Path:
    """Write the table as .csv or .parquet, whole or not at all; returns the path. Raises: CrystalError for another ending."""
    path, safe = Path(path), frame.map(cell)
    if path.suffix not in (".csv", ".parquet"):
        raise CrystalError("a table is written as .csv or .parquet", where=path, mend=f"--out {path.with_suffix('.csv')}")
    try:
        write_file(
            path,
            safe.to_csv(index=False).encode()
            if path.suffix == ".csv"
            else frame.to_parquet(index=False),
        )
    except OSError as error:
        near = path if path.parent.is_dir() else path.parent
        mend = mend_of(error, near) if path.parent.is_dir() else f"mkdir -p {near}"
        what = f"could not write the table: {error.strerror or error}"
        raise CrystalError(what, where=path, mend=f"{mend}, or say another --out") from error
    return path
