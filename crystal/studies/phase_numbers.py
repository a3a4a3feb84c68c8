"""All numbers of a phase page, of one ladder and one task: label -> estimate, in their order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from ..ask.tasks import TASKS
from ..measure import claims, inference
from ..measure import quantities as ph
from ..measure.chain import Survey
from ..measure.inference import Estimate
from ..present import figures, views

Numbers = dict[str, Estimate]
Array = np.ndarray


def _mean(answers: Array) -> Callable:
    """The mean answer, as a statistic of the prompts' weights."""
    return lambda w: ph.mean_law(answers, w)


def _left(mine: pd.DataFrame, rung: str, task: str, rows: Array) -> tuple[Callable, Callable]:
    """Off-support and unresolved mass of a rung, as statistics."""
    rest = views.leftover(mine, rung, task)[rows]
    return (lambda w: ph.mean_law(rest, w)[..., 0]), (lambda w: ph.mean_law(rest, w)[..., 1])


def liquid(mine: pd.DataFrame, task: str, *, quantile: float) -> Numbers:
    """How much the prompt tells about the answer of the base, and how broad its answers are."""
    alone = views.compared(mine, task, "base")
    base, weights = alone.laws("base"), alone.weights
    off, unresolved = _left(mine, "base", task, alone.rows)
    options = base.shape[-1]
    entropy, held = ph.entropy_bits(base)[:, None], ph.support(base, quantile).sum(-1)[:, None]
    statistics = {  # label -> statistic, its upper bound
        "entropy within a prompt, bits": (
            lambda w: ph.mean_law(entropy, w)[..., 0],
            np.log2(options),
        ),
        "options that hold the quantile, within a prompt": (
            lambda w: ph.mean_law(held, w)[..., 0],
            options,
        ),
        "estimated liquidity, bits": (lambda w: ph.liquidity_bits(base, w), np.inf),
        "liquidity of the frames alone, bits": (
            lambda w: ph.frame_floor_bits(base, alone.units, w),
            np.inf,
        ),
        "distinct laws (Vendi number)": (lambda w: ph.vendi(base, w), np.inf),
        "spread, MSE": (lambda w: ph.spread(base, w), np.inf),
        "off-support mass": (off, np.inf),
        "unresolved mass": (unresolved, np.inf),
    }
    mean = ph.mean_law(base, weights[0])
    described = {
        "entropy of the mean law, bits": ph.entropy_bits(mean),
        "the same, normalised": ph.normalised_entropy(mean),
        "effective options of the mean law": ph.effective_options(mean),
        "options that hold the quantile, of the mean law": ph.support(mean, quantile).sum(-1),
        "liquidity of these narrators, bits": ph.liquidity_bits(base, weights[0]),
    }
    found = {
        label: inference.estimate(statistic, weights, low=0, high=most)
        for label, (statistic, most) in statistics.items()
    }
    return found | {label: inference.exactly(value) for label, value in described.items()}


def nucleation(
    mine: pd.DataFrame, task: str, survey: Survey, *, permutations: int, seed: int
) -> Numbers:
    """What SFT does to the spread among prompts, and how near it comes to the seed."""
    pair = views.compared(mine, task, "base", "sft")
    base, sft, weights = pair.laws("base"), pair.laws("sft"), pair.weights
    off, unresolved = _left(mine, "sft", task, pair.rows)
    before, after = _mean(base), _mean(sft)
    own = figures.seed_of(mine, task, survey.seeds.get(task, ""))
    statistics = {
        "estimated liquidity of the base, bits": lambda w: ph.liquidity_bits(base, w),
        "estimated liquidity of SFT, bits": lambda w: ph.liquidity_bits(sft, w),
        "mean base to SFT, JSD in bits": lambda w: ph.jsd_bits(before(w), after(w)),
        "base to SFT, TV of mean laws": lambda w: ph.tv(before(w), after(w)),
        "off-support mass of SFT": off,
        "unresolved mass of SFT": unresolved,
    }
    if own:
        statistics["seed to SFT, TV"] = lambda w: ph.tv(own.law, after(w))
        statistics["seed to SFT, JSD in bits"] = lambda w: ph.jsd_bits(own.law, after(w))
    even = weights[0]
    exact = {
        "MSE ratio, nearest of all prompts": ph.mse_ratio_seed(base, after(even), even),
        "liquidity of the base, these narrators, bits": ph.liquidity_bits(base, even),
        "liquidity of SFT, these narrators, bits": ph.liquidity_bits(sft, even),
    }
    if survey.account and task in survey.account.progress:
        exact["progress towards the seed, this task"] = survey.account.progress[task]
    found = {name: inference.estimate(one, weights, low=0) for name, one in statistics.items()}
    found |= {name: inference.exactly(value) for name, value in exact.items()}
    found |= _compressions(mine, task, pair)
    for rung, laws in (("base", base), ("SFT", sft)):
        how = {"clusters": pair.units, "splits": permutations, "seed": seed}
        floor = inference.split_half_floor(laws, ph.tv, **how)
        found[f"split-half floor of {rung}, TV"] = inference.spread_of(floor)
    return found


def _compressions(mine: pd.DataFrame, task: str, pair: views.Compared) -> Numbers:
    """Spread over the base's: of SFT, of the form alone, of the weights alone."""
    kept, found = {"compression": (pair, "sft")}, {}
    if views.was_read(mine, "base", "chat") and views.was_read(mine, "sft", "completion"):
        for label, later in (
            ("compression by form alone", ("base", "chat")),
            ("compression by weights alone, raw text", ("sft", "completion")),
        ):
            both = views.compared(mine, task, "base", later)
            if both.count.measurable:
                kept[label] = both, later
    if "compression by form alone" in kept:
        form, chat = kept["compression by form alone"]
        raw, asked = _mean(form.laws("base")), _mean(form.laws(chat))
        found["form alone, TV of mean laws"] = inference.estimate(
            lambda w: ph.tv(raw(w), asked(w)), form.weights, low=0
        )
    return found | {
        label: kept_spread(both, "base", later) for label, (both, later) in kept.items()
    }


def kept_spread(both: views.Compared, before: views.Place, after: views.Place) -> Estimate:
    """Spread among prompts, after over before."""
    first, last = both.laws(before), both.laws(after)
    spreads = (lambda w: ph.spread(last, w)), (lambda w: ph.spread(first, w))
    return inference.ratio(*spreads, both.weights)


def settling(
    mine: pd.DataFrame,
    task: str,
    survey: Survey,
    *,
    final: str,
    quantile: float,
    permutations: int,
    seed: int,
) -> Numbers:
    """How far the later stages move the answers, beside SFT's own move."""
    found, ranks, promoted = {}, {}, {}
    for rung in ("dpo", "rlvr"):
        pair = views.compared(mine, task, "sft", rung)
        if not pair.count.measurable:
            continue
        moved = _moved(pair.laws("sft"), pair.laws(rung))
        off, unresolved = _left(mine, rung, task, pair.rows)
        statistics = {
            f"SFT to {rung}, TV": lambda w, moved=moved: moved(w).tv,
            f"off-support mass of {rung}": off,
            f"unresolved mass of {rung}": unresolved,
        }
        found |= {name: inference.estimate(one, pair.weights) for name, one in statistics.items()}
        rank = moved(pair.weights).spearman[0]
        ranks[f"SFT to {rung}, rank correlation"] = inference.exactly(rank)
        gained = claims.promoted(pair.evidence("sft"), pair.evidence(rung))
        promoted[f"SFT to {rung}, promoted mass"] = gained
    found |= ranks | _stages(mine, task, final) | promoted
    pair = views.compared(mine, task, "base", "sft")
    if own := figures.seed_of(mine, task, survey.seeds.get(task, ""), quantile):
        found["options in A, of all (chance level)"] = inference.exactly(own.mask.mean())
    how = {"clusters": pair.units, "splits": permutations, "seed": seed}
    floor = inference.split_half_floor(pair.laws("sft"), ph.tv, **how)
    return found | {"split-half floor of SFT, TV": inference.spread_of(floor)}


def _moved(first: Array, last: Array) -> Callable:
    before, after = _mean(first), _mean(last)
    return lambda w: ph.redistribution(before(w), after(w))


def _stages(mine: pd.DataFrame, task: str, final: str) -> Numbers:
    """Squared move from SFT to the last stage over that from the base, in either form, to SFT."""
    places = {"MSE ratio, stage": "base"}
    if views.was_read(mine, "base", "chat"):
        places["MSE ratio, stage, base in chat form"] = ("base", "chat")
    every = {label: (views.compared(mine, task, x, "sft", final), x) for label, x in places.items()}
    return {
        label: _stage(three, (begin, "sft", final))
        for label, (three, begin) in every.items()
        if three.count.measurable
    }


def _stage(three: views.Compared, places: tuple[views.Place, ...]) -> Estimate:
    base, sft, last = (_mean(three.laws(place)) for place in places)
    steps = (lambda w: ph.mse(sft(w), last(w))), (lambda w: ph.mse(base(w), sft(w)))
    return inference.ratio(*steps, three.weights)


def moved(both: views.Compared, before: views.Place, after: views.Place) -> Estimate:
    """Total variation between the mean answers before and after."""
    first, last = _mean(both.laws(before)), _mean(both.laws(after))
    return inference.estimate(lambda w: ph.tv(first(w), last(w)), both.weights, low=0)


def liquidity(one: views.Compared, place: views.Place) -> Estimate:
    """Bits that the prompt tells about the answer."""
    laws = one.laws(place)
    return inference.estimate(lambda w: ph.liquidity_bits(laws, w), one.weights, low=0)


def most_bits(task: str) -> float:
    """Entropy of even answers, bits: the ceiling of liquidity."""
    return float(np.log2(len(TASKS[task].options)))
