"""What the read-out costs beside its peers, as `make bench` measured it: loaded, judged, drawn.

Pairs as in `crystal.present.figures`. Knows the files under data/bench and nothing of how they came about; loads no torch.
Seconds are medians over runs, and per prompt wherever contestants answered different numbers of prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.ladders import load_ladder
from ..ask.tasks import TASKS
from ..errors import CrystalError
from ..files import root
from ..read.shapes import SHAPES, forward_bytes, operations
from .figures import panels
from .telling import fmt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = ("peers", "scores", "generate", "open", "options", "prompts", "draws", "length", "size", "error", "memory",
         "grid")
READ, QUICK, HARNESS, SAMPLES = "read-out, 0.0001", "read-out, 0.001", "lm-eval", "generate, 1000 samples"
COLOURS = {READ: "#0072B2", QUICK: "#56B4E9", HARNESS: "#D55E00", SAMPLES: "#767c85", "typed choice, options": "#CC79A7",
           "typed choice, letters": "#E69F00", "tree sampler": "#009E73", "generate": "#767c85"}
MARKERS = {READ: "o", QUICK: "o", HARNESS: "s", SAMPLES: "D", "typed choice, options": "^", "typed choice, letters": "v"}
# Set before the run, from a trial on other weights: times faster than a thousand samples, at the finer budget
FASTER = {"hundred": 60, "month": 100, "rank": 350}
MILLION, OPEN = 3.5, 10.0  # most that a million draws may cost of a thousand; least gain on open text


def load(part: str) -> pd.DataFrame:
    """The rows of one part as they were written, with `prompt_seconds` where seconds are of several prompts.

    Raises: CrystalError if the part was never measured.
    """
    frame = pd.DataFrame(_file(part)["rows"])
    return frame.assign(prompt_seconds=frame["seconds"] / frame["prompts"]) if {"seconds", "prompts"} <= {*frame} else frame


def _file(part: str) -> dict:
    path = root() / "data" / "bench" / f"{part}.json"
    if not path.is_file():
        raise CrystalError(f"part {part!r} of the benchmark was not measured", where=path, mend=f"make bench PARTS={part}")
    return json.loads(path.read_text(encoding="utf-8"))


def provenance() -> str:
    """Markdown: where and with what every part was measured, and the peers that were left out."""
    lines = ["| part | measures | processor | threads | load before, after | torch | transformers | lm-eval | seconds |",
             "|---|---|---|---|---|---|---|---|---|"]
    for part in PARTS:
        file = _file(part)
        by = file["provenance"]
        now = f"{fmt(by['load'][0])}, {fmt(by['load_after'][0])}"
        lines.append(f"| {part} | {file['what'].rstrip('.')} | {by['processor']} | {by['threads']} | {now} | {by['torch']} | "
                     f"{by['transformers']} | {by['lm-eval'] or 'left out'} | {fmt(file['seconds'])} |")
    out = {peer: why for part in PARTS for peer, why in _file(part)["left_out"].items()}
    return "\n".join(lines) + "".join(f"\n\n`{peer}`: {why}." for peer, why in out.items())


# --- judged -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """A measured number against the mark it has to beat; low, high: from the fastest and slowest runs of both."""

    claim: str
    ladder: str
    task: str
    number: float
    low: float | None
    high: float | None
    mark: float
    holds: bool
    sentence: str

    def fields(self) -> dict:
        """For `show.claim`."""
        return {"ladder": self.ladder, "task": self.task, "verdict": "holds" if self.holds else "fails", "number": self.number,
                "low": self.low, "high": self.high, "mark": self.mark, "sentence": self.sentence}


def ratio(slow: pd.Series, fast: pd.Series) -> tuple[float, float, float]:
    """How many times longer a prompt of `slow` takes: by medians, least, most."""
    per = slow["prompts"] / fast["prompts"]
    return (slow["seconds"] / fast["seconds"] / per, slow["low"] / fast["high"] / per, slow["high"] / fast["low"] / per)


def token_ratio(slow: pd.Series, fast: pd.Series) -> float:
    """How many times the tokens a prompt of `slow` takes."""
    return slow["tokens"] / fast["tokens"] * fast["prompts"] / slow["prompts"]


def bars() -> list[Bar]:
    """Every bar that this benchmark was given, in the order of the page."""
    return [*_samples(), *_harness(), *_million(), *_open()]


def _rows(frame: pd.DataFrame, *by: str):
    for key, part in frame.groupby(list(by), sort=False):
        yield (*key, part.drop_duplicates("contestant").set_index("contestant"))


def _label(task: str) -> str:
    return TASKS[task].label.lower()


def _at(contestant: str) -> str:
    return f"unresolved at most {contestant.split(', ')[1]}"


def _samples() -> list[Bar]:
    out = []
    for model, task, rows in _rows(load("generate"), "model", "task"):
        for name, budget in ((READ, "fine"), (QUICK, "coarse")):
            times, low, high = ratio(rows.loc[SAMPLES], rows.loc[name])
            tokens = token_ratio(rows.loc[SAMPLES], rows.loc[name])
            out.append(Bar(
                f"samples-{task}-{budget}", model, task, times, low, high, FASTER[task], times >= FASTER[task],
                f"{_label(task)}, {_at(name)}: {fmt(times)} times faster than a thousand samples of `generate`, "
                f"mark {FASTER[task]}; {fmt(tokens)} times fewer tokens"))
    return out


def against_harness() -> pd.DataFrame:
    """One row per model, task and budget: lm-eval's seconds over the read-out's (`times`), and tokens; empty without lm-eval."""
    rows = []
    for model, task, found in _rows(load("peers"), "model", "task"):
        if HARNESS in found.index:
            for name in (READ, QUICK):
                times, low, high = ratio(found.loc[HARNESS], found.loc[name])
                rows.append({"model": model, "task": task, "contestant": name, "times": times, "low": low, "high": high,
                             "tokens": found.loc[HARNESS, "tokens"] / found.loc[name, "tokens"]})
    return pd.DataFrame(rows)


def _harness() -> list[Bar]:
    frame, out = against_harness(), []
    for (model, name), part in frame.groupby(["model", "contestant"], sort=False) if len(frame) else ():
        budget = "fine" if name == READ else "coarse"
        worst, faster = part.loc[part["times"].idxmin()], int((part["times"] > 1).sum())
        none, most = f"harness-none-slower-{budget}", f"harness-most-faster-{budget}"
        out.append(Bar(
            none, model, worst["task"], worst["times"], worst["low"], worst["high"], 1.0, worst["times"] >= 1,
            f"{_at(name)}: lm-eval takes {fmt(worst['times'])} times as long at worst ({_label(worst['task'])}), mark 1"))
        out.append(Bar(most, model, "", faster, None, None, len(part) / 2, faster > len(part) / 2,
                       f"{_at(name)}: faster than lm-eval on {faster} of {len(part)} tasks"))
    return out


def _million() -> list[Bar]:
    out = []
    for model, task, rows in _rows(load("generate"), "model", "task"):
        many, few = rows.loc["tree sampler, 1e6 draws"], rows.loc["tree sampler, 1e3 draws"]
        times, low, high = ratio(many, few)
        tokens = token_ratio(many, few)
        out.append(Bar(f"million-{task}", model, task, times, low, high, MILLION, times <= MILLION,
                       f"{_label(task)}: a million draws take {fmt(times)} times as long as a thousand, mark {MILLION}; "
                       f"{fmt(tokens)} times the tokens"))
    return out


def _open() -> list[Bar]:
    out = []
    for model, task, rows in _rows(load("open"), "model", "task"):
        times, low, high = ratio(rows.loc["generate"], rows.loc["tree sampler"])
        fair = ratio(rows.loc["generate, prompt once"], rows.loc["tree sampler"])[0]
        out.append(Bar(f"open-{task.replace('_', '-')}", model, task, times, low, high, OPEN, times >= OPEN,
                       f"{_label(task)}, a thousand open answers: {fmt(times)} times faster than `generate`, "
                       f"{fmt(fair)} times where that computes the prompt only once, mark {OPEN:g}"))
    return out


# --- drawn ------------------------------------------------------------------------------------------------------------


def _title(model: str) -> str:
    return load_ladder(model).title


def _by_task(frame: pd.DataFrame, column: str, xlabel: str, styles: Mapping[str, Mapping[str, str]]) -> Figure:
    """A column of `frame`, tasks in rows, a panel a model; styles: of the contestants that are drawn, in the legend's order."""
    models, tasks = frame["model"].unique(), frame["task"].unique()
    fig, axes = panels(1, len(models), 7.2, 0.24 * len(tasks) + 1.2, sharey=True, sharex=True)
    for ax, model in zip(axes[0], models):
        mine = frame[frame["model"] == model]
        for name in (name for name in styles if name in set(mine["contestant"])):
            part = mine[mine["contestant"] == name].set_index("task").reindex(tasks)
            ax.plot(part[column], np.arange(len(tasks)), label=name, ls="none", **styles[name])
        ax.set(xscale="log", xlabel=xlabel, title=_title(model))
    axes[0, 0].set_yticks(np.arange(len(tasks)), tasks)
    axes[0, 0].invert_yaxis()
    _legend(fig, axes)
    return fig


def plot_peers(frame: pd.DataFrame) -> Figure:
    """`load("peers")`: milliseconds a prompt, tasks in rows, a panel a model."""
    styles = {name: {"marker": marker, "color": COLOURS[name]} for name, marker in MARKERS.items()}
    styles[QUICK]["mfc"] = "white"
    return _by_task(frame.assign(milliseconds=1000 * frame["prompt_seconds"]), "milliseconds", "milliseconds a prompt", styles)


SCORED = {"option scores": {"marker": "s", "color": "#D55E00"}, "option scores and boundary": {"marker": "o", "color": "#0072B2"},
          "typed choice, options": {"marker": "^", "color": "#CC79A7"},
          "typed choice, letters": {"marker": "v", "color": "#E69F00"}}


def plot_scores(frame: pd.DataFrame) -> Figure:
    """`load("scores")`: total variation from the law, tasks in rows, a panel a model."""
    return _by_task(frame, "tv", "total variation from the law", SCORED)


GROWTHS = {"options": ("options", "options of the task"), "prompts": ("prompts", "prompts"), "draws": ("draws", "draws a prompt"),
           "length": ("length", "tokens of the prompt"), "size": ("parameters", "parameters")}


def load_growth() -> pd.DataFrame:
    """One row a point: growth (a key of GROWTHS), x, line (contestant, and the task where several are drawn), seconds, tokens.

    Seconds and tokens are a prompt's, but for the growth with prompts, where they are of all.
    """
    out = []
    for part, (column, _) in GROWTHS.items():
        frame = load(part)
        whole = part == "prompts"
        several = part == "draws"
        out.append(pd.DataFrame({
            "growth": part, "x": frame[column], "contestant": frame["contestant"], "task": frame["task"],
            "line": frame["contestant"] + (", " + frame["task"] if several else ""),
            "seconds": frame["seconds"] if whole else frame["prompt_seconds"],
            "tokens": frame["tokens"] / (1 if whole else frame["prompts"])}))
    return pd.concat(out, ignore_index=True)


def plot_growth(frame: pd.DataFrame) -> Figure:
    """`load_growth()`: five panels, both axes logarithmic."""
    fig, axes = panels(2, 3, 7.2, 2.7)
    for ax, (part, (_, label)) in zip(axes.flat, GROWTHS.items()):
        for line, mine in frame[frame["growth"] == part].groupby("line", sort=False):
            name = mine["contestant"].iloc[0]
            ax.plot(mine["x"], mine["seconds"], marker="o", color=_colour(name), ms=3, ls="--" if "word" in line else "-")
        ax.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds" if part == "prompts" else "seconds a prompt")
        ax.xaxis.set_minor_formatter("")
    axes.flat[-1].axis("off")
    named = {_family(name): _colour(name) for name in frame["contestant"].unique()}
    for name, colour in named.items():
        axes.flat[-1].plot([], [], "o-", color=colour, label=name)
    axes.flat[-1].legend(loc="center")
    return fig


def _family(name: str) -> str:
    return name if name.startswith("read-out") else name.split(",")[0]


def _colour(name: str) -> str:
    return COLOURS.get(name) or COLOURS[_family(name)]


def plot_error(frame: pd.DataFrame) -> Figure:
    """`load("error")`: seconds a prompt against the error, read-out and samples, one colour a task."""
    fig, axes = panels(1, 1, 7.2, 3.6)
    ax: Axes = axes[0, 0]
    for n, (task, part) in enumerate(frame.groupby("task", sort=False)):
        ax.plot(part["tv"], part["prompt_seconds"], "o-", color=f"C{n}", label=f"{task}, read-out")
        sampled = part["sampling_seconds"] / part["prompts"]
        ax.plot(part["tv"], sampled, "o--", mfc="white", color=f"C{n}", label=f"{task}, samples")
    ax.set(xscale="log", yscale="log", xlabel="total variation from the law", ylabel="seconds a prompt")
    ax.invert_xaxis()
    ax.legend(ncols=2)
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
    lines = ["| | " + " | ".join(f"{_label(t)}, MiB" for t in tasks) + " | prompts |", "|---|" + "---|" * (len(tasks) + 1)]
    for name, part in frame.groupby("contestant", sort=False):
        by = part.set_index("task")
        lines.append(f"| {name} | " + " | ".join(fmt(by.loc[t, "mebibytes"]) for t in tasks) + f" | {by['prompts'].iloc[0]} |")
    return "\n".join(lines)


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
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((root() / "data" / "bench").glob("gpu-*.json"))]


def device_tables() -> str:
    """Markdown: every device; a sentence where there is none."""
    if not (found := devices()):
        return "No such run is recorded here: the machines this was made on have no GPU."
    lines = ["| device | shape | dtype | " + " | ".join(DEVICE.values()) + " |", "|---|---|---|" + "---|" * len(DEVICE)]
    for file in found:
        lines += [f"| {file['device']} | {row['shape']} | {row['dtype']} | " + " | ".join(fmt(row[key]) for key in DEVICE) + " |"
                  for row in file["rows"]]
    lines += ["", "| ladder | device | dtype | largest difference of an option | mean |", "|---|---|---|---|---|"]
    for file in found:
        lines += [f"| {row['ladder']} | {file['device']} | {row['dtype']} | {fmt(row['largest'])} | {fmt(row['mean'])} |"
                  for row in file["agreement"]]
    return "\n".join(lines)
