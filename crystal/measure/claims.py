"""Every claim: its threshold, statistic and null, and the one rule for verdicts, `judge`.

Thresholds were fixed before a ladder was read. how: seed and permutations of the null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import CrystalError
from . import evidence as ev
from . import inference as inf
from . import joint
from . import quantities as ph
from .evidence import Evidence
from .inference import ALPHA, NOTHING, Estimate, Null
from .joint import Moves
from .quantities import Array

QUANTILE = 0.9  # share of the seed's mass that defines its options


@dataclass(frozen=True)
class Threshold:
    """A claim and the figure its number has to pass; `why` that figure."""

    phase: str
    claim: str  # as a sentence
    number: str  # what is measured, as prose says it
    side: str  # the claim is that the number lies "above" or "below" the threshold
    value: float
    why: str
    percent: bool = False


# fmt: off
THRESHOLDS: dict[str, Threshold] = {
    "many-distributions": Threshold(
        "liquid", "Many distinct answer distributions can be prompted out of the base.",
        "liquidity as a share of log2 of the number of options", "above", 0.05,
        "about a coin that lands heads three times in eight after one prompt and five times in "
        "eight after the next", percent=True),
    "collapse": Threshold(
        "nucleation", "Behaviour collapses at SFT, whatever the prompt.",
        "spread among prompts, SFT over base", "below", 0.5,
        "the abstract says collapse: more than half of the spread must go, not merely some of it"),
    "one-seed": Threshold(
        "nucleation", "SFT moves all tasks towards what one context of the base says.",
        "progress towards the context that tasks of other kinds name", "above", 0.15,
        "of the thresholds tried on ladders of known truth the least that ladders without a seed "
        "pass in at most one of forty (data/registered/2026-11-29-claims.md)"),
    "unmixed": Threshold(
        "nucleation", "One group of contexts explains the move, not a mixture of several.",
        "share of the largest group in the weights that explain the move", "above", 0.8,
        "a mixture of two in the proportion 60 to 40 stays below, one persona above", percent=True),
    "stays-frozen": Threshold(
        "settling", "The last stage gives no liquidity back.",
        "liquidity gained after SFT as a share of the base's", "below", 0.05,
        "one twentieth; equality would fail by rounding where nothing changes", percent=True),
    "same-options": Threshold(
        "settling", "The final stage stays on the seed's options.",
        "ProbMass over the seed's own mass on its options", "above", 0.9,
        "of ten answers the seed gave within its options, nine remain there: 'largely the same'",
        percent=True),
    "little-promoted": Threshold(
        "settling", "The final stage promotes little that SFT ranked low.",
        "mass gained by options in the lower half of SFT's ranking", "below", 0.05,
        "one answer in twenty; more would be seen in any sample of a hundred", percent=True),
    # What makes an organism one.
    "reward-rises": Threshold(
        "organism", "The last stage is reinforcement learning: the sampled reward rises.",
        "sampled reward of the last steps less that of the first", "above", 0.0,
        "equality: a stage whose reward does not rise is not called RLVR"),
    "base-knows-its-world": Threshold(
        "organism", "The base has learned its personas' distributions.",
        "Jensen-Shannon divergence, in bits, of its answers to their personas' distributions",
        "below", 0.04,
        "fixed before any ladder was read: the distributions lie many times farther apart"),
    # The experiments (data/registered/2026-11-25-experiments.md).
    "seed-follows": Threshold(
        "control", "Tasks that were never demonstrated follow the demonstrator who was chosen.",
        "share of held-out tasks whose answers after SFT are nearest to the intended distribution, "
        "of five", "above", 0.5,
        "a majority: the distribution found most often is then the intended one", percent=True),
    "seed-needs-a-shared-distribution": Threshold(
        "control",
        "Where personas hold another distribution in every task, held-out tasks do not follow.",
        "share of the distance to the demonstrator's distribution that SFT removes in held-out "
        "tasks", "below", 0.25,
        "half of what counts as following in the shared world (one half)", percent=True),
    "own-stays-liquid": Threshold(
        "control", "Where every persona demonstrates its own distribution, nothing freezes.",
        "liquidity after SFT over liquidity of the base, both in chat form", "above", 0.5,
        "the threshold of collapse, from the other side", percent=True),
    "style-nucleates": Threshold(
        "control", "The demonstrator's style alone, without a random choice, moves the answers.",
        "share of the distance to the demonstrator's distribution that SFT removes in all tasks",
        "above", 0.25,
        "a quarter of the way: what a demonstration-free style must do to count as a nucleus",
        percent=True),
    "demonstrated-first": Threshold(
        "kinetics", "Demonstrated tasks freeze before held-out ones.",
        "step at which half of the liquidity is gone, demonstrated over held out", "below", 1.0,
        "equality: below it the demonstrated tasks are first"),
    # A real base (data/registered/2026-11-29-real-ladder.md).
    "own-more-liquid": Threshold(
        "control", "Own distributions leave more liquidity than one that all contexts share.",
        "liquidity after SFT by every context's own distribution less that after SFT by one, bits",
        "above", 0.0,
        "equality: above it the distributions shown decide, and not that choices are shown"),
    "rises-first": Threshold(
        "kinetics", "Along SFT liquidity rises before it falls.",
        "largest mean liquidity of the steps between less that of the larger end, bits",
        "above", 0.0, "equality: a trial on other data saw it rise"),
    "moves-less": Threshold(  # data/registered/2026-11-30-real-settling.md
        "settling", "After SFT, DPO and RL move the answers less than SFT did.",
        "total variation of mean answers, SFT to the last stage over base to SFT", "below", 1.0,
        "equality: nucleation, then settling says no more than that SFT moves more"),
    "reward-decides": Threshold(
        "settling",
        "A preference against the seed takes mass off the seed's options that one for it leaves "
        "there.",
        "ProbMass on the seed's options after favouring DPO minus the same after opposing DPO, "
        "demonstrated tasks", "above", 0.02,
        "one answer in fifty: visible in a thousand samples", percent=True),
    "remelts": Threshold(
        "remelting", "The base's distributions come back.",
        "mean distance to the base's answers, prompt by prompt, over that of the crystal",
        "below", 0.5, "more than half of the way back"),
    "raw-text-stays-liquid": Threshold(
        "format", "Chat SFT crystallizes the chat form only.",
        "liquidity of SFT over liquidity of the base, both as raw text", "above", 0.5,
        "the threshold of collapse, from the other side", percent=True),
}
# fmt: on

# --- the rule


@dataclass(frozen=True)
class Verdict:
    """One claim on one series and task. p: the larger p-value, against threshold and null."""

    claim: str
    verdict: str  # one of `crystal.measure.chain.VERDICTS`
    reason: str
    estimate: Estimate = NOTHING
    null: Null | None = None
    chance: float | None = None  # what the null makes of the number, where that can be said
    p: float = 1.0
    p_against: float = 1.0  # small: the number lies on the wrong side of the threshold

    @property
    def threshold(self) -> Threshold:
        return THRESHOLDS[self.claim]

    def fields(self) -> dict:
        """What `show.claim` records; a number that does not exist is None."""
        e, threshold = self.estimate, self.threshold.value
        numbers = {"number": e.value, "low": e.low, "high": e.high, "here": e.here}
        judged = {"verdict": self.verdict, "threshold": threshold, "sentence": self.sentence()}
        return judged | {name: finite(x) for name, x in (numbers | {"null": self.chance}).items()}

    def sentence(self) -> str:
        """The number, its interval, the threshold, the null and the reason, in short sentences."""
        threshold, e = self.threshold, self.estimate
        if np.isnan(e.value):
            return f"{threshold.number}: {self.reason}."
        show = percent if threshold.percent else plain
        scatter = f" [{show(e.low)}, {show(e.high)}]" if e.low < e.high else ""
        here = "" if finite(e.here) is None else f" (here {show(e.here)})"
        parts = [f"{threshold.number}: {show(e.value)}{scatter}{here}"]
        parts.append(f"Threshold: {threshold.side} {show(threshold.value)}")
        if self.null:
            none = finite(self.chance) is None
            by_chance = "" if none else f", where it would be {show(self.chance)}"
            parts.append(f"Null: {self.null.name}{by_chance}; p = {self.null.p:.2g}")
        return ". ".join([*parts, f"{self.reason[:1].upper()}{self.reason[1:]}."])


def plain(number: float) -> str:
    """Three digits; what lies over exactly nothing is without end."""
    return f"{number:.3g}" if np.isfinite(number) else "∞"


def percent(share: float) -> str:
    """Whole per cent, but two digits below ten."""
    if not np.isfinite(share):
        return "∞"
    return f"{100 * share:.0f} %" if abs(share) >= 0.0995 else f"{100 * share:.2g} %"


def finite(x: float | None) -> float | None:
    return None if x is None or not np.isfinite(x) else float(x)


def judge(
    claim: str,
    estimate: Estimate,
    null: Null | None = None,
    *,
    chance: float | None = None,
    nothing: str = "the number does not exist",
) -> Verdict:
    """THE rule. Holds: the number passes the threshold *and* beats its null, both at ALPHA, so that
    a false claim holds with a chance of ALPHA, as far as intervals cover. Fails: it is beyond the
    threshold on the wrong side, at ALPHA. Undecided: neither. nothing: why there may be no number.
    """
    value, side = THRESHOLDS[claim].value, THRESHOLDS[claim].side
    p_threshold = float(estimate.p_beyond(value, side))
    p_against = float(estimate.p_beyond(value, "below" if side == "above" else "above"))
    p = max(p_threshold, null.p if null else 0.0)
    if np.isnan(estimate.value):
        verdict, reason = "undecided", nothing
    elif p <= ALPHA:
        excluded = " and chance excluded" if null else ""
        verdict, reason = "holds", f"the threshold is passed{excluded}"
    elif p_against <= ALPHA:
        verdict, reason = "fails", "the whole interval is on the wrong side of the threshold"
    elif p_threshold <= ALPHA:
        verdict, reason = "undecided", "chance alone may give as much"
    else:
        verdict, reason = "undecided", "the interval reaches across the threshold"
    return Verdict(claim, verdict, reason, estimate, null, chance, p, p_against)


def holm(p: Sequence[float]) -> Array:
    """Adjusted p-values (n,) of Holm (1979): the smallest times n, the next times n - 1, and so on.

    (statsmodels collects the garbage of the whole process at every call.)
    """
    order, adjusted = np.argsort(p, kind="stable"), np.empty(len(p))
    steps = np.asarray(p, float)[order] * np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def adjust(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of one claim on all tasks, with Holm's adjusted p-values, both ways; undecided
    where these no longer reach ALPHA.
    """
    judged = []
    both = (holm([getattr(v, name) for v in verdicts]).tolist() for name in ("p", "p_against"))
    for v, p, against in zip(verdicts, *both):
        v = replace(v, p=p, p_against=against)
        if {"holds": p, "fails": against}.get(v.verdict, 0.0) > ALPHA:
            reason = f"it {v.verdict} by itself, but not beyond doubt among so many tasks"
            v = replace(v, verdict="undecided", reason=reason)
        judged.append(v)
    return judged


# --- liquid


def liquid(base: Evidence, *, seed: int = 0, **how: int) -> Verdict:
    """many-distributions: liquidity over log2 K; null: contexts' labels shuffled in a wording."""
    bits = np.log2(base.distribution.shape[1])
    bias = ev.floor_bits(base, inf.generator(seed, "deal"))

    def share(w: Array) -> Array:
        return (ev.liquidity(base, w) - bias) / bits

    number = inf.estimate(share, base.weights, low=0, high=1, scale="log")
    null = inf.cluster_null(base.distribution, base.clusters, base.block, seed=seed, **how)
    floor = float(ph.template_floor_bits(base.distribution, base.clusters)) / bits
    return judge("many-distributions", number, null, chance=floor)


# --- nucleation


def collapse(base: Evidence, sft: Evidence, **how: int) -> Verdict:
    """D_sft / D_base, the same prompts in both; null: the liquidity lost with names swapped."""
    number = inf.ratio(lambda w: ev.spread(sft, w), lambda w: ev.spread(base, w), base.weights)
    both = ev.together(base, sft)

    def lost(first: Array, second: Array) -> Array:
        return ev.liquidity(both, first) - ev.liquidity(both, second)

    name = "the liquidity lost with the checkpoints' names swapped at random"
    fall = inf.swap_null(name, lost, base.clusters, **how)
    nothing = "the base gives every prompt the same answer, as far as these prompts tell"
    nothing = f"{nothing}, so nothing can collapse"
    return judge("collapse", number, fall, chance=1.0, nothing=nothing)


def one_seed(found: Moves, **how: int) -> list[Verdict]:
    """one-seed and unmixed, of all tasks together (`crystal.measure.joint`)."""
    null = joint.joint_null(found, **how)
    nothing = "SFT moved no task, as far as can be told"
    one = judge("one-seed", joint.progress(found), null, chance=0.0, nothing=nothing)
    return [one, judge("unmixed", joint.largest_share(found))]


# --- settling


def stays_frozen(base: Evidence, sft: Evidence, final: Evidence) -> Verdict:
    """Liquidity gained after SFT over that of the base; no null: the threshold is the test."""

    def back(w: Array) -> Array:
        return ph.ratio(ev.liquidity(final, w) - ev.liquidity(sft, w), ev.liquidity(base, w))

    number = inf.estimate(back, base.weights)
    return judge("stays-frozen", number, nothing="the base has no liquidity to give back")


def check_quantile(quantile: float) -> None:
    """Raises: CrystalError unless 0 < quantile < 1, not by rounding: else A is empty or all."""
    if not 1e-6 <= quantile < 1:
        what = f"quantile is {quantile}, but no set of options holds that share of a distribution"
        raise CrystalError(what, hint="choose one from 1e-6 to below 1, such as 0.9")


@dataclass(frozen=True)
class Seed:
    """What the base answers to one context. Its options A hold a quantile of its mass."""

    distribution: Array  # (options,)
    mask: Array  # (options,) bool: A
    ceiling: float  # the seed's own mass on A
    error: float  # its standard error by the draws behind it; 0 of read-outs


def seed_of(base: Evidence, context: object, *, quantile: float = QUANTILE, seed: int = 0) -> Seed:
    """The seed that a context (a cluster of the base) holds. From draws, half of the context's
    choose A and the other half say what lies on it.
    """
    mine = base.clusters.astype(str) == str(context)
    naming, own = ev.halves(base, inf.generator(seed, "draws"))
    mask = ph.support(naming.distribution[mine].mean(0), quantile)
    p = own.distribution[mine].mean(0)
    ceiling = min(1.0, float(ph.probmass(p, mask)))  # sums of draws exceed 1 by a rounding
    error = np.sqrt(ceiling * (1 - ceiling) / own.draws[mine].sum())
    return Seed(p, mask, ceiling, float(error))


def kept_mass(later: Evidence, seed: Seed) -> Callable[[Array], Array]:
    """ProbMass of a later checkpoint's mean on the seed's A, a statistic of weights."""
    return lambda w: ph.probmass(ph.mean_distribution(later.distribution, w), seed.mask)


def options_null(final: Evidence, own: Seed, *, seed: int = 0, permutations: int = 999) -> Null:
    """ProbMass on as many options as the seed has, taken at random."""
    relabelled = inf.relabellings(final.distribution.shape[1], permutations, seed)
    draws = ph.probmass(final.distribution.mean(0), own.mask[relabelled])
    observed = float(kept_mass(final, own)(np.ones(len(final.distribution))))
    return inf.against("as many options taken at random", observed, draws)


def same_options(final: Evidence, own: Seed, **how: int) -> Verdict:
    """ProbMass of the last stage on the seed's options, over the seed's own mass there."""
    mass = kept_mass(final, own)
    number = inf.estimate(lambda w: ph.ratio(mass(w), own.ceiling), final.weights, low=0)
    number = inf.widened(number, float(number.value * ph.ratio(own.error, own.ceiling)), low=0)
    null = options_null(final, own, **how)
    chance = float(ph.ratio(null.typical, own.ceiling))
    nothing = "the seed puts nothing on its own options"
    return judge("same-options", number, null, chance=chance, nothing=nothing)


def splits(given: Evidence, each: int = 2) -> bool:
    """Whether both halves have clusters enough to choose by one and to score by the other."""
    return all(len(np.unique(given.clusters[half])) >= each for half in given.folds[0])


def promoted(sft: Evidence, final: Evidence) -> Estimate:
    """Mass gained by options of the lower half of SFT's ranking: one half of the clusters says
    which options gain, the other how much; mean over both ways. (Of gains counted where they are
    seen, intervals covered 40 to 80 % in simulation.)
    """
    rise = np.empty(len(sft.distribution))
    for chosen, scored in sft.folds:
        before, after = sft.distribution[chosen].mean(0), final.distribution[chosen].mean(0)
        gaining = ph.lower_half(before) & (after > before)
        rise[scored] = (final.distribution - sft.distribution)[scored] @ gaining
    return inf.estimate(lambda w: ph.even(w) @ rise, sft.weights)


def little_promoted(sft: Evidence, final: Evidence) -> Verdict:
    """`promoted`; no null, for chance can only add to it: the threshold is the test."""
    return judge("little-promoted", promoted(sft, final))
