"""What the benchmark says of others must be what they do, and its numbers what they are called."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import against_generate
import bench
import bench_grid
import bench_growth as growth
import bench_measure
import bench_peers as peers
import bench_vllm
import gpu_bench

from crystal.ask import prompts
from crystal.ask.prompts import CHAT, COMPLETION, PROBE
from crystal.ask.tasks import TASKS, Task, read
from crystal.errors import CrystalError
from crystal.read import shapes
from crystal.read.engine import Engine, build
from crystal.read.readout import readout

ASKED = peers.Subject("nano-olmo2", "base", CHAT)
WEIGHTS = pytest.mark.skipif(not Path(bench_measure.root() / "data/weights/nano-olmo2/base/model.safetensors").exists(),
                             reason="the shipped weights are absent: make ladder LADDER=nano-olmo2")
LETTERS = Task(name="letters", ask="pick", label="Pick", options=("A", "B"))
PROMPTS = [(0, 4, 3), (0, 2)]


def engine_of(pieces: tuple[bytes, ...] = (b"A", b"B", b",", b"!")) -> Engine:
    """Every option has one tokenization, and only another option's token can follow it without a boundary."""
    tokenizer = tiny.hand_tokenizer(pieces)
    return build(tiny.model("llama", len(tokenizer), seed=3, sharpness=1.0), tokenizer)


# -- option scores


def test_scores_are_the_read_out_where_the_definitions_coincide() -> None:
    """One tokenization, and the boundary put to the score: P(A) - P(AA) - P(AB) in scores alone is P(A.) in the read-out."""
    engine = engine_of()
    law = np.array([r.options for r in readout(engine, PROMPTS, LETTERS, budget=0)])
    one = peers.option_scores(engine, PROMPTS, [(2,), (3,)])
    two = peers.option_scores(engine, PROMPTS, [(2, 2), (2, 3), (3, 2), (3, 3)]).reshape(2, 2, 2).sum(2)
    assert abs(one - two - law).max() < 1e-6
    assert (one - law).min() > 1e-3  # without it they do not
    assert abs(one * peers.ended(engine, PROMPTS, LETTERS, [(2,), (3,)]) - law).max() < 1e-6


@WEIGHTS
@pytest.mark.parametrize("name", ["die", "digit"])
def test_one_token_options_of_a_shipped_base_agree(name: str) -> None:
    engine, task = peers.engine_of(ASKED), TASKS[name]
    ids, answers = peers.encoded(engine, PROBE[:8], task, CHAT), peers.continuations(engine, task, CHAT)
    assert all(len(a) == 1 for a in answers)
    law = np.array([r.options for r in readout(engine, ids, task, budget=1e-5)])
    scores = peers.option_scores(engine, ids, answers)
    assert abs(scores * peers.ended(engine, ids, task, answers) - law).max() <= 1e-4


@WEIGHTS
@pytest.mark.parametrize("subject", peers.SUBJECTS, ids=lambda subject: f"{subject.model}-{subject.rung}")
def test_the_harness_scores_what_the_definition_says(subject: peers.Subject) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is a peer, not a dependency: make bench says how to install it")
    engine, form, task = peers.engine_of(subject), subject.form, TASKS["month"]
    theirs = peers.harness_scores(peers.harness(engine, form, 16), PROBE[:4], task, form)
    ours = peers.option_scores(engine, peers.encoded(engine, PROBE[:4], task, form), peers.continuations(engine, task, form))
    assert abs(theirs - ours).max() < 1e-4


@WEIGHTS
def test_a_typed_choice_is_the_score_among_its_labels() -> None:
    engine, task = peers.engine_of(ASKED), TASKS["digit"]
    before = len(engine.tokenizer)
    pipeline = peers.typed_choice(engine, task, CHAT, letters=False)
    theirs = peers.chosen(pipeline, PROBE[:4], task, letters=False)
    ours = peers.option_scores(engine, peers.encoded(engine, PROBE[:4], task, CHAT), peers.continuations(engine, task, CHAT))
    assert abs(theirs - ours / ours.sum(1, keepdims=True)).max() < 1e-5
    assert len(engine.tokenizer) == before  # the pipeline adds tokens to the tokenizer that it is given
    assert peers.typed_choice(engine, TASKS["hundred"], CHAT, letters=True) is None
    assert peers.typed_choice(engine, TASKS["hundred"], CHAT, letters=False) is None
    assert peers.typed_choice(engine, task, COMPLETION, letters=True) is None


# -- the error of samples


@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.integers(1, 6))
def test_expected_total_variation_is_that_of_all_samples(parts: list[int], n: int) -> None:
    law = np.array(parts) / sum(parts)
    true = 0.0
    for draws in itertools.product(range(len(law)), repeat=n):
        count = Counter(draws)
        true += math.prod(law[list(draws)]) * sum(abs(count[k] / n - law[k]) for k in range(len(law))) / 2
    assert growth.expected_tv(law, n) == pytest.approx(true, abs=1e-12)


def test_draws_for_an_error_are_the_fewest() -> None:
    laws = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    n = growth.draws_for(laws, 0.01)
    mean = lambda m: np.mean([growth.expected_tv(law, m) for law in laws])  # noqa: E731
    assert mean(n) <= 0.01 < mean(int(n / 1.01))
    assert growth.draws_for(laws, 1.0) == 1


# -- larger models of one law


@pytest.mark.parametrize("shape", [{"hidden_size": 64}, {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 5}])
def test_a_widened_model_has_the_same_law(shape: dict) -> None:
    tokenizer = tiny.hand_tokenizer()
    engine = build(tiny.model("llama", len(tokenizer)), tokenizer)
    ids = torch.tensor([[0, 2, 5, 3, 8]])
    wide = growth.widened(engine, context=512, **shape)
    assert wide.context == 512 and shapes.weights(wide.model.config.to_dict()) > shapes.weights(engine.model.config.to_dict())
    assert abs(wide.forward(ids) - engine.forward(ids)).max() < 1e-4


# -- measuring


def test_a_race_counts_tokens_and_takes_turns() -> None:
    engine, order = engine_of(), []

    def work(name: str, times: int):
        def run() -> None:
            order.append(name)
            for _ in range(times):
                engine.model(torch.tensor([[0, 2, 3]]))
        return run

    rows = bench_measure.race(engine.model, {"a": work("a", 1), "b": work("b", 2)}, 3, task="t")
    assert [(r["task"], r["contestant"], r["tokens"], r["runs"]) for r in rows] == [("t", "a", 3, 3), ("t", "b", 6, 3)]
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert all(r["low"] <= r["seconds"] <= r["high"] for r in rows)


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_measure, "PATIENCE", 1e-9)
    ran = []
    row, = bench_measure.race(engine_of().model, {"slow": lambda: ran.append(1)}, 5)
    assert (len(ran), row["runs"]) == (2, 1)
    row, = bench_measure.race(engine_of().model, {"slow": lambda: ran.append(1)}, 0)
    assert (len(ran), row["runs"]) == (3, 1)


def test_a_broken_run_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = []

    def part() -> list[dict]:
        """Nothing. Much."""
        ran.append(1)
        return [{"seconds": 1.0}]

    monkeypatch.setitem(bench.PARTS, "open", part)
    bench.measure("open", tmp_path)
    bench.measure("open", tmp_path)
    file = json.loads((tmp_path / "open.json").read_text())
    assert len(ran) == 1 and file["rows"] == [{"seconds": 1.0}] and file["what"] == "Nothing. Much."
    assert [path.name for path in tmp_path.iterdir()] == ["open.json"]
    monkeypatch.setattr(bench, "source", lambda: "another code")
    bench.measure("open", tmp_path)
    assert len(ran) == 2


def test_rows_of_a_process_come_back_or_its_failure_does() -> None:
    assert bench_measure.said(bench_measure.child("import bench_grid; print('warm'); print('{\"a\": 1}')")) == [{"a": 1}]
    with pytest.raises(subprocess.CalledProcessError):
        bench_measure.said(bench_measure.child("print('{\"a\": 1}'); raise SystemExit(3)"))


@WEIGHTS
def test_a_rung_of_the_grid(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(bench_grid, "RUNGS", ("base",))
    monkeypatch.setattr(bench_grid, "PHASE_TASKS", ("coin", "die"))
    bench_grid.read("nano-llama")
    row = json.loads(capsys.readouterr().out)
    assert row["cells"] == 2 * 2 * 100 and row["unresolved_largest"] <= 1e-4
    assert row["prompt_tokens"] < row["fewest"] < row["tokens"] < 1.1 * row["fewest"]
    assert 0 < row["shared"] < row["prompt_tokens"]
    engine, whole = peers.engine_of(peers.BASES["nano-llama"]), 0
    for form in (CHAT, COMPLETION):
        whole += sum(len(ids) for task in ("coin", "die") for ids in peers.encoded(engine, prompts.PROMPTS, TASKS[task], form))
    assert row["saved"] == whole - row["prompt_tokens"]


def test_vllm_is_left_out_or_says_why_it_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    monkeypatch.delenv("CRYSTAL_VLLM", raising=False)
    monkeypatch.setattr(sys, "argv", ["bench.py", "vllm", "--out", str(tmp_path / "out")])
    bench.main()
    assert "vllm is left out: it needs libraries of its own: CRYSTAL_VLLM=PYTHON" in capsys.readouterr().out
    monkeypatch.setenv("CRYSTAL_VLLM", sys.executable)  # which has none
    with pytest.raises(CrystalError, match=r"vLLM ended with status 1 \(.*vllm.log\)"), bench_vllm.running("weights"):
        pass
    assert "No module named 'vllm'" in (tmp_path / "_build" / "bench" / "vllm.log").read_text()


def test_absent_peers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_measure, "installed", lambda module: False)
    assert bench_measure.left_out() == {"lm-eval": "not installed, left out"}


# -- shapes and the GPU script


def test_weights_of_a_shape_are_those_of_the_model() -> None:
    shape = shapes.SHAPES["tiny"]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape))
    assert shapes.weights(shape) == sum(
        p.numel() for name, p in model.named_parameters() if not re.search("norm|embed_tokens", name))
    with torch.device("meta"):
        large = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shapes.SHAPES["llama-3.1-8b"]))
    assert sum(p.numel() for p in large.parameters()) == 8_030_261_248  # as published
    norms = (2 * 32 + 1) * 4096
    assert shapes.parameters(shapes.SHAPES["llama-3.1-8b"]) == 8_030_261_248 - norms


def test_the_script_names_its_limits_rightly() -> None:
    shape = shapes.SHAPES["llama-3.1-8b"]
    assert f"{shapes.operations(shape) / 1e9:.1f} GFLOP" in gpu_bench.__doc__
    assert f"{shapes.forward_bytes(shape) / 1e9:.1f} GB" in gpu_bench.__doc__
    assert shapes.least_seconds(shape, 300, 1, 300.0, 1.0)[0] == pytest.approx(shapes.least_seconds(shape, 300, 1, 300.0, 1.0)[1])


def test_a_made_up_tokenizer_has_its_size_and_groups_digits() -> None:
    tokenizer = gpu_bench.tokenizer_of(6000)
    assert len(tokenizer) == len(set(tokenizer.get_vocab())) == 6000
    assert len(tokenizer("100", add_special_tokens=False)["input_ids"]) == 1
    assert tokenizer.decode(tokenizer(" September 42.", add_special_tokens=False)["input_ids"]) == " September 42."


def test_the_gpu_script_runs_without_a_gpu(tmp_path: Path) -> None:
    path = gpu_bench.main(["--shape", "tiny", "--device", "cpu", "--dtype", "float32", "--tasks", "coin", "die", "--prompts", "2",
                           "--matrix", "64", "--copy", "1", "--out", str(tmp_path)])
    file = json.loads(path.read_text())
    row, = file["rows"]
    assert path.name == "gpu-cpu.json" and row["cells"] == 4
    assert row["tokens"] > 0 and row["forwards"] >= 4 and row["over_budget"] == 0
    assert row["tokens_a_second"] == pytest.approx(row["tokens"] / row["seconds"])
    assert {a["ladder"] for a in file["agreement"]} == {"nano-llama", "nano-olmo2"}
    assert all(a["largest"] == 0 for a in file["agreement"] if a["dtype"] == "float32")  # the CPU against itself
    assert all(0 < a["largest"] < 0.05 for a in file["agreement"] if a["dtype"] == "bfloat16")


@given(st.sampled_from(["coin", "rank", "letter", "d20", "colour"]), st.data())
def test_an_answer_that_is_over_is_read_alike_however_it_goes_on(name: str, data) -> None:
    task = TASKS[name]
    tail = st.text(st.sampled_from(" .-'/17aszT\n"), max_size=4)
    text = data.draw(st.sampled_from(["", " ", '"'])) + data.draw(st.sampled_from([*task.spellings]))
    text += data.draw(tail)
    if not against_generate.is_open(text, task):
        assert read(text, task) == read(text + data.draw(tail), task)
