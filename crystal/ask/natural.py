"""The natural prompts: fifty contexts x two wordings, which real models answer.

    data/prompts/natural.yaml         the pool: contexts, and cues of every task
    data/prompts/natural-chosen.yaml  which of them make the prompts; `crystal screen` writes it

A context is a situation, the same for every task. A cue is a task's own and begins the answer: raw
text goes on with it behind the context; in chat form the user's message is the context and the cue
begins the assistant's reply. Two cues are chosen for every task and crossed with the contexts, so
that what a context does and what a wording does are told apart by a balanced table.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CrystalError
from ..files import root
from ..fits import misfit, text
from ..texts import parse_yaml, read_text
from .prompts import COMPLETION, INSTRUCTED, INSTRUCTION
from .tasks import PHASE_TASKS, Task

CONTEXTS, WORDINGS = 50, 2
POOL, CHOSEN, ANSWERED = "natural.yaml", "natural-chosen.yaml", "natural-answered.csv"
REQUEST = "Please continue."  # what a user asks for behind the context; it says nothing of any task
OPTIONS = "{options}"  # in a cue: the options, in an order of that prompt's own
SELECTION, EVALUATION = "selection", "evaluation"


@dataclass(frozen=True)
class Context:
    """A situation in which any task can be put."""

    id: str
    genre: str
    text: str  # ends in a line break where a cue stands on a line of its own


@dataclass(frozen=True)
class Pool:
    """Everything that could be asked: contexts x each task's cues."""

    contexts: tuple[Context, ...]
    cues: Mapping[str, tuple[str, ...]]  # by task


@dataclass(frozen=True)
class NaturalPrompt:
    """One of the hundred ways to put any task: a context, and the task's first or second cue.

    `half` is fixed by the context, so that no context is in both.
    """

    id: str
    narrator: int  # number of the context: the cluster, as a narrator is of the other prompts
    context: Context
    wording: str  # "cue-1" or "cue-2"
    cues: Mapping[str, str] = field(repr=False, hash=False, compare=False)

    @property
    def unit(self) -> str:
        return self.context.id

    @property
    def half(self) -> str:
        return SELECTION if self.narrator % 2 == 0 else EVALUATION

    def puts(self, task: Task) -> bool:
        """Whether there are cues of `task`."""
        return task.name in self.cues

    def text(self, task: Task, form: str) -> str:
        """What stands before the cue: the context, or the user's message."""
        return before(self.context, form)

    def reply(self, task: Task) -> str:
        """The cue of `task`, which begins the answer.

        Raises: CrystalError for a task without cues.
        """
        if not self.puts(task):
            raise CrystalError(f"no natural prompt puts the task {task.name!r}",
                               mend=f"choose one of: {', '.join(self.cues)}")
        return begun(self.cues[task.name], task, self.context)


def before(context: Context, form: str) -> str:
    """The text before the cue: of raw text the context, of a chat the user's message."""
    if form == COMPLETION:
        return context.text
    asked = f"{context.text.rstrip()}\n\n{REQUEST}"
    return f"{INSTRUCTION} {asked}" if form == INSTRUCTED else asked


def begun(cue: str, task: Task, context: Context) -> str:
    """The cue as this context has it: the options, where it names them, are in an order of its own.

    The order is that of hashes of (task, context, cue, option): as good as random, and fixed.
    """
    def place(option: str) -> bytes:
        return hashlib.sha256("\n".join((task.name, context.id, cue, option)).encode()).digest()
    return cue.replace(OPTIONS, ", ".join(sorted(task.options, key=place)))


def folder() -> Path:
    """Where the pool, what was measured and the choice lie."""
    return root() / "data" / "prompts"


def load_pool() -> Pool:
    """The pool. Raises: CrystalError for a file that is missing or misshapen."""
    shape = {"contexts": [{"id": text, "genre": text, "text": text}],
             "cues": {task: [text] for task in PHASE_TASKS}}
    raw = _loaded(folder() / POOL, shape)
    contexts = tuple(Context(row["id"], row["genre"], row["text"]) for row in raw["contexts"])
    return Pool(contexts, {task: tuple(raw["cues"][task]) for task in PHASE_TASKS})


def load_prompts() -> tuple[NaturalPrompt, ...]:
    """The hundred prompts, context by context. Raises: CrystalError as `load_pool`."""
    return _prompts(folder())


@functools.lru_cache(4)
def _prompts(place: Path) -> tuple[NaturalPrompt, ...]:
    path, pool = place / CHOSEN, load_pool()
    raw = _loaded(path, {"contexts": [text], "cues": {task: [text] for task in PHASE_TASKS}})
    by_id = {context.id: context for context in pool.contexts}
    if strange := [name for name in raw["contexts"] if name not in by_id]:
        what = f"the pool holds no context {strange[0]!r}"
        raise CrystalError(what, where=path, mend=_mend(path))
    return prompts_of([by_id[name] for name in raw["contexts"]], raw["cues"])


def prompts_of(
    contexts: Sequence[Context], cues: Mapping[str, Sequence[str]]
) -> tuple[NaturalPrompt, ...]:
    """Contexts crossed with the first, second, ... cue of every task."""
    wordings = [{task: mine[i] for task, mine in cues.items()}
                for i in range(min(map(len, cues.values())))]
    return tuple(
        NaturalPrompt(f"{context.id}-{i}", number, context, f"cue-{i}", mine)
        for number, context in enumerate(contexts) for i, mine in enumerate(wordings, 1)
    )


def _loaded(path: Path, shape: dict) -> dict:
    raw = parse_yaml(read_text(path, _mend(path)), path, _mend(path))
    if wrong := misfit(raw, shape):
        raise CrystalError(f"the file is misshapen: {wrong}", where=path, mend=_mend(path))
    return raw


def _mend(path: Path) -> str:
    return f"git checkout -- data/prompts/{path.name}"
