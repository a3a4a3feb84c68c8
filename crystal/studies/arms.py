"""Arms on a real base: does what was demonstrated decide where SFT goes?

The runs of `real` beside each other, in chat form, on the contexts that all compared answer.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from scipy.special import betaincinv

from ..ask.prompts import CHAT, COMPLETION
from ..ask.tasks import PHASE_TASKS
from ..measure import quantities as ph
from ..measure.inference import Estimate
from . import real, runs

LAWS = ("first", "salient")  # demonstrated laws that are among the five that a base may hold


def load_follows(readouts: real.Laws) -> pd.DataFrame:
    """One row per run, task and law of LAWS: follows, whether SFT's mean answer lies nearest to
    that law of the five (`runs.follows`); shown: whether the arms show the task; before: the
    same of the base in chat form.
    """
    rows = []
    for run, rung in real.ends().items():
        for task in PHASE_TASKS:
            places = {real.RAW: ("base", CHAT), real.TUNED: (rung.name, CHAT)}
            both = real.compared(readouts, task, places)
            if both.count.measurable:
                means = {name: both.laws(name).mean(0) for name in (real.RAW, real.TUNED)}
                rows += [
                    {
                        "run": run,
                        "task": task,
                        "law": law,
                        "shown": task in real.SHOWN,
                        "follows": runs.follows(means[real.TUNED], task, law),
                        "before": runs.follows(means[real.RAW], task, law),
                    }
                    for law in LAWS
                ]
    return pd.DataFrame(rows)


def share(
    follows: pd.DataFrame, run: str, law: str, *, held_out: bool, when: str = "follows"
) -> tuple[int, int]:
    """(tasks that follow a law, tasks), of those held out or of those shown. when: "before": of the
    base in chat form.
    """
    mine = follows[
        (follows["run"] == run) & (follows["law"] == law) & (follows["shown"] != held_out)
    ]
    return int(mine[when].sum()), len(mine)


def more_liquid(readouts: real.Laws, run: str = "own", than: str = "first") -> Estimate:
    """Liquidity of a run less that of another, bits, both in chat form on the contexts that both
    answer; mean over tasks.
    """
    last, differ = real.ends(), {}
    places = {name: (last[name].name, CHAT) for name in (run, than)}
    for task in PHASE_TASKS:
        both = real.compared(readouts, task, places)
        if both.count.measurable:
            bits = {name: float(ph.liquidity_bits(both.laws(name))) for name in places}
            differ[task] = bits[run] - bits[than]
    return real.over_tasks(differ)


def followed(follows: pd.DataFrame, law: str) -> Estimate:
    """Of the tasks held out, the share that follows the law that a run of its name demonstrated;
    interval over kinds of tasks.
    """
    mine = follows[(follows["run"] == law) & (follows["law"] == law) & ~follows["shown"]]
    found = real.over_tasks(dict(zip(mine["task"], mine["follows"].astype(float), strict=True)))
    return dataclasses.replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def beside(readouts: real.Laws, run: str, other: str = real.PLAIN[0]) -> Estimate:
    """Spread that a run leaves over that which another leaves, on the contexts that both and the
    base answer; geometric mean over tasks. Registered nowhere.
    """
    last, logs = real.ends(), {}
    places = {name: (last[name].name, CHAT) for name in (run, other)} | {
        real.RAW: ("base", COMPLETION)
    }
    for task in PHASE_TASKS:
        every = real.compared(readouts, task, places)
        if every.count.measurable:
            mine, its = (float(ph.spread(every.laws(name))) for name in (run, other))
            logs[task] = np.log(mine / its)
    found = real.over_tasks(logs)
    value, low, high = np.exp([found.value, found.low, found.high]).tolist()
    return Estimate(value, low, high, here=value)


def proportion(hits: int, among: int) -> Estimate:
    """A share with its exact 95 % interval (Clopper and Pearson)."""
    low = float(betaincinv(hits, among - hits + 1, 0.025)) if hits else 0.0
    high = float(betaincinv(hits + 1, among - hits, 0.975)) if hits < among else 1.0
    return Estimate(hits / among, low, high)
