"""A page of one phase and one task: what it compares, judges and measures, a real base first.

The real base has a place where its read-outs are there; a page of other ladders keeps it beside
them. Its verdicts are those of the pages `checkpoints` and `real-base`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ..ask.ladders import ladder_names, load_ladder
from ..ask.prompts import CHAT, COMPLETION, load_prompts
from ..ask.tasks import TASKS
from ..errors import known
from ..files import root
from ..keep import manifest, store
from ..measure import chain, claims, inference
from ..measure import quantities as ph
from ..measure.chain import LIQUID, NUCLEATION, SETTLING, Survey
from ..measure.claims import Verdict
from ..measure.inference import Estimate
from ..measure.quantities import Array
from ..present import chips, figures, verdicts, views
from ..present.views import Compared, Place
from . import later, real

CHECKPOINTS = {LIQUID: ("base", "sft"), NUCLEATION: None, SETTLING: ("base", "sft", "dpo", "rlvr")}
STAGE = {"base": "base", "sft": "SFT", "dpo": "DPO", "rlvr": "RLVR"}
Numbers = dict[str, Estimate]  # in the order in which a page has them
How = Mapping[str, Any]  # a page's parameters


@dataclass(frozen=True, eq=False)
class Series:
    """One model, on the prompts that it answers before and after. after: None on liquid pages."""

    name: str
    title: str  # plain, as anybody wrote it
    cluster: str  # who differs among the prompts: persona, context
    answers: Compared
    before: Place
    after: Place | None
    verdicts: Sequence[Verdict] = ()


@dataclass(frozen=True, eq=False)
class Data:
    """What a page of one phase and one task shows. series: those that can be measured."""

    phase: str
    task: str
    how: How
    readouts: pd.DataFrame  # of the ladders that can be measured
    answered: views.Answered
    surveys: Mapping[str, Survey]
    series: Sequence[Series] = ()
    judged: Sequence[chips.Judged] = ()  # every model's title and verdicts, the real base first
    seeds: Mapping[str, str] = field(default_factory=dict)

    @property
    def found(self) -> dict[str, list[Verdict]]:
        """Ladder -> its verdicts on this phase and task."""
        return {ladder: _of(every, self.phase, self.task) for ladder, every in self.surveys.items()}


def _of(every: Survey, phase: str, task: str) -> list[Verdict]:
    return [v for claim, v in every.of(task).items() if claim in chain.CLAIMS[phase]]


# --- loaded


def load(phase: str, task: str, ladders: Sequence[str], **how: Any) -> Data:
    """The read-outs and verdicts of a page. how: seed, permutations; final and quantile where the
    page has them, of which only settling's verdicts depend on them.

    Raises: CrystalError for a parameter that is none.
    """
    if "final" in how:
        known(how["final"], ["dpo", "rlvr"], "final stage")
    if "quantile" in how:
        claims.check_quantile(how["quantile"])
    checkpoints = {"checkpoints": list(CHECKPOINTS[phase])} if CHECKPOINTS[phase] else {}
    readouts = views.read_ladders(ladders, tasks=[task], **checkpoints)
    places = ("base", "sft", how.get("final"))[: list(chain.CLAIMS).index(phase) + 1]
    asked = [c for c in chain.CLAIMS[phase] if c not in chain.OVER_TASKS]
    answered = views.count_answered(readouts, task, *places, claims=asked)
    readouts = readouts[readouts["ladder"].isin(answered.able)]
    judging = how if phase == SETTLING else {n: how[n] for n in ("seed", "permutations")}
    surveys = {ladder: verdicts.measured(ladder, **judging) for ladder in answered.able}
    before, after = (places[0], None) if phase == LIQUID else places[-2:]
    series = []
    for ladder, mine in views.each_ladder(readouts):
        both = views.compared(mine, task, *filter(None, (before, after)))
        found = _of(surveys[ladder], phase, task)
        title = load_ladder(ladder).title
        series.append(Series(ladder, title, "persona", both, before, after, found))
    final = how.get("final", later.STAGES[-1])
    if answered.able and real_there(phase, final):
        found = _of(real_survey(phase, judging), phase, task)
        series = [replace(load_real(phase, task, final), verdicts=found), *series]
    judged = [(one.title, one.verdicts) for one in series]
    judged += [(load_ladder(one).title, found) for one, found in answered.verdicts.items()]
    series = [one for one in series if one.answers.count.measurable]
    seeds = {one: every.seeds[task] for one, every in surveys.items() if task in every.seeds}
    return Data(phase, task, how, readouts, answered, surveys, series, judged, seeds)


def real_there(phase: str, final: str = later.STAGES[-1]) -> bool:
    """Whether a real base was read as far as a phase needs it."""
    names = [real.PARENT] if phase == LIQUID else [real.PARENT, real.EXPERIMENT]
    if not all(name in ladder_names() and manifest.records(name) for name in names):
        return False
    described = (root() / "data/experiments" / f"{real.EXPERIMENT}.yaml").is_file()
    if phase == SETTLING:  # the chain of claims is about the last stage
        return described and later.read() and final == later.STAGES[-1]
    return phase == LIQUID or described


def real_survey(phase: str, how: How) -> Survey:
    """The real base's verdicts: of the first SFT run or, on settling, of the run with RL."""
    if phase == LIQUID:
        return verdicts.measured(real.PARENT, **how)
    run = real.PLAIN[0] if phase == NUCLEATION else later.RUN
    judging = {name: x for name, x in how.items() if name != "final"}

    def fresh() -> Survey:
        if phase == SETTLING:
            return later.survey(real.read(), **judging)
        return real.surveys(real.read(), runs=[run], **judging)[run]

    code = "".join(map(inspect.getsource, (real, later)))
    digests = [store.manifest_digest(name) for name in (real.PARENT, real.EXPERIMENT)]
    return verdicts.kept(f"{real.EXPERIMENT}-{run}", [run, judging, digests, code], fresh)


def real_title() -> str:
    """Its name without the way it is stored."""
    return load_ladder(real.PARENT).title.partition(" (")[0]


def real_places(phase: str) -> dict[str, tuple[str, str]]:
    """Stage -> checkpoint and form of the real base, for every stage that a phase compares."""
    stages = {"sft": real.ends()[real.PLAIN[0]]} if phase == NUCLEATION else later.checkpoints()
    return {"base": ("base", COMPLETION)} | {stage: (c.name, CHAT) for stage, c in stages.items()}


def load_real(phase: str, task: str, final: str = later.STAGES[-1]) -> Series:
    """The real base's answers before and after."""
    if phase == LIQUID:
        mine = store.load_readouts(real.PARENT, tasks=[task], checkpoints=["base"])
        answers, ends = views.compared(mine, task, "base", prompts=load_prompts()), ("base", None)
    else:
        ends = ("base", "sft") if phase == NUCLEATION else ("sft", final)
        places = {stage: real_places(phase)[stage] for stage in ends}
        answers = real.compared(real.read([task]), task, places)
    return Series(real.PARENT, real_title(), "context", answers, *ends)


def surveys(phase: str, ladders: Sequence[str]) -> dict[str, Survey]:
    """Title -> verdicts on all tasks, the real base first, as the pages have them."""
    how = {"seed": 0, "permutations": 999}
    how |= {"quantile": claims.QUANTILE} if phase == SETTLING else {}
    found = {real_title(): real_survey(phase, how)} if real_there(phase) else {}
    return found | {load_ladder(name).title: verdicts.measured(name, **how) for name in ladders}


# --- all numbers


def measure(data: Data) -> dict[str, Numbers]:
    """Ladder -> every number of the page."""
    ask = {LIQUID: _liquid, NUCLEATION: _nucleation, SETTLING: _settling}[data.phase]
    return {
        ladder: ask(mine, data.task, data.surveys[ladder], data.how)
        for ladder, mine in views.each_ladder(data.readouts)
    }


def _mean(p: Array, column: int | slice = slice(None)) -> Callable:
    """The mean answer, or one column of it, as a statistic of the prompts' weights."""
    return lambda w: ph.mean_distribution(p, w)[..., column]


def _left(mine: pd.DataFrame, checkpoint: str, task: str, rows: Array) -> tuple[Callable, Callable]:
    """Invalid-answer and residual mass of a checkpoint, as statistics."""
    rest = views.leftover(mine, checkpoint, task)[rows]
    return _mean(rest, 0), _mean(rest, 1)


def _floor(one: Compared, place: Place, how: How) -> Estimate:
    draws = {"splits": how["permutations"], "seed": how["seed"]}
    return inference.split_half_floor(one.distributions(place), one.clusters, **draws)


def _liquid(mine: pd.DataFrame, task: str, _: Survey, how: How) -> Numbers:
    """How much the prompt tells about the answer of the base, and how broad its answers are."""
    alone, quantile = views.compared(mine, task, "base"), how["quantile"]
    base, weights, clusters = alone.distributions("base"), alone.weights, alone.clusters
    invalid, residual = _left(mine, "base", task, alone.rows)
    entropy, held = ph.entropy_bits(base)[:, None], ph.support(base, quantile).sum(-1)[:, None]
    floor = ph.template_floor_bits
    statistics = {
        "entropy within a prompt, bits": _mean(entropy, 0),
        "options that hold the quantile, within a prompt": _mean(held, 0),
        "estimated liquidity, bits": lambda w: ph.liquidity_bits(base, w),
        "liquidity of the templates alone, bits": lambda w: floor(base, clusters, w),
        "distinct distributions (Vendi number)": lambda w: ph.vendi(base, w),
        "spread, MSE": lambda w: ph.spread(base, w),
        "invalid-answer mass": invalid,
        "residual mass": residual,
    }
    most = dict(zip(statistics, (most_bits(task), base.shape[-1]), strict=False))
    mean = ph.mean_distribution(base, weights[0])
    held = ph.support(mean, quantile).sum(-1)
    described = {
        "entropy of the mean distribution, bits": ph.entropy_bits(mean),
        "the same, normalised": ph.entropy_bits(mean) / most_bits(task),
        "effective options of the mean distribution": 2 ** ph.entropy_bits(mean),
        "options that hold the quantile, of the mean distribution": held,
        "liquidity of these personas, bits": ph.liquidity_bits(base, weights[0]),
    }
    found = {
        label: inference.estimate(statistic, weights, low=0, high=most.get(label, np.inf))
        for label, statistic in statistics.items()
    }
    return found | {label: inference.exactly(value) for label, value in described.items()}


def _nucleation(mine: pd.DataFrame, task: str, survey: Survey, how: How) -> Numbers:
    """What SFT does to the spread among prompts, and how near it comes to the seed."""
    pair = views.compared(mine, task, "base", "sft")
    base, sft, weights = pair.distributions("base"), pair.distributions("sft"), pair.weights
    invalid, residual = _left(mine, "sft", task, pair.rows)
    before, after = _mean(base), _mean(sft)
    own = figures.seed_of(mine, task, survey.seeds.get(task, ""))
    statistics = {
        "estimated liquidity of the base, bits": lambda w: ph.liquidity_bits(base, w),
        "estimated liquidity of SFT, bits": lambda w: ph.liquidity_bits(sft, w),
        "mean base to SFT, JSD in bits": lambda w: ph.jsd_bits(before(w), after(w)),
        "base to SFT, TV of mean distributions": lambda w: ph.tv(before(w), after(w)),
        "invalid-answer mass of SFT": invalid,
        "residual mass of SFT": residual,
    }
    if own:
        statistics["seed to SFT, TV"] = lambda w: ph.tv(own.distribution, after(w))
        statistics["seed to SFT, JSD in bits"] = lambda w: ph.jsd_bits(own.distribution, after(w))
    even = weights[0]
    exact = {
        "MSE ratio, nearest of all prompts": ph.mse_ratio_seed(base, after(even)),
        "liquidity of the base, these personas, bits": ph.liquidity_bits(base, even),
        "liquidity of SFT, these personas, bits": ph.liquidity_bits(sft, even),
    }
    if survey.account and task in survey.account.progress:
        exact["progress towards the seed, this task"] = survey.account.progress[task]
    found = {name: inference.estimate(one, weights, low=0) for name, one in statistics.items()}
    found |= {name: inference.exactly(value) for name, value in exact.items()}
    found |= _compressions(mine, task, pair)
    for place, name in (("base", "base"), ("sft", "SFT")):
        found[f"split-half floor of {name}, TV"] = _floor(pair, place, how)
    return found


def _compressions(mine: pd.DataFrame, task: str, pair: Compared) -> Numbers:
    """Spread over the base's: of SFT, of the form alone, of the weights alone."""
    kept, found = {"compression": real.kept_spread(pair, "base", "sft")}, {}
    chat, raw = ("base", CHAT), ("sft", COMPLETION)
    ways = {"compression by form alone": chat, "compression by weights alone, raw text": raw}
    whole = views.was_read(mine, *chat) and views.was_read(mine, *raw)
    for label, later_ in ways.items() if whole else ():
        both = views.compared(mine, task, "base", later_)
        if both.count.measurable:
            kept[label] = real.kept_spread(both, "base", later_)
            if later_ == chat:
                found["form alone, TV of mean distributions"] = moved(both, "base", chat)
    return found | kept


def _settling(mine: pd.DataFrame, task: str, survey: Survey, how: How) -> Numbers:
    """How far the later stages move the answers, beside SFT's own move."""
    found, ranks, promoted = {}, {}, {}
    for checkpoint in ("dpo", "rlvr"):
        pair = views.compared(mine, task, "sft", checkpoint)
        if not pair.count.measurable:
            continue
        before, after = _mean(pair.distributions("sft")), _mean(pair.distributions(checkpoint))
        invalid, residual = _left(mine, checkpoint, task, pair.rows)
        statistics = {
            f"SFT to {checkpoint}, TV": lambda w, p=before, q=after: ph.tv(p(w), q(w)),
            f"invalid-answer mass of {checkpoint}": invalid,
            f"residual mass of {checkpoint}": residual,
        }
        found |= {name: inference.estimate(one, pair.weights) for name, one in statistics.items()}
        rank = ph.spearman(before(pair.weights), after(pair.weights))[0]
        ranks[f"SFT to {checkpoint}, rank correlation"] = inference.exactly(rank)
        gained = claims.promoted(pair.evidence("sft"), pair.evidence(checkpoint))
        promoted[f"SFT to {checkpoint}, promoted mass"] = gained
    found |= ranks | _ratios(mine, task, how["final"]) | promoted
    if own := figures.seed_of(mine, task, survey.seeds.get(task, ""), how["quantile"]):
        found["options in A, of all (chance level)"] = inference.exactly(own.mask.mean())
    pair = views.compared(mine, task, "base", "sft")
    return found | {"split-half floor of SFT, TV": _floor(pair, "sft", how)}


def _ratios(mine: pd.DataFrame, task: str, final: str) -> Numbers:
    """Squared move from SFT to the last stage over that from the base, in either form, to SFT."""
    starts, found = {"MSE ratio, stage": "base"}, {}
    if views.was_read(mine, "base", CHAT):
        starts["MSE ratio, stage, base in chat form"] = ("base", CHAT)
    for label, start in starts.items():
        three = views.compared(mine, task, start, "sft", final)
        base, sft, last = (_mean(three.distributions(place)) for place in three.tables)
        steps = (
            lambda w, p=sft, q=last: ph.mse(p(w), q(w)),
            lambda w, p=base, q=sft: ph.mse(p(w), q(w)),
        )
        if three.count.measurable:
            found[label] = inference.ratio(*steps, three.weights)
    return found


def moved(both: Compared, before: Place, after: Place) -> Estimate:
    """Total variation between the mean answers before and after."""
    first, last = _mean(both.distributions(before)), _mean(both.distributions(after))
    return inference.estimate(lambda w: ph.tv(first(w), last(w)), both.weights, low=0)


def liquidity(one: Compared, place: Place) -> Estimate:
    """Bits that the prompt tells about the answer."""
    distributions = one.distributions(place)
    return inference.estimate(lambda w: ph.liquidity_bits(distributions, w), one.weights, low=0)


def most_bits(task: str) -> float:
    """Entropy of even answers, bits: the ceiling of liquidity."""
    return float(np.log2(len(TASKS[task].options)))
