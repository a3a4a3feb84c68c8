"""What a phase page says: its head, what changed, captions and alt texts, the method.

And the verdicts of the first page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ..ask.ladders import load_ladder
from ..ask.prompts import PERSONAS
from ..ask.tasks import PHASE_TASKS, TASKS
from ..measure import chain, claims
from ..measure.chain import LIQUID, NUCLEATION, SETTLING, Survey
from ..present import chips, figures, show, verdicts, views
from ..texts import markdown
from . import later, phase, real
from .phase import STAGE, Data, Numbers, Series, real_there, real_title
from .phase_figures import FRONT

METHOD = {
    LIQUID: "Intervals are over personas, of a cast as balanced over the temperaments as this "
    "one. *Of these personas* is exact. Distributions are conditional on an option, on answered "
    "prompts.",
    NUCLEATION: "Intervals are over personas. The seed is what the base answers to the persona "
    "whom tasks of other kinds name. The joint test asks whether the *same* persona explains "
    "SFT's move in all tasks; its null deals personas anew within each task ({ref}`seed <seed>`).",
    SETTLING: "Intervals are over personas; a rank correlation has none. *MSE ratio, stage* "
    "compares the move with SFT's own. ProbMass is read beside its chance level and the seed's own "
    "mass ({ref}`definition <probmass>`). Moves below the split-half floor of SFT mean nothing.",
}


def show_head(data: Data) -> None:
    """The top of the page: the way to its neighbours, prompts that are not answered, the chips.

    Without a ladder that can be measured the page ends here.
    """
    chips.strip(data.phase, data.task)
    if not data.answered.whole:
        show.prose(show.listed([*data.answered.told, *data.answered.why]))
    if not data.answered.able:
        show.stop(" ".join(data.answered.why))
        return
    chips.show_chips(data.phase, data.judged)


def show_numbers(data: Data, numbers: Mapping[str, Numbers]) -> None:
    """All numbers and verdicts of the ladders, recorded and told."""
    if data.answered.whole:
        show.prose("Every prompt is answered by every checkpoint of the ladders.")
    views.show_numbers(numbers, data.task)
    views.show_verdicts(data.found, data.task)


def show_method(data: Data, *functions) -> None:
    """How the numbers were computed: in words, in code, with which parameters."""
    show.prose(METHOD[data.phase])
    show.source(*functions)
    show.parameters()


def changed(data: Data) -> list[str]:
    """What is seen of every series, a plain sentence each; the first words name it."""
    say = {LIQUID: _is_liquid, NUCLEATION: _collapsed, SETTLING: _settled}[data.phase]
    return [f"{one.title}: {say(one, data.task)}." for one in data.series]


def _is_liquid(one: Series, task: str) -> str:
    bits = phase.liquidity(one.answers, one.before)
    share = claims.percent(bits.value / phase.most_bits(task))
    cluster, number = one.cluster, show.interval(bits)
    return f"the {cluster} tells {number} bit of the answer, {share} of the ceiling"


def _collapsed(one: Series, task: str) -> str:
    kept = real.kept_spread(one.answers, one.before, one.after)
    verdict = {v.claim: v.verdict for v in one.verdicts}.get("collapse")
    left, cluster = show.interval(kept), one.cluster
    if verdict == "holds":
        return f"of the spread among {cluster}s more than half is gone after SFT; {left} is left"
    if verdict == "fails" and kept.low > 1:
        return f"{cluster}s differ more after SFT; their spread is {left} times the base's"
    if verdict == "fails":
        return f"of the spread among {cluster}s more than half stays after SFT, {left}"
    return f"SFT leaves {left} of the spread among {cluster}s; a collapse is not decided"


def _settled(one: Series, task: str) -> str:
    moved = phase.moved(one.answers, one.before, one.after)
    before, after = (
        show.number(phase.liquidity(one.answers, place).value) for place in (one.before, one.after)
    )
    return (
        f"the last stage moves the mean answer by a total variation of {show.interval(moved)}; "
        f"liquidity goes from {before} to {after} bit"
    )


def show_changed(data: Data) -> None:
    """The same, on the page; of the real base, what its own page says of another seed."""
    lines = [markdown(sentence) for sentence in changed(data)]
    if data.phase == NUCLEATION and data.series and data.series[0].name == real.PARENT:
        again = f"real-base/collapse-{real.PLAIN[1]}-{data.task}@{real.PARENT}.verdict?"
        lines[0] += f" With {{page}}`another seed <real-base>`, collapse: {{claim}}`{again}`"
    show.prose("\n".join(f"- {line}" for line in lines))


def show_seeds(data: Data, numbers: Mapping[str, Numbers]) -> None:
    """Who the seed is, of every ladder that has one, and how near SFT comes to it."""
    if not data.seeds:
        return
    seeds = [
        f"Seed of {load_ladder(ladder).title}: what the base answers to {PERSONAS[int(who)]}."
        for ladder, who in data.seeds.items()
    ]
    show.prose(show.listed(seeds))
    near = {ladder: found for ladder, found in numbers.items() if "seed to SFT, TV" in found}
    frame = figures.load_distributions(data.readouts, data.task, ["base", "sft"], data.seeds)
    to_seed, to_base = "seed to SFT, TV", "base to SFT, TV of mean distributions"
    show.emit(
        figures.plot_distributions(frame),
        "seed",
        data=frame,
        alt="Probabilities of the options under the seed, the mean base and SFT. From the seed to "
        f"SFT the total variation is {views.each(near, to_seed)}.",
        caption="Options ordered by the seed (bars). Total variation of SFT from the seed: "
        f"{views.captioned(near, to_seed)}; from the mean base: "
        f"{views.captioned(numbers, to_base)}.",
    )


def show_contexts(data: Data) -> None:
    """How well each persona explains SFT's move, over all tasks, where that was asked."""
    accounts = {name: every.account for name, every in data.surveys.items() if every.account}
    if not accounts:
        return
    frame = verdicts.load_contexts(accounts, data.task)
    named = "; ".join(
        f"{load_ladder(name).title}: {PERSONAS[int(account.seeds[data.task])]}"
        for name, account in accounts.items()
        if data.task in account.seeds
    )
    show.emit(
        verdicts.plot_contexts(frame),
        "contexts",
        data=frame,
        alt="For each persona, the cosine of SFT's move with the way to what the persona says in "
        f"the base, by task, and its mean. Named by tasks of other kinds: {named}.",
        caption="Bars: mean over tasks of how well a persona explains SFT's move; dots: tasks, "
        "diamonds: this one; colours: personas who say alike. Named by tasks of other kinds: "
        f"{markdown(named)}.",
    )


def show_distributions(data: Data, numbers: Mapping[str, Numbers]) -> None:
    """The mean answers after SFT over the seed's, of every ladder that has one."""
    if not data.seeds:
        return
    final, stages = data.how["final"], ["sft", "dpo", "rlvr"]
    how = (data.readouts, data.task, stages, data.seeds, data.how["quantile"])
    frame = figures.load_distributions(*how)
    moved, gained = f"SFT to {final}, TV", f"SFT to {final}, promoted mass"
    show.emit(
        figures.plot_distributions(frame),
        "distributions",
        data=frame,
        alt="Probabilities of the options after SFT, DPO and RLVR, over the seed. From SFT to "
        f"{final} the total variation is {views.each(numbers, moved)}.",
        caption=f"Options ordered by the seed (bars), its set A shaded. From SFT to {final} moves: "
        f"{views.captioned(numbers, moved)}; options that SFT ranked low gain "
        f"{views.captioned(numbers, gained)}.",
    )


def show_probmass(data: Data) -> None:
    """The mass that every stage leaves on the seed's options, of every ladder that has a seed."""
    if not data.seeds:
        show.prose("No ladder here has a seed, so no stage can stay on its options.")
        return
    how = {name: data.how[name] for name in ("seed", "permutations")}
    frame = figures.load_probmass(data.readouts, data.task, data.seeds, data.how["quantile"], **how)
    final = data.how["final"]
    last = frame[frame["checkpoint"] == final].set_index("ladder")
    masses = "; ".join(
        f"{load_ladder(name).title} {show.fmt(row.value)}, by chance {show.fmt(row.chance)}, "
        f"the seed itself {show.fmt(row.own)}"
        for name, row in last.iterrows()
    )
    words = _both(f"Mass on the seed's options A at every stage. After {STAGE[final]}:", masses)
    show.emit(figures.plot_probmass(frame), "probmass", data=frame, **words)


# --- captions and alt texts


def picture(data: Data) -> dict[str, str]:
    """Of the answers before and after."""
    first, cluster = data.series[0], " or ".join(dict.fromkeys(one.cluster for one in data.series))
    stages = " and after ".join(STAGE[place] for place in (first.before, first.after) if place)
    return {
        "alt": f"Answers when asked to {TASKS[data.task].ask}: {stages}. {' '.join(changed(data))}",
        "caption": f"*{markdown(TASKS[data.task].ask.capitalize())}.* A row is a prompt "
        f"({cluster}), a column an option, brighter is likelier. Rows that differ are a liquid, "
        "stripes a crystal.",
    }


def _both(text: str, numbers: str) -> dict[str, str]:
    """Alt text and caption in the same words. numbers: plain."""
    return {"alt": f"{text} {numbers}.", "caption": f"{text} {markdown(numbers)}."}


def entropies(frame: pd.DataFrame) -> dict[str, str]:
    """Of how broad the base answers, and how broad its mean answer is."""
    each = "; ".join(
        f"{row.model}: {show.number(row.mean)} and {show.number(row.whole)}"
        for row in frame.drop_duplicates("model").itertuples()
    )
    return {
        "alt": f"Mean entropy of a prompt's answer, and entropy of the mean answer, bits. {each}.",
        "caption": "Grey: entropy of the answer, prompt by prompt; line: its mean; dotted: entropy "
        "of the mean answer. The orange gap is the liquidity.",
    }


def pairs(numbers: Mapping[str, Numbers]) -> dict[str, str]:
    """Of how far two prompts of the base are apart."""
    bits = views.each(numbers, "liquidity of the templates alone, bits")
    text = "How far two prompts of the base are apart. Liquidity of the templates alone, bits:"
    return _both(text, bits)


def fall(frame: pd.DataFrame) -> dict[str, str]:
    """Of the spread along SFT."""
    ends = frame.groupby("model", sort=False)["value"].last()
    each = "; ".join(f"{model} {show.number(value)}" for model, value in ends.items())
    text = "Spread among prompts along SFT, over the base's, with intervals; below the dotted line"
    return _both(f"{text} it is a collapse. At the end:", each)


def path(numbers: Mapping[str, Numbers]) -> dict[str, str]:
    """Of liquidity and the distance to the seed along SFT, in both forms."""
    base = views.each(numbers, "estimated liquidity of the base, bits")
    sft = views.each(numbers, "estimated liquidity of SFT, bits")
    text = "Liquidity and distance of the mean answer to the seed along SFT, in both forms."
    bits = f"{base} bit (base, raw text), then {sft} bit (SFT, chat)"
    return _both(f"{text} Liquidity:", bits)


# --- all tasks of a phase

FIRST = {LIQUID: "many-distributions", NUCLEATION: "collapse", SETTLING: "stays-frozen"}


def counts(phase: str, found: Mapping[str, Survey]) -> str:
    """On how many tasks the phase's first claim holds, of every model (by title), plain."""
    models = []
    for model, every in found.items():
        if mine := [every.of(task)[FIRST[phase]] for task in PHASE_TASKS if task in every.verdicts]:
            models.append(f"{model} {real.counted([v.verdict for v in mine])}")
    return f"{FIRST[phase]}: {'; '.join(models)}."


def every_task(phase: str, found: Mapping[str, Survey]) -> dict[str, str]:
    """Of the small panels, one a task."""
    threshold = ", the dotted line its threshold" if phase == LIQUID else ""
    alt = f"What the prompt tells of the answer, by task and stage{threshold}."
    return {"alt": f"{alt} {counts(phase, found)}", "caption": markdown(counts(phase, found))}


# --- the first page

SHORT = {
    "many-distributions": "base is liquid",
    "collapse": "SFT collapses it",
    "one-seed": "onto one seed of the base",
    "unmixed": "a single one",
    "stays-frozen": "it stays frozen",
    "same-options": "on the seed's options",
    "little-promoted": "little is promoted",
}


def models_caption(frame: pd.DataFrame) -> str:
    """Liquidity of every panel in words, plain."""
    models = []
    for model, mine in frame.drop_duplicates(["model", "stage"]).groupby("model", sort=False):
        bits = (f"{FRONT[row.stage]} {show.number(row.bits)}" for row in mine.itertuples())
        models.append(f"{model}: {', '.join(bits)}")
    return "; ".join(models)


def matrix(ladders: Sequence[str]) -> str:
    """Verdicts over all tasks as a MyST table, claims down: the real base, then training runs of
    each ladder. Every cell is quoted from the page that judged it.
    """
    first = [real_title()] if real_there(chain.NUCLEATION) else []
    head, rows = ["", *first, *map(views.title_of, ladders)], []
    for claim, short in SHORT.items():
        there = f"{{claim}}`real-base/{claim}-{_judged(claim)}@{real.PARENT}.verdict?`"
        runs = [
            f"{{claim}}`overview/all-{claim}@{name}.verdict?` "
            f"{{claim}}`overview/runs-{claim}@{name}.runs?`"
            for name in ladders
        ]
        name = f"{short} ({claims.THRESHOLDS[claim].phase})"
        cells = [name, *[there][: len(first)], *runs]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([show.table(head, []), *rows])


def _judged(claim: str) -> str:
    """On what the real base's verdict rests: a base is liquid or not by both wordings."""
    if claim in chain.CLAIMS[chain.SETTLING]:
        return later.RUN
    return f"{real.PLAIN[0]}-both-wordings" if claim == "many-distributions" else real.PLAIN[0]
