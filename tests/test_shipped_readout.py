"""The shipped checkpoints: their read-out against 8,000 samples of plain `generate`."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest
import torch
from distributions import chi_square_p
from transformers import DynamicCache

from crystal.ask.prompts import PROMPTS
from crystal.ask.tasks import TASKS, read
from crystal.files import root
from crystal.read.engine import Engine, load
from crystal.read.readout import readout
from crystal.read.sampling import draw

WEIGHTS = root() / "data" / "weights" / "nano-llama"
pytestmark = pytest.mark.skipif(
    not (WEIGHTS / "base" / "model.safetensors").exists(),
    reason="data/weights/nano-llama is absent: make ladder LADDER=nano-llama",
)

FORMS = {"base": "completion", "sft": "chat", "rlvr": "chat"}
SAMPLES, BATCH = 8_000, 1_000
TASK_NAMES = ("hundred", "month", "rank")
# `generate` with 1,000 samples of 6 new tokens computes at least so many times more positions than
# the read-out, on the base of nano-olmo2 in chat form (measured 129 / 343 / 313; raw text 114 / 277
# / 259). nano-llama's tokenizer cuts every rank into two to four pieces: 84 / 310 / 240.
BARS = {"hundred": 60, "month": 130, "rank": 300}
FLOORS = {
    "hundred": 60,
    "month": 130,
    "rank": 130,
}  # nano-llama's base as raw text, measured 65 / 204 / 139


@cache
def checkpoint(name: str) -> Engine:
    return load(WEIGHTS / name)


def started(engine: Engine, prompt: torch.Tensor) -> DynamicCache:
    """Keys and values of all but the prompt's last token, once for each of a batch's samples."""
    cache = DynamicCache(config=engine.model.config)
    with torch.inference_mode():
        engine.model(prompt[:, :-1], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(BATCH)
    return cache


def generated(engine: Engine, ids: tuple[int, ...], longest: int) -> Counter[str]:
    """Texts of SAMPLES answers, decoded up to the first special id, without the read-out.

    `generate` gets the prompt's cache: the same tokens in a third of the time.
    """
    torch.manual_seed(20)
    prompt, answers = torch.tensor([ids]), Counter()
    specials = set(engine.tokenizer.all_special_ids)
    for _ in range(SAMPLES // BATCH):
        out = engine.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            num_return_sequences=BATCH,
            max_new_tokens=longest,
            past_key_values=started(engine, prompt),
            use_cache=True,  # the shipped configuration says false
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            num_beams=1,
        )
        for row in out[:, len(ids) :].tolist():
            answers[tuple(takewhile(lambda token: token not in specials, row))] += 1
    texts: Counter[str] = Counter()
    for answer, count in answers.items():
        texts[engine.tokenizer.decode(answer, clean_up_tokenization_spaces=False)] += count
    return texts


def p_value(name: str, task_name: str, prompt: int) -> float:
    """Options that expect five samples or more, and the rest with invalid-answer."""
    engine, task, form = checkpoint(name), TASKS[task_name], FORMS[name]
    ids = engine.encode(PROMPTS[prompt].text(task, form), form)
    by_depth = (
        (d, readout(engine, [ids], task, tolerance=1e-5, max_depth=d)[0]) for d in range(1, 13)
    )
    longest, found = next(
        (d, r) for d, r in by_depth if r.residual * SAMPLES < 1
    )  # what generate cuts off cannot matter
    distribution = {
        o: p for o, p in zip(task.options, found.options, strict=True) if p * SAMPLES >= 5
    }
    distribution["rest"] = 1 - found.residual - sum(distribution.values())
    seen: Counter[str] = Counter()
    for text, count in generated(engine, ids, longest).items():
        option = read(text, task)
        seen[option if option in distribution else "rest"] += count
    return chi_square_p(seen, distribution)


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("ladder", ["nano-llama", "nano-olmo2"])
def test_the_tokenizer_splits_options(ladder: str, task: str) -> None:
    tokenizer = load(WEIGHTS.parent / ladder / "base").tokenizer
    lengths = [
        len(tokenizer(f" {o}", add_special_tokens=False)["input_ids"]) for o in TASKS[task].options
    ]
    assert sum(n > 1 for n in lengths) > len(lengths) / 2 and max(lengths) >= 2


CELLS = [("base", "month", 7), ("sft", "rank", 33), ("rlvr", "hundred", 58)]


@pytest.mark.parametrize(("name", "task", "prompt"), CELLS)
def test_read_out_is_the_distribution_of_generate(name: str, task: str, prompt: int) -> None:
    """8,000 samples each; false alarm probability 1e-3 for the three together."""
    assert p_value(name, task, prompt) > 1e-3 / 3


def times_fewer(model: Path, task: str, form: str) -> float:
    """25 prompts, residual <= 1e-4; `generate` would take prompt + 5 positions a sample."""
    engine = load(model)
    prompts = [engine.encode(p.text(TASKS[task], form), form) for p in PROMPTS[::4]]
    before = engine.computed
    found = readout(engine, prompts, TASKS[task], tolerance=1e-4)
    assert max(r.residual for r in found) <= 1e-4
    return 1000 * sum(len(ids) + 5 for ids in prompts) / (engine.computed - before)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_tokens_computed_meet_the_bar(task: str) -> None:
    assert times_fewer(WEIGHTS.parent / "nano-olmo2" / "base", task, "chat") >= BARS[task]


@pytest.mark.parametrize("task", TASK_NAMES)
def test_tokens_computed_on_options_of_many_pieces(task: str) -> None:
    assert times_fewer(WEIGHTS / "base", task, "completion") >= FLOORS[task]


@pytest.mark.parametrize("task", TASK_NAMES)
def test_a_million_draws_cost_four_times_a_thousand_at_most(task: str) -> None:
    engine, cost = checkpoint("sft"), []
    prompts = [engine.encode(p.text(TASKS[task], "chat"), "chat") for p in PROMPTS[::20]]
    for n in (1_000, 1_000_000):
        before = engine.computed
        for ids in prompts:
            assert sum(draw(engine, ids, n, seed=2, max_tokens=12, task=TASKS[task]).values()) == n
        cost.append(engine.computed - before)
    assert cost[1] <= 4 * cost[0]
