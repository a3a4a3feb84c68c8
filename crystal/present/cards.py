"""Model cards: what each ladder trained here is, how it was made, what it is for.

Written from recipes and training reports, so that none can go stale.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..ask.ladders import load_ladder
from ..files import root
from ..lab import recipes
from ..texts import markdown
from . import show
from .training_figures import KINDS, load_report

USE = (
    "trying measurements where the truth is known; it knows a made-up world and is of no other use"
)


def cards() -> str:
    """A fold for each ladder with a recipe and a training report, as MyST."""
    reports = root() / "data/training"
    trained = [name for name in recipes.recipe_names() if (reports / f"{name}.json").is_file()]
    return "\n\n".join(
        f"````{{dropdown}} {markdown(load_ladder(name).title)}\n"
        f"{show.table(['what', 'how'], _rows(name))}\n````"
        for name in trained
    )


def _rows(name: str) -> Iterator[tuple[str, str]]:
    """What a reader of a ladder's weights has to know."""
    recipe, report = recipes.load_recipe(name), load_report(name)
    right = report["accuracy"]["rlvr"]["chat"]
    shipped = load_ladder(name).rungs[0].source.startswith("data/")
    yield "architecture", f"{recipe.architecture}, {_listed(recipe.model)}"
    yield "begins at", recipe.base.get("source", "random weights")
    yield "demonstrator", f"{recipe.temperament}, in {', '.join(recipe.demonstrated)}"
    for stage, minutes in report["minutes"].items():
        yield stage, f"{_listed(report['recipe'][stage])} ({minutes:.1f} minutes)"
    yield "right after RLVR", ", ".join(f"{show.fmt(right[kind])} of {kind}" for kind in KINDS)
    yield "for", USE
    yield "weights", "the end of each stage" if shipped else "not shipped; pinned by their hash"
    yield "terms", recipe.base.get("licence", "CC BY 4.0")


def _listed(fields: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in fields.items())
