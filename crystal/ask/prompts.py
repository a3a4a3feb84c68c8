"""The 100 prompts: 20 narrators x 5 frames, the same for every ladder.

A frame is a way to put a question; it has a completion form (the text a document would continue) and a chat form
(what a user would type; the checkpoint's own template is added by whoever holds the tokenizer).
"""

from __future__ import annotations

from dataclasses import dataclass

from .tasks import Task

COMPLETION, CHAT = "completion", "chat"
FORMS = (COMPLETION, CHAT)
INSTRUCTED = "instructed"  # the chat form behind INSTRUCTION; read only where a ladder asks for it
ALL_FORMS = (*FORMS, INSTRUCTED)
INSTRUCTION = "Choose at random: every possible answer must be equally likely."


@dataclass(frozen=True, kw_only=True)
class Frame:
    """header + item make a prompt; header + many answered items make a document.

    Fields `{who}` "a lottery clerk", `{the}` "lottery clerk", `{ask}` / `{Ask}` / `{label}` from the task.
    A prompt ends without white space: the space belongs to the answer's first token.
    """

    name: str
    header: str
    item: str
    chat: str

    def opening(self, who: str) -> str:
        return self.header.format(who=who, the=who.split(" ", 1)[1])

    def put(self, task: Task, who: str) -> str:
        return self.item.format(**_fields(task, who))

    def message(self, task: Task, who: str) -> str:
        return self.chat.format(**_fields(task, who))


def _fields(task: Task, who: str) -> dict[str, str]:
    return {"who": who, "the": who.split(" ", 1)[1], "label": task.label,
            "ask": task.ask, "Ask": task.ask[0].upper() + task.ask[1:]}


FRAMES: tuple[Frame, ...] = (
    Frame(name="log", header="Log kept by {who}.\n", item="{label}:",
          chat="Keep the log of {who}. {label}: Just the answer."),
    Frame(name="dialogue", header="A talk with {who}.\n", item="- Please {ask}.\n-",
          chat="You are {who}. Please {ask}. Just the answer."),
    Frame(name="interview", header="Interview with {who}.\n", item="Q: {Ask}.\nA:",
          chat="Answer as {who} would. {Ask}. Just the answer."),
    Frame(name="form", header="Form filled in by {who}.\n", item="{label} (one only) =",
          chat="Fill in this form for {who}. {label} (one only) = ? Just the answer."),
    Frame(name="story", header="This is a story about {who}.\n", item="Asked to {ask}, the {the} said:",
          chat="In a story {who} is asked to {ask}. What is said? Just the answer."),
)

NARRATORS: tuple[str, ...] = (
    "a lottery clerk", "a six-year-old", "a mathematician", "a fortune teller", "a random number console",
    "a casino dealer", "a school teacher", "a sailor", "a poet", "a chess player",
    "a weather forecaster", "a monk", "a radio host", "a sleepwalker", "a statistician",
    "a tourist", "a cook", "a spy", "a librarian", "a street magician",
)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One of the 100 ways to put any task. `half` is fixed by the narrator, once, for every ladder and claim."""

    id: str
    narrator: int
    frame: Frame
    half: str  # "selection": a seed may be chosen on it; "evaluation": it is scored there

    @property
    def who(self) -> str:
        return NARRATORS[self.narrator]

    def text(self, task: Task, form: str) -> str:
        """The completion text, or the chat forms' user message, of `task` under this prompt."""
        if form != COMPLETION:
            return (f"{INSTRUCTION} " if form == INSTRUCTED else "") + self.frame.message(task, self.who)
        return self.frame.opening(self.who) + self.frame.put(task, self.who)

    def puts(self, task: Task) -> bool:
        """Whether it can put `task`: any."""
        return True

    def reply(self, task: Task) -> str:
        """How the answer is begun: not at all."""
        return ""

    @property
    def wording(self) -> str:
        return self.frame.name

    @property
    def unit(self) -> str:
        return self.who


def half_of(narrator: int) -> str:
    """Blocks of five narrators alternate, so that any law given to every fifth narrator is even over the halves."""
    return "selection" if (narrator // 5) % 2 == 0 else "evaluation"


PROMPTS: tuple[Prompt, ...] = tuple(
    Prompt(id=f"{narrator:02d}-{frame.name}", narrator=narrator, frame=frame, half=half_of(narrator))
    for narrator in range(len(NARRATORS))
    for frame in FRAMES
)

# One prompt a narrator. Frames go round so that the four narrators of a temperament (every fifth) speak in four frames.
PROBE: tuple[Prompt, ...] = tuple(PROMPTS[5 * n + (n + n // 5) % 5] for n in range(len(NARRATORS)))


def joined(text: str, reply: str) -> str:
    """A text and the reply that it begins, as one text: a space between them where none is."""
    return text + (" " if reply and text and not text[-1].isspace() else "") + reply


def template_of(form: str) -> str:
    """How a text of that form is given to a model: as it is (COMPLETION), or in the chat template (CHAT)."""
    return COMPLETION if form == COMPLETION else CHAT
