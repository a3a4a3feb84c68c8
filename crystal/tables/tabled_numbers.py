"""What a table of any ladder shows apart from the claims, and all of it as data: what even a single prompt tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from ..measure import evidence as ev
from ..measure import phases as ph
from ..measure.answered import NOT_MEASURABLE
from ..measure.chain import TESTED
from ..measure.evidence import Evidence
from ..measure.judging import Verdict, finite
from ..present import show
from . import tabled
from .laws import Table

NUMBERS = [
    "ladder",
    "task",
    "stage",
    "prompts",
    "options",
    "mass",
    "entropy",
    "normalised",
    "liquidity",
    "from base",
    "from previous",
    "top",
    "p(top)",
    "rank in base",
]
COLUMNS = ("entropy", "normalised", "liquidity", "from base", "from previous", "p(top)")


def numbers(table: Table) -> pd.DataFrame:
    """One row per ladder, task and stage, of laws meaned over the prompts that it answers; none
    where they are too few.

    prompts, options; mass (on options); where the table says it, answered of asked prompts; entropy
    (bits), normalised; liquidity (bits; nan of one prompt); from base, from previous: total
    variation, on the prompts that both stages answer; top, its probability, and the rank the base
    gave it, from 1.
    """
    rows = []
    for (ladder, task), mine in table.frame.groupby(["ladder", "task"], sort=False):
        counts = {
            stage: tabled.answered_by(table, ladder, task, [stage])
            for stage in table.ladders[ladder]
        }
        whole, passed = tabled.rungs(table, ladder, task), []
        first = next((stage for stage, counted in counts.items() if counted or stage in whole), "")
        for stage, counted in counts.items():
            found = tabled.rungs(table, ladder, task, [stage]) if counted else whole
            if stage not in found or (counted and not counted.measurable):
                continue
            given = found[stage]
            law = given.law.mean(0)
            passed.append(stage)
            base, own = _means(table, ladder, task, first, stage, whole)
            previous, now = _means(
                table, ladder, task, passed[max(0, len(passed) - 2)], stage, whole
            )
            top, every = int(law.argmax()), np.ones(len(given.law))
            rows.append(
                {
                    "ladder": ladder,
                    "task": task,
                    "stage": stage,
                    "prompts": len(given.law),
                    "options": len(law),
                    "mass": float(mine.loc[mine["stage"] == stage, "mass"].mean()),
                    "entropy": float(ph.entropy_bits(law)),
                    "normalised": float(ph.normalised_entropy(law)) if len(law) > 1 else np.nan,
                    "liquidity": float(ev.liquidity(given, every))
                    if len(given.law) > 1
                    else np.nan,
                    "from base": float(ph.tv(own, base)),
                    "from previous": float(ph.tv(now, previous)),
                    "top": table.options[task][top],
                    "p(top)": float(law[top]),
                    "rank in base": int((base > base[top]).sum()) + 1
                    if np.isfinite(base[top])
                    else np.nan,
                }
                | ({"answered": counted.answered, "asked": counted.asked} if counted else {})
            )
    return pd.DataFrame(rows, columns=None if rows else NUMBERS)


def _means(
    table: Table, ladder: str, task: str, first: str, second: str, whole: Mapping[str, Evidence]
) -> list[np.ndarray]:
    """The mean laws of two stages on the prompts that both answer; nan where these are too few."""
    count = tabled.answered_by(table, ladder, task, [first, second])
    both = (
        tabled.rungs(table, ladder, task, [first, second])
        if count and count.measurable
        else {}
        if count
        else whole
    )
    nothing = np.full(len(table.options[task]), np.nan)
    return [both[stage].law.mean(0) if stage in both else nothing for stage in (first, second)]


def stages_told(table: Table, ladders: Iterable[str]) -> list[str]:
    """Each ladder's stages in a plain sentence, with what stands in another's place."""
    stages = {ladder: table.ladders[ladder] for ladder in ladders}
    told = {ladder: tabled.roles(mine).told for ladder, mine in stages.items()}
    return [f"{ladder}: {' → '.join(mine)}" + (f" ({told[ladder]})." if told[ladder] else ".")
            for ladder, mine in stages.items()]


def as_myst(every: pd.DataFrame) -> str:
    """A MyST table of `numbers`."""
    head = ["ladder", "task", "stage", "prompts", "mass on options", "entropy, bits",
            "TV from base", "TV from the stage before", "top option", "its probability",
            "its rank in the base"]
    shown = every[["ladder", "task", "stage", "prompts", "mass", "entropy", "from base",
                   "from previous", "top", "p(top)", "rank in base"]]
    if "asked" in every:
        shown.insert(4, "asked", every["asked"])
        head.insert(4, "of these asked")
    return show.table(head, ([x if isinstance(x, str) else show.fmt(x) for x in row]
                             for row in shown.itertuples(index=False)))


def verdict_rows(found: dict[str, dict[str, list[Verdict]]]) -> pd.DataFrame:
    """One row per ladder, task and claim: the verdict, its number with interval, mark, p-values and null, and the sentence."""
    return pd.DataFrame([
        {"ladder": ladder, "task": task, "claim": v.claim, "p": v.p, "p_against": v.p_against, "side": v.mark.side,
         "null_name": v.null.name if v.null else None, "null_p": v.null.p if v.null else None} | v.fields()
        | ({"reason": v.reason} if v.verdict not in TESTED else {})
        for ladder, tasks in found.items() for task, verdicts in tasks.items() for v in verdicts])


def as_json(table: Table, found: dict[str, dict[str, list[Verdict]]]) -> dict:
    """All of it for other programs: notes, and per ladder its stages, verdicts and numbers; what does not exist is None."""
    every, judged = numbers(table), verdict_rows(found)
    return {"notes": list(table.notes), "ladders": {
        ladder: {"stages": list(stages), "roles": tabled.roles(stages).told,
                 "verdicts": _plain(judged[judged["ladder"] == ladder]), "numbers": _plain(every[every["ladder"] == ladder])}
        for ladder, stages in table.ladders.items()}}


def _plain(frame: pd.DataFrame) -> list[dict]:
    rows = frame.drop(columns="ladder").to_dict("records")
    return [
        {
            name: finite(x) if isinstance(x, float) else getattr(x, "item", lambda x=x: x)()
            for name, x in row.items()
            if not (name == "reason" and x != x)
        }
        for row in rows
    ]


def as_text(table: Table, found: dict[str, dict[str, list[Verdict]]]) -> str:
    """For a terminal: notes, then per ladder one line a claim over all tasks, and the verdicts task by task."""
    lines = [f"note: {note}" for note in table.notes]
    for ladder, tasks in found.items():
        stages = table.ladders[ladder]
        told = tabled.roles(stages).told
        lines += ["", f"{ladder}: {' -> '.join(stages)}" + (f" ({told})" if told else "")]
        pooled = tasks.get(tabled.POOLED, [])
        lines += [f"  {v.verdict:<12} {v.claim}: {v.sentence()}" for v in pooled]
        alone = {task: verdicts for task, verdicts in tasks.items() if task != tabled.POOLED}
        width = max(map(len, alone))
        claims = list(dict.fromkeys(v.claim for verdicts in alone.values() for v in verdicts))
        few = {task: next((v.reason for v in verdicts if v.verdict == NOT_MEASURABLE), "")
               for task, verdicts in alone.items()}
        wide = {claim: max(len(claim), *(len(v.verdict) for mine in alone.values() for v in mine))
                for claim in claims}
        lines.append(
            "  "
            + " " * width
            + "  "
            + "  ".join(f"{claim:<{wide[claim]}}" for claim in claims).rstrip()
        )
        for task, verdicts in alone.items():
            by = {v.claim: v.verdict for v in verdicts}
            row = "  ".join(f"{by.get(claim, '-'):<{wide[claim]}}" for claim in claims).rstrip()
            lines.append(f"  {task:<{width}}  {row}" + (f"  ({few[task]})" if few[task] else ""))
    return "\n".join(lines)
