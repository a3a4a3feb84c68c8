"""Every run of an experiment, measured on the probe: one tidy frame, and means over parents.

One row per parent, run, step and task; a run begins at step 0 with the checkpoint that it grew
from. A parent is one trained ladder: two or more give an interval (Student's t), one gives a number
and no verdict.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache

import numpy as np
import pandas as pd

from ..ask.ladders import Checkpoint, load_ladder
from ..ask.prompts import CHAT, PROBE, Prompt
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError, known
from ..files import root
from ..keep import store
from ..lab import recipes, world
from ..measure import claims, evidence, quantities
from ..measure.inference import NOTHING, Estimate, Null, student
from ..measure.quantities import Array
from ..present import show
from ..present.show import interval
from ..present.views import on_tasks

Answers = Mapping[str, Array]  # task -> (prompts, options), nan where a prompt is not answered
PLAIN = (CHAT, 1.0)  # form and temperature
SAME = 0.05  # total variation below which two distributions are one: on small tasks some are
NUMBERS = (
    "liquidity entropy to_distribution to_uniform to_mean to_base progress fluctuation probmass "
    "follows"
).split()
DEMONSTRATED, HELD_OUT, ALL = "demonstrated", "held out", "all tasks"
APART = (DEMONSTRATED, HELD_OUT)
SCOPES = (DEMONSTRATED, "held-out")
MEAN = "mean"  # in place of a parent
PLACE = ["parent", "run", "task"]
COLUMNS = [*PLACE, "stage", "step", "checkpoint", "held_out", "group", "invalid", *NUMBERS]
SHARES = ("probmass", "invalid", "residual", "shared", "follow rate")
POSITIVE = "distance entropy liquidity kept ratio tv down back to_base to_uniform to_mean".split()
POSITIVE += ["to_distribution", "liquidity kept"]
BOUNDS = dict.fromkeys(SHARES, (0.0, 1.0)) | dict.fromkeys(POSITIVE, (0.0, np.inf))


# --- one checkpoint, one task


def measure(now: Array, origin: Array, task: str, intended: str) -> dict[str, float]:
    """What the probe says of a checkpoint. now, origin: (20, options), its answers and its base's.

    liquidity, entropy (mean over prompts), bits. JSD in bits: of the mean answer to the intended
    distribution (to_distribution), the uniform one, the base's mean; of every prompt's answer to
    the base's, mean (to_base). progress, fluctuation: mean and variance of `progress`. probmass: on
    the smallest set that holds QUANTILE of the intended distribution. found: the temperament
    `nearest`. All nan where too few prompts answer both.
    """
    both = ~(np.isnan(now).any(1) | np.isnan(origin).any(1))
    if both.sum() < evidence.needed(len(both)):
        return dict.fromkeys(NUMBERS, np.nan) | {"found": ""}
    now, origin = now[both], origin[both]
    mean, aim = now.mean(0), world.distribution(intended, TASKS[task])
    way = progress(now, origin, aim)
    numbers = {
        "liquidity": quantities.liquidity_bits(now),
        "entropy": quantities.entropy_bits(now).mean(),
        "to_distribution": quantities.jsd_bits(mean, aim),
        "to_uniform": quantities.jsd_bits(mean, np.full(len(mean), 1 / len(mean))),
        "to_mean": quantities.jsd_bits(mean, origin.mean(0)),
        "to_base": quantities.jsd_bits(now, origin).mean(),
        "progress": way.mean(),
        "fluctuation": way.var(),
        "probmass": quantities.probmass(mean, quantities.support(aim, claims.QUANTILE)),
        "follows": follows(mean, task, intended),
    }
    return {name: float(numbers[name]) for name in NUMBERS} | {"found": nearest(mean, task)}


def progress(now: Array, origin: Array, aim: Array) -> Array:
    """How far along the straight way to a distribution, (personas,): 0 at the origin, 1 there.

    The projection of the move; only personas who did not hold the distribution at the start.
    """
    way = aim - origin
    far = quantities.tv(aim, origin) > 2 * SAME
    return ((now - origin) * way).sum(1)[far] / (way**2).sum(1)[far]


@cache
def distributions(task: str) -> Array:
    """(temperaments, options): the ground truth."""
    return np.stack([world.distribution(name, TASKS[task]) for name in world.TEMPERAMENTS])


def nearest(mean: Array, task: str) -> str:
    """The temperament whose ground-truth distribution has the smallest JSD to a mean answer."""
    return world.TEMPERAMENTS[int(np.argmin(quantities.jsd_bits(mean, distributions(task))))]


def follows(mean: Array, task: str, intended: str) -> bool:
    """Whether the nearest distribution is the intended one, or the same in this task."""
    found = world.distribution(nearest(mean, task), TASKS[task])
    return bool(quantities.tv(found, world.distribution(intended, TASKS[task])) <= SAME)


# --- a whole experiment


def walk(
    name: str, runs: Sequence[str] = (), *, parents: Sequence[str] = (), intended: str = ""
) -> pd.DataFrame:
    """`rows` along the recorded runs of an experiment, in chat form. runs, parents: none = all.

    intended: "" = each run's own demonstrator. A run that trains its own base is measured from
    that one.
    Raises: CrystalError if the experiment is unknown or none of its runs has been read.
    """
    planned = {run.name: run for run in recipes.load_experiment(name).runs}
    for run in runs:
        known(run, planned, f"run of {name}")
    checkpoints = [c for c in recorded_checkpoints(name) if c.run in (runs or planned)]
    if not checkpoints:
        hint = f"make ladder LADDER={name}"
        raise CrystalError(f"no run of experiment {name!r} has been read", hint=hint)
    frames, begun, found = in_chat(name), {}, []
    for c in (c for c in checkpoints if c.parent in (parents or {c.parent})):
        run, ladder, base = planned[c.run], load_ladder(c.parent), f"{c.parent}/{c.run}/base"
        aim = intended or run.set.get("temperament", ladder.seed)
        aim = ladder.seed if aim == world.OWN else aim
        origin = probe(frames[base]) if "base" in run.stages else origin_of(c.parent)
        found += rows(frames[c.name], c, origin, aim)
        if run.start and run.stages and (c.parent, c.run) not in begun:
            start, frame = ladder.checkpoint(run.start), in_chat(c.parent)[run.start]
            begun[c.parent, c.run] = rows(frame, start, origin, aim, run=c.run, step=0)
    first = [row for key in sorted(begun) for row in begun[key]]
    return pd.DataFrame(first + found, columns=None if found else COLUMNS)


def recorded_checkpoints(name: str) -> list[Checkpoint]:
    """The checkpoints of an experiment's whole runs; of a run being read none."""
    done = recipes.load_records(name)
    return [c for c in load_ladder(name).checkpoints if f"{c.parent}/{c.run}" in done]


def along(parents: Sequence[str]) -> pd.DataFrame:
    """As `walk`, along the parents themselves, all that was read in chat form; run: the stage."""
    found = []
    for ladder in map(load_ladder, parents):
        frames, origin = in_chat(ladder.name), origin_of(ladder.name)
        for c in ladder.checkpoints:
            found += rows(frames[c.name], c, origin, ladder.seed)
    return pd.DataFrame(found)


def origin_of(parent: str, checkpoint: str = "base") -> Answers:
    """Answers of a parent's checkpoint to the probe in chat form."""
    return _origin(root(), parent, store.manifest_digest(parent), checkpoint)


@lru_cache(maxsize=64)
def _origin(root: object, name: str, digest: str, checkpoint: str) -> Answers:
    return probe(_in_chat(root, name, digest)[checkpoint])


def in_chat(name: str) -> dict[str, pd.DataFrame]:
    """Checkpoint -> its read-outs in chat form; loaded once a process."""
    return _in_chat(root(), name, store.manifest_digest(name))


_in_chat = lru_cache(16)(lambda root, name, digest: by_checkpoint(name, forms=[CHAT]))


def by_checkpoint(name: str, **which) -> dict[str, pd.DataFrame]:
    """Checkpoint -> its read-outs. which: as in `store.load_readouts`."""
    return dict(tuple(store.load_readouts(name, **which).groupby("checkpoint")))


def probe(
    frame: pd.DataFrame, form=CHAT, temperature=1.0, prompts: Sequence[Prompt] = PROBE
) -> Answers:
    """What one checkpoint answers, given that it answers with an option."""
    found = {}
    for task, table in on_tasks(frame, PHASE_TASKS, form, prompts, temperature).items():
        mass = table.sum(1, keepdims=True)
        found[task] = np.where(evidence.answers(mass), table / np.maximum(mass, 1e-300), np.nan)
    return found


def rows(
    frame: pd.DataFrame, c: Checkpoint, origin: Answers, intended: str, asked=PLAIN, **place
) -> list[dict]:
    """`measure` of a checkpoint `c` in every task, with parent, run, stage, step, checkpoint, task,
    held_out, group, invalid, residual (masses). asked: form, temperature. place: stands instead.
    """
    parent, (form, temperature) = c.parent or c.ladder, asked
    now, shown = probe(frame, form, temperature), load_ladder(parent).demonstrated
    frame = where(frame, form=form, temperature=temperature)
    left = frame.groupby("task")[["invalid", "residual"]].mean()
    about = {"parent": parent, "run": c.run or c.stage, "stage": c.stage, "step": c.step}
    about |= {"checkpoint": c.name} | place
    return [
        about
        | {"task": task, "held_out": task not in shown, "group": APART[task not in shown]}
        | left.loc[task].to_dict()
        | measure(now[task], origin[task], task, intended)
        for task in PHASE_TASKS
    ]


def family(parent: str) -> str:
    """The ladder a replica is one of: nano-llama of nano-llama-2."""
    head, _, tail = parent.rpartition("-")
    return head if tail.isdigit() else parent


def accuracy(name: str) -> pd.DataFrame:
    """Facts answered rightly in chat form. Columns: parent, run, checkpoint, accuracy."""
    rows = [
        (*key.split("/"), f"{key}/{checkpoint}", found["facts"])
        for key, record in recipes.load_records(name).items()
        for checkpoint, found in record["accuracy"].items()
    ]
    return pd.DataFrame(rows, columns=["parent", "run", "checkpoint", "accuracy"])


# --- first and last step


def load_ends(name: str, runs: Sequence[str], **which) -> pd.DataFrame:
    """`ends` of the recorded ones of these runs; empty if there are none. which: as of `walk`."""
    there = {key.partition("/")[2] for key in recipes.load_records(name)}
    wanted = [run for run in runs if run in there]
    empty = pd.DataFrame(columns=[*COLUMNS, "scope"])
    return ends(walk(name, wanted, **which), runs) if wanted else empty


def ends(walked: pd.DataFrame, runs: Sequence[str]) -> pd.DataFrame:
    """One row per parent, run (in their order) and task: the last step, and as `_before` the first.

    walked: of `walk`. scope: one of SCOPES.
    """
    walked = walked.sort_values("step", kind="stable")
    first, last = (walked.drop_duplicates(PLACE, keep=keep) for keep in ("first", "last"))
    both = last.merge(first, on=PLACE, suffixes=("", "_before"))
    both["scope"] = np.where(both["held_out"], *reversed(SCOPES))
    parents = sorted(set(walked["parent"]))
    return ordered(both, parent=parents, run=list(runs), scope=SCOPES, task=PHASE_TASKS)


def ordered(frame: pd.DataFrame, **orders: Sequence) -> pd.DataFrame:
    """The rows in the order of each column's values, the first column first."""
    place = lambda column: column.map(orders[column.name].index)  # noqa: E731
    return frame.sort_values(list(orders), key=place, kind="stable", ignore_index=True)


def kept(frame: pd.DataFrame) -> float:
    """Liquidity after over liquidity before, both the mean over tasks."""
    return frame["liquidity"].mean() / frame["liquidity_before"].mean()


def removed(frame: pd.DataFrame) -> float:
    """One less distance to the distribution after over before, means over tasks: 1 arrived."""
    return 1 - frame["to_distribution"].mean() / frame["to_distribution_before"].mean()


# --- over tasks and parents


def by_group(frame: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Means over tasks: one row per key and group (APART, ALL).

    frame: one row per key and task. A mean over tasks of which one has no number is none.
    """
    both = pd.concat([frame, frame.assign(group=ALL)], ignore_index=True)
    groups = both.groupby([*keys, "group"], sort=False)[list(values)]
    whole = groups.count().eq(groups.size(), axis=0)
    return groups.mean().where(whole).reset_index()


def per_parent(frame: pd.DataFrame, value: Callable[[pd.DataFrame], float]) -> pd.Series:
    """`value` of every parent's part of a frame, indexed by parent."""
    found = {parent: value(mine) for parent, mine in frame.groupby("parent", sort=False)}
    return pd.Series(found, dtype=float)


def over_parents(values: Sequence[float], low: float = -np.inf, high: float = np.inf) -> Estimate:
    """Mean over parents with Student's 95 % interval, within what the quantity cannot leave.

    Raises: CrystalError for fewer than two parents.
    """
    if len(values) < 2:
        hint = "make ladder ALL=1 trains the replicas"
        raise CrystalError(f"{len(values)} base gives no interval", hint=hint)
    return student(np.asarray(values, float), low=low, high=high)


def usable(values: pd.Series) -> pd.Series:
    """The parents' values that exist."""
    return values[np.isfinite(values)]


def estimate(values: pd.Series) -> Estimate:
    """`over_parents` within BOUNDS; of one parent its value without an interval, of none nan."""
    there = usable(values)
    if len(there) > 1:
        return over_parents(there, *BOUNDS.get(values.name, ()))
    return dataclasses.replace(NOTHING, value=float(there.mean()))


def judge_over(name: str, values: pd.Series, null: Null | None = None) -> claims.Verdict:
    """The verdict over parents, one number each; of fewer than two undecided, with the reason."""
    there = usable(values)
    if len(there) > 1:
        chance = null.typical if null else None
        found = claims.judge(name, estimate(values), null, chance=chance)
        return dataclasses.replace(found, reason=f"{found.reason} ({counted(len(there))})")
    why = "no base was read"
    if len(there):
        only = show.number(there.iloc[0])
        why = f"{only} from the only base read, and one gives no interval"
    return claims.judge(name, NOTHING, null, nothing=why)


def tidy(
    frame: pd.DataFrame, by: Sequence[str], quantities: Sequence[str] | Mapping[str, Callable]
) -> pd.DataFrame:
    """By quantity and key, the mean over parents with its interval (parent: MEAN), then each one's.

    quantities: functions of a parent's rows, by name; or columns, if a parent has a row a key.
    parents: how many have a value.
    """
    if not isinstance(quantities, Mapping):
        quantities = {name: lambda mine, name=name: mine[name].item() for name in quantities}
    found = []
    for quantity, value in quantities.items():
        for key, mine in frame.groupby(list(by), sort=False):
            each = per_parent(mine, value).rename(quantity)
            over, n = estimate(each), len(usable(each))
            found.append((*key, MEAN, over.value, over.low, over.high, n, quantity))
            found += [(*key, at, x, np.nan, np.nan, n, quantity) for at, x in each.items()]
    columns = [*by, "parent", "value", "low", "high", "parents", "quantity"]
    return pd.DataFrame(found, columns=columns)


def where(frame: pd.DataFrame, **place: object) -> pd.DataFrame:
    """The rows at a place: columns and the values wanted."""
    for column, value in place.items():
        frame = frame[frame[column] == value]
    return frame


def means(tidied: pd.DataFrame, **place: object) -> pd.DataFrame:
    """The rows over parents of `tidy` at a place."""
    return where(tidied, parent=MEAN, **place)


# --- in words


def record(name: str, found, sentence: str, **place: str) -> None:
    """Record a number, or anything with a value, low and high, as a measured claim."""
    numbers = {"number": found}
    if hasattr(found, "value"):
        parts = {"number": found.value, "low": found.low, "high": found.high}
        numbers = {part: claims.finite(x) for part, x in parts.items()}
    show.claim(name, verdict="measured", sentence=sentence, **place, **numbers)


def formatted(values: pd.Series) -> str:
    """Mean and interval over parents; of one parent the value alone; a dash of none."""
    return interval(estimate(values))


def cell(tidied: pd.DataFrame, **place: object) -> str:
    """The interval of the one row over parents at a place; a dash if there is none."""
    found = means(tidied, **place)
    return "–" if found.empty else interval(next(found.itertuples()))


def lines(tidied: pd.DataFrame) -> list[list]:
    """For a table, a row per key of `tidy`: the key, parents, every quantity as a `cell`."""
    by, names = list(tidied)[: list(tidied).index("parent")], tidied["quantity"].unique()
    return [
        [*key, mine["parents"].max(), *(cell(mine, quantity=name) for name in names)]
        for key, mine in tidied.groupby(by, sort=False)
    ]


def titled(group: str) -> str:
    """A group before a noun: held-out tasks."""
    return group.replace(" out", "-out")


def counted(parents: int) -> str:
    """Of training runs, each from its own base: `3 bases`, `1 base`."""
    return f"{parents} base{'' if parents == 1 else 's'}"
