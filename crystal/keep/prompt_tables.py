"""The prompts as a table, for whoever puts them to a model with another framework.

A row is one prompt of one task in one form. Whoever runs it gives the model `text`, in the chat
form as a user's message, and begins its answer with `reply`; raw text and reply are joined by a
space where the text does not end in white space.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..ask.natural import load_prompts
from ..ask.prompts import FORMS, PROMPTS
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError
from ..files import mend_of, write_file

COLUMNS = ("task", "form", "prompt", "unit", "half", "text", "reply")


def table(kind: str) -> pd.DataFrame:
    """COLUMNS of every closed task, form and prompt. kind: "natural" or "world".

    unit: what may not be counted as independent evidence twice: the context, or the narrator.
    """
    prompts = load_prompts() if kind == "natural" else PROMPTS
    rows = [
        (task, form, p.id, p.unit, p.half, p.text(TASKS[task], form), p.reply(TASKS[task]))
        for task in PHASE_TASKS for form in FORMS for p in prompts
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write(frame: pd.DataFrame, out: str) -> Path:
    """Write the table. Raises: CrystalError for another ending than .csv, or a refused file."""
    path = Path(out)
    if path.suffix != ".csv":
        raise CrystalError("the table is written as .csv", where=path, mend="--out prompts.csv")
    try:
        write_file(path, frame.to_csv(index=False, lineterminator="\n").encode())
    except OSError as error:
        what = f"the table cannot be written: {error.strerror or error}"
        raise CrystalError(what, where=path, mend=mend_of(error, path)) from error
    return path
