"""Liquidity between contexts and between wordings, on laws of known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystal.errors import CrystalError
from crystal.measure.crossed import Crossed
from crystal.measure.phases import liquidity_bits

SURE = np.eye(4)


def laws(seed: int, contexts: int = 12, wordings: int = 2, options: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(options), (contexts, wordings))


def test_contexts_that_decide_the_answer_carry_all_of_it():
    found = Crossed(np.repeat(SURE[np.arange(40) % 4][:, None], 2, axis=1))
    assert found.context.value == 2
    assert found.wording.value == found.wordings_apart.value == 0
    assert found.lead.low > 0


def test_wordings_that_decide_the_answer_leave_contexts_nothing():
    found = Crossed(np.repeat(SURE[None, :2], 40, axis=0))
    assert found.context.value == found.contexts_apart.value == 0
    assert found.wording.value == found.wordings_apart.value == 1
    assert found.lead.value == -1


@given(st.integers(0, 10**6), st.integers(2, 4))
def test_both_terms_are_all_that_the_prompt_tells(seed, wordings):
    table = laws(seed, wordings=wordings)
    found, alike = Crossed(table), np.ones(len(table))
    parts = found._context(alike) + found._wording(alike)
    assert parts == pytest.approx(liquidity_bits(table.reshape(-1, 5)), abs=1e-9)


@given(st.integers(0, 10**6))
def test_the_order_of_contexts_and_wordings_is_nothing(seed):
    table = laws(seed)
    mixed = np.random.default_rng(seed).permutation(table)[:, ::-1]
    assert Crossed(mixed).lead.value == pytest.approx(Crossed(table).lead.value, abs=1e-9)


def test_intervals_cover_where_context_and_wording_do_alike():
    """All prompts are drawn alike, so the lead is 0. At 95 % each, fewer than 173 of 200 intervals
    would cover with probability below 1e-6; the jackknife of fifty contexts is given 2 % less."""
    covered = 0
    for seed in range(200):
        lead = Crossed(laws(seed, contexts=50)).lead
        covered += lead.low <= 0 <= lead.high
    assert covered >= 170


@pytest.mark.parametrize("shape", [(2, 2, 3), (5, 1, 3), (5, 3)])
def test_what_is_not_crossed_is_refused(shape):
    with pytest.raises(CrystalError, match="not crossed"):
        Crossed(np.full(shape, 1 / 3))


def test_what_is_no_law_is_refused():
    with pytest.raises(CrystalError, match="sum to 1"):
        Crossed(np.full((5, 2, 3), 0.3))
