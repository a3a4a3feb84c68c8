"""The quantities: known answers, bounds and invariances; from counts, against known truth."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crystal.errors import CrystalError
from crystal.measure import quantities as ph

quick = settings(max_examples=60, deadline=None)


SOME = st.integers(2, 7)


@st.composite
def tables(draw, rows=SOME) -> np.ndarray:
    """Answers (prompts, options) of small counts: zeros and ties are common, no row is empty."""
    shape = (draw(rows), draw(st.integers(2, 6)))
    counts = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 5)))
    counts[
        np.arange(shape[0]),
        draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1))),
    ] += 1
    return counts / counts.sum(1, keepdims=True)


distributions = tables(rows=st.just(2)).map(tuple)


def test_entropy_of_known_distributions():
    assert ph.entropy_bits(np.array([0.5, 0.25, 0.25])) == 1.5
    assert ph.entropy_bits(np.array([1.0, 0.0])) == 0
    assert ph.entropy_bits(np.full(8, 1 / 8)) == pytest.approx(3)


@quick
@given(distributions)
def test_distances_between_distributions_are_symmetric_and_bounded(pair):
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
def test_liquidity_is_zero_only_for_a_crystal_and_bounded(answers):
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
def test_liquidity_is_mutual_information(answers):
    joint = answers / len(answers)
    apart = joint.sum(0) * joint.sum(1, keepdims=True)
    information = sum(
        j * np.log2(j / a) for j, a in zip(joint.flat, apart.flat, strict=True) if j > 0
    )
    assert ph.liquidity_bits(answers) == pytest.approx(information, abs=1e-9)


@quick
@given(tables(), st.data())
def test_weights_count_as_repeated_prompts(answers, data):
    n = len(answers)
    counts = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n).filter(lambda c: sum(c) > 1))
    )
    repeated = np.repeat(answers, counts, axis=0)
    for statistic in (ph.liquidity_bits, ph.vendi, ph.mean_distribution):
        assert statistic(answers, counts) == pytest.approx(statistic(repeated), abs=1e-7)
        assert statistic(answers, np.stack([counts, counts]))[1] == pytest.approx(
            statistic(answers, counts)
        )


@quick
@given(tables(rows=st.integers(3, 6)), st.data())
def test_spread_is_the_mean_over_pairs_of_different_prompts(answers, data):
    n = len(answers)
    w = np.array(
        data.draw(
            st.lists(st.integers(0, 3), min_size=n, max_size=n).filter(
                lambda c: np.count_nonzero(c) > 1
            )
        )
    )
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    brute = sum(w[i] * w[j] * ph.mse(answers[i], answers[j]) for i, j in pairs) / sum(
        w[i] * w[j] for i, j in pairs
    )
    assert ph.spread(answers, w) == pytest.approx(brute, abs=1e-9)


def test_vendi_counts_distinct_distributions():
    assert ph.vendi(np.tile([0.3, 0.7], (5, 1))) == pytest.approx(1)
    assert ph.vendi(np.eye(5)) == pytest.approx(5)
    assert ph.vendi(np.repeat(np.eye(3), 4, axis=0)) == pytest.approx(
        3
    )  # four prompts each, three distributions


@quick
@given(tables())
def test_vendi_lies_between_one_and_the_number_of_prompts(answers):
    assert 1 - 1e-6 <= ph.vendi(answers) <= len(answers) + 1e-6


@quick
@given(tables(rows=st.just(6)))
def test_liquidity_is_that_of_the_groups_plus_the_floor_within(answers):
    groups = np.array([4, 4, 1, 1, 7, 7])
    floor = ph.template_floor_bits(answers, groups)
    assert ph.liquidity_bits(answers) == pytest.approx(
        ph.liquidity_bits(ph.grouped(answers, groups)) + floor, abs=1e-9
    )
    weights = np.array([2, 2, 0, 0, 1, 1])
    within = [ph.liquidity_bits(answers[groups == g]) for g in (4, 7)]
    assert ph.template_floor_bits(answers, groups, weights) == pytest.approx(
        (2 * within[0] + within[1]) / 3, abs=1e-9
    )


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
    if brute.mean() > ph.TINY:
        assert ph.mse_ratio_seed(base, target) == pytest.approx(
            brute.min() / brute.mean(), abs=1e-9
        )


def test_seed_ratio_of_a_prompt_of_the_base_is_zero():
    assert ph.mse_ratio_seed(np.eye(4), np.eye(4)[2]) == 0


@quick
@given(distributions, st.floats(0.05, 0.95))
def test_support_is_the_smallest_set_that_holds_the_quantile(pair, quantile):
    distribution = pair[0]
    mask = ph.support(distribution, quantile)
    assert ph.probmass(distribution, mask) >= quantile - 1e-9
    one_less = np.sort(distribution)[::-1][
        : mask.sum() - 1
    ].sum()  # the best any smaller set can do
    assert one_less < quantile + 1e-9


def test_probmass_of_a_known_distribution():
    seed = np.array([0.05, 0.6, 0.05, 0.3])
    mask = ph.support(seed, 0.9)
    assert mask.tolist() == [False, True, False, True]
    assert ph.probmass(np.array([0.1, 0.2, 0.3, 0.4]), mask) == pytest.approx(0.6)
    assert ph.support(np.stack([seed, seed[::-1]]), 0.5).tolist() == [
        [False, True, False, False],
        [False, False, True, False],
    ]


@quick
@given(distributions)
def test_redistribution(pair):
    p, q = pair
    assert ph.lower_half(p).sum() == len(p) // 2
    assert p[ph.lower_half(p)].max() <= p[~ph.lower_half(p)].min()
    ranks = pd.DataFrame([p, q]).rank(axis=1).to_numpy()
    if np.ptp(ranks, axis=1).all():
        assert ph.spearman(p, q) == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-9)
    else:
        assert np.isnan(ph.spearman(p, q))  # all options tied: there is no order to keep


# --- counts

REPEATS = 300
SIGMAS = 5.5  # a mean of REPEATS strays so far with probability 4e-8: all tests, below 1e-5


def distribution(shape: str, k: int) -> np.ndarray:
    weight = {
        "uniform": np.ones(k),
        "zipf": 1 / np.arange(1, k + 1),
        "geometric": np.exp(-8 * np.arange(k) / k),
    }[shape]
    return weight / weight.sum()


def near(values: np.ndarray, truth: float | np.ndarray, slack: float = 0.0) -> bool:
    """Whether the mean of values is the truth, up to `slack` and SIGMAS standard errors."""
    error = np.asarray(values - truth)
    return abs(error.mean()) <= slack + SIGMAS * error.std(ddof=1) / math.sqrt(len(error)) + 1e-12


def plug_in(counts: np.ndarray) -> np.ndarray:
    """Entropy of the observed shares."""
    return ph.entropy_bits(ph.even(counts))


SHAPES = pytest.mark.parametrize("shape", ["uniform", "zipf", "geometric"])
SIZES = pytest.mark.parametrize("k", [10, 100, 1000, 10_000])
DRAWS = pytest.mark.parametrize("n", [50, 500, 10_000])


@SHAPES
@SIZES
@DRAWS
def test_what_is_called_unbiased_is(shape, k, n):
    p, rng = distribution(shape, k), np.random.default_rng([k, n, len(shape)])
    assert near(ph.collision(rng.multinomial(n, p, size=REPEATS)), (p**2).sum())


@SHAPES
@SIZES
@DRAWS
def test_coverage_is_the_mass_that_was_seen(shape, k, n):
    p = distribution(shape, k)
    counts = np.random.default_rng([k, n, 1]).multinomial(n, p, size=REPEATS)
    seen = ((counts > 0) * p).sum(-1)
    assert near(ph.coverage(counts), seen, slack=0.5 / n + 0.01 * (n == 50))


@SHAPES
@SIZES
@DRAWS
def test_entropy_by_coverage_beats_the_plug_in(shape, k, n):
    """Chao-Wang-Jost is never further off than the plug-in, and by little once most was seen."""
    p = distribution(shape, k)
    truth = float(ph.entropy_bits(p))
    counts = np.random.default_rng([k, n, 2]).multinomial(n, p, size=REPEATS)
    plain, better = (
        float(estimator(counts).mean()) - truth for estimator in (plug_in, ph.chao_wang_jost)
    )
    spread = SIGMAS * ph.chao_wang_jost(counts).std() / math.sqrt(REPEATS)
    assert plain <= spread and abs(better) <= abs(plain) + spread
    if ph.coverage(counts).mean() > 0.9:
        assert abs(better) <= 0.02 + 0.2 * abs(plain) + spread


def test_chao1_finds_a_uniform_distribution_and_bounds_the_others():
    for shape, k, n in [("uniform", 1000, 2000), ("zipf", 1000, 2000), ("geometric", 1000, 2000)]:
        counts = np.random.default_rng(3).multinomial(n, distribution(shape, k), size=REPEATS)
        found = ph.richness(counts)
        assert near(found, k, slack=10) if shape == "uniform" else found.mean() < k
        assert (found >= (counts > 0).sum(-1)).all()


# -- formulas, written out once more


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


COUNTS = st.lists(st.integers(1, 12), min_size=1, max_size=12).filter(
    lambda counts: 2 <= sum(counts) <= 40
)


@given(counts=COUNTS)
def test_the_entropy_is_the_published_formula(counts):
    """Up to 40 draws: beyond, its closed form cancels; so it is not used."""
    assert ph.chao_wang_jost(np.array(counts)) == pytest.approx(chao_wang_jost(counts), abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 50, 10_000, 200_000])
@pytest.mark.parametrize("z", [0.0, 1e-6, 0.3, 0.9, 0.999, 1 - 1e-5])
def test_the_tail_is_its_series(n, z):
    j = np.arange(1, int(45 / (1 - z)) + 10)
    assert float(ph._tail(np.array(z), np.array(n))) == pytest.approx(
        (z**j / (n - 1 + j)).sum(), rel=1e-10, abs=1e-290
    )


# -- what must hold for any counts


@settings(max_examples=200)
@given(data=st.data(), counts=COUNTS)
def test_order_and_zeros_do_not_matter_and_bounds_hold(data, counts):
    counts = np.array(counts)
    other = np.array(data.draw(st.permutations([*counts.tolist(), 0, 0])))
    for estimator in (plug_in, ph.chao_wang_jost, ph.coverage, ph.richness, ph.collision):
        assert estimator(other) == pytest.approx(estimator(counts), rel=1e-12, abs=1e-12)
        assert estimator(np.stack([other, other])).shape == (2,)
    assert 0 <= ph.coverage(counts) <= 1
    assert ph.richness(counts) >= len(counts) and 0 <= ph.collision(counts) <= 1
    assert (
        -1e-12 <= plug_in(counts) <= math.log2(len(counts)) + 1e-12
        and ph.chao_wang_jost(counts) >= -1e-12
    )


def test_overlap_of_known_distributions():
    p, q = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 0.0, 0.5, 0.5])
    assert ph.overlap(p, p) == 1 and ph.overlap(p, q) == 0
    assert 1 - ph.overlap(p, p[[0, 2, 1, 3]]) == pytest.approx(
        4 * ph.mse(p, p[[0, 2, 1, 3]]) / ((p**2).sum() * 2)
    )


# -- many prompts


def test_liquidity_and_agreement_of_crystals_and_of_strangers():
    """A crystal has liquidity 0 and agreement 1; strangers have log2(prompts) and 0."""
    rng, p = np.random.default_rng(5), distribution("zipf", 200)
    crystal = rng.multinomial(2000, p, size=(60, 20))
    assert near(np.array([ph.liquidity(counts) for counts in crystal]), 0.0, slack=0.002)
    assert near(np.array([ph.agreement(counts) for counts in crystal]), 1.0, slack=0.002)
    assert near(np.array([ph.liquidity_floor(counts, rng) for counts in crystal]), 0.0, slack=0.002)
    strangers = np.zeros((4, 800), int)
    for i in range(4):
        strangers[i, 200 * i : 200 * (i + 1)] = rng.multinomial(20_000, p)
    assert ph.liquidity(strangers) == pytest.approx(2, abs=0.01) and ph.agreement(strangers) == 0
    assert abs(ph.liquidity_floor(strangers, rng)) < 0.01


def test_liquidity_from_counts_is_that_of_the_distributions():
    rng = np.random.default_rng(6)
    distributions = rng.dirichlet(np.full(50, 0.3), size=20)
    counts = np.array([[rng.multinomial(5000, p) for p in distributions] for _ in range(40)])
    assert near(
        np.array([ph.liquidity(c) for c in counts]),
        float(ph.liquidity_bits(distributions)),
        slack=0.002,
    )
    squares = (distributions**2).sum(1).mean()
    assert near(
        np.array([ph.agreement(c) for c in counts]),
        1 - float(ph.spread(distributions)) * 50 / (2 * squares),
        slack=0.002,
    )


def test_weights_count_prompts():
    counts = np.random.default_rng(7).multinomial(500, distribution("zipf", 30), size=4)
    weights = np.array([[1, 1, 1, 1], [2, 1, 0, 1]])
    assert ph.liquidity(counts, weights)[0] == pytest.approx(ph.liquidity(counts))
    assert ph.agreement(counts, weights)[0] == pytest.approx(ph.agreement(counts))
    assert ph.agreement(counts, np.array([0, 1, 0, 1])) == pytest.approx(
        ph.agreement(counts[[1, 3]])
    )


@pytest.mark.parametrize("counts", [[1, 0], []])
def test_too_few_draws_are_refused(counts):
    for estimator in (ph.chao_wang_jost, ph.coverage, ph.richness, ph.collision):
        with pytest.raises(CrystalError, match="one draw or none"):
            estimator(np.array(counts))


def test_unequal_samples_are_not_pooled():
    with pytest.raises(
        CrystalError, match="different numbers of draws cannot be pooled.*draw the same n"
    ):
        ph.liquidity(np.array([[3, 4], [3, 5]]))
