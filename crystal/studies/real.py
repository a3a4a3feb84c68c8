"""A real base, post-trained here: what SFT does to its random choices, by run and by step.

The base is read as raw text and SFT in chat form, on the natural prompts; a run is compared with
the base on the prompts that both answer. Registered in data/registered/2026-11-29-real-ladder.md
before a law was looked at. Drawn by `real_figures`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..ask.ladders import Rung, load_ladder
from ..ask.prompts import CHAT, COMPLETION, load_prompts
from ..ask.tasks import PHASE_TASKS, TASKS
from ..keep import store
from ..lab import recipes
from ..measure import chain, claims, inference, joint
from ..measure import quantities as ph
from ..measure.inference import Estimate
from ..present import show, views
from ..present.views import Compared

EXPERIMENT, PARENT = "real-arms", "gemma3-270m"
OTHER = "smollm2-135m-instruct"  # aligned, of another family, and the teacher of the open answers
PLAIN = ("plain", "plain-again")
SHOWN_BY = ("first", "salient", "uniform", "own", "style")  # runs with choices in five tasks
SHOWN = ("die", "ten", "letter", "month", "suit")  # of data/recipes/gemma3-270m.yaml
RAW, TUNED = "base", "SFT"  # names of the two sides of a comparison
Laws = dict[tuple[str, str, str], dict[str, np.ndarray]]


def ends() -> dict[str, Rung]:
    """Run -> the last step of its SFT that was read, in the order of the experiment."""
    rungs = [rung for rung in load_ladder(EXPERIMENT).rungs if rung.stage == "sft"]
    return {
        run.name: max((r for r in rungs if r.run == run.name), key=lambda r: r.step)
        for run in recipes.load_experiment(EXPERIMENT).runs
        if any(r.run == run.name for r in rungs)
    }


def read(tasks: Sequence[str] = PHASE_TASKS) -> Laws:
    """Read-outs of the base, of all runs and of OTHER: (rung, form, task) -> prompt -> law."""
    found: Laws = {}
    for name in (PARENT, EXPERIMENT, OTHER):
        frame = store.load_readouts(name, tasks=tasks)
        columns = (frame[column] for column in ("rung", "form", "task", "prompt", "probability"))
        for rung, form, task, prompt, law in zip(*columns, strict=True):
            place = OTHER if name == OTHER else rung, form, task
            found.setdefault(place, {})[prompt] = law
    return found


def compared(
    readouts: Laws, task: str, places: Mapping[str, tuple[str, str]], *, whole: bool = False
) -> Compared:
    """A task on the prompts that all places answer. places: name -> rung and form.

    whole: of all hundred prompts; else of the first wording of each context, which every rung was
    asked, so that nothing but the context sets two prompts apart.
    """
    prompts = [prompt for prompt in load_prompts() if whole or prompt.wording == "cue-1"]
    tables = {
        name: np.stack([readouts[rung, form, task][prompt.id] for prompt in prompts])
        for name, (rung, form) in places.items()
    }
    return views.of_tables(tables, prompts)


def pairs(
    readouts: Laws, rung: Rung, form: str = CHAT, *, whole: bool = False
) -> dict[str, Compared]:
    """Task -> the base as raw text beside a rung in a form."""
    places = {RAW: ("base", COMPLETION), TUNED: (rung.name, form)}
    return {task: compared(readouts, task, places, whole=whole) for task in PHASE_TASKS}


def surveys(
    readouts: Laws, form: str = CHAT, *, whole: bool = False, runs: Sequence[str] = (), **how
) -> dict[str, chain.Survey]:
    """Run -> the verdicts on liquid and nucleation, adjusted over its tasks. whole: on all hundred
    prompts, of the runs that were asked these. runs: none but these.
    """
    found = {}
    for run, rung in ends().items():
        if runs and run not in runs:
            continue
        if (rung.name, form, PHASE_TASKS[0]) not in readouts:
            continue
        if not whole or rung.grid == "natural":
            both = pairs(readouts, rung, form, whole=whole)
            parts = {task: _parts(one) for task, one in both.items()}
            found[run] = chain.survey(parts, {task: TASKS[task].options for task in parts}, **how)
    return found


def ungated(readouts: Laws, **how) -> dict[str, claims.Verdict]:
    """Run -> one-seed, asked whether or not the run collapsed; registered nowhere, so no verdict of
    the chain: it says where an answer would lie.
    """
    found = {}
    for run, rung in ends().items():
        both = {
            task: (one.evidence(RAW), one.evidence(TUNED))
            for task, one in pairs(readouts, rung).items()
            if one.count.measurable
        }
        moves = joint.moves(both, joint.kinds({task: TASKS[task].options for task in both}))
        if moves:
            found[run] = claims.one_seed(moves, **how)[0]
    return found


def other_family(readouts: Laws, **how) -> chain.Survey:
    """The same claims of OTHER, as if it had come from this base: is the seed of the one in the
    base of the other? Tasks that it does not answer are not measurable.
    """
    places = {RAW: ("base", COMPLETION), TUNED: (OTHER, CHAT)}
    both = {task: compared(readouts, task, places, whole=True) for task in PHASE_TASKS}
    options = {task: TASKS[task].options for task in PHASE_TASKS}
    return chain.survey({task: _parts(one) for task, one in both.items()}, options, **how)


def _parts(both: Compared) -> chain.Parts:
    if not both.count.measurable:
        return dict.fromkeys((chain.LIQUID, chain.NUCLEATION), both.count)
    base, tuned = both.evidence(RAW), both.evidence(TUNED)
    return {chain.LIQUID: [base], chain.NUCLEATION: [base, tuned]}


def load_tasks(readouts: Laws, found: Mapping[str, chain.Survey], form: str = CHAT) -> pd.DataFrame:
    """One row per run and task: prompts (answered by both), mass (median, of the one that answers
    less), base and sft (liquidity, bits), spread, low, high (SFT over base; whatever its verdict),
    verdict (collapse), likeliest and its share of SFT's mean law, shown.
    """
    rows = []
    for run, rung in ends().items():
        for task, both in pairs(readouts, rung, form).items():
            place = {
                "run": run,
                "step": rung.step,
                "task": task,
                "shown": shown(run, task),
                "prompts": both.count.answered,
                "asked": both.count.asked,
                "mass": both.count.median,
            }
            rows.append(
                place
                | (_moved(both, task) if both.count.measurable else {})
                | {"verdict": found[run].of(task)["collapse"].verdict}
            )
    return pd.DataFrame(rows)


def shown(run: str, task: str) -> bool:
    """Whether a run's data hold choices of a task; with "style" the user makes them."""
    return run in SHOWN_BY and task in SHOWN


def _moved(both: Compared, task: str) -> dict:
    base, tuned = both.laws(RAW), both.laws(TUNED)
    spread = inference.ratio(
        lambda w: ph.spread(tuned, w), lambda w: ph.spread(base, w), both.weights
    )
    mean = tuned.mean(0)
    return {
        "base": float(ph.liquidity_bits(base)),
        "sft": float(ph.liquidity_bits(tuned)),
        "spread": spread.value,
        "low": spread.low,
        "high": spread.high,
        "likeliest": TASKS[task].options[int(mean.argmax())],
        "share": float(mean.max()),
        "moved": float(ph.tv(base.mean(0), mean)),
    }


# --- means over tasks, kinds of tasks as units ---------------------------------------------------


def over_tasks(values: Mapping[str, float]) -> Estimate:
    """Mean over tasks, its interval by leaving out one kind of tasks at a time (jackknife and
    Student's t). The mean is not corrected for bias: kinds are of one task or of eight, and of a
    mean over tasks the correction is noise.
    """
    kinds = joint.kinds({task: TASKS[task].options for task in values})
    each = np.array(list(values.values()))
    weights = inference.leave_one_out(np.array([kinds[task] for task in values]))
    found = inference.estimate(lambda w: ph.mean_law(each[:, None], w)[..., 0], weights)
    mean = float(each.mean())
    low, high = (end + mean - found.value for end in (found.low, found.high))
    return dataclasses.replace(found, value=mean, centre=mean, low=low, high=high)


def load_steps(readouts: Laws) -> pd.DataFrame:
    """Liquidity along SFT in chat form, on the contexts that the base and every step answer: one
    row per plain run, step and task; bits, contexts. Step 0 is the base in chat form.
    """
    rows = []
    for run in PLAIN:
        rungs = sorted(
            (r for r in load_ladder(EXPERIMENT).rungs if r.run == run and r.stage == "sft"),
            key=lambda r: r.step,
        )
        places = {"0": ("base", CHAT)} | {str(r.step): (r.name, CHAT) for r in rungs}
        for task in PHASE_TASKS:
            every = compared(readouts, task, places)
            if every.count.measurable:
                rows += [
                    {
                        "run": run,
                        "step": int(step),
                        "task": task,
                        "bits": float(ph.liquidity_bits(every.laws(step))),
                        "contexts": every.count.answered,
                    }
                    for step in places
                ]
    return pd.DataFrame(rows)


def steps_over_tasks(steps: pd.DataFrame) -> pd.DataFrame:
    """Mean over tasks of each run and step: value, low, high, tasks."""
    rows = []
    for (run, step), mine in steps.groupby(["run", "step"]):
        found = over_tasks(dict(zip(mine["task"], mine["bits"], strict=True)))
        rows.append(
            {
                "run": run,
                "step": step,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "tasks": len(mine),
            }
        )
    return pd.DataFrame(rows)


def rise(steps: pd.DataFrame, run: str) -> tuple[int, Estimate]:
    """The step between first and last with the largest mean liquidity, and by how much it exceeds
    the larger of the two ends, task by task.

    The step is chosen where it is scored, so the interval is too narrow: what does not exceed zero
    by it does not rise.
    """
    table = steps[steps["run"] == run].pivot(index="step", columns="task", values="bits")
    inner = table.iloc[1:-1]
    step = int(inner.mean(axis=1).idxmax())
    outer = table.iloc[[0, -1]]
    end = outer.loc[outer.mean(axis=1).idxmax()]
    return step, over_tasks((inner.loc[step] - end).to_dict())


# --- in words ------------------------------------------------------------------------------------


def counted(verdicts: Sequence[str]) -> str:
    """`show.counted` of one verdict a task."""
    return show.counted(Counter(verdicts), len(verdicts))


def of_task(row: Any) -> str:
    """A row of `load_tasks` as a sentence: verdict, spread with interval, what it rests on."""
    rests = f"{row.prompts:.0f} of {row.asked:.0f} prompts answered by both"
    if not np.isfinite(row.spread):
        return f"collapse is {row.verdict.replace('-', ' ')} ({rests})"
    spread = f"{show.fmt(row.spread)} [{show.fmt(row.low)}, {show.fmt(row.high)}]"
    tested = row.verdict in ("holds", "fails")
    verdict = row.verdict if tested else f"is {row.verdict.replace('-', ' ')}"
    return f"collapse {verdict}, the spread is {spread} times the base's ({rests})"


def in_short(verdict: claims.Verdict) -> str:
    """A verdict with its number and interval, for a cell of a table."""
    number = show.interval(verdict.estimate)
    return verdict.verdict if number == "–" else f"{verdict.verdict}: {number}"
