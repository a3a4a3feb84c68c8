"""Every run of an experiment, measured on the probe: one tidy frame, and means over parents.

One row per parent, run, step and task; a run begins at step 0 with the checkpoint of its parent
that it grew from. A parent is one trained ladder: two or more give an interval (Student's t), one
gives a number and no verdict.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..ask.ladders import Checkpoint, load_ladder
from ..ask.prompts import CHAT, PROBE
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError, known
from ..files import root
from ..keep import store
from ..lab import recipes, world
from ..measure import claims, evidence, quantities
from ..measure.inference import NOTHING, Estimate, Null, student
from ..present import show
from ..present.show import interval
from ..present.show import number as fmt
from ..present.views import on_tasks

Array = np.ndarray
SAME = 0.05  # total variation below which two distributions are one: on small tasks some are
NUMBERS = "liquidity entropy to_distribution to_base progress fluctuation probmass follows".split()
QUANTILE = 0.9
DEMONSTRATED, HELD_OUT, ALL = "demonstrated", "held out", "all tasks"
APART = (DEMONSTRATED, HELD_OUT)
SCOPES = (DEMONSTRATED, "held-out")
MEAN = "mean"  # in place of a parent
BEFORE = ["liquidity", "to_distribution", "found", "follows", "invalid"]  # kept of a run's start
PLACE = ["parent", "run", "task"]
SHARES = ("probmass", "invalid", "residual", "shared", "follow rate")
POSITIVE = "distance entropy liquidity kept ratio tv down back to_base to_uniform to_mean".split()
POSITIVE += ["to_distribution", "liquidity kept"]
BOUNDS = dict.fromkeys(SHARES, (0.0, 1.0)) | dict.fromkeys(POSITIVE, (0.0, np.inf))


# --- one checkpoint, one task


def measure(now: Array, origin: Array, task: str, intended: str) -> dict[str, float]:
    """What the probe says of a checkpoint. now, origin: (20, options), its answers and its base's.

    liquidity, entropy (mean over prompts), bits. JSD in bits of the mean answer to the intended
    distribution (to_distribution), of every prompt's answer to the base's, mean (to_base).
    progress, fluctuation: mean and variance of `progress`. probmass: on the smallest set that holds
    QUANTILE of the intended distribution. All nan where too few prompts answer both.
    """
    both = ~(np.isnan(now).any(1) | np.isnan(origin).any(1))
    if both.sum() < evidence.needed(len(both)):
        return dict.fromkeys(NUMBERS, np.nan) | {"found": ""}
    now, origin = now[both], origin[both]
    mean, aim = now.mean(0), world.distribution(intended, TASKS[task])
    way = progress(now, origin, aim)
    found = {
        "liquidity": quantities.liquidity_bits(now),
        "entropy": quantities.entropy_bits(now).mean(),
        "to_distribution": quantities.jsd_bits(mean, aim),
        "to_base": quantities.jsd_bits(now, origin).mean(),
        "progress": way.mean(),
        "fluctuation": way.var(),
        "probmass": quantities.probmass(mean, quantities.support(aim, QUANTILE)),
        "follows": follows(mean, task, intended),
    }
    return {name: float(x) for name, x in found.items()} | {"found": nearest(mean, task)}


def progress(now: Array, origin: Array, aim: Array) -> Array:
    """How far along the straight way to a distribution, (personas,): 0 at the origin, 1 there.

    The projection of the move; only personas who did not hold the distribution at the start.
    """
    way = aim - origin
    far = np.abs(way).sum(1) / 2 > 2 * SAME
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
    name: str, runs: Sequence[str] | None = None, *, intended: str | None = None
) -> pd.DataFrame:
    """`measure` along the recorded runs of an experiment, in chat form; runs: None = all.

    Beside it parent, family, run, stage, step, checkpoint, task, held_out, invalid. intended: None
    = each run's own demonstrator. A run that trains its own base is measured from that one.
    Raises: CrystalError if the experiment is unknown or none of its runs has been read.
    """
    planned = {run.name: run for run in recipes.load_experiment(name).runs}
    for run in runs or ():
        known(run, planned, f"run of {name}")
    checkpoints = [c for c in recorded_checkpoints(name) if c.run in (runs or planned)]
    if not checkpoints:
        hint = f"make ladder LADDER={name}"
        raise CrystalError(f"no run of experiment {name!r} has been read", hint=hint)
    frames, starts, rows = in_chat(name), {}, []
    for c in checkpoints:
        run, base = planned[c.run], f"{c.parent}/{c.run}/base"
        target = intended or run.set.get("temperament", load_ladder(c.parent).seed)
        origin = probe(frames[base]) if "base" in run.stages else origin_of(c.parent)
        rows += _rows(frames[c.name], c, origin, target)
        if run.start and run.stages:
            starts[c.parent, c.run] = load_ladder(c.parent).checkpoint(run.start), target
    begun = [
        row | {"run": run, "step": 0}
        for (parent, run), (c, target) in sorted(starts.items())
        for row in _rows(in_chat(parent)[c.name], c, origin_of(parent), target)
    ]
    return pd.DataFrame([*begun, *rows])


def recorded_checkpoints(name: str) -> list[Checkpoint]:
    """The checkpoints of an experiment's whole runs; of a run being read none."""
    done = recipes.load_records(name)
    return [c for c in load_ladder(name).checkpoints if f"{c.parent}/{c.run}" in done]


def along(parents: Sequence[str]) -> pd.DataFrame:
    """As `walk`, along the parents themselves, all that was read in chat form; run: the stage."""
    rows = []
    for parent in parents:
        ladder, frames, origin = load_ladder(parent), in_chat(parent), origin_of(parent)
        for c in ladder.checkpoints:
            rows += _rows(frames[c.name], c, origin, ladder.seed)
    return pd.DataFrame(rows)


def origin_of(parent: str, checkpoint: str = "base") -> dict[str, Array]:
    """Task -> answers of a parent's checkpoint to the probe in chat form, (20, options)."""
    return _origin(root(), parent, store.manifest_digest(parent), checkpoint)


@lru_cache(maxsize=64)
def _origin(root: Path, name: str, digest: str, checkpoint: str) -> dict[str, Array]:
    return probe(_by_checkpoint(root, name, digest)[checkpoint])


def in_chat(name: str) -> dict[str, pd.DataFrame]:
    """Checkpoint -> its read-outs in chat form; loaded once a process."""
    return _by_checkpoint(root(), name, store.manifest_digest(name))


@lru_cache(maxsize=16)
def _by_checkpoint(root: Path, name: str, digest: str) -> dict[str, pd.DataFrame]:
    return dict(tuple(store.load_readouts(name, forms=[CHAT]).groupby("checkpoint")))


def probe(frame: pd.DataFrame, form: str = CHAT, temperature: float = 1.0) -> dict[str, Array]:
    """Task -> answers to the probe, (20, options); nan where a prompt is not answered."""
    found = {}
    for task, table in on_tasks(frame, PHASE_TASKS, form, PROBE, temperature).items():
        mass = table.sum(1, keepdims=True)
        found[task] = np.where(evidence.answers(mass), table / np.maximum(mass, 1e-300), np.nan)
    return found


def _rows(
    frame: pd.DataFrame, checkpoint: Checkpoint, origin: dict[str, Array], intended: str
) -> list[dict]:
    """`measure` of a checkpoint in every task. frame: its read-outs in chat form."""
    parent, now = checkpoint.parent or checkpoint.ladder, probe(frame)
    ladder = load_ladder(parent)
    target = intended if intended != world.OWN else ladder.seed
    invalid = frame[frame["temperature"] == 1.0].groupby("task")["invalid"].mean()
    place = {"parent": parent, "family": family(parent), "run": checkpoint.run or checkpoint.stage}
    place |= {"stage": checkpoint.stage, "step": checkpoint.step, "checkpoint": checkpoint.name}
    return [
        place
        | {"task": task, "held_out": task not in ladder.demonstrated}
        | {"invalid": float(invalid[task])}
        | measure(now[task], origin[task], task, target)
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


def load_ends(
    name: str, runs: Sequence[str], *, parents: Sequence[str] = (), **intended: str
) -> pd.DataFrame:
    """`ends` of the recorded ones of these runs; empty if there are none. parents: none = all."""
    there = {key.partition("/")[2] for key in recipes.load_records(name)}
    wanted = [run for run in runs if run in there]
    if not wanted:
        return pd.DataFrame(columns=[*PLACE, "scope", *BEFORE, *(f"{of}_before" for of in BEFORE)])
    walked = walk(name, wanted, **intended)
    return ends(walked[walked["parent"].isin(parents or walked["parent"].unique())], runs)


def ends(walked: pd.DataFrame, runs: Sequence[str]) -> pd.DataFrame:
    """One row per parent, run (in their order) and task: the last step, and BEFORE of the first.

    walked: of `walk`. scope: one of SCOPES.
    """
    walked = walked.sort_values("step", kind="stable")
    first, last = (walked.drop_duplicates(PLACE, keep=keep) for keep in ("first", "last"))
    both = last.merge(first[[*PLACE, *BEFORE]], on=PLACE, suffixes=("", "_before"))
    both["scope"] = np.where(both["held_out"], *reversed(SCOPES))
    parents = sorted(set(walked["parent"]))
    return ordered(both, parent=parents, run=list(runs), scope=SCOPES, task=PHASE_TASKS)


def ordered(frame: pd.DataFrame, **orders: Sequence) -> pd.DataFrame:
    """The rows in the order of each column's values, the first column first."""
    place = lambda column: column.map(orders[column.name].index)  # noqa: E731
    return frame.sort_values(list(orders), key=place, ignore_index=True)


def kept(frame: pd.DataFrame) -> float:
    """Liquidity after over liquidity before, both the mean over tasks."""
    return frame["liquidity"].mean() / frame["liquidity_before"].mean()


def removed(frame: pd.DataFrame) -> float:
    """One less distance to the distribution after over before, means over tasks: 1 arrived."""
    return 1 - frame["to_distribution"].mean() / frame["to_distribution_before"].mean()


def follow_rate(frame: pd.DataFrame) -> float:
    """Share of rows whose nearest distribution is the intended one."""
    return frame["follows"].mean()


# --- over tasks and parents


def by_group(frame: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Means over tasks: one row per key and group (demonstrated, held out, all tasks).

    frame: one row per key and task. A mean over tasks of which one has no number is none.
    """
    apart = frame.assign(group=np.where(frame["held_out"], HELD_OUT, DEMONSTRATED))
    both = pd.concat([apart, frame.assign(group=ALL)], ignore_index=True)
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
    return dataclasses.replace(NOTHING, value=float(there.mean()) if len(there) else np.nan)


def judge_over(name: str, values: pd.Series, null: Null | None = None) -> claims.Verdict:
    """The verdict over parents, one number each; of fewer than two undecided, with the reason."""
    there = usable(values)
    if len(there) > 1:
        chance = null.typical if null else None
        found = claims.judge(name, estimate(values), null, chance=chance)
        return dataclasses.replace(found, reason=f"{found.reason} ({counted(len(there))})")
    why = "no base was read"
    if len(there):
        why = f"{fmt(there.iloc[0])} from the only base read, and one gives no interval"
    return claims.judge(name, NOTHING, null, nothing=why)


def intervals(frame: pd.DataFrame, keys: Sequence[str], value: str) -> pd.DataFrame:
    """Mean over parents with its interval (parent: MEAN), then every parent's value, by key.

    frame: one row per parent and key. parents: how many have a value.
    """
    rows = []
    for key, mine in frame.groupby(list(keys), sort=False):
        found, n = estimate(mine[value]), len(usable(mine[value]))
        rows.append((*key, MEAN, found.value, found.low, found.high, n))
        each = zip(mine["parent"], mine[value], strict=True)
        rows += [(*key, parent, x, np.nan, np.nan, n) for parent, x in each]
    return pd.DataFrame(rows, columns=[*keys, "parent", "value", "low", "high", "parents"])


def tidy(
    frame: pd.DataFrame, by: Sequence[str], quantities: Mapping[str, Callable]
) -> pd.DataFrame:
    """`intervals` of every quantity, named in the column quantity; each is of a parent's rows."""
    parts, groups = [], list(frame.groupby([*by, "parent"], sort=False))
    for quantity, value in quantities.items():
        each = [(*place, value(mine)) for place, mine in groups]
        found = intervals(pd.DataFrame(each, columns=[*by, "parent", quantity]), by, quantity)
        parts.append(found.assign(quantity=quantity))
    return pd.concat(parts, ignore_index=True)


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


def titled(group: str) -> str:
    """A group before a noun: held-out tasks."""
    return "held-out" if group == HELD_OUT else group


def counted(parents: int) -> str:
    """Of training runs, each from its own base: `3 bases`, `1 base`."""
    return f"{parents} base{'' if parents == 1 else 's'}"
