"""Answers read out and drawn take one road: corrections are unbiased, and 0 for a read-out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystal.errors import CrystalError
from crystal.measure import claims
from crystal.measure import evidence as ev
from crystal.measure import inference as inf
from crystal.measure import quantities as ph

EVEN = np.ones(30)


def drawn(distributions: np.ndarray, n: int, rng: np.random.Generator) -> ev.Evidence:
    return ev.asked(
        rng.multinomial(n, distributions) / n,
        np.arange(len(distributions)),
        np.full(len(distributions), float(n)),
    )


@given(st.integers(2, 8), st.integers(2, 12), st.integers(0, 10**6))
def test_of_a_read_out_every_quantity_is_that_of_the_distributions(options, prompts, seed):
    rng = np.random.default_rng(seed)
    distributions = rng.dirichlet(np.ones(options), (2, prompts))[0]
    w = rng.integers(1, 4, prompts) * 1.0
    one = ev.asked(distributions, np.arange(prompts))
    assert ev.spread(one, w) == pytest.approx(ph.spread(distributions, w))
    assert ev.liquidity(one, w) == pytest.approx(ph.liquidity_bits(distributions, w))
    assert one.exact and (one.noise == 0).all()


def test_the_spread_of_draws_is_unbiased():
    """False alarm: a mean over 400 samples is off by more than four standard errors: 6e-5."""
    rng = np.random.default_rng(1)
    distributions = rng.dirichlet(np.full(6, 0.7), 30)
    true = ph.spread(distributions, EVEN)
    found = [ev.spread(drawn(distributions, 15, rng), EVEN) for _ in range(400)]
    assert abs(np.mean(found) - true) < 4 * np.std(found) / 20
    plain = [ph.spread(drawn(distributions, 15, rng).distribution, EVEN) for _ in range(20)]
    assert np.mean(plain) > 1.2 * true  # what the correction is for


def test_liquidity_of_a_crystal_is_nothing_however_few_the_draws():
    """False alarm: means of 40 samples of standard error 0.004; the plug-in is off by 0.14 bit."""
    rng, distribution = (
        np.random.default_rng(2),
        np.random.default_rng(3).dirichlet(np.full(10, 0.7)),
    )
    found = [
        float(ev.liquidity(drawn(np.tile(distribution, (30, 1)), 50, rng), EVEN)) for _ in range(40)
    ]
    assert abs(np.mean(found)) < 0.02
    assert (
        np.mean(
            [
                ph.liquidity_bits(drawn(np.tile(distribution, (30, 1)), 50, rng).distribution)
                for _ in range(40)
            ]
        )
        > 0.08
    )


def test_liquidity_of_equal_draws_is_that_of_the_pooled_counts():
    given_ = drawn(np.random.default_rng(4).dirichlet(np.ones(5), 30), 40, np.random.default_rng(5))
    assert ev.liquidity(given_, EVEN) == pytest.approx(ph.liquidity(given_.counts))


def test_units_are_dealt_to_the_halves_in_turn_and_stay_whole():
    found = ev.asked(np.full((5, 2), 0.5), ["a", "b", "a", "c", "b"])
    assert found.half.tolist() == [
        "selection",
        "evaluation",
        "selection",
        "selection",
        "evaluation",
    ]


def test_draws_too_few_to_be_halved_are_refused():
    with pytest.raises(CrystalError, match="prompt 1 has 3 draws on an option, and 4 are needed"):
        ev.asked(np.full((2, 2), 0.5), [0, 1], [5, 3])


@given(st.integers(4, 60), st.integers(0, 10**6))
def test_halves_of_draws_add_up_and_a_read_out_is_itself(n, seed):
    rng = np.random.default_rng(seed)
    given_ = drawn(rng.dirichlet(np.ones(4), 3), n, rng)
    first, second = ev.halves(given_, rng)
    assert (first.counts + second.counts == given_.counts).all() and (first.draws == n // 2).all()
    read = ev.asked(given_.distribution, np.arange(3))
    assert all(part is read for part in ev.halves(read, rng))


def test_the_floor_is_what_a_crystal_shows():
    """False alarm: means of 20 samples with a standard error of 0.006."""
    rng, distribution = (
        np.random.default_rng(9),
        np.random.default_rng(3).dirichlet(np.full(100, 0.7)),
    )
    crystals = [drawn(np.tile(distribution, (20, 1)), 60, rng) for _ in range(20)]
    shown = np.mean([float(ev.liquidity(one, np.ones(20))) for one in crystals])
    assert shown > 0.03
    assert np.mean([ev.floor_bits(one, rng) for one in crystals]) == pytest.approx(shown, abs=0.03)
    assert ev.floor_bits(ev.asked(crystals[0].distribution, np.arange(20)), rng) == 0


def test_an_error_of_its_own_makes_the_interval_wider():
    found = inf.student(np.array([1.0, 2.0, 3.0, 4.0]))
    wide = inf.widened(found, 1.0)
    assert wide.value == found.value and wide.low < found.low and wide.high > found.high
    assert wide.error == pytest.approx(np.hypot(found.error, 1)) and wide.freedom > found.freedom
    assert inf.widened(found, 0.0) is found


def test_one_unit_leaves_no_interval():
    distributions = np.random.default_rng(6).dirichlet(np.ones(4), 2)
    alone = ev.asked(distributions, ["a", "a"])
    for verdict in (claims.collapse(alone, alone), claims.stays_frozen(alone, alone, alone)):
        assert verdict.verdict == "undecided" and np.isnan(verdict.estimate.low)


def test_draws_of_a_crystal_are_seldom_called_liquid():
    """False alarm: 40 tries at no more than 5 %; more than 7 by chance: 0.003."""
    rng, held = np.random.default_rng(7), 0
    for i in range(40):
        distribution = rng.dirichlet(np.full(10, 0.7))
        held += (
            claims.liquid(
                drawn(np.tile(distribution, (30, 1)), 60, rng), seed=i, permutations=99
            ).verdict
            == "holds"
        )
    assert held <= 7


def test_promoted_mass_is_what_was_built_in():
    """A tenth of every prompt's distribution moved to one option of the lower half."""
    rng = np.random.default_rng(8)
    sft = np.sort(rng.dirichlet(np.full(8, 0.8), 40), axis=1)[:, ::-1]
    moved = 0.9 * sft + 0.1 * np.eye(8)[6]
    found = claims.promoted(ev.asked(sft, np.arange(40)), ev.asked(moved, np.arange(40)))
    assert found.value == pytest.approx(0.1 * (1 - sft[:, 6].mean()), abs=1e-9)
    assert claims.promoted(ev.asked(sft, np.arange(40)), ev.asked(sft, np.arange(40))).value == 0


# --- contexts against wordings

SURE = np.eye(4)


def crossed(seed: int, contexts: int = 12, wordings: int = 2, options: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(options), (contexts, wordings))


def test_contexts_that_decide_the_answer_carry_all_of_it():
    found = ev.split_information(np.repeat(SURE[np.arange(40) % 4][:, None], 2, axis=1))
    assert found["context"].value == 2
    assert found["wording"].value == found["wordings_apart"].value == 0
    assert found["lead"].low > 0


def test_wordings_that_decide_the_answer_leave_contexts_nothing():
    found = ev.split_information(np.repeat(SURE[None, :2], 40, axis=0))
    assert found["context"].value == found["contexts_apart"].value == 0
    assert found["wording"].value == found["wordings_apart"].value == 1
    assert found["lead"].value == -1


@given(st.integers(0, 10**6), st.integers(2, 4))
def test_both_terms_are_all_that_the_prompt_tells(seed, wordings):
    table = crossed(seed, wordings=wordings)
    found = ev.split_information(table)
    assert found["context"].here + found["wording"].here == pytest.approx(
        ph.liquidity_bits(table.reshape(-1, 5)), abs=1e-9
    )


@given(st.integers(0, 10**6))
def test_the_order_of_contexts_and_wordings_is_nothing(seed):
    table = crossed(seed)
    mixed = np.random.default_rng(seed).permutation(table)[:, ::-1]
    assert ev.split_information(mixed)["lead"].value == pytest.approx(
        ev.split_information(table)["lead"].value, abs=1e-9
    )


def test_intervals_cover_where_context_and_wording_do_alike():
    """All prompts are drawn alike, so the lead is 0. At 95 % each, fewer than 173 of 200 intervals
    would cover with probability below 1e-6; the jackknife of fifty contexts is given 2 % less."""
    covered = 0
    for seed in range(200):
        lead = ev.split_information(crossed(seed, contexts=50))["lead"]
        covered += lead.low <= 0 <= lead.high
    assert covered >= 170
