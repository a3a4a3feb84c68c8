"""The prompts: 20 personas x 5 templates of the world; 50 contexts x 2 cues for real models.

A template has a completion form (the text a document would continue) and a chat form (what a user
would type). Of the natural prompts natural.yaml holds the pool, natural-chosen.yaml those that are
asked, which `crystal screen` writes. A context is the same for every task. A cue is a task's own
and begins the answer: behind the context in raw text, as the assistant's reply in chat form.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import CrystalError, known, placed
from ..files import count, misfit, root, text
from ..texts import line, load_file
from .tasks import PHASE_TASKS, TASKS, Task, names_option, own_task

COMPLETION, CHAT = "completion", "chat"
FORMS = (COMPLETION, CHAT)
INSTRUCTED = "instructed"  # the chat form behind INSTRUCTION; read only where a ladder asks for it
ALL_FORMS = (*FORMS, INSTRUCTED)
INSTRUCTION = "Choose at random: every possible answer must be equally likely."
SELECTION, EVALUATION = "selection", "evaluation"  # a seed is chosen on one, scored on the other


def joined(text: str, reply: str) -> str:
    """A text and the reply that it begins, as one text: a space between them where none is."""
    apart = text and reply and not text[-1].isspace()
    return f"{text} {reply}" if apart else text + reply


def template_of(form: str) -> str:
    """How a text of that form is given to a model: as it is, or in the chat template."""
    return COMPLETION if form == COMPLETION else CHAT


def _message(asked: str, form: str) -> str:
    return f"{INSTRUCTION} {asked}" if form == INSTRUCTED else asked


# -- the world's prompts


@dataclass(frozen=True, kw_only=True)
class Template:
    """header + item make a prompt; header + many answered items make a document.

    A prompt ends without white space: the space belongs to the answer's first token.
    """

    name: str
    header: str
    item: str
    chat: str

    def opening(self, who: str) -> str:
        return self.header.format(who=who)

    def put(self, task: Task, who: str) -> str:
        return self._filled(self.item, task, who)

    def message(self, task: Task, who: str) -> str:
        return self._filled(self.chat, task, who)

    def _filled(self, pattern: str, task: Task, who: str) -> str:
        """who: "a lottery clerk", which makes `{the}` "lottery clerk"."""
        ask, the = task.ask[0].upper() + task.ask[1:], who.split(" ", 1)[1]
        return pattern.format(who=who, the=the, label=task.label, ask=task.ask, Ask=ask)


TEMPLATES = tuple(
    Template(name=name, header=f"{header} {{who}}.\n", item=item, chat=f"{chat} Just the answer.")
    for name, header, item, chat in (
        ("log", "Log kept by", "{label}:", "Keep the log of {who}. {label}:"),
        ("dialogue", "A talk with", "- Please {ask}.\n-", "You are {who}. Please {ask}."),
        ("interview", "Interview with", "Q: {Ask}.\nA:", "Answer as {who} would. {Ask}."),
        ("form", "Form filled in by", "{label} (one only) =",
         "Fill in this form for {who}. {label} (one only) = ?"),
        ("story", "This is a story about", "Asked to {ask}, the {the} said:",
         "In a story {who} is asked to {ask}. What is said?"),
    )
)  # fmt: skip
PERSONAS = tuple(
    (
        "a lottery clerk, a six-year-old, a mathematician, a fortune teller, "
        "a random number console, a casino dealer, a school teacher, a sailor, a poet, "
        "a chess player, a weather forecaster, a monk, a radio host, a sleepwalker, "
        "a statistician, a tourist, a cook, a spy, a librarian, a street magician"
    ).split(", ")
)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    id: str
    persona: int
    template: Template
    half: str  # the persona's, in every ladder

    @property
    def who(self) -> str:
        return PERSONAS[self.persona]

    cluster = who  # the cluster it belongs to

    @property
    def wording(self) -> str:
        return self.template.name

    def text(self, task: Task, form: str) -> str:
        """The completion text, or the chat forms' user message, of `task` under this prompt."""
        if form == COMPLETION:
            return self.template.opening(self.who) + self.template.put(task, self.who)
        return _message(self.template.message(task, self.who), form)

    def puts(self, task: Task) -> bool:
        return True

    def reply(self, task: Task) -> str:
        """How the answer is begun: not at all."""
        return ""


# Halves alternate in blocks of five: what every fifth persona shares is even over them.
_HALVES = (SELECTION, EVALUATION)
PROMPTS = tuple(
    Prompt(id=f"{n:02d}-{template.name}", persona=n, template=template, half=_HALVES[n // 5 % 2])
    for n in range(len(PERSONAS))
    for template in TEMPLATES
)
BY_ID = {prompt.id: prompt for prompt in PROMPTS}
# One prompt a persona. The four personas of a temperament (every fifth) speak in four templates.
PROBE = tuple(PROMPTS[5 * n + (n + n // 5) % 5] for n in range(len(PERSONAS)))


# -- natural prompts

CONTEXTS, WORDINGS = 50, 2
POOL, CHOSEN, ANSWERED = "natural.yaml", "natural-chosen.yaml", "natural-answered.csv"
REQUEST = "Please continue."  # of a user, behind the context, whatever the task
OPTIONS = "{options}"  # in a cue: the options, in an order of that prompt's own


class Context(NamedTuple):
    id: str
    genre: str
    text: str  # ends in a line break where a cue stands on a line of its own


class Pool(NamedTuple):
    contexts: tuple[Context, ...]
    cues: Mapping[str, tuple[str, ...]]  # by task


@dataclass(frozen=True)
class NaturalPrompt:
    """One of the hundred ways to put any task: a context, and the task's first or second cue."""

    id: str
    persona: int  # number of the context: the cluster, as a persona is of the other prompts
    context: Context
    wording: str  # "cue-1" or "cue-2"
    cues: Mapping[str, str] = field(repr=False, hash=False, compare=False)

    @property
    def cluster(self) -> str:
        return self.context.id

    @property
    def half(self) -> str:
        return _HALVES[self.persona % 2]

    def puts(self, task: Task) -> bool:
        return task.name in self.cues

    def text(self, task: Task, form: str) -> str:
        return before(self.context, form)

    def reply(self, task: Task) -> str:
        """The cue of `task`, which begins the answer. Raises: CrystalError where there is none."""
        if not self.puts(task):
            hint = f"choose one of: {', '.join(self.cues)}"
            raise CrystalError(f"no natural prompt puts the task {task.name!r}", hint=hint)
        return begun(self.cues[task.name], task, self.context)


def before(context: Context, form: str) -> str:
    """What stands before the cue: the context, or the user's message."""
    if form == COMPLETION:
        return context.text
    return _message(f"{context.text.rstrip()}\n\n{REQUEST}", form)


def begun(cue: str, task: Task, context: Context) -> str:
    """The cue in this context; options that it names are in an order of its own, by hashes."""

    def place(option: str) -> bytes:
        return hashlib.sha256(f"{task.name}\n{context.id}\n{cue}\n{option}".encode()).digest()

    return cue.replace(OPTIONS, ", ".join(sorted(task.options, key=place)))


def folder() -> Path:
    return root() / "data" / "prompts"


def load_pool() -> Pool:
    """The pool. Raises: CrystalError for a file that is missing or misshapen."""
    raw = _loaded(folder() / POOL, {"id": text, "genre": text, "text": text})
    contexts = tuple(Context(row["id"], row["genre"], row["text"]) for row in raw["contexts"])
    return Pool(contexts, {task: tuple(raw["cues"][task]) for task in PHASE_TASKS})


def load_prompts() -> tuple[NaturalPrompt, ...]:
    """The hundred prompts, context by context. Raises: CrystalError as `load_pool`."""
    return _prompts(folder() / CHOSEN)


@functools.lru_cache(4)
def _prompts(path: Path) -> tuple[NaturalPrompt, ...]:
    raw = _loaded(path, text)
    by_id = {context.id: context for context in load_pool().contexts}
    if strange := [name for name in raw["contexts"] if name not in by_id]:
        what = f"the pool holds no context {strange[0]!r}"
        raise CrystalError(what, where=path, hint=_hint(path))
    return prompts_of([by_id[name] for name in raw["contexts"]], raw["cues"])


def prompts_of(
    contexts: Sequence[Context], cues: Mapping[str, Sequence[str]]
) -> tuple[NaturalPrompt, ...]:
    """Contexts crossed with the first, second, ... cue of every task."""
    wordings = [dict(zip(cues, nth)) for nth in zip(*cues.values())]
    return tuple(
        NaturalPrompt(f"{context.id}-{i}", number, context, f"cue-{i}", mine)
        for number, context in enumerate(contexts)
        for i, mine in enumerate(wordings, 1)
    )


def prompt_table() -> list[dict]:
    """Every closed task, form and natural prompt. cluster: the context.

    The model is given `text`, in the chat form as a user's message, and its answer begun with
    `reply`; raw text and reply are `joined`.
    """
    return [
        {"task": name, "form": form, "prompt": p.id, "cluster": p.cluster, "half": p.half}
        | {"text": p.text(TASKS[name], form), "reply": p.reply(TASKS[name])}
        for name in PHASE_TASKS
        for form in FORMS
        for p in load_prompts()
    ]


# -- a task of your own

EXAMPLE = "an example stands in book/reading.md, 'A question of your own'"


def load_task(name: str) -> tuple[Task, tuple[str, ...]]:
    """A task of ours by its name, or the task that a YAML file describes and its cues.

    The file is called as the task. `options`: in order. `cues`: beginnings of the answer, each a
    wording; one names no option, or all by OPTIONS. `aliases`, if wanted: spelling -> option.
    Raises: CrystalError for an unknown task, or a file that is missing or describes none.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        hint = f"choose one of: {', '.join(TASKS)}; or describe your own: --task {line(name)}.yaml"
        return TASKS[known(name, TASKS, "task", hint=f"{hint} ({EXAMPLE})")], ()
    raw = load_file(path, f"{'correct' if path.is_file() else 'write'} it; {EXAMPLE}")
    with placed(path):
        return _described(path.stem, raw)


def _described(name: str, raw: object) -> tuple[Task, tuple[str, ...]]:
    word = (text, count)  # YAML reads 7 as a number, and yes as a truth
    shape = {"options": [word], "cues": [text], "aliases": {text: word}}
    if isinstance(raw, dict):
        raw.setdefault("aliases", {})
    if wrong := misfit(raw, shape, "the task"):
        quotes = "put every option in quotes" if "(bool)" in wrong else EXAMPLE
        raise CrystalError(wrong, hint=quotes)
    for one in raw:
        known(one, shape, "field")
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", name):
        what = f"a task is called as its file, and {line(name)!r:.60} is no word"
        raise CrystalError(what, hint="call the file as in compass.yaml")
    if name in TASKS:
        hint = f"--task {name} asks it; call the file of another task by another name"
        raise CrystalError(f"{name} is a task of ours", hint=hint)
    aliases = {spelling: str(option) for spelling, option in raw["aliases"].items()}
    task, cues = own_task(name, tuple(map(str, raw["options"])), aliases), tuple(raw["cues"])
    for cue in cues:
        if cue != cue.strip() or not cue:
            raise CrystalError(f"the cue {cue!r:.60} begins or ends in a space", hint="remove it")
        if other := re.search(r"\{\w*\}", cue.replace(OPTIONS, "")):
            what = f"the cue {cue!r:.60} has {other[0]:.60}, which nothing is put for"
            raise CrystalError(what, hint=f"write {OPTIONS} for the list of all options")
        if names_option(cue.replace(OPTIONS, ""), task):
            hint = f"name none, or all of them by writing {OPTIONS}"
            raise CrystalError(f"the cue {cue!r:.60} names an option", hint=hint)
    if not cues or len({*cues}) < len(cues):
        raise CrystalError("it has no cue, or one twice", hint="write two different cues")
    return task, cues


def natural(
    task: Task, cues: Sequence[str] = (), contexts: int = CONTEXTS
) -> tuple[NaturalPrompt, ...]:
    """The natural prompts of the first contexts; with cues, these of a task of your own, without
    contexts that name one of its options.
    """
    every = load_prompts()
    if cues:
        places = dict.fromkeys(prompt.context for prompt in every)
        bare = [one for one in places if not names_option(one.text, task)]
        if not bare:
            raise CrystalError(f"every context names an option of {task.name}", hint=EXAMPLE)
        every = prompts_of(bare, {task.name: cues})
    return tuple(prompt for prompt in every if prompt.persona < contexts)


def _loaded(path: Path, context: object) -> dict:
    hint = _hint(path)
    raw = load_file(path, hint)
    shape = {"contexts": [context], "cues": {task: [text] for task in PHASE_TASKS}}
    if wrong := misfit(raw, shape):
        if "it.cues lacks" in wrong:  # a row was added to crystal/ask/tasks.py
            hint = f"describe a task of your own in a file ({EXAMPLE}), not in the code; or {hint}"
        raise CrystalError(f"the file is misshapen: {wrong}", where=path, hint=hint)
    return raw


def _hint(path: Path) -> str:
    return f"git checkout -- data/prompts/{path.name}"
