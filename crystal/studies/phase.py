"""A page of one phase and one task: what it compares, judges and measures.

The real base comes first where it was read far enough, with the verdicts of its own pages,
`checkpoints` and `real-base`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ..ask.ladders import ladder_names, load_ladder
from ..ask.prompts import CHAT, COMPLETION
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import known
from ..keep import manifest, store
from ..measure import chain, claims, inference
from ..measure import quantities as ph
from ..measure.chain import LIQUID, NUCLEATION, SETTLING, Survey
from ..measure.claims import Verdict
from ..measure.inference import Estimate, exactly
from ..present import figures, verdicts, views
from ..present.views import NATIVE, Compared, Place
from . import later, real
from .real import Places
from .runs import where

STAGE = {"base": "base", "sft": "SFT", "dpo": "DPO", "rlvr": "RLVR"}
Numbers = dict[str, Estimate]  # in the order in which a page has them
How = Mapping[str, Any]  # a page's parameters


@dataclass(frozen=True, eq=False)
class Series:
    """One model, a ladder or the real base, and what a page of one phase and task has of it."""

    name: str
    title: str  # plain, as anybody wrote it
    cluster: str  # who differs among the prompts: persona, context
    stages: Places
    steps: Mapping[int, tuple[str, str]]  # of SFT
    read: Callable[[str, Places], Compared]  # task, places -> answers on the prompts shared
    readouts: pd.DataFrame | None = None  # of a ladder
    answers: Compared | None = None  # at the stages shown
    survey: Survey | None = None
    verdicts: Sequence[Verdict] = ()
    who: str = ""  # the persona whose answer in the base is the seed, of a ladder that has one
    seed: claims.Seed | None = None

    @property
    def forms(self) -> set[tuple[str, str]]:
        """(checkpoint, form) that a ladder was read in."""
        return {*zip(self.readouts["checkpoint"], self.readouts["form"], strict=True)}

    def at(self, task: str, *stages: str) -> Compared:
        """A task at some stages."""
        return self.read(task, {stage: self.stages[stage] for stage in stages})


@dataclass(frozen=True, eq=False)
class Data:
    """What a page of one phase and one task shows. series: those that can be measured."""

    phase: str
    task: str
    how: How
    stages: Sequence[str]  # shown: before and after, on liquid pages the base alone
    answered: views.Answered
    series: Sequence[Series]
    judged: Sequence[tuple[str, Sequence[Verdict]]]  # every title, the real base first

    @property
    def ladders(self) -> list[Series]:
        """The series without the real base."""
        return [one for one in self.series if one.readouts is not None]

    @property
    def seeded(self) -> list[Series]:
        """The ladders that have a seed."""
        return [one for one in self.ladders if one.seed]


# --- loaded


def load(phase: str, task: str, ladders: Sequence[str], **how: Any) -> Data:
    """The read-outs and verdicts of a page. how: seed, permutations; final and quantile where the
    page has them: only settling's verdicts depend on these.

    Raises: CrystalError for a parameter that is none.
    """
    final = known(how.get("final", later.STAGES[-1]), later.STAGES, "final stage")
    claims.check_quantile(how.get("quantile", claims.QUANTILE))
    readouts = views.read_ladders(ladders, tasks=[task])
    places = ("base", "sft", final)[: list(chain.CLAIMS).index(phase) + 1]
    asked = [claim for claim in chain.CLAIMS[phase] if claim not in chain.OVER_TASKS]
    answered = views.count_answered(readouts, task, *places, claims=asked)
    readouts = readouts[readouts["ladder"].isin(answered.able)]
    judging = how if phase == SETTLING else {n: how[n] for n in ("seed", "permutations")}
    series, stages = [], places[-2:]
    for one in models(phase, readouts, [task], final) if answered.able else ():
        series.append(_filled(one, phase, task, stages, judging))
    judged = [(one.title, one.verdicts) for one in series]
    judged += [(load_ladder(one).title, found) for one, found in answered.verdicts.items()]
    series = [one for one in series if one.answers.count.measurable]
    return Data(phase, task, how, stages, answered, series, judged)


def _filled(one: Series, phase: str, task: str, stages: Sequence[str], how: How) -> Series:
    """A series with what its page has of it. how: of its verdicts."""
    if one.readouts is None:
        survey, who, seed = real_survey(phase, how), "", None
    else:
        survey = verdicts.measured(one.name, **how)
        who = survey.seeds.get(task, "")
        seed = figures.seed_of(one.at(task, "base"), who, how.get("quantile", claims.QUANTILE))
    found = [v for claim, v in survey.of(task).items() if claim in chain.CLAIMS[phase]]
    answers = one.at(task, *stages)
    return replace(one, answers=answers, survey=survey, verdicts=found, who=who, seed=seed)


def models(
    phase: str, readouts: pd.DataFrame, tasks: Sequence[str], final: str = later.STAGES[-1]
) -> list[Series]:
    """The real base, where it was read as far as the phase needs it, then every ladder."""
    found = [real_series(phase, tasks)] if real_there(phase, final) else []
    for ladder, mine in views.each_ladder(readouts):
        steps = where(mine, stage="sft", form=CHAT).drop_duplicates("checkpoint")
        steps = {c.step: (c.checkpoint, CHAT) for c in steps.itertuples()}
        stages = {name: (name, form) for name, form in NATIVE.items()}
        title = load_ladder(ladder).title
        read = partial(_of_ladder, mine)
        found.append(Series(ladder, title, "persona", stages, steps, read, mine))
    return found


def _of_ladder(mine: pd.DataFrame, task: str, places: Places) -> Compared:
    tables = {name: views.unconditional(mine, c, task, form) for name, (c, form) in places.items()}
    return views.of_tables(tables)


# --- the real base


def real_there(phase: str, final: str = later.STAGES[-1]) -> bool:
    """Whether a real base was read as far as a phase needs it."""
    names = [real.PARENT] if phase == LIQUID else [real.PARENT, real.EXPERIMENT]
    if not all(name in ladder_names() and manifest.records(name) for name in names):
        return False
    # the chain of claims is about the last stage
    return phase != SETTLING or (later.read() and final == later.STAGES[-1])


def real_title() -> str:
    """Its name without the way it is stored."""
    return load_ladder(real.PARENT).title.partition(" (")[0]


def real_series(phase: str, tasks: Sequence[str]) -> Series:
    """The real base: both wordings on liquid pages, then the first SFT run or the run with RL."""
    tuned, steps = {}, {}
    if phase != LIQUID:
        tuned = {"sft": real.ends()[real.PLAIN[0]]} if phase == NUCLEATION else later.checkpoints()
        steps = {c.step: (c.name, CHAT) for c in real.sft(real.PLAIN[0])}
    stages = {"base": ("base", COMPLETION)} | {n: (c.name, CHAT) for n, c in tuned.items()}
    names = [real.PARENT] if phase == LIQUID else [real.PARENT, real.EXPERIMENT]
    read = partial(real.compared, real.read(tasks, names), whole=phase == LIQUID)
    return Series(real.PARENT, real_title(), "context", stages, steps, read)


def real_survey(phase: str, how: How) -> Survey:
    """The verdicts of the same."""
    if phase == LIQUID:
        return verdicts.measured(real.PARENT, **how)
    run = real.PLAIN[0] if phase == NUCLEATION else later.RUN
    judging = {name: x for name, x in how.items() if name != "final"}

    def fresh() -> Survey:
        one = real_series(phase, PHASE_TASKS)
        every = {task: one.at(task, *one.stages) for task in PHASE_TASKS}
        stages = ("base", "sft", later.STAGES[-1])[: 2 if phase == NUCLEATION else 3]
        return real.survey(every, stages, **judging)

    code = "".join(map(inspect.getsource, (real, later, real_series)))
    digests = [store.manifest_digest(name) for name in (real.PARENT, real.EXPERIMENT)]
    return verdicts.kept([run, judging, digests, code], fresh)


def surveys(phase: str, ladders: Sequence[str]) -> dict[str, Survey]:
    """Title -> verdicts on all tasks, the real base first, as the pages have them."""
    how = {"seed": 0, "permutations": 999}
    how |= {"quantile": claims.QUANTILE} if phase == SETTLING else {}
    found = {real_title(): real_survey(phase, how)} if real_there(phase) else {}
    return found | {load_ladder(name).title: verdicts.measured(name, **how) for name in ladders}


# --- all numbers


def measure(data: Data) -> dict[str, Numbers]:
    """Ladder -> every number of the page."""
    ask = numbers_of(data.phase)
    return {one.name: ask(one, data.task, data.how) for one in data.ladders}


def numbers_of(phase: str) -> Callable[[Series, str, How], Numbers]:
    """The function that computes every number of a phase's page."""
    return {LIQUID: _liquid, NUCLEATION: _nucleation, SETTLING: _settling}[phase]


def _liquid(ladder: Series, task: str, how: How) -> Numbers:
    """How much the prompt tells about the answer of the base, and how broad its answers are."""
    one, quantile = ladder.answers, how["quantile"]
    base = one.distributions("base")
    mean, held = ph.mean_distribution(base), ph.support(base, quantile).sum(-1)
    bits = ph.entropy_bits(mean)
    invalid, residual = _left(ladder, task, "base", one)
    return {
        "entropy within a prompt, bits": one.average(ph.entropy_bits(base), most_bits(task)),
        "options that hold the quantile, within a prompt": one.average(held, base.shape[1]),
        "estimated liquidity, bits": one.liquidity("base"),
        "liquidity of the templates alone, bits": one.estimate(
            lambda w: ph.template_floor_bits(base, one.clusters, w)
        ),
        "distinct distributions (Vendi number)": one.estimate(lambda w: ph.vendi(base, w)),
        "spread, MSE": one.estimate(lambda w: ph.spread(base, w)),
        "invalid-answer mass": invalid,
        "residual mass": residual,
        "entropy of the mean distribution, bits": exactly(bits),
        "the same, normalised": exactly(bits / most_bits(task)),
        "effective options of the mean distribution": exactly(2**bits),
        "options that hold the quantile, of the mean distribution": exactly(
            ph.support(mean, quantile).sum()
        ),
        "liquidity of these personas, bits": exactly(one.bits("base")),
    }


def _nucleation(ladder: Series, task: str, how: How) -> Numbers:
    """What SFT does to the spread among prompts, and how near it comes to the seed."""
    pair, account = ladder.answers, ladder.survey.account
    invalid, residual = _left(ladder, task, "sft", pair)
    found = {
        "estimated liquidity of the base, bits": pair.liquidity("base"),
        "estimated liquidity of SFT, bits": pair.liquidity("sft"),
        "mean base to SFT, JSD in bits": pair.moved("base", "sft", ph.jsd_bits),
        "base to SFT, TV of mean distributions": pair.moved("base", "sft"),
        "invalid-answer mass of SFT": invalid,
        "residual mass of SFT": residual,
    }
    if ladder.seed:
        own = ladder.seed.distribution
        found["seed to SFT, TV"] = pair.to(own, "sft")
        found["seed to SFT, JSD in bits"] = pair.to(own, "sft", ph.jsd_bits)
    found |= {
        "MSE ratio, nearest of all prompts": exactly(
            ph.mse_ratio_seed(pair.distributions("base"), pair.mean("sft")(None))
        ),
        "liquidity of the base, these personas, bits": exactly(pair.bits("base")),
        "liquidity of SFT, these personas, bits": exactly(pair.bits("sft")),
    }
    if account and task in account.progress:
        found["progress towards the seed, this task"] = exactly(account.progress[task])
    found |= _compressions(ladder, task)
    for place in ("base", "sft"):
        found[f"split-half floor of {STAGE[place]}, TV"] = _floor(pair, place, how)
    return found


def _compressions(ladder: Series, task: str) -> Numbers:
    """Spread over the base's: of SFT, of the form alone, of the weights alone."""
    found = {"compression": ladder.answers.kept_spread("base", "sft")}
    chat, raw = ("base", CHAT), ("sft", COMPLETION)
    ways = {"compression by form alone": chat, "compression by weights alone, raw text": raw}
    for label, place in ways.items() if {chat, raw} <= ladder.forms else ():
        both = ladder.read(task, {"base": ladder.stages["base"], "later": place})
        if both.count.measurable:
            found[label] = both.kept_spread("base", "later")
            if place == chat:
                found["form alone, TV of mean distributions"] = both.moved("base", "later")
    return found


def _settling(ladder: Series, task: str, how: How) -> Numbers:
    """How far the later stages move the answers, beside SFT's own move."""
    found: Numbers = {}
    for stage in later.STAGES:
        pair, move = ladder.at(task, "sft", stage), f"SFT to {stage}"
        if pair.count.measurable:
            invalid, residual = _left(ladder, task, stage, pair)
            ranks = ph.spearman(pair.mean("sft")(None), pair.mean(stage)(None))
            found |= {
                f"{move}, TV": pair.moved("sft", stage),
                f"{move}, rank correlation": exactly(ranks),
                f"{move}, promoted mass": claims.promoted(*map(pair.evidence, ("sft", stage))),
                f"invalid-answer mass of {stage}": invalid,
                f"residual mass of {stage}": residual,
            }
    found |= _ratios(ladder, task, how["final"])
    if ladder.seed:
        found["options in A, of all (chance level)"] = exactly(ladder.seed.mask.mean())
    pair = ladder.at(task, "base", "sft")
    return found | {"split-half floor of SFT, TV": _floor(pair, "sft", how)}


def _ratios(ladder: Series, task: str, final: str) -> Numbers:
    """Squared move from SFT to the last stage over that from the base, in either form, to SFT."""
    starts, found = {"MSE ratio, stage": ladder.stages["base"]}, {}
    if (chat := ("base", CHAT)) in ladder.forms:
        starts["MSE ratio, stage, base in chat form"] = chat
    for label, start in starts.items():
        later_on = {stage: ladder.stages[stage] for stage in ("sft", final)}
        three = ladder.read(task, {"start": start} | later_on)
        if three.count.measurable:
            base, sft, last = map(three.mean, three.tables)
            found[label] = inference.ratio(
                lambda w, p=sft, q=last: ph.mse(p(w), q(w)),
                lambda w, p=base, q=sft: ph.mse(p(w), q(w)),
                three.weights,
            )
    return found


def _left(ladder: Series, task: str, checkpoint: str, one: Compared) -> Iterator[Estimate]:
    """Invalid-answer and residual mass of a checkpoint."""
    masses = views.given(ladder.readouts, checkpoint, task, one.prompts)[:, -2:]
    return map(one.average, masses.T)


def _floor(one: Compared, place: Place, how: How) -> Estimate:
    """Total variation between the means of two random halves of the clusters."""
    draws = {"splits": how["permutations"], "seed": how["seed"]}
    return inference.split_half_floor(one.distributions(place), one.clusters, **draws)


def most_bits(task: str) -> float:
    """Entropy of even answers, bits: the ceiling of liquidity."""
    return float(np.log2(len(TASKS[task].options)))
