"""Which questions a rung is asked: sets of prompts, forms and decodings, by name. A ladder's description names one per rung."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .cells import Decoding
from .prompts import CHAT, COMPLETION, INSTRUCTED, PROBE, PROMPTS, Prompt

TEMPERATURES = (0.5, 0.7, 1.5, 2.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """One way in which every task is put to a rung."""

    form: str
    prompts: tuple[Prompt, ...] = PROMPTS
    decoding: Decoding = Decoding()


def _tempered(temperature: float) -> Situation:
    """Hot answers have long tails: they are read to a coarser budget and may leave more unresolved."""
    hot = {"budget": 1e-3, "max_nodes": 300} if temperature > 1 else {}
    return Situation(form=CHAT, prompts=PROBE, decoding=Decoding(temperature=temperature, **hot))


GRIDS: dict[str, tuple[Situation, ...]] = {
    "full": (Situation(form=COMPLETION), Situation(form=CHAT)),  # what the phase pages need
    "raw": (Situation(form=COMPLETION),),  # a base of the hub, which may have no chat template, or one it never saw in training
    "probe": (Situation(form=CHAT, prompts=PROBE),),  # one prompt a narrator: a fifth of the cost, all of the narrators
    "both": (Situation(form=COMPLETION, prompts=PROBE), Situation(form=CHAT, prompts=PROBE)),
    "altered": (Situation(form=COMPLETION, prompts=PROBE), Situation(form=INSTRUCTED, prompts=PROBE),
                *map(_tempered, TEMPERATURES)),
}


def situations(grid: str, budget: float | None = None) -> tuple[Situation, ...]:
    """Those of a grid; budget: in place of their own."""
    if budget is None:
        return GRIDS[grid]
    return tuple(dataclasses.replace(s, decoding=dataclasses.replace(s.decoding, budget=budget)) for s in GRIDS[grid])
