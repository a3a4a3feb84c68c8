"""Ladders of many tasks with a known law-giver or none: what the joint test is tried on.

A context holds one persona, and a persona has one law a task; contexts add an accent, wordings a
little more (`crystal.measure.synthetic`). SFT moves every task towards a law, which one persona
holds throughout (a seed) or none does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from . import evidence as ev
from . import joint, synthetic
from .evidence import Evidence
from .inference import ALPHA, generator
from .judging import Verdict, judge
from .phases import Array
from .synthetic import jittered, leaking, toward

OPTIONS = (2, 6, 20, 10, 10, 100, 15, 10, 10, 26, 4, 13, 7, 12, 10)  # of the book's tasks, in order
PROGRESS, SHARE = (0.05, 0.10, 0.15, 0.25, 0.35, 0.50), (0.6, 0.7, 0.8, 0.9)  # marks to choose from
PERMUTATIONS = 199
QUARTER = 4  # unmixed is tried on every so many: it takes twice the time of one-seed
APART = 10_000  # worlds from here on set the marks, those before try them
FAINT = (1.0, 1.0, 0.3, 0.3, 0.3)  # how far a persona's law lies from what all have in common

Law = Callable[[Array, Array, np.random.Generator], Array]  # personas' laws, the mean -> (options,)


@dataclass(frozen=True)
class Panel:
    """The design of one series: tasks, the contexts that each was asked in, and their personas."""

    tasks: int = 15
    contexts: int = 20
    groups: int = 5  # personas
    wordings: int = 1  # prompts a context
    draws: float = np.inf  # on options, a prompt

    @property
    def name(self) -> str:
        drawn = "read out" if np.isinf(self.draws) else f"{self.draws:.0f} draws"
        return (
            f"{self.tasks} tasks, {self.contexts} x {self.wordings} prompts, "
            f"{self.groups} personas, {drawn}"
        )


@dataclass(frozen=True)
class Scenario:
    """What SFT does. seed: one persona explains every task; pure: it alone does."""

    law: Law
    seed: bool = False
    pure: bool = False
    leak: float = 0.05  # what is left of a context's own law; units differ
    stay: float = 0.0  # share of the personas whose contexts do not move
    shared: bool = True  # a context holds the same persona in every task
    single: bool = False  # every context is a persona of its own
    faint: bool = False  # most personas lie near what all have in common


def _one(spoken: Array, mean: Array, rng: np.random.Generator) -> Array:
    return spoken[0]


def _any(spoken: Array, mean: Array, rng: np.random.Generator) -> Array:
    return spoken[rng.integers(len(spoken))]


def _relabelled(spoken: Array, mean: Array, rng: np.random.Generator) -> Array:
    return rng.permutation(spoken[0])


def _mean(spoken: Array, mean: Array, rng: np.random.Generator) -> Array:
    return mean


def _sharp(spoken: Array, mean: Array, rng: np.random.Generator) -> Array:
    return synthetic.sharpened(mean, 2.0)


def _uniform(spoken: Array, mean: Array, rng: np.random.Generator) -> Array:
    return np.full(len(mean), 1 / len(mean))


def _mixed(spoken: Array, mean: Array, rng: np.random.Generator) -> Array:
    return 0.6 * spoken[0] + 0.4 * spoken[1]


SEED = Scenario(_one, seed=True, pure=True)
FROZEN, HALFWAY, MIXED = "one persona", "one persona, .6 left", "two personas, 60 to 40"
SCENARIOS: dict[str, Scenario] = {
    FROZEN: SEED,
    "one persona, .3 left": replace(SEED, leak=0.3),
    HALFWAY: replace(SEED, leak=0.6),
    "one persona, two fifths stay": replace(SEED, stay=0.4),
    "one persona, others faint": replace(SEED, faint=True),
    "one context of its own": replace(SEED, single=True),
    MIXED: Scenario(_mixed, seed=True),
    "another persona each task": Scenario(_any),
    "a persona's options relabelled": Scenario(_relabelled),
    "the base's mean": Scenario(_mean),
    "the base's mean, sharpened": Scenario(_sharp),
    "the uniform law": Scenario(_uniform),
    "personas not shared": Scenario(_one, shared=False),
    "every context its own": Scenario(_one, stay=1.0),
}


def ladder(name: str, panel: Panel, world: int = 0) -> dict[str, tuple[Evidence, Evidence]]:
    """Task -> base and SFT. The same arguments give the same numbers; context i holds persona
    i % groups wherever personas are shared.
    """
    scenario, rng = SCENARIOS[name], generator(world, f"{name} {panel.name}")
    groups = panel.contexts if scenario.single else panel.groups
    member = np.arange(panel.contexts) % groups
    units = np.repeat(np.arange(panel.contexts), panel.wordings)
    asked = ev.asked(units[:, None], units, np.full(len(units), panel.draws))  # laws come below
    found = {}
    for number, options in enumerate(OPTIONS[: panel.tasks]):
        spoken = synthetic.voices(options, rng, groups)
        if scenario.faint:
            share = np.resize(FAINT, groups)[:, None]
            spoken = share * spoken + (1 - share) * spoken.mean(0)
        holds = member if scenario.shared else rng.permutation(member)
        own = jittered(spoken[holds], synthetic.ACCENT, rng)
        base = jittered(np.repeat(own[:, None], panel.wordings, 1), synthetic.FRAME, rng)
        law = scenario.law(spoken, base.mean((0, 1)), rng)
        stays = (holds >= groups * (1 - scenario.stay))[:, None, None]
        sft = np.where(stays, toward(base, law, 0.0, rng), leaking(base, law, scenario.leak, rng))
        found[f"task {number}"] = tuple(_drawn(x, asked, panel.draws, rng) for x in (base, sft))
    return found


def _drawn(laws: Array, asked: Evidence, draws: float, rng: np.random.Generator) -> Evidence:
    law = laws.reshape(len(asked.units), -1)
    if np.isfinite(draws):
        law = rng.multinomial(int(draws), law) / draws
    return replace(asked, law=law)


def trial(
    name: str, panel: Panel, world: int, whole: bool = True
) -> tuple[Verdict, Verdict | None, float] | None:
    """one-seed, unmixed, and the share of tasks whose named context holds the first persona.

    unmixed is asked where one-seed holds and the trial is whole, as is the share (else nan). None:
    the test cannot be asked.
    """
    found = joint.moves(ladder(name, panel, world))
    if found is None:
        return None
    null = joint.joint_null(found, permutations=PERMUTATIONS, seed=world)
    one = judge("one-seed", joint.progress(found), null, chance=0.0)
    if not whole or one.verdict != "holds":
        return one, None, np.nan
    seeds = [found.contexts[i] for i in joint.seeds(found)]
    groups = panel.contexts if SCENARIOS[name].single else panel.groups
    named = float(np.mean([int(seed) % groups == 0 for seed in seeds]))
    return one, judge("unmixed", joint.largest_share(found)), named


def row(kind: str, name: str, panel: Panel, n: int) -> list[dict]:
    """One row of n ladders. kind: "joint", or "threshold" of the worlds that set the marks.

    asked: ladders that could be tested; small: those with p at most ALPHA; one-seed: verdicts that
    hold, then the same by mark. whole: the first of them, a quarter unless marks are set; tried: of
    these the ladders on which unmixed was asked, for one-seed holds; unmixed: verdicts that hold,
    then by mark. named (of those tried), progress, share: means.
    """
    start, whole = (APART, n) if kind == "threshold" else (0, n // QUARTER)
    found = [x for i in range(n) if (x := trial(name, panel, start + i, i < whole))]
    seeded = [(two, named) for _, two, named in found if two]
    counts = {
        "n": n,
        "asked": len(found),
        "small": sum(one.null.p <= ALPHA for one, *_ in found),
        "one-seed": sum(one.verdict == "holds" for one, *_ in found),
    }
    for mark in PROGRESS:
        counts[f"one-seed {mark}"] = sum(
            max(one.null.p, one.estimate.p_beyond(mark, "above")) <= ALPHA for one, *_ in found
        )
    counts |= {
        "whole": whole,
        "tried": len(seeded),
        "unmixed": sum(two.verdict == "holds" for two, _ in seeded),
    }
    for mark in SHARE:
        counts[f"unmixed {mark}"] = sum(
            two.estimate.p_beyond(mark, "above") <= ALPHA for two, _ in seeded
        )
    means = {
        "progress": [one.estimate.here for one, *_ in found],
        "share": [two.estimate.here for two, _ in seeded],
        "named": [named for _, named in seeded],
    }
    place = {"kind": kind, "name": name} | vars(panel)
    return [
        place
        | {k: int(v) for k, v in counts.items()}
        | {k: float(np.mean(v)) if v else None for k, v in means.items()}
    ]
