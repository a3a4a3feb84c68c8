"""What reading a ladder costs: trees as they were measured on our ladders, rates as they were measured on machines, carried to
the ladders of the hub. Nothing here was measured on these themselves; loads no model.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from ..ask.grids import situations
from ..ask.ladders import DTYPES, Ladder, hub_names, load_ladder
from ..ask.tasks import PHASE_TASKS
from ..read.shapes import SHAPES, parameters
from . import show
from .bench_figures import HARNESS, READ, SAMPLES, devices, load
from .telling import fmt


class Machine(NamedTuple):
    """What reads. flops: operations a second of a large matrix product; share: least and most of that a read-out reaches, at
    two operations a parameter and token."""

    name: str
    flops: float
    share: tuple[float, float]


def whole_grid() -> pd.DataFrame:
    """Part "grid", one row a model, summed over its rungs: cells, seconds, tokens, fewest, prompt_tokens, saved, shared,
    forwards; and the most that was left unresolved."""
    sums = dict.fromkeys(("cells", "seconds", "tokens", "fewest", "prompt_tokens", "saved", "shared", "forwards"), "sum")
    return load("grid").groupby("model", sort=False).agg(sums | {"unresolved_largest": "max"})


def tokens_a_cell() -> tuple[float, float]:
    """Fewest and most over ladders and rungs of part "grid"."""
    per = load("grid").eval("tokens / cells")
    return float(per.min()), float(per.max())


def share_reached() -> float:
    """Of this machine's matrix product, by the read-out of the largest model of part "size"."""
    sized = load("size")
    row = sized[sized["contestant"] == READ].nlargest(1, "parameters").iloc[0]
    return float(2 * row["parameters"] * row["tokens"] / row["seconds"] / row["ceiling"])


def machines(teraflops: float) -> list[Machine]:
    """One core of where part "size" was measured; every GPU of data/bench by its first shape, or, where there is none, one of
    `teraflops`: what it reaches is not known, so from the share on that core to all of it."""
    share = share_reached()
    found = [Machine("one core here", float(load("size")["ceiling"].median()), (share, share))]
    for file in (files := devices()):
        row = file["rows"][0]
        reached = 2 * parameters(SHAPES[row["shape"]]) * row["tokens_a_second"] / file["flops"]
        found.append(Machine(f"{file['device']} as on {row['shape']}", file["flops"], (reached, reached)))
    return found if files else [*found, Machine(f"a GPU of {fmt(teraflops)} TFLOP/s", teraflops * 1e12, (share, 1.0))]


def cells(ladder: Ladder) -> list[int]:
    """Of each rung: tasks x the prompts of all situations of its grid."""
    return [len(PHASE_TASKS) * sum(len(s.prompts) for s in situations(rung.grid)) for rung in ladder.rungs]


def real_reading() -> pd.DataFrame:
    """Part "real": a row for each real checkpoint and task, read by all of its natural prompts.

    ratio: seconds over what the arithmetic alone takes, at the rate measured just before and after.
    """
    found = load("real")
    return found[found["ratio"].notna()]


def real_compared() -> pd.DataFrame:
    """Part "real": a row for each real checkpoint and task of which one prompt was read, sampled
    and scored.

    samples, scores, harness: seconds of a thousand samples, of scoring each option's text, and of
    lm-eval (nan if it was not installed), over the read-out's; samples_tokens: likewise, tokens;
    many: as harness, where both were put many prompts; tv: total variation of the scores from the
    law.
    """
    every = load("real")
    one, many = every[every["work"] == "comparing"], every[every["work"] == "together"]
    wide = one.pivot(index=["model", "task"], columns="contestant")
    together = many.pivot(index=["model", "task"], columns="contestant", values="seconds")
    wide = wide.reindex(one[["model", "task"]].drop_duplicates().apply(tuple, axis=1))
    seconds, tokens = (wide[name].div(wide[name]["read-out"], axis=0) for name in ("seconds", "tokens"))
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


def load_costs(teraflops: float) -> pd.DataFrame:
    """One row per ladder of the hub and machine: cells; parameters and gigabytes of the largest rung, at the ladder's precision;
    tokens and seconds (low, high), for trees as small and as large as ours."""
    rows = []
    for name in hub_names():
        ladder = load_ladder(name, unpinned=True)
        per_rung, sizes = cells(ladder), [rung.parameters for rung in ladder.rungs]
        work = 2 * sum(n * size for n, size in zip(per_rung, sizes, strict=True))
        (fewest, most), largest = tokens_a_cell(), max(sizes)
        rows += [{
            "ladder": ladder.title, "rungs": len(per_rung), "cells": sum(per_rung), "parameters": largest,
            "gigabytes": largest * DTYPES[ladder.dtype] / 1e9, "dtype": ladder.dtype, "machine": machine.name,
            "tokens_low": fewest * sum(per_rung), "tokens_high": most * sum(per_rung),
            "seconds_low": work * fewest / machine.flops / machine.share[1],
            "seconds_high": work * most / machine.flops / machine.share[0]} for machine in machines(teraflops)]
    return pd.DataFrame(rows)


def table(costs: pd.DataFrame) -> str:
    """Markdown, one row a ladder, smallest first; a column of time a machine."""
    lines = []
    for name, part in costs.sort_values(["parameters", "ladder"]).groupby("ladder", sort=False):
        row = part.iloc[0]
        times = [span(r["seconds_low"], r["seconds_high"]) for _, r in part.iterrows()]
        tokens = f"{fmt(row['tokens_low'] / 1e6)} to {fmt(row['tokens_high'] / 1e6)}"
        lines.append([name, row["rungs"], f"{row['cells']:,}", fmt(row["parameters"] / 1e9),
                      f"{fmt(row['gigabytes'])} ({row['dtype']})", tokens, *times])
    named = [f"{name}, time" for name in costs["machine"].unique()]
    head = ["ladder", "rungs", "cells", "parameters, billion", "weights of a rung, GB", "tokens, million", *named]
    return show.table(head, lines)


UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (0.0, "seconds"))


def span(low: float, high: float | None = None) -> str:
    """Seconds, or a range of them, in the unit that suits the larger."""
    top = low if high is None else high
    size, unit = next((size or 1, unit) for size, unit in UNITS if top >= size)
    return f"{fmt(low / size)} {unit}" if high is None else f"{fmt(low / size)} to {fmt(high / size)} {unit}"
