"""What the read-out costs beside its peers, and how that compares with thresholds set before.

Seconds are medians over runs, and per prompt wherever contestants answered different numbers of
prompts. `subject`: a model and its checkpoint, read in its native form: "nano-llama/base".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from ..errors import known
from ..files import root
from ..texts import load_json
from . import show
from .figures import BLUE, GREY, ORANGE, PURPLE, RED, SKY, legend, panels
from .open_tasks import label_of
from .show import number as fmt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = ("peers", "scores", "generate", "open", "grid", "vllm")
READ, QUICK, HARNESS = "read-out, 0.0001", "read-out, 0.001", "lm-eval"
SAMPLES, VLLM = "generate, 1000 samples", "vLLM, 1000 samples"
LOOKS = {
    READ: {"marker": "o", "color": BLUE},
    QUICK: {"marker": "o", "color": SKY, "mfc": "white"},
    HARNESS: {"marker": "s", "color": RED},
    "option scores": {"marker": "s", "color": RED},
    "option scores and boundary": {"marker": "o", "color": BLUE},
    SAMPLES: {"marker": "D", "color": GREY},
    "typed choice, options": {"marker": "^", "color": PURPLE},
    "typed choice, letters": {"marker": "v", "color": ORANGE},
}
TOLERANCES = {READ: ("fine", "0.0001"), QUICK: ("coarse", "0.001")}  # in names and in words
# Set before the run, from a trial on other weights: a thousand samples over a read-out
FASTER = {"hundred": 60, "month": 100, "rank": 350}
MILLION, OPEN = 3.5, 10.0  # most that a million draws may cost of a thousand; least gain, open text


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
    return load_json(root() / "data/bench" / f"{part}.json", "git checkout -- data/bench")


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


def _by_task(frame: pd.DataFrame, column: str, xlabel: str) -> Figure:
    """A column of `frame`, tasks in rows, a panel a subject."""
    subjects, tasks = frame["subject"].unique(), list(frame["task"].unique())
    height = 0.17 * len(tasks) + 1.4
    fig, axes = panels(1, len(subjects), height, sharey=True, sharex=True)
    for ax, subject in zip(axes[0], subjects, strict=True):
        mine = frame[frame["subject"] == subject]
        for name, look in LOOKS.items():
            part = mine[mine["contestant"] == name]
            if len(part):
                y = part["task"].map(tasks.index)
                ax.plot(part[column], y, label=name, ls="none", **look)
        ax.set(xscale="log", title=subject.replace(" ", "\n"))
    fig.supxlabel(xlabel)
    axes[0, 0].set_yticks(range(len(tasks)), tasks)
    axes[0, 0].invert_yaxis()
    return legend(fig)


def plot_peers(frame: pd.DataFrame) -> Figure:
    """`load("peers")`: milliseconds a prompt, tasks in rows, a panel a subject."""
    frame = frame.assign(milliseconds=1000 * frame["prompt_seconds"])
    return _by_task(frame, "milliseconds", "milliseconds a prompt")


def plot_scores(frame: pd.DataFrame) -> Figure:
    """`load("scores")`: distance from the exact distribution, as `plot_peers`."""
    return _by_task(frame, "tv", "total variation from the exact distribution")


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
    subject: str
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
        return f"{show.fmt(self.number)} ({self.noted})"

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


def bars() -> list[Bar]:
    """Every bar, of every checkpoint it was measured on, in the order of the page."""
    found = []
    for subject, task, rows in _rows("generate"):
        for name, (tolerance, at) in TOLERANCES.items():
            place = f"samples-{task}-{tolerance}", subject, task
            what, pair = f"a thousand samples ÷ read-out at {at}", rows.loc[[SAMPLES, name]]
            found.append(_bar(*place, what, pair, FASTER[task]))
        pair = rows.loc[["tree sampler, 1e6 draws", "tree sampler, 1e3 draws"]]
        place = f"million-{task}", subject, task, "a million draws ÷ a thousand"
        found.append(_bar(*place, pair, MILLION, below=True))
    found += _harness()
    for subject, task, rows in _rows("open"):
        once = ratio(rows.loc["generate, prompt once"], rows.loc["tree sampler"])[0]
        place = f"open-{show.slug(task)}", subject, task, "a thousand open samples ÷ tree sampler"
        pair, noted = rows.loc[["generate", "tree sampler"]], f"; prompt once {fmt(once)}"
        found.append(_bar(*place, pair, OPEN, noted))
    return found


def _bar(
    claim: str,
    subject: str,
    task: str,
    what: str,
    pair: pd.DataFrame,
    threshold: float,
    noted: str = "",
    below: bool = False,
) -> Bar:
    """pair: the rows of the slow and the fast contestant."""
    (_, slow), (_, fast) = pair.iterrows()
    tokens = fmt(slow["tokens"] / fast["tokens"] * fast["prompts"] / slow["prompts"])
    place = claim, subject, task, f"{what}, {label_of(task)}"
    return Bar(*place, *ratio(slow, fast), threshold, f"in tokens {tokens}{noted}", below)


def _rows(part: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(subject, task, a row a contestant)."""
    for place, mine in load(part).groupby(["subject", "task"], sort=False):
        yield *place, mine.drop_duplicates("contestant").set_index("contestant")


def against_harness() -> pd.DataFrame:
    """lm-eval's seconds over the read-out's: `times`, low, high by subject, task and contestant.

    Empty without lm-eval.
    """
    rows = []
    for subject, task, found in _rows("peers"):
        for name in TOLERANCES if HARNESS in found.index else ():
            rows.append((subject, task, name, *ratio(found.loc[HARNESS], found.loc[name])))
    return pd.DataFrame(rows, columns=["subject", "task", "contestant", "times", "low", "high"])


def _harness() -> Iterator[Bar]:
    for (subject, name), mine in against_harness().groupby(["subject", "contestant"], sort=False):
        (tolerance, at), worst = TOLERANCES[name], mine.loc[mine["times"].idxmin()]
        what, task = f"lm-eval ÷ read-out at {at}, the worst task", worst["task"]
        number = worst[["times", "low", "high"]]
        place = f"harness-none-slower-{tolerance}", subject, task, what
        yield Bar(*place, *number, 1.0, label_of(task))
        what = f"tasks on which the read-out at {at} is faster than lm-eval"
        place, faster = (f"harness-most-faster-{tolerance}", subject, "", what), mine["times"] > 1
        number = int(faster.sum()), None, None
        yield Bar(*place, *number, len(mine) // 2 + 1, f"of {len(mine)}")


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
