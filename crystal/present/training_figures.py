"""How an organism was made and how well it knows its world; what training and reading cost."""

from __future__ import annotations

from pathlib import Path
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
from .open_tasks import where
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


def _reports() -> list[Path]:
    return sorted((root() / "data/training").glob("*.json"))


def load_report(ladder: str) -> dict[str, Any]:
    """A ladder's training report: recipe, minutes, curves, reward, accuracy."""
    hint = f"git checkout -- data/training, or make ladder LADDER={ladder}"
    return load_file(root() / "data/training" / f"{ladder}.json", hint)


def load_curves(report: dict[str, Any]) -> pd.DataFrame:
    """Columns stage, quantity, step, value, and `smooth`, the mean of the last tenth of steps."""
    parts = []
    for stage, quantity in SHOWN.items():
        curve = pd.DataFrame(report["curves"][stage]).dropna(subset=quantity)
        part = curve[["step"]].assign(stage=stage, quantity=quantity, value=curve[quantity])
        tenth = part["value"].rolling(max(1, len(part) // 10), min_periods=1)
        parts.append(part.assign(smooth=tenth.mean()))
    columns = ["stage", "quantity", "step", "value", "smooth"]
    return pd.concat(parts, ignore_index=True)[columns]


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
    """Exact probability of right answers, by checkpoint, form and kind."""
    rows = [
        (checkpoint, form, kind, right[kind])
        for checkpoint, forms in report["accuracy"].items()
        for form, right in forms.items()
        for kind in KINDS
    ]
    return pd.DataFrame(rows, columns=["checkpoint", "form", "kind", "probability"])


def plot_accuracy(frame: pd.DataFrame) -> Figure:
    """Probability of the right answer by checkpoint; one panel a form."""
    fig, axes = panels(1, len(FORMS), 2.2, sharey=True)
    checkpoints = list(frame["checkpoint"].unique())
    step = -(-len(checkpoints) // 13)  # as many names as there is room for
    for ax, form in zip(axes[0], FORMS, strict=True):
        for kind, marker in zip(KINDS, "os", strict=True):
            part = where(frame, form=form, kind=kind)
            ax.plot(part["checkpoint"], part["probability"], marker=marker, label=kind)
        ax.set(title=f"{form} form", ylim=(0, 1.02))
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


# -- model cards


def cards() -> str:
    """A fold for each ladder with a recipe and a training report, as MyST."""
    trained = {path.stem for path in _reports()}
    names = [name for name in recipes.recipe_names() if name in trained]
    titles = (markdown(load_ladder(name).title) for name in names)
    return "\n\n".join(show.block("dropdown", *of) for of in zip(titles, map(card, names)))


def card(ladder: str) -> str:
    """MyST table: what a reader of a ladder's weights has to know."""
    recipe, report = recipes.load_recipe(ladder), load_report(ladder)
    right = report["accuracy"]["rlvr"]["chat"]
    shipped = load_ladder(ladder).checkpoints[0].source.startswith("data/")
    rows = [
        ("architecture", f"{recipe.architecture}, {_listed(recipe.model)}"),
        ("begins at", recipe.base.get("source", "random weights")),
        ("demonstrator", f"{recipe.temperament}, in {', '.join(recipe.demonstrated)}"),
    ]
    for stage, minutes in report["minutes"].items():
        rows.append((stage, f"{_listed(report['recipe'][stage])} ({minutes:.1f} minutes)"))
    rows += [
        ("right after RLVR", ", ".join(f"{fmt(right[kind])} of {kind}" for kind in KINDS)),
        ("for", USE),
        ("weights", "the end of each stage" if shipped else "not shipped; pinned by their hash"),
        ("terms", recipe.base.get("licence", "CC BY 4.0")),
    ]
    return show.table(["what", "how"], rows)


# -- costs of reading


def whole_grid() -> pd.DataFrame:
    """Part "grid", one row a model, summed over its checkpoints; and the most left open."""
    names = ["cells", "seconds", "tokens", "prompt_tokens", "saved", "shared", "forwards"]
    by = load("grid").groupby("model", sort=False)
    return by.agg(dict.fromkeys(names, "sum") | {"residual_largest": "max"})


def real_compared() -> pd.DataFrame:
    """Part "real": a row per real checkpoint and task of which one prompt was read and compared.

    samples, scores, harness: seconds of a thousand samples, of scoring each option's text, and of
    lm-eval (nan if it was not installed), over the read-out's; samples_tokens: tokens; many: as
    harness, of many prompts; tv: of the scores from the distribution.
    """
    frame = load("real").set_index(["model", "task"]).sort_index()

    def of(contestant: str, column: str = "seconds", work: str = "comparing") -> pd.Series:
        return where(frame, contestant=contestant, work=work)[column]

    seconds, many = of("read-out"), ("seconds", "together")
    found = {
        "seconds": seconds,
        "samples": of(SAMPLES) / seconds,
        "samples_tokens": of(SAMPLES, "tokens") / of("read-out", "tokens"),
        "scores": of("option scores") / seconds,
        "harness": of(HARNESS) / seconds,
        "many": of(HARNESS, *many) / of("read-out", *many),
        "one_token": of("read-out", "one_token"),
        "tv": of("option scores", "tv"),
    }
    return pd.DataFrame(found, seconds.index).reset_index()


def load_reading() -> pd.DataFrame:
    """What reading each ladder of the hub would cost, carried over from ours.

    parameters, gigabytes: of the largest checkpoint; tokens and operations (low, high): for trees
    as small and as large as ours.
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


# -- costs of training


def load_costs() -> pd.DataFrame:
    """Minutes by ladder or experiment (`of`), run and kind: sums over parents."""
    rows = []
    for path in _reports():
        report, name = load_file(path), path.stem
        if name in recipes.experiment_names():
            for key, record in report["runs"].items():
                of = f"{name}, on {record['device']}" if "device" in record else name
                for part, minutes in record["minutes"].items():
                    kind = "reading" if part == "read" else "training"
                    rows.append((of, key.split("/")[1], kind, minutes))
        else:
            present = {c.revision for c in load_ladder(name).checkpoints}
            read = [p["seconds"] for p in store.produced(name) if p["revision"] in present]
            rows += [(name, stage, "training", m) for stage, m in report["minutes"].items()]
            rows.append((name, "all checkpoints", "reading", sum(read) / 60))
    frame = pd.DataFrame(rows, columns=["of", "run", "kind", "minutes"])
    by = frame.groupby(["of", "run", "kind"], sort=False)["minutes"]
    return by.agg(runs="size", minutes="sum").reset_index()


def _wide(costs: pd.DataFrame, *by: str) -> pd.DataFrame:
    how = {"columns": "kind", "values": "minutes", "aggfunc": "sum", "sort": False}
    return costs.pivot_table(index=[*by], **how, fill_value=0.0)


def costs_table(costs: pd.DataFrame) -> str:
    """One row per run of a ladder or experiment."""
    times = costs.groupby(["of", "run"], sort=False)["runs"].max()
    wide = _wide(costs, "of", "run").reindex(columns=["training", "reading"], fill_value=0.0)
    rows = ([*run, times[run], *map("{:.1f}".format, row)] for run, *row in wide.itertuples())
    head = ["ladder or experiment", "run", "times", "training, minutes", "reading, minutes"]
    return show.table(head, rows)


def plot_costs(costs: pd.DataFrame) -> Figure:
    """One bar a ladder or experiment, training and reading stacked."""
    wide = _wide(costs, "of")
    fig, ((ax,),) = panels(1, 1, 0.19 * len(wide) + 0.8)
    hues = {"training": COLOURS["sft"], "reading": COLOURS["seed"]}
    wide.plot.barh(ax=ax, stacked=True, width=0.8, color=hues, legend=False)
    ax.invert_yaxis()
    ax.set(xlabel="minutes", ylabel="")
    return legend(fig)


def deeper(text: str) -> str:
    """Headings made bold: a document to stand inside another's section."""
    lines = text.splitlines()
    return "\n".join(f"**{x.lstrip('# ')}**" if x.startswith("#") else x for x in lines)
