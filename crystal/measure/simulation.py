"""The claims tried on ladders of known truth: how often intervals cover, how often a verdict is wrong, how often it is right.

One trial: a few units of a population are asked, every claim is judged, and judged again by what is true of the population. What
a claim chooses from the sample (a seed, its options, which options gain) stays chosen: the truth is that of the chosen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np

from . import claims, synthetic
from . import evidence as ev
from . import inference as inf
from . import phases as ph
from .evidence import Evidence
from .inference import generator
from .judging import Verdict
from .marks import MARKS
from .phases import Array
from .synthetic import Design, Stages

Rungs = Mapping[str, Evidence]
WORLDS = 8  # populations that the trials of one row are taken from
SLACK = 1e-9
NEAR = 0.02  # relative distance to the mark within which a claim is neither true nor false

# --- claims and their truth ------------------------------------------------------------------------------------------


@functools.cache
def others() -> tuple[Array, ...]:
    """Seeds of five other tasks, the rivals a seed has to beat."""
    rng = generator(0, "other tasks")
    return tuple(rng.dirichlet(np.full(options, 0.5)) for options in (2, 6, 10, 15, 26))


JUDGED: dict[str, Callable[..., Verdict]] = {
    "many-laws": lambda x, **how: claims.liquid(x["base"], **how)[0],
    "collapse": lambda x, **how: claims.collapse(x["base"], x["sft"], **how),
    "seed-in-base": lambda x, **how: claims.seed_in_base(x["base"], x["sft"], others(), **how),
    "same-options": lambda x, **how: claims.same_options(x["base"], x["sft"], x["final"], **how),
    "little-promoted": lambda x, **how: claims.little_promoted(x["sft"], x["final"], **how),
    "smaller-move": lambda x, **how: claims.smaller_move(x["base"], x["sft"], x["final"], **how),
}


def _liquidity(true: Rungs, found: Rungs, seed: int) -> float:
    return float(ph.liquidity_share(true["base"].law))


def _compression(true: Rungs, found: Rungs, seed: int) -> float:
    return float(ph.compression(true["sft"].law, true["base"].law))


def _chosen(found: Rungs, seed: int) -> list[int]:
    """Rows of the base that are the seeds, as `claims.seed_distances` and `claims.kept` choose them."""
    naming, _ = ev.halves(found["base"], generator(seed, "draws"))
    return [inf.split_seed(naming.law, found["sft"].law, chosen=chosen).index for chosen, _ in inf.folds(naming.half)]


def _seed_distance(true: Rungs, found: Rungs, seed: int) -> float:
    """Of the prompts chosen; from draws, of what those prompts' laws really are."""
    target, rivals = true["sft"].law.mean(0), claims.rivals(found["base"].law, others())
    far = np.mean([ph.mse(found["base truth"].law[index], target) for index in _chosen(found, seed)])
    return float(ph.ratio(far, claims.rival_distance(target, rivals)))


def _kept(true: Rungs, found: Rungs, seed: int) -> float:
    masks = claims.kept(found["base"], found["sft"], found["final"], seed=seed).masks
    own = [found["base truth"].law[index] for index in _chosen(found, seed)]
    return float(ph.ratio(ph.probmass(true["final"].law.mean(0), masks).mean(), ph.probmass(np.array(own), masks).mean()))


def _promoted(true: Rungs, found: Rungs, seed: int) -> float:
    gained = []
    for chosen, _ in inf.folds(found["sft"].half):
        before, after = (found[stage].law[chosen].mean(0) for stage in ("sft", "final"))
        gained.append(ph.lower_half(before) & (after > before))
    return float(((true["final"].law - true["sft"].law).mean(0) * np.array(gained)).sum(-1).mean())


def _stage_ratio(true: Rungs, found: Rungs, seed: int) -> float:
    return float(ph.mse_ratio_stage(*(true[stage].law.mean(0) for stage in synthetic.STAGES)))


TRUE: dict[str, Callable[[Rungs, Rungs, int], float]] = {
    "many-laws": _liquidity, "collapse": _compression, "seed-in-base": _seed_distance, "same-options": _kept,
    "little-promoted": _promoted, "smaller-move": _stage_ratio,
}

# --- ladders on which a claim is exactly at its mark -----------------------------------------------------------------


def _watered(base, spoken, strength):
    """Every prompt's law on its way to the mean law; nothing happens afterwards."""
    same = (1 - strength) * base.mean((0, 1)) + strength * base
    return {"base": same, "sft": same, "final": same}


def _half_frozen(base, spoken, strength):
    """Units differ in how much of their own law they keep."""
    uneven = generator(0, "uneven").lognormal(0, synthetic.UNEVEN, (len(base), 1, 1))
    left = np.clip(1.5 * strength * uneven, 0, 1)
    sft = (1 - left) * spoken[0] + left * base
    return {"base": base, "sft": sft, "final": sft}


def _strange(base, spoken, strength):
    """Frozen onto a law between a voice and one the base lacks."""
    sft = 0.02 * base + 0.98 * ((1 - strength) * spoken[0] + strength * synthetic.absent(spoken))
    return {"base": base, "sft": sft, "final": sft}


def _spilled(base, spoken, strength):
    """Frozen onto a voice, then part of it goes to the options outside its own."""
    sft, away = 0.1 * base + 0.9 * spoken[0], ~ph.support(spoken[0], claims.QUANTILE)
    if not away.any():
        away = ph.lower_half(spoken[0])
    return {"base": base, "sft": sft, "final": (1 - strength) * sft + strength * away / away.sum()}


def _lifted(base, spoken, strength):
    sft = 0.1 * base + 0.9 * spoken[0]
    return {"base": base, "sft": sft, "final": (1 - strength) * sft + strength * synthetic.bottom(spoken[0])}


def _moved_on(base, spoken, strength):
    """SFT goes a third of the way to a voice, the final stage on to the bottom of its ranking."""
    sft = 0.65 * base + 0.35 * spoken[0]
    return {"base": base, "sft": sft, "final": (1 - strength) * sft + strength * synthetic.bottom(spoken[0])}


CHOOSING = ("seed-in-base", "same-options", "little-promoted")  # claims whose number is that of something chosen
AT_MARK: dict[str, Callable[[Array, Array, float], Stages]] = {
    "many-laws": _watered, "collapse": _half_frozen, "seed-in-base": _strange, "same-options": _spilled,
    "little-promoted": _lifted, "smaller-move": _moved_on,
}


def at_mark(claim: str, design: Design, world: int, trial: int) -> tuple[Stages, Rungs] | None:
    """A ladder, and a sample of it, on which the claim's true number is its mark; None if the claim cannot be brought there.

    What is true of some claims depends on what the sample chose: for those the ladder is made to measure for every trial.
    """
    strength = _strength(claim, design, world, trial if claim in CHOOSING else 0)
    return None if strength is None else _asked(claim, design, world, trial, strength)


@functools.lru_cache(64)
def _strength(claim: str, design: Design, world: int, trial: int) -> float | None:
    from scipy.optimize import brentq

    def beyond(strength: float) -> float:
        stages, found = _asked(claim, design, world, trial, strength)
        return TRUE[claim](synthetic.whole(stages), found, trial) / MARKS[claim].mark - 1

    try:
        strength = brentq(beyond, 1e-4, 1 - 1e-4, xtol=1e-5)
    except ValueError:  # the same side at both ends
        return None
    return strength if abs(beyond(strength)) < NEAR else None  # else the choice jumped there


def _asked(claim: str, design: Design, world: int, trial: int, strength: float) -> tuple[Stages, Rungs]:
    spoken, base = _voiced(design.options, design.frames, world)
    stages = AT_MARK[claim](base, spoken, strength)
    return stages, synthetic.sample(stages, design, generator(trial, f"at the mark {world} {design.name}"))


@functools.lru_cache(8)
def _voiced(options: int, frames: int, world: int) -> tuple[Array, Array]:
    return synthetic.liquid_base(options, generator(world, f"at the mark {options}"), frames, units=200)


# --- trials ----------------------------------------------------------------------------------------------------------


def trials(stages: Stages, design: Design, n: int, *, world: int = 0, permutations: int = 99) -> dict[str, list]:
    """Claim -> n pairs of a verdict and the true number. Trial i is the same whatever n is."""
    true, out = synthetic.whole(stages), {claim: [] for claim in JUDGED}
    for i in range(n):
        found = synthetic.sample(stages, design, generator(i, f"trial {world} {design.name}"))
        for claim, verdicts in out.items():
            verdicts.append((JUDGED[claim](found, permutations=permutations, seed=i), TRUE[claim](true, found, i)))
    return out


def trials_at_mark(claim: str, design: Design, n: int, *, world: int = 0, permutations: int = 99) -> list:
    """Up to n pairs as in `trials`, of one claim, on ladders made to measure."""
    out = []
    for i in range(n):
        if made := at_mark(claim, design, world, i):
            stages, found = made
            verdict = JUDGED[claim](found, permutations=permutations, seed=i)
            out.append((verdict, TRUE[claim](synthetic.whole(stages), found, i)))
    return out


def summarised(verdicts: list[tuple[Verdict, float]]) -> dict[str, float]:
    """Counts of one claim's trials, and the mean truth.

    n; interval: trials with one; covered, below, above: truth in the interval, below it, above it; holds, fails; not_true: trials
    whose truth is not on the claim's side, or at the mark; false_holds of them; not_false, false_fails likewise.
    """
    out = dict.fromkeys(("n", "interval", "covered", "below", "above", "holds", "fails", "not_true", "false_holds", "not_false",
                         "false_fails"), 0)
    for verdict, truth in verdicts:
        found, mark = verdict.estimate, verdict.mark
        margin = (truth / mark.mark - 1) * (1 if mark.side == "above" else -1)  # > 0: the claim is true
        out["n"] += 1
        if np.isfinite([found.low, found.high]).all():
            out["interval"] += 1
            out["below"] += truth < found.low - SLACK
            out["above"] += truth > found.high + SLACK
            out["covered"] += found.low - SLACK <= truth <= found.high + SLACK
        out["holds"] += verdict.verdict == "holds"
        out["fails"] += verdict.verdict == "fails"
        out["not_true"] += margin < NEAR
        out["not_false"] += margin > -NEAR
        out["false_holds"] += verdict.verdict == "holds" and margin < NEAR
        out["false_fails"] += verdict.verdict == "fails" and margin > -NEAR
    truth = float(np.mean([truth for _, truth in verdicts])) if verdicts else np.nan
    return {name: int(count) for name, count in out.items()} | {"truth": truth}


def row(kind: str, name: str, design: Design, n: int, permutations: int = 99) -> list[dict]:
    """`n` trials over WORLDS populations, one row per claim. kind: "scenario" or "mark"; name: of SCENARIOS or of a claim."""
    found: dict[str, list] = {}
    for world in range(WORLDS):
        if kind == "mark":
            mine = {name: trials_at_mark(name, design, n // WORLDS, world=world, permutations=permutations)}
        else:
            stages = synthetic.population(name, design.options, world, design.frames)
            mine = trials(stages, design, n // WORLDS, world=world, permutations=permutations)
        for claim, verdicts in mine.items():
            found.setdefault(claim, []).extend(verdicts)
    place = {"kind": kind, "name": name, "options": design.options, "units": design.units, "frames": design.frames,
             "draws": design.draws}
    return [place | {"claim": claim} | summarised(verdicts) for claim, verdicts in found.items()]
