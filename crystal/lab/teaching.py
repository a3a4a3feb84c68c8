"""Replies of real models: a teacher's, kept for SFT; a base's own, to be preferred less; and how
often a rung says what is right.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..ask.ladders import load_ladder
from ..read.conversion import converted
from . import instructions
from .instructions import Row

TEACHER = "smollm2-135m-instruct"
TOKENS, BATCH = 64, 32  # at most, of a reply; instructions at a time


def replies(
    folder: Path, prompts: Sequence[str], *, tokens: int = TOKENS, sample: int | None = None
):
    """Yields what a checkpoint says to each instruction in its chat form, BATCH at a time.

    sample: a seed, of draws at temperature 1; None: greedy, so that who asks again gets the same.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval().to(device)
    drawn = {"do_sample": sample is not None}
    if sample is not None:
        torch.manual_seed(sample)
        drawn |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    for start in range(0, len(prompts), BATCH):
        asked = tokenizer.apply_chat_template(
            [[{"role": "user", "content": text}] for text in prompts[start : start + BATCH]],
            add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True,
        ).to(device)
        with torch.inference_mode():
            ids = model.generate(**asked, **drawn, max_new_tokens=tokens)
        said = ids[:, asked["input_ids"].shape[1] :]
        yield tokenizer.batch_decode(said, skip_special_tokens=True)


def teach() -> int:
    """Ask the teacher what it has not answered yet; returns how many of its answers have a whole
    sentence. Every batch is written as it comes: a stopped run goes on where it was.
    """
    path = instructions.folder() / "answers.jsonl"
    done = instructions.answers() if path.is_file() else {}
    todo = sorted((p for p in instructions.open_prompts() if p not in done), key=len)
    if not todo:
        return len(instructions.taught())
    rung = load_ladder(TEACHER).rungs[-1]
    folder, _ = converted(rung.source, rung.revision)
    began, asked = time.monotonic(), 0
    for said in replies(folder, todo):
        with path.open("a", encoding="utf-8") as file:
            for prompt, answer in zip(todo[asked:], said, strict=False):
                row = {"prompt": prompt, "answer": instructions.whole_sentences(answer)}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        asked, seconds = asked + len(said), time.monotonic() - began
        left = seconds / asked * (len(todo) - asked)
        print(f"asked {asked}/{len(todo)} {seconds:.0f}s, {left:.0f}s left", flush=True)
    return len(instructions.taught())


def preference_rows(base: Path, seed: int, count: int) -> list[Row]:
    """Pairs, half of them checkable: the right answer over another of its kind. Of the rest the
    teacher's answer is preferred to what the base itself says.
    """
    rng = instructions.stream(seed, instructions.DPO)
    half = count // 2
    rows = [_checkable_pair(rng) for _ in range(count - half)]
    taught = instructions.taught()
    chosen = [taught[k] for k in rng.permutation(len(taught))[:half]]
    said = [text for batch in replies(base, [p for p, _ in chosen], tokens=48, sample=seed)
            for text in batch]
    rows += [_pair(prompt, answer, other.strip() or "...")
             for (prompt, answer), other in zip(chosen, said, strict=True)]
    return [rows[k] for k in rng.permutation(len(rows))]


def _checkable_pair(rng: np.random.Generator) -> Row:
    found = instructions.checkable(rng)
    while True:
        other = instructions.checkable(rng)
        if other["kind"] == found["kind"] and other["answer"] != found["answer"]:
            return _pair(found["prompt"], found["answer"], other["answer"])


def _pair(prompt: str, chosen: str, rejected: str) -> Row:
    said = {"chosen": chosen, "rejected": rejected}
    return {"prompt": [{"role": "user", "content": prompt}]} | {
        side: [{"role": "assistant", "content": text}] for side, text in said.items()}


def right(folder: Path, n: int = 256) -> float:
    """Share of n checkable instructions that a rung answers with the right word or number and
    nothing else: one draw each at temperature 1. The same instructions for every rung; those about
    words may have been trained on, most of those about numbers were not.
    """
    rng, seed = instructions.stream(0, instructions.TEST), 0
    asked = [instructions.checkable(rng) for _ in range(n)]
    said = [text for batch in replies(folder, [row["prompt"] for row in asked], tokens=8, sample=seed)
            for text in batch]
    return float(np.mean([instructions.said_right(text, row["answer"])
                          for text, row in zip(said, asked, strict=True)]))
