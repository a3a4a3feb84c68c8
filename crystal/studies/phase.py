"""A page of one phase and one task: what it compares and judges, a real base first.

The real base has a place where its read-outs are there; a page of other ladders keeps it beside
them. Its verdicts are those of the pages `checkpoints` and `real-base`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from ..ask.ladders import ladder_names, load_ladder
from ..ask.prompts import CHAT, COMPLETION, load_prompts
from ..errors import known
from ..files import root
from ..keep import manifest, store
from ..measure import chain, claims
from ..measure.chain import LIQUID, NUCLEATION, SETTLING, Survey
from ..measure.claims import Verdict
from ..present import chips, verdicts, views
from ..present.views import Compared, Place
from . import later, phase_numbers, real

RUNGS = {LIQUID: ("base", "sft"), NUCLEATION: None, SETTLING: ("base", "sft", "dpo", "rlvr")}
STAGE = {"base": "base", "sft": "SFT", "dpo": "DPO", "rlvr": "RLVR"}


@dataclass(frozen=True, eq=False)
class Series:
    """One model, on the prompts that it answers before and after. after: None on liquid pages."""

    name: str
    title: str  # plain, as anybody wrote it
    unit: str  # who differs among the prompts: narrator, context
    answers: Compared
    before: Place
    after: Place | None
    verdicts: Sequence[Verdict] = ()


@dataclass(frozen=True, eq=False)
class Data:
    """What a page of one phase and one task shows. series: those that can be measured."""

    phase: str
    task: str
    how: Mapping[str, Any]
    readouts: pd.DataFrame  # of the ladders that can be measured
    answered: views.Answered
    surveys: Mapping[str, Survey]
    series: Sequence[Series] = ()
    judged: Sequence[chips.Told] = ()  # every model's title and verdicts, the real base first
    seeds: Mapping[str, str] = field(default_factory=dict)

    @property
    def found(self) -> dict[str, list[Verdict]]:
        """Ladder -> its verdicts on this phase and task."""
        return {ladder: _of(every, self.phase, self.task) for ladder, every in self.surveys.items()}


def _of(every: Survey, phase: str, task: str) -> list[Verdict]:
    return [v for claim, v in every.of(task).items() if claim in chain.CLAIMS[phase]]


# --- loaded ---------------------------------------------------------------------------------------


def load(phase: str, task: str, ladders: Sequence[str], **how: Any) -> Data:
    """The read-outs and verdicts of a page. how: seed, permutations; final and quantile where the
    page has them, of which only settling's verdicts depend on them.

    Raises: CrystalError for a parameter that is none.
    """
    if "final" in how:
        known(how["final"], ["dpo", "rlvr"], "final rung")
    if "quantile" in how:
        claims.check_quantile(how["quantile"])
    rungs = {"rungs": list(RUNGS[phase])} if RUNGS[phase] else {}
    readouts = views.read_ladders(ladders, tasks=[task], **rungs)
    places = ("base", "sft", how.get("final"))[: list(chain.CLAIMS).index(phase) + 1]
    asked = [c for c in chain.CLAIMS[phase] if c not in chain.OVER_TASKS]
    answered = views.count_answered(readouts, task, *places, claims=asked)
    readouts = readouts[readouts["ladder"].isin(answered.able)]
    judging = how if phase == SETTLING else {n: how[n] for n in ("seed", "permutations")}
    surveys = {ladder: verdicts.measured(ladder, **judging) for ladder in answered.able}
    series = [
        Series(
            ladder,
            load_ladder(ladder).title,
            "narrator",
            *_pair(phase, task, mine, places),
            _of(surveys[ladder], phase, task),
        )
        for ladder, mine in views.each_ladder(readouts)
    ]
    final = how.get("final", later.STAGES[-1])
    if answered.able and real_there(phase, final):
        found = _of(real_survey(phase, judging), phase, task)
        series = [replace(load_real(phase, task, final), verdicts=found), *series]
    judged = [(one.title, one.verdicts) for one in series]
    judged += [(load_ladder(one).title, found) for one, found in answered.verdicts.items()]
    series = [one for one in series if one.answers.count.measurable]
    seeds = {one: every.seeds[task] for one, every in surveys.items() if task in every.seeds}
    return Data(phase, task, how, readouts, answered, surveys, series, judged, seeds)


def _pair(phase: str, task: str, mine: pd.DataFrame, places: Sequence[Place]) -> tuple:
    """The answers before and after, and the names of the two places."""
    before, after = (places[0], None) if phase == LIQUID else places[-2:]
    compared = views.compared(mine, task, *filter(None, (before, after)))
    return compared, before, after


def real_there(phase: str, final: str = later.STAGES[-1]) -> bool:
    """Whether a real base was read as far as a phase needs it."""
    names = [real.PARENT] if phase == LIQUID else [real.PARENT, real.EXPERIMENT]
    if not all(name in ladder_names() and manifest.records(name) for name in names):
        return False
    described = (root() / "data/experiments" / f"{real.EXPERIMENT}.yaml").is_file()
    if phase == SETTLING:  # the chain of claims is about the last stage
        return described and later.read() and final == later.STAGES[-1]
    return phase == LIQUID or described


def real_survey(phase: str, how: Mapping[str, Any]) -> Survey:
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
    """Stage -> rung and form of the real base, for every stage that a phase compares."""
    base = {"base": ("base", COMPLETION)}
    if phase == NUCLEATION:
        return base | {"sft": (real.ends()[real.PLAIN[0]].name, CHAT)}
    return base | {stage: (rung.name, CHAT) for stage, rung in later.rungs().items()}


def load_real(phase: str, task: str, final: str = later.STAGES[-1]) -> Series:
    """The real base's answers before and after."""
    if phase == LIQUID:
        mine = store.load_readouts(real.PARENT, tasks=[task], rungs=["base"])
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


def measure(data: Data) -> dict[str, phase_numbers.Numbers]:
    """Ladder -> every number of the page."""
    found, how = {}, dict(data.how)
    for ladder, mine in views.each_ladder(data.readouts):
        if data.phase == LIQUID:
            found[ladder] = phase_numbers.liquid(mine, data.task, quantile=how["quantile"])
        else:
            ask = phase_numbers.nucleation if data.phase == NUCLEATION else phase_numbers.settling
            found[ladder] = ask(mine, data.task, data.surveys[ladder], **how)
    return found
