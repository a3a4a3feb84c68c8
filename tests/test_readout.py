"""The read-out against enumeration of all a tiny model can say, and against `generate`."""

from __future__ import annotations

import heapq
from collections import Counter

import numpy as np
import pytest
import tiny
import torch
from distributions import by_class, chi_square_p, classify
from hypothesis import given, settings
from hypothesis import strategies as st

from crystal.ask.tasks import TASKS
from crystal.errors import CrystalError
from crystal.read import readout as readout_module
from crystal.read.automaton import START, Row, Table
from crystal.read.engine import Engine, build
from crystal.read.readout import Readout, readout
from crystal.read.tree import ROOT, RaggedTree, WholeTree

PROMPTS = [
    (0, 2, 3),
    (0, 5, 6, 7, 8),
    (0, 4),
]  # of unequal length: padding and positions must not matter
DEPTH = 4
WINDOWED = {"sliding_window": 4}  # shorter than prompt + answer, so the ragged tree would be wrong


def engine_of(
    kind: str, dtype: torch.dtype = torch.float32, void: int = 2, cut: str = tiny.BYTE_LEVEL, **more
) -> Engine:
    """Two ids beyond the tokenizer, as in output layers padded to a round number."""
    tokenizer = tiny.hand_tokenizer(cut=cut)
    return build(tiny.model(kind, len(tokenizer) + void, **more).to(dtype), tokenizer)


ENGINES = {kind: engine_of(kind) for kind in ("llama", "gpt2")}


def distributions_of(engine: Engine) -> list[dict[str, float]]:
    return [by_class(engine.model, engine.pieces, p, tiny.OVERLAPPING, DEPTH) for p in PROMPTS]


def deviation(distributions: list[dict[str, float]], found: list[Readout]) -> float:
    worst = 0.0
    for distribution, got in zip(distributions, found, strict=True):
        flat = np.array([*got.options, got.invalid, got.residual])
        worst = max(worst, float(np.abs(flat - list(distribution.values())).max()))
    return worst


@pytest.mark.parametrize(
    ("kind", "tree", "more"),
    [
        ("llama", RaggedTree, {}),
        ("olmo2", RaggedTree, {}),
        ("gpt2", RaggedTree, {}),
        ("qwen2", RaggedTree, {}),
        ("qwen3", RaggedTree, {}),
        ("olmo3", WholeTree, WINDOWED),
        ("mamba", WholeTree, {}),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_brute_force(kind: str, tree: type, more: dict) -> None:
    distributions = distributions_of(engine_of(kind, **more))
    for cut in (tiny.BYTE_LEVEL, tiny.SENTENCEPIECE):
        engine = engine_of(kind, cut=cut, **more)
        assert [p for p in engine.pieces if isinstance(p, bytes)] == list(tiny.PIECES)
        assert isinstance(engine.tree(PROMPTS, DEPTH), tree)
        found = readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=0, max_depth=DEPTH)
        assert deviation(distributions, found) < 1e-6


def test_brute_force_in_float64() -> None:
    engine = engine_of(
        "gpt2", torch.float64
    )  # Llama's norms compute in float32 whatever the weights are
    found = readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=0, max_depth=DEPTH)
    assert deviation(distributions_of(engine), found) < 1e-12


def test_the_model_is_given_back_as_it_was() -> None:
    engine = engine_of("llama")
    before = engine.model.config._attn_implementation
    readout(engine, PROMPTS, tiny.OVERLAPPING)
    assert engine.model.config._attn_implementation == before == "sdpa"


@pytest.mark.parametrize(("batch", "chunk"), [(1, 1024), (2, 7), (3, 1)])
def test_batch_and_chunk_do_not_matter(batch: int, chunk: int) -> None:
    engine = engine_of("llama")
    whole = readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=1e-3)
    engine.chunk, engine.batch = chunk, batch
    for a, b in zip(whole, readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=1e-3), strict=True):
        assert (
            np.abs(a.options - b.options).max() < 1e-6
            and abs(a.residual - b.residual) < 1e-6
            and a.tokens == b.tokens
        )


def test_residual_bounds_what_is_missing() -> None:
    engine = engine_of("gpt2")
    exact = readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=1e-9, max_depth=40)
    for tolerance in (0.5, 0.1, 1e-2, 1e-3, 1e-4):
        found = readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=tolerance)
        for true, got in zip(exact, found, strict=True):
            missing = true.options - got.options
            assert 0 < got.residual <= tolerance
            assert (missing >= -1e-6).all() and missing.sum() <= got.residual + 1e-6
            assert got.tokens < true.tokens


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("tolerance", [0.3, 1e-2, 1e-3])
def test_without_a_margin_the_tokens_are_a_queues(
    kind: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a queue: the most probable open token first, until the tolerance is kept."""
    engine, found = engine_of(kind), []
    for margin in (0, 0.9):
        monkeypatch.setattr(readout_module, "MARGIN", margin)
        found.append(readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=tolerance))
    tight, wide = found
    for prompt, got in zip(PROMPTS, tight, strict=True):
        assert (
            got.tokens == len(prompt) + queued(engine, prompt, tolerance)
            and got.residual <= tolerance
        )
    assert sum(got.tokens for got in tight) < sum(got.tokens for got in wide), "a test of nothing"


def queued(engine: Engine, prompt: tuple[int, ...], tolerance: float) -> int:
    table, queue, computed = engine.table(tiny.OVERLAPPING), [(-1.0, START, prompt)], -1
    while sum(-mass for mass, *_ in queue) > tolerance:
        mass, state, ids = heapq.heappop(queue)
        computed, row = computed + 1, table.row(state)
        chance = torch.softmax(engine.forward(torch.tensor([ids]))[0, -1].double(), -1).numpy()
        for token, to in zip(
            engine.vocabulary.order[row.live].tolist(), row.to.tolist(), strict=True
        ):
            heapq.heappush(queue, (mass * chance[token], to, (*ids, token)))
    return computed


def test_caps_end_the_walk_and_say_so() -> None:
    engine = engine_of("llama")
    for prompt, got in zip(
        PROMPTS,
        readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=1e-6, max_nodes=3),
        strict=True,
    ):
        assert got.tokens <= len(prompt) + 3 and got.residual > 1e-4
    for prompt, got in zip(
        PROMPTS, readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=0, max_depth=1), strict=True
    ):
        assert got.tokens == len(prompt) and got.residual > 1e-4


@given(
    prompt=st.lists(st.integers(2, 12), min_size=1, max_size=4).map(tuple),
    relative=st.sampled_from([0.5, 0.1, 0.01]),
    kind=st.sampled_from(["llama", "gpt2"]),
)
@settings(max_examples=15, deadline=None)
def test_a_relative_tolerance_keeps_the_interval(
    prompt: tuple[int, ...], relative: float, kind: str
) -> None:
    engine = ENGINES[kind]
    (true,) = readout(engine, [prompt], tiny.OVERLAPPING, tolerance=1e-7, max_depth=40)
    (got,) = readout(engine, [prompt], tiny.OVERLAPPING, tolerance=1e-4, relative=relative)
    missing = true.options - got.options
    assert (missing >= -1e-6).all() and missing.sum() <= got.residual + 1e-6
    assert got.answered + got.invalid + got.residual == pytest.approx(1, abs=1e-6)
    assert got.tokens <= true.tokens


@pytest.mark.parametrize("relative", [0.5, 0.1, 0.01, 0.0])
def test_the_walk_ends_at_a_share_of_what_is_answered(
    relative: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readout_module, "LEADS", 10**9)
    found = readout(
        engine_of("llama"), PROMPTS, tiny.OVERLAPPING, tolerance=1e-4, relative=relative
    )
    assert all(0 < got.residual <= max(1e-4, relative * got.answered) for got in found)


def test_a_named_tolerance_is_kept_and_none_is_relative() -> None:
    engine = engine_of("gpt2")
    share, absolute = (
        readout(engine, PROMPTS, tiny.OVERLAPPING),
        readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=1e-4),
    )
    assert all(
        b.residual <= 1e-4 < a.residual <= 0.01 * a.answered and a.tokens < b.tokens
        for a, b in zip(share, absolute, strict=True)
    )


def test_white_space_before_an_answer_does_not_drive_the_walk() -> None:
    """A flat model: without the rule white space takes most nodes and never ends."""
    spaces = [b" " * n for n in range(1, 32)] + [b"\n" * n for n in range(1, 32)]
    tokenizer = tiny.hand_tokenizer((b"1", b"A", b"x", b"y", *spaces))
    engine = build(tiny.model("llama", len(tokenizer), sharpness=0.1), tokenizer)
    (driven,) = readout(engine, [(0, 2)], tiny.OVERLAPPING, tolerance=1e-4, max_nodes=3000)
    (got,) = readout(
        engine, [(0, 2)], tiny.OVERLAPPING, tolerance=1e-4, relative=0.01, max_nodes=3000
    )
    assert got.tokens < 1000 < 3000 <= driven.tokens
    assert (driven.options >= got.options - 1e-6).all() and (
        driven.options <= got.options + got.residual + 1e-6
    ).all()


def test_what_was_read_before_does_not_matter() -> None:
    """Not in the last bit: an engine numbers the states of its tables as it meets them."""
    fresh, used = engine_of("gpt2"), engine_of("gpt2")
    readout(used, [(0, 9), (0, 10, 11), (0, 8)], tiny.OVERLAPPING, tolerance=0.2)
    readout(used, [(0, 12)], tiny.OVERLAPPING, tolerance=1e-6)
    for a, b in zip(
        readout(fresh, PROMPTS, tiny.OVERLAPPING, tolerance=1e-2),
        readout(used, PROMPTS, tiny.OVERLAPPING, tolerance=1e-2),
        strict=True,
    ):
        assert (
            (a.options == b.options).all() and a.invalid == b.invalid and a.residual == b.residual
        )


def test_what_is_cut_by_depth_does_not_drive_the_walk() -> None:
    """More is cut than the tolerance allows: reported, not made up for by smaller nodes."""
    engine = engine_of("llama")
    for cut, free in zip(
        readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=1e-5, max_depth=2),
        readout(engine, PROMPTS, tiny.OVERLAPPING, tolerance=1e-5, max_depth=20),
        strict=True,
    ):
        assert cut.residual > 1e-5 >= free.residual and cut.tokens <= free.tokens


def test_a_long_prompt_takes_no_depth_from_those_beside_it() -> None:
    """Behind it the context has room for one token of answer; only its own is cut."""
    engine = engine_of("llama")
    long = (0,) + (3,) * (engine.context - 1)
    alone = [
        readout(engine, [ids], tiny.OVERLAPPING, tolerance=1e-3)[0] for ids in (*PROMPTS, long)
    ]
    for a, b in zip(
        alone, readout(engine, [*PROMPTS, long], tiny.OVERLAPPING, tolerance=1e-3), strict=True
    ):
        assert np.abs(a.options - b.options).max() < 1e-6 and a.tokens == b.tokens
    assert alone[0].residual <= 1e-3 < alone[-1].residual and alone[-1].tokens == len(long)


def test_a_flat_model_on_a_real_vocabulary_ends() -> None:
    tokenizer = tiny.trained_tokenizer()
    engine = build(tiny.model("llama", len(tokenizer), sharpness=1e-3), tokenizer)
    ids = engine.encode("A number:", "completion")
    got = readout(engine, [ids], TASKS["hundred"], max_nodes=500)[0]
    assert got.tokens <= len(ids) + 500 and got.residual > 1e-3


@pytest.mark.parametrize("lost", ["an off range", "a live token"])
def test_the_sum_is_a_check(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each class is counted on its own: a lost token breaks the sum, it is not OFF."""
    true_row = Table.row

    def row(self: Table, state: int) -> Row:
        r = true_row(self, state)
        if lost == "a live token":
            return Row(r.live[1:], r.to[1:], r.low, r.high, r.code)
        return Row(r.live, r.to, r.low[r.code != -1], r.high[r.code != -1], r.code[r.code != -1])

    monkeypatch.setattr(Table, "row", row)
    with pytest.raises(CrystalError, match="sums to"):
        readout(engine_of("llama"), PROMPTS, tiny.OVERLAPPING)


def test_broken_weights_are_named() -> None:
    engine = engine_of("llama")
    with torch.no_grad():
        engine.model.get_output_embeddings().weight[3] = torch.nan
    with pytest.raises(CrystalError, match="not numbers"):
        readout(engine, PROMPTS, tiny.OVERLAPPING)


@pytest.mark.parametrize("kind", ["llama", "olmo2"])
def test_read_out_is_the_distribution_of_generate(kind: str) -> None:
    """Chi-square over options and off; false alarm probability 1e-4 for each architecture."""
    engine, prompt, n = engine_of(kind, void=0, seed=5), PROMPTS[1], 8000
    torch.manual_seed(11)
    out = engine.model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_return_sequences=n,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
        max_new_tokens=10,
    )
    seen = Counter(
        classify(engine.pieces, tuple(row), tiny.OVERLAPPING)
        for row in out[:, len(prompt) :].tolist()
    )
    got = readout(engine, [prompt], tiny.OVERLAPPING, tolerance=1e-6, max_depth=10)[0]
    distribution = dict(zip(tiny.OVERLAPPING.options, got.options, strict=True)) | {
        "off": got.invalid,
        "open": got.residual,
    }
    assert sum(p * n > 5 for p in distribution.values()) >= 4, "a test of almost nothing"
    assert chi_square_p(seen, distribution) > 1e-4


def test_wrong_tolerance() -> None:
    with pytest.raises(CrystalError, match="tolerance"):
        readout(engine_of("llama"), PROMPTS, tiny.OVERLAPPING, tolerance=-1)


def test_a_prompt_with_most_of_the_nodes_is_read_in_short_runs() -> None:
    engine = engine_of("llama")
    engine.chunk = 8
    tree = engine.tree(PROMPTS * 10, 3)
    owner = np.repeat(np.arange(30), [8] + [1] * 29)
    runs = list(tree._runs(owner))
    assert [r.start for r in runs[1:]] == [r.stop for r in runs[:-1]] and (
        runs[0].start,
        runs[-1].stop,
    ) == (0, 37)
    assert all(r.stop - r.start <= 8 for r in runs[:-1]) and runs[-1].stop - runs[-1].start <= 12
    engine.chunk = 32
    assert max(r.stop - r.start for r in tree._runs(owner)) < 32


def test_no_small_chunk_is_left_over() -> None:
    engine = engine_of("llama")
    engine.chunk = 8
    for rows, sizes in ((12, [12]), (13, [8, 5]), (29, [8, 8, 8, 5]), (20, [8, 12])):
        assert [r.stop - r.start for r in engine.tree(PROMPTS, 3)._runs(np.arange(rows))] == sizes


EXACT = engine_of("gpt2", torch.float64)
BEGIN_ALIKE = st.lists(
    st.lists(st.integers(2, 4), min_size=1, max_size=5).map(tuple), min_size=1, max_size=6
)


@given(BEGIN_ALIKE)
def test_a_beginning_that_prompts_share_is_computed_once(prompts: list[tuple[int, ...]]) -> None:
    """Among them the same prompt twice, and one that begins another."""
    engine = EXACT
    engine.tree(prompts, 3)  # the first one proves that it can
    engine.computed = 0
    tree = engine.tree(prompts, 3)
    assert engine.computed == len({ids[:n] for ids in prompts for n in range(1, len(ids) + 1)})
    alone = torch.cat([engine.forward(torch.tensor([ids]))[:, -1] for ids in prompts])
    assert (tree.roots - alone).abs().max() < 1e-10
    below = tree.grow(
        np.arange(len(prompts)), np.full(len(prompts), ROOT), np.full(len(prompts), 5)
    )
    alone = torch.cat([engine.forward(torch.tensor([(*ids, 5)]))[:, -1] for ids in prompts])
    assert (torch.cat([logits for _, logits in below]) - alone).abs().max() < 1e-10


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_divides_every_tokens_logits(temperature: float) -> None:
    """The same as a model whose output layer is that much smaller."""
    hot, scaled = engine_of("llama"), engine_of("llama")
    with torch.no_grad():
        scaled.model.get_output_embeddings().weight /= temperature
    for got, want in zip(
        readout(hot, PROMPTS, tiny.OVERLAPPING, tolerance=1e-6, temperature=temperature),
        readout(scaled, PROMPTS, tiny.OVERLAPPING, tolerance=1e-6),
        strict=True,
    ):
        assert np.abs(got.options - want.options).max() < 5e-6
    with pytest.raises(CrystalError, match="temperature"):
        readout(hot, PROMPTS, tiny.OVERLAPPING, temperature=0)
