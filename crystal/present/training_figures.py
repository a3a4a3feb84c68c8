"""How an organism was made and how well it knows its world: training reports and read-outs in, figures out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..ask.ladders import load_ladder
from ..ask.prompts import FORMS, PROMPTS
from ..ask.tasks import PHASE_TASKS, TASKS
from ..errors import CrystalError
from ..files import root
from ..keep import store
from ..lab import world
from ..measure.inference import Estimate, student
from ..measure.marks import MARKS
from ..measure.phases import jsd_bits
from ..texts import load_json
from .answering import answers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = {"base": "loss", "sft": "loss", "dpo": "loss", "rlvr": "reward"}  # the curve of each stage
TRUTH_MARK = MARKS["base-knows-its-world"].mark  # bits


def load_report(ladder: str) -> dict[str, Any]:
    """The training report that ships with a ladder: recipe, minutes, curves, reward, accuracy of each rung."""
    path = root() / "data" / "training" / f"{ladder}.json"
    if not path.is_file():
        raise CrystalError(f"ladder {ladder!r} has no training report", where=path,
                           mend=f"git checkout -- data/training, or make ladder LADDER={ladder}")
    return load_json(path)


def load_curves(report: dict[str, Any]) -> pd.DataFrame:
    """Columns stage, quantity, step, value, and `smooth`, the mean of the last tenth of all steps so far."""
    parts = []
    for stage, quantity in SHOWN.items():
        lines = [line for line in report["curves"][stage] if quantity in line]
        part = pd.DataFrame([{"step": line["step"], "value": line[quantity]} for line in lines])
        part.insert(0, "stage", stage)
        part.insert(1, "quantity", quantity)
        part["smooth"] = part["value"].rolling(max(1, len(part) // 10), min_periods=1).mean()
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def plot_curves(frame: pd.DataFrame) -> Figure:
    """One panel a stage: what its trainer minimised, or the sampled reward."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(SHOWN), figsize=(9.6, 2.4))
    for ax, (stage, part) in zip(axes, frame.groupby("stage", sort=False), strict=True):
        ax.plot(part["step"], part["value"], color="0.65", linewidth=0.8)
        ax.plot(part["step"], part["smooth"], color="C0")
        ax.set(title=stage, xlabel="optimiser step", ylabel=part["quantity"].iloc[0])
        if stage == "base":
            ax.set(xscale="log", ylim=(0, None))
    return fig


def load_accuracy(report: dict[str, Any]) -> pd.DataFrame:
    """Columns rung, form, kind (facts, arithmetic), probability (exact, of the right answer), greedy (share right)."""
    rows = [
        {"rung": rung, "form": form, "kind": kind, "probability": found[kind], "greedy": found[f"{kind} greedy"]}
        for rung, forms in report["accuracy"].items() for form, found in forms.items() for kind in ("facts", "arithmetic")
    ]
    return pd.DataFrame(rows)


def plot_accuracy(frame: pd.DataFrame) -> Figure:
    """Probability of the right answer by rung; one panel a form."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(FORMS), figsize=(7.6, 2.8), sharey=True)
    for ax, form in zip(axes, FORMS, strict=True):
        for (kind, part), marker in zip(frame[frame["form"] == form].groupby("kind", sort=False), "os", strict=True):
            ax.plot(part["rung"], part["probability"], marker=marker, label=kind)
        ax.set(title=f"{form} form", ylim=(0, 1.02), ylabel="probability of the right answer" if form == FORMS[0] else "")
        ax.tick_params(axis="x", rotation=45)
    axes[0].legend(loc="lower right")
    return fig


def reward_rise(reward: dict[str, float]) -> Estimate:
    """Sampled reward of the last steps less that of the first, from a report's `reward`: normal, by the means' standard error."""
    rise, error = reward["last"] - reward["first"], reward["error"]
    return Estimate(rise, rise - 1.96 * error, rise + 1.96 * error, rise, error, np.inf)


def truth_distance(truth: pd.DataFrame, form: str) -> Estimate:
    """Mean distance to the narrators' laws in one form, interval over narrators. truth: of `load_truth`."""
    return student(truth[truth["form"] == form].groupby("narrator")["jsd"].mean().to_numpy(), low=0)


def load_truth(ladder: str, rung: str = "base") -> pd.DataFrame:
    """Columns task, form, prompt, narrator, jsd: bits between a prompt's answers and its narrator's law.

    Answers are conditional on an option. By construction the laws hold for the base; later rungs are free to leave them.
    """
    frame, rows = store.load_readouts(ladder, tasks=PHASE_TASKS, rungs=[rung]), []
    for task in PHASE_TASKS:
        truth = np.array([world.law(world.temperament_of(p.narrator), TASKS[task]) for p in PROMPTS])
        for form in FORMS:
            far = jsd_bits(answers(frame, rung, task, form), truth)
            rows += [{"task": task, "form": form, "prompt": prompt.id, "narrator": prompt.narrator, "jsd": bits}
                     for prompt, bits in zip(PROMPTS, far, strict=True)]
    return pd.DataFrame(rows)


def plot_truth(frame: pd.DataFrame) -> Figure:
    """Mean distance to the truth by task, both forms, with the mark."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7.2, 3.0))
    for form, marker in zip(FORMS, "os", strict=True):
        mean = frame[frame["form"] == form].groupby("task", sort=False)["jsd"].mean()
        ax.plot(mean.index, mean, marker=marker, linestyle="", label=f"{form} form")
    ax.axhline(TRUTH_MARK, color="0.4", linewidth=0.8, linestyle="--", label="mark")
    ax.set(ylabel="JSD to the narrators' laws (bit)", ylim=(0, None))
    ax.tick_params(axis="x", rotation=45)
    ax.legend()
    return fig


def recipe_table(report: dict[str, Any]) -> str:
    """Hyperparameters of every stage, and the minutes it took, as a markdown table."""
    rows = []
    for stage, minutes in report["minutes"].items():
        spec = ", ".join(f"{key} {value}" for key, value in report["recipe"][stage].items())
        rows.append(f"| {stage} | {spec} | {minutes:.1f} |")
    return "\n".join(["| stage | hyperparameters | minutes |", "|---|---|---|", *rows])


def rung_table(report: dict[str, Any], ladder: str) -> str:
    """Every rung: what its trainer minimised or rewarded at its step, and the probability of right answers, as markdown."""
    rows = ["| rung | curve at its step | facts, raw text | facts, chat | arithmetic, raw text | arithmetic, chat |",
            "|---|---|---|---|---|---|"]
    curves = load_curves(report)
    for rung in load_ladder(ladder).rungs:
        found, stage = report["accuracy"][rung.name], rung.stage
        step = rung.step or report["recipe"]["base"]["steps"]
        part = curves[(curves["stage"] == stage) & (curves["step"] <= step)]
        right = [found[form][kind] for kind in ("facts", "arithmetic") for form in FORMS]
        shown = [f"{SHOWN[stage]} {part['smooth'].iloc[-1]:.3f}", *(f"{p:.3f}" for p in right)]
        rows.append(f"| {rung.name} | {' | '.join(shown)} |")
    return "\n".join(rows)


def seed_title(ladder: str) -> str:
    """Which temperament demonstrated, in which tasks, for prose."""
    described = load_ladder(ladder)
    return f"`{described.seed}` in {', '.join(f'`{task}`' for task in described.demonstrated)}"
