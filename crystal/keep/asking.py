"""One checkpoint, asked one task: its answers as a table that `crystal phases` reads.

Nothing is stored: what can be asked again is a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from ..ask.prompts import NaturalPrompt, template_of
from ..ask.tasks import Task
from .resample import bar

if TYPE_CHECKING:
    from ..read.engine import Engine

TOGETHER = 10  # prompts between two looks at the bar
COLUMNS = ("ladder", "stage", "task", "prompt", "unit", "option", "probability", "answered")
NODES = 400  # tokens behind a prompt, at most, as for the read-outs of the book


def ask(
    engine: Engine,
    task: Task,
    prompts: Sequence[NaturalPrompt],
    form: str,
    about: Mapping[str, str],
) -> pd.DataFrame:
    """A row per prompt and option, exact and unconditional; `answered` is their sum.

    about: the names of ladder and stage.
    Raises: CrystalError as `readout`, or for a form that the checkpoint has not.
    """
    from ..read.readout import readout

    rows = []
    with bar(len(prompts), task.name, unit="prompts") as shown:
        for low in range(0, len(prompts), TOGETHER):
            part = prompts[low : low + TOGETHER]
            asked = [(p.text(task, form), template_of(form), p.reply(task)) for p in part]
            found = readout(engine, [engine.encode(*one) for one in asked], task, max_nodes=NODES)
            for prompt, law in zip(part, found, strict=True):
                place = (about["ladder"], about["stage"], task.name, prompt.id, prompt.unit)
                each = zip(task.options, law.options.tolist(), strict=True)
                rows += [(*place, option, p, law.answered) for option, p in each]
            shown.update(len(part))
    return pd.DataFrame(rows, columns=list(COLUMNS))
