"""Read-outs of several ladders as pages need them: checked, and as arrays of answered prompts.

The one place where rows become arrays to be measured. `compared` takes the prompts that all places
answer; `answers` refuses one that is not answered, so that no number rests on it unseen. Prompts
stay in the order in which they were asked. What was measured is recorded as a claim before it is
told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import pandas as pd

from ..ask.ladders import KINDS, hub_names, ladder_names, load_ladder
from ..ask.prompts import PROMPTS, Prompt
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError, known
from ..keep.store import load_readouts
from ..lab.world import temperament_of
from ..measure import chain, evidence
from ..measure.claims import Verdict, finite
from ..measure.evidence import Evidence
from ..measure.inference import Estimate, leave_one_out
from ..texts import markdown
from . import show

NATIVE = {"base": "completion", "sft": "chat", "dpo": "chat", "rlvr": "chat"}  # checkpoint: form
LEFTOVER = ("invalid", "residual")
WORDS = {  # in the names of numbers, which claims keep -> what readers see
    "to the distribution": "to the demonstrator's distribution",
    "parents": "bases",
}
Place = str | tuple[str, str]  # a checkpoint in its native form, or a checkpoint and a form


# -- frames


def read_ladders(ladders: Sequence[str], **which) -> pd.DataFrame:
    """Read-outs of several ladders in one frame. which: as in `store.load_readouts`.

    Raises: CrystalError for no ladder, one named twice, a task without a list of options, and as
    the store does.
    """
    if not ladders or len(set(ladders)) < len(ladders):
        what = f"ladders are {list(ladders)!r}: none, or one named twice"
        raise CrystalError(what, hint=f"choose from: {_choices()}")
    for task in which.get("tasks") or ():
        if not TASKS[known(task, TASKS, "task")].closed:
            what = f"task {task!r} is open: it has no list of options to compare distributions over"
            raise CrystalError(what, hint=f"choose one of: {', '.join(PHASE_TASKS)}")
    return pd.concat([load_readouts(name, **which) for name in ladders], ignore_index=True)


def _choices(whole: bool = False) -> str:
    """All that is described; whole: only what has four stages."""
    described = (load_ladder(name, unpinned=True) for name in (*ladder_names(), *hub_names()))
    return ", ".join(one.name for one in described if not whole or one.kind == "ladder")


def check_read(ladders: Sequence[str]) -> None:
    """Do nothing if the phase pages have all read-outs they need: native forms of four stages.

    Raises: CrystalError for an unknown or unpinned ladder, an experiment, or what was not read.
    """
    for name in ladders:
        if (kind := load_ladder(name).kind) != "ladder":
            what = f"{name} is {KINDS[kind]}, and the pages show ladders: base, sft, dpo, rlvr"
            raise CrystalError(what, hint=f"choose from: {_choices(whole=True)}")
    read = read_ladders(ladders, tasks=PHASE_TASKS, checkpoints=[*NATIVE])
    read = read[(read["form"] == read["checkpoint"].map(NATIVE)) & (read["temperature"] == 1.0)]
    whole = len(NATIVE) * len(PHASE_TASKS) * len(PROMPTS)
    for name in ladders:
        if absent := max(0, whole - int((read["ladder"] == name).sum())):
            what = f"{absent} of the {whole} read-outs that the pages need are missing"
            raise CrystalError(what, where=name, hint=f"make resample LADDER={name}")


def each_ladder(readouts: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, its read-outs) of every ladder, in the order given."""
    for name in readouts["ladder"].unique():
        yield name, readouts[readouts["ladder"] == name]


def title_of(ladder: str) -> str:
    """Its title as described, plain; a name that no file describes, as it is."""
    described = ladder in (*ladder_names(), *hub_names())
    return load_ladder(ladder, unpinned=True).title if described else ladder


def was_read(readouts: pd.DataFrame, checkpoint: str, form: str) -> bool:
    return bool(((readouts["checkpoint"] == checkpoint) & (readouts["form"] == form)).any())


def native(readouts: pd.DataFrame, checkpoint: str) -> str:
    """The form that a checkpoint was made for: raw text for a base, chat once tuned."""
    base = set(readouts.loc[readouts["checkpoint"] == checkpoint, "stage"].unique()) == {"base"}
    return "completion" if base else "chat"


# -- arrays


def answers(
    frame: pd.DataFrame,
    checkpoint: str,
    task: str,
    form: str | None = None,
    *,
    prompts: Sequence[Prompt] = PROMPTS,
) -> np.ndarray:
    """(prompts, options): how `checkpoint` answers `task`, given that it answers with an option.

    frame: of one ladder, from `store.load_readouts`. form=None: the checkpoint's native form.
    Raises: CrystalError if a prompt is missing, or is not answered.
    """
    table = unconditional(frame, checkpoint, task, form, prompts=prompts)
    mass = table.sum(axis=1)
    if len(low := np.flatnonzero(~evidence.answers(mass))):
        least = int(mass.argmin())
        raise CrystalError(
            f"{len(low)} of {len(mass)} prompts are not answered, least {prompts[least].id}: "
            f"{mass[least]:.2g} of the mass is on an option",
            where=f"checkpoint {checkpoint}, task {task}",
            hint="choose another task or form",
        )
    return table / mass[:, None]


def unconditional(
    frame: pd.DataFrame,
    checkpoint: str,
    task: str,
    form: str | None = None,
    *,
    prompts: Sequence[Prompt] = PROMPTS,
    temperature: float = 1.0,
) -> np.ndarray:
    """(prompts, options): probabilities as read, whatever their sum; else as `answers`."""
    places = np.flatnonzero(
        (frame["checkpoint"].array == checkpoint) & (frame["task"].array == task)
    )
    columns = ("stage", "form", "temperature", "prompt", "probability")
    rows = {name: np.asarray(frame[name].array[places]) for name in columns}
    form = form or ("completion" if set(rows["stage"]) == {"base"} else "chat")
    ladder = frame["ladder"].iloc[0] if len(frame) else ""
    where = f"{ladder}, checkpoint {checkpoint}, task {task}, form {form}"
    if (frame["ladder"].array != ladder).any():
        hint = "select one: frame[frame.ladder == ...]"
        raise CrystalError("the frame holds several ladders", where=where, hint=hint)
    asked = (rows["form"] == form) & (rows["temperature"] == temperature)
    distributions = dict(zip(rows["prompt"][asked], rows["probability"][asked], strict=True))
    wanted = [prompt.id for prompt in prompts]
    if absent := [prompt for prompt in wanted if prompt not in distributions]:
        what = f"{len(absent)} of {len(wanted)} prompts are missing, first {absent[0]}"
        raise CrystalError(what, where=where, hint=f"make resample LADDER={ladder}")
    return np.stack([distributions[prompt] for prompt in wanted])


def on_tasks(
    frame: pd.DataFrame,
    tasks: Sequence[str],
    form: str,
    prompts: Sequence[Prompt],
    temperature: float = 1.0,
) -> dict[str, np.ndarray]:
    """Task -> `unconditional`, in one pass over the frame, which is one checkpoint's."""
    mine = frame[(frame["form"] == form) & (frame["temperature"] == temperature)]
    keys = zip(mine["task"], mine["prompt"], strict=True)
    p, found = dict(zip(keys, mine["probability"], strict=True)), {}
    how = {"prompts": prompts, "temperature": temperature}
    for task in tasks:
        rows = [p.get((task, prompt.id)) for prompt in prompts]
        if any(row is None for row in rows):  # raises, and says which
            unconditional(frame, frame["checkpoint"].iloc[0], task, form, **how)
        found[task] = np.stack(rows)
    return found


def given(
    readouts: pd.DataFrame, checkpoint: str, task: str, form: str | None = None
) -> np.ndarray:
    """(prompts, options + 2): `unconditional`, invalid-answer, residual; rows sum to 1."""
    p = unconditional(readouts, checkpoint, task, form)  # raises where a prompt is missing
    place = {"checkpoint": checkpoint, "task": task, "form": form or native(readouts, checkpoint)}
    at = np.logical_and.reduce([readouts[name] == value for name, value in place.items()])
    rows = readouts[at].set_index("prompt").loc[[prompt.id for prompt in PROMPTS]]
    return np.column_stack([p, rows["invalid"], rows["residual"]])


def leftover(readouts: pd.DataFrame, checkpoint: str, task: str) -> np.ndarray:
    """(prompts, 2): invalid-answer and residual mass of a checkpoint in its native form."""
    return given(readouts, checkpoint, task)[:, -2:]


@dataclass(frozen=True, eq=False)
class Compared:
    """One task on the prompts that all of some checkpoints answer; arrays have only their rows."""

    prompts: tuple[Prompt, ...]
    rows: np.ndarray  # (prompts,) their places among those that were asked
    tables: Mapping[Place, np.ndarray]  # (prompts, options), unconditional
    counts: Mapping[Place, evidence.Count]  # of every checkpoint by itself
    count: evidence.Count  # of all of them together

    def distributions(self, place: Place) -> np.ndarray:
        """(prompts, options), conditional on an option."""
        table = self.tables[place]
        return table / table.sum(axis=1, keepdims=True)

    def evidence(self, place: Place) -> Evidence:
        """The same with what it rests on."""
        distribution = self.distributions(place)
        half = np.array([prompt.half for prompt in self.prompts])
        wordings = np.array([prompt.wording for prompt in self.prompts])
        exact = np.full(len(distribution), np.inf)
        return Evidence(distribution, self.clusters, half, wordings, exact, self.strata)

    @cached_property
    def clusters(self) -> np.ndarray:
        """(prompts,) who asks."""
        return np.array([prompt.persona for prompt in self.prompts])

    @cached_property
    def strata(self) -> np.ndarray | None:
        """(prompts,) the personas' temperaments, over which the cast is balanced.

        None for the natural prompts, whose contexts are of no groups.
        """
        if not all(isinstance(prompt, Prompt) for prompt in self.prompts):
            return None
        return np.array([temperament_of(prompt.persona) for prompt in self.prompts])

    @cached_property
    def weights(self) -> np.ndarray:
        """(1 + clusters, prompts): all, then one persona left out at a time."""
        return leave_one_out(self.clusters, strata=self.strata)


def compared(
    readouts: pd.DataFrame, task: str, *places: Place, prompts: Sequence[Prompt] = PROMPTS
) -> Compared:
    """`task` on the prompts that every place answers. readouts: of one ladder.

    Raises: CrystalError for a prompt that was not read.
    """
    tables = {}
    for place in places:
        checkpoint, form = place if isinstance(place, tuple) else (place, None)
        tables[place] = unconditional(readouts, checkpoint, task, form, prompts=prompts)
    return of_tables(tables, prompts)


def of_tables(tables: Mapping[Place, np.ndarray], prompts: Sequence[Prompt] = PROMPTS) -> Compared:
    """The same of tables of any ladders, each (prompts, options), unconditional."""
    masses = {place: table.sum(axis=1) for place, table in tables.items()}
    rows = np.flatnonzero(evidence.both(*masses.values()))
    return Compared(
        tuple(prompts[row] for row in rows),
        rows,
        {place: table[rows] for place, table in tables.items()},
        {place: evidence.count(mass) for place, mass in masses.items()},
        evidence.count(*masses.values()),
    )


# -- told

Numbers = Mapping[str, Mapping[str, Estimate]]  # ladder -> what was measured -> estimate


def estimated(found: Estimate) -> dict[str, float]:
    """Columns of a number and its interval."""
    return {"value": found.value, "low": found.low, "high": found.high}


def each(numbers: Numbers, label: str) -> str:
    """One measured number of every ladder, plain; a ladder alone goes without its title."""
    of = [(load_ladder(name).title, show.interval(mine[label])) for name, mine in numbers.items()]
    return ", ".join(f"{title} {number}" if len(of) > 1 else number for title, number in of)


def captioned(numbers: Numbers, label: str) -> str:
    """The same as `each`, as MyST."""
    return markdown(each(numbers, label))


@dataclass(frozen=True)
class Answered:
    """Which prompts the ladders of a page answer. verdicts: of those that cannot be measured."""

    able: list[str]  # ladders on which the task can be measured
    told: list[str]  # a sentence each
    why: list[str]  # a sentence for each of the others
    whole: bool  # every prompt is answered by every checkpoint
    verdicts: Mapping[str, Sequence[Verdict]]


def count_answered(
    readouts: pd.DataFrame, task: str, *places: Place, claims: Sequence[str] = ()
) -> Answered:
    """How many prompts each of `places` answers, recorded and not yet told.

    A ladder that cannot be measured has the reason, and so have its `claims`.
    """
    able, told, why, whole, verdicts = [], [], [], True, {}
    for ladder, mine in each_ladder(readouts):
        title, found = load_ladder(ladder).title, compared(mine, task, *places)
        told.append(f"{title}: {_answered(mine, task, found)}")
        whole &= found.count.answered == found.count.asked
        for place, one in found.counts.items():
            about = {"ladder": ladder, "task": task, "number": one.answered / one.asked}
            about |= {"verdict": "measured", "sentence": f"{_named(place)}: {one.said}"}
            show.claim(f"answered-{show.slug(_named(place))}", **about)
        if found.count.measurable:
            able.append(ladder)
            continue
        why.append(f"{title}: {found.count.why}.")
        verdicts[ladder] = chain.no_verdicts(claims, found.count)
        for verdict in verdicts[ladder]:
            show.claim(verdict.claim, ladder=ladder, task=task, **verdict.fields())
    return Answered(able, told, why, whole, verdicts)


def _answered(mine: pd.DataFrame, task: str, found: Compared) -> str:
    parts = []
    for place, one in found.counts.items():
        checkpoint, form = place if isinstance(place, tuple) else (place, None)
        off, left = given(mine, checkpoint, task, form)[:, -2:].mean(0)
        missed = f"invalid-answer mass {show.number(off)}, residual mass {show.number(left)}"
        parts.append(f"{_named(place)}, {one.said}, not answered: {missed}")
    if len(parts) > 1:
        parts.append(f"{found.count.answered} by all of these, and they are compared on no others")
    return "; ".join(parts) + "."


def _named(place: Place) -> str:
    return place if isinstance(place, str) else " ".join(place)


def show_numbers(numbers: Numbers, task: str) -> None:
    """Record every number as measured and tell them: a row per number, a column per ladder."""
    for ladder, found in numbers.items():
        for label, one in found.items():
            about = {"ladder": ladder, "task": task, "verdict": "measured"}
            about |= {"number": finite(one.value), "low": finite(one.low), "high": finite(one.high)}
            sentence = f"{_shown(label)}: {show.interval(one)}"
            show.claim(show.slug(label), sentence=sentence, **about)
    labels = dict.fromkeys(label for found in numbers.values() for label in found)
    rows = [
        [_shown(label), *(show.interval(f[label]) if label in f else "–" for f in numbers.values())]
        for label in labels
    ]
    show.prose(show.table(["measured", *(load_ladder(ladder).title for ladder in numbers)], rows))


def _shown(label: str) -> str:
    return reduce(lambda text, pair: text.replace(*pair), WORDS.items(), label)


def show_verdicts(found: Mapping[str, Sequence[Verdict]], task: str) -> None:
    """Record every ladder's verdicts and tell them, after the claims and their thresholds."""
    for ladder, judged in found.items():
        for verdict in judged:
            show.claim(verdict.claim, ladder=ladder, task=task, **verdict.fields())
    show.verdicts()
    thresholds = {v.claim: v.threshold for judged in found.values() for v in judged}
    rows = ([n, m.claim, f"{m.side} {m.value:g}", m.why] for n, m in thresholds.items())
    show.prose(show.table(["claim", "in words", "threshold", "why this threshold"], rows))
