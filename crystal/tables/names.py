"""Names that a table, a log or a command gives: checked, and stages put in order."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .. import texts
from ..ask.ladders import STAGES
from ..errors import CrystalError, known
from ..measure.chain import POOLED
from .sheets import at

ORDER = (
    *STAGES,
    "instruct",
)  # "instruct": a last stage of which it is not known how it was reached
ALIASES = {stage: stage for stage in ORDER} | {
    "pretrained": "base",
    "pt": "base",
    "rl": "rlvr",
    "grpo": "rlvr",
    "final": "rlvr",
    "chat": "instruct",
    "it": "instruct",
}


def stage_names(text: str) -> dict[str, str]:
    """`base=step0,sft=step-1000` as canonical stage -> its name in the file.

    Raises: CrystalError if it is not of that form, or names a stage or a name twice.
    """
    mend, found = "say --stages base=step0,sft=step-1000", {}
    for pair in filter(str.strip, text.split(",")):
        stage, _, name = (
            given(part, f"--stages {texts.short(text)}") for part in pair.partition("=")
        )
        if not (stage and name):
            raise CrystalError(f"{texts.short(pair)!r} is not of the form stage=name", mend=mend)
        if stage in found or name in found.values():
            raise CrystalError(
                f"--stages says twice which stage {stage if stage in found else name!r:.60} is",
                mend=mend,
            )
        found[stage] = name
    return found


def given(name: str, where: object) -> str:
    """A name that was typed, or comes with a file. Raises: CrystalError if it is hostile."""
    try:
        return texts.name(name)
    except ValueError as error:
        raise CrystalError(str(error), where=where, mend="give another name") from error


def refuse_reserved(task: str, where: object = None) -> None:
    """Raises: CrystalError for a task called as the row over all tasks, however it is spelled."""
    if " ".join(unicodedata.normalize("NFKC", task).casefold().split()) == POOLED:
        raise CrystalError(
            f"no task may be called {task!r}: the verdicts over all tasks are",
            where=where,
            mend="rename the task",
        )


def staged(
    codes: np.ndarray, found: list[str], given: Mapping[str, str], path: Path, notes: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Stages as codes into ORDER."""
    for stage, name in given.items():
        known(stage, ORDER, "stage")
        known(name, found, f"stage in {path}")
    chosen = {name: stage for stage, name in given.items()}
    read: dict[str, str] = {}
    for name in found:
        stage = chosen.get(name) or ALIASES.get(name.lower())
        if stage is None:
            raise CrystalError(
                f"it is not known which stage {name!r:.60} is",
                where=at(path, column="stage"),
                mend=f"say --stages sft={name:.60} (or another of {', '.join(ORDER)}), "
                "or remove its rows",
            )
        if stage in read.values():
            other = next(n for n, s in read.items() if s == stage)
            raise CrystalError(
                f"the stages {other!r} and {name!r} are both read as {stage}",
                where=at(path, column="stage"),
                mend=f"remove the rows of one, or say which stage it is: --stages sft={name}",
            )
        read[name] = stage
    if renamed := [f"{name} as {stage}" for name, stage in read.items() if name != stage]:
        notes.append(f"Stages were read by their names: {', '.join(renamed)}.")
    return np.array([ORDER.index(read[name]) for name in found])[codes], list(ORDER)
