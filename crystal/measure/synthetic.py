"""Ladders of known truth, made of numbers alone: the claims are tried on them, then believed.

One task: a *population* holds many clusters (contexts) with a few prompts each, a sample some of
them. Cluster i holds voice i % VOICES, with an accent of its own; templates add a little. Many
tasks: a context holds one persona, and a persona has one distribution a task.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from . import evidence as ev
from . import quantities as ph
from .evidence import Evidence
from .inference import generator
from .quantities import Array

VOICES = 5
POPULATION = 600  # clusters
ACCENT = 6.0  # concentration per option of a cluster's distribution around its voice
TEMPLATE = 20.0  # and of a prompt's around its cluster's
UNEVEN = 0.5  # standard deviation of the logarithm of what is left of a cluster's own distribution
STAGES = ("base", "sft", "final")
Stages = dict[str, Array]  # stage -> (clusters, templates, options)
Rng = np.random.Generator

# --- distributions


def jittered(p: Array, concentration: float, rng: Rng) -> Array:
    """Dirichlet distributions around p, (..., options); concentration: per option."""
    return ph.even(rng.standard_gamma(concentration * p.shape[-1] * p + 0.02))


def voices(options: int, rng: Rng, count: int = VOICES) -> Array:
    """(count, options): uneven, no option quite impossible."""
    return 0.95 * rng.dirichlet(np.full(options, 0.5), count) + 0.05 / options


def liquid_base(options: int, rng: Rng, templates=5, clusters=POPULATION) -> tuple[Array, Array]:
    """(voices, base): base (clusters, templates, options)."""
    spoken = voices(options, rng)
    own = jittered(spoken[np.arange(clusters) % VOICES], ACCENT, rng)
    return spoken, jittered(np.repeat(own[:, None], templates, 1), TEMPLATE, rng)


def again(p: Array, rng: Rng) -> Array:
    """With a little noise."""
    return jittered(p, 4 * TEMPLATE, rng)


def mixed(p: Array, q: Array, share: float | Array) -> Array:
    """`share` of the way from p to q."""
    return (1 - share) * p + share * q


def leaking(base: Array, p: Array, leak: float, rng: Rng) -> Array:
    """Moved to p, but for what is left of a cluster's own: log-normal around `leak`."""
    left = np.clip(leak * np.exp(UNEVEN * rng.standard_normal((len(base), 1, 1))), 0, 0.95)
    return mixed(base, p, 1 - left)


def absent(spoken: Array) -> Array:
    """A distribution that no voice is near: the options the base likes least come first."""
    mean = spoken.mean(0)
    upside_down = np.empty(len(mean))
    upside_down[np.argsort(mean, kind="stable")] = np.sort(spoken[0])[::-1]
    return upside_down


def sharpened(p: Array, power: float) -> Array:
    """As by a lower temperature."""
    return ph.even(p**power)


def bottom(p: Array) -> Array:
    """Uniform on the lower half of a ranking."""
    return ph.even(ph.lower_half(p).astype(float))


# --- one task


def _onto(find: Callable = lambda spoken: spoken[0], leak: float = 0.05) -> Callable:
    """SFT freezes onto one distribution."""
    return lambda base, spoken, rng: leaking(base, find(spoken), leak, rng)


def _settled(sft: Array, *_) -> Array:
    return sharpened(sft, 1.2)


SCENARIOS: dict[str, tuple[Callable, Callable]] = {  # what SFT and the last stage make, but noise
    "liquid kept": (lambda base, *_: base, lambda sft, *_: sft),
    "frozen onto one of the base": (_onto(), _settled),
    "frozen onto one it lacks": (_onto(absent), _settled),
    "frozen with leak": (_onto(leak=0.3), _settled),
    "re-melted": (_onto(), lambda sft, base, spoken: base),
    "sharpened": (
        lambda base, *_: sharpened(base, 2.0),
        lambda sft, base, spoken: sharpened(base, 3.0),
    ),
    "low ranks promoted": (_onto(), lambda sft, base, spoken: mixed(sft, bottom(spoken[0]), 0.3)),
}


# Names of random streams under which the rows that are kept were made, where it was another.
STREAMS = {
    "frozen onto one of the base": "frozen onto a base law",
    "frozen onto one it lacks": "frozen onto a law the base lacks",
    "the uniform distribution": "the uniform law",
}


def _drawn(draws: float) -> str:  # a design's name is part of its random streams'
    return "read out" if np.isinf(draws) else f"{draws:.0f} draws"


@dataclass(frozen=True)
class Design:
    """What an experimenter pays for."""

    options: int
    clusters: int
    templates: int = 5
    draws: float = np.inf  # on options, a prompt
    balanced: bool = False  # as many clusters of each voice, which are the strata; else at random

    @property
    def name(self) -> str:
        cast = ", balanced" if self.balanced else ""
        prompts = f"{self.clusters} x {self.templates} prompts{cast}"
        return f"K = {self.options}, {prompts}, {_drawn(self.draws)}"


@dataclass(frozen=True)
class Sample:
    """One ladder, the same prompts at every stage. truth: the base read out; seed: the cluster that
    other tasks would choose, nearest to the first voice, onto which SFT freezes in most scenarios.
    """

    base: Evidence
    sft: Evidence
    final: Evidence
    truth: Evidence
    seed: int


def population(scenario: str, options: int, world: int = 0, templates: int = 5) -> Stages:
    """Stage -> (POPULATION, templates, options) of one world; the same whenever it is asked for."""
    rng = generator(world, f"{STREAMS.get(scenario, scenario)} {options} {templates}")
    spoken, base = liquid_base(options, rng, templates)
    tune, settle = SCENARIOS[scenario]
    sft = again(tune(base, spoken, rng), rng)
    return {"base": base, "sft": sft, "final": again(settle(sft, base, spoken), rng)}


def chosen(clusters: int, design: Design, rng: Rng) -> Array:
    """(design.clusters,) of a population's clusters; balanced: by voice in turn."""
    groups, every = VOICES if design.balanced else 1, np.arange(clusters)
    each = design.clusters // groups
    picked = [rng.choice(every[one::groups], each, replace=False) for one in range(groups)]
    return np.stack(picked, axis=1).ravel()


def sample(stages: Stages, design: Design, rng: Rng, clusters: Array | None = None) -> Sample:
    """A ladder of some clusters, read out or drawn."""
    if clusters is None:
        clusters = chosen(len(stages["base"]), design, rng)
    who = np.repeat(np.arange(len(clusters)), design.templates)
    block = np.tile(np.arange(design.templates), len(clusters))
    strata = (clusters % VOICES)[who] if design.balanced else None
    own = stages["base"][clusters, : design.templates]
    found = {"truth": ev.asked(own.reshape(len(who), -1), who)}
    draws = np.full(len(who), design.draws)
    for stage, every in stages.items():
        p = _seen(every[clusters, : design.templates].reshape(len(who), -1), design.draws, rng)
        found[stage] = replace(ev.asked(p, who, draws, block), strata=strata)
    voice = stages["base"][::VOICES].mean((0, 1))
    return Sample(**found, seed=int(ph.mse(own.mean(1), voice).argmin()))


def whole(stages: Stages) -> Sample:
    """The whole population, read out: the truth."""
    clusters, templates, options = stages["base"].shape
    design = Design(options, clusters, templates)
    return sample(stages, design, generator(0, "whole"), np.arange(clusters))


def _seen(p: Array, draws: float, rng: Rng) -> Array:
    """Read out, or the shares of `draws` draws."""
    return rng.multinomial(int(draws), p) / draws if np.isfinite(draws) else p


# --- ladders on which a claim can be brought to its threshold


def _uneven(base: Array, spoken: Array, left: float) -> Array:
    """Moved to a voice; clusters differ in how much of their own is left."""
    uneven = generator(0, "uneven").lognormal(0, UNEVEN, (len(base), 1, 1))
    return mixed(spoken[0], base, np.clip(left * uneven, 0, 1))


def at(claim: str, base: Array, spoken: Array, strength: float) -> tuple[Array, Array, Array]:
    """Base, SFT and the last stage; the claim's number moves with the strength."""
    if claim == "many-distributions":  # every prompt nears the mean; nothing happens afterwards
        same = mixed(base.mean((0, 1)), base, strength)
        return same, same, same
    if claim == "collapse":
        sft = _uneven(base, spoken, 1.5 * strength)
        return base, sft, sft
    sft = 0.1 * base + 0.9 * spoken[0]  # frozen onto a voice
    if claim == "stays-frozen":  # then clusters come back, some further than others
        return base, sft, _uneven(base, spoken, 0.1 + 1.4 * strength)
    if claim == "little-promoted":
        return base, sft, mixed(sft, bottom(spoken[0]), strength)
    away = ~ph.support(spoken[0])  # part of it goes outside the voice's options
    if not away.any():
        away = ph.lower_half(spoken[0])
    return base, sft, (1 - strength) * sft + strength * away / away.sum()


def brought_to(
    claim: str, design: Design, world: int, trial: int, strength: float
) -> tuple[Stages, Sample]:
    """A ladder of `at`, and a sample of it."""
    spoken, base = _voiced(design.options, design.templates, world, max(200, 10 * design.clusters))
    stages = dict(zip(STAGES, at(claim, base, spoken, strength), strict=True))
    return stages, sample(stages, design, generator(trial, f"at the mark {world} {design.name}"))


@functools.lru_cache(8)
def _voiced(options: int, templates: int, world: int, clusters: int) -> tuple[Array, Array]:
    return liquid_base(options, generator(world, f"at the mark {options}"), templates, clusters)


# --- many tasks

OPTIONS = (2, 6, 20, 10, 10, 100, 15, 10, 10, 26, 4, 13, 7, 12, 10)  # of the book's tasks, in order
FAINT = (1.0, 1.0, 0.3, 0.3, 0.3)  # how far a persona lies from what all have in common


@dataclass(frozen=True)
class Panel:
    """The design of one series of many tasks."""

    tasks: int = 15
    contexts: int = 20
    groups: int = 5  # personas
    wordings: int = 1  # prompts a context
    draws: float = np.inf  # on options, a prompt

    @property
    def name(self) -> str:
        prompts = f"{self.contexts} x {self.wordings} prompts"
        return f"{self.tasks} tasks, {prompts}, {self.groups} personas, {_drawn(self.draws)}"


@dataclass(frozen=True)
class Scenario:
    """What SFT does. seed: one persona explains every task; pure: it alone does."""

    distribution: Callable[[Array, Array, Rng], Array]  # personas, the mean -> (options,)
    seed: bool = False
    pure: bool = False
    leak: float = 0.05  # what is left of a context's own distribution; clusters differ
    stay: float = 0.0  # share of the personas whose contexts do not move
    shared: bool = True  # a context holds the same persona in every task
    single: bool = False  # every context is a persona of its own
    faint: bool = False  # most personas lie near what all have in common


def _one(spoken: Array, mean: Array, rng: Rng) -> Array:
    return spoken[0]


SEED = Scenario(_one, seed=True, pure=True)
FROZEN, HALFWAY, MIXED = "one persona", "one persona, .6 left", "two personas, 60 to 40"
PANEL_SCENARIOS: dict[str, Scenario] = {
    FROZEN: SEED,
    "one persona, .3 left": replace(SEED, leak=0.3),
    HALFWAY: replace(SEED, leak=0.6),
    "one persona, two fifths stay": replace(SEED, stay=0.4),
    "one persona, others faint": replace(SEED, faint=True),
    "one context of its own": replace(SEED, single=True),
    MIXED: Scenario(lambda spoken, *_: mixed(spoken[0], spoken[1], 0.4), seed=True),
    "another persona each task": Scenario(lambda spoken, _, rng: spoken[rng.integers(len(spoken))]),
    "a persona's options relabelled": Scenario(lambda spoken, _, rng: rng.permutation(spoken[0])),
    "the base's mean": Scenario(lambda _, mean, rng: mean),
    "the base's mean, sharpened": Scenario(lambda _, mean, rng: sharpened(mean, 2.0)),
    "the uniform distribution": Scenario(lambda _, mean, rng: np.full(len(mean), 1 / len(mean))),
    "personas not shared": Scenario(_one, shared=False),
    "every context its own": Scenario(_one, stay=1.0),
}


def ladder(name: str, panel: Panel, world: int = 0) -> dict[str, tuple[Evidence, Evidence]]:
    """Task -> base and SFT. Context i holds persona i % groups wherever personas are shared."""
    scenario = PANEL_SCENARIOS[name]
    rng = generator(world, f"{STREAMS.get(name, name)} {panel.name}")
    groups = panel.contexts if scenario.single else panel.groups
    member = np.arange(panel.contexts) % groups
    clusters = np.repeat(np.arange(panel.contexts), panel.wordings)
    draws = np.full(len(clusters), panel.draws)
    asked = ev.asked(clusters[:, None], clusters, draws)  # distributions come below
    found = {}
    for number, options in enumerate(OPTIONS[: panel.tasks]):
        spoken = voices(options, rng, groups)
        if scenario.faint:
            spoken = mixed(spoken.mean(0), spoken, np.resize(FAINT, groups)[:, None])
        holds = member if scenario.shared else rng.permutation(member)
        own = jittered(spoken[holds], ACCENT, rng)
        base = jittered(np.repeat(own[:, None], panel.wordings, 1), TEMPLATE, rng)
        p = scenario.distribution(spoken, base.mean((0, 1)), rng)
        stays = (holds >= groups * (1 - scenario.stay))[:, None, None]
        kept, moved = again(base, rng), again(leaking(base, p, scenario.leak, rng), rng)
        sft = np.where(stays, kept, moved)
        both = [_seen(x.reshape(len(clusters), -1), panel.draws, rng) for x in (base, sft)]
        found[f"task {number}"] = tuple(replace(asked, distribution=x) for x in both)
    return found


# --- readings of the paper's "MSE distance ratio"

DISTANCES = {"MSE": ph.mse, "TV": ph.tv, "JSD": ph.jsd_bits}
FIGURES = {"compression": 0.5, "seed": 0.5, "stage": 1.0}  # a reading says something below its own
INFORMATION = "liquidity"  # what is left of it stands beside the three compressions


def of_distributions(base: Array, sft: Array, final: Array) -> dict[tuple[str, str], float]:
    """(reading, distance) -> number. Answers (prompts, options)."""
    out = {}
    for name, distance in DISTANCES.items():
        pairs = [distance(p[:, None], p[None]).sum() for p in (sft, base)]
        far = distance(base, sft.mean(0))
        moves = distance(sft.mean(0), final.mean(0)), distance(base.mean(0), sft.mean(0))
        out["compression", name] = float(ph.ratio(*pairs))
        out["seed", name] = float(ph.ratio(far.min(), far.mean()))
        out["stage", name] = float(ph.ratio(*moves))
    bits = ph.liquidity_bits(sft), ph.liquidity_bits(base)
    return out | {("compression", INFORMATION): float(ph.ratio(*bits))}


def readings(scenario: str, design: Design, n: int) -> list[dict]:
    """Per reading and distance, over n ladders: the median, and the share below FIGURES."""
    found = []
    for world in range(n):
        stages, rng = population(scenario, design.options, world), generator(world, "readings")
        one = sample(stages, design, rng)
        found.append(of_distributions(*(getattr(one, stage).distribution for stage in STAGES)))
    rows = []
    for reading, distance in found[0]:
        values = np.array([one[reading, distance] for one in found])
        place = {"reading": reading, "distance": distance, "value": float(np.median(values))}
        rows.append(place | {"below": float(np.mean(values < FIGURES[reading]))})
    return rows
