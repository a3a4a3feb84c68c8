"""What the read-out costs beside its peers, and how that compares with thresholds set before.

Knows the files under data/bench, loads no model. Seconds are medians over runs, and per prompt
wherever contestants answered different numbers of prompts. `subject`: a model and its checkpoint,
read in its native form, such as "nano-llama/base".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ask.tasks import TASKS
from ..errors import known
from ..files import root
from ..texts import load_file
from . import show
from .figures import BLUE, GREY, ORANGE, PURPLE, RED, SKY, legend, panels
from .show import number as fmt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = ("peers", "scores", "generate", "open", "grid", "vllm")
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
SCORED = {"option scores": LOOKS[HARNESS], "option scores and boundary": LOOKS[READ]}
SCORED |= {LABELS: LOOKS[LABELS], LETTERS: LOOKS[LETTERS]}
FROM_EXACT = "total variation from the exact distribution"
# Set before the run, from a trial on other weights: a thousand samples over a read-out
FASTER = {"hundred": 60, "month": 100, "rank": 350}
MILLION, OPEN = 3.5, 10.0  # most that a million draws may cost of a thousand; least gain, open text
TOLERANCES = {READ: "fine", QUICK: "coarse"}


# -- loaded


def load(part: str) -> pd.DataFrame:
    """The rows of one part, with `subject`, and `prompt_seconds` where they are of several prompts.

    Raises: CrystalError if the part is not there.
    """
    frame = pd.DataFrame(whole(part)["rows"])
    if {"model", "checkpoint"} <= {*frame}:
        frame["subject"] = frame["model"] + "/" + frame["checkpoint"]
    if {"seconds", "prompts"} <= {*frame}:
        frame["prompt_seconds"] = frame["seconds"] / frame["prompts"]
    return frame


def whole(part: str) -> dict:
    """All of a part's file, what was left out and why among it. Raises: CrystalError as `load`."""
    return load_file(root() / "data/bench" / f"{part}.json", "git checkout -- data/bench")


def of(frame: pd.DataFrame, subject: str) -> pd.DataFrame:
    """Its rows of one subject. Raises: CrystalError, naming those measured, if it is none."""
    known(subject, list(frame["subject"].unique()), "checkpoint of the benchmark")
    return frame[frame["subject"] == subject]


def provenance() -> str:
    """MyST: with what the parts were measured, what each measures, and who was left out."""
    rows, alike, out = [], {}, {}
    for part in PARTS:
        file = whole(part)
        by, s = file["provenance"], "s" * (file["provenance"]["threads"] > 1)
        how = f"{by['processor']}, {by['threads']} thread{s}, torch {by['torch']}, "
        how += f"transformers {by['transformers']}, lm-eval {by['lm-eval'] or 'left out'}"
        alike.setdefault(how, []).append(part)
        busy = ", ".join(fmt(by[when][0]) for when in ("load", "load_after"))
        rows.append([part, file["what"].rstrip("."), busy, fmt(file["seconds"])])
        out |= file["left_out"]
    one = len(alike) == 1
    measured = (f"{'All parts' if one else ', '.join(of)}: {how}." for how, of in alike.items())
    absent = (f"`{peer}`: {why}." for peer, why in out.items())
    table = show.table(["part", "measures", "load before, after", "seconds"], rows)
    return "\n\n".join([*measured, table, *absent])


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


def vllm_gain() -> tuple[float, float]:
    """Least and most, over checkpoints and tasks: a thousand samples of vLLM over a read-out."""
    how = {"index": ["subject", "task"], "columns": "contestant", "values": "prompt_seconds"}
    per = load("vllm").pivot_table(**how)
    gain = per[VLLM] / per[READ]
    return float(gain.min()), float(gain.max())


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
        ladder, checkpoint = self.subject.split("/")
        sentence = f"{self.what}: {self.found}, threshold {self.required}"
        about = {"name": f"{self.claim}-{checkpoint}", "ladder": ladder, "task": self.task}
        about |= {"verdict": self.verdict, "sentence": sentence}
        return about | {n: getattr(self, n) for n in ("number", "low", "high", "threshold")}


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
    """lm-eval's seconds over the read-out's: `times`, low, high by subject, task and contestant.

    Empty without lm-eval.
    """
    rows = []
    for subject, task, found in _rows("peers"):
        for name in TOLERANCES if HARNESS in found.index else ():
            times, low, high = ratio(found.loc[HARNESS], found.loc[name])
            row = {"subject": subject, "task": task, "contestant": name}
            rows.append(row | {"times": times, "low": low, "high": high})
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
