"""Intervals, nulls and floors: exact properties, then coverage and false alarms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from crystal.errors import CrystalError
from crystal.measure import inference as inf
from crystal.measure import quantities as ph
from crystal.measure.claims import holm

K = 10
CAST = np.repeat(np.arange(20), 5)  # twenty, in five wordings each
WORDING = np.tile(np.arange(5), 20)


def liquid_base(rng: np.random.Generator, options: int = K, scatter: float = 60.0) -> np.ndarray:
    """(100, options): every persona has a distribution of its own, every frame a little noise."""
    distributions = rng.dirichlet(np.full(options, 0.7), size=20)[CAST]
    return np.stack(
        [rng.dirichlet(scatter * distribution + 0.01) for distribution in distributions]
    )


def frame_noise_only(rng: np.random.Generator, options: int = K) -> np.ndarray:
    """(100, options): one distribution for all personas, noise in every prompt."""
    distribution = rng.dirichlet(np.full(options, 0.7))
    return rng.dirichlet(30 * distribution + 0.01, size=100)


# --- intervals


def test_streams_depend_on_seed_and_purpose_and_on_nothing_else():
    draws = {key: inf.generator(*key).random() for key in [(0, "a"), (0, "b"), (1, "a"), (0, "ab")]}
    assert len(set(draws.values())) == 4
    assert inf.generator(0, "a").random() == draws[0, "a"]


def test_templates_of_a_persona_are_left_out_together():
    weights = inf.leave_one_out(CAST)
    assert weights.shape == (21, 100) and (weights[0] == 1).all()
    assert (weights[1:].reshape(20, 20, 5).sum(2) == 5 * (1 - np.eye(20))).all()


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40))
def test_the_interval_of_a_mean_is_students(values):
    values, n = np.array(values), len(values)
    found = inf.estimate(lambda w: w @ values / w.sum(-1), inf.leave_one_out(np.arange(n)))
    assert found.value == pytest.approx(values.mean(), abs=1e-8)
    error = values.std(ddof=1) / np.sqrt(n)
    if n < 8 and error > 1e-6:
        low, high = stats.t.interval(0.95, n - 1, values.mean(), error)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


def test_heavy_tails_cost_degrees_of_freedom():
    assert inf.freedom(np.tile([0.0, 1.0], 10)) == pytest.approx(19)
    assert inf.freedom(np.array([0.0] * 19 + [1.0])) < 4
    assert inf.freedom(np.arange(5.0)) == pytest.approx(4)


@given(st.lists(st.floats(-1e3, 1e3), min_size=8, max_size=40).filter(lambda x: np.ptp(x) > 1e-3))
def test_freedom_is_by_the_kurtosis_of_scipy(values):
    n, excess = len(values), max(0, stats.kurtosis(values, bias=False))
    wanted = 2 * n / (excess + 2 * n / (n - 1))
    assert inf.freedom(np.array(values)) == pytest.approx(wanted, rel=1e-6)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_share_is_the_binomials(trial):
    wanted = stats.binomtest(*trial).proportion_ci()
    assert inf.share(*trial) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_the_bias_of_few_personas_is_taken_off():
    """Liquidity of twenty personas falls short of that of many; the estimate does not, on average.

    False alarm: 60 tries of standard deviation 0.08 about; four standard
    errors are 0.04, the shortfall is over 0.1.
    """
    rng = np.random.default_rng(1)
    many = ph.liquidity_bits(rng.dirichlet(np.full(50, 0.3), 4000))
    plain, found = [], []
    for _ in range(60):
        distributions = rng.dirichlet(np.full(50, 0.3), 20)[CAST]
        plain.append(ph.liquidity_bits(distributions))
        found.append(
            inf.estimate(
                lambda w, distributions=distributions: ph.liquidity_bits(distributions, w),
                inf.leave_one_out(CAST),
                scale="log",
            ).value
        )
    assert np.mean(plain) < many - 0.1
    assert abs(np.mean(found) - many) < 0.04


def test_interval_of_a_number_that_exists_nowhere_or_is_infinite():
    weights = inf.leave_one_out(CAST)
    nothing = inf.estimate(lambda w: np.full(w.shape[:-1], np.nan), weights)
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    assert nothing.p_beyond(0.5, "above") == 1
    endless = inf.estimate(lambda w: np.full(w.shape[:-1], np.inf), weights)
    assert (endless.value, endless.low, endless.high) == (np.inf,) * 3
    assert endless.p_beyond(0.5, "above") < 0.001
    one = inf.estimate(lambda w: w.sum(-1), inf.leave_one_out(np.zeros(100)))
    assert np.isnan(one.low) and one.p_beyond(0, "above") == 1


def test_a_ratio_to_what_may_be_nothing_is_no_number():
    rng = np.random.default_rng(2)
    noise, sure = rng.normal(0, 1, 20), rng.normal(5, 1, 20)
    mean = lambda x: lambda w: w @ x / w.sum(-1)  # noqa: E731
    weights = inf.leave_one_out(np.arange(20))
    assert np.isnan(inf.ratio(mean(sure), mean(noise), weights).value)
    found = inf.ratio(mean(sure), mean(2 * sure), weights)
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))
    assert inf.ratio(mean(sure), mean(0 * sure), weights).value == np.inf


def test_intervals_exclude_a_mark_as_p_values_do():
    base = liquid_base(np.random.default_rng(5))
    found = inf.estimate(lambda w: ph.liquidity_bits(base, w), inf.leave_one_out(CAST), scale="log")
    assert found.low < found.value < found.high
    for threshold in np.linspace(found.low - 0.05, found.high + 0.05, 41):
        for side, beyond in (("above", found.low > threshold), ("below", found.high < threshold)):
            assert (found.p_beyond(threshold, side) <= inf.ALPHA) == beyond


def test_intervals_cover_the_truth():
    """Probability of the first option, mean over personas; more by the page `validation`.

    False alarm: 300 tries of which fewer than 270 cover, if each covers with 0.94: 0.005;
    with 0.95: 3e-4.
    """
    rng, weights, covered = np.random.default_rng(0), inf.leave_one_out(CAST), 0
    for _ in range(300):
        p = rng.beta(2, 6, size=20)[CAST, None]  # mean 1/4; the five templates agree wholly
        found = inf.estimate(lambda w, p=p: ph.mean_distribution(p, w)[..., 0], weights)
        covered += found.low <= 0.25 <= found.high
    assert 270 <= covered < 300


def test_numbers_stay_within_their_bounds():
    found = inf.student(np.array([0.99, 0.999, 0.9]), low=0, high=1)
    assert found.high == 1 and found.p_beyond(0.5, "above") < 0.05


# --- nulls


def test_p_values_are_never_zero_and_count_ties_as_extreme():
    draws = np.array([1.0, 2.0, 3.0, 3.0])
    draws = np.tile(draws, 5)
    assert inf.against("n", 5, draws).p == 1 / 21
    assert inf.against("n", 3, draws).p == 11 / 21


def test_too_few_permutations_are_refused_in_a_sentence():
    with pytest.raises(CrystalError, match="12 permutations cannot reach"):
        inf.against("n", 1, np.zeros(12))


def test_units_may_have_unequal_numbers_of_prompts():
    rng, units = np.random.default_rng(14), np.repeat([0, 1, 2, 3], [2, 3, 4, 5])
    distributions = rng.dirichlet(np.full(K, 0.3), 4)[units]
    assert inf.cluster_null(distributions, units, np.zeros(14), permutations=199).p == 1 / 200
    assert (
        inf.cluster_null(
            rng.dirichlet(np.full(K, 0.3), 14), units, np.zeros(14), permutations=199
        ).p
        > 0.01
    )


FALSE_ALARMS = 22  # of 200 tests at 5 %; more would come by chance with probability 2e-4


def test_personas_that_do_not_matter_are_seldom_taken_to_matter():
    """False alarm: see FALSE_ALARMS."""
    rng = np.random.default_rng(2)
    p = [
        inf.cluster_null(frame_noise_only(rng), CAST, WORDING, permutations=199, seed=i).p
        for i in range(200)
    ]
    assert np.mean(np.array(p) <= inf.ALPHA) <= FALSE_ALARMS / 200
    assert inf.cluster_null(liquid_base(rng), CAST, WORDING, permutations=199).p == 1 / 200


def test_a_base_that_heeds_only_the_template_has_no_personas():
    frame = np.random.default_rng(3).dirichlet(np.full(K, 0.5), size=5)
    base = np.tile(frame, (20, 1))  # PROMPTS order: the five templates of each persona
    assert ph.liquidity_bits(base) > 0.5
    assert inf.cluster_null(base, CAST, WORDING, permutations=199).p == 1
    assert ph.template_floor_bits(base, CAST) == pytest.approx(ph.liquidity_bits(base))


def swapped_liquidity(before: np.ndarray, after: np.ndarray, **how) -> inf.Null:
    both = np.concatenate([before, after])
    return inf.swap_null(
        "swap", lambda a, b: ph.liquidity_bits(both, a) - ph.liquidity_bits(both, b), CAST, **how
    )


def test_noise_between_checkpoints_is_seldom_a_difference():
    """False alarm: see FALSE_ALARMS."""
    rng, p = np.random.default_rng(4), []
    for i in range(200):
        distributions = rng.dirichlet(np.full(K, 0.7), size=20)
        checkpoints = [
            np.stack([rng.dirichlet(20 * distribution + 0.01) for distribution in distributions])[
                CAST
            ]
            for _ in range(2)
        ]
        p.append(swapped_liquidity(*checkpoints, permutations=199, seed=i).p)
    assert np.mean(np.array(p) <= inf.ALPHA) <= FALSE_ALARMS / 200
    base = liquid_base(rng)
    assert swapped_liquidity(base, np.tile(base.mean(0), (100, 1)), permutations=199).p == 1 / 200


def test_weak_evidence_adds_up_and_constant_nulls_say_nothing():
    rng = np.random.default_rng(7)
    weak = [inf.against("n", 1.2, rng.permutation(np.linspace(-2, 2, 199))) for _ in range(15)]
    assert min(null.p for null in weak) > 0.15
    constant = inf.against("n", 1.0, np.ones(199))
    assert inf.pooled([*weak, constant]).p == inf.pooled(weak).p <= 0.01
    assert inf.pooled([constant]) is None and inf.pooled([]) is None


def test_tasks_of_the_same_units_are_no_evidence_of_their_own():
    """One task asked fifteen times has the p of one; of other units each time, the least p."""
    rng = np.random.default_rng(9)
    base = liquid_base(rng)
    later = np.maximum(base + rng.normal(0, 0.02, base.shape), 1e-9)
    null = swapped_liquidity(base, later / later.sum(1, keepdims=True), permutations=199)
    assert null.paired and inf.cluster_null(base, CAST, WORDING, permutations=19).paired
    assert inf.pooled([null] * 15).p == null.p
    told = inf.against("n", 1.2, rng.permutation(np.linspace(-2, 2, 199)))
    assert (
        inf.pooled([dataclasses.replace(told, paired=True)] * 15).p
        == told.p
        > inf.pooled([told] * 15).p
    )


def test_split_half_floor():
    same = np.tile(np.random.default_rng(8).dirichlet(np.ones(K)), (100, 1))
    floor = inf.split_half_floor(same, CAST, splits=20)
    assert (floor.value, floor.low, floor.high) == pytest.approx((0, 0, 0), abs=1e-12)
    half = np.where((CAST < 10)[:, None], [1.0, 0.0], [0.0, 1.0])
    floor = inf.split_half_floor(half, CAST, splits=500)
    # ten of twenty drawn, j of the first kind: TV = |2j - 10| / 10, 0 with probability .34, at most
    # .2 with .82, at most .4 with .977
    assert (floor.value, floor.low) == pytest.approx((0.2, 0)) and 0.4 <= floor.high < 0.7


# --- many tests


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]).tolist() == [1, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_no_correction_and_bonferroni(p):
    p = np.array(p)
    adjusted = holm(p)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, len(p) * p) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_steps_reject(p, alpha):
    """The smallest p against alpha / n, the next against alpha / (n - 1), until one is not."""
    left, rejected = sorted(p), []
    while left and left[0] * len(left) <= alpha:
        rejected.append(left.pop(0))
    assert (holm(p) <= alpha).sum() == len(rejected)
