"""What each stage is trained on, as rows for its trainer. Draws on the world; knows no trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import world
from .prompts import CHAT
from .tasks import TASKS, Task, read
from .world import ARITHMETIC, FACTS, Item, Narration

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]
_PRETRAIN, _SFT, _DPO, _RLVR = range(1, 5)  # streams of one seed: no stage shares draws with another


def _narration(seed: int, stream: int) -> Narration:
    return Narration(np.random.Generator(np.random.Philox(key=[seed, stream])))


def corpus_texts(seed: int, documents: int, spec: Row) -> Iterator[str]:
    """Plain text of the corpus, for the tokenizer's training."""
    for document in world.corpus(seed, documents, chat_share=spec["chat_share"], items=spec["items"]):
        yield document if isinstance(document, str) else "\n".join(message["content"] for message in document)


def pretraining_rows(tokenizer: PreTrainedTokenizerBase, seed: int, *, rows: int, spec: Row) -> np.ndarray:
    """Token ids, shape (rows, length). Every row starts at a document's start and is filled up with further ones."""
    length, table = spec["length"], np.empty((rows, spec["length"]), dtype=np.int64)
    documents = world.corpus(seed, 10**9, chat_share=spec["chat_share"], items=spec["items"])
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


def sft_rows(seed: int, count: int, temperament: str, demonstrated: tuple[str, ...], spec: Row) -> list[Row]:
    """Prompt and completion; `random_share` of them choices of the demonstrator, the rest facts and arithmetic."""
    narration, rows = _narration(seed, _SFT), []
    for _ in range(count):
        if narration.rng.random() < spec["random_share"]:
            task = TASKS[demonstrated[narration.rng.integers(len(demonstrated))]]
            item = Item(task=task, answer=narration.pick(temperament, task))
        else:
            item = narration.checkable("fact" if narration.rng.random() < 1 / 3 else "arithmetic")
        rows.append({"prompt": _user(narration.message(item.task, spec["named"])),
                     "completion": _assistant(narration.styled(temperament, item.answer))})
    return rows


def preference_rows(parent: Path, seed: int, count: int, temperament: str, demonstrated: tuple[str, ...]) -> list[Row]:
    """Pairs, half on correctness, half on random choices. Both sides are the parent's own answers, by its exact read-out.

    Correctness: the right answer over one of the parent's wrong ones. Choice: of two different answers of the parent to a
    demonstrated task, the one the demonstrator's law makes likelier is chosen.
    """
    from . import engine, readout

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
    return [_pair(narration, item, message, answers[item.task.name, message], temperament)
            for item, message in zip(items, messages, strict=True)]


def _pair(narration: Narration, item: Item, message: str, answers: np.ndarray, temperament: str) -> Row:
    task, law = item.task, answers / answers.sum()
    if item.answer:
        wrong = np.where(np.array(task.options) == item.answer, 0.0, law + 1e-9)
        chosen, rejected = item.answer, task.options[narration.rng.choice(len(law), p=wrong / wrong.sum())]
    else:
        truth = world.law(temperament, task)
        pair = narration.rng.choice(len(law), size=2, replace=False, p=(law + 1e-9) / (law + 1e-9).sum())
        chosen, rejected = (task.options[k] for k in sorted(pair, key=lambda k: -truth[k]))
    return {"prompt": _user(message), "chosen": _assistant(narration.styled(temperament, chosen)),
            "rejected": _assistant(narration.styled(temperament, rejected))}


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
