"""A table of answers of any checkpoint series -> distributions; every handling is told in a note.

Columns: stage, task, prompt, option, and one of probability or count; where wanted ladder (default:
the file's name), cluster (who asks; default: the prompt), wording (how), mass or answered (the mass
on all options; probabilities may be conditional on it). An empty option: none of them. A group is
one `Place`. Groups that are not answered (`measure.evidence`) are counted and left out, whatever
says so: a column, the empty option, a sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import numpy as np
import pandas as pd

from ..ask.ladders import STAGES
from ..ask.tasks import TASKS
from ..errors import known
from ..measure import evidence as answering
from ..measure.evidence import FEWEST
from . import sheets
from .sheets import SLACK, Place, empty, given, no, some

GROUP = list(Place._fields)
PROMPT = ["cluster", "wording"]  # what a table may say of a prompt
SHARES = ["mass", "answered"]  # columns that say how much of the mass is on the options
NEEDED = (["stage"], ["task"], ["prompt"], ["option"], ["probability", "count"])
NAMES = (*GROUP, *PROMPT, "option", "probability", "count", *SHARES)
ORDER = (*STAGES, "instruct")  # the last one: it is not known how it was reached
ALIASES = {"pretrained": "base", "pt": "base", "rl": "rlvr", "grpo": "rlvr", "final": "rlvr"}
ALIASES |= dict(zip(ORDER, ORDER)) | {"chat": "instruct", "it": "instruct"}
LEAST = 1e-290  # below it, numbers lose their digits
MOST_DRAWS = 10**8  # of one stage on one task; scipy deals out a hundred times as many, no more
BEGINS = ", where its group begins"
FEWER = "give probabilities instead, or draw less: more draws would change nothing"
NOISE = 1e-9  # less than that is arithmetic, not worth a note
LARGEST = 10**8  # numbers in the distributions of one task: what the memory of a laptop holds


@dataclass(frozen=True, eq=False)
class Table:
    """Answers of one or more checkpoint series.

    frame: a row per group, by ladder, task, stage and prompt: these, PROMPT; distribution, shape
    (options,), conditional on answering with an option, sums to 1; mass, the probability of that;
    draws on the options, inf of probabilities. Stages have the same prompts, but those not
    answered. asked: names and mass of all groups, of ladders with such, or a column answered.
    """

    frame: pd.DataFrame
    asked: pd.DataFrame
    options: dict[str, tuple[str, ...]]  # by task, in the order of the distributions
    ladders: dict[str, tuple[str, ...]]  # the stages of each, in canonical order
    tasks: dict[str, list[str]]  # of each ladder, as they stand in the file
    notes: tuple[str, ...]
    path: Path

    @property
    def stages(self) -> tuple[str, ...]:
        """Of all ladders, in canonical order."""
        return _in_order(stage for mine in self.ladders.values() for stage in mine)


def _in_order(stages: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(stages), key=ORDER.index))


def read_table(path: str | Path, *, stages: Mapping | None = None, ladder: str = "") -> Table:
    """The table of answers in a file of `sheets.FORMATS`.

    stages: canonical stage -> its name in the file, where `ALIASES` does not know it. ladder: its
    name if the file has no such column, else the only one to be read. Raises: CrystalError.
    """
    path, ladder, notes = Path(path), given(ladder, "--ladder"), []
    with sheets.inside(path):
        sheet = sheets.load_sheet(path)
        once = {} if "cluster" in sheet else {"unit": "cluster"}  # as it was called
        notes += sheets.check_header(sheet, NEEDED, (*NAMES, *once))
        sheet = sheet.rename(columns=once)
        if "ladder" not in sheet:
            if not (name := ladder or given(path.stem, "its name")):
                raise no("the file has no name to call its ladder by", "--ladder NAME")
            sheet["ladder"] = name
        elif ladder:
            ladders = sheets.words(sheet, "ladder")
            known(ladder, list(ladders.categories), f"ladder of {path}")
            sheet = sheet[ladders == ladder]
        rows = _named(sheet)
        rows["stage"] = _staged(rows["stage"], stages or {}, path, notes)
        kind, rows["value"] = _values(sheet)
        rows["group"] = rows.groupby(GROUP, sort=False).ngroup()
        _refuse_twice(rows)
        for column in PROMPT:
            sheets.refuse_two_values(rows, column, ["ladder", "task", "prompt"])
        rows["mass"] = _share(sheet, rows)
        rows["counted"] = rows["mass"].notna() & ("answered" in sheet)
        groups = _gathered(rows, kind, notes)
        kept = groups.loc[~groups["low"], "group"]
        distributions, options = _distributions(rows, kept, notes)
        groups["distribution"] = groups["group"].map(distributions)
        return _finished(_common(groups, notes), options, path, notes)


def _refuse(frame: pd.DataFrame, wrong, column: str, what: str, hint: str, shown=None) -> None:
    """Refuse the first row that is wrong; what: {} in it becomes that row's of `shown`."""
    if np.any(wrong):
        first = int(np.argmax(wrong))
        what = what if shown is None else what.format(np.asarray(shown)[first])
        raise no(what, hint, column, frame.index[first])


def _values(sheet: pd.DataFrame) -> tuple[str, np.ndarray]:
    """Which of the two a table gives, probability or count; and its numbers."""
    filled = {kind: ~empty(sheet[kind]) for kind in ("probability", "count") if kind in sheet}
    used = {kind: sheet.index[np.argmax(mine)] for kind, mine in filled.items() if mine.any()}
    if len(used) == 2:
        what = "some rows give a probability (row {}), some a count (row {})"
        hint = "give one of the two for all rows, and leave the other column out"
        raise no(what.format(*used.values()), hint)
    kind = next(iter(used or filled))
    values = sheets.numbers(sheet, kind)
    wrong, fault, hint = values > 1 + SLACK, "above 1", "call it count, if these are counts"
    if kind == "count":
        wrong, fault = values % 1 != 0, "not a whole number"
        hint = "call it probability, if these are probabilities"
    _refuse(sheet, wrong, kind, f"the {kind} {{:g}} is {fault}", hint, values)
    return kind, values


def _share(sheet: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
    """What a column of SHARES says, nan where none does; just above 1 is 1, rounded."""
    there = [column for column in SHARES if column in sheet]
    if not there:
        return np.full(len(sheet), np.nan)
    if len(there) > 1:
        raise no("the columns mass and answered say the same", "leave out one of the two")
    mass = sheets.numbers(sheet, there[0], blank=True)
    what, hint = f"the {there[0]} {{:g}} is above 1", "give a probability: a number from 0 to 1"
    _refuse(sheet, mass > 1 + SLACK, there[0], what, hint, mass)
    sheets.refuse_two_values(rows.assign(**{there[0]: mass}), there[0], ["group"])
    return np.minimum(mass, 1)


def _refuse_twice(rows: pd.DataFrame, spelled: str = "option") -> None:
    """Refuse two rows of one group with the same option, by the column `spelled`."""
    if (twice := rows.duplicated(["group", spelled])).any():
        group, option = rows.loc[twice.idxmax(), ["group", spelled]]
        pair = rows[(rows["group"] == group) & rows[spelled].isin([option])][:2]
        shown = (f"{n!r:.60}" if n == n else "the empty one" for n in pair["option"].unique())
        what = "rows {} and {} give the same option, ".format(*pair.index) + " and ".join(shown)
        hint = "remove one of them, add them up, or name their prompts apart"
        raise no(f"{what}, for one stage, task and prompt", hint, "option")


def _refuse_apart(own: pd.DataFrame, task: str) -> None:
    """Refuse a stage of a task that lists no option of the first stage of its ladder."""
    for ladder, listed in own.groupby("ladder", sort=False):
        (first, there), *later = listed.groupby("stage")["option"]
        for stage, here in later:
            if set(there).isdisjoint(here):
                each = "; ".join(some(part.unique(), 3) for part in (here, there))
                what = f"{ladder} {task}: {stage} lists no option of {first} ({each})"
                hint = "spell options alike at every stage, and list unchosen ones with 0"
                raise no(what, hint, "option", here.index[0])


def _about(what: str, those: Sequence[str]) -> list[str]:
    return [f"{what} {some(those)}."] if those else []


def _named(sheet: pd.DataFrame) -> pd.DataFrame:
    """Columns of names, indexed by row number; those of GROUP may not be empty, nan."""
    rows = pd.DataFrame(np.nan, sheet.index, PROMPT)
    for column in GROUP:
        rows[column] = sheets.words(sheet, column)
        what, hint = f"the {column} is empty", "fill it in, or remove the row"
        _refuse(rows, rows[column].isna(), column, what, hint)
    for column in sheet.columns.intersection([*PROMPT, "option"]):
        rows[column] = sheets.words(sheet, column)
    for task in rows["task"].cat.categories:
        sheets.check_task(task, "column task")
    return rows


def _staged(names: pd.Series, chosen: Mapping[str, str], path: Path, notes: list[str]) -> pd.Series:
    """The canonical stages of the names in the file."""
    found = names.cat.categories
    for stage, name in chosen.items():
        known(stage, ORDER, "stage")
        known(name, found, f"stage in {path}")
    other, read = {name: stage for stage, name in chosen.items()}, {}
    for name in found:
        say = f"say --stages {quote(f'sft={name:.60}')}"
        if (stage := other.get(name) or ALIASES.get(name.lower())) is None:
            hint = f"{say} (or another of {', '.join(ORDER)}), or remove its rows"
            raise no(f"it is not known which stage {name!r:.60} is", hint, "stage")
        if stage in read:
            what = f"the stages {read[stage]!r} and {name!r} are both read as {stage}"
            raise no(what, f"remove the rows of one, or {say}", "stage")
        read[stage] = name
    if renamed := [f"{name} as {stage}" for stage, name in read.items() if name != stage]:
        notes.append(f"Stages were read by their names: {', '.join(renamed)}.")
    return names.cat.rename_categories(list(read)).cat.set_categories(ORDER)


def _gathered(rows: pd.DataFrame, kind: str, notes: list[str]) -> pd.DataFrame:
    """One row per group: names, its code, mass, draws, sums on the options and in total.

    low: it is not answered. counted: of a ladder whose answered prompts are counted.
    """
    groups = rows.drop_duplicates("group").drop(columns=["option", "value"])
    rows = rows.sort_values("value")  # a sum is rounded alike, however rows are ordered
    listed = rows[rows["option"].notna()]
    groups["on"] = np.bincount(listed["group"], listed["value"], minlength=len(groups))
    groups["total"] = np.bincount(rows["group"], rows["value"], minlength=len(groups))
    on, total = groups["on"], groups["total"]
    whole = (total if kind == "count" else total.clip(lower=1)).where(total > 0)
    groups["low"] = groups["mass"].fillna(on / whole) < answering.LEAST
    counted = (groups["counted"] | groups["low"]).groupby(groups["ladder"])
    groups["counted"] = counted.transform("any")
    groups["draws"] = on if kind == "count" else np.inf
    summed = _counts(groups, notes) if kind == "count" else _sums(groups, notes)
    groups["mass"] = groups["mass"].fillna(summed)
    if len(lost := groups["mass"][(groups["mass"] < 1 - NOISE) & (on > 0)]):
        two = (f"{x:.4g}" if x < 0.9999 else f"1 - {1 - x:.1g}" for x in (lost.mean(), lost.min()))
        mass = "the mass on the options is {} on average, {} at least".format(*two)
        mass += " (rounding alone could do that)" if lost.min() > 0.999 else ""
        none = f"In {len(lost)} of {len(on)} groups some answers are none of the options"
        notes.append(f"{none}: {mass}; distributions are conditional on an option.")
    return groups[(on > 0) | groups["low"]].copy()


def _counts(groups: pd.DataFrame, notes: list[str]) -> pd.Series:
    """The share on the options, of draws."""
    on, together = groups["on"], groups.groupby(GROUP[:3])["total"].transform("sum")
    what = f"its stage has {{:.9g}} draws on its task, above {MOST_DRAWS}"
    _refuse(groups, together > MOST_DRAWS, "count" + BEGINS, what, FEWER, together)
    draws = f"{on.min():.0f} to {on.max():.0f} draws on the options per stage, task and prompt"
    notes.append(f"Answers are counts: {draws}.")
    if (none := (groups["total"] == 0).sum()) == len(on):
        raise no("no group has a draw", "draw answers", "count")
    if none:
        notes.append(f"{none} of {len(on)} groups have no draw; they are left out.")
    return on / np.maximum(groups["total"], 1)


def _sums(groups: pd.DataFrame, notes: list[str]) -> pd.Series:
    """The share on the options; probabilities must sum as they should."""
    on, total, judged = groups["on"], groups["total"], ~groups["low"]
    apart = np.minimum((1 - on).clip(lower=0), (on - groups["mass"]).abs()).where(judged, 0)
    checks = (
        ((on < LEAST) & judged, "the options sum to {:.3g}", on,
         "remove the group: it has no distribution"),
        (total > 1 + SLACK, "the group sum to {:.6g}, above 1", total,
         "correct them, or give counts in a column count"),
        (apart > SLACK, "the options sum to {:.6g}, neither to their mass nor to 1",
         on, "give them as they are, or divided by their mass"),
    )  # fmt: skip
    for wrong, what, shown, hint in checks:
        what = f"the probabilities of {what}"
        _refuse(groups, wrong, "probability" + BEGINS, what, hint, shown)
    for off, where in ((total - 1, "the sums exceed"), (apart, "with a mass the sums miss")):
        if n := (off > NOISE).sum():
            many = f"In {n} of {len(on)} groups {where} 1 by at most {off.max():.2g} (rounding)"
            notes.append(f"{many}; their distributions are divided by their sums.")
    return on.where(total <= 1 - NOISE, on / np.maximum(total, NOISE))


def _distributions(rows: pd.DataFrame, kept: pd.Series, notes: list[str]) -> tuple[pd.Series, dict]:
    """The distribution of each kept group over its task's options; and the options by task."""
    found, options = {}, {}
    for task, own in rows[rows["option"].notna()].groupby("task", sort=False):
        slots, seen = pd.factorize(own["option"])
        options[task], order = _options(task, list(seen), notes)
        width, (places, ids) = len(options[task]), pd.factorize(own["group"])
        if len(ids) * width > LARGEST:
            many = f"{width} options and {len(ids)} distributions, too many to hold"
            hint = "merge the rare options into one, or split the table"
            raise no(f"task {task!r:.60} has {many}", hint, "option")
        _refuse_twice(own.assign(place=order[slots]), "place")  # one option spelled twice
        if not (task in TASKS and options[task] == TASKS[task].options):
            _refuse_apart(own, task)
        table = np.zeros((len(ids), width))
        table[places, order[slots]] = own["value"]
        notes += _unlike(task, own, options[task])
        never = [options[task][i] for i in np.flatnonzero(table.sum(axis=0) == 0)]
        notes += _about(f"Options of {task} that never have positive probability, kept:", never)
        if width == 1:
            notes.append(f"Task {task} has one option only: its answer cannot change.")
        here = np.isin(ids, kept)
        found |= zip(ids[here], table[here] / np.sort(table[here]).sum(1, keepdims=True))
    return pd.Series(found, dtype=object), options


def _options(task: str, seen: list[str], notes: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The options of a task and the place of each seen spelling among them."""
    if task in TASKS and TASKS[task].closed:
        ours, spelled = TASKS[task].options, TASKS[task].spellings
        read = [name if name in ours else spelled.get(name.lower()) for name in seen]
        if None not in read:
            return ours, np.array([ours.index(option) for option in read])
        others = some(option for option, known in zip(seen, read) if known is None)
        what = f"Task {task} is not this package's task of that name: {others} is none of its"
        what += " options; they are those in the file, in order of appearance."
        notes.append(what)
    return tuple(seen), np.arange(len(seen))


def _unlike(task: str, own: pd.DataFrame, options: Sequence[str]) -> list[str]:
    """Notes where ladders list unlike options, or options are alike but for capitals."""
    listed, notes = own.groupby("ladder")["option"], []
    if listed.apply(frozenset).nunique() > 1:
        many = [f"{ladder} {n} of {len(options)}" for ladder, n in listed.nunique().items()]
        notes += _about(f"Options of {task} that are listed, others count as 0:", many)
    folded = Counter(map(str.casefold, options))
    twins = [option for option in options if folded[option.casefold()] > 1]
    alike = f"Options of {task} that differ in capitals alone, taken as different:"
    return notes + _about(alike, twins)


def _common(groups: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The groups whose prompt every stage of its ladder answers, if it has the task."""
    place = ["ladder", "task"]
    have = groups.groupby(place)["stage"].transform("nunique")
    common = groups[groups.groupby([*place, "prompt"])["stage"].transform("nunique") == have]
    left_of = common.groupby(place)["prompt"].nunique()
    lacking, fewer, single = [], [], []
    for ladder, mine in groups.groupby("ladder"):
        every = _in_order(mine["stage"])
        each = {task: _in_order(stages) for task, stages in mine.groupby("task")["stage"]}
        later = "base" in every[:-1]
        compared = any("base" in stages[:-1] for stages in each.values())
        if not compared and (later or "base" not in {*groups["stage"]}):
            has = "no task at base and at a later stage"
            has = has if later else f"only {', '.join(every)}"
            what = f"the ladder {ladder!r:.60} has {has}: nothing to compare"
            hint = "add the rows of its base and of a later stage, or say which they are:"
            raise no(what, f"{hint} --stages base=NAME,sft=NAME", "stage")
        for task, asked in mine.groupby("task")["prompt"].nunique().items():
            called, left = f"{ladder} {task}", left_of.get((ladder, task), 0)
            if left == 0:
                what = f"the stages of {called} have no prompt in common"
                raise no(what, "name a prompt alike at every stage", "prompt")
            if absent := [stage for stage in every if stage not in each[task]]:
                lacking.append(f"{called} (no {', '.join(absent)})")
            if left < asked:
                fewer.append(f"{called} {asked - left} of {asked}")
            if left == 1:
                single.append(called)
    lack, one = "that some stage of the ladder lacks", "nothing can be said about how answers"
    notes += _about(f"Tasks {lack}, left out where that stage is compared:", lacking)
    notes += _about(f"Prompts {lack} are left out:", fewer)
    notes += _about(f"One prompt: {one} depend on the prompt, for", single)
    return common.sort_values([*place, "stage", "prompt"], kind="stable")


def _finished(groups: pd.DataFrame, options: dict, path: Path, notes: list[str]) -> Table:
    """The table of the groups that are compared; names are text in it."""
    plain = groups.astype(dict.fromkeys([*GROUP, *PROMPT], object)).reset_index(drop=True)
    answered = plain[~plain["low"]].reset_index(drop=True)
    least = groups[~groups["low"]].groupby(["ladder", "task", "prompt"])["draws"].min()
    scarce = least[least < FEWEST].groupby(["ladder", "task"]).size()
    few = [f"{ladder} {task} {n}" for (ladder, task), n in scarce.items()]
    few_draws = f"fewer than {FEWEST} draws on the options at some stage"
    notes += _about(f"Prompts with {few_draws} are not judged:", few)
    frame = answered[[*GROUP, *PROMPT, "distribution", "mass", "draws"]].fillna({"wording": ""})
    alone = frame["cluster"].isna()
    frame["cluster"] = frame["cluster"].where(~alone, frame["prompt"])
    if not alone.all():
        more = f"; {alone.sum()} groups without one are clusters by their prompt"
        more = f"{frame['cluster'].nunique()} clusters{more if alone.any() else ''}."
        notes.append(f"{frame['prompt'].nunique()} prompts are asked by {more}")
    asked = plain[plain["counted"]][[*GROUP, "mass"]].reset_index(drop=True)
    options = {task: options[task] for task in frame["task"].unique()}
    each, told = groups.groupby("ladder"), (*answered_text(asked), *notes)
    ladders = {ladder: _in_order(stages) for ladder, stages in each["stage"]}
    tasks = {ladder: list(mine.unique()) for ladder, mine in each["task"]}
    return Table(frame, asked, options, ladders, tasks, told, path)


def answered_text(asked: pd.DataFrame) -> list[str]:
    """What was answered, ladder by ladder, and what is not measurable; asked: of `Table`."""

    def counted(*names: str) -> dict[tuple, answering.Count]:
        masses = asked.groupby([*names], sort=False)["mass"]
        return {key: answering.count(mass.to_numpy()) for key, mass in masses}

    sentences, each = [], counted("ladder", "stage")
    for ladder in asked["ladder"].unique():
        stages = _in_order(stage for name, stage in each if name == ladder)
        counts = (f"{stage} {each[ladder, stage].said}" for stage in stages)
        sentences.append(f"{ladder}: {', '.join(counts)}.")
    every = counted("ladder", "task", "stage").items()
    few = [f"{' '.join(key)} ({n.answered} of {n.asked})" for key, n in every if not n.measurable]
    return sentences + _about("Not measurable, for too few prompts are answered:", few)
