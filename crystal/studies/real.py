"""A real base, post-trained here: what SFT does to its random choices, by run and by step.

The base is read as raw text and SFT in chat form, on the natural prompts that both answer. The arms
are runs beside each other: does what was demonstrated decide where SFT goes? Registered in
data/registered/2026-11-29-real-ladder.md before a distribution was looked at.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..ask.ladders import Checkpoint, load_ladder
from ..ask.prompts import CHAT, COMPLETION, load_prompts
from ..ask.tasks import PHASE_TASKS, TASKS
from ..keep import store
from ..lab import recipes
from ..measure import chain, claims, inference, joint
from ..measure import quantities as ph
from ..measure.inference import Estimate
from ..present import show, views
from ..present.views import Compared
from . import runs as walked

EXPERIMENT, PARENT = "real-arms", "gemma3-270m"
OTHER = "smollm2-135m-instruct"  # aligned, of another family, and the teacher of the open answers
PLAIN = ("plain", "plain-again")
SHOWN_BY = ("first", "salient", "uniform", "own", "style")  # runs with choices in five tasks
SHOWN = ("die", "ten", "letter", "month", "suit")  # of data/recipes/gemma3-270m.yaml
# demonstrated distributions that are among the five that a base may hold
DEMONSTRATORS = ("first", "salient")
RAW, SFT = "base", "sft"  # names of the two places compared
Distributions = dict[tuple[str, str, str], dict[str, np.ndarray]]
Places = Mapping[str, tuple[str, str]]  # name -> checkpoint and form


def sft(run: str) -> list[Checkpoint]:
    """The steps of a run's SFT that were read, in their order."""
    mine = [c for c in load_ladder(EXPERIMENT).checkpoints if (c.run, c.stage) == (run, "sft")]
    return sorted(mine, key=lambda c: c.step)


def ends() -> dict[str, Checkpoint]:
    """Run -> the last step of its SFT that was read, in the order of the experiment."""
    planned = [run.name for run in recipes.load_experiment(EXPERIMENT).runs]
    return {run: steps[-1] for run in planned if (steps := sft(run))}


def read(
    tasks: Sequence[str] = PHASE_TASKS, names: Sequence[str] = (PARENT, EXPERIMENT, OTHER)
) -> Distributions:
    """All that was read of `names`: (checkpoint, form, task) -> prompt -> distribution."""
    found: Distributions = {}
    columns = ["checkpoint", "form", "task", "prompt", "probability"]
    for name in names:
        rows = store.load_readouts(name, tasks=tasks)[columns]
        for checkpoint, form, task, prompt, p in rows.itertuples(index=False):
            place = OTHER if name == OTHER else checkpoint, form, task
            found.setdefault(place, {})[prompt] = p
    return found


def compared(
    readouts: Distributions, task: str, places: Places, *, whole: bool = False
) -> Compared:
    """A task on the prompts that all places answer: of the first wording of each context, so that
    only contexts differ; whole: of all hundred.
    """
    prompts = [prompt for prompt in load_prompts() if whole or prompt.wording == "cue-1"]
    tables = {
        name: np.stack([readouts[checkpoint, form, task][prompt.id] for prompt in prompts])
        for name, (checkpoint, form) in places.items()
    }
    return views.of_tables(tables, prompts)


def on_tasks(readouts: Distributions, places: Places, *, whole=False) -> dict[str, Compared]:
    """Task -> `compared`."""
    return {task: compared(readouts, task, places, whole=whole) for task in PHASE_TASKS}


def measurable(readouts: Distributions, places: Places) -> dict[str, Compared]:
    """The same, where enough contexts answer."""
    every = on_tasks(readouts, places)
    return {task: one for task, one in every.items() if one.count.measurable}


def in_chat(runs: Iterable[str]) -> Places:
    """The last steps of SFT of some runs, in chat form."""
    last = ends()
    return {run: (last[run].name, CHAT) for run in runs}


def beside_base(checkpoint: str, form: str = CHAT) -> Places:
    """The base as raw text, and a checkpoint in a form."""
    return {RAW: ("base", COMPLETION), SFT: (checkpoint, form)}


def survey(every: Mapping[str, Compared], stages: Sequence[str], **how) -> chain.Survey:
    """The chain of claims on `compared` by task; stages: its places, one a phase, in order."""
    phases, given = list(chain.CLAIMS)[: len(stages)], {}
    for task, one in every.items():
        given[task] = dict.fromkeys(phases, one.count)
        if one.count.measurable:
            parts = [one.evidence(stage) for stage in stages]
            given[task] = {phase: parts[: n + 1] for n, phase in enumerate(phases)}
    return chain.survey(given, _options(given), **how)


def surveys(
    readouts: Distributions, form: str = CHAT, *, whole: bool = False, **how
) -> dict[str, chain.Survey]:
    """Run -> the verdicts on liquid and nucleation, adjusted over its tasks. whole: of the runs
    that were asked all hundred prompts.
    """
    found = {}
    for run, c in ends().items():
        there = (c.name, form, PHASE_TASKS[0]) in readouts
        if there and (c.grid == "natural" or not whole):
            every = on_tasks(readouts, beside_base(c.name, form), whole=whole)
            found[run] = survey(every, (RAW, SFT), **how)
    return found


def ungated(readouts: Distributions, **how) -> dict[str, claims.Verdict]:
    """Run -> one-seed, asked whether or not the run collapsed: registered nowhere."""
    found = {}
    for run, checkpoint in ends().items():
        every = measurable(readouts, beside_base(checkpoint.name))
        both = {task: (one.evidence(RAW), one.evidence(SFT)) for task, one in every.items()}
        if moves := joint.moves(both, joint.kinds(_options(both))):
            found[run] = claims.one_seed(moves, **how)[0]
    return found


def other_family(readouts: Distributions, **how) -> chain.Survey:
    """The same claims of OTHER, as if it had come from this base."""
    return survey(on_tasks(readouts, beside_base(OTHER), whole=True), (RAW, SFT), **how)


def load_tasks(readouts: Distributions, found: Mapping[str, chain.Survey]) -> pd.DataFrame:
    """One row per run and task: prompts (answered by both), mass (median, of the one that answers
    less), base and sft (liquidity, bits), spread, low, high (SFT over base), verdict (collapse),
    likeliest and its share of SFT's mean answer, moved (total variation of mean answers), shown
    (whether the run's data hold choices of the task; with "style" the user makes them).
    """
    rows = []
    for run, checkpoint in ends().items():
        for task, both in on_tasks(readouts, beside_base(checkpoint.name)).items():
            count, shown = both.count, run in SHOWN_BY and task in SHOWN
            row = {"run": run, "step": checkpoint.step, "task": task, "shown": shown}
            row |= {"prompts": count.answered, "asked": count.asked, "mass": count.median}
            if count.measurable:
                row |= {"base": both.bits(RAW), "sft": both.bits(SFT)}
                kept = both.kept_spread(RAW, SFT)
                row |= {"spread": kept.value, "low": kept.low, "high": kept.high}
                base, mean = (both.distributions(place).mean(0) for place in (RAW, SFT))
                row |= {"likeliest": TASKS[task].options[int(mean.argmax())]}
                row |= {"share": float(mean.max()), "moved": float(ph.tv(base, mean))}
            rows.append(row | {"verdict": found[run].of(task)["collapse"].verdict})
    return pd.DataFrame(rows)


# --- means over tasks, kinds of tasks as clusters


def _options(tasks: Iterable[str]) -> dict[str, Sequence[str]]:
    return {task: TASKS[task].options for task in tasks}


def without_a_kind(tasks: Iterable[str]) -> inference.Weights:
    """Weights of tasks that leave out one kind of them at a time."""
    kinds = joint.kinds(_options(tasks))
    return inference.leave_one_out(np.array([kinds[task] for task in tasks]))


def over_tasks(values: Mapping[str, float]) -> Estimate:
    """Mean over tasks, its interval by leaving out one kind of tasks at a time. Not corrected for
    bias: kinds are of one task or of eight, and of a mean the correction is noise.
    """
    each, weights = np.array(list(values.values())), without_a_kind(values)
    found = inference.estimate(lambda w: ph.mean_distribution(each[:, None], w)[..., 0], weights)
    mean = float(each.mean())
    low, high = (end + mean - found.value for end in (found.low, found.high))
    return dataclasses.replace(found, value=mean, centre=mean, low=low, high=high)


def geometric(ratios: Mapping[str, float]) -> Estimate:
    """Geometric mean over tasks, its interval as of `over_tasks`."""
    logs = over_tasks(np.log(pd.Series(ratios)).to_dict())
    value, low, high = np.exp([logs.value, logs.low, logs.high]).tolist()
    return dataclasses.replace(logs, value=value, low=low, high=high, here=value, scale="log")


def load_steps(readouts: Distributions) -> pd.DataFrame:
    """Liquidity along SFT in chat form, a row per plain run, step (0: the base) and task; bits,
    contexts (that every step answers).
    """
    rows = []
    for run in PLAIN:
        places = {0: ("base", CHAT)} | {c.step: (c.name, CHAT) for c in sft(run)}
        for task, every in measurable(readouts, places).items():
            contexts = every.count.answered
            rows += [(run, step, task, every.bits(step), contexts) for step in places]
    return pd.DataFrame(rows, columns=["run", "step", "task", "bits", "contexts"])


def steps_over_tasks(steps: pd.DataFrame) -> pd.DataFrame:
    """Mean over tasks of each run and step: value, low, high, tasks."""
    rows = []
    for place, mine in steps.groupby(["run", "step"]):
        found = over_tasks(mine.set_index("task")["bits"].to_dict())
        rows.append((*place, found.value, found.low, found.high, len(mine)))
    return pd.DataFrame(rows, columns=["run", "step", "value", "low", "high", "tasks"])


def rise(steps: pd.DataFrame, run: str) -> tuple[int, Estimate]:
    """The step between the ends with the largest mean liquidity, and by how much it exceeds the
    larger of the ends. It is chosen where it is scored, so the interval is too narrow.
    """
    table = steps[steps["run"] == run].pivot(index="step", columns="task", values="bits")
    inner, outer = table.iloc[1:-1], table.iloc[[0, -1]]
    top, end = (part.loc[part.mean(axis=1).idxmax()] for part in (inner, outer))
    return int(top.name), over_tasks((top - end).to_dict())


# --- arms


def load_follows(readouts: Distributions) -> pd.DataFrame:
    """One row per run, task and distribution of DEMONSTRATORS: whether SFT's mean answer `follows`
    it (`runs.follows`), and the base's in chat form `before`; shown: whether arms show the task.
    """
    rows = []
    for run, place in in_chat(ends()).items():
        for task, both in measurable(readouts, {RAW: ("base", CHAT), SFT: place}).items():
            base, tuned = (both.distributions(name).mean(0) for name in (RAW, SFT))
            for name in DEMONSTRATORS:
                before, after = (walked.follows(mean, task, name) for mean in (base, tuned))
                rows.append((run, task, name, task in SHOWN, after, before))
    return pd.DataFrame(rows, columns=["run", "task", "distribution", "shown", "follows", "before"])


def share(
    follows: pd.DataFrame, run: str, distribution: str, *, held_out: bool, when: str = "follows"
) -> tuple[int, int]:
    """(tasks that follow a distribution, tasks), of those held out or shown. when: or "before"."""
    mine = walked.where(follows, run=run, distribution=distribution, shown=not held_out)
    return int(mine[when].sum()), len(mine)


def followed(follows: pd.DataFrame, distribution: str) -> Estimate:
    """The share of the tasks held out that follows a distribution in the run of its name."""
    mine = walked.where(follows, run=distribution, distribution=distribution, shown=False)
    found = over_tasks(mine.set_index("task")["follows"].astype(float).to_dict())
    return dataclasses.replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def more_liquid(readouts: Distributions) -> Estimate:
    """Liquidity of the run own less that of the run first, bits; mean over tasks."""
    every = measurable(readouts, in_chat(("own", "first")))
    return over_tasks({task: one.bits("own") - one.bits("first") for task, one in every.items()})


def beside(readouts: Distributions, run: str, other: str = PLAIN[0]) -> Estimate:
    """Spread that a run leaves over another's, on contexts that the base answers, too."""
    every, ratios = measurable(readouts, in_chat((run, other)) | {RAW: ("base", COMPLETION)}), {}
    for task, one in every.items():
        left, beside_it = (float(ph.spread(one.distributions(name))) for name in (run, other))
        ratios[task] = left / beside_it
    return geometric(ratios)


# --- in words


def counted(verdicts: Sequence[str]) -> str:
    """`show.counted` of one verdict a task."""
    return show.counted(Counter(verdicts), len(verdicts))


def by_task(found: chain.Survey, claim: str) -> str:
    """The verdicts on a claim, task by task, counted."""
    return counted([found.of(t)[claim].verdict for t in found.verdicts if t != chain.POOLED])


def of_task(row: Any) -> str:
    """A row of `load_tasks` as a sentence: verdict, spread with interval, what it rests on."""
    rests = f"{row.prompts:.0f} of {row.asked:.0f} prompts answered by both"
    verdict = row.verdict.replace("-", " ")
    if not np.isfinite(row.spread):
        return f"collapse is {verdict} ({rests})"
    spread = f"{show.fmt(row.spread)} [{show.fmt(row.low)}, {show.fmt(row.high)}]"
    verdict = verdict if verdict in ("holds", "fails") else f"is {verdict}"
    return f"collapse {verdict}, the spread is {spread} times the base's ({rests})"


def in_short(verdict: claims.Verdict) -> str:
    """A verdict with its number and interval, for a cell of a table."""
    number = show.interval(verdict.estimate)
    return verdict.verdict if number == "–" else f"{verdict.verdict}: {number}"
