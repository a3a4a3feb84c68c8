"""What a phase page says: links, verdict chips, what changed, captions and alt texts, the method.

And the first page's table of verdicts.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from ..ask.ladders import load_ladder
from ..ask.prompts import PERSONAS
from ..ask.tasks import PHASE_TASKS, TASKS
from ..measure import chain
from ..measure.chain import LIQUID, NUCLEATION, SETTLING, Survey
from ..measure.claims import THRESHOLDS, Verdict, percent, plain
from ..present import figures, show, verdicts, views
from ..present.figures import INK
from ..present.verdicts import COLOURS, SIGNS
from ..texts import line, markdown
from . import later, phase, real
from .phase import STAGE, Data, Numbers, Series, real_there, real_title

FOLD = "Method and source"  # that says how a number was computed
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


# --- links and chips


def show_head(data: Data) -> None:
    """The top of the page: links, prompts that are not answered, chips. Without a ladder that can
    be measured the page ends here.
    """
    strip(data.phase, data.task)
    if not data.answered.whole:
        show.prose(show.listed([*data.answered.told, *data.answered.why]))
    if data.answered.able:
        show.prose(text := table(data.phase, data.judged), text)
    else:
        show.stop(" ".join(data.answered.why))


def strip(phase: str, task: str) -> None:
    """Links to the task before, this one and the next, in every phase."""
    place, lines = PHASE_TASKS.index(task), []
    near = PHASE_TASKS[max(0, place - 1) : place + 2]
    for name in near:
        links = {each: f"{{page}}`{each} <{each}-{name}>`" for each in chain.CLAIMS}
        if name == task:
            links[phase] = f"**{phase}**"
        shown = f"**{name}**" if name == task else name
        lines.append(f"{shown}: {' · '.join(links.values())}")
    seen = f"<p>{html.escape(f'{phase}: ' + ' · '.join(near))}</p>"
    show.prose("\n\n".join(["::::{div} phase-strip", *lines, "::::"]), seen)


def table(phase: str, found: Sequence[tuple[str, Sequence[Verdict]]]) -> str:
    """HTML: the claims of a phase down, series (title, verdicts) across, a chip a verdict."""
    heads = "".join(f'<th scope="col">{_safe(title)}</th>' for title, _ in found)
    rows = []
    for claim in chain.CLAIMS[phase]:
        threshold, whole = THRESHOLDS[claim], " (all tasks)" if claim in chain.OVER_TASKS else ""
        scale = percent if threshold.percent else plain
        wanted = f"{threshold.number}: {threshold.side} {scale(threshold.value)}{whole}"
        cells = [f'<th scope="row"><strong>{claim}</strong> {_safe(wanted)}</th>']
        for title, judged in found:
            chips = (chip(verdict) for verdict in judged if verdict.claim == claim)
            cells.append(f'<td data-series="{_safe(title)}">{"".join(chips)}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    how = f'<a href="#{show.slug(FOLD)}">How was this computed?</a>'
    return (
        f'<table class="verdict-chips"><thead><tr><th scope="col">{how}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def chip(verdict: Verdict) -> str:
    """One verdict as HTML: its sign and word on its colour, its number with interval beside."""
    word = f"{SIGNS[verdict.verdict]} {verdict.verdict.replace('-', ' ')}"
    look, found = f"background:{COLOURS[verdict.verdict]};color:{INK}", verdict.estimate
    by, unit = (100, " %") if verdict.threshold.percent else (1, "")
    number = show.between(by * found.value, by * found.low, by * found.high)
    beside = f' <span class="number">{number}{unit}</span>' if number != "–" else ""
    return f'<span class="chip" style="{look}">{word}</span>{beside}'


def _safe(text: object) -> str:
    return html.escape(" ".join(line(str(text)).split()))


# --- what changed


def changed(data: Data) -> list[str]:
    """What is seen of every series, a plain sentence each."""
    say = {LIQUID: _is_liquid, NUCLEATION: _collapsed, SETTLING: _settled}[data.phase]
    return [f"{one.title}: {say(one, data)}." for one in data.series]


def _is_liquid(one: Series, data: Data) -> str:
    bits = one.answers.liquidity("base")
    share = percent(bits.value / phase.most_bits(data.task))
    return (
        f"the {one.cluster} tells {show.interval(bits)} bit of the answer, {share} of the ceiling"
    )


def _collapsed(one: Series, data: Data) -> str:
    kept = one.answers.kept_spread(*data.stages)
    verdict = {v.claim: v.verdict for v in one.verdicts}.get("collapse")
    left, cluster = show.interval(kept), one.cluster
    if verdict == "holds":
        return f"of the spread among {cluster}s more than half is gone after SFT; {left} is left"
    if verdict == "fails" and kept.low > 1:
        return f"{cluster}s differ more after SFT; their spread is {left} times the base's"
    if verdict == "fails":
        return f"of the spread among {cluster}s more than half stays after SFT, {left}"
    return f"SFT leaves {left} of the spread among {cluster}s; a collapse is not decided"


def _settled(one: Series, data: Data) -> str:
    moved = show.interval(one.answers.moved(*data.stages))
    before, after = (show.number(one.answers.liquidity(s).value) for s in data.stages)
    return (
        f"the last stage moves the mean answer by a total variation of {moved}; "
        f"liquidity goes from {before} to {after} bit"
    )


def show_changed(data: Data) -> None:
    """The same, on the page; of the real base, what its own page says of another seed."""
    lines = [markdown(sentence) for sentence in changed(data)]
    if data.phase == NUCLEATION and data.series and data.series[0].name == real.PARENT:
        again = f"real-base/collapse-{real.PLAIN[1]}-{data.task}@{real.PARENT}.verdict?"
        lines[0] += f" With {{page}}`another seed <real-base>`, collapse: {{claim}}`{again}`"
    show.prose("\n".join(f"- {line}" for line in lines))


# --- captions and alt texts


def both(text: str) -> dict[str, str]:
    """Caption and alt text of a figure in the same words. text: plain."""
    return {"alt": text, "caption": markdown(text)}


def picture(data: Data) -> dict[str, str]:
    """Of the answers before and after."""
    asked, stages = TASKS[data.task].ask, " and after ".join(map(STAGE.get, data.stages))
    cluster = " or ".join(dict.fromkeys(one.cluster for one in data.series))
    return {
        "alt": f"Answers when asked to {asked}: {stages}. {' '.join(changed(data))}",
        "caption": f"*{markdown(asked.capitalize())}.* A row is a prompt ({cluster}), a column an "
        "option, brighter is likelier. Rows that differ are a liquid, stripes a crystal.",
    }


def entropies(frame: pd.DataFrame) -> dict[str, str]:
    """Of how broad the base answers, and how broad its mean answer is."""
    each = "; ".join(
        f"{row.model} {show.number(row.mean)} and {show.number(row.whole)}"
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
    text = "How far two prompts of the base are apart. Liquidity of the templates alone, bits"
    return both(f"{text}: {bits}.")


def fall(frame: pd.DataFrame) -> dict[str, str]:
    """Of the spread along SFT."""
    ends = frame.groupby("model", sort=False)["value"].last()
    each = "; ".join(f"{model} {show.number(value)}" for model, value in ends.items())
    return both(
        "Spread among prompts along SFT, over the base's, with intervals; below the dotted line it "
        f"is a collapse. At the end: {each}."
    )


def path(numbers: Mapping[str, Numbers]) -> dict[str, str]:
    """Of liquidity and the distance to the seed along SFT, in both forms."""
    base = views.each(numbers, "estimated liquidity of the base, bits")
    sft = views.each(numbers, "estimated liquidity of SFT, bits")
    return both(
        "Liquidity and distance of the mean answer to the seed along SFT, in both forms. "
        f"Liquidity: {base} bit (base, raw text), then {sft} bit (SFT, chat)."
    )


# --- seeds and contexts, and the folds


def show_seeds(data: Data, numbers: Mapping[str, Numbers]) -> None:
    """Who the seed is, of every ladder that has one, and the mean answers beside it."""
    if not data.seeded:
        return
    seeds = (
        f"{one.title}: what the base answers to {PERSONAS[int(one.who)]}" for one in data.seeded
    )
    show.prose(show.listed(f"Seed of {seed}." for seed in seeds))
    each = partial(views.each, numbers)
    if data.phase == NUCLEATION:
        name, stages = "seed", ("base", "sft")
        text = f"Total variation of SFT from the seed: {each('seed to SFT, TV')}; from the mean "
        text += f"base: {each('base to SFT, TV of mean distributions')}."
    else:
        name, stages, move = "distributions", ("sft", *later.STAGES), f"SFT to {data.stages[-1]}"
        text = f"From {move} moves: {each(f'{move}, TV')}; options that SFT ranked low gain "
        text += f"{each(f'{move}, promoted mass')}."
    frame = figures.load_distributions(data.seeded, data.task, stages)
    text = f"Probabilities of the options, ordered by the seed (bars), its set A shaded. {text}"
    show.emit(figures.plot_distributions(frame), name, data=frame, **both(text))


def show_contexts(data: Data) -> None:
    """How well each persona explains SFT's move, over all tasks, where that was asked."""
    accounts = {one.name: one.survey.account for one in data.ladders if one.survey.account}
    if not accounts:
        return
    frame = verdicts.load_contexts(accounts, data.task)
    words = both(
        "How well each persona explains SFT's move: the cosine with the way to what it says in the "
        "base. Bars: mean over tasks; dots: tasks, diamonds: this one; colours: personas who say "
        "alike. Bold: the seed."
    )
    show.emit(verdicts.plot_contexts(frame), "contexts", data=frame, **words)


def show_probmass(data: Data) -> None:
    """The mass that every stage leaves on the seed's options, of every ladder that has a seed."""
    if not data.seeded:
        show.prose("No ladder here has a seed, so no stage can stay on its options.")
        return
    how = {name: data.how[name] for name in ("seed", "permutations")}
    frame, last = figures.load_probmass(data.seeded, data.task, **how), data.stages[-1]
    masses = "; ".join(
        f"{load_ladder(row.ladder).title} {show.fmt(row.value)}, by chance {show.fmt(row.chance)}, "
        f"the seed itself {show.fmt(row.own)}"
        for row in frame[frame["checkpoint"] == last].itertuples()
    )
    text = f"Mass on the seed's options A at every stage. After {STAGE[last]}: {masses}."
    show.emit(figures.plot_probmass(frame), "probmass", data=frame, **both(text))


def show_numbers(data: Data, numbers: Mapping[str, Numbers]) -> None:
    """All numbers and verdicts of the ladders, recorded and told."""
    if data.answered.whole:
        show.prose("Every prompt is answered by every checkpoint of the ladders.")
    views.show_numbers(numbers, data.task)
    views.show_verdicts({one.name: one.verdicts for one in data.ladders}, data.task)


def show_method(data: Data, *functions) -> None:
    """How the numbers were computed: in words, in code, with which parameters."""
    show.prose(METHOD[data.phase])
    show.source(phase.numbers_of(data.phase), *functions)
    show.parameters()


# --- all tasks of a phase


def counts(phase: str, found: Mapping[str, Survey]) -> str:
    """On how many tasks the phase's first claim holds, of every model (by title), plain."""
    first, models = chain.CLAIMS[phase][0], []
    for model, every in found.items():
        if mine := [every.of(task)[first] for task in PHASE_TASKS if task in every.verdicts]:
            models.append(f"{model} {real.counted([v.verdict for v in mine])}")
    return f"{first}: {'; '.join(models)}."


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
        bits = (f"{STAGE[row.stage]} {show.number(row.bits)}" for row in mine.itertuples())
        models.append(f"{model}: {', '.join(bits)}")
    return "; ".join(models)


def matrix(ladders: Sequence[str]) -> str:
    """Verdicts over all tasks as a MyST table: claims down; across the real base, then training
    runs of each ladder. Every cell is quoted from the page that judged it.
    """
    first = [real_title()] if real_there(NUCLEATION) else []
    head, rows = ["", *first, *map(views.title_of, ladders)], []
    for claim, short in SHORT.items():
        cells = [f"{short} ({THRESHOLDS[claim].phase})"]
        if first:  # a base is liquid or not by both wordings
            of = later.RUN if claim in chain.CLAIMS[SETTLING] else real.PLAIN[0]
            of += "-both-wordings" if claim == "many-distributions" else ""
            cells.append(f"{{claim}}`real-base/{claim}-{of}@{real.PARENT}.verdict?`")
        cells += [
            f"{{claim}}`overview/all-{claim}@{name}.verdict?` "
            f"{{claim}}`overview/runs-{claim}@{name}.runs?`"
            for name in ladders
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([show.table(head, []), *rows])
