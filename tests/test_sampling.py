"""The tree sampler: the distribution of independent samples, and the same draws however the work is
cut.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
import tiny
import torch
from distributions import chi_square_p, enumerate_answers
from hypothesis import given
from hypothesis import strategies as st

from crystal.ask.tasks import read
from crystal.errors import CrystalError
from crystal.read.engine import Engine, build
from crystal.read.readout import readout
from crystal.read.sampling import (
    UNREADABLE,
    _longer,
    _multinomials,
    _tally,
    draw,
    draw_many,
)
from crystal.read.vocabulary import END, VOID

PROMPT = (0, 5, 6, 7)


def engine_of(kind: str = "llama", dtype: torch.dtype = torch.float32, void: int = 2) -> Engine:
    tokenizer = tiny.hand_tokenizer()
    return build(tiny.model(kind, len(tokenizer) + void, seed=4).to(dtype), tokenizer)


@pytest.mark.parametrize("n", [300, 20_000, 2_000_000])
def test_closed_task_has_the_distribution_of_the_read_out(n: int) -> None:
    """False alarm 1e-4 for each n; small n is drawn by inversion, large n by binomials."""
    engine = engine_of()
    got = readout(engine, [PROMPT], tiny.OVERLAPPING, tolerance=1e-9, max_depth=30)[0]
    distribution = dict(zip(tiny.OVERLAPPING.options, got.options, strict=True)) | {
        "off": got.invalid
    }
    texts = draw(engine, PROMPT, n, seed=7, max_tokens=30, task=tiny.OVERLAPPING)
    seen: Counter = Counter()
    for text, count in texts.items():
        seen[read(text, tiny.OVERLAPPING) or "off"] += count
    assert sum(seen.values()) == n
    assert chi_square_p(seen, distribution) > 1e-4


@pytest.mark.parametrize("kind", ["olmo2", "mamba"])
def test_open_text_has_the_distribution_of_enumeration(kind: str) -> None:
    """Texts of up to three tokens, ragged and whole trees; false alarm 1e-4 each."""
    engine, distribution = engine_of(kind), Counter()
    for path, mass in enumerate_answers(engine.model, engine.pieces, PROMPT, 3):
        pieces = [engine.pieces[t] for t in path]
        text = b"".join(p for p in pieces if isinstance(p, bytes)).decode("utf-8", "replace")
        distribution[UNREADABLE if VOID in pieces else text] += mass
    texts = draw(engine, PROMPT, 50_000, seed=1, max_tokens=3)
    assert sum(texts.values()) == 50_000
    assert chi_square_p(texts, distribution) > 1e-4


@pytest.mark.parametrize(("dtype", "n"), [(torch.float32, 2000), (torch.float64, 1_000_000)])
def test_identical_draws_for_any_batch_size(dtype: torch.dtype, n: int) -> None:
    engine = engine_of(dtype=dtype)
    found = []
    for engine.chunk in (1024, 5, 1):
        found.append(draw(engine, PROMPT, n, seed=3, max_tokens=3))
    assert all(f == found[0] for f in found) and len(found[0]) > 50
    engine.ragged = False
    assert draw(engine, PROMPT, n, seed=3, max_tokens=3) == found[0]


def test_prompts_that_share_a_tree_draw_as_each_alone() -> None:
    engine = engine_of(dtype=torch.float64)
    prompts = [
        PROMPT,
        PROMPT[:2],
        (0, 9, 8, 7, 6, 5),
        (0,) + (3,) * (engine.context - 1),
    ]  # the last has room for one token
    alone = [draw(engine, ids, 5000, seed=3, max_tokens=3) for ids in prompts]
    assert draw_many(engine, prompts, 5000, seed=3, max_tokens=3) == alone
    assert alone[0] != alone[1]


def test_draws_are_keyed_by_seed_and_prompt() -> None:
    engine = engine_of()
    once = draw(engine, PROMPT, 500, seed=3, max_tokens=6)
    assert draw(engine, PROMPT, 500, seed=3, max_tokens=6) == once
    assert draw(engine, PROMPT, 500, seed=4, max_tokens=6) != once
    assert draw(engine, PROMPT[:-1], 500, seed=3, max_tokens=6) != once


def test_first_tokens_are_drawn_apart() -> None:
    """One first token copied to every answer is a known bug elsewhere."""
    assert len(draw(engine_of(), PROMPT, 500, seed=0, max_tokens=1)) > 3


def test_cost_grows_with_distinct_prefixes_only() -> None:
    engine, live = engine_of(void=0), len(tiny.PIECES)
    draw(engine, PROMPT, 10**12, seed=0, max_tokens=3)
    assert engine.computed == len(PROMPT) + live + live**2


@pytest.mark.parametrize("n", [5, 2_000, 200_000])
def test_multinomials_have_their_distribution(n: int) -> None:
    """Mean, variance and correlation within 6 standard errors, some 30 comparisons each.

    False alarm probability below 1e-6: the draws are fixed by their keys, so it is paid once.
    """
    p = np.array([0.5, 0.299, 0.0, 0.15, 0.05, 0.001] + [0.0] * 20)
    repeats, live = 2000, np.flatnonzero(p)
    places, times = _multinomials(keys(repeats), np.full(repeats, n), np.tile(p, (repeats, 1)))
    assert (np.diff(places) > 0).all() and (times > 0).all()
    got = np.zeros((repeats, len(p)), np.int64)
    got.ravel()[places] = times
    assert (got.sum(1) == n).all() and not got[:, p == 0].any()
    got, p = got[:, live], p[live]
    mean, variance = n * p, n * p * (1 - p)
    assert (np.abs(got.mean(0) - mean) <= 6 * np.sqrt(variance / repeats)).all()
    assert (np.abs(got.var(0) / variance - 1) <= 6 * np.sqrt((2 + 1 / variance) / repeats)).all()
    odds = np.sqrt(p / (1 - p))
    apart = ~np.eye(len(p), dtype=bool)
    assert (
        np.abs(np.corrcoef(got.T) + np.outer(odds, odds))[apart]
        <= 6 * np.sqrt((1 + 1 / mean.min()) / repeats)
    ).all()


def test_nodes_split_as_each_alone() -> None:
    counts = np.array([1, 30, 10**7, 31, 5, 10**12, 300, 2])
    p = np.random.default_rng(0).dirichlet(np.full(1000, 0.05), len(counts))
    alone = [
        _multinomials([key], counts[i : i + 1], p[i : i + 1].copy())
        for i, key in enumerate(keys(len(counts)))
    ]
    places, times = _multinomials(keys(len(counts)), counts, p.copy())
    assert (
        places == np.concatenate([found + 1000 * i for i, (found, _) in enumerate(alone)])
    ).all()
    assert (times == np.concatenate([count for _, count in alone])).all()
    assert [int(count.sum()) for _, count in alone] == counts.tolist()


def test_few_draws_are_numbers_of_numpys_philox_inverted() -> None:
    p = np.random.default_rng(0).dirichlet(np.full(30, 0.3), 3)
    places, times = _multinomials(keys(3), np.array([7, 1, 200]), p.copy())
    for row, (key, n) in enumerate(zip(keys(3), (7, 1, 200), strict=True)):
        numbers = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little"))).random(n)
        expected = np.bincount(np.searchsorted(p[row].cumsum(), numbers, "right"), minlength=30)
        assert (times[places // 30 == row] == expected[expected > 0]).all()


def keys(n: int) -> list[bytes]:
    return [hashlib.blake2b(bytes([i % 256, i // 256]), digest_size=16).digest() for i in range(n)]


@pytest.mark.parametrize("bad", [{"n": 0}, {"max_tokens": 0}])
def test_bad_numbers(bad: dict) -> None:
    with pytest.raises(CrystalError, match="1 or more"):
        draw(engine_of(), PROMPT, **{"n": 1, "seed": 0, "max_tokens": 1} | bad)


def test_end_token_ends_the_text() -> None:
    """With all weight on the end, every answer is empty, and nothing more is computed."""
    engine = engine_of(void=0)
    end = engine.pieces.index(END)
    head, bias = engine.model.get_output_embeddings(), torch.zeros(len(engine.pieces))
    bias[end] = 1e3
    head.weight.data.zero_()
    head.bias = torch.nn.Parameter(bias)
    assert draw(engine, PROMPT, 100, seed=0, max_tokens=5) == {"": 100}
    assert engine.computed == len(PROMPT)


@given(st.data())
def test_texts_are_decoded_as_the_whole_of_their_bytes(data: st.DataObject) -> None:
    """Beginnings and tokens may end within a character; one without text spoils all."""
    some = st.lists(
        st.sampled_from(
            [b"a", b"\xc3", b"\xa9", b"\xe2\x82", b"\xac", b"\xff", " \u20ac".encode()]
        ),
        max_size=3,
    )
    pieces = [VOID, END, *data.draw(st.lists(some.map(b"".join), min_size=1, max_size=6))]
    begun = data.draw(st.lists(some.map(b"".join), min_size=1, max_size=4))
    ends = [(i, t) for i in range(len(begun)) for t in range(len(pieces))]
    node, token = np.array(ends).T
    count, owner = np.arange(1, len(ends) + 1), np.arange(len(begun)) % 2
    texts: list[dict[str, int]] = [{}, {}]
    _tally(texts, owner[node], _longer(begun, pieces, node, token), count)
    expected: list[Counter] = [Counter(), Counter()]
    for (i, t), n in zip(ends, count.tolist(), strict=True):
        whole = (
            begun[i] + (b"" if pieces[t] is END else pieces[t])
            if pieces[t] is not VOID
            else UNREADABLE.encode()
        )
        expected[owner[i]][whole.decode("utf-8", "replace")] += n
    assert texts == expected
