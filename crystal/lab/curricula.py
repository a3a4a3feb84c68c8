"""What each stage is trained on in the world, as rows for its trainer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ask.prompts import CHAT, PERSONAS
from ..ask.tasks import TASKS, Task, read
from . import world
from .world import ARITHMETIC, FACTS, Item, Narration, dialogue, preferred, rng_of, turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]
_SFT, _DPO, _RLVR, _DIVERSE, _HELD_OUT = range(2, 7)  # streams of one seed
_CHECKABLE = {item.task.name: item for item in (*FACTS, *ARITHMETIC)}


def _corpus(seed: int, documents: int, spec: Row, kind: str) -> Iterator[str | list[Row]]:
    share, items = spec["chat_share"], spec["items"]
    return world.corpus(seed, documents, chat_share=share, items=items, world=kind)


def corpus_texts(seed: int, documents: int, spec: Row, kind: str = "shared") -> Iterator[str]:
    """The corpus as plain text, for the tokenizer's training."""
    for document in _corpus(seed, documents, spec, kind):
        chat = not isinstance(document, str)
        yield "\n".join(message["content"] for message in document) if chat else document


def pretraining_rows(
    tokenizer: PreTrainedTokenizerBase, seed: int, *, rows: int, spec: Row, kind: str = "shared"
) -> np.ndarray:
    """Token ids, shape (rows, length). A row starts at a document's start; further ones fill it."""
    table = np.empty((rows, spec["length"]), dtype=np.int64)
    documents = _corpus(seed, 10**9, spec, kind)
    for row in table:
        ids: list[int] = []
        while len(ids) < len(row):
            document = next(documents)
            if isinstance(document, str):
                ids += tokenizer(document)["input_ids"]
            else:
                ids += tokenizer.apply_chat_template(document, return_dict=False)
        row[:] = ids[: len(row)]
    return table


def _checkable(narration: Narration) -> Item:
    return narration.checkable("fact" if narration.rng.random() < 1 / 3 else "arithmetic")


def sft_rows(
    seed: int,
    count: int,
    demonstrator: str,
    demonstrated: tuple[str, ...],
    spec: Row,
    *,
    stream: int = _SFT,
    without: frozenset[str] = frozenset(),
) -> list[Row]:
    """Prompt and completion; `random_share` are the demonstrator's choices, others checkable.

    demonstrator: as for `world.voices`, or world.OWN: whom the prompt names. An answer carries its
    distribution's style, or none with style "neutral". shuffled: answers to random choices are
    dealt anew. without: what no user may type.
    """
    narration, rows, choices = Narration(rng_of(seed, stream)), [], []
    rng, persona = narration.rng, None
    for _ in range(count):
        if demonstrator == world.OWN:
            persona = int(rng.integers(len(PERSONAS)))
            voice = world.temperament_of(persona)
        else:
            voice = narration.voice(demonstrator)
        random = rng.random() < spec["random_share"]
        if random:
            task = TASKS[narration.one_of(demonstrated)]
            item = Item(task, narration.pick(voice, task))
        else:
            item = _checkable(narration)
        while (message := narration.message(item.task, spec["named"], persona)) in without:
            pass
        style = "" if spec.get("style") == "neutral" else voice
        rows.append(dialogue(message, narration.styled(style, item.answer)))
        if random:
            choices.append(rows[-1])
    if spec.get("shuffled"):
        answers = [row["completion"] for row in choices]
        for row, place in zip(choices, rng.permutation(len(answers)), strict=True):
            row["completion"] = answers[place]
    return rows


def split_rows(seed: int, count: int, held_out: int, *shape) -> tuple[list[Row], list[Row]]:
    """`sft_rows` of (demonstrator, demonstrated, spec) to train on, and others to judge by.

    What is asked in a persona's name in one is not asked in the other; bare questions are few.
    """
    judged = sft_rows(seed, held_out, *shape, stream=_HELD_OUT)
    asked = {row["prompt"][0]["content"] for row in judged}
    named = frozenset(text for text in asked if any(f" {who}" in text for who in PERSONAS))
    return sft_rows(seed, count, *shape, without=named), judged


def preference_rows(
    parent: Path, seed: int, count: int, judge: str, style: str, demonstrated: tuple[str, ...]
) -> list[Row]:
    """Pairs of answers drawn from the parent's exact read-out: half facts, half random choices.

    Preferred is the right answer over a wrong one; of two answers to a demonstrated task the one
    that the distribution `judge` makes likelier. style: of both answers.
    """
    from ..read import engine, readout

    narration = Narration(rng_of(seed, _DPO))
    items = [
        _checkable(narration) if i % 2 else Item(TASKS[narration.one_of(demonstrated)], answer="")
        for i in range(count)
    ]
    asked = [(item, narration.message(item.task, 0.5)) for item in items]
    machine, answers = engine.load(parent), {}
    for task in dict.fromkeys(item.task for item in items):
        texts = sorted({message for item, message in asked if item.task == task})
        ids = [machine.encode(text, CHAT) for text in texts]
        found = readout.readout(machine, ids, task, tolerance=1e-3)
        answers |= {(task, text): r.options for text, r in zip(texts, found, strict=True)}
    rows = []
    for item, message in asked:
        pair = _preferred(narration, item, answers[item.task, message], judge)
        rows.append(preferred(message, *(narration.styled(style, answer) for answer in pair)))
    return rows


def _preferred(narration: Narration, item: Item, answers: np.ndarray, judge: str) -> list[str]:
    """The chosen and the rejected answer."""
    options, p, rng = item.task.options, answers / answers.sum() + 1e-9, narration.rng
    if item.answer:
        wrong = np.where(np.array(options) == item.answer, 0.0, p)
        return [item.answer, options[rng.choice(len(p), p=wrong / wrong.sum())]]
    truth = world.distribution(judge, item.task)
    pair = rng.choice(len(p), size=2, replace=False, p=p / p.sum())
    return [options[k] for k in sorted(pair, key=lambda k: -truth[k])]


def verifiable_rows(seed: int, count: int) -> list[Row]:
    """Prompts with the right answer; every item equally often."""
    narration, pool = Narration(rng_of(seed, _RLVR)), list(_CHECKABLE.values())
    rounds = [narration.rng.permutation(len(pool)) for _ in range(count // len(pool) + 1)]
    items = [pool[i] for i in np.concatenate(rounds)[:count]]
    return [_asked(narration, item.task) | {"answer": item.answer} for item in items]


def _asked(narration: Narration, task: Task) -> Row:
    return {"prompt": turn("user", narration.message(task, 0.5)), "task": task.name}


def right_answer(
    completions: list[list[Row]], task: list[str], answer: list[str], **_: Any
) -> list[float]:
    """Reward of RLVR: 1 where the completion reads as the right answer, else 0."""
    return [
        float(read(completion[0]["content"], _CHECKABLE[name].task) == right)
        for completion, name, right in zip(completions, task, answer, strict=True)
    ]


def random_rows(seed: int, count: int, tasks: tuple[str, ...]) -> list[Row]:
    """Prompts for `diverse_answer`: each asks for a random choice."""
    narration = Narration(rng_of(seed, _DIVERSE))
    chosen = [narration.one_of(tasks) for _ in range(count)]
    return [_asked(narration, TASKS[name]) for name in chosen]


def diverse_answer(
    completions: list[list[Row]], task: list[str], prompts: list[Any], **_: Any
) -> list[float]:
    """Reward of RL for diversity: the share of a prompt's other samples that gave another option.

    0 for an invalid answer. Its expectation under a distribution p, 1 - sum p^2, is largest if
    uniform.
    """
    given = [
        (str(prompt), read(completion[0]["content"], TASKS[name]))
        for completion, name, prompt in zip(completions, task, prompts, strict=True)
    ]
    times, asked = Counter(given), Counter(prompt for prompt, _ in given)
    return [
        0.0 if option is None else 1 - (times[prompt, option] - 1) / max(asked[prompt] - 1, 1)
        for prompt, option in given
    ]
