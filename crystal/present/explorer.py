"""The explorer: every distribution of some series, for a page on which a reader moves through them.

`load` reads a ladder or an experiment, `load_numbers` is the table of what is shown, `embed` puts
both on the page. Distributions are conditional on an option; every checkpoint stands on the prompts
that it answers itself. Numbers are computed here: the script only shows them.

What it looks like is in `explorer_charts`.
"""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..ask.ladders import Checkpoint, load_ladder
from ..ask.prompts import COMPLETION, FORMS, Prompt, joined
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError
from ..keep.store import load_readouts
from ..measure import claims, evidence
from ..measure import quantities as ph
from . import show, verdicts
from .explorer_charts import ELEMENT, SPECS
from .views import compared, unconditional

STEPS = 255  # a cell is the square root of a probability, in so many steps
DECIMALS = 4  # of bits, and of mean distributions
COARSE = (1 - ((STEPS - 0.5) / STEPS) ** 2, 0.5 / 10**DECIMALS)  # most a cell, a number is off
NEEDS = ("explorer.css", "vega/vega.min.js", "explorer.js")
NUMBERS = ("entropy_of_mean", "mean_entropy", "mutual_information", "tv_to_seed")


@dataclass(frozen=True, eq=False)
class Group:
    """What was read on the same prompts: a ladder, or an experiment with the base it grew from.

    series: title -> places among `checkpoints`, in the order of training.
    """

    name: str
    prompts: tuple[Prompt, ...]
    checkpoints: tuple[Checkpoint, ...]
    series: dict[str, list[int]]
    seeds: dict[str, str]  # task -> the persona whom tasks of other kinds name
    read: set[tuple[str, str]]  # checkpoint and form in which it was asked every prompt
    readouts: dict[str, pd.DataFrame]  # by task


def load(ladders: Sequence[str]) -> list[Group]:
    """Groups of ladders and experiments: their checkpoints asked every prompt in some form.

    Of the natural prompts the first wording of each context, as on the page of the real base.
    Raises: CrystalError where no checkpoint was, and as the store does.
    """
    return [_group(name) for name in ladders]


def _group(name: str) -> Group:
    ladder = load_ladder(name)
    parents = {c.parent for c in ladder.checkpoints} - {""}
    if len(parents) > 1:
        what = f"{name} grew from several ladders"
        raise CrystalError(what, hint=f"name one of: {', '.join(sorted(parents))}")
    frames = [load_readouts(parent, checkpoints=["base"], tasks=PHASE_TASKS) for parent in parents]
    frame = pd.concat([*frames, load_readouts(name, tasks=PHASE_TASKS)], ignore_index=True)
    frame = frame[frame["form"].isin(FORMS) & (frame["temperature"] == 1)].assign(ladder=name)
    asked = verdicts.asked(frame)
    prompts = tuple(p for p in asked if isinstance(p, Prompt) or p.wording == "cue-1")
    frame = frame[frame["prompt"].isin([prompt.id for prompt in prompts])]
    whole = frame.groupby(["checkpoint", "form"]).size() == len(prompts) * len(PHASE_TASKS)
    read = set(whole.index[whole])
    bases = [load_ladder(parent).checkpoint("base") for parent in parents]
    there = {checkpoint for checkpoint, _ in read}
    checkpoints = tuple(c for c in (*bases, *ladder.checkpoints) if c.name in there)
    if not checkpoints:
        what = f"no checkpoint of {name} was asked every prompt"
        raise CrystalError(what, hint=f"make resample LADDER={name}")
    series: dict[str, list[int]] = {}
    for place, checkpoint in enumerate(checkpoints[len(bases) :], len(bases)):
        title = f"{checkpoint.parent}: {checkpoint.run}" if bases else ladder.title
        series.setdefault(title, [*range(len(bases))]).append(place)
    seeds = verdicts.measured(name).seeds if ladder.kind == "ladder" else {}
    readouts = {task: frame[frame["task"] == task] for task in PHASE_TASKS}
    return Group(name, prompts, checkpoints, series, seeds, read, readouts)


def seed_of(group: Group, task: str) -> claims.Seed | None:
    """What the base answers, as raw text, to whom tasks of other kinds name."""
    if task not in group.seeds:
        return None
    base = compared(group.readouts[task], task, ("base", COMPLETION), prompts=group.prompts)
    return claims.seed_of(base.evidence(("base", COMPLETION)), group.seeds[task])


def load_numbers(groups: Sequence[Group]) -> pd.DataFrame:
    """One row per task, checkpoint and form that was read: answered, asked, NUMBERS (bits;
    tv_to_seed of the mean; nan where too few prompts are answered), mean (options,).
    """
    rows = []
    for group in groups:
        for task, mine in group.readouts.items():
            seed = seed_of(group, task)
            for form, c in itertools.product(FORMS, group.checkpoints):
                if (place := (c.name, form)) not in group.read:
                    continue
                one = compared(mine, task, place, prompts=group.prompts)
                row = {"ladder": group.name, "checkpoint": c.name, "stage": c.stage}
                row |= {"step": c.step, "form": form, "task": task}
                row |= {"answered": one.count.answered, "asked": one.count.asked}
                p = one.distributions(place) if one.count.measurable else None
                rows.append(row | _numbers(p, seed))
    return pd.DataFrame(rows)


def _numbers(p: np.ndarray | None, seed: claims.Seed | None) -> dict[str, Any]:
    if p is None:
        return dict.fromkeys(NUMBERS, np.nan) | {"mean": None}
    mean = p.mean(0)
    return {
        "entropy_of_mean": float(ph.entropy_bits(mean)),
        "mean_entropy": float(ph.entropy_bits(p).mean()),
        "mutual_information": float(ph.liquidity_bits(p)),
        "tv_to_seed": float(ph.tv(mean, seed.distribution)) if seed else np.nan,
        "mean": mean,
    }


# --- packed ---------------------------------------------------------------------------------------


def packed(groups: Sequence[Group], numbers: pd.DataFrame) -> str:
    """All that the page shows, deflated, in base64: names, texts and numbers as JSON behind its
    length in four bytes; then the cells of every group, task, form and checkpoint.

    A prompt has a cell of every option, all 0 where it is not answered, and one of the mass on the
    options in percent. Written are the differences from checkpoint to checkpoint, of these the
    differences from prompt to prompt, modulo 256, option by option: so they deflate best.
    """
    cells, described = [], []
    for group in groups:
        mine = numbers[numbers["ladder"] == group.name]
        tasks = {task: _of_task(group, task, mine[mine["task"] == task]) for task in PHASE_TASKS}
        cells += [tasks[task].pop("cells") for task in PHASE_TASKS]
        checkpoints = [{"stage": c.stage, "step": c.step} for c in group.checkpoints]
        series = [{"title": title, "checkpoints": places} for title, places in group.series.items()]
        described.append({"checkpoints": checkpoints, "series": series, "tasks": tasks})
    tasks = {task: {"ask": TASKS[task].ask, "options": TASKS[task].options} for task in PHASE_TASKS}
    facts = {"forms": FORMS, "tasks": tasks, "groups": described}
    facts |= {"steps": STEPS, "decimals": DECIMALS, "charts": SPECS}
    text = json.dumps(facts, allow_nan=False).encode()
    head = len(text).to_bytes(4, "little")
    deflate = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
    whole = deflate.compress(b"".join([head, text, *cells])) + deflate.flush()
    return base64.b64encode(whole).decode()


def _of_task(group: Group, task: str, numbers: pd.DataFrame) -> dict[str, Any]:
    """A group's prompts, numbers and cells of one task; prompts whose base answers alike, together
    with all of their cluster, stand side by side.
    """
    tables = {f: np.stack([_table(group, task, c, f) for c in group.checkpoints]) for f in FORMS}
    clusters = np.array([prompt.persona for prompt in group.prompts])
    mass = tables[COMPLETION][0].sum(1, keepdims=True)
    p = ph.grouped(tables[COMPLETION][0] / np.maximum(mass, ph.TINY), clusters)
    rank = np.argsort(np.lexsort((-p.max(1), p.argmax(1))))  # of every cluster, in sorted order
    order = np.argsort(rank[np.searchsorted(np.unique(clusters), clusters)], kind="stable")
    shown, seed = [group.prompts[place] for place in order], seed_of(group, task)
    found = {"prompts": [f"{prompt.cluster}, {prompt.wording}" for prompt in shown], "forms": {}}
    if seed:
        rows = [n for n, p in enumerate(shown) if str(p.persona) == group.seeds[task]]
        found["seed"] = {"distribution": _whole(seed.distribution), "row": float(np.mean(rows))}
    for form in FORMS:
        mine = numbers[numbers["form"] == form].set_index("checkpoint")
        mine = mine.reindex([c.name for c in group.checkpoints])  # not read: nan
        found["forms"][form] = {name: _rounded(mine[name]) for name in NUMBERS}
        found["forms"][form] |= {
            "answered": _rounded(mine["answered"]),
            "means": [_whole(one) if isinstance(one, np.ndarray) else None for one in mine["mean"]],
            "texts": [_text(prompt, task, form) for prompt in shown],
        }
    found["cells"] = b"".join(_cells(tables[form][:, order]) for form in FORMS)
    return found


def _table(group: Group, task: str, checkpoint: Checkpoint, form: str) -> np.ndarray:
    """(prompts, options): probabilities as read; 0 where nobody read them."""
    if (checkpoint.name, form) not in group.read:
        return np.zeros((len(group.prompts), len(TASKS[task].options)))
    return unconditional(group.readouts[task], checkpoint.name, task, form, prompts=group.prompts)


def _cells(tables: np.ndarray) -> bytes:
    """tables: (checkpoints, prompts, options), as read."""
    mass = tables.sum(2, keepdims=True)
    p = np.where(evidence.answers(mass), tables / np.maximum(mass, ph.TINY), 0)
    steps = np.concatenate([np.sqrt(p) * STEPS, mass * 100], 2).round().astype(np.uint8)
    for axis in (0, 1):
        steps = np.diff(steps, axis=axis, prepend=np.uint8(0))
    return steps.swapaxes(1, 2).tobytes()


def _whole(distribution: np.ndarray) -> list[int]:
    return np.round(distribution * 10**DECIMALS).astype(int).tolist()


def _rounded(values: pd.Series) -> list[float | None]:
    return [None if np.isnan(x) else round(float(x), DECIMALS) for x in values]


def _text(prompt: Prompt, task: str, form: str) -> str:
    """The prompt as it was given; in chat form the reply that was begun on a line of its own."""
    text, reply = prompt.text(TASKS[task], form), prompt.reply(TASKS[task])
    if form == COMPLETION:
        return joined(text, reply)
    return f"{text}\n→ {reply}" if reply else text


# --- on the page ----------------------------------------------------------------------------------


def embed(groups: Sequence[Group], numbers: pd.DataFrame) -> None:
    """Put the explorer on the page, its numbers as a table beside it."""
    script = f'window.crystalExplorer = "{packed(groups, numbers)}";\n'
    table = numbers.drop(columns="mean")
    show.embed("explorer", ELEMENT, script=script, needs=NEEDS, data=table)
