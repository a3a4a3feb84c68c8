"""Estimators for laws that cannot be listed, against laws that can."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crystal.errors import CrystalError
from crystal.measure import coverage as cv
from crystal.measure import phases as ph

REPEATS = 300
SIGMAS = 5.5  # a mean of REPEATS strays so far with probability 4e-8: below 1e-5 for all the statistical tests here together


def law(shape: str, k: int) -> np.ndarray:
    weight = {"uniform": np.ones(k), "zipf": 1 / np.arange(1, k + 1), "geometric": np.exp(-8 * np.arange(k) / k)}[shape]
    return weight / weight.sum()


def near(values: np.ndarray, truth: float | np.ndarray, slack: float = 0.0) -> bool:
    """Whether the mean of independent values is the truth, up to `slack` and SIGMAS standard errors."""
    error = np.asarray(values - truth)
    return abs(error.mean()) <= slack + SIGMAS * error.std(ddof=1) / math.sqrt(len(error)) + 1e-12


SHAPES = pytest.mark.parametrize("shape", ["uniform", "zipf", "geometric"])
SIZES = pytest.mark.parametrize("k", [10, 100, 1000, 10_000])
DRAWS = pytest.mark.parametrize("n", [50, 500, 10_000])


@SHAPES
@SIZES
@DRAWS
def test_what_is_called_unbiased_is(shape, k, n):
    p, q = law(shape, k), law("zipf", k)[::-1]
    rng = np.random.default_rng([k, n, len(shape)])
    first, second = rng.multinomial(n, p, size=REPEATS), rng.multinomial(2 * n, q, size=REPEATS)
    assert near(cv.collision(first), (p**2).sum())
    assert near(cv.cross_collision(first, second), (p * q).sum())


@SHAPES
@SIZES
@DRAWS
def test_coverage_is_the_mass_that_was_seen(shape, k, n):
    p = law(shape, k)
    counts = np.random.default_rng([k, n, 1]).multinomial(n, p, size=REPEATS)
    seen = ((counts > 0) * p).sum(-1)
    assert near(cv.coverage(counts), seen, slack=0.5 / n + 0.01 * (n == 50))


@SHAPES
@SIZES
@DRAWS
def test_entropy_by_coverage_beats_the_plug_in(shape, k, n):
    """Chao-Wang-Jost is never further off than the plug-in, and by little once most of the law was seen."""
    p = law(shape, k)
    truth = float(ph.entropy_bits(p))
    counts = np.random.default_rng([k, n, 2]).multinomial(n, p, size=REPEATS)
    bias = {name: float(estimator(counts).mean()) - truth for name, estimator in cv.ENTROPIES.items()}
    spread = SIGMAS * cv.chao_wang_jost(counts).std() / math.sqrt(REPEATS)
    assert abs(bias["Chao-Wang-Jost"]) <= abs(bias["plug-in"]) + spread
    assert bias["plug-in"] <= bias["Miller-Madow"] <= spread
    if cv.coverage(counts).mean() > 0.9:
        assert abs(bias["Chao-Wang-Jost"]) <= 0.02 + 0.2 * abs(bias["plug-in"]) + spread
        assert abs(bias["Chao-Shen"]) <= 0.02 + abs(bias["plug-in"]) + spread


def test_chao1_finds_a_uniform_law_and_bounds_the_others():
    for shape, k, n in [("uniform", 1000, 2000), ("zipf", 1000, 2000), ("geometric", 1000, 2000)]:
        counts = np.random.default_rng(3).multinomial(n, law(shape, k), size=REPEATS)
        found = cv.richness(counts)
        assert near(found, k, slack=10) if shape == "uniform" else found.mean() < k
        assert (found >= (counts > 0).sum(-1)).all()


# -- formulas, written out once more


def chao_shen(counts: list[int]) -> float:
    n, f1 = sum(counts), counts.count(1)
    c = 1 - (f1 - (f1 == n)) / n
    terms = [(c * x / n) * math.log2(c * x / n) / (1 - (1 - c * x / n) ** n) for x in counts if c * x < n]
    return -sum(terms)


def chao_wang_jost(counts: list[int]) -> float:
    n, f1, f2 = sum(counts), counts.count(1), counts.count(2)
    seen = sum(x / n * sum(1 / j for j in range(x, n)) for x in counts)
    if f1 == 0:
        return seen / math.log(2)
    a = 2 * f2 / ((n - 1) * f1 + 2 * f2) if f2 else 2 / ((n - 1) * (f1 - 1) + 2)
    if a == 1:
        return seen / math.log(2)
    rest = -math.log(a) - sum((1 - a) ** r / r for r in range(1, n))
    return (seen + f1 / n * (1 - a) ** (1 - n) * rest) / math.log(2)


COUNTS = st.lists(st.integers(1, 12), min_size=1, max_size=12).filter(lambda counts: 2 <= sum(counts) <= 40)


@given(counts=COUNTS)
def test_entropies_are_the_published_formulas(counts):
    """Up to 40 draws: beyond, the closed form of the second cancels, which is why it is not used."""
    assert cv.chao_shen(np.array(counts)) == pytest.approx(chao_shen(counts), abs=1e-9)
    assert cv.chao_wang_jost(np.array(counts)) == pytest.approx(chao_wang_jost(counts), abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 50, 10_000, 200_000])
@pytest.mark.parametrize("z", [0.0, 1e-6, 0.3, 0.9, 0.999, 1 - 1e-5])
def test_the_tail_is_its_series(n, z):
    j = np.arange(1, int(45 / (1 - z)) + 10)
    assert float(cv._tail(np.array(z), np.array(n))) == pytest.approx((z**j / (n - 1 + j)).sum(), rel=1e-10, abs=1e-290)


# -- what must hold for any counts


@settings(max_examples=200)
@given(data=st.data(), counts=COUNTS)
def test_order_and_zeros_do_not_matter_and_bounds_hold(data, counts):
    counts = np.array(counts)
    other = np.array(data.draw(st.permutations([*counts.tolist(), 0, 0])))
    for estimator in (*cv.ENTROPIES.values(), cv.coverage, cv.richness, cv.collision):
        assert estimator(other) == pytest.approx(estimator(counts), rel=1e-12, abs=1e-12)
        assert estimator(np.stack([other, other])).shape == (2,)
    assert 0 <= cv.coverage(counts) <= 1
    assert cv.richness(counts) >= len(counts) and 0 <= cv.collision(counts) <= 1
    assert -1e-12 <= cv.plug_in(counts) <= math.log2(len(counts)) + 1e-12 and cv.chao_wang_jost(counts) >= -1e-12


@given(first=st.lists(st.integers(0, 9), min_size=4, max_size=4), second=st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_the_overlap_of_two_samples_has_no_order(first, second):
    first, second = np.array(first), np.array(second)
    assume(first.sum() > 1 and second.sum() > 1)
    assert cv.overlap(first, second) == pytest.approx(cv.overlap(second, first), nan_ok=True)


def test_overlap_of_known_laws():
    p, q = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 0.0, 0.5, 0.5])
    assert cv.laws_overlap(p, p) == 1 and cv.laws_overlap(p, q) == 0
    assert 1 - cv.laws_overlap(p, p[[0, 2, 1, 3]]) == pytest.approx(4 * ph.mse(p, p[[0, 2, 1, 3]]) / ((p**2).sum() * 2))


@SHAPES
@pytest.mark.parametrize("k", [100, 10_000])
def test_overlap_needs_only_many_more_draws_than_the_root_of_the_options(shape, k):
    """One law sampled twice: the overlap is 1 and the plug-in TV far from 0, at n = 20 sqrt(K) draws; false alarm as above."""
    n, p = 20 * math.isqrt(k), law(shape, k)
    rng = np.random.default_rng([k, 4])
    first, second = rng.multinomial(n, p, size=REPEATS), rng.multinomial(n, p, size=REPEATS)
    assert near(cv.overlap(first, second), 1.0, slack=0.02)
    assert ph.tv(first / n, second / n).mean() > (0.12 if k == 100 else 0.2)


# -- many prompts


def test_liquidity_and_agreement_of_crystals_and_of_strangers():
    """A crystal of 20 prompts has liquidity 0 and agreement 1; prompts that share nothing have log2(prompts) and 0."""
    rng, p = np.random.default_rng(5), law("zipf", 200)
    crystal = rng.multinomial(2000, p, size=(60, 20))
    assert near(np.array([cv.liquidity(counts) for counts in crystal]), 0.0, slack=0.002)
    assert near(np.array([cv.agreement(counts) for counts in crystal]), 1.0, slack=0.002)
    assert near(np.array([cv.liquidity_floor(counts, rng) for counts in crystal]), 0.0, slack=0.002)
    strangers = np.zeros((4, 800), int)
    for i in range(4):
        strangers[i, 200 * i : 200 * (i + 1)] = rng.multinomial(20_000, p)
    assert cv.liquidity(strangers) == pytest.approx(2, abs=0.01) and cv.agreement(strangers) == 0
    assert abs(cv.liquidity_floor(strangers, rng)) < 0.01


def test_liquidity_from_counts_is_that_of_the_laws():
    rng = np.random.default_rng(6)
    laws = rng.dirichlet(np.full(50, 0.3), size=20)
    counts = np.array([[rng.multinomial(5000, p) for p in laws] for _ in range(40)])
    assert near(np.array([cv.liquidity(c) for c in counts]), float(ph.liquidity_bits(laws)), slack=0.002)
    squares = (laws**2).sum(1).mean()
    assert near(np.array([cv.agreement(c) for c in counts]), 1 - float(ph.spread(laws)) * 50 / (2 * squares), slack=0.002)


def test_weights_count_prompts():
    counts = np.random.default_rng(7).multinomial(500, law("zipf", 30), size=4)
    weights = np.array([[1, 1, 1, 1], [2, 1, 0, 1]])
    assert cv.liquidity(counts, weights)[0] == pytest.approx(cv.liquidity(counts))
    assert cv.agreement(counts, weights)[0] == pytest.approx(cv.agreement(counts))
    assert cv.agreement(counts, np.array([0, 1, 0, 1])) == pytest.approx(cv.agreement(counts[[1, 3]]))


@pytest.mark.parametrize(("counts", "said"), [
    ([1, -1, 3], "whole numbers, 0 or more"), ([0.5, 1.5], "whole numbers"), ([1, 0], "one draw or none"),
    ([], "one draw or none"),
])
def test_what_are_no_counts_is_said(counts, said):
    for estimator in (*cv.ENTROPIES.values(), cv.coverage, cv.richness, cv.collision):
        with pytest.raises(CrystalError, match=said):
            estimator(np.array(counts))


def test_unequal_samples_are_not_pooled():
    with pytest.raises(CrystalError, match="different numbers of draws cannot be pooled.*draw the same n"):
        cv.liquidity(np.array([[3, 4], [3, 5]]))
