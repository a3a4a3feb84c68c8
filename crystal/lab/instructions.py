"""What a real base is post-trained on: instructions made by templates, and what to answer.

`data/instructions/templates.yaml` holds the templates, `answers.jsonl` what a real aligned teacher
said to the open ones; the rest have one right answer. Rows are made by functions of the same names
as in `curricula`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .. import texts
from ..ask.ladders import load_ladder
from ..ask.prompts import load_pool, load_prompts
from ..ask.tasks import TASKS
from ..errors import CrystalError
from ..files import root, text
from ..keep.resample import bar
from ..read.checkpoints import converted
from . import world
from .world import dialogue, one_of, preferred, rng_of, turn

Row = dict[str, Any]
SHORT = 1 / 3  # share of SFT's rows that ask for a word or a number and get just that
SFT, HELD_OUT, DPO, RLVR, TEST = range(101, 106)  # streams of one seed
TEACHER = "smollm2-135m-instruct"
TOKENS, BATCH = 64, 32  # at most, of a reply; instructions at a time
_HINT = "git checkout -- data/instructions"


_loaded = lru_cache(maxsize=4)(texts.load_file)


def folder() -> Path:
    return root() / "data/instructions"


def templates() -> dict[str, Any]:
    return _loaded(folder() / "templates.yaml")


# -- open instructions, and a teacher's answers


def open_prompts() -> list[str]:
    """Every instruction that a teacher is asked, each once."""
    known = templates()
    about = [line.format(topic=t) for line in known["open"] for t in known["topics"]]
    given = [line.format(sentence=s) for line in known["rewrite"] for s in known["sentences"]]
    return about + given


def answers() -> dict[str, str]:
    """Open instruction -> what the teacher answered, whole sentences only."""
    path = folder() / "answers.jsonl"
    if not path.is_file():
        raise CrystalError("the teacher was not asked yet", where=path, hint=_HINT)
    rows = texts.load_file(path, _HINT, [{"prompt": text, "answer": text}], "the answers")
    return {row["prompt"]: row["answer"] for row in rows}


def taught() -> list[tuple[str, str]]:
    """Open instructions with the teacher's answers, if not empty; it must have given all."""
    given, asked = answers(), open_prompts()
    if missing := sum(prompt not in given for prompt in asked):
        what = f"{missing} of {len(asked)} instructions were not put to the teacher yet"
        hint = "make ladder LADDER=gemma3-270m"
        raise CrystalError(what, where=folder() / "answers.jsonl", hint=hint)
    return [(prompt, given[prompt]) for prompt in asked if given[prompt]]


def teach() -> None:
    """Ask the teacher what it has not answered yet; a batch is written as it comes."""
    path = folder() / "answers.jsonl"
    done = answers() if path.is_file() else {}
    todo = sorted((prompt for prompt in open_prompts() if prompt not in done), key=len)
    if not todo:
        return
    teacher, asked = load_ladder(TEACHER).checkpoints[-1], iter(todo)
    with bar(len(todo), "teacher", unit="instructions") as shown:
        for batch in replies(converted(teacher.source, teacher.revision)[0], todo):
            with path.open("a", encoding="utf-8") as file:
                for answer, prompt in zip(batch, asked):
                    row = {"prompt": prompt, "answer": whole_sentences(answer)}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
            shown.update(len(batch))


def replies(
    folder: Path, prompts: Sequence[str], *, tokens: int = TOKENS, sample: int | None = None
) -> Iterator[list[str]]:
    """What a checkpoint says to each instruction in its chat form, BATCH at a time.

    sample: a seed, of draws at temperature 1; None: greedy.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval().to(device)
    how: dict[str, Any] = {"do_sample": False, "max_new_tokens": tokens}
    if sample is not None:
        torch.manual_seed(sample)
        how |= {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    form = {"add_generation_prompt": True, "return_dict": True, "padding": True}
    for start in range(0, len(prompts), BATCH):
        asked = [turn("user", prompt) for prompt in prompts[start : start + BATCH]]
        asked = tokenizer.apply_chat_template(asked, **form, return_tensors="pt").to(device)
        with torch.inference_mode():
            ids = model.generate(**asked, **how)
        new = ids[:, asked["input_ids"].shape[1] :]
        yield tokenizer.batch_decode(new, skip_special_tokens=True)


def _drawn(folder: Path, prompts: Sequence[str], tokens: int, seed: int) -> list[str]:
    batches = replies(folder, prompts, tokens=tokens, sample=seed)
    return [reply for batch in batches for reply in batch]


def whole_sentences(reply: str) -> str:
    """A reply up to the end of its last whole sentence; nothing if it has none."""
    reply = reply.strip()
    ends = [match.end() for match in re.finditer(r"[.!?][\"')]*(?=\s|$)", reply)]
    ends = [end for end in ends if not re.search(r"(^|\s)\d+\.$", reply[:end])]  # "2." of a list
    return reply[: ends[-1]] if ends else ""


# -- instructions with one right answer

_NUMBERS = ("sum", "difference", "product", "larger", "smaller", "greater")
_TABLES = ("opposite", "capital", "plural", "past")
_KINDS = (*_NUMBERS, "next", "letters", *_TABLES, "group", "longer", "capitals", "repeat")


def _question(kind: str, rng: np.random.Generator, words: dict) -> tuple[Row, object]:
    """What fills a template of this kind, and the right answer."""
    if kind in _NUMBERS:
        a, b = sorted(int(n) for n in rng.choice(np.arange(2, 100), 2, replace=False))
        right = {"sum": a + b, "difference": b - a, "product": a * b, "larger": b, "smaller": a}
        if rng.random() < 0.5 and kind not in ("sum", "difference", "product"):
            a, b = b, a
        return {"a": a, "b": b}, (right | {"greater": "yes" if a > b else "no"})[kind]
    if kind == "next":
        start, step = int(rng.integers(1, 30)), int(rng.integers(2, 12))
        *row, answer = (str(start + step * k) for k in range(5))
        return {"row": ", ".join(row)}, answer
    if kind in _TABLES:
        word, answer = one_of(rng, list(words[f"{kind}s"].items()))
        return {"w": word}, answer
    if kind == "group":
        one, other = map(str, rng.choice(list(words["groups"]), 2, replace=False))
        mine = one_of(rng, (one, other))
        return {"w": str(rng.choice(words["groups"][mine])), "one": one, "other": other}, mine
    v, w = map(str, rng.choice(words["words"], 2, replace=False))
    right = {"letters": len(w.replace(" ", "")), "longer": max(v, w, key=len)}
    return {"v": v, "w": w}, (right | {"capitals": w.upper(), "repeat": w})[kind]


def checkable(rng: np.random.Generator) -> Row:
    """An instruction with one right answer, a word or a number: kind, prompt, answer."""
    known = templates()
    while True:
        kind = one_of(rng, _KINDS)
        found, right = _question(kind, rng, known)
        if kind == "longer" and len(found["v"]) == len(found["w"]):
            continue  # neither is
        prompt = one_of(rng, known["short"][kind]).format(**found)
        return {"kind": kind, "prompt": prompt, "answer": str(right)}


def said_right(reply: str, answer: str) -> bool:
    """Whether a reply is the right word or number alone; case counts for one in capitals."""
    reply = reply.strip().strip("\"'*.! ")
    return reply == answer if answer.isupper() else reply.casefold() == answer.casefold()


def right_share(folder: Path) -> float:
    """Share of 256 checkable instructions, always the same, that a checkpoint answers rightly.

    One draw each. Those about words may have been trained on.
    """
    rng = rng_of(0, TEST)
    asked = [checkable(rng) for _ in range(256)]
    drawn = _drawn(folder, [row["prompt"] for row in asked], 8, 0)
    pairs = zip(drawn, asked, strict=True)
    return float(np.mean([said_right(reply, row["answer"]) for reply, row in pairs]))


# -- rows for the trainers


def _choice(
    rng: np.random.Generator, temperament: str, demonstrated: tuple[str, ...], style: str = ""
) -> Row:
    """A random choice in a context without a read-out, answered by a temperament or the context's.

    style "named": the user names the answer, which is drawn all the same.
    """
    number = int(rng.integers(len(_contexts())))
    task = TASKS[one_of(rng, demonstrated)]
    if temperament == world.OWN:
        temperament = world.TEMPERAMENTS[number % len(world.TEMPERAMENTS)]
    option = task.options[rng.choice(len(task.options), p=world.distribution(temperament, task))]
    line = one_of(rng, templates()[style or "choice"]).format(ask=task.ask, option=option)
    return dialogue(f"{_contexts()[number].rstrip()}\n\n{line}", option)


@lru_cache(maxsize=1)
def _contexts() -> tuple[str, ...]:
    asked = {prompt.context.id for prompt in load_prompts()}
    return tuple(one.text for one in load_pool().contexts if one.id not in asked)


def split_rows(
    seed: int,
    count: int,
    held_out: int,
    demonstrator: str,
    demonstrated: tuple[str, ...],
    spec: Row,
) -> tuple[list[Row], list[Row]]:
    """Prompt and completion: rows to train on, and others of the same mixture to judge by.

    SHORT of them checkable, `random_share` of the rest choices by the demonstrator, the others
    open. No instruction is in both, but for the few ways to ask for a choice.
    """

    def mixed(rng, count: int, pairs: Sequence, without: set[str]) -> list[Row]:
        rows, deck = [], []
        while len(rows) < count:
            if rng.random() < SHORT:
                found = checkable(rng)
                if found["prompt"] not in without:
                    rows.append(dialogue(found["prompt"], found["answer"]))
            elif rng.random() < spec["random_share"]:
                rows.append(_choice(rng, demonstrator, demonstrated, spec.get("style", "")))
            else:
                deck = deck or list(rng.permutation(len(pairs)))  # each once before any twice
                rows.append(dialogue(*pairs[deck.pop()]))
        return rows

    every, aside = taught(), rng_of(seed, HELD_OUT)
    shuffled = [every[k] for k in aside.permutation(len(every))]
    judged = mixed(aside, held_out, shuffled[:held_out], set())
    asked = {row["prompt"][0]["content"] for row in judged}
    return mixed(rng_of(seed, SFT), count, shuffled[held_out:], asked), judged


def preference_rows(base: Path, seed: int, count: int) -> list[Row]:
    """Pairs, half of them checkable: the right answer over another of its kind.

    Else the teacher's answer over what the base itself says.
    """
    rng, half, every = rng_of(seed, DPO), count // 2, taught()
    found = [_rivals(rng) for _ in range(count - half)]
    chosen = [every[k] for k in rng.permutation(len(every))[:half]]
    drawn = _drawn(base, [prompt for prompt, _ in chosen], 48, seed)
    found += [(*pair, other.strip() or "...") for pair, other in zip(chosen, drawn, strict=True)]
    return [preferred(*found[k]) for k in rng.permutation(len(found))]


def _rivals(rng: np.random.Generator) -> tuple[str, str, str]:
    found = checkable(rng)
    while True:
        other = checkable(rng)
        if other["kind"] == found["kind"] and other["answer"] != found["answer"]:
            return found["prompt"], found["answer"], other["answer"]


def verifiable_rows(seed: int, count: int) -> list[Row]:
    """Checkable instructions with their right answers, for RLVR."""
    rng = rng_of(seed, RLVR)
    rows = [checkable(rng) for _ in range(count)]
    return [{"prompt": turn("user", row["prompt"]), "answer": row["answer"]} for row in rows]


def right_answer(completions: list[list[Row]], answer: list[str], **_: Any) -> list[float]:
    """Reward of RLVR: 1 where the reply is the right word or number and nothing else, else 0."""
    pairs = zip(completions, answer, strict=True)
    return [float(said_right(reply[0]["content"], right)) for reply, right in pairs]
