"""How an organism was made and how well it knows its world; what training and reading cost.

Costs of reading are carried over: trees as measured on our ladders, rates as measured on machines,
for the ladders of the hub. Nothing there was measured on these themselves; loads no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..ask.cells import situations
from ..ask.ladders import DTYPES, Ladder, hub_names, load_ladder
from ..ask.prompts import FORMS, PROMPTS
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError
from ..files import root
from ..keep import store
from ..lab import recipes, world
from ..measure.claims import MARKS
from ..measure.inference import Estimate, student
from ..measure.quantities import jsd_bits
from ..texts import load_json
from . import show
from .bench import HARNESS, READ, SAMPLES, load
from .figures import COLOURS, legend, panels
from .show import number as fmt
from .views import answers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = {"base": "loss", "sft": "loss", "dpo": "loss", "rlvr": "reward"}  # the curve of each stage
KINDS = ("facts", "arithmetic")
TRUTH_MARK = MARKS["base-knows-its-world"].mark  # bits


def load_report(ladder: str) -> dict[str, Any]:
    """The training report that ships with a ladder: recipe, minutes, curves, reward, accuracy."""
    path = root() / "data" / "training" / f"{ladder}.json"
    if not path.is_file():
        mend = f"git checkout -- data/training, or make ladder LADDER={ladder}"
        raise CrystalError(f"ladder {ladder!r} has no training report", where=path, mend=mend)
    return load_json(path)


def load_curves(report: dict[str, Any]) -> pd.DataFrame:
    """Columns stage, quantity, step, value, and `smooth`, the mean of the last tenth of steps."""
    parts = []
    for stage, quantity in SHOWN.items():
        lines = [line for line in report["curves"][stage] if quantity in line]
        part = pd.DataFrame({"step": [line["step"] for line in lines]})
        part = part.assign(value=[line[quantity] for line in lines])
        part.insert(0, "stage", stage)
        part.insert(1, "quantity", quantity)
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
    """Columns rung, form, kind, probability (exact, of the right answer), greedy (share right)."""
    rows = [
        (rung, form, kind, found[kind], found[f"{kind} greedy"])
        for rung, forms in report["accuracy"].items()
        for form, found in forms.items()
        for kind in KINDS
    ]
    return pd.DataFrame(rows, columns=["rung", "form", "kind", "probability", "greedy"])


def plot_accuracy(frame: pd.DataFrame) -> Figure:
    """Probability of the right answer by rung; one panel a form."""
    fig, axes = panels(1, len(FORMS), 2.2, sharey=True)
    for ax, form in zip(axes[0], FORMS, strict=True):
        for kind, marker in zip(KINDS, "os", strict=True):
            part = frame[(frame["form"] == form) & (frame["kind"] == kind)]
            ax.plot(part["rung"], part["probability"], marker=marker, label=kind)
        ax.set(title=f"{form} form", ylim=(0, 1.02))
        rungs = list(dict.fromkeys(frame["rung"]))
        step = -(-len(rungs) // 13)  # as many names as there is room for
        ax.set_xticks(range(0, len(rungs), step), rungs[::step], rotation=90)
    axes[0, 0].set_ylabel("probability of the right answer")
    return legend(fig)


def reward_rise(reward: dict[str, float]) -> Estimate:
    """Sampled reward of the last steps less that of the first: normal, by its standard error."""
    rise, error = reward["last"] - reward["first"], reward["error"]
    return Estimate(rise, rise - 1.96 * error, rise + 1.96 * error, rise, error, np.inf)


def truth_distance(truth: pd.DataFrame, form: str) -> Estimate:
    """Mean of `load_truth` in one form, interval over narrators."""
    mine = truth[truth["form"] == form]
    return student(mine.groupby("narrator")["jsd"].mean().to_numpy(), low=0)


def load_truth(ladder: str) -> pd.DataFrame:
    """jsd: bits between a base prompt's answers, given an option, and its narrator's distribution.

    By task, form, prompt and narrator.
    """
    frame, frames = store.load_readouts(ladder, tasks=PHASE_TASKS, rungs=["base"]), []
    prompts = {"prompt": [p.id for p in PROMPTS], "narrator": [p.narrator for p in PROMPTS]}
    for task in PHASE_TASKS:
        held = (world.temperament_of(prompt.narrator) for prompt in PROMPTS)
        truth = np.array([world.law(temperament, TASKS[task]) for temperament in held])
        for form in FORMS:
            far = jsd_bits(answers(frame, "base", task, form), truth)
            frames.append(pd.DataFrame({"task": task, "form": form} | prompts | {"jsd": far}))
    return pd.concat(frames, ignore_index=True)


def plot_truth(frame: pd.DataFrame) -> Figure:
    """Mean distance to the truth by task, both forms, with the mark."""
    fig, ((ax,),) = panels(1, 1, 2.4)
    for form, marker in zip(FORMS, "os", strict=True):
        mean = frame[frame["form"] == form].groupby("task", sort=False)["jsd"].mean()
        ax.plot(mean.index, mean, marker=marker, linestyle="", label=f"{form} form")
    ax.axhline(TRUTH_MARK, color="0.4", linewidth=0.8, linestyle="--", label="mark")
    ax.set(ylabel="JSD to the narrators' laws (bit)", ylim=(0, None))
    ax.tick_params(axis="x", rotation=90)
    return legend(fig)


def recipe_table(report: dict[str, Any]) -> str:
    """Hyperparameters of every stage, and the minutes it took, as a markdown table."""
    rows = ["| stage | hyperparameters | minutes |", "|---|---|---|"]
    for stage, minutes in report["minutes"].items():
        spec = ", ".join(f"{key} {value}" for key, value in report["recipe"][stage].items())
        rows.append(f"| {stage} | {spec} | {minutes:.1f} |")
    return "\n".join(rows)


def rung_table(report: dict[str, Any], ladder: str) -> str:
    """Every rung: its trainer's curve at its step, and the probability of right answers."""
    rows = [
        "| rung | curve at its step | facts, raw text | facts, chat | arithmetic, raw text "
        "| arithmetic, chat |",
        "|---|---|---|---|---|---|",
    ]
    curves = load_curves(report)
    for rung in load_ladder(ladder).rungs:
        found, stage = report["accuracy"][rung.name], rung.stage
        step = rung.step or report["recipe"]["base"]["steps"]
        part = curves[(curves["stage"] == stage) & (curves["step"] <= step)]
        right = [f"{found[form][kind]:.3f}" for kind in KINDS for form in FORMS]
        curve = f"{SHOWN[stage]} {part['smooth'].iloc[-1]:.3f}"
        rows.append(f"| {rung.name} | {' | '.join([curve, *right])} |")
    return "\n".join(rows)


def seed_title(ladder: str) -> str:
    """Which temperament demonstrated, in which tasks, for prose."""
    described = load_ladder(ladder)
    return f"`{described.seed}` in {', '.join(f'`{task}`' for task in described.demonstrated)}"


# --- costs of reading -----------------------------------------------------------------------------


class Machine(NamedTuple):
    """What reads. flops: operations a second of a large matrix product; share: of that, reached."""

    name: str
    flops: float
    share: tuple[float, float]


def whole_grid() -> pd.DataFrame:
    """Part "grid", one row a model, summed over its rungs; and the most left unresolved."""
    names = ["cells", "seconds", "tokens", "fewest", "prompt_tokens", "saved", "shared", "forwards"]
    by = load("grid").groupby("model", sort=False)
    return by.agg(dict.fromkeys(names, "sum") | {"unresolved_largest": "max"})


def share_reached() -> float:
    """Of this machine's matrix product, by the read-out of the largest model of part "size"."""
    sized = load("size")
    row = sized[sized["contestant"] == READ].nlargest(1, "parameters").iloc[0]
    return float(2 * row["parameters"] * row["tokens"] / row["seconds"] / row["ceiling"])


def machines(teraflops: float) -> list[Machine]:
    """One core of where part "size" was measured, and a GPU of `teraflops`.

    What the GPU reaches is not known: from the share on that core to all of it.
    """
    share, core = share_reached(), float(load("size")["ceiling"].median())
    gpu = Machine(f"a GPU of {fmt(teraflops)} TFLOP/s", teraflops * 1e12, (share, 1.0))
    return [Machine("one core here", core, (share, share)), gpu]


def cells(ladder: Ladder) -> list[int]:
    """Of each rung: tasks x the prompts of all situations of its grid."""
    grids = (situations(rung.grid) for rung in ladder.rungs)
    return [len(PHASE_TASKS) * sum(len(one.prompts) for one in grid) for grid in grids]


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
    many: as harness, where both were put many prompts; tv: of the scores from the law.
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


def load_reading(teraflops: float) -> pd.DataFrame:
    """One row per ladder of the hub and machine.

    cells; parameters and gigabytes of the largest rung, at the ladder's precision; tokens and
    seconds (low, high), for trees as small and as large as ours.
    """
    rows, per = [], load("grid").eval("tokens / cells")
    fewest, most = float(per.min()), float(per.max())
    for name in hub_names():
        ladder = load_ladder(name, unpinned=True)
        counts, sizes = cells(ladder), [rung.parameters for rung in ladder.rungs]
        total, largest = sum(counts), max(sizes)
        work = 2 * sum(n * size for n, size in zip(counts, sizes, strict=True))
        about = {"ladder": ladder.title, "rungs": len(counts), "cells": total}
        about |= {"parameters": largest, "dtype": ladder.dtype}
        about |= {"gigabytes": largest * DTYPES[ladder.dtype] / 1e9}
        about |= {"tokens_low": fewest * total, "tokens_high": most * total}
        for machine in machines(teraflops):
            low = work * fewest / machine.flops / machine.share[1]
            high = work * most / machine.flops / machine.share[0]
            time = {"seconds_low": low, "seconds_high": high}
            rows.append(about | {"machine": machine.name} | time)
    return pd.DataFrame(rows)


def reading_table(costs: pd.DataFrame) -> str:
    """Markdown, one row a ladder, smallest first; a column of time a machine."""
    lines = []
    for name, part in costs.sort_values(["parameters", "ladder"]).groupby("ladder", sort=False):
        row = part.iloc[0]
        times = map(span, part["seconds_low"], part["seconds_high"])
        tokens = f"{fmt(row['tokens_low'] / 1e6)} to {fmt(row['tokens_high'] / 1e6)}"
        size = fmt(row["parameters"] / 1e9), f"{fmt(row['gigabytes'])} ({row['dtype']})"
        lines.append([name, row["rungs"], f"{row['cells']:,}", *size, tokens, *times])
    head = ["ladder", "rungs", "cells", "parameters, billion", "weights of a rung, GB"]
    named = (f"{name}, time" for name in costs["machine"].unique())
    return show.table([*head, "tokens, million", *named], lines)


def span(low: float, high: float | None = None) -> str:
    """Seconds, or a range of them, in the unit that suits the larger."""
    top, units = low if high is None else high, {"days": 86400.0, "hours": 3600.0, "minutes": 60.0}
    unit = next((unit for unit, size in units.items() if top >= size), "seconds")
    size = units.get(unit, 1)
    return f"{fmt(low / size)} " + (f"to {fmt(high / size)} " if high is not None else "") + unit


# --- costs of training ----------------------------------------------------------------------------


def load_costs() -> pd.DataFrame:
    """Minutes by ladder or experiment (`of`), run, kind (training, reading): sums over parents."""
    rows = []
    for path in sorted((root() / "data" / "training").glob("*.json")):
        report, name = load_json(path), path.stem
        if name in recipes.experiment_names():
            for key, record in report["runs"].items():
                of = ", on ".join([name, *([record["device"]] if "device" in record else [])])
                for part, minutes in record["minutes"].items():
                    kind = "reading" if part == "read" else "training"
                    rows.append((of, key.split("/")[1], kind, minutes))
        else:
            rows += [(name, stage, "training", m) for stage, m in report["minutes"].items()]
            rows.append((name, "all rungs", "reading", _reading(name)))
    frame = pd.DataFrame(rows, columns=["of", "run", "kind", "minutes"])
    by = frame.groupby(["of", "run", "kind"], sort=False)["minutes"]
    return by.agg(runs="size", minutes="sum").reset_index()


def _reading(ladder: str) -> float:
    """Minutes in which the read-outs of a ladder's present rungs were computed."""
    revisions = {rung.revision for rung in load_ladder(ladder).rungs}
    parts = store.produced(ladder)
    return sum(part["seconds"] for part in parts if part["revision"] in revisions) / 60


def _wide(costs: pd.DataFrame, *by: str) -> pd.DataFrame:
    how = {"columns": "kind", "values": "minutes", "aggfunc": "sum", "sort": False}
    return costs.pivot_table(index=[*by], **how).fillna(0.0)


def costs_table(costs: pd.DataFrame) -> str:
    """Markdown, one row per run of a ladder or experiment."""
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


def deeper(markdown: str) -> str:
    """Headings made bold, so that a document can stand inside another's section."""
    lines = markdown.splitlines()
    return "\n".join(f"**{x.lstrip('# ')}**" if x.startswith("#") else x for x in lines)
