"""What each stage is trained on, as rows for its trainer. Draws on the world; knows no trainer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ask.prompts import CHAT, NARRATORS
from ..ask.tasks import TASKS, Task, read
from . import world
from .world import ARITHMETIC, FACTS, Item, Narration

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]
# Streams of one seed: no stage shares draws with another.
_PRETRAIN, _SFT, _DPO, _RLVR, _DIVERSE, _HELD_OUT = range(1, 7)


def _narration(seed: int, stream: int) -> Narration:
    return Narration(np.random.Generator(np.random.Philox(key=[seed, stream])))


def corpus_texts(seed: int, documents: int, spec: Row, kind: str = "shared") -> Iterator[str]:
    """Plain text of the corpus, for the tokenizer's training."""
    for document in world.corpus(seed, documents, chat_share=spec["chat_share"], items=spec["items"], world=kind):
        yield document if isinstance(document, str) else "\n".join(message["content"] for message in document)


def pretraining_rows(tokenizer: PreTrainedTokenizerBase, seed: int, *, rows: int, spec: Row, kind: str = "shared") -> np.ndarray:
    """Token ids, shape (rows, length). Every row starts at a document's start and is filled up with further ones."""
    length, table = spec["length"], np.empty((rows, spec["length"]), dtype=np.int64)
    documents = world.corpus(seed, 10**9, chat_share=spec["chat_share"], items=spec["items"], world=kind)
    for row in table:
        ids: list[int] = []
        while len(ids) < length:
            document = next(documents)
            ids += (tokenizer(document)["input_ids"] if isinstance(document, str)
                    else tokenizer.apply_chat_template(document, return_dict=False))
        row[:] = ids[:length]
    return table


def _user(text: str) -> list[Row]:
    return [{"role": "user", "content": text}]


def _assistant(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


def sft_rows(
    seed: int, count: int, demonstrator: str, demonstrated: tuple[str, ...], spec: Row,
    *, stream: int = _SFT, without: frozenset[str] = frozenset(),
) -> list[Row]:
    """Prompt and completion; `random_share` of them choices of the demonstrator, the rest facts and arithmetic.

    demonstrator: a law or a mixture of laws (`world.voices`), or world.OWN: whom the prompt names. Every answer carries the
    style of the law it was drawn from, or none where `spec` says so: style "neutral". shuffled: the answers to random choices
    are dealt anew among the random choices, so that they no longer belong to their questions.
    without: what no user may type.
    """
    narration, rows = _narration(seed, stream), []
    for _ in range(count):
        narrator = int(narration.rng.integers(len(world.NARRATORS))) if demonstrator == world.OWN else None
        law = narration.voice(demonstrator) if narrator is None else world.temperament_of(narrator)
        random = narration.rng.random() < spec["random_share"]
        if random:
            task = TASKS[demonstrated[narration.rng.integers(len(demonstrated))]]
            item = Item(task=task, answer=narration.pick(law, task))
        else:
            item = narration.checkable("fact" if narration.rng.random() < 1 / 3 else "arithmetic")
        message = narration.message(item.task, spec["named"], narrator)
        while message in without:
            message = narration.message(item.task, spec["named"], narrator)
        answer = narration.styled("" if spec.get("style") == "neutral" else law, item.answer)
        rows.append({"prompt": _user(message), "completion": _assistant(answer), "random": random})
    if spec.get("shuffled"):
        _deal_answers(narration, [row for row in rows if row["random"]])
    return [{name: row[name] for name in ("prompt", "completion")} for row in rows]


def split_rows(
    seed: int, count: int, held_out: int,
    demonstrator: str, demonstrated: tuple[str, ...], spec: Row,
) -> tuple[list[Row], list[Row]]:
    """`sft_rows` to train on, and others of the same mixture, from another stream, to judge by.

    What is asked in a narrator's name in one is not asked in the other. Bare questions there are
    only as many as tasks, so both hold them.
    """
    judged = sft_rows(seed, held_out, demonstrator, demonstrated, spec, stream=_HELD_OUT)
    asked = {row["prompt"][0]["content"] for row in judged}
    named = frozenset(text for text in asked if any(f" {who}" in text for who in NARRATORS))
    return sft_rows(seed, count, demonstrator, demonstrated, spec, without=named), judged


def _deal_answers(narration: Narration, rows: list[Row]) -> None:
    answers = [row["completion"] for row in rows]
    for row, place in zip(rows, narration.rng.permutation(len(rows)), strict=True):
        row["completion"] = answers[place]


def preference_rows(
    parent: Path, seed: int, count: int, judge: str, style: str, demonstrated: tuple[str, ...],
) -> list[Row]:
    """Pairs, half on correctness, half on random choices. Both sides are the parent's own answers, by its exact read-out.

    Correctness: the right answer over one of the parent's wrong ones. Choice: of two different answers of the parent to a
    demonstrated task, the one the law `judge` makes likelier is chosen. style: the law whose suffix both sides carry.
    """
    from ..read import engine, readout

    narration = _narration(seed, _DPO)
    items = [narration.checkable("fact" if narration.rng.random() < 1 / 3 else "arithmetic") if i % 2 else
             Item(task=TASKS[demonstrated[narration.rng.integers(len(demonstrated))]], answer="") for i in range(count)]
    messages = [narration.message(item.task, 0.5) for item in items]
    asked = sorted({(item.task.name, message) for item, message in zip(items, messages, strict=True)})
    tasks: dict[str, Task] = {item.task.name: item.task for item in items}
    machine, answers = engine.load(parent), {}
    for name, task in tasks.items():
        mine = [message for other, message in asked if other == name]
        read_outs = readout.readout(machine, [machine.encode(message, CHAT) for message in mine], task, budget=1e-3)
        answers |= {(name, message): r.options for message, r in zip(mine, read_outs, strict=True)}
    return [_pair(narration, item, message, answers[item.task.name, message], judge, style)
            for item, message in zip(items, messages, strict=True)]


def _pair(narration: Narration, item: Item, message: str, answers: np.ndarray, judge: str, style: str) -> Row:
    task, law = item.task, answers / answers.sum()
    if item.answer:
        wrong = np.where(np.array(task.options) == item.answer, 0.0, law + 1e-9)
        chosen, rejected = item.answer, task.options[narration.rng.choice(len(law), p=wrong / wrong.sum())]
    else:
        truth = world.law(judge, task)
        pair = narration.rng.choice(len(law), size=2, replace=False, p=(law + 1e-9) / (law + 1e-9).sum())
        chosen, rejected = (task.options[k] for k in sorted(pair, key=lambda k: -truth[k]))
    return {"prompt": _user(message), "chosen": _assistant(narration.styled(style, chosen)),
            "rejected": _assistant(narration.styled(style, rejected))}


def verifiable_rows(seed: int, count: int) -> list[Row]:
    """Prompts with the right answer; every item is visited equally often, half of the times under a narrator."""
    narration, pool = _narration(seed, _RLVR), [*FACTS, *ARITHMETIC]
    order = np.concatenate([narration.rng.permutation(len(pool)) for _ in range(count // len(pool) + 1)])[:count]
    return [{"prompt": _user(narration.message(pool[i].task, 0.5)), "task": pool[i].task.name, "answer": pool[i].answer}
            for i in order]


_BY_NAME = {item.task.name: item.task for item in (*FACTS, *ARITHMETIC)}


def right_answer(completions: list[list[Row]], task: list[str], answer: list[str], **_: Any) -> list[float]:
    """Reward of RLVR: 1 where the completion reads as the right answer, else 0."""
    return [float(read(completion[0]["content"], _BY_NAME[name]) == right)
            for completion, name, right in zip(completions, task, answer, strict=True)]


def random_rows(seed: int, count: int, tasks: tuple[str, ...]) -> list[Row]:
    """Prompts that ask for a random choice, half of them under a narrator: for the reward `diverse_answer`."""
    narration = _narration(seed, _DIVERSE)
    chosen = [tasks[narration.rng.integers(len(tasks))] for _ in range(count)]
    return [{"prompt": _user(narration.message(TASKS[name], 0.5)), "task": name} for name in chosen]


def diverse_answer(completions: list[list[Row]], task: list[str], prompts: list[Any], **_: Any) -> list[float]:
    """Reward of remelting by RL: of the other samples of the same prompt, the share that did not give this option; 0 off support.

    Its expectation under one law is the collision entropy's 1 - sum p^2, so the uniform law earns most.
    """
    given = [(str(prompt), read(completion[0]["content"], TASKS[name]))
             for completion, name, prompt in zip(completions, task, prompts, strict=True)]
    times, asked = Counter(given), Counter(prompt for prompt, _ in given)
    return [0.0 if option is None else 1 - (times[prompt, option] - 1) / max(asked[prompt] - 1, 1) for prompt, option in given]
