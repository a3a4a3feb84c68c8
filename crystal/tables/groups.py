"""The rows of a table gathered: one law per ladder, stage, task and prompt. What no law can be is refused, the rest is told.

Works on codes of names, all rows at once. Knows nothing of files, stages or comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..ask.tasks import TASKS
from ..errors import CrystalError
from ..measure.answered import LEAST as LEAST_ANSWERED
from ..measure.answered import count
from ..texts import short
from .sheets import at

GROUP = ("ladder", "stage", "task", "prompt")
SHARES = ("mass", "answered")  # columns that say how much of the mass is on the options
ROUNDING = 1e-3  # by which probabilities of one group may miss a sum of 1
NEAR = 1e-2  # the same where the reader says that they are rounded: bfloat16 makes up to 0.4 %
LEAST = 1e-290  # below it, numbers lose their digits
MOST_DRAWS = 10**8  # of one stage on one task; scipy deals out a hundred times as many, no more
FEWER = "give probabilities instead, or draw less: more draws would change nothing"
NOISE = 1e-9  # less than that is arithmetic, not worth a note
LARGEST = 10**8  # numbers in the laws of one task; above, the memory of a laptop is at risk


def joint(rows: pd.DataFrame, columns: Iterable[str]) -> np.ndarray:
    """One code for the columns together, numbered by first appearance; step by step, so that no product overflows."""
    so_far = np.zeros(len(rows), dtype=np.int64)
    for column in columns:
        codes = rows[column].to_numpy() + 1  # an empty cell is -1
        so_far = pd.factorize(so_far * (codes.max() + 1) + codes)[0]
    return so_far


def refuse_contradictions(rows: pd.DataFrame, names: Mapping[str, list[str]], path: Path) -> None:
    """An answer given twice in one group, a prompt of two units, a group of two masses or answered
    in two ways.
    """
    _refuse_twice(rows, joint(rows, ("group", "option")), names, path)
    keys = {"unit": joint(rows, ("ladder", "task", "prompt"))} | dict.fromkeys(
        SHARES, rows["group"].to_numpy()
    )
    for column, key in keys.items():
        first = np.flatnonzero(~pd.Series(key).duplicated())[key]
        cells = rows[column].to_numpy()
        differ = (cells != cells[first]) & ~(np.isnan(cells) & np.isnan(cells[first]))
        if differ.any():
            second = np.argmax(differ)
            rowed = f"rows {rows.index[first[second]]} and {rows.index[second]}"
            raise CrystalError(f"{rowed} give one prompt two values of {column}", where=at(path, column=column),
                               mend=f"give every row of a prompt the same {column}")


def _refuse_twice(rows: pd.DataFrame, answers: np.ndarray, names: Mapping[str, list[str]], path: Path) -> None:
    """Refuse two rows with the same code of group and option."""
    if len(twice := np.flatnonzero(pd.Series(answers).duplicated())):
        pair = rows.iloc[np.flatnonzero(answers == answers[twice[0]])[:2]]
        told = dict.fromkeys(
            f"{names['option'][code]!r:.60}" if code >= 0 else "the empty one"
            for code in pair["option"]
        )
        raise CrystalError(f"rows {pair.index[0]} and {pair.index[1]} give the same option, {' and '.join(told)}, "
                           "for one stage, task and prompt", where=at(path, column="option"),
                           mend="remove one of them, add them up, or name their prompts apart")


def gather(
    rows: pd.DataFrame, kind: str, path: Path, notes: list[str], slack: float = ROUNDING
) -> pd.DataFrame:
    """One row per group, indexed by its code: codes of names, its first row, on (summed over options), mass, draws.

    Refuses sums that no law has; leaves out groups of counts without a draw on the options.
    slack: by which probabilities of a group may miss a sum of 1.
    """
    code, value, listed = rows["group"].to_numpy(), rows["value"].to_numpy(), rows["option"].to_numpy() >= 0
    groups = (
        rows.loc[~rows["group"].duplicated(), [*GROUP, "unit", *SHARES]]
        .rename_axis("row")
        .reset_index()
    )
    groups["on"] = np.bincount(code[listed], value[listed], minlength=len(groups))
    total = np.bincount(code, value, minlength=len(groups))
    stated = groups["mass"].notna().to_numpy()
    both = stated & (np.bincount(code[~listed], minlength=len(groups)) > 0)
    _refuse(groups, both, path, "option", "the group has an empty option and a mass, which say the same twice",
            "remove one of them")
    masses = groups["mass"].to_numpy()
    far = stated & ((masses <= 0) | (masses > 1))
    _refuse(
        groups,
        far,
        path,
        "mass",
        "the mass is not above 0 and at most 1",
        rounded(masses[far], slack)
        or "mass is the probability of answering with one of the options; "
        "remove groups that never do",
    )
    on = groups["on"].to_numpy()
    if kind == "count":
        groups["draws"] = on
        together = (
            pd.Series(total).groupby(joint(groups, ("ladder", "stage", "task"))).transform("sum")
        )
        _refuse(
            groups,
            together.to_numpy() > MOST_DRAWS,
            path,
            kind,
            "its stage has {:.0f} draws on its task, above " + str(MOST_DRAWS),
            FEWER,
            together.to_numpy(),
        )
        mass = on / np.maximum(total, 1)
        notes.append(f"Answers are counts: {on.min():.0f} to {on.max():.0f} draws on the options per stage, task and prompt.")
        if (on == 0).any():
            if not on.any():
                raise CrystalError("no group has a draw on any option", where=at(path, column=kind), mend="draw more answers")
            notes.append(f"{(on == 0).sum()} of {len(on)} groups have no draw on any option; they are left out.")
    else:
        groups["draws"] = np.inf
        mass = np.where(total > 1 - NOISE, on / np.maximum(total, NOISE), on)
        _check_sums(groups, on, total, stated, path, notes, slack)
    groups["mass"] = np.where(stated, groups["mass"], mass)
    groups["mass"] = _by_answered(groups, stated, on, kind, path, slack)
    if (lost := (groups["mass"] < 1 - NOISE).to_numpy() & (on > 0)).any():
        mean, least = (f"{share:.4g}" if share < 0.9999 else f"1 - {1 - share:.1g}"
                       for share in (groups["mass"][lost].mean(), groups["mass"][lost].min()))
        notes.append(
            f"In {lost.sum()} of {len(on)} groups some answers are none of the options: "
            "the mass on the options is "
            f"{mean} on average, {least} at least"
            + (
                " (rounding alone could do that)"
                if (groups["mass"][lost] > 1 - slack).all()
                else ""
            )
            + "; laws are conditional on an option."
        )
    counted = groups["answered"].notna().any()  # else what nobody answered is only told
    return groups[(on > 0) | (counted & (groups["mass"] < LEAST_ANSWERED))]


def _by_answered(
    groups: pd.DataFrame, stated: np.ndarray, on: np.ndarray, kind: str, path: Path, slack: float
) -> np.ndarray:
    """The masses, those that the column answered gives by that column."""
    given, mass = groups["answered"].to_numpy(), groups["mass"].to_numpy()
    said = ~np.isnan(given)
    _refuse(
        groups,
        said & stated & (abs(given - mass) > slack),
        path,
        "answered",
        "mass is {:.4g}, and answered is another number",
        "leave out one of the two columns",
        mass,
    )
    apart = np.minimum(abs(on - 1), abs(on - given)) > slack
    if kind == "probability":
        _refuse(groups, said & (given >= LEAST_ANSWERED) & apart, path, "answered",
                "the probabilities of the options sum to {:.4g}, neither to answered nor to 1",
                "give them as they are, or divided by answered", on)
    return np.where(said, given, mass)


def _check_sums(
    groups: pd.DataFrame,
    on: np.ndarray,
    total: np.ndarray,
    stated: np.ndarray,
    path: Path,
    notes: list[str],
    slack: float,
) -> None:
    """Refuse probabilities that do not sum as they must; note what rounding there is."""
    _refuse(
        groups,
        (on < LEAST) & ~(groups["answered"] < LEAST_ANSWERED).to_numpy(),
        path,
        "probability",
        "the probabilities of the options sum to {:.3g}",
        "remove the group: it holds no law",
        on,
    )
    far = total > 1 + slack
    _refuse(
        groups,
        far,
        path,
        "probability",
        "the probabilities of the group sum to {:.6g}, above 1",
        rounded(total[far], slack) or "correct them, or give counts in a column count",
        total,
    )
    lacking = stated & (on < 1 - slack)
    _refuse(
        groups,
        lacking,
        path,
        "probability",
        "the probabilities of a group with a mass sum to {:.6g}, not 1",
        rounded(on[lacking], slack)
        or "divide them by their sum (they are conditional on the mass), or leave mass out",
        on,
    )
    if (above := (total > 1 + NOISE)).any():
        notes.append(f"In {above.sum()} of {len(on)} groups the sums exceed 1 by at most {(total - 1).max():.2g} (rounding); "
                     "their laws are divided by their sums.")
    if (below := stated & (on < 1 - NOISE)).any():
        notes.append(f"In {below.sum()} of {len(on)} groups with a mass the sums miss 1 by at most {(1 - on[below]).max():.2g} "
                     "(rounding); their laws are divided by their sums.")


def rounded(values: np.ndarray, slack: float) -> str:
    """The mend where values miss 1 by no more than rounding makes; empty where they miss more."""
    if slack < NEAR and np.all(np.abs(values - 1) <= NEAR):
        told = "if they are rounded, as bfloat16 is; else correct them"
        return f"--normalise (normalise=True on a page), {told}"
    return ""


def _refuse(groups: pd.DataFrame, wrong: np.ndarray, path: Path, column: str, what: str, mend: str,
            shown: np.ndarray | None = None) -> None:
    if np.any(wrong):
        first = int(np.argmax(wrong))
        raise CrystalError(what.format(shown[first]) if shown is not None else what,
                           where=at(path, groups["row"].iloc[first], column) + ", where its group begins", mend=mend)


def laws(groups: pd.DataFrame, rows: pd.DataFrame, names: Mapping[str, list[str]], path: Path, notes: list[str]
         ) -> tuple[pd.Series, dict[str, tuple[str, ...]]]:
    """The law of each group over its task's options, shape (options,), sums to 1; and the options by task."""
    listed = rows[rows["option"] >= 0]
    found, options = [], {}
    for code, own in listed.groupby("task", sort=False):
        task = names["task"][code]
        slots, seen = pd.factorize(own["option"])
        options[task], order = _options(task, [names["option"][option] for option in seen], notes)
        places, ids = pd.factorize(own["group"])
        if len(ids) * len(options[task]) > LARGEST:
            raise CrystalError(
                f"task {task!r:.60} has {len(options[task])} options and {len(ids)} laws, "
                "too many to hold",
                where=at(path, column="option"),
                mend="merge the rare options into one, or split the table",
            )
        _refuse_twice(own, places * len(options[task]) + order[slots], names, path)  # two spellings of one option
        if not (task in TASKS and options[task] == TASKS[task].options):
            _refuse_apart(own, names, path)
        table = np.zeros((len(ids), len(options[task])))
        table[places, order[slots]] = own["value"].to_numpy()
        if len(never := np.flatnonzero(table.sum(axis=0) == 0)):
            notes.append(f"Options of {task} that never have positive probability, kept: "
                         f"{some([options[task][i] for i in never])}.")
        if len(options[task]) == 1:
            notes.append(f"Task {task} has one option only: its law cannot change.")
        kept = np.isin(ids, groups.index)
        table = table[kept] / table[kept].sum(axis=1, keepdims=True)
        found.append(pd.Series(list(table), index=ids[kept], dtype=object))
    return pd.concat(found).reindex(groups.index), options


def _refuse_apart(own: pd.DataFrame, names: Mapping[str, list[str]], path: Path) -> None:
    """Refuse a stage of a task that lists no option of the first stage of its ladder."""
    for ladder, listed in own.groupby("ladder", sort=False):
        first, *later = listed.groupby("stage")
        shared = set(first[1]["option"])
        for stage, rows in later:
            if shared.isdisjoint(rows["option"]):
                here, there = (
                    some((names["option"][code] for code in list(dict.fromkeys(part["option"]))), 3)
                    for part in (first[1], rows)
                )
                called = f"{names['ladder'][ladder]} {names['task'][own['task'].iloc[0]]}"
                raise CrystalError(
                    f"{called}: {names['stage'][stage]} lists no option of "
                    f"{names['stage'][first[0]]} "
                    f"({there}; {here})",
                    where=at(path, rows.index[0], "option"),
                    mend="spell options alike at every stage, and list unchosen ones with 0",
                )


def _options(task: str, seen: list[str], notes: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The options of a task and the place of each seen spelling among them."""
    ours = TASKS[task] if task in TASKS and TASKS[task].closed else None
    if ours is None:
        return tuple(seen), np.arange(len(seen))
    read = [option if option in ours.options else ours.spellings.get(option.lower()) for option in seen]
    if None in read:
        others = [option for option, known in zip(seen, read) if known is None]
        notes.append(f"Task {task} is not this package's task of that name: {some(others)} is none of its options; "
                     "the options are those in the file, in order of appearance.")
        return tuple(seen), np.arange(len(seen))
    return ours.options, np.array([ours.options.index(option) for option in read])


def told_answered(asked: pd.DataFrame, order: Sequence[str]) -> list[str]:
    """What was answered, ladder by ladder, and what is not measurable; asked: of `laws.Table`; order: of stages."""
    said, few = [], []
    for ladder, mine in asked.groupby("ladder", sort=False):
        each = dict(iter(mine.groupby("stage")["mass"]))
        counts = [f"{stage} {count(each[stage].to_numpy()).said}" for stage in order if stage in each]
        said.append(f"{ladder}: {', '.join(counts)}.")
    for (ladder, task, stage), mine in asked.groupby(["ladder", "task", "stage"], sort=False):
        found = count(mine["mass"].to_numpy())
        few += [] if found.measurable else [f"{ladder} {task} {stage} ({found.answered} of {found.asked})"]
    return said + ([f"Not measurable, for too few prompts are answered: {some(few)}."] if few else [])


def some(items: Iterable[str], most: int = 6) -> str:
    """The items in a row, the first `most` by name, the others by number."""
    items = [short(item) for item in items]
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
