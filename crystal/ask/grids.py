"""Which questions a rung is asked: sets of prompts, forms and decodings, by name. A ladder's description names one per rung."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from .cells import Decoding
from .natural import NaturalPrompt, load_prompts
from .prompts import CHAT, COMPLETION, INSTRUCTED, PROBE, PROMPTS, Prompt

TEMPERATURES = (0.5, 0.7, 1.5, 2.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """One way in which every task is put to a rung."""

    form: str
    prompts: tuple[Prompt | NaturalPrompt, ...] = PROMPTS
    decoding: Decoding = Decoding()


def _tempered(temperature: float) -> Situation:
    """Hot answers have long tails: they are read to a coarser budget and may leave more unresolved."""
    hot = {"budget": 1e-3, "max_nodes": 300} if temperature > 1 else {}
    return Situation(form=CHAT, prompts=PROBE, decoding=Decoding(temperature=temperature, **hot))


def _natural(*forms: str, once: bool = False) -> Callable[[], tuple[Situation, ...]]:
    """The natural prompts in these forms, looked up when they are asked for: they lie in a file.

    once: the first wording of every context.
    """
    def found() -> tuple[Situation, ...]:
        prompts = tuple(p for p in load_prompts() if not once or p.wording == "cue-1")
        return tuple(Situation(form=form, prompts=prompts, decoding=COARSE) for form in forms)

    return found


# Of a flat base, most of the tree is what stands before an answer.
COARSE = Decoding(relative=0.01, max_nodes=400)
GRIDS: dict[str, tuple[Situation, ...] | Callable[[], tuple[Situation, ...]]] = {
    "full": (Situation(form=COMPLETION), Situation(form=CHAT)),  # what the phase pages need
    "raw": (Situation(form=COMPLETION),),  # a base of the hub, which may have no chat template, or one it never saw in training
    "probe": (Situation(form=CHAT, prompts=PROBE),),  # one prompt a narrator: a fifth of the cost, all of the narrators
    "both": (Situation(form=COMPLETION, prompts=PROBE), Situation(form=CHAT, prompts=PROBE)),
    "altered": (Situation(form=COMPLETION, prompts=PROBE), Situation(form=INSTRUCTED, prompts=PROBE),
                *map(_tempered, TEMPERATURES)),
    "natural": _natural(COMPLETION, CHAT),  # prompts that real models answer
    "natural-once": _natural(COMPLETION, CHAT, once=True),  # rungs on the way, half the cost
    "natural-once-chat": _natural(CHAT, once=True),
    "natural-raw": _natural(COMPLETION),  # the same, of a base without a chat template
    "natural-chat": _natural(CHAT),  # the same, of an aligned model in its own form
}


def situations(grid: str, budget: float | None = None) -> tuple[Situation, ...]:
    """Those of a grid; budget: in place of their own."""
    found = GRIDS[grid]
    found = found() if callable(found) else found
    if budget is None:
        return found
    return tuple(dataclasses.replace(s, decoding=dataclasses.replace(s.decoding, budget=budget)) for s in found)


def prompt_of(name: str) -> Prompt | NaturalPrompt:
    """The prompt of that id, of whichever set. Raises: KeyError."""
    return _WORLD[name] if name in _WORLD else {prompt.id: prompt for prompt in load_prompts()}[name]


_WORLD = {prompt.id: prompt for prompt in PROMPTS}
