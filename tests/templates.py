"""Templates of pages run in this process, with no kernel: what they tell and claim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from crystal.errors import CrystalError
from crystal.present import show

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


class Made(NamedTuple):
    told: str
    claims: dict[str, dict]
    folder: Path  # with figures and tables
    ended: str  # what `show.stop` said


def run(
    template: str, folder: Path, patch: pytest.MonkeyPatch, *, stops: bool = False, **parameters
) -> Made:
    """A template with these parameters, its files below `folder`. stops: by `show.stop`."""
    told, space, ended = [], {}, ""
    patch.chdir(folder)
    patch.delenv(show.CONTEXT, raising=False)
    patch.setattr(show, "_display", lambda myst, seen, **_: told.append(myst))
    try:
        for cell in json.loads((NOTEBOOKS / f"{template}.ipynb").read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), cell["id"], "exec"), space)
                space |= parameters if "parameters" in cell["metadata"].get("tags", ()) else {}
    except CrystalError as error:
        if not stops:
            raise
        ended = error.what
    made = folder / "_build" / "interactive" / template
    claims = json.loads((made / "claims.json").read_text("utf-8"))
    return Made("\n".join(t for t in told if "Source of" not in t), claims, made, ended)
