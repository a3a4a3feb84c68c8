"""Format against weights: every checkpoint as raw text and in chat form; which of the two froze it?

A *reading* is a ladder's answers to the probe's twenty prompts, conditional on an option; intervals
within a ladder are over personas. And real checkpoints, on natural prompts: liquidity between
contexts against wordings, free answers against begun ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from ..ask.ladders import load_ladder
from ..ask.prompts import CHAT, COMPLETION, FORMS, PROBE, WORDINGS, Prompt
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError
from ..files import root
from ..keep import store
from ..measure import evidence, quantities
from ..measure import inference as inf
from ..measure.evidence import split_information
from ..measure.inference import Estimate
from ..measure.quantities import Array
from ..present import show
from ..present.views import Compared, of_tables, on_tasks, title_of
from .runs import ALL, APART, DEMONSTRATED, HELD_OUT, tidy

LATER = ("sft", "dpo", "rlvr")
FORM_NAMES = {CHAT: "chat form", COMPLETION: "raw text"}
Numbers = Mapping[tuple[str, str, str], Estimate]  # ladder, group of tasks, number of NUMBERS
FEWEST = 10  # contexts that count, free answers that name an option: with fewer, no number


@dataclass(frozen=True)
class Reading:
    """What one ladder answered, and the mass it left outside the options."""

    ladder: str
    every: Mapping[
        str, Compared
    ]  # task -> places (checkpoint, form), on prompts all of them answer
    left: pd.DataFrame  # checkpoint, form: mean invalid and residual
    personas: Array  # of every prompt
    demonstrated: Sequence[str]

    def tasks(self, group: str) -> list[str]:
        """Those of a group that enough prompts answer."""
        chosen = {DEMONSTRATED: (True,), HELD_OUT: (False,), ALL: (True, False)}[group]
        return [
            task
            for task, one in self.every.items()
            if one.count.measurable and (task in self.demonstrated) in chosen
        ]


def load_readings(ladders: Sequence[str], prompts: Sequence[Prompt] = PROBE) -> list[Reading]:
    """Each ladder's checkpoints by form; without checkpoints that were asked fewer prompts."""
    return [_reading(name, prompts) for name in ladders]


def _reading(name: str, prompts: Sequence[Prompt]) -> Reading:
    frame = store.load_readouts(name, tasks=PHASE_TASKS, forms=FORMS)
    asked = frame["prompt"].isin([prompt.id for prompt in prompts])
    frame = frame[(frame["temperature"] == 1.0) & asked]
    groups = frame.groupby(["checkpoint", "form"], sort=False)
    read = {
        place: on_tasks(part, PHASE_TASKS, place[1], prompts)
        for place, part in groups
        if len(part) == len(prompts) * len(PHASE_TASKS)
    }
    every = {
        task: of_tables({place: tables[task] for place, tables in read.items()}, prompts)
        for task in PHASE_TASKS
    }
    left = groups[["invalid", "residual"]].mean().reset_index()
    personas = np.array([prompt.persona for prompt in prompts])
    return Reading(name, every, left, personas, load_ladder(name).demonstrated)


def liquidity(reading: Reading, group: str, w: Array, place: tuple[str, str]) -> Array:
    """Bits of liquidity at a checkpoint and form, mean over a group's tasks. w: over prompts."""
    each = (reading.every[task] for task in reading.tasks(group))
    bits = [quantities.liquidity_bits(x.distributions(place), w.take(x.rows, -1)) for x in each]
    return np.mean(bits, axis=0)


def kept(
    reading: Reading, group: str, w: Array, later=("sft", COMPLETION), base=("base", COMPLETION)
) -> Array:
    """Liquidity at a checkpoint and form over that at another, means over a group's tasks."""
    return quantities.ratio(*(liquidity(reading, group, w, place) for place in (later, base)))


def moves(reading: Reading, task: str, w: Array) -> dict[str, Array]:
    """TV of mean distributions from the base as raw text.

    form: the base in chat form; text: SFT as raw text; whole: SFT in chat form. along, length: the
    form's move projected on the whole one, and that one's squared length.
    """
    one = reading.every[task]
    start, form, text, whole = (
        quantities.mean_distribution(one.distributions((checkpoint, form)), w.take(one.rows, -1))
        for checkpoint in ("base", "sft")
        for form in (COMPLETION, CHAT)
    )
    return {
        "form": quantities.tv(start, form),
        "text": quantities.tv(start, text),
        "whole": quantities.tv(start, whole),
        "along": ((form - start) * (whole - start)).sum(-1),
        "length": ((whole - start) ** 2).sum(-1),
    }


def form_share(reading: Reading, group: str, w: Array, over=("form", "whole")) -> Array:
    """Share of the base-to-SFT move that the chat form makes by itself; sums over a group's tasks.

    over ("along", "length"): the part of it that goes SFT's way.
    """
    found = [moves(reading, task, w) for task in reading.tasks(group)]
    return quantities.ratio(*(np.sum([move[name] for move in found], axis=0) for name in over))


def _left(checkpoint: str, form: str) -> str:
    return f"liquidity of {checkpoint} over the base, {FORM_NAMES[form]}"


NUMBERS: dict[str, Callable[[Reading, str, Array], Array]] = {  # reading, group, weights
    _left(checkpoint, form): partial(kept, later=(checkpoint, form), base=("base", form))
    for form in FORMS
    for checkpoint in LATER
} | {
    "liquidity of the base, chat form over raw text": partial(kept, later=("base", CHAT)),
    "share of the base-to-SFT move made by form": form_share,
    "the same, projected on SFT's way": partial(form_share, over=("along", "length")),
}
CLAIMED = _left("sft", COMPLETION)
SHARE, TOWARD = list(NUMBERS)[-2:]


def load_numbers(readings: Sequence[Reading]) -> dict[tuple[str, str, str], Estimate]:
    """Numbers, each with an interval over personas."""
    found = {}
    for reading in readings:
        weights = inf.leave_one_out(reading.personas)
        for group, name in product((*APART, ALL), NUMBERS):
            how = {"low": -np.inf if name == TOWARD else 0, "scale": "log"}
            statistic = partial(NUMBERS[name], reading, group)
            found[reading.ladder, group, name] = inf.estimate(statistic, weights, **how)
    return found


def over_ladders(numbers: Numbers, group: str, name: str) -> pd.Series:
    """One number of every ladder, indexed by ladder."""
    values = {at: found.value for (at, *rest), found in numbers.items() if rest == [group, name]}
    return pd.Series(values, name=name if name == TOWARD else "ratio")


def load_left(readings: Sequence[Reading]) -> pd.DataFrame:
    """Per stage's end and form: invalid-answer and residual mass, mean of ladders and most."""
    left = pd.concat([reading.left for reading in readings])
    left = left[left["checkpoint"].isin(["base", *LATER])]
    groups = left.groupby(["checkpoint", "form"], sort=False)
    wanted = {"off": ("invalid", "mean"), "off_most": ("invalid", "max")}
    wanted |= {"open": ("residual", "mean"), "open_most": ("residual", "max")}
    return groups.agg(**wanted).reset_index()


def load_checkpoints(readings: Sequence[Reading]) -> pd.DataFrame:
    """One row per ladder, checkpoint, form and group: liquidity in bits.

    place: 0 for the base, 1 SFT, 2 DPO, 3 RLVR; checkpoints on the way between, by the logarithm of
    their step. common: every ladder has that checkpoint in that form.
    """
    rows = []
    for reading in readings:
        even, ladder = np.ones(len(reading.personas)), load_ladder(reading.ladder)
        read = reading.every[PHASE_TASKS[0]].tables
        for c, form in product(ladder.checkpoints, FORMS):
            if (c.name, form) not in read:
                continue
            place = 0.0
            if c.stage != "base":
                whole = np.log2(1 + ladder.checkpoint(c.stage).step)
                place = LATER.index(c.stage) + float(np.log2(1 + c.step) / whole)
            for group in APART:
                bits = float(liquidity(reading, group, even, (c.name, form)))
                rows.append((reading.ladder, c.name, place, form, group, bits))
    columns = ["ladder", "checkpoint", "place", "form", "group", "liquidity"]
    frame = pd.DataFrame(rows, columns=columns)
    number = frame.groupby(["checkpoint", "form"])["ladder"].transform("nunique")
    return frame.assign(common=number == len(readings))


def load_moves(readings: Sequence[Reading]) -> pd.DataFrame:
    """`runs.tidy` by group, task and part: TV of mean answers from the base as raw text."""
    rows = []
    for reading in readings:
        for task in reading.tasks(ALL):
            group = APART[task not in reading.demonstrated]
            found = moves(reading, task, np.ones(len(reading.personas)))
            for part in ("form", "text", "whole"):
                rows.append((reading.ladder, group, task, part, float(found[part])))
    frame = pd.DataFrame(rows, columns=["parent", "group", "task", "part", "tv"])
    return tidy(frame, ["group", "task", "part"], ["tv"]).drop(columns="quantity")


def load_forest(numbers: Numbers) -> pd.DataFrame:
    """One row per ladder, checkpoint and group: liquidity over the base's, both as raw text."""
    rows = [
        (ladder, checkpoint, group, found.value, found.low, found.high)
        for checkpoint in LATER
        for (ladder, group, name), found in numbers.items()
        if name == _left(checkpoint, COMPLETION)
    ]
    return pd.DataFrame(rows, columns=["ladder", "checkpoint", "group", "value", "low", "high"])


# --- real checkpoints: contexts against wordings


def crossed(rows: pd.DataFrame) -> Array:
    """Distributions (contexts that count, wordings, options) of one checkpoint, form and task.

    A context counts where both of its wordings are answered. rows: of natural prompts.
    """
    mass = rows["probability"].map(np.sum)
    there = rows[evidence.answers(mass)].sort_values(["persona", "template"])
    whole = there.groupby("persona")["template"].transform("size") == WORDINGS
    found = np.stack([np.zeros_like(rows["probability"].iloc[0]), *there["probability"][whole]])[1:]
    return (found / found.sum(-1, keepdims=True)).reshape(-1, WORDINGS, found.shape[1])


def load_contexts(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each ladder, checkpoint, form and task of `frame`: bits with intervals.

    Columns: place (checkpoint and form, in words), answered (median mass), prompts (answered),
    contexts (that count), left_open (largest residual mass), and each number of
    `split_information`, its _low and _high; nan where the task is not measurable or fewer than
    FEWEST contexts count.
    """
    keys = ["ladder", "checkpoint", "form", "task"]
    groups = frame.groupby(keys, sort=False)
    found = pd.DataFrame([dict(zip(keys, at, strict=True)) | _row(rows) for at, rows in groups])
    titles = found["ladder"].map(lambda ladder: title_of(ladder).split(" (")[0])
    return found.assign(place=titles + ", " + found["form"])


def _row(rows: pd.DataFrame) -> dict[str, float]:
    p, asked = crossed(rows), evidence.count(rows["probability"].map(np.sum).to_numpy())
    found = {"answered": asked.median, "prompts": asked.answered}
    found |= {"contexts": len(p), "left_open": rows["residual"].max()}
    numbers = split_information(p) if asked.measurable and len(p) >= FEWEST else {}
    for name in ("context", "wording", "contexts_apart", "wordings_apart", "lead"):
        number = numbers.get(name, inf.NOTHING)
        found |= {name: number.value, f"{name}_low": number.low, f"{name}_high": number.high}
    return found


def answered_in_words(numbers: pd.DataFrame) -> str:
    """On how many tasks options have half of the mass, by checkpoint and form; plain text."""
    return " ".join(
        f"{place}: at least half of the mass on {(mine['answered'] >= 0.5).sum()} of {len(mine)} "
        "tasks."
        for place, mine in numbers.groupby("place", sort=False)
    )


def apart_in_words(numbers: pd.DataFrame) -> str:
    """On how many tasks context or wording matters more, by checkpoint and form; plain text."""
    return " ".join(
        f"{place}: the context matters more on {(mine['lead_low'] > 0).sum()} of {len(mine)} "
        f"tasks, the wording on {(mine['lead_high'] < 0).sum()}."
        for place, mine in numbers.groupby("place", sort=False)
    )


def cell(row: tuple, name: str) -> str:
    """A number of a row of `load_contexts` with its interval, as a table shows them."""
    return show.between(*(getattr(row, f"{name}{end}") for end in ("", "_low", "_high")))


# --- free answers against begun ones


def load_ways(file: str) -> pd.DataFrame:
    """Free answers against begun ones, one row for each ladder and task.

    Columns: prompts, draws (of each prompt), named (share of free answers that name one option),
    answered (mean mass of the begun reply), tv (between the mean conditional distributions), noise
    (its expectation by drawing alone, normal approximation), top_free and top_begun (the likeliest
    options). tv and noise are nan, top_free a dash, where fewer than FEWEST name an option.
    Raises: CrystalError for a missing file.
    """
    path = root() / file
    if not path.is_file():
        raise CrystalError("the file is missing", where=path, hint=f"git checkout -- {file}")
    frame = pd.read_csv(path, dtype={"option": str}, keep_default_na=False)
    groups = frame.groupby(["ladder", "task"])
    rows = [{"ladder": at[0], "task": at[1]} | _way(at[1], mine) for at, mine in groups]
    return pd.DataFrame(rows).sort_values("task", key=lambda names: names.map(list(TASKS).index))


def _way(task: str, frame: pd.DataFrame) -> dict:
    options, ways = list(TASKS[task].options), dict(tuple(frame.groupby("way")))
    free, begun = (
        ways[way].groupby("option")["mass"].sum().reindex(options, fill_value=0.0).to_numpy()
        / ways[way]["context"].nunique()
        for way in ("free", "begun")
    )
    p, q = (mass / max(mass.sum(), 1e-12) for mass in (free, begun))
    prompts, draws = frame["context"].nunique(), int(frame["draws"].max())
    count = prompts * draws * free.sum()
    enough = round(count) >= FEWEST
    noise = np.sqrt(2 * q * (1 - q) / (np.pi * max(count, 1))).sum() / 2
    return {
        "prompts": prompts,
        "draws": draws,
        "named": free.sum(),
        "answered": begun.sum(),
        "tv": float(np.abs(p - q).sum() / 2) if enough else np.nan,
        "noise": float(noise) if enough else np.nan,
        "top_free": options[p.argmax()] if enough else "–",
        "top_begun": options[q.argmax()],
    }
