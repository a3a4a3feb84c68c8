"""Experiments as numbers: every run of every parent, rung by rung, measured on the probe and laid out as one tidy frame.

One row per parent, run, step and task. A run begins at step 0 with the rung of the parent that it grew from. Intervals of
an experiment run over parents: `over_parents`. Knows the ground truth of the organisms' world; loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..ask.ladders import Rung, load_ladder
from ..ask.prompts import CHAT, PROBE
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError, known
from ..files import root
from ..keep import store
from ..lab import experiments, world
from ..measure import answered, phases
from ..measure.inference import Estimate, student
from ..present.answering import unconditional

Array = np.ndarray
SAME = 0.05  # total variation below which two laws count as one: on small tasks several temperaments coincide
QUANTILE = 0.9
MEASURED = ("liquidity", "entropy", "to_law", "to_base", "progress", "fluctuation", "probmass", "found",
            "follows")


# --- one rung, one task ----------------------------------------------------------------------------------------------


def measure(now: Array, origin: Array, task: str, intended: str) -> dict[str, float]:
    """What the probe says of a rung. now, origin: (20, options), the rung's answers and those of the base in chat form.

    liquidity, entropy (of a prompt's answer, mean): bits. to_law, to_base: JSD in bits of the mean answer to the intended
    law, and of every prompt's answer to the base's, mean. progress, fluctuation: mean and variance over narrators of the way
    gone. probmass: mass on the smallest set holding QUANTILE of the intended law. follows: the
    nearest law is the intended. Of the prompts that both answer; nan where these are too few.
    """
    both = ~(np.isnan(now).any(1) | np.isnan(origin).any(1))
    if both.sum() < answered.needed(len(both)):
        return dict.fromkeys(MEASURED, np.nan) | {"found": ""}
    now, origin = now[both], origin[both]
    law, mean = world.law(intended, TASKS[task]), now.mean(0)
    way = progress(now, origin, law)
    return {
        "liquidity": float(phases.liquidity_bits(now)), "entropy": float(phases.entropy_bits(now).mean()),
        "to_law": float(phases.jsd_bits(mean, law)), "to_base": float(phases.jsd_bits(now, origin).mean()),
        "progress": float(way.mean()), "fluctuation": float(way.var()),
        "probmass": float(phases.probmass(mean, phases.support(law, QUANTILE))),
        "found": found_law(mean, task), "follows": float(follows(mean, task, intended)),
    }


def progress(now: Array, origin: Array, law: Array) -> Array:
    """Of every narrator who did not hold the law at the start, how far along the way to it: (narrators,), 0 at origin, 1 at law.

    The projection of the move since the origin on the straight way; beyond 1 is beyond the law.
    """
    way = law - origin
    far = np.abs(way).sum(1) / 2 > 2 * SAME
    return ((now - origin) * way).sum(1)[far] / (way**2).sum(1)[far]


def found_law(mean: Array, task: str) -> str:
    """The temperament whose ground-truth law has the smallest JSD to a mean answer."""
    return world.LAWS[int(np.argmin(phases.jsd_bits(mean, _laws(task))))]


@cache
def _laws(task: str) -> Array:
    return np.stack([world.law(name, TASKS[task]) for name in world.LAWS])


def follows(mean: Array, task: str, intended: str) -> bool:
    """Whether the found law is the intended one, or no different from it in this task."""
    found = _laws(task)[world.LAWS.index(found_law(mean, task))]
    return bool(phases.tv(found, world.law(intended, TASKS[task])) <= SAME)


# --- a whole experiment ----------------------------------------------------------------------------------------------


def walk(name: str, runs: Sequence[str] | None = None, *, intended: str | None = None) -> pd.DataFrame:
    """`measure` along the chat form of every recorded run of an experiment; runs: None = all.

    Columns: parent, family, run, stage, step, rung, task, held_out, and those of `measure`. intended: None = the demonstrator
    of each run, or of its parent where the run changes nothing about it.
    Raises: CrystalError if the experiment is unknown or none of its runs has been read.
    """
    experiment = experiments.load_experiment(name)
    chosen = {run.name: run for run in experiment.runs}
    for run in runs or ():
        known(run, chosen, f"run of {name}")
    done, ladder = experiments.load_records(name), load_ladder(name)
    rungs = [rung for rung in ladder.rungs if rung.run in (runs or chosen) and f"{rung.parent}/{rung.run}" in done]
    if not rungs:
        raise CrystalError(f"no run of experiment {name!r} has been read", mend=f"make ladder LADDER={name}")
    frames, origins, rows = in_chat_by_rung(name), {}, []
    for rung in rungs:
        run = chosen[rung.run]
        own = own_base(rung) if "base" in run.stages else None
        if (origin := own or rung.parent) not in origins:
            origins[origin] = in_chat(frames[own], own) if own else origin_of(rung.parent)
        target = intended or run.set.get("temperament", load_ladder(rung.parent).seed)
        now = in_chat(frames[rung.name], rung.name)
        rows += _rows(now, frames[rung.name], rung, origins[origin], target)
    return pd.concat([_starts(rows, chosen, intended), pd.DataFrame(rows)], ignore_index=True)


def along(parents: Sequence[str], *, intended: str | None = None) -> pd.DataFrame:
    """As `walk`, along the parents themselves: every rung they were read at in chat form; run is the stage."""
    rows = []
    for parent in parents:
        ladder = load_ladder(parent)
        frames, origin = in_chat_by_rung(parent), origin_of(parent)
        for rung in ladder.rungs:
            now = origin_of(parent, rung.name)
            rows += _rows(now, frames[rung.name], rung, origin, intended or ladder.seed)
    return pd.DataFrame(rows)


def origin_of(parent: str, rung: str = "base") -> dict[str, Array]:
    """Task -> answers of a parent's rung to the probe in chat form, (20, options)."""
    return _origin(root(), parent, store.manifest_digest(parent), rung)


@lru_cache(maxsize=64)
def _origin(root: Path, name: str, digest: str, rung: str) -> dict[str, Array]:
    return in_chat(_by_rung(root, name, digest)[rung], rung)


def in_chat_by_rung(name: str) -> dict[str, pd.DataFrame]:
    """Rung -> its read-outs in chat form; loaded once a process, for every shard is verified."""
    return _by_rung(root(), name, store.manifest_digest(name))


@lru_cache(maxsize=16)
def _by_rung(root: Path, name: str, digest: str) -> dict[str, pd.DataFrame]:
    return dict(tuple(store.load_readouts(name, forms=[CHAT]).groupby("rung")))


def in_chat(frame: pd.DataFrame, rung: str) -> dict[str, Array]:
    """Task -> answers of a rung to the probe in chat form, (20, options); frame: of its ladder.

    Rows of prompts that are not answered (`measure.answered`) are nan.
    Raises: CrystalError for a prompt that was not read.
    """
    mine = frame[(frame["rung"] == rung) & (frame["form"] == CHAT) & (frame["temperature"] == 1.0)]
    laws = dict(zip(zip(mine["task"], mine["prompt"], strict=True), mine["probability"], strict=True))
    found = {}
    for task in PHASE_TASKS:
        rows = [laws.get((task, prompt.id)) for prompt in PROBE]
        if any(row is None for row in rows):  # says which prompt
            unconditional(frame, rung, task, CHAT, prompts=PROBE)
        table = np.stack(rows)
        mass = table.sum(1, keepdims=True)
        found[task] = np.where(answered.answers(mass), table / np.maximum(mass, 1e-300), np.nan)
    return found


def own_base(rung: Rung) -> str:
    """Name of the base that a run trained for itself: what its later rungs are measured from, in place of the parent's."""
    return f"{rung.parent}/{rung.run}/base"


def _rows(
    now: dict[str, Array], frame: pd.DataFrame, rung: Rung, origin: dict[str, Array], intended: str,
) -> list[dict]:
    """`measure` of a rung in every task. now: its answers, `in_chat` of frame."""
    parent = rung.parent or rung.ladder
    off = frame[frame["temperature"] == 1.0].groupby("task")["off_support"].mean()
    demonstrated = load_ladder(parent).demonstrated
    target = intended if intended != world.OWN else load_ladder(parent).seed
    place = {"parent": parent, "family": family(parent), "run": rung.run or rung.stage, "stage": rung.stage, "step": rung.step,
             "rung": rung.name}
    return [
        place
        | {
            "task": task,
            "held_out": task not in demonstrated,
            "off_support": float(off[task]),
        }
        | measure(now[task], origin[task], task, target)
        for task in PHASE_TASKS
    ]


def _starts(rows: list[dict], runs: dict[str, experiments.Run], intended: str | None) -> pd.DataFrame:
    """Step 0 of every run that began at a rung of its parent."""
    begun = {(row["parent"], row["run"]) for row in rows if runs[row["run"]].start and runs[row["run"]].stages}
    out = []
    for parent, run in sorted(begun):
        start, ladder = runs[run].start, load_ladder(parent)
        frame, origin = in_chat_by_rung(parent)[start], origin_of(parent)
        target = intended or runs[run].set.get("temperament", ladder.seed)
        now = origin_of(parent, start)
        out += [row | {"run": run, "step": 0} for row in _rows(now, frame, ladder.rung(start), origin, target)]
    return pd.DataFrame(out)


def family(parent: str) -> str:
    """The ladder a replica is one of: nano-llama of nano-llama-2."""
    head, _, tail = parent.rpartition("-")
    return head if tail.isdigit() else parent


def accuracy(name: str, kind: str = "facts") -> pd.DataFrame:
    """Columns parent, run, rung, accuracy: probability of the right answer in chat form; kind: facts or arithmetic."""
    return pd.DataFrame([
        {"parent": key.split("/")[0], "run": key.split("/")[1], "rung": f"{key}/{rung}", "accuracy": found[kind]}
        for key, record in experiments.load_records(name).items() for rung, found in record["accuracy"].items()])


# --- intervals -------------------------------------------------------------------------------------------------------


def over_parents(values: Sequence[float] | pd.Series, low: float = -np.inf, high: float = np.inf) -> Estimate:
    """Mean over parents with Student's 95 % interval (`inference.student`).

    low, high: what the quantity cannot leave, such as 0 and 1; two or three parents give intervals that do.
    Raises: CrystalError for fewer than two parents, of which no interval can be said.
    """
    if len(values) < 2:
        raise CrystalError(f"{len(values)} parent gives no interval", mend="make ladder ALL=1 trains the replicas")
    return student(np.asarray(values, float), low=low, high=high)


def half_life(steps: Array, liquidity: Array) -> float:
    """First step at which liquidity is at most half of its first value, linear between watched steps; nan if it never is."""
    steps, share = np.asarray(steps, float), np.asarray(liquidity, float) / liquidity[0]
    below = np.flatnonzero(share <= 0.5)
    if not below.size:
        return float("nan")
    i = below[0]
    return float(steps[i - 1] + (share[i - 1] - 0.5) / (share[i - 1] - share[i]) * (steps[i] - steps[i - 1]))


def per_parent(frame: pd.DataFrame, value: Callable[[pd.DataFrame], float]) -> pd.Series:
    """`value` of every parent's part of a frame, indexed by parent."""
    return pd.Series({parent: value(mine) for parent, mine in frame.groupby("parent", sort=False)})


