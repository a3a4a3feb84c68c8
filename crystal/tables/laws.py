"""A table of answers of any ladder -> laws, one per ladder, stage, task and prompt; every handling is told in a note.

Columns: stage, task, prompt, option, and one of probability or count; where wanted ladder (default:
the file's name), unit (who asks; default: the prompt), mass (the probability of answering with one
of the options at all; the group's probabilities are then conditional on that). An empty option
means: answered with none of the options. answered: the same probability as mass, with the group's
probabilities conditional on it or not; where a table has the column, prompts that are not answered
(`measure.answered`) are counted and left out. A group is one (ladder, stage, task, prompt). Knows
nothing of what the laws mean.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import CrystalError, known
from ..measure.answered import LEAST
from ..measure.evidence import FEWEST
from .groups import (
    FEWER,
    GROUP,
    MOST_DRAWS,
    NEAR,
    ROUNDING,
    SHARES,
    gather,
    joint,
    laws,
    refuse_contradictions,
    rounded,
    some,
    told_answered,
)
from .names import ORDER, given, refuse_reserved, staged
from .names import stage_names as stage_names
from .sheets import at, empty, load_sheet, numbers, stem, words

COLUMNS = (*GROUP, "unit", "option", "probability", "count", "mass", "answered")
OTHER_NAMES = {  # what else these columns are called
    "model": "ladder", "family": "ladder", "rung": "stage", "checkpoint": "stage", "category": "task", "question": "prompt",
    "answer": "option", "choice": "option", "p": "probability", "prob": "probability", "n": "count", "mass_on_options": "mass"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Answers of one or more ladders.

    frame: one row per group, by ladder, task, stage and prompt: ladder, stage, task, prompt, unit;
    law, shape (options,), conditional on answering with an option, sums to 1; mass, the probability
    of that; draws on the options, inf if the law was given as probabilities. Within a ladder and
    task every stage has the same prompts, but those not answered. asked: where the table has a
    column answered, ladder, task, stage, prompt and mass of every group, answered or not. options:
    by task, in the order of the laws. stages: those there are, in canonical order. notes:
    sentences. path: the file it was read from.
    """

    frame: pd.DataFrame
    options: dict[str, tuple[str, ...]]
    stages: tuple[str, ...]
    notes: tuple[str, ...]
    path: Path
    asked: pd.DataFrame | None = None

    @property
    def ladders(self) -> dict[str, tuple[str, ...]]:
        """Ladder -> its stages in canonical order."""
        every = self.frame if self.asked is None else self.asked
        found = {
            ladder: set(stages) for ladder, stages in every.groupby("ladder", sort=False)["stage"]
        }
        return {ladder: tuple(stage for stage in self.stages if stage in have) for ladder, have in found.items()}


def read_table(
    path: str | Path,
    *,
    stages: Mapping[str, str] | None = None,
    ladder: str | None = None,
    normalise: bool = False,
) -> Table:
    """The table of answers in `path`: .csv, .tsv, .jsonl (each also .gz) or .parquet.

    stages: canonical stage -> its name in the file, where `ALIASES` does not know it.
    ladder: the ladder's name if the file has no such column, else the only ladder of it to be read.
    normalise: probabilities are rounded, as bfloat16 is: they are divided by sums up to 1 % off.
    Raises: CrystalError naming file, row and column for whatever cannot be read as the laws it claims to hold.
    """
    path, notes, slack = Path(path), [], NEAR if normalise else ROUNDING
    sheet = load_sheet(path)
    _check_columns(sheet, path, notes)
    ladder = given(ladder or "", "--ladder")
    if ladder and "ladder" in sheet:
        codes, names = words(sheet, "ladder", path)
        known(ladder, names, f"ladder of {path}")
        sheet = sheet[codes == names.index(ladder)]
    rows, names = _coded(sheet, path, ladder)
    for task in names["task"]:
        refuse_reserved(task, at(path, column="task"))
    rows["stage"], names["stage"] = staged(
        rows["stage"].to_numpy(), names["stage"], stages or {}, path, notes
    )
    kind, rows["value"] = _value(sheet, path, slack)
    for column in SHARES:
        rows[column] = _share(sheet, column, path, slack) if column in sheet else np.nan
    rows["group"] = joint(rows, GROUP)
    refuse_contradictions(rows, names, path)
    groups = gather(rows, kind, path, notes, slack)
    _refuse_no_comparison(groups, names, path)
    said = rows["answered"].notna().any()
    low = (groups["mass"] < LEAST).to_numpy() & said
    found, options = laws(groups[~low], rows, names, path, notes)
    groups = _common(groups.assign(law=found, low=low), names, path, notes)
    there = groups[~groups["low"].to_numpy()]
    _note_scarce(there, names, notes)
    table = _finished(there, names, options, notes, path)
    return _with_asked(table, groups, names) if said else table


def _check_columns(sheet: pd.DataFrame, path: Path, notes: list[str]) -> None:
    """Refuse a table that lacks a column; say which columns are not used."""
    spare = [str(name) for name in sheet.columns if name not in COLUMNS]
    meant = {near: name for name in reversed(spare) if (near := _near(name))}
    wanted = [name for name in ("stage", "task", "prompt", "option") if name not in sheet]
    wanted += [] if {"probability", "count"} & set(sheet.columns) else ["probability", "count"]
    found = some(map(str, sheet.columns), 12)
    for name in wanted:
        if name in meant:
            raise CrystalError(f"there is no column {name}; the columns are {found}", where=path,
                               mend=f"rename {meant[name]!r} to {name!r}")
    if wanted:
        name = "probability or count" if wanted[0] == "probability" else wanted[0]
        raise CrystalError(f"there is no column {name}; the columns are {found}", where=path, mend=f"add a column {name}")
    for name in spare:
        if (plain := name.strip().lower()) in COLUMNS and plain not in sheet:
            raise CrystalError(f"the column {name!r} is not spelled {plain!r}", where=path, mend="rename it, or remove it")
    if spare:
        hints = [f"{name} (did you mean {near}?)" if (near := _near(name)) and near not in sheet else name for name in spare]
        notes.append(f"Columns not used: {some(hints, 12)}.")


def _near(name: str) -> str | None:
    """The column that a name of another spelling probably means."""
    spelled = name.strip().lower()
    close = difflib.get_close_matches(spelled, COLUMNS, n=1, cutoff=0.75)
    return OTHER_NAMES.get(spelled) or (close[0] if close else None)


def _coded(sheet: pd.DataFrame, path: Path, ladder: str) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Columns of names as codes, indexed by row number, and the names; only options and units may be empty (-1)."""
    rows, names = pd.DataFrame(index=sheet.index), {}
    for column in (*GROUP, "unit", "option"):
        if column in sheet:
            rows[column], names[column] = words(sheet, column, path)
        elif column == "ladder":
            rows[column], names[column] = 0, [ladder or given(stem(path), f"{path}, its name")]
        else:
            rows[column], names[column] = -1, []
        if column in GROUP and (rows[column] < 0).any():
            row = rows.index[np.argmax(rows[column] < 0)]
            raise CrystalError(f"the {column} is empty", where=at(path, row, column), mend="fill it in, or remove the row")
    return rows, names


def _value(sheet: pd.DataFrame, path: Path, slack: float) -> tuple[str, np.ndarray]:
    """Whether the answers are probabilities or counts, and what they are."""
    filled = {kind: ~empty(sheet[kind]) for kind in ("probability", "count") if kind in sheet}
    used = [kind for kind, cells in filled.items() if cells.any()]
    if len(used) == 2:
        rows = {kind: sheet.index[np.argmax(filled[kind])] for kind in used}
        raise CrystalError(f"some rows give a probability (row {rows['probability']}), some a count (row {rows['count']})",
                           where=path, mend="give one of the two for all rows, and leave the other column out")
    kind = (used or list(filled))[0]
    values = numbers(sheet, kind, path)
    if kind == "count":
        _refuse_value(
            sheet,
            path,
            kind,
            values,
            values != np.floor(values),
            "is not a whole number",
            "call the column probability, if these are probabilities",
        )
        _refuse_value(
            sheet, path, kind, values, values > MOST_DRAWS, f"is above {MOST_DRAWS}", FEWER
        )
    else:
        above = values > (1 + NEAR if slack == NEAR else 1)
        _refuse_value(sheet, path, kind, values, above, "is above 1",
                      rounded(values[above], slack) or "call the column count, if these are counts")
    return kind, values


def _refuse_value(
    sheet: pd.DataFrame,
    path: Path,
    kind: str,
    values: np.ndarray,
    wrong: np.ndarray,
    said: str,
    mend: str,
) -> None:
    if wrong.any():
        first = np.argmax(wrong)
        raise CrystalError(
            f"the {kind} {values[first]:g} {said}",
            where=at(path, sheet.index[first], kind),
            mend=mend,
        )


def _share(sheet: pd.DataFrame, column: str, path: Path, slack: float) -> np.ndarray:
    """The masses; of rounded ones those just above 1 are 1."""
    mass = numbers(sheet, column, path, blank=True)
    mass = np.where((mass > 1) & (mass <= 1 + NEAR), 1.0, mass) if slack == NEAR else mass
    if column == "answered":
        _refuse_value(sheet, path, column, mass, mass > 1, "is above 1",
                      rounded(mass[mass > 1], slack) or "it is a probability: a number from 0 to 1")
    return mass


def _with_asked(table: Table, groups: pd.DataFrame, names: Mapping[str, list[str]]) -> Table:
    """The table with every group, answered or not, and the mass answered: what was answered is its
    first note.
    """
    groups = groups.sort_values(["ladder", "task", "stage", "prompt"], kind="stable")
    asked = pd.DataFrame({column: _named(groups[column], names[column]) for column in GROUP})
    asked["mass"] = groups["mass"].to_numpy()
    have, said = set(asked["stage"]), told_answered(asked, ORDER)
    stages = tuple(stage for stage in ORDER if stage in have)
    return dataclasses.replace(table, asked=asked, stages=stages, notes=(*said, *table.notes))


def _refuse_no_comparison(groups: pd.DataFrame, names: Mapping[str, list[str]], path: Path) -> None:
    """Refuse a ladder of which no task has its base and a later stage."""
    for code, own in groups.groupby("ladder"):
        if not _compared(own):
            have = [ORDER[stage] for stage in sorted(own["stage"].unique())]
            lacking = "base" not in have or len(have) < 2
            said = (
                f"has only {', '.join(have)}"
                if lacking
                else "has no task at base and at a later stage"
            )
            raise CrystalError(
                f"the ladder {names['ladder'][code]!r:.60} {said}: nothing to compare",
                where=at(path, column="stage"),
                mend="add the rows of its base and of a later stage, or say which "
                "they are: --stages base=NAME,sft=NAME",
            )


def _compared(groups: pd.DataFrame) -> bool:
    """Whether some task has its base and a later stage."""
    stages = groups.groupby("task")["stage"]
    return bool(((stages.min() == ORDER.index("base")) & (stages.nunique() > 1)).any())


def _note_scarce(
    groups: pd.DataFrame, names: Mapping[str, list[str]], notes: list[str]
) -> None:
    """Note the prompts with too few draws to be judged."""
    prompt = ["ladder", "task", "prompt"]
    enough = groups.groupby(prompt)["draws"].transform("min") >= FEWEST
    scarce = groups[~enough].drop_duplicates(prompt).groupby(["ladder", "task"]).size()
    if len(scarce):
        called = (
            f"{names['ladder'][ladder]} {names['task'][task]} {n}"
            for (ladder, task), n in scarce.items()
        )
        notes.append(
            f"Prompts with fewer than {FEWEST} draws on the options at some stage "
            f"are not judged: {some(called)}."
        )


def _common(groups: pd.DataFrame, names: Mapping[str, list[str]], path: Path, notes: list[str]) -> pd.DataFrame:
    """The groups whose prompt every stage of its ladder that has the task answers; what is missing is noted."""
    task, prompt = groups.groupby(["ladder", "task"]), groups.groupby(["ladder", "task", "prompt"])
    whole = (prompt["stage"].transform("nunique") == task["stage"].transform("nunique")).to_numpy()
    kept, stages = groups[whole], groups.groupby("ladder")["stage"].unique()
    lacking, fewer, single = [], [], []
    for (ladder, code), own in task:
        called = f"{names['ladder'][ladder]} {names['task'][code]}"
        have, left = own["stage"].unique(), own.loc[whole[groups.index.get_indexer(own.index)], "prompt"].nunique()
        if left == 0:
            raise CrystalError(f"the stages of {called} have no prompt in common", where=at(path, column="prompt"),
                               mend="name a prompt alike at every stage")
        if absent := [ORDER[stage] for stage in sorted(set(stages[ladder]) - set(have))]:
            lacking.append(f"{called} (no {', '.join(absent)})")
        if left < (asked := own["prompt"].nunique()):
            fewer.append(f"{called} {asked - left} of {asked}")
        if left == 1:
            single.append(called)
    if lacking:
        notes.append(f"Tasks that some stage of the ladder lacks, left out where that stage is compared: {some(lacking)}.")
    if fewer:
        notes.append(f"Prompts that some stage of the ladder lacks are left out: {some(fewer)}.")
    if single:
        notes.append(f"One prompt: nothing can be said about how answers depend on the prompt, for {some(single)}.")
    return kept


def _finished(
    groups: pd.DataFrame,
    names: Mapping[str, list[str]],
    options: dict[str, tuple[str, ...]],
    notes: list[str],
    path: Path,
) -> Table:
    """Codes back to names."""
    groups = groups.sort_values(["ladder", "task", "stage", "prompt"], kind="stable")
    frame = pd.DataFrame({column: _named(groups[column], names[column]) for column in GROUP})
    given = groups["unit"].to_numpy() >= 0
    frame["unit"] = np.where(given, _named(groups["unit"], [*names["unit"], ""]), frame["prompt"])
    if given.any():
        notes.append(f"Prompts are asked by units: {frame['prompt'].nunique()} prompts, {frame['unit'].nunique()} units"
                     + (f"; {(~given).sum()} groups without one are a unit each by their prompt." if not given.all() else "."))
    for column in ("law", "mass", "draws"):
        frame[column] = groups[column].to_numpy()
    have = set(frame["stage"])
    return Table(
        frame=frame.reset_index(drop=True),
        options={task: options[task] for task in frame["task"].unique()},
        stages=tuple(stage for stage in ORDER if stage in have),
        notes=tuple(notes),
        path=path,
    )


def _named(codes: pd.Series, names: list[str]) -> np.ndarray:
    return np.array(names, dtype=object)[codes.to_numpy()]
