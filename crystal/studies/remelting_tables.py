"""The tables of the chapter on remelting, as MyST, and the record of the numbers in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..ask.prompts import CHAT, COMPLETION
from ..measure.judging import Verdict
from ..present import show, telling
from . import parents
from .parents import ALL, told
from .remelting import ASKING, CRYSTAL, METHODS, RAW, REFERENCES

COLUMNS = ("regained", "distance", "entropy", "liquidity", "probmass", "kept")
LEFT = ("off_support", "unresolved")
SAID = {"regained": "liquidity regained", "distance": "distance to the base, prompt by prompt, of the crystal's",
        "entropy": "mean entropy of a prompt's answer, bits", "probmass": "mass on the seed's options",
        "kept": "facts right, of the crystal's"}


def names(ends: pd.DataFrame) -> list[str]:
    """The methods that any parent went, in the order of METHODS."""
    return [method.name for method in METHODS if method.name in set(ends["method"])]


def pick(ends: pd.DataFrame, method: str, value: str, group: str = ALL, against: str = CHAT) -> pd.Series:
    """One quantity of one method, indexed by parent."""
    mine = ends[(ends["method"] == method) & (ends["group"] == group) & (ends["against"] == against)]
    return mine.set_index("parent")[value]


def said(ends: pd.DataFrame, value: str, methods: Sequence[str], groups: Iterable[str] = parents.APART) -> str:
    """One quantity of several methods in words, demonstrated and held-out tasks apart."""
    return "; ".join(f"{name}: " + ", ".join(f"{group} {told(pick(ends, name, value, group))}" for group in groups)
                     for name in methods) or "not recorded yet"


def most(ends: pd.DataFrame, value: str, methods: Sequence[str], best: str = "max") -> str:
    """The method with the largest (best="min": smallest) mean over parents, all tasks, and its number in both groups."""
    means = {name: pick(ends, name, value).mean() for name in methods}
    return said(ends, value, [max(means, key=means.get) if best == "max" else min(means, key=means.get)])


def nearest(goals: pd.DataFrame) -> str:
    """Which methods' mean answers lie nearest to which law, demonstrated and held-out tasks apart. goals: of `load_goals`."""
    goals = goals.dropna(subset=["value"])  # a way that cannot be measured is near nothing
    first = goals.loc[goals.groupby(["method", "group"])["value"].idxmin()]
    order = [method.name for method in METHODS]
    parts = []
    for (group, goal), mine in first.groupby(["group", "goal"]):
        parts.append(f"{parents.titled(group)} tasks, to the {goal}: {', '.join(sorted(mine['method'], key=order.index))}")
    return "; ".join(parts)


def record(ends: pd.DataFrame) -> None:
    """Every number of `table` as a measured claim of the page: regained@back-to-pretraining, kept@raw-text, ..."""
    for name, against in _lines(ends):
        for value, words in SAID.items():
            values = pick(ends, name, value, against=against)
            found, claim = parents.estimate(values), value if against == CHAT else f"{value}-against-raw-text"
            numbers = {"number": found.value, "low": found.low, "high": found.high}
            show.claim(claim, ladder=telling.slug(name), task=ALL, verdict="measured",
                       sentence=f"{words}: {told(values)} ({parents.counted(len(parents.usable(values)))})",
                       **{part: telling.finite(x) for part, x in numbers.items()})


def table(ends: pd.DataFrame, methods: pd.DataFrame, found: Mapping[str, Sequence[Verdict]]) -> str:
    """All tasks together, two tables: every method with what is judged and its reading; the references, then every method with
    the other numbers over parents.

    ends: of `remelting.at_end`, with `kept`; methods: of `remelting.load_methods`; found: of `remelting.judge`.
    """
    judged, others = [], [_reference(name, methods) for name in REFERENCES]
    for name, against in _lines(ends):
        values = [pick(ends, name, value, against=against) for value in COLUMNS]
        verdicts = [v.verdict for v in found[name]]
        label = name if name != RAW else f"{name}, against the base {'in chat form' if against == CHAT else 'as raw text'}"
        judged.append([label, len(values[0]), *map(told, values[:2]), *(verdicts if against == CHAT else [""])])
        if against == CHAT:  # these are of no base
            others.append([name, *map(told, values[2:])])
    return "\n\n".join([
        myst(["way", "parents", "liquidity regained", "distance to the base", "remelts"], judged),
        myst(["way", "entropy, bits", "liquidity, bits", "mass on the seed's options", "facts right"], others)])


def _lines(ends: pd.DataFrame) -> list[tuple[str, str]]:
    """Method and the base's form that it is compared with; raw text stands twice."""
    return [(name, against) for name in names(ends) for against in ((CHAT, COMPLETION) if name == RAW else (CHAT,))]


def _reference(name: str, methods: pd.DataFrame) -> list:
    means = methods[methods["method"] == name].groupby("parent")[["entropy", "liquidity", "probmass"]].mean()
    return [f"*{name}*", *(told(means[value]) for value in means), 1 if name == "crystal" else "–"]


def by_parent(ends: pd.DataFrame, methods: pd.DataFrame) -> str:
    """All tasks, parent by parent: liquidity of base and crystal, then what every method regains and how far it stays."""
    liquidity = methods[methods["kind"] == "reference"].groupby(["method", "parent"])["liquidity"].mean()
    there = list(methods["parent"].unique())
    base, crystal = (liquidity[end][there] for end in ("base", "crystal"))
    fixed = {"liquidity of the base, bits": base, "of the crystal": crystal, "left in the crystal": crystal / base}
    rows = [[words, *map(show.fmt, numbers)] for words, numbers in fixed.items()]
    for value, words in (("regained", "liquidity regained"), ("distance", "distance to the base")):
        for name in names(ends):
            mine = pick(ends, name, value)
            rows.append([f"{words}: {name}", *(telling.fmt(mine.get(parent, np.nan)) for parent in there)])
    return myst(["", *there], rows)


def asked(methods: pd.DataFrame) -> str:
    """Every way of asking, of the crystal and of the base: all tasks together, laws conditional on an option.

    left: liquidity of the crystal over that of the base when both are asked alike, parent by parent.
    """
    head = ["asked by", "liquidity of the crystal, bits", "of the base", "crystal over base", "entropy of the crystal, bits",
            "of the base", "off-support, crystal", "unresolved, crystal"]
    mine, rows = methods[methods["kind"] == ASKING], []
    for name in mine["method"].unique():
        means = mine[mine["method"] == name].groupby(["start", "parent"])[["liquidity", "entropy", *LEFT]].mean()
        crystal, base = (means[means.index.get_level_values("start") == start].droplevel("start") for start in (CRYSTAL, "base"))
        left = (crystal["liquidity"] / base["liquidity"]).rename("ratio")
        rows.append([name, *map(told, (crystal["liquidity"], base["liquidity"], left, crystal["entropy"], base["entropy"],
                                       crystal["off_support"], crystal["unresolved"]))])
    return myst(head, rows)


def myst(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A MyST table."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows))
