"""What the read-out costs beside its peers, as `make bench` measured it: loaded, drawn, put into tables.

Pairs as in `crystal.present.figures`. Knows the files under data/bench and nothing of how they came about; loads no torch.
Seconds are medians over runs, and per prompt wherever contestants answered different numbers of prompts. What was read is a
rung of a model in its native form: `subject`, such as "nano-llama base".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.tasks import TASKS
from ..errors import CrystalError, known
from ..files import root
from ..read.shapes import SHAPES, forward_bytes, operations
from ..texts import load_json
from . import show
from .figures import panels
from .telling import fmt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = ("peers", "scores", "generate", "open", "options", "prompts", "draws", "length", "size", "error", "memory",
         "grid")
OPTIONAL = ("vllm",)
READ, QUICK, HARNESS, SAMPLES = "read-out, 0.0001", "read-out, 0.001", "lm-eval", "generate, 1000 samples"
VLLM = "vLLM, 1000 samples"
COLOURS = {READ: "#0072B2", QUICK: "#56B4E9", HARNESS: "#D55E00", SAMPLES: "#767c85", "typed choice, options": "#CC79A7",
           "typed choice, letters": "#E69F00", "tree sampler": "#009E73", "generate": "#767c85"}
MARKERS = {READ: "o", QUICK: "o", HARNESS: "s", SAMPLES: "D", "typed choice, options": "^", "typed choice, letters": "v"}


def load(part: str) -> pd.DataFrame:
    """The rows of one part as they were written, with `subject`, and `prompt_seconds` where seconds are of several prompts.

    Raises: CrystalError if the part was never measured.
    """
    frame = pd.DataFrame(_file(part)["rows"])
    if {"model", "rung"} <= {*frame}:
        frame["subject"] = frame["model"] + " " + frame["rung"]
    return frame.assign(prompt_seconds=frame["seconds"] / frame["prompts"]) if {"seconds", "prompts"} <= {*frame} else frame


def whole(part: str) -> dict:
    """All of a part's file, what was left out and why among it. Raises: CrystalError as `load`."""
    return _file(part)


def of(frame: pd.DataFrame, subject: str) -> pd.DataFrame:
    """Its rows of one subject. Raises: CrystalError, naming those that were measured, if it is none of them."""
    known(subject, list(frame["subject"].unique()), "rung of the benchmark")
    return frame[frame["subject"] == subject]


def measured(part: str) -> bool:
    """Part "vllm" needs an environment of its own, which not everybody has."""
    return (root() / "data" / "bench" / f"{part}.json").is_file()


def _file(part: str) -> dict:
    path = root() / "data" / "bench" / f"{part}.json"
    if not path.is_file():
        raise CrystalError(f"part {part!r} of the benchmark was not measured", where=path, mend=f"make bench PARTS={part}")
    return load_json(path)


def provenance() -> str:
    """Markdown: with what the parts were measured, what each measures and how long it took, and the peers that were left out."""
    files, alike = {part: _file(part) for part in (*PARTS, *(part for part in OPTIONAL if measured(part)))}, {}
    for part, file in files.items():
        by = file["provenance"]
        how = (f"{by['processor']}, {by['threads']} thread{'s' * (by['threads'] > 1)}, torch {by['torch']}, "
               f"transformers {by['transformers']}, lm-eval {by['lm-eval'] or 'left out'}")
        alike.setdefault(how, []).append(part)
    said = [f"{'All parts' if len(alike) == 1 else ', '.join(parts)}: {how}." for how, parts in alike.items()]
    lines = ["| part | measures | load before, after | seconds |", "|---|---|---|---|"]
    for part, file in files.items():
        load, after = file["provenance"]["load"][0], file["provenance"]["load_after"][0]
        lines.append(f"| {part} | {file['what'].rstrip('.')} | {fmt(load)}, {fmt(after)} | {fmt(file['seconds'])} |")
    out = {peer: why for file in files.values() for peer, why in file["left_out"].items()}
    return "\n\n".join([*said, "\n".join(lines), *(f"`{peer}`: {why}." for peer, why in out.items())])


# --- drawn ------------------------------------------------------------------------------------------------------------


def _by_task(frame: pd.DataFrame, column: str, xlabel: str, styles: Mapping[str, Mapping[str, str]]) -> Figure:
    """A column of `frame`, tasks in rows, a panel a subject; styles: of the contestants that are drawn, in the legend's order."""
    subjects, tasks = frame["subject"].unique(), frame["task"].unique()
    fig, axes = panels(1, len(subjects), 7.2, 0.24 * len(tasks) + 1.2, sharey=True, sharex=True)
    for ax, subject in zip(axes[0], subjects):
        mine = frame[frame["subject"] == subject]
        for name in (name for name in styles if name in set(mine["contestant"])):
            part = mine[mine["contestant"] == name].set_index("task").reindex(tasks)
            ax.plot(part[column], np.arange(len(tasks)), label=name, ls="none", **styles[name])
        ax.set(xscale="log", title=subject)
    middle = len(subjects) // 2
    axes[0, middle].set_xlabel(xlabel, x=0.5 if len(subjects) % 2 else 0.0)
    axes[0, 0].set_yticks(np.arange(len(tasks)), tasks)
    axes[0, 0].invert_yaxis()
    _legend(fig, axes)
    return fig


def plot_peers(frame: pd.DataFrame) -> Figure:
    """`load("peers")`: milliseconds a prompt, tasks in rows, a panel a subject."""
    styles = {name: {"marker": marker, "color": COLOURS[name]} for name, marker in MARKERS.items()}
    styles[QUICK]["mfc"] = "white"
    return _by_task(frame.assign(milliseconds=1000 * frame["prompt_seconds"]), "milliseconds", "milliseconds a prompt", styles)


SCORED = {"option scores": {"marker": "s", "color": "#D55E00"}, "option scores and boundary": {"marker": "o", "color": "#0072B2"},
          "typed choice, options": {"marker": "^", "color": "#CC79A7"},
          "typed choice, letters": {"marker": "v", "color": "#E69F00"}}


def plot_scores(frame: pd.DataFrame) -> Figure:
    """`load("scores")`: total variation from the law, tasks in rows, a panel a subject."""
    return _by_task(frame, "tv", "total variation from the law", SCORED)


GROWTHS = {"options": ("options", "options of the task"), "prompts": ("prompts", "prompts"), "draws": ("draws", "draws a prompt"),
           "length": ("length", "tokens of the prompt"), "size": ("parameters", "parameters")}


def load_growth() -> pd.DataFrame:
    """One row a point: growth (a key of GROWTHS), x, line (contestant, and the task where several are drawn), seconds and tokens
    of a prompt."""
    out = []
    for part, (column, _) in GROWTHS.items():
        frame = load(part)
        out.append(pd.DataFrame({
            "growth": part, "x": frame[column], "contestant": frame["contestant"], "task": frame["task"],
            "line": frame["contestant"] + (", " + frame["task"] if part == "draws" else ""),
            "seconds": frame["prompt_seconds"], "tokens": frame["tokens"] / frame["prompts"]}))
    return pd.concat(out, ignore_index=True)


def plot_growth(frame: pd.DataFrame) -> Figure:
    """`load_growth()`: five panels, both axes logarithmic; where lines are of several tasks, each is named at its end."""
    fig, axes = panels(2, 3, 7.2, 2.7, sharey=True)
    for n, (ax, (part, (_, label))) in enumerate(zip(axes.flat, GROWTHS.items())):
        for line, mine in frame[frame["growth"] == part].groupby("line", sort=False):
            name = mine["contestant"].iloc[0]
            ax.plot(mine["x"], mine["seconds"], marker="o", color=_colour(name), ms=3, ls="--" if "word" in line else "-")
        if part == "draws":
            _name_ends(ax, frame[frame["growth"] == part])
        ax.set(xscale="log", yscale="log", xlabel=label, ylabel="" if n % 3 else "seconds a prompt")
        ax.xaxis.set_minor_formatter("")
    axes.flat[-1].axis("off")
    named = {_family(name): _colour(name) for name in frame["contestant"].unique()}
    for name, colour in named.items():
        axes.flat[-1].plot([], [], "o-", color=colour, label=name)
    axes.flat[-1].legend(loc="center")
    return fig


def _name_ends(ax: Axes, frame: pd.DataFrame) -> None:
    """The tasks of lines at their right ends, those whose ends lie together in one label."""
    ends = frame.groupby("line", sort=False).last().sort_values(["x", "seconds"])
    apart = (ends["x"].ne(ends["x"].shift()) | (ends["seconds"] > 1.4 * ends["seconds"].shift())).cumsum()
    for _, near in ends.groupby(apart):
        ax.annotate(", ".join(near["task"]), (near["x"].iloc[0], np.exp(np.log(near["seconds"]).mean())), (4, 0),
                    textcoords="offset points", va="center", fontsize="x-small", annotation_clip=False)


def _family(name: str) -> str:
    return name if name.startswith("read-out") else name.split(",")[0]


def _colour(name: str) -> str:
    return COLOURS.get(name) or COLOURS[_family(name)]


def plot_error(frame: pd.DataFrame) -> Figure:
    """`load("error")`: seconds a prompt against the error, read-out and samples, a panel a task."""
    tasks = frame["task"].unique()
    fig, axes = panels(1, len(tasks), 7.2, 2.6, sharey=True, sharex=True)
    for ax, task in zip(axes[0], tasks):
        part = frame[frame["task"] == task]
        ax.plot(part["tv"], part["sampling_seconds"] / part["prompts"], "D--", color=COLOURS[SAMPLES], label="samples, computed")
        ax.plot(part["tv"], part["prompt_seconds"], "o-", color=COLOURS[READ], label="read-out")
        ax.set(xscale="log", yscale="log", title=task)
    axes[0, 0].set_ylabel("seconds a prompt")
    axes[0, len(tasks) // 2].set_xlabel("total variation from the law")
    _legend(fig, axes)
    return fig


def _legend(fig: Figure, axes: np.ndarray) -> None:
    """One legend below for all panels, each name once."""
    found = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels())}
    fig.legend(found.values(), found.keys(), loc="outside lower center", ncols=3)


# --- tables -----------------------------------------------------------------------------------------------------------


def memory_table() -> str:
    """Markdown: peak memory above the loaded model."""
    frame = load("memory")
    tasks = frame["task"].unique()
    named = " | ".join(f"{TASKS[task].label.lower()}, MiB" for task in tasks)
    lines = [f"| | {named} | prompts |", "|---|" + "---|" * (len(tasks) + 1)]
    for name, part in frame.groupby("contestant", sort=False):
        by = part.set_index("task")
        lines.append(f"| {name} | " + " | ".join(fmt(by.loc[t, "mebibytes"]) for t in tasks) + f" | {by['prompts'].iloc[0]} |")
    return "\n".join(lines)


def vllm_table() -> str:
    """Markdown: part "vllm", a prompt's milliseconds and tokens; a sentence where it was not measured."""
    if not measured("vllm"):
        return "vLLM was not measured: `CRYSTAL_VLLM=PYTHON make bench PARTS=vllm`, the Python of an environment that has it."
    frame = load("vllm")
    names = list(frame["contestant"].unique())
    head = ["rung", "task", *(f"{name}, {what}" for what in ("ms", "tokens") for name in names)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (subject, task), part in frame.groupby(["subject", "task"], sort=False):
        by = part.set_index("contestant")
        cells = [fmt(1000 * by.loc[name, "prompt_seconds"]) for name in names]
        cells += [fmt(by.loc[name, "tokens"] / by.loc[name, "prompts"]) for name in names]
        lines.append(f"| {subject} | {TASKS[task].label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def vllm_gain() -> tuple[float, float] | None:
    """Least and most over rungs and tasks of the seconds that a thousand samples of vLLM take, over the read-out's; None: not
    measured."""
    if not measured("vllm"):
        return None
    per = load("vllm").pivot_table(index=["subject", "task"], columns="contestant", values="prompt_seconds")
    gain = per[VLLM] / per[READ]
    return float(gain.min()), float(gain.max())


def limits_table(shapes: Sequence[str] = ("llama-3.1-8b", "olmo-2-7b")) -> str:
    """Markdown: the two limits of published shapes, from their configurations."""
    lines = ["| shape | operations a token, GFLOP | weights read a forward in bfloat16, GB |", "|---|---|---|"]
    for name in shapes:
        lines.append(f"| {name} | {fmt(operations(SHAPES[name]) / 1e9)} | {fmt(forward_bytes(SHAPES[name]) / 1e9)} |")
    return "\n".join(lines)


DEVICE = {"cells_a_second": "cells a second", "tokens_a_second": "tokens a second", "tokens_a_cell": "tokens a cell",
          "share_of_ceiling": "share of the matrix product", "share_of_bandwidth": "share of the bandwidth"}


def devices() -> list[dict]:
    """What `scripts/gpu_bench.py` left behind: every data/bench/gpu-*.json."""
    return [load_json(path) for path in sorted((root() / "data" / "bench").glob("gpu-*.json"))]


def device_tables() -> str:
    """Markdown: every device; a sentence where there is none."""
    if not (found := devices()):
        return "No such run is recorded here: the machines this was made on have no GPU."
    grids = [[file["device"], row["shape"], row["dtype"], *(fmt(row[key]) for key in DEVICE)]
             for file in found for row in file["rows"]]
    agree = [[row["ladder"], file["device"], row["dtype"], fmt(row["largest"]), fmt(row["mean"])]
             for file in found for row in file["agreement"]]
    return "\n\n".join([
        show.table(["device", "shape", "dtype", *DEVICE.values()], grids),
        show.table(["ladder", "device", "dtype", "largest difference of an option", "mean"],
                   agree)])
