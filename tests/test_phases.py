"""The quantities: known answers, bounds and invariances."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crystal.measure import phases as ph

quick = settings(max_examples=60, deadline=None)


SOME = st.integers(2, 7)


@st.composite
def tables(draw, rows=SOME) -> np.ndarray:
    """Answers (prompts, options) from small counts, so that zeros and ties are common; no row is empty."""
    shape = (draw(rows), draw(st.integers(2, 6)))
    counts = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 5)))
    counts[np.arange(shape[0]), draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)))] += 1
    return counts / counts.sum(1, keepdims=True)


laws = tables(rows=st.just(2)).map(tuple)


def test_entropy_of_known_laws():
    assert ph.entropy_bits(np.array([0.5, 0.25, 0.25])) == 1.5
    assert ph.entropy_bits(np.array([1.0, 0.0])) == 0
    assert ph.effective_options(np.full(10, 0.1)) == pytest.approx(10)
    assert ph.normalised_entropy(np.full(6, 1 / 6)) == pytest.approx(1)


@quick
@given(laws)
def test_distances_between_laws_are_symmetric_and_bounded(pair):
    p, q = pair
    for distance, most in ((ph.mse, 2 / len(p)), (ph.tv, 1), (ph.jsd_bits, 1)):
        assert 0 <= distance(p, q) <= most + 1e-9
        assert distance(p, q) == pytest.approx(distance(q, p))
        assert distance(p, p) == 0
        assert (distance(p, q) > 0) == (not np.allclose(p, q))


def test_distances_of_disjoint_certainties():
    p, q = np.eye(2)
    assert (ph.mse(p, q), ph.tv(p, q), ph.jsd_bits(p, q)) == (1, 1, 1)


@quick
@given(tables())
def test_liquidity_is_zero_only_for_a_crystal_and_never_more_than_options_or_prompts_allow(answers):
    bits = ph.liquidity_bits(answers)
    assert (bits == 0) == np.allclose(answers, answers[0], atol=1e-6)
    assert 0 <= bits <= min(np.log2(answers.shape)) + 1e-9


@quick
@given(tables(), st.randoms(use_true_random=False))
def test_order_of_prompts_and_options_does_not_matter(answers, random):
    rows, columns = (random.sample(range(n), n) for n in answers.shape)
    shuffled = answers[rows][:, columns]
    for statistic in (ph.liquidity_bits, ph.spread, ph.vendi):
        assert statistic(shuffled) == pytest.approx(statistic(answers), abs=1e-9)


@quick
@given(tables())
def test_liquidity_is_the_information_of_the_prompt_on_the_answer(answers):
    joint = answers / len(answers)
    apart = joint.sum(0) * joint.sum(1, keepdims=True)
    information = sum(j * np.log2(j / a) for j, a in zip(joint.flat, apart.flat, strict=True) if j > 0)
    assert ph.liquidity_bits(answers) == pytest.approx(information, abs=1e-9)


@quick
@given(tables(), st.data())
def test_weights_count_as_repeated_prompts(answers, data):
    n = len(answers)
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n).filter(lambda c: sum(c) > 1)))
    repeated = np.repeat(answers, counts, axis=0)
    for statistic in (ph.liquidity_bits, ph.vendi, ph.mean_law):
        assert statistic(answers, counts) == pytest.approx(statistic(repeated), abs=1e-7)
        assert statistic(answers, np.stack([counts, counts]))[1] == pytest.approx(statistic(answers, counts))


@quick
@given(tables(rows=st.integers(3, 6)), st.data())
def test_spread_is_the_mean_over_pairs_of_different_prompts(answers, data):
    n = len(answers)
    w = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n).filter(lambda c: np.count_nonzero(c) > 1)))
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    brute = sum(w[i] * w[j] * ph.mse(answers[i], answers[j]) for i, j in pairs) / sum(w[i] * w[j] for i, j in pairs)
    assert ph.spread(answers, w) == pytest.approx(brute, abs=1e-9)


def test_vendi_counts_distinct_laws():
    assert ph.vendi(np.tile([0.3, 0.7], (5, 1))) == pytest.approx(1)
    assert ph.vendi(np.eye(5)) == pytest.approx(5)
    assert ph.vendi(np.repeat(np.eye(3), 4, axis=0)) == pytest.approx(3)  # four prompts each, three laws


@quick
@given(tables())
def test_vendi_lies_between_one_and_the_number_of_prompts(answers):
    assert 1 - 1e-6 <= ph.vendi(answers) <= len(answers) + 1e-6


@quick
@given(tables(rows=st.just(6)))
def test_liquidity_is_that_of_the_groups_plus_the_floor_within(answers):
    groups = np.array([4, 4, 1, 1, 7, 7])
    floor = ph.frame_floor_bits(answers, groups)
    assert ph.liquidity_bits(answers) == pytest.approx(ph.liquidity_bits(ph.grouped(answers, groups)) + floor, abs=1e-9)
    weights = np.array([2, 2, 0, 0, 1, 1])
    within = [ph.liquidity_bits(answers[groups == g]) for g in (4, 7)]
    assert ph.frame_floor_bits(answers, groups, weights) == pytest.approx((2 * within[0] + within[1]) / 3, abs=1e-9)


def test_ratios_without_a_denominator():
    crystal, liquid = np.tile([0.5, 0.5], (3, 1)), np.eye(2)[[0, 1, 0]]
    assert np.isnan(ph.compression(crystal, crystal))  # nothing there that could collapse
    assert ph.compression(liquid, crystal) == np.inf
    assert ph.compression(crystal, liquid) == 0


@quick
@given(tables(rows=st.integers(3, 7)))
def test_seed_is_the_nearest_prompt(answers):
    base, target = answers[1:], answers[0]
    brute = np.array([ph.mse(row, target) for row in base])
    assert ph.distances(base, target) == pytest.approx(brute, abs=1e-12)
    if brute.mean() > ph.TINY:
        assert ph.mse_ratio_seed(base, target) == pytest.approx(brute.min() / brute.mean(), abs=1e-9)


def test_seed_ratio_of_a_prompt_of_the_base_is_zero():
    assert ph.mse_ratio_seed(np.eye(4), np.eye(4)[2]) == 0


@quick
@given(laws, st.floats(0.05, 0.95))
def test_support_is_the_smallest_set_that_holds_the_quantile(pair, quantile):
    law = pair[0]
    mask = ph.support(law, quantile)
    assert ph.probmass(law, mask) >= quantile - 1e-9
    one_less = np.sort(law)[::-1][: mask.sum() - 1].sum()  # the best any smaller set can do
    assert one_less < quantile + 1e-9


def test_probmass_of_a_known_law():
    seed = np.array([0.05, 0.6, 0.05, 0.3])
    mask = ph.support(seed, 0.9)
    assert mask.tolist() == [False, True, False, True]
    assert ph.probmass(np.array([0.1, 0.2, 0.3, 0.4]), mask) == pytest.approx(0.6)
    assert ph.support(np.stack([seed, seed[::-1]]), 0.5).tolist() == [[False, True, False, False], [False, False, True, False]]


@quick
@given(laws)
def test_redistribution(pair):
    p, q = pair
    assert ph.lower_half(p).sum() == len(p) // 2
    assert p[ph.lower_half(p)].max() <= p[~ph.lower_half(p)].min()
    assert ph.promoted_mass(p, p) == 0
    assert 0 <= ph.promoted_mass(p, q) <= ph.tv(p, q) + 1e-12
    ranks = pd.DataFrame([p, q]).rank(axis=1).to_numpy()
    moved = ph.redistribution(p, q)
    if np.ptp(ranks, axis=1).all():
        assert moved.spearman == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-9)
    else:
        assert np.isnan(moved.spearman)  # all options tied: there is no order to keep


def test_promoted_mass_counts_gains_of_the_bottom_only():
    sft, final = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.3, 0.4, 0.05, 0.25])
    assert ph.promoted_mass(sft, final) == pytest.approx(0.2)


