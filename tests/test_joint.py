"""The joint test: it finds a distribution-giver where one was planted and none where none was."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystal.measure import claims, joint, validation
from crystal.measure import evidence as ev
from crystal.measure import synthetic as js
from crystal.measure.synthetic import Panel

FEW = Panel(tasks=6, contexts=10)
KINDS = (js.FROZEN, js.MIXED, "personas not shared", "a persona's options relabelled")


def test_a_planted_persona_is_found_and_named_in_every_task():
    """20 ladders of 15 tasks. False alarm: at least 17 hold if 98 % do: 0.9998."""
    held = []
    for world in range(20):
        one, _, named = validation.trial(js.FROZEN, Panel(), 20_000 + world)
        held.append(one.verdict == "holds")
        assert one.null.p == 1 / (validation.PERMUTATIONS + 1) and (not held[-1] or named == 1)
    assert sum(held) >= 17


@pytest.mark.parametrize("name", [n for n, s in js.PANEL_SCENARIOS.items() if not s.seed])
def test_none_is_found_where_there_is_none(name):
    """20 ladders each. False alarm: at most 3 hold if 2.5 % do: 0.9993; 7 scenarios: 0.5 %."""
    held = [validation.trial(name, Panel(), 20_000 + i, whole=False)[0].verdict for i in range(20)]
    assert held.count("holds") <= 3


def test_a_mixture_is_told_from_one_persona():
    """8 ladders each. False alarm: none of 8 mixtures unmixed if 0.2 % are: 0.984."""
    mixed = [validation.trial(js.MIXED, Panel(), 20_000 + i) for i in range(8)]
    assert not any(two and two.verdict == "holds" for _, two, _ in mixed)
    single = [validation.trial(js.FROZEN, Panel(), 20_000 + i) for i in range(8)]
    assert sum(two is not None and two.verdict == "holds" for _, two, _ in single) >= 6


def test_p_is_uniform_where_labels_are_dealt():
    """300 ladders, 99 permutations. False alarm: Kolmogorov and Smirnov's D above
    1.95 / sqrt(300) at level 0.001.
    """
    found = [joint.moves(js.ladder("personas not shared", FEW, 20_000 + i)) for i in range(300)]
    p = np.array([joint.joint_null(x, permutations=99, seed=i).p for i, x in enumerate(found)])
    grid = np.arange(1, 101) / 100
    far = np.abs((p[:, None] <= grid + 1e-9).mean(0) - grid).max()
    assert far < 1.95 / np.sqrt(len(p))


def test_the_trials_judge_as_the_claims_do():
    one, unmixed, _ = validation.trial(js.FROZEN, FEW, 3)
    found = joint.moves(js.ladder(js.FROZEN, FEW, 3))
    again = claims.one_seed(found, seed=3, permutations=validation.PERMUTATIONS)
    for first, second in zip((one, unmixed), again, strict=True):
        assert (first.verdict, first.p, first.estimate) == (
            second.verdict,
            second.p,
            second.estimate,
        )


# --- contexts that are missing, draws, ties


def without(pair, context):
    """A task's evidence without the prompts of one context."""
    kept = pair[0].clusters.astype(str) != context
    fields = ("distribution", "clusters", "half", "block", "draws")
    return tuple(replace(x, **{name: getattr(x, name)[kept] for name in fields}) for x in pair)


def test_contexts_that_some_tasks_lack_take_part_in_the_others():
    pairs = js.ladder(js.FROZEN, FEW, 1)
    names = list(pairs)
    for task in names[:2]:
        pairs[task] = without(pairs[task], "3")
    for task in names[:4]:
        pairs[task] = without(pairs[task], "4")
    found = joint.moves(pairs)
    assert "4" not in found.contexts and "3" in found.contexts  # four of six lack the one
    lacks = np.isnan(found.cosine[:, found.contexts.index("3")])
    assert lacks.tolist() == [True, True, False, False, False, False]
    account = joint.account(found)
    assert all(int(seed) % FEW.groups == 0 for seed in account.seeds.values())
    assert account.cosine[0][found.contexts.index("3")] is None
    assert np.isfinite([joint.progress(found).value, joint.largest_share(found).value]).all()
    assert joint.joint_null(found, permutations=99).p == 0.01


def test_too_few_tasks_or_contexts_have_no_joint_test():
    pairs = js.ladder(js.FROZEN, FEW, 1)
    assert joint.moves({task: pairs[task] for task in list(pairs)[:2]}) is None
    assert joint.moves(js.ladder(js.FROZEN, Panel(tasks=3, contexts=2), 1)) is None
    assert validation.trial(js.FROZEN, Panel(tasks=3, contexts=2), 1) is None


def test_the_noise_of_draws_is_taken_off():
    """400 redraws of 3 tasks x 6 contexts, mean against the exact. False alarm: one of 36 means
    beyond 4.5 standard errors: 0.00025.
    """
    pairs = js.ladder("one persona, .6 left", Panel(tasks=3, contexts=6, wordings=2), 5)
    exact, rng = joint.moves(pairs), np.random.default_rng(5)

    def drawn(x, draws):
        return ev.asked(
            rng.multinomial(draws, x.distribution) / draws,
            x.clusters,
            np.full(len(x.distribution), draws),
        )

    redrawn = [
        joint.moves(
            {task: (drawn(base, 12), drawn(sft, 12)) for task, (base, sft) in pairs.items()}
        )
        for _ in range(400)
    ]
    for name in ("inner", "square"):
        values = np.array([getattr(x, name) for x in redrawn])
        away = (values.mean(0) - getattr(exact, name)) / (values.std(0) / np.sqrt(len(values)))
        assert np.abs(away).max() < 4.5
    raw = np.stack([u @ m for u, m in zip(exact.toward, exact.move, strict=True)])
    assert exact.inner == pytest.approx(raw)


def test_ties_are_counted_exactly():
    """Two of three contexts say the same: p of 3,999 permutations against all 216 dealings.

    False alarm: beyond 4.5 binomial errors: 0.000007.
    """
    rng, pairs = np.random.default_rng(2), {}
    for number, options in enumerate((2, 4, 6)):
        distributions = rng.dirichlet(np.ones(options), 2)[[0, 0, 1]]
        moved = np.tile(
            0.5 * distributions.mean(0) + 0.5 * distributions[2 if number == 2 else 0], (3, 1)
        )
        pairs[str(number)] = ev.asked(distributions, range(3)), ev.asked(moved, range(3))
    found = joint.moves(pairs)
    orders = list(itertools.permutations(range(3)))
    every = [
        max(
            joint.fit(
                np.stack([row[list(o)] for row, o in zip(found.cosine, chosen, strict=True)]),
                found.weight,
            )
        )
        for chosen in itertools.product(orders, repeat=3)
    ]
    null = joint.joint_null(found, permutations=3999)
    share = float(np.mean(np.array(every) >= null.observed - 1e-9))
    assert abs(null.p - share) < 4.5 * np.sqrt(share * (1 - share) / 4000) + 1 / 4000


# --- names and orders say nothing


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
def test_order_and_names_change_nothing(seed, kind):
    """Tasks and contexts in any order, contexts and options under other names."""
    rng, pairs = np.random.default_rng(seed), js.ladder(kind, FEW, seed)
    called = rng.permutation(1000)[: FEW.contexts]

    def renamed(pair):
        rows, options = (rng.permutation(n) for n in pair[0].distribution.shape)
        return tuple(
            replace(
                x,
                distribution=x.distribution[rows][:, options],
                clusters=called[x.clusters[rows]],
                half=x.half[rows],
            )
            for x in pair
        )

    other = {task: renamed(pairs[task]) for task in rng.permutation(list(pairs)).tolist()}
    first, second = joint.moves(pairs), joint.moves(other)
    for number in (joint.progress, joint.largest_share):
        one, two = number(first), number(second)
        assert [two.value, two.low, two.high, two.here] == pytest.approx(
            [one.value, one.low, one.high, one.here], abs=1e-7
        )
    nulls = [joint.joint_null(x, permutations=19).observed for x in (first, second)]
    assert nulls[0] == pytest.approx(nulls[1], abs=1e-12)
    seeds = joint.account(first).seeds
    assert joint.account(second).seeds == {t: str(called[int(s)]) for t, s in seeds.items()}


# --- kinds of tasks


def test_tasks_that_share_options_are_of_one_kind():
    told = {"die": "123456", "d20": [str(n) for n in range(1, 21)], "coin": "HT", "odd": ["7", "9"]}
    assert joint.kinds(told) == {"die": "die", "d20": "die", "coin": "coin", "odd": "die"}
    assert joint.kinds({"one": "ab", "two": "cd", "between": "bc"}) == dict.fromkeys(
        ("one", "two", "between"), "one"
    )
    assert joint.kinds({}) == {}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.integers(1, 4))
def test_a_task_asked_many_times_counts_once(seed, kind, times):
    """Copies of a task, as one kind: the same p, progress and share, to rounding."""
    pairs = js.ladder(kind, FEW, seed)
    first = next(iter(pairs))
    copies = {f"{first}, {n}": pairs[first] for n in range(times)}
    one = joint.moves(pairs)
    many = joint.moves(pairs | copies, dict.fromkeys(copies, first))
    assert joint.joint_null(one, permutations=49).p == joint.joint_null(many, permutations=49).p
    for number in (joint.progress, joint.largest_share):
        alone, copied = number(one), number(many)
        for a, b in zip(
            (alone.value, alone.low, alone.high),
            (copied.value, copied.low, copied.high),
            strict=True,
        ):
            assert a == pytest.approx(b, abs=1e-6)


def test_two_kinds_are_too_few():
    pairs = js.ladder(js.FROZEN, FEW, 3)
    names = list(pairs)
    assert joint.moves(pairs, {name: names[n % 2] for n, name in enumerate(names)}) is None
    assert joint.moves(pairs, {name: names[n % 3] for n, name in enumerate(names)}) is not None


def test_contexts_that_few_tasks_share_name_a_seed_or_none():
    """Eight tasks of one kind ask all contexts, others two each; the last shares none."""
    rng, pairs = np.random.default_rng(0), {}
    asked = {f"n{k}": range(8) for k in range(8)} | {f"t{k}": (2 * k, 2 * k + 1) for k in range(4)}
    for task, contexts in (asked | {"alone": (8, 9)}).items():
        base = rng.dirichlet(np.ones(4), len(contexts))
        moved = np.tile((base.mean(0) + base[0]) / 2, (len(contexts), 1))
        pairs[task] = ev.asked(base, contexts), ev.asked(moved, contexts)
    kind = {task: "n0" for task in asked if task.startswith("n")}
    assert joint.moves(pairs, kind) is None  # two of five kinds ask any context
    few = {task: pair for task, pair in pairs.items() if task not in ("t2", "t3")}
    found = joint.moves(few, kind)  # two of three
    assert set(found.tasks) == {*kind, "t0", "t1"}
    assert np.isfinite(joint.progress(found).value)
    assert 0 < joint.joint_null(found, permutations=19).p <= 1
