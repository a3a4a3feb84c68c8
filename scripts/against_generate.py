"""The read-out of real checkpoints against draws of transformers' own `generate`: Pearson's test.

    python scripts/against_generate.py [LADDER ...]

Writes data/bench/against-generate.json. Resumable: cells in the file are kept. `generate` draws
one token for all answers that are still open, and again, with nothing truncated. Rows that are
alike go through the model once, and the prompt's keys and values are computed once: a batch of
copies would say the same in a hundred times the time.
"""

from __future__ import annotations

import copy
import json
import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from bench_measure import provenance, write
from bench_real import LADDERS
from scipy.stats import chisquare
from transformers import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from crystal.ask.ladders import load_ladder
from crystal.ask.natural import load_prompts
from crystal.ask.prompts import CHAT, COMPLETION
from crystal.ask.tasks import DIGIT_JOINERS, JOINERS, LEAD, TASKS, Task, read
from crystal.files import root
from crystal.read.engine import Engine, load_rung
from crystal.read.readout import readout

# chosen before anything was drawn: options that are decided in a few tokens
CELLS = dict(zip(LADDERS, (("coin", "letter", "colour"), ("coin", "suit", "weekday")), strict=True))
DRAWS, SEED, TOGETHER = 20_000, 0, 500
NEW_TOKENS = 12  # an answer that is still open behind them is read as it stands
FEWEST = 5  # expected draws of an option; options with fewer count together
Ids = tuple[int, ...]


def drawn(engine: Engine, ids: Ids, task: Task) -> Counter[str | None]:
    """How often `generate` answers each option, None for no option."""
    torch.manual_seed(SEED)
    model, texts_end = engine.model, engine.vocabulary.texts
    end = set(np.flatnonzero(engine.vocabulary.rank >= texts_end).tolist())
    counts: Counter[str | None] = Counter()
    still, start = [()] * DRAWS, started(engine, ids)
    plain, model.forward = model.forward, None
    try:
        model.forward = lambda input_ids, **_: once(plain, input_ids, len(ids), start)
        for step in range(1, NEW_TOKENS + 1):
            longer = [row for part in parts(sorted(still)) for row in one_more(model, ids, part)]
            texts = [engine.tokenizer.decode([t for t in row if t not in end]) for row in longer]
            over = [
                step == NEW_TOKENS or row[-1] in end or not is_open(text, task)
                for row, text in zip(longer, texts, strict=True)
            ]
            counts.update(read(text, task) for text, done in zip(texts, over, strict=True) if done)
            still = [row for row, done in zip(longer, over, strict=True) if not done]
            print(f"  {step} tokens: {len(still)} open", flush=True)
            if not still:
                break
    finally:
        model.forward = plain
    return counts


def parts(rows: list[Ids]) -> Iterator[list[Ids]]:
    return (rows[low : low + TOGETHER] for low in range(0, len(rows), TOGETHER))


def one_more(model, ids: Ids, rows: list[Ids]) -> list[Ids]:
    batch = torch.tensor([ids + row for row in rows])
    out = model.generate(
        batch, attention_mask=torch.ones_like(batch), max_new_tokens=1, use_cache=False,
        do_sample=True, top_k=0, top_p=1.0, temperature=1.0, num_beams=1,
    )
    return [(*row, token) for row, token in zip(rows, out[:, -1].tolist(), strict=True)]


def started(engine: Engine, ids: Ids) -> DynamicCache:
    """The prompt's keys and values, but for its last token, whose logits are wanted."""
    cache = DynamicCache(config=engine.model.config)
    with torch.inference_mode():
        engine.model(torch.tensor([ids[:-1]]), past_key_values=cache, use_cache=True)
    return cache


def once(plain, input_ids: torch.Tensor, prompt: int, start: DynamicCache):
    """The model's forward, each distinct row once."""
    rows, where = torch.unique(input_ids[:, prompt - 1 :], dim=0, return_inverse=True)
    cache = copy.deepcopy(start)
    cache.batch_repeat_interleave(len(rows))
    logits = plain(rows, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    return CausalLMOutputWithPast(logits=logits[where])


def is_open(text: str, task: Task) -> bool:
    """Whether more text can change what `read` says: no automaton, for that is what is tested."""
    said, joins = text.lstrip(LEAD).lower(), ("", *JOINERS, *DIGIT_JOINERS)
    return not said or any(
        option.startswith(said) or (said.startswith(option) and said[len(option) :] in joins)
        for option in task.spellings
    )


def cell(engine: Engine, ladder: str, task: Task) -> dict:
    prompt, form = load_prompts()[0], CHAT if engine.tokenizer.chat_template else COMPLETION
    ids = engine.encode(prompt.text(task, form), form, prompt.reply(task))
    (law,) = readout(engine, [ids], task, budget=1e-4)
    counts = drawn(engine, ids, task)
    seen = np.array([counts[option] for option in (*task.options, None)], float)
    expected = np.append(law.options, 1 - law.answered) * DRAWS
    often = expected >= FEWEST
    pooled = [np.append(x[often], x[~often].sum()) for x in (seen, expected)]
    kept = [x[pooled[1] > 0] for x in pooled]
    return {
        "model": ladder, "task": task.name, "form": form, "prompt": prompt.id,
        "draws": DRAWS, "seed": SEED, "cells": len(kept[0]),
        "p": float(chisquare(*kept).pvalue),
        "answered": law.answered, "answered_drawn": 1 - counts[None] / DRAWS,
        "unresolved": law.unresolved, "largest": float(abs(seen - expected).max() / DRAWS),
    }


def main(ladders: list[str]) -> None:
    torch.set_num_threads(1)
    path = root() / "data/bench/against-generate.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    done = {(row["model"], row["task"]) for row in rows}
    for ladder in ladders or CELLS:
        left, engine = [name for name in CELLS[ladder] if (ladder, name) not in done], None
        for name in left:
            engine = engine or load_rung(load_ladder(ladder).rungs[0], dtype="float32")
            rows.append(cell(engine, ladder, TASKS[name]))
            about = {"part": "against-generate", "what": __doc__.split("\n")[0]}
            write(path, about | {"provenance": provenance(), "rows": rows})
            print(rows[-1], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
