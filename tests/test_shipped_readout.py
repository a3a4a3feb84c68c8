"""The shipped checkpoints: their read-out against 20,000 samples of plain `generate`, and what both cost."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
import torch
from laws import chi_square_p

from crystal.engine import Engine, load
from crystal.ladders import root
from crystal.prompts import PROMPTS
from crystal.readout import readout
from crystal.sampling import draw
from crystal.tasks import TASKS, read

WEIGHTS = root() / "data" / "weights" / "nano-llama"
pytestmark = pytest.mark.skipif(
    not (WEIGHTS / "base" / "model.safetensors").exists(), reason="data/weights/nano-llama is absent: make ladder LADDER=nano-llama")

FORMS = {"base": "completion", "sft": "chat", "rlvr": "chat"}
SAMPLES, LONGEST = 20_000, 8
# `generate` with 1,000 samples of 6 new tokens a prompt against the read-out, in token positions computed: at least so
# many times more. Measured 65 / 158 / 109 on the base; the look-ahead behind joiners (1.5, twenty-one) and the aliases
# are about half of the read-out's tokens on 1-100, a quarter on months and ranks.
FEWER = {"hundred": 60, "month": 130, "rank": 100}


@cache
def rung(name: str) -> Engine:
    return load(WEIGHTS / name)


def generated(engine: Engine, ids: tuple[int, ...]) -> Counter[str]:
    """Texts of SAMPLES answers, cut at the first token that ends them; batches of 500 keep the prompt's copies small."""
    torch.manual_seed(20)
    prompt, texts = torch.tensor([ids]), Counter()
    for _ in range(SAMPLES // 500):
        out = engine.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), num_return_sequences=500, max_new_tokens=LONGEST,
            do_sample=True, top_k=0, top_p=1.0, temperature=1.0)
        for row in out[:, len(ids):].tolist():
            text = b""
            for token in row:
                if not isinstance(engine.pieces[token], bytes):
                    break
                text += engine.pieces[token]
            texts[text.decode("utf-8", "replace")] += 1
    return texts


def p_value(name: str, task_name: str, prompt: int) -> float:
    """Of the samples' options and off-support, under the read-out."""
    engine, task, form = rung(name), TASKS[task_name], FORMS[name]
    ids = engine.encode(PROMPTS[prompt].text(task, form), form)
    found = readout(engine, [ids], task, budget=1e-5)[0]
    law = dict(zip(task.options, found.options, strict=True)) | {"off": found.off_support}
    seen: Counter[str] = Counter()
    for text, count in generated(engine, ids).items():
        seen[read(text, task) or "off"] += count
    return chi_square_p(seen, law)


@pytest.mark.parametrize("task", FEWER)
def test_the_tokenizer_splits_options(task: str) -> None:
    lengths = [len(rung("base").tokenizer(f" {o}", add_special_tokens=False)["input_ids"]) for o in TASKS[task].options]
    assert sum(n > 1 for n in lengths) > len(lengths) / 2 and max(lengths) >= 3


@pytest.mark.parametrize(("name", "task", "prompt"), [("base", "month", 7), ("sft", "rank", 33), ("rlvr", "hundred", 58)])
def test_read_out_is_the_law_of_generate(name: str, task: str, prompt: int) -> None:
    """20,000 samples each; false alarm probability 1e-3 for each of the three."""
    assert p_value(name, task, prompt) > 1e-3


@pytest.mark.parametrize("task", FEWER)
def test_tokens_computed_against_generate(task: str) -> None:
    """25 prompts, unresolved <= 1e-4; tokens are counted, so `generate` need not run: prompt + 5 positions a sample."""
    engine = rung("base")
    prompts = [engine.encode(p.text(TASKS[task], "completion"), "completion") for p in PROMPTS[::4]]
    before = engine.computed
    found = readout(engine, prompts, TASKS[task])
    assert max(r.unresolved for r in found) <= 1e-4
    assert 1000 * sum(len(ids) + 5 for ids in prompts) / (engine.computed - before) >= FEWER[task]


@pytest.mark.parametrize("task", FEWER)
def test_a_million_draws_cost_four_times_a_thousand_at_most(task: str) -> None:
    engine, cost = rung("sft"), []
    prompts = [engine.encode(p.text(TASKS[task], "chat"), "chat") for p in PROMPTS[::20]]
    for n in (1_000, 1_000_000):
        before = engine.computed
        for ids in prompts:
            assert sum(draw(engine, ids, n, seed=2, max_tokens=12, task=TASKS[task]).values()) == n
        cost.append(engine.computed - before)
    assert cost[1] <= 4 * cost[0]
