"""What a real base is post-trained on: instructions made by templates, and what to answer.

`data/instructions/templates.yaml` holds the templates and their words, `answers.jsonl` what a real
aligned teacher said to the open ones. Of the rest the right answer is known by rule. The functions
stand in for those of `curricula`, by the same names. Knows no trainer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .. import texts
from ..ask import natural
from ..ask.tasks import TASKS
from ..errors import CrystalError
from ..files import root
from ..fits import misfit, text
from . import world

Row = dict[str, Any]
SHORT = 1 / 3  # share of SFT's rows that ask for a word or a number and get just that
SFT, HELD_OUT, DPO, RLVR, TEST = range(1, 6)  # streams of one seed
_TEACHER = {"prompt": text, "answer": text}


def stream(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, 100 + number]))


def folder() -> Path:
    return root() / "data" / "instructions"


def templates() -> dict[str, Any]:
    """The file of templates, parsed."""
    path, mend = folder() / "templates.yaml", "git checkout -- data/instructions"
    return _parsed(texts.read_text(path, mend), path, mend)


@lru_cache(maxsize=4)
def _parsed(content: str, path: Path, mend: str) -> dict[str, Any]:
    return texts.parse_yaml(content, path, mend)


def open_prompts() -> list[str]:
    """Every instruction that a teacher is asked, each once, in the order of the file."""
    told = templates()
    about = [line.format(topic=topic) for line in told["open"] for topic in told["topics"]]
    return about + [line.format(sentence=s) for line in told["rewrite"] for s in told["sentences"]]


def answers() -> dict[str, str]:
    """Open instruction -> what the teacher answered, whole sentences only.

    Raises: CrystalError where a line is no such pair, or the teacher was never asked.
    """
    path, mend = folder() / "answers.jsonl", "git checkout -- data/instructions"
    if not path.is_file():
        raise CrystalError("the teacher was not asked yet", where=path, mend=mend)
    rows = [texts.parse_json(line, path, mend) for line in texts.read_text(path, mend).splitlines()]
    if wrong := misfit(rows, [_TEACHER], "the answers"):
        raise CrystalError(wrong, where=path, mend=mend)
    return {row["prompt"]: row["answer"] for row in rows}


def taught() -> list[tuple[str, str]]:
    """Open instructions with the teacher's answers, without those that have no whole sentence.

    Raises: CrystalError while the teacher has not been asked all of them.
    """
    said, asked = answers(), open_prompts()
    if missing := sum(prompt not in said for prompt in asked):
        raise CrystalError(f"{missing} of {len(asked)} instructions were not put to the teacher yet",
                           where=folder() / "answers.jsonl", mend="make ladder LADDER=gemma3-270m")
    return [(prompt, said[prompt]) for prompt in asked if said[prompt]]


def whole_sentences(said: str) -> str:
    """What was said, up to the end of its last whole sentence; nothing if it has none."""
    said = said.strip()
    ends = [match.end() for match in re.finditer(r"[.!?][\"')]*(?=\s|$)", said)]
    ends = [end for end in ends if not re.search(r"(^|\s)\d+\.$", said[:end])]  # "2." of a list
    return said[: ends[-1]] if ends else ""


# --- with one right answer ------------------------------------------------------------------------


def _numbers(rng: np.random.Generator, told: dict) -> Row:
    a, b = sorted(int(n) for n in rng.choice(np.arange(2, 100), 2, replace=False))
    return {"a": a, "b": b, "turned": bool(rng.random() < 0.5)}


def _pair(table: str) -> Callable[[np.random.Generator, dict], Row]:
    def drawn(rng: np.random.Generator, told: dict) -> Row:
        word = list(told[table])[rng.integers(len(told[table]))]
        return {"w": word, "answer": told[table][word]}

    return drawn


def _word(rng: np.random.Generator, told: dict) -> Row:
    v, w = (str(word) for word in rng.choice(told["words"], 2, replace=False))
    return {"v": v, "w": w}


def _group(rng: np.random.Generator, told: dict) -> Row:
    one, other = (str(name) for name in rng.choice(list(told["groups"]), 2, replace=False))
    mine = (one, other)[rng.integers(2)]
    return {"w": str(rng.choice(told["groups"][mine])), "one": one, "other": other, "answer": mine}


def _row(rng: np.random.Generator, told: dict) -> Row:
    start, step = int(rng.integers(1, 30)), int(rng.integers(2, 12))
    numbers = [start + step * k for k in range(5)]
    return {"row": ", ".join(map(str, numbers[:4])), "answer": str(numbers[4])}


_KINDS: dict[str, tuple[Callable[[np.random.Generator, dict], Row], Callable[[Row], str]]] = {
    "sum": (_numbers, lambda x: str(x["a"] + x["b"])),
    "difference": (_numbers, lambda x: str(x["b"] - x["a"])),
    "product": (_numbers, lambda x: str(x["a"] * x["b"])),
    "larger": (_numbers, lambda x: str(max(x["a"], x["b"]))),
    "smaller": (_numbers, lambda x: str(min(x["a"], x["b"]))),
    "greater": (_numbers, lambda x: "yes" if x["a"] > x["b"] else "no"),
    "next": (_row, lambda x: x["answer"]),
    "letters": (_word, lambda x: str(len(x["w"].replace(" ", "")))),
    "opposite": (_pair("opposites"), lambda x: x["answer"]),
    "capital": (_pair("capitals"), lambda x: x["answer"]),
    "plural": (_pair("plurals"), lambda x: x["answer"]),
    "past": (_pair("pasts"), lambda x: x["answer"]),
    "group": (_group, lambda x: x["answer"]),
    "longer": (_word, lambda x: max(x["v"], x["w"], key=len)),
    "capitals": (_word, lambda x: x["w"].upper()),
    "repeat": (_word, lambda x: x["w"]),
}
_TURNED = ("larger", "smaller", "greater")  # asked in either order


def checkable(rng: np.random.Generator) -> Row:
    """An instruction with one right answer, a word or a number: kind, prompt, answer."""
    told = templates()
    while True:
        kind = list(_KINDS)[rng.integers(len(_KINDS))]
        draw, right = _KINDS[kind]
        found = draw(rng, told)
        if found.get("turned") and kind in _TURNED:
            found |= {"a": found["b"], "b": found["a"]}
        if kind == "longer" and len(found["v"]) == len(found["w"]):
            continue  # neither is
        line = told["short"][kind][rng.integers(len(told["short"][kind]))]
        return {"kind": kind, "prompt": line.format(**found), "answer": right(found)}


def said_right(said: str, answer: str) -> bool:
    """Whether a reply is the right word or number and nothing else; case counts only if the answer
    is in capitals.
    """
    said = said.strip().strip("\"'*.! ")
    return said == answer if answer.isupper() else said.casefold() == answer.casefold()


# --- rows for the trainers ------------------------------------------------------------------------


def _dialogue(prompt: str, answer: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def _choice(
    rng: np.random.Generator, law: str, demonstrated: tuple[str, ...], style: str = ""
) -> Row:
    """A random choice in one of the contexts that no natural prompt has, answered by a law: with
    `own` every context has one of its own. style "named": nobody chooses, for the user names the
    answer, which is drawn all the same.
    """
    number = int(rng.integers(len(_contexts())))
    task = TASKS[demonstrated[rng.integers(len(demonstrated))]]
    lines = templates()[style or "choice"]
    law = world.LAWS[number % len(world.LAWS)] if law == world.OWN else law
    option = task.options[rng.choice(len(task.options), p=world.law(law, task))]
    line = lines[rng.integers(len(lines))].format(ask=task.ask, option=option)
    return _dialogue(f"{_contexts()[number].rstrip()}\n\n{line}", option)


@lru_cache(maxsize=1)
def _contexts() -> tuple[str, ...]:
    """Of the pool, those in which no read-out is made."""
    asked = {prompt.context.id for prompt in natural.load_prompts()}
    return tuple(one.text for one in natural.load_pool().contexts if one.id not in asked)


def _rows(
    rng: np.random.Generator,
    count: int,
    law: str,
    demonstrated: tuple[str, ...],
    spec: Row,
    pairs: list[tuple[str, str]],
    without: frozenset[str],
) -> list[Row]:
    """SHORT of them checkable, `random_share` of the rest choices by a law, the others open."""
    rows, deck = [], []
    while len(rows) < count:
        if rng.random() < SHORT:
            found = checkable(rng)
            if found["prompt"] not in without:
                rows.append(_dialogue(found["prompt"], found["answer"]))
        elif rng.random() < spec["random_share"]:
            rows.append(_choice(rng, law, demonstrated, spec.get("style", "")))
        else:
            deck = deck or list(rng.permutation(len(pairs)))  # each once before any twice
            rows.append(_dialogue(*pairs[deck.pop()]))
    return rows


def split_rows(
    seed: int,
    count: int,
    held_out: int,
    demonstrator: str,
    demonstrated: tuple[str, ...],
    spec: Row,
) -> tuple[list[Row], list[Row]]:
    """Prompt and completion: rows to train on, and others of the same mixture to judge by.

    No instruction is in both, but for the few ways to ask for a demonstrated choice.
    """
    every, aside = taught(), stream(seed, HELD_OUT)
    order = aside.permutation(len(every))
    kept = [every[k] for k in order[:held_out]]
    shape = demonstrator, demonstrated, spec
    judged = _rows(aside, held_out, *shape, kept, frozenset())
    asked = frozenset(row["prompt"][0]["content"] for row in judged)
    rest = [every[k] for k in order[held_out:]]
    return _rows(stream(seed, SFT), count, *shape, rest, asked), judged


def sft_rows(
    seed: int, count: int, demonstrator: str, demonstrated: tuple[str, ...], spec: Row
) -> list[Row]:
    """`split_rows` with nothing held out."""
    return split_rows(seed, count, 0, demonstrator, demonstrated, spec)[0]


def verifiable_rows(seed: int, count: int) -> list[Row]:
    """Checkable instructions with their right answers, for RLVR."""
    rng = stream(seed, RLVR)
    found = [checkable(rng) for _ in range(count)]
    return [{"prompt": _dialogue(row["prompt"], "")["prompt"], "answer": row["answer"]}
            for row in found]


def right_answer(completions: list[list[Row]], answer: list[str], **_: Any) -> list[float]:
    """Reward of RLVR: 1 where the reply is the right word or number and nothing else, else 0."""
    return [float(said_right(reply[0]["content"], right))
            for reply, right in zip(completions, answer, strict=True)]
