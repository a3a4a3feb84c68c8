"""Read-outs of ladders as pages need them: checked, as arrays of answered prompts, and told.

The one place where rows become arrays to be measured: `compared` takes the prompts that all places
answer, `answers` refuses one that is not answered. What is told is first recorded as a claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import pandas as pd

from ..ask.ladders import KINDS, hub_names, ladder_names, load_ladder
from ..ask.prompts import CHAT, COMPLETION, PROMPTS, Prompt
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError, known
from ..keep.store import load_readouts
from ..lab.world import temperament_of
from ..measure import chain, evidence
from ..measure import quantities as ph
from ..measure.claims import Verdict, finite
from ..measure.evidence import Evidence
from ..measure.inference import Estimate, Statistic, estimate, leave_one_out, ratio
from . import show

NATIVE = {"base": COMPLETION} | dict.fromkeys(("sft", "dpo", "rlvr"), CHAT)  # checkpoint: form
LEFTOVER = ("invalid", "residual")
WORDS = {  # in the names of numbers, which claims keep -> what readers see
    "to the distribution": "to the demonstrator's distribution",
    "parents": "bases",
}
Place = str | tuple[str, str]  # a checkpoint in its native form, or a checkpoint and a form


# -- frames


def read_ladders(ladders: Sequence[str], **which) -> pd.DataFrame:
    """Read-outs of several ladders in one frame. which: as in `store.load_readouts`.

    Raises: CrystalError for no ladder, one named twice, an open task, and as the store does.
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
    """Names of all that is described; whole: of what has four stages."""
    described = (load_ladder(name, unpinned=True) for name in (*ladder_names(), *hub_names()))
    return ", ".join(one.name for one in described if not whole or one.kind == "ladder")


def check_read(ladders: Sequence[str]) -> None:
    """Raises: CrystalError for an unknown or unpinned ladder, an experiment, or a ladder that was
    not read in the native forms of four stages, as the phase pages need it.
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
    """Its title, plain; a name that no file describes, as it is."""
    described = ladder in (*ladder_names(), *hub_names())
    return load_ladder(ladder, unpinned=True).title if described else ladder


# -- arrays


def given(
    frame: pd.DataFrame,
    checkpoint: str,
    task: str,
    prompts: Sequence[Prompt] = PROMPTS,
    form: str | None = None,
    temperature: float = 1.0,
) -> np.ndarray:
    """(prompts, options + 2): probabilities as read, invalid-answer and residual mass. frame: of
    one ladder. form=None: the checkpoint's native form.

    Raises: CrystalError for a prompt that was not read.
    """
    at = (frame["checkpoint"].array == checkpoint) & (frame["task"].array == task)
    at = np.flatnonzero(at)  # frames are long: the other columns are looked at there only
    columns = ("stage", "form", "temperature", "prompt", "probability", *LEFTOVER)
    stage, forms, temperatures, ids, p, *left = (np.asarray(frame[n].array[at]) for n in columns)
    form = form or (COMPLETION if set(stage) == {"base"} else CHAT)
    ladder = frame["ladder"].iloc[0] if len(frame) else ""
    where = f"{ladder}, checkpoint {checkpoint}, task {task}, form {form}"
    if (frame["ladder"].array != ladder).any():
        hint = "select one: frame[frame.ladder == ...]"
        raise CrystalError("the frame holds several ladders", where=where, hint=hint)
    asked = np.flatnonzero((forms == form) & (temperatures == temperature))
    there = dict(zip(ids[asked], asked, strict=True))
    if absent := [prompt.id for prompt in prompts if prompt.id not in there]:
        what = f"{len(absent)} of {len(prompts)} prompts are missing, first {absent[0]}"
        raise CrystalError(what, where=where, hint=f"make resample LADDER={ladder}")
    rows = [there[prompt.id] for prompt in prompts]
    return np.column_stack([np.stack(p[rows]), *(masses[rows] for masses in left)])


def unconditional(
    frame: pd.DataFrame,
    checkpoint: str,
    task: str,
    form: str | None = None,
    *,
    prompts: Sequence[Prompt] = PROMPTS,
) -> np.ndarray:
    """(prompts, options): `given` without what is no option."""
    return given(frame, checkpoint, task, prompts, form)[:, :-2]


def answers(
    frame: pd.DataFrame,
    checkpoint: str,
    task: str,
    form: str | None = None,
    *,
    prompts: Sequence[Prompt] = PROMPTS,
) -> np.ndarray:
    """The same, given that the answer is an option. Raises: CrystalError if a prompt is not read
    or not answered.
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
    for task in tasks:
        rows = [p.get((task, prompt.id)) for prompt in prompts]
        if any(row is None for row in rows):  # raises, and says which
            given(frame, frame["checkpoint"].iloc[0], task, prompts, form, temperature)
        found[task] = np.stack(rows)
    return found


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
        """(prompts,) temperaments, over which personas are balanced; None: natural prompts."""
        if not all(isinstance(prompt, Prompt) for prompt in self.prompts):
            return None
        return np.array([temperament_of(prompt.persona) for prompt in self.prompts])

    @cached_property
    def weights(self) -> np.ndarray:
        """(1 + clusters, prompts): all, then one cluster left out at a time."""
        return leave_one_out(self.clusters, strata=self.strata)

    def bits(self, place: Place) -> float:
        """Liquidity of these very prompts, bits."""
        return float(ph.liquidity_bits(self.distributions(place)))

    def mean(self, place: Place) -> Statistic:
        """The mean answer, (..., options)."""
        p = self.distributions(place)
        return lambda w: ph.mean_distribution(p, w)

    def estimate(self, statistic: Statistic, high: float = np.inf) -> Estimate:
        """A number of 0 or more, with its interval over clusters."""
        return estimate(statistic, self.weights, low=0, high=high)

    def average(self, values: np.ndarray, high: float = np.inf) -> Estimate:
        """Mean over prompts of a number that each of them has."""
        return self.estimate(lambda w: ph.mean_distribution(values[:, None], w)[..., 0], high)

    def liquidity(self, place: Place) -> Estimate:
        """Bits that the prompt tells about the answer."""
        p = self.distributions(place)
        return self.estimate(lambda w: ph.liquidity_bits(p, w))

    def moved(self, before: Place, after: Place, by: Callable = ph.tv) -> Estimate:
        """How far the mean answers are apart; by: total variation, or another distance."""
        first, last = self.mean(before), self.mean(after)
        return self.estimate(lambda w: by(first(w), last(w)))

    def to(self, aim: np.ndarray, place: Place, by: Callable = ph.tv) -> Estimate:
        """How far the mean answer is from a distribution."""
        mean = self.mean(place)
        return self.estimate(lambda w: by(mean(w), aim))

    def kept_spread(self, before: Place, after: Place) -> Estimate:
        """Spread among prompts, after over before."""
        first, last = self.distributions(before), self.distributions(after)
        return ratio(lambda w: ph.spread(last, w), lambda w: ph.spread(first, w), self.weights)


def compared(
    readouts: pd.DataFrame, task: str, *places: Place, prompts: Sequence[Prompt] = PROMPTS
) -> Compared:
    """`task` on the prompts that every place answers. readouts, errors: as `unconditional`."""
    tables = {}
    for place in places:
        checkpoint, form = place if isinstance(place, tuple) else (place, None)
        tables[place] = unconditional(readouts, checkpoint, task, form, prompts=prompts)
    return of_tables(tables, prompts)


def of_tables(tables: Mapping[Place, np.ndarray], prompts: Sequence[Prompt] = PROMPTS) -> Compared:
    """The same of tables of any ladders, each `unconditional`."""
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
    """One number of every ladder, plain; a ladder alone goes without its title."""
    there = ((name, mine[label]) for name, mine in numbers.items() if label in mine)
    of = [(load_ladder(name).title, show.interval(number)) for name, number in there]
    return ", ".join(f"{title} {number}" if len(of) > 1 else number for title, number in of)


@dataclass(frozen=True)
class Answered:
    """Which prompts the ladders of a page answer. verdicts: of those that cannot be measured."""

    able: list[str]  # ladders on which the task can be measured
    told: list[str]  # a sentence each
    why: list[str]  # a sentence for each of the others
    whole: bool  # every prompt is answered by every checkpoint
    verdicts: Mapping[str, Sequence[Verdict]]


def count_answered(
    readouts: pd.DataFrame, task: str, *checkpoints: str, claims: Sequence[str] = ()
) -> Answered:
    """How many prompts each checkpoint answers, recorded and not yet told. claims: of these a
    ladder that cannot be measured has verdicts that say so.
    """
    able, told, why, whole, verdicts = [], [], [], True, {}
    for ladder, mine in each_ladder(readouts):
        title, found, parts = load_ladder(ladder).title, compared(mine, task, *checkpoints), []
        for name, one in found.counts.items():
            sentence = f"{name}: {one.said}"
            about = {"number": one.answered / one.asked, "verdict": "measured"}
            show.claim(f"answered-{name}", sentence=sentence, ladder=ladder, task=task, **about)
            off, left = given(mine, name, task)[:, -2:].mean(0)
            missed = f"invalid-answer mass {show.number(off)}, residual mass {show.number(left)}"
            parts.append(f"{name}, {one.said}, not answered: {missed}")
        if len(parts) > 1:
            shared = f"{found.count.answered} by all of these"
            parts.append(f"{shared}, and they are compared on no others")
        told.append(f"{title}: {'; '.join(parts)}.")
        whole &= found.count.answered == found.count.asked
        if found.count.measurable:
            able.append(ladder)
        else:
            why.append(f"{title}: {found.count.why}.")
            verdicts[ladder] = chain.no_verdicts(claims, found.count)
    _record(verdicts, task)
    return Answered(able, told, why, whole, verdicts)


def _record(found: Mapping[str, Sequence[Verdict]], task: str) -> None:
    for ladder, judged in found.items():
        for verdict in judged:
            show.claim(verdict.claim, ladder=ladder, task=task, **verdict.fields())


def show_numbers(numbers: Numbers, task: str) -> None:
    """Record every number as measured and tell them: a row per number, a column per ladder."""
    cells: dict[str, dict[str, str]] = {}
    for ladder, found in numbers.items():
        for label, one in found.items():
            words = reduce(lambda text, pair: text.replace(*pair), WORDS.items(), label)
            number, place = show.interval(one), {"ladder": ladder, "task": task}
            parts = {"number": one.value, "low": one.low, "high": one.high}
            parts = {name: finite(x) for name, x in parts.items()}
            sentence = f"{words}: {number}"
            show.claim(show.slug(label), verdict="measured", sentence=sentence, **place, **parts)
            cells.setdefault(words, {})[ladder] = number
    rows = [[words, *(row.get(ladder, "–") for ladder in numbers)] for words, row in cells.items()]
    show.prose(show.table(["measured", *(load_ladder(ladder).title for ladder in numbers)], rows))


def show_verdicts(found: Mapping[str, Sequence[Verdict]], task: str) -> None:
    """Record every ladder's verdicts and tell them, after the claims and their thresholds."""
    _record(found, task)
    show.verdicts()
    thresholds = {v.claim: v.threshold for judged in found.values() for v in judged}
    rows = ([n, m.claim, f"{m.side} {m.value:g}", m.why] for n, m in thresholds.items())
    show.prose(show.table(["claim", "in words", "threshold", "why this threshold"], rows))
