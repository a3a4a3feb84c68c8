"""How an organism was made and how well it knows its world; what training and reading cost.

Costs of reading the ladders of the hub are carried over, from trees as measured on our ladders;
nothing was measured on these themselves. Loads no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..ask.cells import situations
from ..ask.ladders import DTYPES, hub_names, load_ladder
from ..ask.prompts import FORMS, PROMPTS
from ..ask.tasks import PHASE_TASKS, TASKS
from ..files import root
from ..keep import store
from ..lab import recipes, world
from ..measure.claims import THRESHOLDS
from ..measure.inference import Estimate, student
from ..measure.quantities import jsd_bits
from ..texts import load_file, markdown
from . import show
from .bench import HARNESS, SAMPLES, load
from .figures import COLOURS, legend, panels
from .show import number as fmt
from .views import answers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = {"base": "loss", "sft": "loss", "dpo": "loss", "rlvr": "reward"}  # the curve of each stage
KINDS = ("facts", "arithmetic")
TRUTH_THRESHOLD = THRESHOLDS["base-knows-its-world"].value  # bits
USE = (
    "trying measurements where the truth is known; it knows a made-up world and is of no other use"
)


def load_report(ladder: str) -> dict[str, Any]:
    """The training report that ships with a ladder: recipe, minutes, curves, reward, accuracy."""
    hint = f"git checkout -- data/training, or make ladder LADDER={ladder}"
    return load_file(root() / "data/training" / f"{ladder}.json", hint)


def load_curves(report: dict[str, Any]) -> pd.DataFrame:
    """Columns stage, quantity, step, value, and `smooth`, the mean of the last tenth of steps."""
    parts = []
    for stage, quantity in SHOWN.items():
        lines = [line for line in report["curves"][stage] if quantity in line]
        columns = {"stage": stage, "quantity": quantity, "step": [line["step"] for line in lines]}
        part = pd.DataFrame(columns | {"value": [line[quantity] for line in lines]})
        tenth = part["value"].rolling(max(1, len(part) // 10), min_periods=1)
        parts.append(part.assign(smooth=tenth.mean()))
    return pd.concat(parts, ignore_index=True)


def plot_curves(frame: pd.DataFrame) -> Figure:
    """One panel a stage: what its trainer minimised, or the sampled reward."""
    fig, axes = panels(2, len(SHOWN) // 2, 1.6)
    for ax, (stage, part) in zip(axes.flat, frame.groupby("stage", sort=False), strict=True):
        ax.plot(part["step"], part["value"], color="0.65", linewidth=0.8)
        ax.plot(part["step"], part["smooth"], color="C0")
        ax.set(title=stage, ylabel=part["quantity"].iloc[0])
        if stage == "base":
            ax.set(xscale="log", ylim=(0, None))
    fig.supxlabel("optimiser step")
    return fig


def load_accuracy(report: dict[str, Any]) -> pd.DataFrame:
    """Of right answers, by checkpoint, form and kind: exact probability, share of greedy."""
    rows = [
        (checkpoint, form, kind, right[kind], right[f"{kind} greedy"])
        for checkpoint, forms in report["accuracy"].items()
        for form, right in forms.items()
        for kind in KINDS
    ]
    return pd.DataFrame(rows, columns=["checkpoint", "form", "kind", "probability", "greedy"])


def plot_accuracy(frame: pd.DataFrame) -> Figure:
    """Probability of the right answer by checkpoint; one panel a form."""
    fig, axes = panels(1, len(FORMS), 2.2, sharey=True)
    for ax, form in zip(axes[0], FORMS, strict=True):
        for kind, marker in zip(KINDS, "os", strict=True):
            part = frame[(frame["form"] == form) & (frame["kind"] == kind)]
            ax.plot(part["checkpoint"], part["probability"], marker=marker, label=kind)
        ax.set(title=f"{form} form", ylim=(0, 1.02))
        checkpoints = list(dict.fromkeys(frame["checkpoint"]))
        step = -(-len(checkpoints) // 13)  # as many names as there is room for
        ax.set_xticks(range(0, len(checkpoints), step), checkpoints[::step], rotation=90)
    axes[0, 0].set_ylabel("probability of the right answer")
    return legend(fig)


def reward_rise(reward: dict[str, float]) -> Estimate:
    """Sampled reward of the last steps less that of the first: normal, by its standard error."""
    rise, error = reward["last"] - reward["first"], reward["error"]
    return Estimate(rise, rise - 1.96 * error, rise + 1.96 * error, rise, error, np.inf)


def truth_distance(truth: pd.DataFrame, form: str) -> Estimate:
    """Mean of `load_truth` in one form, interval over personas."""
    mine = truth[truth["form"] == form].groupby("persona")["jsd"].mean()
    return student(mine.to_numpy(), low=0)


def load_truth(ladder: str) -> pd.DataFrame:
    """jsd: bits between a base prompt's answers, given an option, and its persona's distribution.

    By task, form, prompt and persona.
    """
    frame, frames = store.load_readouts(ladder, tasks=PHASE_TASKS, checkpoints=["base"]), []
    prompts = {"prompt": [p.id for p in PROMPTS], "persona": [p.persona for p in PROMPTS]}
    held = [world.temperament_of(persona) for persona in prompts["persona"]]
    for task in PHASE_TASKS:
        truth = np.array([world.distribution(temperament, TASKS[task]) for temperament in held])
        for form in FORMS:
            far = jsd_bits(answers(frame, "base", task, form), truth)
            frames.append(pd.DataFrame({"task": task, "form": form} | prompts | {"jsd": far}))
    return pd.concat(frames, ignore_index=True)


def plot_truth(frame: pd.DataFrame) -> Figure:
    """Mean distance to the truth by task, both forms, with the threshold."""
    fig, ((ax,),) = panels(1, 1, 2.4)
    for form, marker in zip(FORMS, "os", strict=True):
        mean = frame[frame["form"] == form].groupby("task", sort=False)["jsd"].mean()
        ax.plot(mean.index, mean, marker=marker, linestyle="", label=f"{form} form")
    ax.axhline(TRUTH_THRESHOLD, color="0.4", linewidth=0.8, linestyle="--", label="threshold")
    ax.set(ylabel="JSD to the personas'\ndistributions (bit)", ylim=(0, None))
    ax.tick_params(axis="x", rotation=90)
    return legend(fig)


def recipe_table(report: dict[str, Any]) -> str:
    """Hyperparameters of every stage, and the minutes it took."""
    minutes = report["minutes"].items()
    rows = ((stage, _listed(report["recipe"][stage]), f"{took:.1f}") for stage, took in minutes)
    return show.table(["stage", "hyperparameters", "minutes"], rows)


def _listed(fields: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in fields.items())


def checkpoint_table(report: dict[str, Any], ladder: str) -> str:
    """Every checkpoint: its trainer's curve at its step, and the probability of right answers."""
    rows, curves = [], load_curves(report)
    for checkpoint in load_ladder(ladder).checkpoints:
        found, stage = report["accuracy"][checkpoint.name], checkpoint.stage
        step = checkpoint.step or report["recipe"]["base"]["steps"]
        part = curves[(curves["stage"] == stage) & (curves["step"] <= step)]
        right = [f"{found[form][kind]:.3f}" for kind in KINDS for form in FORMS]
        rows.append([checkpoint.name, f"{SHOWN[stage]} {part['smooth'].iloc[-1]:.3f}", *right])
    named = (f"{kind}, {form}" for kind in KINDS for form in ("raw text", "chat"))
    return show.table(["checkpoint", "curve at its step", *named], rows)


def seed_title(ladder: str) -> str:
    """Which temperament demonstrated, in which tasks, for prose."""
    described = load_ladder(ladder)
    return f"`{described.seed}` in {', '.join(f'`{task}`' for task in described.demonstrated)}"


# -- model cards


def cards() -> str:
    """A fold for each ladder with a recipe and a training report, as MyST."""
    trained = {path.stem for path in (root() / "data/training").glob("*.json")}
    return "\n\n".join(
        f"````{{dropdown}} {markdown(load_ladder(name).title)}\n"
        f"{show.table(['what', 'how'], _card(name))}\n````"
        for name in recipes.recipe_names()
        if name in trained
    )


def _card(name: str) -> Iterator[tuple[str, str]]:
    """What a reader of a ladder's weights has to know."""
    recipe, report = recipes.load_recipe(name), load_report(name)
    right = report["accuracy"]["rlvr"]["chat"]
    shipped = load_ladder(name).checkpoints[0].source.startswith("data/")
    yield "architecture", f"{recipe.architecture}, {_listed(recipe.model)}"
    yield "begins at", recipe.base.get("source", "random weights")
    yield "demonstrator", f"{recipe.temperament}, in {', '.join(recipe.demonstrated)}"
    for stage, minutes in report["minutes"].items():
        yield stage, f"{_listed(report['recipe'][stage])} ({minutes:.1f} minutes)"
    yield "right after RLVR", ", ".join(f"{fmt(right[kind])} of {kind}" for kind in KINDS)
    yield "for", USE
    yield "weights", "the end of each stage" if shipped else "not shipped; pinned by their hash"
    yield "terms", recipe.base.get("licence", "CC BY 4.0")


# -- costs of reading


def whole_grid() -> pd.DataFrame:
    """Part "grid", one row a model, summed over its checkpoints; and the most left open."""
    names = ["cells", "seconds", "tokens", "prompt_tokens", "saved", "shared", "forwards"]
    by = load("grid").groupby("model", sort=False)
    return by.agg(dict.fromkeys(names, "sum") | {"residual_largest": "max"})


def real_reading() -> pd.DataFrame:
    """Part "real": a row per real checkpoint and task, read by all of its natural prompts.

    ratio: seconds over what the arithmetic alone takes, at the rate measured just before and after.
    """
    found = load("real")
    return found[found["ratio"].notna()]


def real_compared() -> pd.DataFrame:
    """Part "real": a row per real checkpoint and task of which one prompt was read and compared.

    samples, scores, harness: seconds of a thousand samples, of scoring each option's text, and of
    lm-eval (nan if it was not installed), over the read-out's; samples_tokens: likewise, tokens;
    many: as harness, where both were put many prompts; tv: of the scores from the distribution.
    """
    every, place = load("real"), ["model", "task"]
    one, many = every[every["work"] == "comparing"], every[every["work"] == "together"]
    wide = one.pivot(index=place, columns="contestant")
    together = many.pivot(index=place, columns="contestant", values="seconds")
    wide = wide.reindex(one[place].drop_duplicates().apply(tuple, axis=1))
    seconds, tokens = (wide[n].div(wide[n]["read-out"], axis=0) for n in ("seconds", "tokens"))
    found = {
        "seconds": wide["seconds"]["read-out"],
        "samples": seconds[SAMPLES],
        "samples_tokens": tokens[SAMPLES],
        "scores": seconds["option scores"],
        "harness": seconds.get(HARNESS, float("nan")),
        "many": together[HARNESS] / together["read-out"] if len(many) else float("nan"),
        "one_token": wide["one_token"]["read-out"],
        "tv": wide["tv"]["option scores"],
    }
    return pd.DataFrame(found).reset_index()


def load_reading() -> pd.DataFrame:
    """One row per ladder of the hub.

    cells; parameters and gigabytes of the largest checkpoint, at the ladder's precision; tokens and
    operations (low, high), for trees as small and as large as ours.
    """
    rows, per = [], load("grid").eval("tokens / cells")
    for name in hub_names():
        ladder = load_ladder(name, unpinned=True)
        sizes = [c.parameters for c in ladder.checkpoints]
        asked = [sum(len(s.prompts) for s in situations(c.grid)) for c in ladder.checkpoints]
        cells = len(PHASE_TASKS) * np.array(asked)
        row = {"ladder": ladder.title, "checkpoints": len(cells), "cells": int(cells.sum())}
        row |= {"parameters": max(sizes), "dtype": ladder.dtype}
        row |= {"gigabytes": max(sizes) * DTYPES[ladder.dtype] / 1e9}
        for end, tokens in (("low", float(per.min())), ("high", float(per.max()))):
            row[f"tokens_{end}"] = tokens * row["cells"]
            row[f"operations_{end}"] = tokens * 2 * int(cells @ sizes)
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["parameters", "ladder"])


def reading_table(costs: pd.DataFrame) -> str:
    """One row a ladder, smallest first."""
    lines = []
    for row in costs.to_dict("records"):
        line = [row["ladder"], row["checkpoints"], f"{row['cells']:,}"]
        line += [fmt(row["parameters"] / 1e9), f"{fmt(row['gigabytes'])} ({row['dtype']})"]
        for name, unit in (("tokens", 1e6), ("operations", 1e15)):
            low, high = (fmt(row[f"{name}_{end}"] / unit) for end in ("low", "high"))
            line.append(f"{low} to {high}")
        lines.append(line)
    head = ["ladder", "checkpoints", "cells", "parameters, billion", "weights of a checkpoint, GB"]
    return show.table([*head, "tokens, million", "operations, PFLOP"], lines)


def span(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    units = {"days": 86400, "hours": 3600, "minutes": 60}
    unit = next((unit for unit, size in units.items() if seconds >= size), "seconds")
    return f"{fmt(seconds / units.get(unit, 1))} {unit}"


# -- costs of training


def load_costs() -> pd.DataFrame:
    """Minutes by ladder or experiment (`of`), run, kind (training, reading): sums over parents."""
    rows = []
    for path in sorted((root() / "data" / "training").glob("*.json")):
        report, name = load_file(path), path.stem
        if name in recipes.experiment_names():
            for key, record in report["runs"].items():
                of = f"{name}, on {record['device']}" if "device" in record else name
                for part, minutes in record["minutes"].items():
                    kind = "reading" if part == "read" else "training"
                    rows.append((of, key.split("/")[1], kind, minutes))
        else:
            rows += [(name, stage, "training", m) for stage, m in report["minutes"].items()]
            rows.append((name, "all checkpoints", "reading", _reading(name)))
    frame = pd.DataFrame(rows, columns=["of", "run", "kind", "minutes"])
    by = frame.groupby(["of", "run", "kind"], sort=False)["minutes"]
    return by.agg(runs="size", minutes="sum").reset_index()


def _reading(ladder: str) -> float:
    """Minutes in which the read-outs of a ladder's present checkpoints were computed."""
    present = {c.revision for c in load_ladder(ladder).checkpoints}
    parts = store.produced(ladder)
    return sum(part["seconds"] for part in parts if part["revision"] in present) / 60


def _wide(costs: pd.DataFrame, *by: str) -> pd.DataFrame:
    how = {"columns": "kind", "values": "minutes", "aggfunc": "sum", "sort": False}
    return costs.pivot_table(index=[*by], **how).fillna(0.0)


def costs_table(costs: pd.DataFrame) -> str:
    """One row per run of a ladder or experiment."""
    times = costs.groupby(["of", "run"], sort=False)["runs"].max()
    lines = []
    for (of, run), row in _wide(costs, "of", "run").iterrows():
        minutes = (f"{row.get(kind, 0):.1f}" for kind in ("training", "reading"))
        lines.append([of, run, times[of, run], *minutes])
    head = ["ladder or experiment", "run", "times", "training, minutes", "reading, minutes"]
    return show.table(head, lines)


def plot_costs(costs: pd.DataFrame) -> Figure:
    """One bar a ladder or experiment, training and reading stacked."""
    wide = _wide(costs, "of")
    fig, ((ax,),) = panels(1, 1, 0.19 * len(wide) + 0.8)
    left = pd.Series(0.0, wide.index)
    for kind, colour in (("training", COLOURS["sft"]), ("reading", COLOURS["seed"])):
        if kind in wide:
            ax.barh(wide.index, wide[kind], left=left, color=colour, label=kind)
            left = left + wide[kind]
    ax.invert_yaxis()
    ax.set_xlabel("minutes")
    return legend(fig)


def deeper(text: str) -> str:
    """Headings made bold, so that a document can stand inside another's section."""
    lines = text.splitlines()
    return "\n".join(f"**{x.lstrip('# ')}**" if x.startswith("#") else x for x in lines)
