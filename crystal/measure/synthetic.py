"""Ladders with known truth, made of numbers alone: the claims are tried on them, then believed.

A *population* holds many units (askers) with a few prompts each; a ladder is what a handful of them
were answered, taken at random or as many of each voice. The truth of a number is its value over the
whole population. Units hold one of a few *voices*, as the narrators of the organisms' world do, as
many each: unit i holds voice i % VOICES. Each has an accent of its own; frames add a little more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from . import evidence as ev
from . import phases as ph
from .evidence import Evidence
from .inference import generator
from .phases import Array

VOICES = 5
POPULATION = 600  # units
ACCENT, FRAME = (
    6.0,
    20.0,
)  # concentration per option: of a unit's law around its voice, of a prompt's around its unit's law
UNEVEN = 0.5  # standard deviation of the logarithm of what is left of a unit's own law
STAGES = ("base", "sft", "final")
Stages = dict[str, Array]  # stage -> (units, frames, options)


def jittered(laws: Array, concentration: float, rng: np.random.Generator) -> Array:
    """Dirichlet laws around `laws`, (..., options); concentration: per option."""
    drawn = rng.standard_gamma(concentration * laws.shape[-1] * laws + 0.02)
    return drawn / drawn.sum(-1, keepdims=True)


def voices(options: int, rng: np.random.Generator, count: int = VOICES) -> Array:
    """(count, options): uneven laws, no option quite impossible."""
    return 0.95 * rng.dirichlet(np.full(options, 0.5), count) + 0.05 / options


def liquid_base(
    options: int, rng: np.random.Generator, frames: int = 5, units: int = POPULATION
) -> tuple[Array, Array]:
    """(voices, base): base (units, frames, options)."""
    spoken = voices(options, rng)
    own = jittered(spoken[np.arange(units) % VOICES], ACCENT, rng)
    return spoken, jittered(np.repeat(own[:, None], frames, 1), FRAME, rng)


def toward(base: Array, law: Array, share: float | Array, rng: np.random.Generator) -> Array:
    """Every prompt's law moved `share` of the way to one law, with frame noise of its own."""
    return jittered((1 - share) * base + share * law, 4 * FRAME, rng)


def leaking(base: Array, law: Array, leak: float, rng: np.random.Generator) -> Array:
    """As `toward`, but units differ in how much of their own law is left: log-normal, `leak`."""
    left = np.clip(leak * np.exp(UNEVEN * rng.standard_normal((len(base), 1, 1))), 0, 0.95)
    return toward(base, law, 1 - left, rng)


def absent(spoken: Array) -> Array:
    """A law that no voice is near: the options the base likes least come first."""
    mean = spoken.mean(0)
    upside_down = np.empty(len(mean))
    upside_down[np.argsort(mean, kind="stable")] = np.sort(spoken[0])[::-1]
    return upside_down


def sharpened(laws: Array, power: float) -> Array:
    """Laws to a power: what a lower temperature does."""
    raised = laws**power
    return raised / raised.sum(-1, keepdims=True)


def bottom(law: Array) -> Array:
    """Uniform on the lower half of a law's ranking."""
    low = ph.lower_half(law).astype(float)
    return low / low.sum()


def _same(base, spoken, rng):
    again = jittered(base, 4 * FRAME, rng)
    return {"base": base, "sft": again, "final": jittered(again, 4 * FRAME, rng)}


def _frozen(
    law: Callable[[Array], Array],
    leak: float,
    finish: Callable[[Array, Stages, np.random.Generator], Array],
):
    def make(base, spoken, rng):
        stages = {"base": base, "sft": leaking(base, law(spoken), leak, rng)}
        return stages | {"final": finish(law(spoken), stages, rng)}

    return make


def _stay(law, stages, rng):
    return jittered(sharpened(stages["sft"], 1.2), 4 * FRAME, rng)


def _remelt(law, stages, rng):
    return jittered(stages["base"], 4 * FRAME, rng)


def _promote(law, stages, rng):
    return toward(stages["sft"], bottom(law), 0.3, rng)


def _sharpen(base, spoken, rng):
    stages = {"base": base, "sft": jittered(sharpened(base, 2.0), 4 * FRAME, rng)}
    return stages | {"final": jittered(sharpened(base, 3.0), 4 * FRAME, rng)}


def _own(spoken):
    return spoken[0]


SCENARIOS: dict[str, Callable[[Array, Array, np.random.Generator], Stages]] = {
    "liquid kept": _same,
    "frozen onto a base law": _frozen(_own, 0.05, _stay),
    "frozen onto a law the base lacks": _frozen(absent, 0.05, _stay),
    "frozen with leak": _frozen(_own, 0.3, _stay),
    "re-melted": _frozen(_own, 0.05, _remelt),
    "sharpened": _sharpen,
    "low ranks promoted": _frozen(_own, 0.05, _promote),
}


@dataclass(frozen=True)
class Design:
    """What an experimenter pays for."""

    options: int
    units: int
    frames: int = 5
    draws: float = np.inf  # on options, a prompt
    balanced: bool = False  # as many units of each voice, which are the strata; else at random

    @property
    def name(self) -> str:
        drawn = "read out" if np.isinf(self.draws) else f"{self.draws:.0f} draws"
        cast = ", balanced" if self.balanced else ""
        return f"K = {self.options}, {self.units} x {self.frames} prompts{cast}, {drawn}"


@dataclass(frozen=True)
class Sample:
    """One ladder, the same prompts at every stage. truth: the base read out, for what was chosen on
    it; seed: the unit whose law is nearest to the first voice, onto which SFT freezes in most
    scenarios: as other tasks would choose it, apart from this sample's noise.
    """

    base: Evidence
    sft: Evidence
    final: Evidence
    truth: Evidence
    seed: int


def population(scenario: str, options: int, world: int = 0, frames: int = 5) -> Stages:
    """Stage -> (POPULATION, frames, options) of one world; the same whenever it is asked for."""
    rng = generator(world, f"{scenario} {options} {frames}")
    spoken, base = liquid_base(options, rng, frames)
    return SCENARIOS[scenario](base, spoken, rng)


def chosen(units: int, design: Design, rng: np.random.Generator) -> Array:
    """(design.units,) of a population's units; balanced: by voice in turn."""
    if not design.balanced:
        return rng.choice(units, design.units, replace=False)
    each = [
        rng.choice(np.arange(voice, units, VOICES), design.units // VOICES, replace=False)
        for voice in range(VOICES)
    ]
    return np.stack(each, axis=1).ravel()


def sample(stages: Stages, design: Design, rng: np.random.Generator) -> Sample:
    """A ladder of `design.units` units, read out or drawn."""
    return _asked(stages, chosen(len(stages["base"]), design, rng), design, rng)


def whole(stages: Stages) -> Sample:
    """The whole population, read out: where the true numbers are taken."""
    units, frames, options = stages["base"].shape
    return _asked(stages, np.arange(units), Design(options, units, frames), generator(0, "whole"))


def _asked(stages: Stages, units: Array, design: Design, rng: np.random.Generator) -> Sample:
    who = np.repeat(np.arange(len(units)), design.frames)
    block = np.tile(np.arange(design.frames), len(units))
    strata = (units % VOICES)[who] if design.balanced else None
    own = stages["base"][units, : design.frames]
    found = {"truth": ev.asked(own.reshape(len(who), -1), who)}
    for stage, laws in stages.items():
        law = laws[units, : design.frames].reshape(len(who), -1)
        draws = np.full(len(who), design.draws)
        if np.isfinite(design.draws):
            law = rng.multinomial(int(design.draws), law) / design.draws
        found[stage] = replace(ev.asked(law, who, draws, block), strata=strata)
    voice = stages["base"][::VOICES].mean((0, 1))
    return Sample(**found, seed=int(ph.mse(own.mean(1), voice).argmin()))
