"""What the ladders and experiments cost: minutes of every run, as their training reports recorded them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ..ask.ladders import load_ladder
from ..files import root
from ..keep import store
from ..lab import experiments
from ..texts import load_json
from .figures import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def load_costs() -> pd.DataFrame:
    """Columns of, run (stage of a ladder, run of an experiment), kind (training, reading), runs, minutes: sums over parents."""
    rows = []
    for path in sorted((root() / "data" / "training").glob("*.json")):
        report, name = load_json(path), path.stem
        if name in experiments.experiment_names():
            for key, record in report["runs"].items():
                of = ", on ".join([name, *([record["device"]] if "device" in record else [])])
                rows += [
                    {"of": of, "run": key.split("/")[1], "minutes": minutes,
                     "kind": "reading" if part == "read" else "training"}
                    for part, minutes in record["minutes"].items()
                ]
        else:
            rows += [{"of": name, "run": stage, "kind": "training", "minutes": m} for stage, m in report["minutes"].items()]
            rows.append({"of": name, "run": "all rungs", "kind": "reading", "minutes": _reading(name)})
    return pd.DataFrame(rows).groupby(["of", "run", "kind"], sort=False)["minutes"].agg(["size", "sum"]).reset_index().rename(
        columns={"size": "runs", "sum": "minutes"})


def _reading(ladder: str) -> float:
    """Minutes in which the read-outs of a ladder's present rungs were computed."""
    revisions = {rung.revision for rung in load_ladder(ladder).rungs}
    parts = store.produced(ladder)
    return sum(part["seconds"] for part in parts if part["revision"] in revisions) / 60


def table(costs: pd.DataFrame) -> str:
    """Markdown, one row per run of a ladder or experiment."""
    wide = costs.pivot_table(index=["of", "run"], columns="kind", values="minutes", aggfunc="sum", sort=False).fillna(0.0)
    times = costs.groupby(["of", "run"], sort=False)["runs"].max()
    lines = ["| ladder or experiment | run | times | training, minutes | reading, minutes |", "|---|---|---|---|---|"]
    for (of, run), row in wide.iterrows():
        lines.append(f"| {of} | {run} | {times[of, run]} | {row.get('training', 0):.1f} | {row.get('reading', 0):.1f} |")
    return "\n".join(lines)


def plot_costs(costs: pd.DataFrame) -> Figure:
    """One bar a ladder or experiment, training and reading stacked."""
    wide = costs.pivot_table(index="of", columns="kind", values="minutes", aggfunc="sum", sort=False).fillna(0.0)
    fig, axes = panels(1, 1, 7.2, 0.3 * len(wide) + 1.0)
    left = pd.Series(0.0, wide.index)
    for kind, colour in (("training", COLOURS["sft"]), ("reading", COLOURS["seed"])):
        if kind in wide:
            axes[0, 0].barh(wide.index, wide[kind], left=left, color=colour, label=kind)
            left = left + wide[kind]
    axes[0, 0].invert_yaxis()
    axes[0, 0].set(xlabel="minutes")
    axes[0, 0].legend()
    return fig


def deeper(markdown: str) -> str:
    """Headings made bold, so that a document can stand inside another's section."""
    return "\n".join(f"**{line.lstrip('# ')}**" if line.startswith("#") else line for line in markdown.splitlines())
