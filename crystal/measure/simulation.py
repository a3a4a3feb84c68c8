"""The claims tried on ladders of known truth: do intervals cover, how often is a verdict wrong?

One trial: some units of a population are asked, every claim is judged, and judged again by what is
true of the population. What a claim chooses from the sample (a seed's options, which options gain)
stays chosen: the truth is that of the chosen. Every claim is asked here, also where the chain of
claims (`crystal.measure.chain`) would not reach it. Claims about all tasks at once are tried in
`crystal.measure.joint_synthetic`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from . import claims, synthetic
from . import inference as inf
from . import phases as ph
from .inference import generator
from .judging import Verdict
from .marks import MARKS
from .phases import Array
from .synthetic import Design, Sample, Stages

WORLDS = 8  # populations that the trials of one row are taken from
SLACK = 1e-9
NEAR = 0.02  # relative distance to the mark within which a claim is neither true nor false

# --- claims and their truth ----------------------------------------------------------------------


def _kept(found: Sample, trial: int) -> claims.Seed:
    return claims.seed_of(found.base, found.seed, seed=trial)


def _many_laws(found: Sample, trial: int, **how) -> Verdict:
    return claims.liquid(found.base, **how)


def _collapse(found: Sample, trial: int, **how) -> Verdict:
    return claims.collapse(found.base, found.sft, **how)


def _stays_frozen(found: Sample, trial: int, **how) -> Verdict:
    return claims.stays_frozen(found.base, found.sft, found.final)


def _same_options(found: Sample, trial: int, **how) -> Verdict:
    return claims.same_options(found.final, _kept(found, trial), **how)


def _little_promoted(found: Sample, trial: int, **how) -> Verdict:
    return claims.little_promoted(found.sft, found.final)


JUDGED: dict[str, Callable[..., Verdict]] = {
    "many-laws": _many_laws,
    "collapse": _collapse,
    "stays-frozen": _stays_frozen,
    "same-options": _same_options,
    "little-promoted": _little_promoted,
}


def _judged(claim: str, found: Sample, trial: int, permutations: int) -> Verdict:
    return JUDGED[claim](found, trial, seed=trial, permutations=permutations)


def _liquidity(true: Sample, found: Sample, trial: int) -> float:
    return float(ph.liquidity_share(true.base.law))


def _compression(true: Sample, found: Sample, trial: int) -> float:
    return float(ph.compression(true.sft.law, true.base.law))


def _given_back(true: Sample, found: Sample, trial: int) -> float:
    base, sft, final = (ph.liquidity_bits(x.law) for x in (true.base, true.sft, true.final))
    return float(ph.ratio(final - sft, base))


def _mass_kept(true: Sample, found: Sample, trial: int) -> float:
    """On the options chosen; from draws, over what that unit's law really puts there."""
    mask = _kept(found, trial).mask
    own = found.truth.law[found.truth.units == found.seed].mean(0)
    return float(ph.ratio(*(ph.probmass(law, mask) for law in (true.final.law.mean(0), own))))


def _promoted(true: Sample, found: Sample, trial: int) -> float:
    gained = []
    for chosen, _ in inf.folds(found.sft.half):
        before, after = (x.law[chosen].mean(0) for x in (found.sft, found.final))
        gained.append(ph.lower_half(before) & (after > before))
    return float(((true.final.law - true.sft.law).mean(0) * np.array(gained)).sum(-1).mean())


TRUE: dict[str, Callable[[Sample, Sample, int], float]] = {
    "many-laws": _liquidity,
    "collapse": _compression,
    "stays-frozen": _given_back,
    "same-options": _mass_kept,
    "little-promoted": _promoted,
}

# --- ladders on which a claim is exactly at its mark ---------------------------------------------


def _watered(base, spoken, strength):
    """Every prompt's law on its way to the mean law; nothing happens afterwards."""
    same = (1 - strength) * base.mean((0, 1)) + strength * base
    return {"base": same, "sft": same, "final": same}


def _uneven(base, spoken, left):
    """Moved to a voice; units differ in how much of their own law is left."""
    uneven = generator(0, "uneven").lognormal(0, synthetic.UNEVEN, (len(base), 1, 1))
    left = np.clip(left * uneven, 0, 1)
    return (1 - left) * spoken[0] + left * base


def _half_frozen(base, spoken, strength):
    sft = _uneven(base, spoken, 1.5 * strength)
    return {"base": base, "sft": sft, "final": sft}


def _thawed(base, spoken, strength):
    """Frozen onto a voice, then units come back, some further than others."""
    return {
        "base": base,
        "sft": 0.1 * base + 0.9 * spoken[0],
        "final": _uneven(base, spoken, 0.1 + 1.4 * strength),
    }


def _spilled(base, spoken, strength):
    """Frozen onto a voice, then part of it goes to the options outside its own."""
    sft, away = 0.1 * base + 0.9 * spoken[0], ~ph.support(spoken[0], claims.QUANTILE)
    if not away.any():
        away = ph.lower_half(spoken[0])
    return {"base": base, "sft": sft, "final": (1 - strength) * sft + strength * away / away.sum()}


def _lifted(base, spoken, strength):
    sft, low = 0.1 * base + 0.9 * spoken[0], synthetic.bottom(spoken[0])
    return {"base": base, "sft": sft, "final": (1 - strength) * sft + strength * low}


CHOOSING = ("same-options", "little-promoted")  # claims whose number is that of something chosen
AT_MARK: dict[str, Callable[[Array, Array, float], Stages]] = {
    "many-laws": _watered,
    "collapse": _half_frozen,
    "stays-frozen": _thawed,
    "same-options": _spilled,
    "little-promoted": _lifted,
}


def at_mark(claim: str, design: Design, world: int, trial: int) -> tuple[Stages, Sample] | None:
    """A ladder, and a sample of it, on which the claim's true number is its mark; None if the claim
    cannot be brought there.

    What is true of some claims depends on what the sample chose: for those the ladder is made to
    measure for every trial.
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


def _asked(
    claim: str, design: Design, world: int, trial: int, strength: float
) -> tuple[Stages, Sample]:
    spoken, base = _voiced(design.options, design.frames, world, max(200, 10 * design.units))
    stages = AT_MARK[claim](base, spoken, strength)
    return stages, synthetic.sample(
        stages, design, generator(trial, f"at the mark {world} {design.name}")
    )


@functools.lru_cache(8)
def _voiced(options: int, frames: int, world: int, units: int) -> tuple[Array, Array]:
    rng = generator(world, f"at the mark {options}")
    return synthetic.liquid_base(options, rng, frames, units)


# --- trials --------------------------------------------------------------------------------------


def trials(
    stages: Stages, design: Design, n: int, *, world: int = 0, permutations: int = 99
) -> dict[str, list]:
    """Claim -> n pairs of a verdict and the true number. Trial i is the same whatever n is."""
    true, out = synthetic.whole(stages), {claim: [] for claim in JUDGED}
    for i in range(n):
        found = synthetic.sample(stages, design, generator(i, f"trial {world} {design.name}"))
        for claim, verdicts in out.items():
            verdicts.append((_judged(claim, found, i, permutations), TRUE[claim](true, found, i)))
    return out


def trials_at_mark(
    claim: str, design: Design, n: int, *, world: int = 0, permutations: int = 99
) -> list:
    """Up to n pairs as in `trials`, of one claim, on ladders made to measure."""
    out = []
    for i in range(n):
        if made := at_mark(claim, design, world, i):
            stages, found = made
            verdict = _judged(claim, found, i, permutations)
            out.append((verdict, TRUE[claim](synthetic.whole(stages), found, i)))
    return out


def summarised(verdicts: list[tuple[Verdict, float]]) -> dict[str, float]:
    """Counts of one claim's trials, and the mean truth.

    n; interval: trials with one; covered, below, above: truth in the interval, below it, above it;
    holds, fails; not_true: trials whose truth is not on the claim's side, or at the mark;
    false_holds of them; not_false, false_fails likewise.
    """
    out = dict.fromkeys(
        (
            "n",
            "interval",
            "covered",
            "below",
            "above",
            "holds",
            "fails",
            "not_true",
            "false_holds",
            "not_false",
            "false_fails",
        ),
        0,
    )
    for verdict, truth in verdicts:
        found, mark = verdict.estimate, verdict.mark
        margin = (truth / mark.mark - 1) * (
            1 if mark.side == "above" else -1
        )  # > 0: the claim is true
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
    """`n` trials over WORLDS populations, one row per claim. kind: "scenario" or "mark"; name: of
    SCENARIOS or of a claim.
    """
    found: dict[str, list] = {}
    for world in range(WORLDS):
        if kind == "mark":
            mine = {
                name: trials_at_mark(
                    name, design, n // WORLDS, world=world, permutations=permutations
                )
            }
        else:
            stages = synthetic.population(name, design.options, world, design.frames)
            mine = trials(stages, design, n // WORLDS, world=world, permutations=permutations)
        for claim, verdicts in mine.items():
            found.setdefault(claim, []).extend(verdicts)
    place = {"kind": kind, "name": name} | vars(design)
    return [place | {"claim": claim} | summarised(verdicts) for claim, verdicts in found.items()]
