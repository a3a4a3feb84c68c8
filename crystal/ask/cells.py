"""What is asked of a checkpoint: grids of situations; and the key of one experiment."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from ..errors import known
from .prompts import (
    BY_ID,
    CHAT,
    COMPLETION,
    FORMS,
    INSTRUCTED,
    PROBE,
    PROMPTS,
    NaturalPrompt,
    Prompt,
    load_prompts,
)
from .tasks import READ_VERSION, Task

_LATER = ("endpoint", "relative")  # fields of `Decoding` that came after cells were stored
_STORED = {"tolerance": "budget"}  # keys of cells are hashes of the name that it had
_WALKED = ("tolerance", "relative", "max_nodes", "max_depth", "temperature")


def canonical(value: object) -> str:
    """JSON with one spelling for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """sha256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers were taken. Nothing is ever truncated (no top-k, no top-p): no field says so."""

    kind: str = "exact"  # "exact": the read-out; "draws": sampled texts
    tolerance: float = 1e-4  # probability the walk may leave open
    relative: float = 0.0  # share of the answered mass that it may leave, if that is more
    max_nodes: int = 20_000  # per prompt; the cap that ends a flat model
    max_depth: int = 12  # tokens of an answer
    temperature: float = 1.0
    n: int = 0  # draws
    seed: int = 0  # of the draws; the repeat index of a repeated experiment, too
    max_tokens: int = 0  # longest drawn answer
    endpoint: str = ""  # of the server that drew them, such as "chat/completions"; "": drawn here

    @cached_property
    def text(self) -> str:
        """Canonical JSON, as stored, without empty fields of _LATER; 1 and 1.0 are one number."""
        stored = {}
        for field in dataclasses.fields(self):
            value = type(field.default)(getattr(self, field.name))
            if value or field.name not in _LATER:
                stored[_STORED.get(field.name, field.name)] = value
        return canonical(stored)

    @property
    def walked(self) -> dict[str, float]:
        """The fields that `crystal.read.readout` takes."""
        return {name: getattr(self, name) for name in _WALKED}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One experiment: whatever can change its numbers changes its key.

    Of a served model (`decoding.endpoint`) we know only what we sent: prompt_ids are the bytes of
    the text in UTF-8, config_sha256 and tokenizer_revision are "".
    """

    model: str  # folder relative to the repository, or hub id
    revision: str  # sha256 of local weights, or the hub's commit
    config_sha256: str  # of a local config.json; "" on the hub, whose commit covers it
    tokenizer_revision: str  # tokenizer.json and chat template
    dtype: str
    prompt_ids: tuple[int, ...]  # what the model saw, after template and BOS
    decoding: Decoding
    task: str
    task_sha256: str  # see task_sha256()

    @cached_property
    def key(self) -> str:
        """64 hex digits."""
        return key_of(vars(self) | {"decoding": self.decoding.text})


# A stored row's columns of plain strings.
KEYED = tuple(field.name for field in dataclasses.fields(Cell) if field.type == "str")


def key_of(row: Mapping[str, Any]) -> str:
    """The key that a stored row's fields make: KEYED, `prompt_ids`, and `decoding` as text."""
    fields = {name: row[name] for name in (*KEYED, "decoding")}
    return digest(fields | {"prompt_ids": [*map(int, row["prompt_ids"])]})


def task_sha256(task: Task) -> str:
    """What turns answers into options: options in order, spellings, version of the reading rule.

    Not the question itself: the model sees it only through the prompt's token ids.
    """
    fields = {"name": task.name, "options": task.options, "spellings": task.spellings}
    return digest(fields | {"read": READ_VERSION})


# -- grids

TEMPERATURES = (0.5, 0.7, 1.5, 2.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class Situation:
    form: str
    prompts: tuple[Prompt | NaturalPrompt, ...] = PROMPTS
    decoding: Decoding = Decoding()


def _probe(form: str, **decoding: float) -> Situation:
    return Situation(form=form, prompts=PROBE, decoding=Decoding(**decoding))


def _natural(*forms: str, once: bool = False) -> tuple[Situation, ...]:
    """The natural prompts in these forms; once: in one wording."""
    prompts = tuple(p for p in load_prompts() if not once or p.wording == "cue-1")
    return tuple(Situation(form=form, prompts=prompts, decoding=_COARSE) for form in forms)


_COARSE = Decoding(relative=0.01, max_nodes=400)  # most of a flat base's tree precedes any answer
_HOT = {"tolerance": 1e-3, "max_nodes": 300}  # hot answers have long tails
GRIDS: dict[str, tuple[Situation, ...] | Callable[[], tuple[Situation, ...]]] = {
    "full": (Situation(form=COMPLETION), Situation(form=CHAT)),  # what the phase pages need
    "raw": (Situation(form=COMPLETION),),  # a base of the hub, which may never have seen a template
    "probe": (_probe(CHAT),),  # one prompt a persona: a fifth of the cost, all of the personas
    "both": (_probe(COMPLETION), _probe(CHAT)),
    "altered": (
        _probe(COMPLETION),
        _probe(INSTRUCTED),
        *(_probe(CHAT, temperature=t, **_HOT if t > 1 else {}) for t in TEMPERATURES),
    ),
    # read from a file when asked for
    "natural": partial(_natural, *FORMS),  # prompts that real models answer
    "natural-once": partial(_natural, *FORMS, once=True),  # checkpoints on the way, half the cost
    "natural-once-chat": partial(_natural, CHAT, once=True),
    "natural-raw": partial(_natural, COMPLETION),  # of a base without a chat template
    "natural-chat": partial(_natural, CHAT),  # of an aligned model in its own form
}


def situations(grid: str) -> tuple[Situation, ...]:
    """Those of a grid."""
    found = GRIDS[grid]
    return found() if callable(found) else found


def prompt_of(name: str) -> Prompt | NaturalPrompt:
    """The prompt of that id. Raises: CrystalError for an unknown one."""
    world = re.fullmatch("[0-9]{2}-[a-z]+", name)  # natural ones end in -1, -2
    every = BY_ID if world else {prompt.id: prompt for prompt in load_prompts()}
    return every[known(name, every, "prompt")]
