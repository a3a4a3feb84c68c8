"""The read-out of real checkpoints beside arithmetic's limit, sampling and option scores: one process, one run.

    reading    seconds x matmul rate / (2 x parameters used x positions): 1 is the limit; a hundred prompts a task. Parameters
               used: the body's at every position computed, the output layer's where logits are wanted
    generate   a thousand samples by `generate`, scaled from fewer, beside `readout` of the same prompt
    scores     every option's log-likelihood behind the prompt, as lm-eval defines it, and its total variation from the law
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from bench_measure import counted
from bench_peers import Ids, generate, option_scores, total_variation

from crystal.ask.ladders import load_ladder
from crystal.ask.prompts import COMPLETION
from crystal.ask.tasks import TASKS, Task
from crystal.read.engine import Engine, load_rung
from crystal.read.readout import Readout, readout

LADDERS = ("gemma3-270m", "smollm2-135m-instruct")
COMPARED = ("coin", "month", "weekday", "ten", "letter")
SAMPLES, DRAWN, NEW_TOKENS = 1000, 50, 6  # compared with; drawn and scaled; tokens of an answer
MAX_NODES = 400  # as the command line's
CUES = {
    "coin": "The coin came up", "die": "I rolled a die and got a", "d20": "She rolled a d20 and got a",
    "digit": "The final digit of the phone number is", "ten": "My lucky number between 1 and 10 is",
    "hundred": "Ticket number", "odd": "My favourite odd number is", "even": "My favourite even number is",
    "prime": "My favourite prime number is", "letter": "The vitamin is called vitamin", "suit": "The card was the ace of",
    "rank": "The card that she drew was the", "weekday": "The shop is closed on", "month": "They met in the month of",
    "colour": "My favourite colour is",
}
CONTEXTS = (
    "Dear diary,\n", "Local news, page three.\n", "Quiz night, round two.\n", "From the log of the night watch:\n",
    "Chapter one.\n", "A letter home.\n", "Notes of the meeting:\n", "The fortune teller looked up.\n",
    "Overheard on the bus: ", "Field report.\n",
)
AFTER = ("", "It was late. ", "Nobody knew. ", "So it went on. ", "Then it rained. ", "We waited. ", "All was well. ",
         "It was a long day. ", "That was new. ", "Let us see. ")


def real(quick: bool = False) -> list[dict]:
    """Both real checkpoints: reading against the limit, samples and option scores. quick: ten prompts a task, two compared."""
    rows = []
    for name in LADDERS:
        engine = load_rung(load_ladder(name).rungs[0], dtype="float32")
        _ = engine.ragged  # the proof belongs to loading
        contexts = [context + after for after in AFTER[: 1 if quick else None] for context in CONTEXTS]
        rows += [{"model": name, **row} for task in CUES for row in _reading(engine, TASKS[task], contexts)]
        for task in COMPARED[: 2 if quick else None]:
            rows += [{"model": name, **row} for row in _compared(engine, TASKS[task], contexts[2])]
    return rows


def _read(engine: Engine, prompts: Sequence[Ids], task: Task) -> list[Readout]:
    return readout(engine, prompts, task, max_nodes=MAX_NODES)


def _reading(engine: Engine, task: Task, contexts: Sequence[str]) -> Iterator[dict]:
    """One task: what it took, and what arithmetic takes at the rate measured before and after."""
    prompts = [engine.encode(context + CUES[task.name], COMPLETION) for context in contexts]
    _read(engine, prompts[:1], task)  # the rows of the task's table are made once a vocabulary
    head, seen = engine.model.get_output_embeddings(), []
    handle = head.register_forward_hook(lambda _, __, out: seen.append(out.shape[:-1].numel()))
    rate = matmul_rate(engine)
    with counted(engine.model) as positions:
        seconds, found = _timed(lambda: _read(engine, prompts, task))
    handle.remove()
    rate = (rate + matmul_rate(engine)) / 2
    needed = 2 * (body(engine) * sum(positions) + head.weight.numel() * sum(seen))
    answered = [law.answered for law in found]
    yield {"contestant": "read-out", "task": task.name, "prompts": len(prompts), "seconds": seconds, "tokens": sum(positions),
           "logits": sum(seen), "rate": rate, "ratio": seconds * rate / needed, "answered": float(np.median(answered)),
           "unresolved": float(np.median([law.unresolved for law in found]))}


def _compared(engine: Engine, task: Task, context: str) -> Iterator[dict]:
    """One prompt: read-out, samples, option scores, one after the other; two turns, the faster one counts."""
    ids = engine.encode(context + CUES[task.name], COMPLETION)
    answers = [tuple(engine.tokenizer(" " + o, add_special_tokens=False)["input_ids"]) for o in task.options]
    works: dict[str, Callable[[], object]] = {
        "read-out": lambda: _read(engine, [ids], task), "option scores": lambda: option_scores(engine, [ids], answers),
        "generate, 1000 samples": lambda: generate(engine, ids, DRAWN, NEW_TOKENS)}
    law = np.array([law.options for law in _read(engine, [ids], task)])
    apart = float(total_variation(option_scores(engine, [ids], answers), law)[0])
    for name, work in works.items():
        with counted(engine.model) as positions:
            seconds = min(_timed(work)[0] for _ in range(2))
        scale = SAMPLES / DRAWN if name.startswith("generate") else 1
        yield {"contestant": name, "task": task.name, "prompts": 1, "seconds": seconds * scale,
               "tokens": round(sum(positions) / 2 * scale), "tv": apart if name == "option scores" else None}


def body(engine: Engine) -> int:
    """Weights that every position meets: all but the embedding and the output layer."""
    outer = {id(module.weight) for module in (engine.model.get_input_embeddings(), engine.model.get_output_embeddings())}
    return sum(p.numel() for p in engine.model.parameters() if id(p) not in outer)


def matmul_rate(engine: Engine, rows: int = 128, repeats: int = 40) -> float:
    """Operations a second of products of the model's own shape: hidden x intermediate, `rows` at a time, float32."""
    config = engine.model.config.get_text_config()
    x, w = torch.randn(rows, config.hidden_size), torch.randn(config.intermediate_size, config.hidden_size)
    with torch.inference_mode():
        torch.nn.functional.linear(x, w)
        seconds, _ = _timed(lambda: [torch.nn.functional.linear(x, w) for _ in range(repeats)])
    return repeats * 2 * rows * w.numel() / seconds


def _timed(work: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    out = work()
    return time.perf_counter() - began, out
