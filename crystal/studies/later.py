"""What DPO and RL do to a real base after SFT: the run `whole` of the arms, stage by stage, and DPO
twice more after the same SFT.

Chat form, the first wording of each context, on the contexts that all compared answer. Registered
in data/registered, 2026-11-30-real-settling.md and -real-dpo.md, before an answer was looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.ladders import Checkpoint, load_ladder
from ..ask.prompts import CHAT, COMPLETION
from ..ask.tasks import PHASE_TASKS, TASKS
from ..lab import recipes
from ..measure import chain, claims, inference
from ..measure import quantities as ph
from ..measure.inference import Estimate
from ..present import show
from ..present.figures import COLOURS, panels
from ..present.training_figures import reward_rise
from . import real

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUN, STAGES = "whole", ("dpo", "rlvr")
SFT, LATER = "sft", "later"
AGAIN, GENTLE = "dpo-again", "dpo-gentle"  # runs: other pairs; those, at a tenth of the rate
KEPT = 0.5  # an assistant is kept with at least this share of SFT's right answers
PUBLISHED = ("Tulu-3-8B", "Olmo-3-7B", "Olmo-3.1-32B")  # ladders of the page `real-ladders`
ASKED = ("moves-less", "stays-frozen", "little-promoted")


def checkpoints() -> dict[str, Checkpoint]:
    """Stage -> its last checkpoint of RUN, as far as it was read, in order of training."""
    mine = [
        checkpoint
        for checkpoint in load_ladder(real.EXPERIMENT).checkpoints
        if checkpoint.run == RUN
    ]
    last = {
        checkpoint.stage: checkpoint
        for checkpoint in sorted(mine, key=lambda checkpoint: checkpoint.step)
    }
    return {stage: last[stage] for stage in (SFT, *STAGES) if stage in last}


def dpo() -> dict[str, Checkpoint]:
    """Run -> its DPO, of RUN and of those that began with RUN's SFT, as far as these were read."""
    mine = {
        checkpoint.run: checkpoint
        for checkpoint in load_ladder(real.EXPERIMENT).checkpoints
        if checkpoint.stage == "dpo"
    }
    return {run: mine[run] for run in (RUN, AGAIN, GENTLE) if run in mine}


def read() -> bool:
    """Whether every stage of RUN was read."""
    return checkpoints().keys() >= {SFT, *STAGES}


def survey(readouts: real.Distributions, **how) -> chain.Survey:
    """The chain of claims with the last stage: base (raw text), SFT and RLVR."""
    places = {stage: (checkpoint.name, CHAT) for stage, checkpoint in checkpoints().items()}
    places |= {real.RAW: ("base", COMPLETION)}
    every = {task: real.compared(readouts, task, places) for task in PHASE_TASKS}
    return real.survey(every, (real.RAW, SFT, STAGES[-1]), **how)


def load_stages(
    readouts: real.Distributions, later: Mapping[str, Checkpoint] | None = None
) -> pd.DataFrame:
    """One row per task and later stage, where enough contexts answer. later: name -> checkpoint,
    after the SFT of RUN; None: its own STAGES.

    contexts, mass: answered by the base in chat form, SFT and the stage; its median mass.
    before, after: total variation of mean answers, base to SFT and SFT to the stage.
    base, sft, bits: liquidity of the three, bits. promoted: mass gained by options that SFT ranks
    low (`claims.promoted`). likeliest, share: of the stage's mean answer. mode_before, mode_after:
    whether base and SFT, SFT and the stage have the same likeliest option.
    """
    rows, ends = [], checkpoints()
    for stage, checkpoint in (later or {stage: ends[stage] for stage in STAGES}).items():
        names = {real.RAW: "base", SFT: ends[SFT].name, LATER: checkpoint.name}
        places = {place: (name, CHAT) for place, name in names.items()}
        for task, found in real.measurable(readouts, places).items():
            base, sft, later = map(found.distributions, places)
            means = [answers.mean(0) for answers in (base, sft, later)]
            modes = [int(mean.argmax()) for mean in means]
            rows.append(
                {
                    "stage": stage,
                    "task": task,
                    "contexts": found.count.answered,
                    "mass": found.count.median,
                    "before": float(ph.tv(means[0], means[1])),
                    "after": float(ph.tv(means[1], means[2])),
                    "base": float(ph.liquidity_bits(base)),
                    "sft": float(ph.liquidity_bits(sft)),
                    "bits": float(ph.liquidity_bits(later)),
                    "promoted": claims.promoted(found.evidence(SFT), found.evidence(LATER)).here,
                    "mode_before": modes[0] == modes[1],
                    "mode_after": modes[1] == modes[2],
                    "likeliest": TASKS[task].options[modes[2]],
                    "share": float(means[2].max()),
                }
            )
    return pd.DataFrame(rows)


def asked(stages: pd.DataFrame, stage: str) -> dict[str, claims.Verdict]:
    """The claims of ASKED about a stage, over all tasks, whether or not SFT collapsed; intervals
    leave out a kind of tasks at a time.
    """
    mine = stages[stages["stage"] == stage].set_index("task")
    found = {
        "moves-less": real.geometric(mine["after"] / mine["before"]),
        "stays-frozen": given_back(mine),
        "little-promoted": real.over_tasks(mine["promoted"].to_dict()),
    }
    return {claim: claims.judge(claim, one) for claim, one in found.items()}


def given_back(mine: pd.DataFrame) -> Estimate:
    """Liquidity gained after SFT over the base's in chat form, sums over tasks."""
    weights = real.without_a_kind(mine.index)
    gained, base = (mine["bits"] - mine["sft"]).to_numpy(), mine["base"].to_numpy()
    return inference.estimate(lambda w: ph.ratio(w @ gained, w @ base), weights)


def of_task(row: pd.Series) -> str:
    """A row of `load_stages` as a sentence."""
    return (
        f"the mean answer moves by a total variation of {row.after:.2g} ({row.before:.2g} from "
        f"base to SFT, {row.contexts:.0f} contexts), and liquidity goes from {row.sft:.2g} to "
        f"{row.bits:.2g} bit"
    )


def report(readouts: real.Distributions, record: dict, **how) -> None:
    """The section of the page: what was asked, verdicts, figure, every task. record: of the run.
    how: seed and permutations of the chain.
    """
    stages = load_stages(readouts)
    found = {stage: asked(stages, stage) for stage in STAGES}
    for stage, verdicts in found.items():
        for claim, verdict in verdicts.items():
            show.claim(f"{claim}-{stage}", ladder=real.PARENT, **verdict.fields())
    for _, row in stages.iterrows():
        told = {"verdict": "measured", "number": row.after, "sentence": of_task(row)}
        show.claim(f"{row.stage}-{row.task}", ladder=real.PARENT, task=row.task, **told)
    far = "; ".join(
        f"after {stage.upper()} answers move {show.interval(found[stage]['moves-less'].estimate)} "
        "times as far as under SFT"
        for stage in STAGES
    )
    median = float(stages["after"].median())
    show.claim("later", ladder=real.PARENT, verdict="measured", number=median, sentence=far)
    liquid = "; ".join(_show_liquidity(stages))
    show.emit(
        plot_later(stages),
        "later",
        data=stages,
        alt=f"Liquidity of each task along base, SFT, DPO and RL: {liquid}.",
        caption="Liquidity in chat form, a line a task, on the contexts that each stage, SFT and "
        "the base answer; blue: their mean.",
    )
    named = [stage.upper() for stage in STAGES]
    rows = [[claim, *(real.in_short(found[s][claim]) for s in STAGES)] for claim in ASKED]
    show.prose(show.table(["asked all the same", *named], rows))
    order = survey(readouts, **how)
    tasks = [task for task in order.verdicts if task != chain.POOLED]
    for verdict in order.verdicts[chain.POOLED]:
        if verdict.claim in chain.CLAIMS[chain.SETTLING]:
            show.claim(f"{verdict.claim}-{RUN}", ladder=real.PARENT, **verdict.fields())
    rows = [
        [claim, real.counted([order.of(task)[claim].verdict for task in tasks])]
        for claim in chain.CLAIMS[chain.SETTLING]
    ]
    show.prose(show.table(["in the claims' order", "by task"], rows))
    show.prose("\n".join(["````{dropdown} Every task after DPO and RL", _every(stages), "````"]))
    _show_skill(record)
    _show_modes(stages)


def _show_liquidity(stages: pd.DataFrame) -> list[str]:
    """Does a later stage give liquidity back? Means over tasks, before and after it, as told."""
    said = []
    for stage, mine in stages.groupby("stage", sort=False):
        bits = mine[["base", "sft", "bits"]].mean()
        up = int((mine["bits"] > mine["sft"]).sum())
        sentence = (
            f"after {stage.upper()} answers carry {show.fmt(bits['bits'])} bit about the context, "
            f"{show.fmt(bits['sft'])} before it and {show.fmt(bits['base'])} in the base (chat "
            f"form, means over {len(mine)} tasks); it rises on {up}"
        )
        number = float(bits["bits"] / bits["sft"])
        fields = {"verdict": "measured", "number": number, "sentence": sentence} | _ends(mine)
        show.claim(f"liquidity-{stage}", ladder=real.PARENT, **fields)
        said.append(sentence)
    show.prose(show.listed([f"{one[0].upper()}{one[1:]}." for one in said]))
    return said


def _ends(mine: pd.DataFrame) -> dict[str, float]:
    """Interval of a stage's liquidity over SFT's: kinds of tasks are left out in turn."""
    weights = real.without_a_kind(mine["task"])
    later, sft = mine["bits"].to_numpy(), mine["sft"].to_numpy()
    found = inference.ratio(lambda w: w @ later, lambda w: w @ sft, weights)
    return {end: x for end in ("low", "high") if np.isfinite(x := getattr(found, end))}


def _show_skill(record: dict) -> None:
    """What each stage made of the assistant, and whether the reward of RL rose."""
    right = {name: found["instructions"] for name, found in record["accuracy"].items()}
    rise = claims.judge("reward-rises", reward_rise(record["reward"]["rlvr"]))
    show.claim("reward-whole", ladder=real.PARENT, **rise.fields())
    said = ", ".join(f"{name} {show.fmt(share)}" for name, share in right.items())
    sentence = f"share of checkable instructions answered rightly: {said}"
    fields = {"verdict": "measured", "number": right["dpo"], "sentence": sentence}
    show.claim("right", ladder=real.PARENT, **fields)
    cost = (
        " DPO cost the assistant right answers, so what it did to random choices may be damage."
        if right["dpo"] < right["sft"]
        else ""
    )
    show.prose(f"The {sentence}.{cost} The sampled reward of RL: {real.in_short(rise)}.")


def show_again(readouts: real.Distributions, records: Mapping[str, dict]) -> None:
    """The section on DPO twice more: does its finding replicate, and without damage?

    records: "<parent>/<run>" -> what was recorded of it.
    """
    stages = load_stages(readouts, dpo())
    found = {run: asked(stages, run) for run in dpo()}
    planned = {run.name: run for run in recipes.load_experiment(real.EXPERIMENT).runs}
    share = {run: records[f"{real.PARENT}/{run}"]["accuracy"] for run in found}
    right = {run: share[run]["dpo"]["instructions"] for run in found}
    of_sft, rows = share[RUN]["sft"]["instructions"], []
    for run, verdicts in found.items():
        mine = stages[stages["stage"] == run]
        up, bits = int((mine["bits"] > mine["sft"]).sum()), mine[["sft", "bits"]].mean()
        for claim, verdict in verdicts.items() if run != RUN else ():
            show.claim(f"{claim}-{run}", ladder=real.PARENT, **verdict.fields())
        sentence = (
            f"{run}: liquidity goes from {show.fmt(bits['sft'])} to {show.fmt(bits['bits'])} "
        )
        sentence += f"bit (it rises on {up} of {len(mine)} tasks), right answers from "
        sentence += f"{show.fmt(of_sft)} to {show.fmt(right[run])}"
        number = float(bits["bits"] / bits["sft"])
        told = {"verdict": "measured", "number": number, "sentence": sentence} | _ends(mine)
        show.claim(f"liquidity-{run}", ladder=real.PARENT, **told)
        rate = recipes.load_recipe(real.PARENT, planned[run].set).dpo["learning_rate"]
        rows.append([run, f"{rate:.0e}", show.fmt(right[run]), show.fmt(bits["bits"])])
        rows[-1] += [f"{up} of {len(mine)}", *(real.in_short(verdicts[c]) for c in ASKED)]
    head = ["run", "rate", "right answers", "liquidity, bits", "rises on", *ASKED]
    show.prose(show.table(head, rows))
    said = concluded({run: found[run]["stays-frozen"].verdict for run in found}, right, of_sft)
    told = {"verdict": "measured", "number": right[GENTLE], "sentence": said}
    show.claim("dpo", ladder=real.PARENT, **told)
    gentle = stages[stages["stage"] == GENTLE]
    up = int((gentle["bits"] > gentle["sft"]).sum())
    show.prose(f"{said}. Not registered: even then liquidity rises on {up} of {len(gentle)} tasks.")


def concluded(frozen: Mapping[str, str], right: Mapping[str, float], of_sft: float) -> str:
    """What three runs of DPO say, by the registered rule. frozen: run -> verdict on stays-frozen;
    right: run -> share of right answers; of_sft: that share before DPO.
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


def _every(stages: pd.DataFrame) -> str:
    numbers = {
        "mass": "mass",
        "before": "TV base to SFT",
        "after": "TV SFT to stage",
        "sft": "liquidity of SFT, bits",
        "bits": "of the stage",
        "promoted": "promoted mass",
        "share": "share of its likeliest option",
    }
    rows = [
        [row.stage, row.task, int(row.contexts), *map(show.fmt, row[list(numbers)]), row.likeliest]
        for _, row in stages.iterrows()
    ]
    return show.table(["stage", "task", "contexts", *numbers.values(), "that option"], rows)


def _show_modes(stages: pd.DataFrame) -> None:
    """On how many tasks the likeliest answer stays, beside published ladders."""
    kept = {"base-sft": stages[stages["stage"] == STAGES[-1]]["mode_before"].mean()}
    kept |= {f"sft-{s}": stages[stages["stage"] == s]["mode_after"].mean() for s in STAGES}
    for pair, share in kept.items():
        said = f"share of tasks whose likeliest answer is the same: {pair}"
        numbers = {"verdict": "measured", "number": float(share), "sentence": said}
        show.claim(f"same-mode-{pair}", ladder=real.PARENT, **numbers)
    there = "; ".join(
        f"{title}: {{claim}}`real-ladders/same-mode-base-sft@{title}.number?` and "
        f"{{claim}}`real-ladders/same-mode-sft-rlvr@{title}.number?`"
        for title in PUBLISHED
    )
    show.prose(
        "Published numbers say one thing beside it, on other tasks: the share of tasks on which "
        f"the likeliest answer stays, base to SFT and SFT to RL. {there}; here: "
        f"{show.fmt(float(kept['base-sft']))} and {show.fmt(float(kept['sft-rlvr']))}."
    )


def plot_later(stages: pd.DataFrame) -> Figure:
    """Liquidity along the stages: a line a task, and their mean; base and SFT on the contexts that
    the last stage answers, too.
    """
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
