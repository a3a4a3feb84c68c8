"""The key of one experiment: whatever can change the numbers changes the key."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass

from .tasks import READ_VERSION, Task

_LATER = ("endpoint", "relative")  # fields of `Decoding` that came after the first cells were stored
_CAST = {"str": str, "int": int, "float": float, "tuple[int, ...]": lambda ids: list(map(int, ids))}  # 1 and 1.0 are one budget


def canonical(value: object) -> str:
    """JSON with one spelling for one value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: object) -> str:
    """sha256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _plain(instance: object) -> dict:
    """The dataclass as JSON values, cast by its annotations."""
    return {field.name: _CAST[field.type](getattr(instance, field.name)) for field in dataclasses.fields(instance)}


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers were taken from the model. Nothing is ever truncated (no top-k, no top-p), so no field says so."""

    kind: str = "exact"  # "exact": the read-out; "draws": sampled texts
    budget: float = 1e-4  # probability the walk may leave unresolved
    relative: float = 0.0  # share of the answered mass that it may leave, where that is more than the budget
    max_nodes: int = 20_000  # per prompt; the cap that ends a flat model
    max_depth: int = 12  # tokens of an answer
    temperature: float = 1.0
    n: int = 0  # draws
    seed: int = 0  # of the draws; the repeat index of a repeated experiment, too
    max_tokens: int = 0  # longest drawn answer
    endpoint: str = ""  # of the server that drew them, such as "chat/completions"; "": drawn by `crystal.read.sampling`

    @functools.cached_property
    def text(self) -> str:
        """Canonical JSON, as stored. Without what is empty of _LATER, as before there were such fields."""
        return canonical({name: value for name, value in _plain(self).items() if name not in _LATER or value})


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One situation in which a model answers. Equal keys mean the same experiment.

    Of a served model (`decoding.endpoint`) we know what we sent, not what it made of it: prompt_ids are the bytes of the text
    in UTF-8, config_sha256 and tokenizer_revision are "", dtype is what whoever runs the server says.
    """

    model: str  # folder relative to the repository, or hub id
    revision: str  # sha256 of local weights, or the hub's commit
    config_sha256: str  # of a local config.json, which the weights' hash does not see; "" on the hub, whose commit does
    tokenizer_revision: str  # tokenizer.json and chat template
    dtype: str
    prompt_ids: tuple[int, ...]  # what the model saw, after template and BOS
    decoding: Decoding
    task: str
    task_sha256: str  # see task_sha256()

    @functools.cached_property
    def key(self) -> str:
        """64 hex digits."""
        plain = {f.name: _CAST[f.type](getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "decoding"}
        return digest(plain | {"decoding": self.decoding.text})


KEYED = tuple(field.name for field in dataclasses.fields(Cell) if field.type == "str")  # a stored row's columns of plain strings


def key_of(row: dict) -> str:
    """The key that a stored row's fields make: KEYED, `prompt_ids`, and `decoding` as text."""
    fields = {name: row[name] for name in KEYED}
    return Cell(decoding=_decoding(row["decoding"]), prompt_ids=row["prompt_ids"], **fields).key


@functools.lru_cache(64)
def _decoding(text: str) -> Decoding:
    return Decoding(**json.loads(text))


def task_sha256(task: Task) -> str:
    """What turns a task's answers into options: the options in order, every spelling, the version of the reading rule.

    The question itself is not in it: the model sees it only through the prompt's token ids.
    """
    return digest({"name": task.name, "options": task.options, "spellings": task.spellings, "read": READ_VERSION})
