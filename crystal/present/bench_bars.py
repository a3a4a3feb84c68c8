"""The bars that the benchmark was given, held against what `make bench` measured.

Knows marks and ratios; the rows come from `crystal.present.bench_figures`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from ..ask.tasks import TASKS
from .bench_figures import HARNESS, QUICK, READ, SAMPLES, load
from .telling import fmt

# Set before the run, from a trial on other weights: times faster than a thousand samples, at the finer budget
FASTER = {"hundred": 60, "month": 100, "rank": 350}
MILLION, OPEN = 3.5, 10.0  # most that a million draws may cost of a thousand; least gain on open text


@dataclass(frozen=True)
class Bar:
    """A measured number that has to be at least, or at most (`below`), its mark; low, high: from the fastest and slowest runs
    of both contestants. subject: a model and its rung; what: the claim in words, the same for all of them; noted: what else
    was seen on this one."""

    claim: str
    subject: str
    task: str
    what: str
    number: float
    low: float | None
    high: float | None
    mark: float
    noted: str
    below: bool = False

    @property
    def holds(self) -> bool:
        return bool(self.number <= self.mark if self.below else self.number >= self.mark)

    @property
    def verdict(self) -> str:
        return "holds" if self.holds else "fails"

    @property
    def marked(self) -> str:
        return f"{'≤' if self.below else '≥'}\u00a0{self.mark:g}"

    @property
    def found(self) -> str:
        return f"{self.number if isinstance(self.number, int) else fmt(self.number)} ({self.noted})"

    def fields(self) -> dict:
        """Arguments of `show.claim`."""
        ladder, rung = self.subject.split()
        return {"name": f"{self.claim}-{rung}", "ladder": ladder, "task": self.task, "verdict": self.verdict,
                "number": self.number, "low": self.low, "high": self.high, "mark": self.mark,
                "sentence": f"{self.what}: {self.found}, mark {self.marked}"}


def ratio(slow: pd.Series, fast: pd.Series) -> tuple[float, float, float]:
    """How many times longer a prompt of `slow` takes: by medians, least, most."""
    per = slow["prompts"] / fast["prompts"]
    return (slow["seconds"] / fast["seconds"] / per, slow["low"] / fast["high"] / per, slow["high"] / fast["low"] / per)


def token_ratio(slow: pd.Series, fast: pd.Series) -> float:
    """How many times the tokens a prompt of `slow` takes."""
    return slow["tokens"] / fast["tokens"] * fast["prompts"] / slow["prompts"]


def bars() -> list[Bar]:
    """Every bar, of every rung it was measured on, in the order of the page."""
    return [*_samples(), *_harness(), *_million(), *_open()]


def table(found: Sequence[Bar]) -> str:
    """Markdown: one row per bar, one column per rung."""
    subjects, whats = (list(dict.fromkeys(getattr(bar, name) for bar in found)) for name in ("subject", "what"))
    cells = {(bar.what, bar.subject): f"**{bar.verdict}** {bar.found}" for bar in found}
    rows = [["measured", "mark", *subjects], ["---"] * (2 + len(subjects))]
    for what in whats:
        mark = next(bar.marked for bar in found if bar.what == what)
        rows.append([what, mark, *(cells.get((what, subject), "not measured") for subject in subjects)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def tally(found: Sequence[Bar]) -> str:
    """How many bars hold on each rung, in words."""
    held: dict[str, list[bool]] = {}
    for bar in found:
        held.setdefault(bar.subject, []).append(bar.holds)
    return ", ".join(f"{sum(holds)} of {len(holds)} hold on {subject}" for subject, holds in held.items())


def _rows(frame: pd.DataFrame, *by: str) -> Iterator[tuple]:
    for key, part in frame.groupby(list(by), sort=False):
        yield (*key, part.drop_duplicates("contestant").set_index("contestant"))


def _label(task: str) -> str:
    return TASKS[task].label.lower()


def _budget(contestant: str) -> str:
    return contestant.split(", ")[1]


def _samples() -> list[Bar]:
    out = []
    for subject, task, rows in _rows(load("generate"), "subject", "task"):
        for name, budget in ((READ, "fine"), (QUICK, "coarse")):
            slow, fast = rows.loc[SAMPLES], rows.loc[name]
            out.append(Bar(f"samples-{task}-{budget}", subject, task,
                           f"a thousand samples ÷ read-out at {_budget(name)}, {_label(task)}",
                           *ratio(slow, fast), FASTER[task], f"in tokens {fmt(token_ratio(slow, fast))}"))
    return out


def against_harness() -> pd.DataFrame:
    """One row per subject, task and budget: lm-eval's seconds over the read-out's (`times`), tokens; empty without lm-eval."""
    rows = []
    for subject, task, found in _rows(load("peers"), "subject", "task"):
        if HARNESS in found.index:
            for name in (READ, QUICK):
                times, low, high = ratio(found.loc[HARNESS], found.loc[name])
                rows.append({"subject": subject, "task": task, "contestant": name, "times": times, "low": low, "high": high,
                             "tokens": found.loc[HARNESS, "tokens"] / found.loc[name, "tokens"]})
    return pd.DataFrame(rows)


def _harness() -> list[Bar]:
    frame, out = against_harness(), []
    for (subject, name), part in frame.groupby(["subject", "contestant"], sort=False) if len(frame) else ():
        budget = "fine" if name == READ else "coarse"
        worst, faster = part.loc[part["times"].idxmin()], int((part["times"] > 1).sum())
        out.append(Bar(f"harness-none-slower-{budget}", subject, worst["task"],
                       f"lm-eval ÷ read-out at {_budget(name)}, the worst task",
                       worst["times"], worst["low"], worst["high"], 1.0, _label(worst["task"])))
        out.append(Bar(f"harness-most-faster-{budget}", subject, "",
                       f"tasks on which the read-out at {_budget(name)} is faster than lm-eval",
                       faster, None, None, len(part) // 2 + 1, f"of {len(part)}"))
    return out


def _million() -> list[Bar]:
    out = []
    for subject, task, rows in _rows(load("generate"), "subject", "task"):
        many, few = rows.loc["tree sampler, 1e6 draws"], rows.loc["tree sampler, 1e3 draws"]
        out.append(Bar(f"million-{task}", subject, task, f"a million draws ÷ a thousand, {_label(task)}",
                       *ratio(many, few), MILLION, f"in tokens {fmt(token_ratio(many, few))}", below=True))
    return out


def _open() -> list[Bar]:
    out = []
    for subject, task, rows in _rows(load("open"), "subject", "task"):
        tree, samples = rows.loc["tree sampler"], rows.loc["generate"]
        fair = ratio(rows.loc["generate, prompt once"], tree)[0]
        out.append(Bar(f"open-{task.replace('_', '-')}", subject, task,
                       f"a thousand open samples ÷ tree sampler, {_label(task)}",
                       *ratio(samples, tree), OPEN, f"in tokens {fmt(token_ratio(samples, tree))}; prompt once {fmt(fair)}"))
    return out
