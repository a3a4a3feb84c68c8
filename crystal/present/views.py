"""Read-outs of several ladders as the pages need them: checked, in one frame, with the mass that is on no option kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from ..ask.ladders import KINDS, hub_names, ladder_names, load_ladder
from ..ask.prompts import PROMPTS
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError, known
from ..keep.store import load_readouts
from .answering import unconditional

NATIVE = (("base", "completion"), ("sft", "chat"), ("dpo", "chat"), ("rlvr", "chat"))  # rung, form
LEFTOVER = ("off-support", "unresolved")


def read_ladders(ladders: Sequence[str], **which) -> pd.DataFrame:
    """Read-outs of several ladders in one frame; `which` as in `store.load_readouts` (tasks, forms, rungs).

    Raises: CrystalError for no ladder, a ladder named twice, a task without a list of options, and as the store does.
    """
    if not ladders or len(set(ladders)) < len(ladders):
        raise CrystalError(f"ladders are {list(ladders)!r}: none, or one named twice",
                           mend=f"choose from: {', '.join([*ladder_names(), *hub_names()])}")
    for task in which.get("tasks") or ():
        if not TASKS[known(task, TASKS, "task")].closed:
            raise CrystalError(f"task {task!r} is open: it has no list of options to compare laws over",
                               mend=f"choose one of: {', '.join(PHASE_TASKS)}")
    return pd.concat([load_readouts(name, **which) for name in ladders], ignore_index=True)


def check_read(ladders: Sequence[str]) -> None:
    """Do nothing if every ladder's four stages were read in their native forms, every task and prompt of the phase pages.

    Raises: CrystalError for an unknown or unpinned ladder, an experiment, one named twice, or whatever was not read.
    """
    for name in ladders:
        if (kind := load_ladder(name).kind) != "ladder":
            what = f"{name} is {KINDS[kind]}, and the pages show ladders: base, sft, dpo, rlvr"
            raise CrystalError(what, mend=f"choose from: {', '.join([*ladder_names(), *hub_names()])}")
    read = read_ladders(ladders, tasks=PHASE_TASKS, rungs=[rung for rung, _ in NATIVE])
    read = read[(read["form"] == read["rung"].map(dict(NATIVE))) & (read["temperature"] == 1.0)]
    for name in ladders:
        whole, found = len(NATIVE) * len(PHASE_TASKS) * len(PROMPTS), int((read["ladder"] == name).sum())
        if found < whole:
            raise CrystalError(f"{whole - found} of the {whole} read-outs that the pages need are missing", where=name,
                               mend=f"make resample LADDER={name}")


def each_ladder(readouts: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, its read-outs) of every ladder, in the order given."""
    for name in readouts["ladder"].unique():
        yield name, readouts[readouts["ladder"] == name]


def was_read(readouts: pd.DataFrame, rung: str, form: str) -> bool:
    """Whether a ladder's rung was read in that form at all."""
    return bool(((readouts["rung"] == rung) & (readouts["form"] == form)).any())


def given(readouts: pd.DataFrame, rung: str, form: str, task: str) -> np.ndarray:
    """(prompts, options + 2): unconditional probabilities, off-support, unresolved, in PROMPTS order; rows sum to 1."""
    laws = unconditional(readouts, rung, task, form)  # raises where a prompt is missing
    rows = readouts[(readouts["rung"] == rung) & (readouts["form"] == form) & (readouts["task"] == task)]
    rows = rows.set_index("prompt").loc[[prompt.id for prompt in PROMPTS]]
    return np.column_stack([laws, rows["off_support"], rows["unresolved"]])


def native(readouts: pd.DataFrame, rung: str) -> str:
    """The form that a rung was made for: raw text for a base, chat once tuned."""
    return (
        "completion" if set(readouts.loc[readouts["rung"] == rung, "stage"]) == {"base"} else "chat"
    )


def leftover(readouts: pd.DataFrame, rung: str, task: str) -> np.ndarray:
    """(prompts, 2): off-support and unresolved mass of a stage's end in its native form, in PROMPTS order."""
    return given(readouts, rung, dict(NATIVE)[rung], task)[:, -2:]
