"""What the read-out costs beside its peers, and how that compares with thresholds set before.

Knows the files under data/bench, loads no model. Seconds are medians over runs, and per prompt
wherever contestants answered different numbers of prompts. `subject`: a model and its checkpoint,
read in its native form, such as "nano-llama base".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.tasks import TASKS
from ..errors import CrystalError, known
from ..files import root
from ..read.costs import SHAPES, forward_bytes, operations
from ..texts import load_json
from . import show
from .figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, legend, panels
from .show import number as fmt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = ("peers", "scores", "generate", "open", "options", "prompts", "draws", "length", "size")
PARTS += ("error", "memory", "grid", "vllm")
READ, QUICK, HARNESS = "read-out, 0.0001", "read-out, 0.001", "lm-eval"
SAMPLES, VLLM = "generate, 1000 samples", "vLLM, 1000 samples"
LABELS, LETTERS = "typed choice, options", "typed choice, letters"
LOOKS = {
    READ: {"marker": "o", "color": BLUE},
    QUICK: {"marker": "o", "color": SKY, "mfc": "white"},
    HARNESS: {"marker": "s", "color": RED},
    SAMPLES: {"marker": "D", "color": GREY},
    LABELS: {"marker": "^", "color": PURPLE},
    LETTERS: {"marker": "v", "color": ORANGE},
}
COLOURS = {name: look["color"] for name, look in LOOKS.items()}
COLOURS |= {"tree sampler": GREEN, "generate": GREY}
SCORED = {"option scores": LOOKS[HARNESS], "option scores and boundary": LOOKS[READ]}
SCORED |= {LABELS: LOOKS[LABELS], LETTERS: LOOKS[LETTERS]}
GROWTHS = {
    "options": ("options", "options of the task"),
    "prompts": ("prompts", "prompts"),
    "draws": ("draws", "draws a prompt"),
    "length": ("length", "tokens of the prompt"),
    "size": ("parameters", "parameters"),
}
FROM_EXACT = "total variation from the exact distribution"
# Set before the run, from a trial on other weights
FASTER = {
    "hundred": 60,
    "month": 100,
    "rank": 350,
}  # times, than a thousand samples, finer tolerance
MILLION, OPEN = 3.5, 10.0  # most that a million draws may cost of a thousand; least gain, open text
TOLERANCES = {READ: "fine", QUICK: "coarse"}


# -- loaded


def load(part: str) -> pd.DataFrame:
    """The rows of one part, with `subject`, and `prompt_seconds` where they are of several prompts.

    Raises: CrystalError if the part is not there.
    """
    frame = pd.DataFrame(whole(part)["rows"])
    if {"model", "checkpoint"} <= {*frame}:
        frame["subject"] = frame["model"] + " " + frame["checkpoint"]
    if {"seconds", "prompts"} <= {*frame}:
        frame["prompt_seconds"] = frame["seconds"] / frame["prompts"]
    return frame


def whole(part: str) -> dict:
    """All of a part's file, what was left out and why among it. Raises: CrystalError as `load`."""
    path = root() / "data" / "bench" / f"{part}.json"
    if not path.is_file():
        what = f"part {part!r} of the benchmark is not there"
        raise CrystalError(what, where=path, hint="git checkout -- data/bench")
    return load_json(path)


def of(frame: pd.DataFrame, subject: str) -> pd.DataFrame:
    """Its rows of one subject. Raises: CrystalError, naming those measured, if it is none."""
    known(subject, list(frame["subject"].unique()), "checkpoint of the benchmark")
    return frame[frame["subject"] == subject]


def provenance() -> str:
    """MyST: with what the parts were measured, what each measures, and who was left out."""
    lines = ["| part | measures | load before, after | seconds |", "|---|---|---|---|"]
    alike, out = {}, {}
    for part in PARTS:
        file = whole(part)
        by, s = file["provenance"], "s" * (file["provenance"]["threads"] > 1)
        how = f"{by['processor']}, {by['threads']} thread{s}, torch {by['torch']}, "
        how += f"transformers {by['transformers']}, lm-eval {by['lm-eval'] or 'left out'}"
        alike.setdefault(how, []).append(part)
        busy = ", ".join(fmt(by[when][0]) for when in ("load", "load_after"))
        lines.append(f"| {part} | {file['what'].rstrip('.')} | {busy} | {fmt(file['seconds'])} |")
        out |= file["left_out"]
    one = len(alike) == 1
    told = [f"{'All parts' if one else ', '.join(of)}: {how}." for how, of in alike.items()]
    absent = (f"`{peer}`: {why}." for peer, why in out.items())
    return "\n\n".join([*told, "\n".join(lines), *absent])


# -- drawn


def _by_task(frame: pd.DataFrame, column: str, xlabel: str, looks: Mapping[str, dict]) -> Figure:
    """A column of `frame`, tasks in rows, a panel a subject. looks: of the contestants drawn."""
    subjects, tasks = frame["subject"].unique(), frame["task"].unique()
    rows = np.arange(len(tasks))
    height = 0.17 * len(tasks) + 1.4
    fig, axes = panels(1, len(subjects), height, sharey=True, sharex=True)
    for ax, subject in zip(axes[0], subjects, strict=True):
        mine = frame[frame["subject"] == subject]
        for name in (name for name in looks if name in set(mine["contestant"])):
            part = mine[mine["contestant"] == name].set_index("task").reindex(tasks)
            ax.plot(part[column], rows, label=name, ls="none", **looks[name])
        ax.set(xscale="log", title=subject.replace(" ", "\n"))
    fig.supxlabel(xlabel)
    axes[0, 0].set_yticks(rows, tasks)
    axes[0, 0].invert_yaxis()
    return legend(fig)


def plot_peers(frame: pd.DataFrame) -> Figure:
    """`load("peers")`: milliseconds a prompt, tasks in rows, a panel a subject."""
    frame = frame.assign(milliseconds=1000 * frame["prompt_seconds"])
    return _by_task(frame, "milliseconds", "milliseconds a prompt", LOOKS)


def plot_scores(frame: pd.DataFrame) -> Figure:
    """`load("scores")`: FROM_EXACT, tasks in rows, a panel a subject."""
    return _by_task(frame, "tv", FROM_EXACT, SCORED)


def load_growth() -> pd.DataFrame:
    """A row a point: growth (of GROWTHS), x, contestant, task, line, a prompt's seconds, tokens."""
    out = []
    for part, (column, _) in GROWTHS.items():
        frame = load(part)
        line = frame["contestant"] + (", " + frame["task"] if part == "draws" else "")
        found = frame.assign(growth=part, x=frame[column], line=line)
        found["seconds"] = frame["prompt_seconds"]
        found["tokens"] = frame["tokens"] / frame["prompts"]
        out.append(found[["growth", "x", "contestant", "task", "line", "seconds", "tokens"]])
    return pd.concat(out, ignore_index=True)


def plot_growth(frame: pd.DataFrame) -> Figure:
    """`load_growth()`: five panels, both axes logarithmic; lines of several tasks are named."""
    fig, axes = panels(3, 2, 1.7, sharey=True)
    *drawn, last = axes.flat
    for ax, (part, (_, named)) in zip(drawn, GROWTHS.items(), strict=True):
        every = frame[frame["growth"] == part]
        for line, mine in every.groupby("line", sort=False):
            colour, style = _colour(mine["contestant"].iloc[0]), "--" if "word" in line else "-"
            ax.plot(mine["x"], mine["seconds"], style, marker="o", ms=3, color=colour)
        if part == "draws":
            _name_ends(ax, every)
        ax.set(xscale="log", yscale="log", xlabel=named)
        ax.xaxis.set_minor_formatter("")
        if part == "size":
            ax.xaxis.set_major_formatter(lambda x, _: f"{x / 1e6:g} M")
    for ax in axes[:, 0]:
        ax.set_ylabel("seconds a prompt")
    last.axis("off")
    for name, colour in {_family(c): _colour(c) for c in frame["contestant"].unique()}.items():
        last.plot([], [], "o-", color=colour, label=name)
    last.legend(loc="center")
    return fig


def _name_ends(ax: Axes, frame: pd.DataFrame) -> None:
    """The tasks of lines at their right ends; ends that lie together share a label."""
    ends = frame.groupby("line", sort=False).last().sort_values(["x", "seconds"])
    x, y = ends["x"], ends["seconds"]
    apart = (x.ne(x.shift()) | (y > 2 * y.shift())).cumsum()
    how = {"textcoords": "offset points", "va": "center"}
    for _, near in ends.groupby(apart):
        at = near["x"].iloc[0], np.exp(np.log(near["seconds"]).mean())
        ax.annotate(", ".join(near["task"]), at, (4, 0), annotation_clip=False, **how)


def _family(name: str) -> str:
    return name if name.startswith("read-out") else name.split(",")[0]


def _colour(name: str) -> str:
    return COLOURS.get(name) or COLOURS[_family(name)]


def plot_error(frame: pd.DataFrame) -> Figure:
    """`load("error")`: seconds a prompt against the error, read-out and samples, a panel a task."""
    tasks = frame["task"].unique()
    fig, axes = panels(1, len(tasks), 2.4, sharey=True, sharex=True)
    for ax, task in zip(axes[0], tasks, strict=True):
        part = frame[frame["task"] == task]
        sampled = part["sampling_seconds"] / part["prompts"]
        ax.plot(part["tv"], sampled, "D--", color=COLOURS[SAMPLES], label="samples, computed")
        ax.plot(part["tv"], part["prompt_seconds"], "o-", color=COLOURS[READ], label="read-out")
        ax.set(xscale="log", yscale="log", title=task)
        ax.tick_params("x", rotation=90)
    axes[0, 0].set_ylabel("seconds a prompt")
    fig.supxlabel(FROM_EXACT)
    return legend(fig)


# -- tables


def memory_table() -> str:
    """Peak memory above the loaded model."""
    frame, lines = load("memory"), []
    tasks = frame["task"].unique()
    for name, part in frame.groupby("contestant", sort=False):
        peaks = part.set_index("task").loc[tasks, "mebibytes"]
        lines.append([name, *map(fmt, peaks), part["prompts"].iloc[0]])
    named = (f"{TASKS[task].label.lower()}, MiB" for task in tasks)
    return show.table(["", *named, "prompts"], lines)


def vllm_table() -> str:
    """Part "vllm": a prompt's milliseconds and tokens."""
    frame, lines = load("vllm"), []
    names = list(frame["contestant"].unique())
    frame["ms"] = 1000 * frame["prompt_seconds"]
    frame["each"] = frame["tokens"] / frame["prompts"]
    for (subject, task), part in frame.groupby(["subject", "task"], sort=False):
        by = part.set_index("contestant").loc[names]
        lines.append([subject, TASKS[task].label, *map(fmt, [*by["ms"], *by["each"]])])
    head = [f"{name}, {what}" for what in ("ms", "tokens") for name in names]
    return show.table(["checkpoint", "task", *head], lines)


def vllm_gain() -> tuple[float, float]:
    """Least and most, over checkpoints and tasks, of vLLM's seconds for a thousand samples over
    ours.
    """
    places = {"index": ["subject", "task"], "columns": "contestant"}
    per = load("vllm").pivot_table(**places, values="prompt_seconds")
    gain = per[VLLM] / per[READ]
    return float(gain.min()), float(gain.max())


def limits_table() -> str:
    """The two limits of published shapes, from their configurations."""
    head = ["shape", "operations a token, GFLOP", "weights read a forward in bfloat16, GB"]
    lines = ([n, fmt(operations(s) / 1e9), fmt(forward_bytes(s) / 1e9)] for n, s in SHAPES.items())
    return show.table(head, lines)


# -- thresholds


@dataclass(frozen=True)
class Bar:
    """A measured number that has to be at least its threshold, or at most (`below`)."""

    claim: str
    subject: str  # a model and its checkpoint
    task: str
    what: str  # the claim in words, the same for all subjects
    number: float
    low: float | None  # from the fastest and slowest runs of both contestants
    high: float | None
    threshold: float
    noted: str  # what else was seen on this one
    below: bool = False

    @property
    def holds(self) -> bool:
        return bool(self.number <= self.threshold if self.below else self.number >= self.threshold)

    @property
    def verdict(self) -> str:
        return "holds" if self.holds else "fails"

    @property
    def required(self) -> str:
        return f"{'≤' if self.below else '≥'}\u00a0{self.threshold:g}"

    @property
    def found(self) -> str:
        number = self.number if isinstance(self.number, int) else fmt(self.number)
        return f"{number} ({self.noted})"

    def fields(self) -> dict:
        """Arguments of `show.claim`."""
        ladder, checkpoint = self.subject.split()
        said = f"{self.what}: {self.found}, threshold {self.required}"
        numbers = {
            "number": self.number,
            "low": self.low,
            "high": self.high,
            "threshold": self.threshold,
        }
        about = {"name": f"{self.claim}-{checkpoint}", "ladder": ladder, "task": self.task}
        return about | {"verdict": self.verdict, "sentence": said} | numbers


def ratio(slow: pd.Series, fast: pd.Series) -> tuple[float, float, float]:
    """How many times longer a prompt of `slow` takes: by medians, least, most."""
    per = slow["prompts"] / fast["prompts"]
    medians, least, most = ("seconds", "seconds"), ("low", "high"), ("high", "low")
    return tuple(slow[a] / fast[b] / per for a, b in (medians, least, most))


def _tokens(slow: pd.Series, fast: pd.Series) -> str:
    times = slow["tokens"] / fast["tokens"] * fast["prompts"] / slow["prompts"]
    return f"in tokens {fmt(times)}"


def bars() -> list[Bar]:
    """Every bar, of every checkpoint it was measured on, in the order of the page."""
    samples, million, opened = [], [], []
    for subject, task, rows in _rows("generate"):
        named, slow = TASKS[task].label.lower(), rows.loc[SAMPLES]
        for name, tolerance in TOLERANCES.items():
            what = f"a thousand samples ÷ read-out at {_tolerance(name)}, {named}"
            place, fast = (f"samples-{task}-{tolerance}", subject, task, what), rows.loc[name]
            samples.append(Bar(*place, *ratio(slow, fast), FASTER[task], _tokens(slow, fast)))
        many, few = (rows.loc[f"tree sampler, {n} draws"] for n in ("1e6", "1e3"))
        place = f"million-{task}", subject, task, f"a million draws ÷ a thousand, {named}"
        million.append(Bar(*place, *ratio(many, few), MILLION, _tokens(many, few), below=True))
    for subject, task, rows in _rows("open"):
        tree, slow = rows.loc["tree sampler"], rows.loc["generate"]
        noted = f"{_tokens(slow, tree)}; prompt once "
        noted += fmt(ratio(rows.loc["generate, prompt once"], tree)[0])
        what = f"a thousand open samples ÷ tree sampler, {TASKS[task].label.lower()}"
        place = f"open-{task.replace('_', '-')}", subject, task, what
        opened.append(Bar(*place, *ratio(slow, tree), OPEN, noted))
    return [*samples, *_harness(), *million, *opened]


def _rows(part: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(subject, task, a row a contestant)."""
    for place, mine in load(part).groupby(["subject", "task"], sort=False):
        yield *place, mine.drop_duplicates("contestant").set_index("contestant")


def _tolerance(contestant: str) -> str:
    return contestant.split(", ")[1]


def against_harness() -> pd.DataFrame:
    """lm-eval over the read-out, seconds (`times`) and tokens: a row per subject, task and
    tolerance.

    Empty without lm-eval.
    """
    rows = []
    for subject, task, found in _rows("peers"):
        for name in TOLERANCES if HARNESS in found.index else ():
            times, low, high = ratio(found.loc[HARNESS], found.loc[name])
            row = {"subject": subject, "task": task, "contestant": name, "times": times}
            tokens = found.loc[HARNESS, "tokens"] / found.loc[name, "tokens"]
            rows.append(row | {"low": low, "high": high, "tokens": tokens})
    return pd.DataFrame(rows)


def _harness() -> list[Bar]:
    out: list[Bar] = []
    frame = against_harness()
    each = frame.groupby(["subject", "contestant"], sort=False) if len(frame) else ()
    for (subject, name), mine in each:
        tolerance, at, worst = TOLERANCES[name], _tolerance(name), mine.loc[mine["times"].idxmin()]
        what = f"lm-eval ÷ read-out at {at}, the worst task"
        place = f"harness-none-slower-{tolerance}", subject, worst["task"], what
        number = worst[["times", "low", "high"]]
        out.append(Bar(*place, *number, 1.0, TASKS[worst["task"]].label.lower()))
        what = f"tasks on which the read-out at {at} is faster than lm-eval"
        place = f"harness-most-faster-{tolerance}", subject, "", what
        faster = int((mine["times"] > 1).sum())
        out.append(Bar(*place, faster, None, None, len(mine) // 2 + 1, f"of {len(mine)}"))
    return out


def bars_table(found: Sequence[Bar]) -> str:
    """MyST: one row per bar, one column per checkpoint."""
    subjects = list(dict.fromkeys(bar.subject for bar in found))
    cells = {(bar.what, bar.subject): f"**{bar.verdict}** {bar.found}" for bar in found}
    rows = [["measured", "threshold", *subjects], ["---"] * (2 + len(subjects))]
    for what, threshold in dict.fromkeys((bar.what, bar.required) for bar in found):
        rows.append([what, threshold, *(cells.get((what, s), "not measured") for s in subjects)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def tally(found: Sequence[Bar]) -> str:
    """How many bars hold on each checkpoint, in words."""
    held: dict[str, list[bool]] = {}
    for bar in found:
        held.setdefault(bar.subject, []).append(bar.holds)
    return ", ".join(f"{sum(holds)} of {len(holds)} hold on {s}" for s, holds in held.items())
