"""What the benchmark says of others must be what they do, and its numbers what they are called."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import bench
import gpu_ladder

from crystal.ask.prompts import PROMPTS
from crystal.ask.tasks import TASKS, Task
from crystal.keep import manifest, store
from crystal.read.engine import Engine, build
from crystal.read.readout import readout

LETTERS = Task(name="letters", ask="pick", label="Pick", options=("A", "B"))
ASKED = [(0, 4, 3), (0, 2)]


def engine_of() -> Engine:
    """Every option has one tokenization; without a boundary only another option's token follows."""
    tokenizer = tiny.hand_tokenizer((b"A", b"B", b",", b"!"))
    return build(tiny.model("llama", len(tokenizer), seed=3, sharpness=1.0), tokenizer)


def test_scores_are_the_read_out_where_definitions_meet() -> None:
    """With the boundary put to the score: P(A) - P(AA) - P(AB) is P(A.) in the read-out."""
    engine = engine_of()
    distribution = np.array([r.options for r in readout(engine, ASKED, LETTERS, tolerance=0)])
    one = bench.option_scores(engine, ASKED, [(2,), (3,)])
    pairs = [(2, 2), (2, 3), (3, 2), (3, 3)]
    two = bench.option_scores(engine, ASKED, pairs).reshape(2, 2, 2).sum(2)
    assert abs(one - two - distribution).max() < 1e-6
    assert (one - distribution).min() > 1e-3  # without it they do not


@pytest.mark.parametrize(("model", "checkpoint"), bench.SUBJECTS)
def test_the_harness_scores_what_the_definition_says(model: str, checkpoint: str) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is a peer: make bench says how to install it")
    engine, task = bench.engine_of(model, checkpoint), TASKS["month"]
    ids = [engine.encode(p.text(task, "chat"), "chat") for p in PROMPTS[:4]]
    works = bench.scorers(engine, ids, task, "chat")
    assert abs(works["lm-eval"]() - works["option scores"]()).max() < 1e-4


def test_a_race_counts_tokens_and_takes_turns() -> None:
    engine, order = engine_of(), []

    def work(name: str, times: int):
        def run() -> None:
            order.append(name)
            for _ in range(times):
                engine.model(torch.tensor([[0, 2, 3]]))

        return run

    rows = bench.race(engine.model, {"a": work("a", 1), "b": work("b", 2)}, 2, task="t")
    found = [(r["task"], r["contestant"], r["tokens"], r["runs"]) for r in rows]
    assert found == [("t", "a", 3, 2), ("t", "b", 6, 2)]
    assert order == ["a", "b"] * 3
    assert all(r["low"] <= r["seconds"] <= r["high"] for r in rows)


@pytest.mark.parametrize(("repeats", "ran"), [(5, 2), (0, 1)])
def test_patience_ends(repeats: int, ran: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PATIENCE", 1e-12)
    calls = []
    (row,) = bench.race(engine_of().model, {"slow": lambda: calls.append(1)}, repeats)
    assert (len(calls), row["runs"]) == (ran, 1)


def test_arithmetic_takes_no_longer_than_reading() -> None:
    engine = engine_of()
    row = bench.limit(engine, ASKED * 2, LETTERS)
    assert row["ratio"] > 1 and row["tokens"] >= row["logits"] > 0 and row["prompts"] == 4


def test_what_a_gpu_read_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive of another root's read-outs: new cells are added, those known are left alone."""
    ladder, source = "gemma3-270m", manifest.folder_of("gemma3-270m")
    with tarfile.open(tmp_path / f"{ladder}.tar", "w") as tar:
        tar.add(source, f"read/{ladder}--sft/data/samples/{ladder}")
    here = tmp_path / "here"
    for folder in ("ladders", "training"):
        (here / "data" / folder).mkdir(parents=True)
    keys = store.keys(ladder)
    monkeypatch.setenv("CRYSTAL_ROOT", str(here))
    monkeypatch.setattr(gpu_ladder, "HOME", here)
    for _ in range(2):
        gpu_ladder.take(tmp_path)
        assert store.keys(ladder) == keys
    assert len(manifest.records(ladder)) == len(list((source / "shards").iterdir()))
