"""What DPO and RL do to a real base after SFT: the run `whole` of the arms, stage by stage, and DPO
twice more after the same SFT.

Chat form, the first wording of each context, on the contexts that all compared answer. Registered
in data/registered, 2026-11-30-real-settling.md and -real-dpo.md, before an answer was looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.ladders import Checkpoint, load_ladder
from ..ask.prompts import CHAT, COMPLETION
from ..ask.tasks import TASKS
from ..lab import recipes
from ..measure import chain, claims, inference
from ..measure import quantities as ph
from ..measure.inference import Estimate
from ..present import show
from ..present.figures import COLOURS, panels
from ..present.training_figures import reward_rise
from . import real
from .real import PARENT, RAW, SFT
from .runs import record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUN, STAGES = "whole", ("dpo", "rlvr")
AGAIN, GENTLE = "dpo-again", "dpo-gentle"  # runs: other pairs; those, at a tenth of the rate
KEPT = 0.5  # an assistant is kept with at least this share of SFT's right answers
PUBLISHED = ("Tulu-3-8B", "Olmo-3-7B", "Olmo-3.1-32B")  # ladders of the page `real-ladders`
ASKED = ("moves-less", "stays-frozen", "little-promoted")


measured = partial(record, ladder=PARENT)


def checkpoints() -> dict[str, Checkpoint]:
    """Stage -> its last checkpoint of RUN that was read, in order of training."""
    mine = [c for c in load_ladder(real.EXPERIMENT).checkpoints if c.run == RUN]
    last = {c.stage: c for c in sorted(mine, key=lambda c: c.step)}
    return {stage: last[stage] for stage in (SFT, *STAGES) if stage in last}


def dpo() -> dict[str, Checkpoint]:
    """Run -> its DPO, of RUN and of those that began with its SFT, as far as these were read."""
    mine = {c.run: c for c in load_ladder(real.EXPERIMENT).checkpoints if c.stage == "dpo"}
    return {run: mine[run] for run in (RUN, AGAIN, GENTLE) if run in mine}


def read() -> bool:
    """Whether every stage of RUN was read."""
    return checkpoints().keys() >= {SFT, *STAGES}


def survey(readouts: real.Distributions, **how) -> chain.Survey:
    """The chain of claims with the last stage: base (raw text), SFT and RLVR."""
    places = {stage: (c.name, CHAT) for stage, c in checkpoints().items()}
    every = real.on_tasks(readouts, places | {RAW: ("base", COMPLETION)})
    return real.survey(every, (RAW, SFT, STAGES[-1]), **how)


def load_stages(
    readouts: real.Distributions, later: Mapping[str, Checkpoint] | None = None
) -> pd.DataFrame:
    """One row per task and stage (name -> checkpoint after the SFT of RUN; None: its own STAGES)
    that enough contexts answer: contexts, mass (answered by the base in chat form, SFT and the
    stage).

    before, after: total variation of mean answers, base to SFT and SFT to the stage. base, sft,
    bits: liquidity of the three, bits. promoted: as `claims.promoted`. likeliest, share: of the
    stage's mean answer. mode_before, mode_after: whether the likeliest option stays.
    """
    rows, ends = [], checkpoints()
    for stage, checkpoint in (later or {stage: ends[stage] for stage in STAGES}).items():
        names = {RAW: "base", SFT: ends[SFT].name, stage: checkpoint.name}
        places = {place: (name, CHAT) for place, name in names.items()}
        for task, found in real.measurable(readouts, places).items():
            base, sft, last = means = [found.distributions(place).mean(0) for place in places]
            modes = [int(mean.argmax()) for mean in means]
            about = {"stage": stage, "task": task}
            about |= {"contexts": found.count.answered, "mass": found.count.median}
            about |= {"before": float(ph.tv(base, sft)), "after": float(ph.tv(sft, last))}
            about |= dict(zip(("base", "sft", "bits"), map(found.bits, places), strict=True))
            gained = claims.promoted(found.evidence(SFT), found.evidence(stage))
            about |= {"promoted": gained.here}
            about |= {"mode_before": modes[0] == modes[1], "mode_after": modes[1] == modes[2]}
            likeliest = TASKS[task].options[modes[2]]
            rows.append(about | {"likeliest": likeliest, "share": float(last.max())})
    return pd.DataFrame(rows)


def asked(stages: pd.DataFrame, stage: str) -> dict[str, claims.Verdict]:
    """The claims of ASKED about a stage, over all tasks, whether or not SFT collapsed."""
    mine = stages[stages["stage"] == stage].set_index("task")
    weights = real.without_a_kind(mine.index)
    gained, base = (mine["bits"] - mine["sft"]).to_numpy(), mine["base"].to_numpy()
    found = {
        "moves-less": real.geometric(mine["after"] / mine["before"]),
        "stays-frozen": inference.estimate(lambda w: ph.ratio(w @ gained, w @ base), weights),
        "little-promoted": real.over_tasks(mine["promoted"].to_dict()),
    }
    return {claim: claims.judge(claim, one) for claim, one in found.items()}


def report(readouts: real.Distributions, trained: dict, **how) -> None:
    """The section of the page. trained: the record of RUN; how: seed, permutations."""
    stages = load_stages(readouts)
    found = {stage: asked(stages, stage) for stage in STAGES}
    for stage, verdicts in found.items():
        _judged(stage, verdicts.values())
    liquid = "; ".join(_show_liquidity(stages))
    show.emit(
        plot_later(stages),
        "later",
        data=stages,
        alt=f"Liquidity of each task along base, SFT, DPO and RL: {liquid}.",
        caption="Liquidity in chat form, a line a task, on the contexts that each stage, SFT and "
        "the base answer; blue: their mean.",
    )
    rows = [[claim, *(real.in_short(found[s][claim]) for s in STAGES)] for claim in ASKED]
    show.prose(show.table(["asked all the same", *map(str.upper, STAGES)], rows))
    order, settling = survey(readouts, **how), chain.CLAIMS[chain.SETTLING]
    _judged(RUN, [v for v in order.verdicts[chain.POOLED] if v.claim in settling])
    rows = [[claim, real.by_task(order, claim)] for claim in settling]
    show.prose(show.table(["in the claims' order", "by task"], rows))
    _show_skill(trained)
    _show_modes(stages)


def _judged(of: str, verdicts: Iterable[claims.Verdict]) -> None:
    for verdict in verdicts:
        show.claim(f"{verdict.claim}-{of}", ladder=PARENT, **verdict.fields())


def _show_liquidity(stages: pd.DataFrame) -> list[str]:
    """Does a later stage give liquidity back? Means over tasks, before and after it, in words."""
    sentences = []
    for stage, mine in stages.groupby("stage", sort=False):
        bits, over = mine[["base", "sft", "bits"]].mean().map(show.fmt), _over_sft(mine)
        sentence = (
            f"after {stage.upper()} answers carry {bits['bits']} bit about the context, "
            f"{bits['sft']} before it and {bits['base']} in the base (chat form, means over "
            f"{len(mine)} tasks), {_in_full(over)} times SFT's; it rises on {_rises(mine)}"
        )
        measured(f"liquidity-{stage}", over, sentence)
        sentences.append(sentence)
    show.prose(show.listed([f"{one[0].upper()}{one[1:]}." for one in sentences]))
    return sentences


def _rises(mine: pd.DataFrame) -> int:
    return int((mine["bits"] > mine["sft"]).sum())


def _in_full(found: Estimate) -> str:
    """With the digits that prose quotes."""
    return f"{show.fmt(found.value)} ({show.fmt(found.low)} to {show.fmt(found.high)})"


def _over_sft(mine: pd.DataFrame) -> Estimate:
    """A stage's liquidity over SFT's, means over tasks; kinds of tasks are left out in turn."""
    weights = real.without_a_kind(mine["task"])
    later, sft = mine["bits"].to_numpy(), mine["sft"].to_numpy()
    found = inference.ratio(lambda w: w @ later, lambda w: w @ sft, weights)
    return replace(found, value=float(mine["bits"].mean() / mine["sft"].mean()))


def _show_skill(record: dict) -> None:
    """Whether the assistant is kept, and whether the reward of RL rose."""
    right = {name: found["instructions"] for name, found in record["accuracy"].items()}
    rise = claims.judge("reward-rises", reward_rise(record["reward"]["rlvr"]))
    show.claim("reward-whole", ladder=PARENT, **rise.fields())
    shares = ", ".join(f"{name} {show.fmt(share)}" for name, share in right.items())
    sentence = f"share of checkable instructions answered rightly: {shares}"
    measured("right", right["dpo"], sentence)
    cost = ""
    if right["dpo"] < right["sft"]:
        cost = " DPO cost the assistant right answers, so what it did to random choices may be "
        cost += "damage."
    show.prose(f"The {sentence}.{cost} The sampled reward of RL: {real.in_short(rise)}.")


def _show_modes(stages: pd.DataFrame) -> None:
    """On how many tasks the likeliest answer stays, beside published ladders."""
    parts = stages.groupby("stage")[["mode_before", "mode_after"]].mean()
    kept = {"base-sft": parts["mode_before"][STAGES[-1]]}
    kept |= {f"sft-{stage}": parts["mode_after"][stage] for stage in STAGES}
    for pair, share in kept.items():
        sentence = f"share of tasks whose likeliest answer is the same: {pair}"
        measured(f"same-mode-{pair}", float(share), sentence)
    there = "; ".join(
        f"{title}: {{claim}}`real-ladders/same-mode-base-sft@{title}.number?` and "
        f"{{claim}}`real-ladders/same-mode-sft-rlvr@{title}.number?`"
        for title in PUBLISHED
    )
    show.prose(
        "Published numbers say one thing beside it, on other tasks: the share of tasks on which "
        f"the likeliest answer stays, base to SFT and SFT to RL. {there}; here: "
        f"{show.number(kept['base-sft'])} and {show.number(kept['sft-rlvr'])}."
    )


def plot_later(stages: pd.DataFrame) -> Figure:
    """A line a task along the stages, and their mean; base and SFT on the last stage's contexts."""
    names = list(dict.fromkeys(stages["stage"]))
    table = stages.pivot(index="task", columns="stage")
    last = [table[of, names[-1]] for of in ("base", "sft")]
    bits = np.column_stack([*last, *(table["bits", name] for name in names)])
    fig, ((ax,),) = panels(1, 1, 2.4)
    ax.plot(bits.T, color=COLOURS["base"], lw=0.9, alpha=0.7)
    ax.plot(bits.mean(0), color=COLOURS["sft"], marker="o", lw=2)
    ax.set_yscale("log")
    ax.set_xticks(range(len(names) + 2), ["base", "SFT", *(name.upper() for name in names)])
    ax.set_ylabel("liquidity, bits")
    return fig


# --- DPO twice more


def show_again(readouts: real.Distributions, records: Mapping[str, dict]) -> None:
    """The section on DPO twice more: does its finding replicate, and without damage?"""
    stages = load_stages(readouts, dpo())
    parts = dict(tuple(stages.groupby("stage", sort=False)))
    found = {run: asked(stages, run) for run in parts}
    planned = {run.name: run for run in recipes.load_experiment(real.EXPERIMENT).runs}
    share = {run: records[f"{PARENT}/{run}"]["accuracy"] for run in found}
    right = {run: share[run]["dpo"]["instructions"] for run in found}
    of_sft, rows = share[RUN]["sft"]["instructions"], []
    for run, mine in parts.items():
        bits = mine[["sft", "bits"]].mean().map(show.fmt)
        up = f"{_rises(mine)} of {len(mine)}"
        if run != RUN:
            _judged(run, found[run].values())
        sentence = f"{run}: liquidity goes from {bits['sft']} to {bits['bits']} bit (it rises on "
        sentence += f"{up} tasks), right answers from {show.fmt(of_sft)} to {show.fmt(right[run])}"
        measured(f"liquidity-{run}", over := _over_sft(mine), sentence)
        rate = recipes.load_recipe(PARENT, planned[run].set).dpo["learning_rate"]
        verdicts = (real.in_short(found[run][claim]) for claim in ASKED)
        numbers = [show.fmt(right[run]), bits["bits"], _in_full(over)]
        rows.append([run, f"{rate:.0e}", *numbers, up, *verdicts])
    head = ["run", "rate", "right answers", "liquidity, bits", "over SFT's", "rises on", *ASKED]
    show.prose(show.table(head, rows))
    frozen = {run: verdicts["stays-frozen"].verdict for run, verdicts in found.items()}
    conclusion = concluded(frozen, right, of_sft)
    measured("dpo", right[GENTLE], conclusion)
    gentle = f"liquidity rises on {_rises(parts[GENTLE])} of {len(parts[GENTLE])} tasks"
    show.prose(f"{conclusion}. Not registered: even then {gentle}.")


def concluded(frozen: Mapping[str, str], right: Mapping[str, float], of_sft: float) -> str:
    """What three runs of DPO say, by the registered rule. frozen, right: run -> verdict on
    stays-frozen, share of right answers; of_sft: that share before DPO.
    """
    again = "replicates" if frozen[AGAIN] == "fails" else "does not replicate"
    first = f"With other pairs the finding {again}"
    if right[GENTLE] < KEPT * of_sft:
        return f"{first}; at a tenth of the rate the assistant is lost, too, so it may be damage"
    kept = "at a tenth of the rate the assistant is kept"
    if frozen[GENTLE] == "fails":
        return f"{first}; {kept}, and liquidity comes back"
    there = "undecided" if frozen[GENTLE] == "undecided" else "refuted"
    return f"{first}; {kept}, and that liquidity comes back is {there}, so it comes with damage"
