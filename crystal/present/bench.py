"""What the read-out costs beside its peers, and how that compares with thresholds set before.

Seconds are medians over runs, and per prompt wherever contestants answered different numbers of
prompts. `subject`: a model and its checkpoint, read in its native form: "nano-llama/base".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..errors import known
from ..files import root
from ..texts import load_file
from . import show
from .figures import BLUE, GREY, ORANGE, PURPLE, RED, SKY, legend, name_rows, panels
from .open_tasks import label_of, where
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
    """All of a part's file. Raises: CrystalError as `load`."""
    return load_file(root() / "data/bench" / f"{part}.json", "git checkout -- data/bench")


def of(frame: pd.DataFrame, subject: str) -> pd.DataFrame:
    """Its rows of one subject. Raises: CrystalError for one that was not measured."""
    known(subject, list(frame["subject"].unique()), "checkpoint of the benchmark")
    return frame[frame["subject"] == subject]


def provenance() -> str:
    """MyST: with what the parts were measured, what each measures, and who was left out."""
    rows, alike, out = [], {}, {}
    for part in PARTS:
        file = whole(part)
        by = file["provenance"]
        how = f"{by['processor']}, threads: {by['threads']}, torch {by['torch']}, "
        how += f"transformers {by['transformers']}, lm-eval {by['lm-eval'] or 'left out'}"
        alike.setdefault(how, []).append(part)
        busy = ", ".join(fmt(by[when][0]) for when in ("load", "load_after"))
        rows.append([part, file["what"].rstrip("."), busy, fmt(file["seconds"])])
        out |= file["left_out"]
    measured = (f"{', '.join(of)}: {how}." for how, of in alike.items())
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
        for name, look in LOOKS.items():
            part = where(frame, subject=subject, contestant=name)
            if len(part):
                y = part["task"].map(tasks.index)
                ax.plot(part[column], y, label=name, ls="none", **look)
        ax.set(xscale="log", title=subject.replace("/", "\n"))
    name_rows(axes[0, 0], tasks)
    fig.supxlabel(xlabel)
    return legend(fig)


def plot_peers(frame: pd.DataFrame) -> Figure:
    """`load("peers")`: milliseconds a prompt, tasks in rows, a panel a subject."""
    frame = frame.assign(milliseconds=1000 * frame["prompt_seconds"])
    return _by_task(frame, "milliseconds", "milliseconds a prompt")


def plot_scores(frame: pd.DataFrame) -> Figure:
    """`load("scores")`: distance from the exact distribution, as `plot_peers`."""
    return _by_task(frame, "tv", "total variation from the exact distribution")


def vllm_gain() -> tuple[float, float]:
    """Least and most of a thousand samples of vLLM over a read-out."""
    how = {"index": ["subject", "task"], "columns": "contestant", "values": "prompt_seconds"}
    per = load("vllm").pivot_table(**how)
    gain = per[VLLM] / per[READ]
    return float(gain.min()), float(gain.max())


# -- thresholds


def ratio(slow: pd.Series, fast: pd.Series) -> tuple[float, float, float]:
    """How many times longer a prompt of `slow` takes: by medians, least, most."""
    per = slow["prompts"] / fast["prompts"]
    medians, least, most = ("seconds", "seconds"), ("low", "high"), ("high", "low")
    return tuple(slow[a] / fast[b] / per for a, b in (medians, least, most))


def bars() -> pd.DataFrame:
    """One row per subject and number that has to pass a threshold, in the order of the page.

    what: the claim in words, the same for all subjects; low, high: of the fastest and slowest runs
    of both contestants; required, found: threshold and number in words.
    """
    names = ["claim", "subject", "task", "what", "noted", "number", "low", "high", "side"]
    frame = pd.DataFrame(_bars(), columns=[*names, "threshold"], dtype=object)
    least, number, threshold = frame["side"] == "≥", frame["number"], frame["threshold"]
    frame["holds"] = np.where(least, number >= threshold, number <= threshold)
    frame["verdict"] = np.where(frame["holds"], "holds", "fails")
    frame["required"] = frame["side"] + "\u00a0" + threshold.map("{:g}".format)
    frame["found"] = number.map(show.fmt) + " (" + frame["noted"] + ")"
    return frame


def _bars() -> Iterator[tuple]:
    for subject, task, rows in _rows("generate"):
        place, samples = (subject, task), rows.loc[SAMPLES]
        for name, (tolerance, at) in TOLERANCES.items():
            what = f"a thousand samples ÷ read-out at {at}"
            found = _over(*place, what, samples, rows.loc[name])
            yield f"samples-{task}-{tolerance}", *found, "≥", FASTER[task]
        million, thousand = (rows.loc[f"tree sampler, {n} draws"] for n in ("1e6", "1e3"))
        found = _over(*place, "a million draws ÷ a thousand", million, thousand)
        yield f"million-{task}", *found, "≤", MILLION
    for (subject, name), mine in against_harness().groupby(["subject", "contestant"], sort=False):
        (tolerance, at), worst = TOLERANCES[name], mine.loc[mine["times"].idxmin()]
        what, task = f"lm-eval ÷ read-out at {at}, the worst task", worst["task"]
        found = subject, task, what, label_of(task), *worst[["times", "low", "high"]]
        yield f"harness-none-slower-{tolerance}", *found, "≥", 1.0
        what = f"tasks on which the read-out at {at} is faster than lm-eval"
        faster = int((mine["times"] > 1).sum()), None, None
        found = subject, "", what, f"of {len(mine)}", *faster
        yield f"harness-most-faster-{tolerance}", *found, "≥", len(mine) // 2 + 1
    for subject, task, rows in _rows("open"):
        once, slow, tree = rows.loc[["generate, prompt once", "generate", "tree sampler"]].iloc
        what, more = "a thousand open samples ÷ tree sampler", ratio(once, tree)[0]
        found = _over(subject, task, what, slow, tree, f"; prompt once {fmt(more)}")
        yield f"open-{show.slug(task)}", *found, "≥", OPEN


def _over(subject: str, task: str, what: str, slow: pd.Series, fast: pd.Series, more="") -> tuple:
    tokens = slow["tokens"] / fast["tokens"] * fast["prompts"] / slow["prompts"]
    noted = f"in tokens {fmt(tokens)}{more}"
    return subject, task, f"{what}, {label_of(task)}", noted, *ratio(slow, fast)


def _rows(part: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(subject, task, a row a contestant)."""
    for place, mine in load(part).groupby(["subject", "task"], sort=False):
        yield *place, mine.drop_duplicates("contestant").set_index("contestant")


def against_harness() -> pd.DataFrame:
    """lm-eval's seconds over the read-out's: `times`, low, high; empty without lm-eval."""
    rows = []
    for subject, task, found in _rows("peers"):
        for name in TOLERANCES if HARNESS in found.index else ():
            rows.append((subject, task, name, *ratio(found.loc[HARNESS], found.loc[name])))
    return pd.DataFrame(rows, columns=["subject", "task", "contestant", "times", "low", "high"])


def record(found: pd.DataFrame) -> None:
    """Every bar as a claim of the page."""
    for bar in found.itertuples():
        ladder, checkpoint = bar.subject.split("/")
        numbers = {name: getattr(bar, name) for name in ("number", "low", "high", "threshold")}
        about = {"ladder": ladder, "task": bar.task, "verdict": bar.verdict} | numbers
        sentence = f"{bar.what}: {bar.found}, threshold {bar.required}"
        show.claim(f"{bar.claim}-{checkpoint}", sentence=sentence, **about)


def bars_table(found: pd.DataFrame) -> str:
    """MyST: one row per bar, one column per checkpoint."""
    cells = found.assign(cell="**" + found["verdict"] + "** " + found["found"])
    how = {"aggfunc": "first", "sort": False, "fill_value": "not measured"}
    wide = cells.pivot_table("cell", ["what", "required"], "subject", **how)
    rows = [["measured", "threshold", *wide], ["---"] * (2 + wide.shape[1])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*rows, *wide.reset_index().to_numpy()])


def tally(found: pd.DataFrame) -> str:
    """How many bars hold on each checkpoint, in words."""
    held = found.groupby("subject", sort=False)["holds"].agg(["sum", "size"])
    return ", ".join(f"{held} of {of} hold on {name}" for name, held, of in held.itertuples())
