"""Verdicts: the one rule, then false alarms and power on ladders whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from crystal.ask.tasks import PHASE_TASKS
from crystal.errors import CrystalError
from crystal.measure import chain, claims
from crystal.measure import evidence as ev
from crystal.measure import inference as inf
from crystal.measure.claims import judge
from crystal.present import show, verdicts, views

K = 20
HOW = {"permutations": 199}


def number(value: float, width: float) -> inf.Estimate:
    """An estimate whose 95 % interval is about value +- width."""
    return inf.Estimate(value, value - width, value + width, value, width / 1.96, np.inf)


PERSONA = np.repeat(np.arange(20), 5)


def cast(distributions: np.ndarray) -> ev.Evidence:
    """The book's hundred prompts: twenty personas in five wordings each."""
    return ev.asked(distributions, PERSONA, block=np.tile(np.arange(5), 20))


def null(p: float) -> inf.Null:
    return inf.Null("chance", 1.0, 0.5, p, np.zeros(9))


# --- the rule


@pytest.mark.parametrize(
    "value, width, p, verdict, reason",
    [
        (0.20, 0.05, 0.01, "holds", "chance excluded"),  # collapse is to be below 0.5
        (0.20, 0.05, 0.20, "undecided", "chance alone"),
        (0.48, 0.10, 0.01, "undecided", "reaches across"),
        (0.80, 0.10, 0.01, "fails", "wrong side"),
        (0.80, 0.10, 0.90, "fails", "wrong side"),
        (np.nan, 1.0, 0.01, "undecided", "nothing to see"),
    ],
)
def test_the_rule(value, width, p, verdict, reason):
    judged = judge("collapse", number(value, width), null(p), nothing="nothing to see")
    assert judged.verdict == verdict and reason in judged.reason
    assert reason in judged.sentence().lower()


def test_the_rule_is_mirrored_above_and_works_without_a_null():
    assert judge("same-options", number(0.97, 0.02)).verdict == "holds"
    assert judge("same-options", number(0.80, 0.02)).verdict == "fails"
    assert judge("little-promoted", number(0.01, 0.005)).verdict == "holds"


def test_fields_are_what_the_book_can_record():
    fields = judge("collapse", inf.exactly(np.inf), null(0.9), chance=np.nan).fields()
    assert fields["verdict"] == "fails"
    assert [fields[name] for name in ("number", "low", "high", "null")] == [None] * 4
    assert fields["threshold"] == claims.THRESHOLDS["collapse"].value


def test_small_shares_are_not_printed_as_zero():
    assert [claims.percent(x) for x in (0.5, 1.0, 0.0034)] == ["50 %", "100 %", "0.34 %"]


def test_adjusting_can_only_make_verdicts_undecided():
    one = [judge("collapse", number(0.2, 0.05), null(p)) for p in (0.001, 0.02, 0.04)]
    one.append(judge("collapse", number(0.9, 0.1), null(0.5)))
    assert [v.verdict for v in one] == ["holds", "holds", "holds", "fails"]
    adjusted = claims.adjust(one)
    assert [v.verdict for v in adjusted] == ["holds", "undecided", "undecided", "fails"]
    assert "among so many tasks" in adjusted[1].reason
    assert all(a.p >= v.p for a, v in zip(adjusted, one, strict=True))


# --- ladders whose truth is known


def noisy(
    rng: np.random.Generator, distributions: np.ndarray, precision: float = 150.0
) -> np.ndarray:
    return np.stack(
        [rng.dirichlet(precision * distribution + 0.01) for distribution in distributions]
    )


def five_distributions(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(5, K) temperaments, and a base in which every fifth persona has each of them."""
    distributions = rng.dirichlet(np.full(K, 0.4), size=5)
    return distributions, noisy(rng, distributions[PERSONA % 5])


def frozen(
    rng: np.random.Generator, base: np.ndarray, distribution: np.ndarray, share: float = 0.9
) -> np.ndarray:
    """SFT that moved `share` of the way from every prompt's own distribution to one."""
    return noisy(rng, share * distribution + (1 - share) * base)


def series(rng: np.random.Generator, onto, share: float = 0.95, tasks: int = 6) -> dict:
    """Task -> phase -> arrays: SFT goes `share` of the way to onto(distributions), and there it
    stays.
    """
    every = {}
    for task in range(tasks):
        distributions, base = five_distributions(rng)
        sft = frozen(rng, base, onto(rng, distributions), share)
        every[f"task{task}"] = parts(base, sft, noisy(rng, sft, 3000))
    return every


def parts(base, sft, final) -> dict:
    given = [cast(distributions) for distributions in (base, sft, final)]
    return {"liquid": given[:1], "nucleation": given[:2], "settling": given}


def judged(make, tries: int) -> dict[str, np.ndarray]:
    """Claim -> verdicts over all tasks in `tries` series, each made by make(rng)."""
    runs = []
    for seed in range(tries):
        found = chain.survey(make(np.random.default_rng([seed, tries])), **HOW)
        runs.append({v.claim: v.verdict for v in found.verdicts[chain.POOLED]})
    return {claim: np.array([run[claim] for run in runs]) for claim in runs[0]}


def test_a_series_frozen_onto_one_persona_has_one_seed():
    """Power: at least 9 of 10 for each claim; at a power of .99, fewer by chance: .004."""
    found = judged(lambda rng: series(rng, lambda rng, distributions: distributions[2]), 10)
    for claim in ("many-distributions", "collapse", "one-seed", "unmixed", "stays-frozen"):
        assert (found[claim] == "holds").sum() >= 9, claim


def test_another_persona_in_each_task_is_no_seed():
    """False alarm at most 5 %; more than 2 of 10 by chance: .012. The collapse is real."""
    found = judged(
        lambda rng: series(rng, lambda rng, distributions: distributions[rng.integers(5)]), 10
    )
    assert (found["collapse"] == "holds").sum() >= 9
    assert (found["one-seed"] == "holds").sum() <= 2


def test_a_distribution_that_the_base_lacks_is_no_seed():
    """False alarm as above."""
    absent = lambda rng, distributions: rng.dirichlet(np.full(K, 0.4))  # noqa: E731
    found = judged(lambda rng: series(rng, absent), 10)
    assert (found["collapse"] == "holds").sum() >= 9
    assert (found["one-seed"] == "holds").sum() <= 2


def test_the_average_of_the_base_is_no_seed():
    """Collapse of mixed demonstrators. False alarm as above."""
    found = judged(lambda rng: series(rng, lambda rng, distributions: distributions.mean(0)), 10)
    assert (found["collapse"] == "holds").sum() >= 9
    assert (found["one-seed"] == "holds").sum() <= 2


def test_a_mixture_of_two_personas_is_not_one():
    """60 to 40: the joint test may pass, `unmixed` must not. False alarm: none of 10 expected."""
    found = judged(
        lambda rng: series(
            rng, lambda rng, distributions: 0.6 * distributions[1] + 0.4 * distributions[3]
        ),
        10,
    )
    assert (found["unmixed"] == "holds").sum() == 0


def test_contexts_without_groups_cannot_show_one_from_several():
    """Every context has a distribution of its own: one of them may be the seed, a mixture cannot be
    told.
    """
    rng, every = np.random.default_rng(4), {}
    for task in range(8):
        own = rng.dirichlet(np.full(K, 0.4), 20)
        base = noisy(rng, own[PERSONA])
        sft = frozen(rng, base, own[3], 0.95)
        every[f"task{task}"] = parts(base, sft, noisy(rng, sft, 3000))
    said = {v.claim: v for v in chain.survey(every, **HOW).verdicts[chain.POOLED]}
    assert said["one-seed"].verdict == "holds" and said["unmixed"].verdict == "not-testable"
    assert "form no groups" in said["unmixed"].reason


def test_what_stays_liquid_has_no_seed_to_be_asked_for():
    """A ratio near 1 lies many standard errors above .5: no false alarm is allowed."""
    found = judged(
        lambda rng: series(rng, lambda rng, distributions: distributions[0], share=0.0), 4
    )
    assert (found["many-distributions"] == "holds").all() and (found["collapse"] == "fails").all()
    for claim in ("one-seed", "unmixed", "stays-frozen", "same-options", "little-promoted"):
        assert (found[claim] == "not-reached").all(), claim


def test_melting_again_is_not_staying_frozen():
    def make(rng):
        every = series(rng, lambda rng, distributions: distributions[1])
        for each in every.values():
            base, sft, _ = each["settling"]
            each["settling"] = [base, sft, base]
        return every

    found = judged(make, 5)
    assert (found["collapse"] == "holds").all() and (found["stays-frozen"] == "fails").all()


def test_leaving_the_options_of_the_seed_is_seen():
    """Against staying. At least 4 of 5 each way."""

    def make(rng, leave):
        every = series(rng, lambda rng, distributions: distributions[1], tasks=8)
        for each in every.values():
            base, sft, final = each["settling"]
            mean = sft.distribution.mean(0)
            upside = np.sort(mean)[np.argsort(np.argsort(-mean))]
            each["settling"] = [
                base,
                sft,
                cast(frozen(rng, sft.distribution, upside)) if leave else final,
            ]
        return every

    stayed, left = (judged(lambda rng, leave=leave: make(rng, leave), 5) for leave in (0, 1))
    assert (stayed["same-options"] == "holds").sum() >= 3
    assert (left["same-options"] == "fails").sum() >= 4
    assert (left["little-promoted"] == "fails").sum() >= 4
    assert (stayed["little-promoted"] == "holds").sum() >= 4


def test_a_crystal_is_not_liquid():
    """A base that gives every prompt nearly one distribution. The share is below a tenth of the
    threshold.
    """
    for seed in range(10):
        rng = np.random.default_rng(seed)
        base = noisy(rng, np.tile(rng.dirichlet(np.ones(K)), (100, 1)), 2000)
        assert claims.liquid(cast(base), **HOW).verdict == "fails"


def test_a_base_without_spread_is_undecided_in_a_sentence():
    crystal = np.tile([0.25, 0.75], (100, 1))
    found = claims.collapse(cast(crystal), cast(crystal), **HOW)
    assert found.verdict == "undecided"
    assert "the base gives every prompt the same answer" in found.sentence()


# --- what can be tested


def test_what_no_data_could_make_hold_is_not_asked():
    """Half of two or four options is no evidence; two contexts cannot collapse by swapping."""
    perms = 999
    assert ev.chosen(1, 2, perms) == pytest.approx(0.5, abs=1e-3)
    assert ev.chosen(2, 4, perms) > inf.ALPHA
    assert ev.chosen(4, 4, perms) == 1 and ev.chosen(5, 20, perms) < 0.002
    two = ev.asked(np.full((2, 3), 1 / 3), ["a", "b"])
    assert ev.swapped(two, perms) == pytest.approx(0.25, abs=1e-3)
    assert ev.relabelled(two, perms) == 1
    assert ev.aligned(3, 20, perms) < 0.005 and ev.aligned(1, 20, perms) == 1


def test_a_family_has_only_members_that_could_hold_together():
    assert chain.family({"coin": 0.5, "die": 0.04, "d20": 0.001}) == {"die", "d20"}
    assert chain.family({str(n): 0.01 for n in range(6)}) == {str(n) for n in range(5)}
    assert chain.family({}) == set()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.001, 1), max_size=15))
def test_every_member_of_a_family_holds_at_its_best(best):
    members = chain.family({str(n): p for n, p in enumerate(best)})
    ps = [best[int(name)] for name in members]
    assert not ps or claims.holm(ps).max() <= inf.ALPHA


def test_paraphrases_are_dealt_as_often_as_they_differ():
    """Two units of two prompts in one block: six ways to deal, two of them alike."""
    distribution = np.full((4, 2), 0.5)
    assert ev.relabelled(ev.asked(distribution, ["a", "a", "b", "b"]), 10**6) == pytest.approx(
        1 / 3, abs=1e-5
    )
    framed = ev.asked(distribution, ["a", "a", "b", "b"], block=np.array([0, 1, 0, 1]))
    assert ev.relabelled(framed, 10**6) == pytest.approx(1 / 2, abs=1e-5)


def test_two_near_paraphrases_can_be_asked_nothing():
    """As in published tables: two prompts a task tell neither liquid nor collapse."""
    rng = np.random.default_rng(3)
    every = {}
    for task in range(4):
        given = [ev.asked(rng.dirichlet(np.ones(5), 2), ["name", "pick"]) for _ in range(3)]
        every[f"task{task}"] = {"liquid": given[:1], "nucleation": given[:2], "settling": given}
    found = chain.survey(every, **HOW)
    for task in every:
        said = {v.claim: v.verdict for v in found.verdicts[task]}
        assert (said["many-distributions"], said["collapse"]) == ("not-testable", "not-testable")
        assert {said[c] for c in ("stays-frozen", "same-options", "little-promoted")} == {
            "not-reached"
        }
    assert {v.claim: v.verdict for v in found.verdicts[chain.POOLED]}["one-seed"].startswith("not-")


def test_members_of_the_family_are_those_that_were_asked():
    """A coin among ten tasks of twenty options: its best p of .5 is no part of Holm's family."""
    rng = np.random.default_rng(5)
    every = series(rng, lambda rng, distributions: distributions[2], tasks=8)
    coin = noisy(
        rng,
        np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.7, 0.3], [0.4, 0.6]])[PERSONA % 5],
    )
    sft = frozen(rng, coin, np.array([0.5, 0.5]), 0.95)
    every["coin"] = parts(coin, sft, noisy(rng, sft, 3000))
    found = chain.survey(every, **HOW).verdicts
    said = {task: {v.claim: v.verdict for v in mine} for task, mine in found.items()}
    assert said["coin"]["same-options"] == "not-testable"
    alone = {task: p for task, p in every.items() if task != "coin"}
    without = chain.survey(alone, **HOW).verdicts
    for task in alone:
        one, other = (
            [v for v in mine[task] if v.claim == "collapse"][0] for mine in (found, without)
        )
        assert one.estimate == other.estimate


# --- strata


def test_strata_take_the_scatter_between_them_out_of_the_error():
    """Five groups of four that differ in mean: only what is inside them is chance."""
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(5), 4)
    values = 10.0 * group + rng.normal(size=20)
    plain = inf.estimate(lambda w: w @ values / w.sum(-1), inf.leave_one_out(np.arange(20)))
    inside = inf.estimate(
        lambda w: w @ values / w.sum(-1), inf.leave_one_out(np.arange(20), strata=group)
    )
    assert inside.value == pytest.approx(plain.value) == pytest.approx(values.mean())
    error = np.sqrt(sum(values[group == g].var(ddof=1) / 4 for g in range(5)) / 25)
    assert inside.error == pytest.approx(error) and plain.error > 5 * inside.error
    assert inside.freedom <= 15 and inside.here == pytest.approx(values.mean())


def test_one_stratum_is_no_stratum():
    rng = np.random.default_rng(2)
    values = rng.normal(size=20)
    mean = lambda w: w @ values / w.sum(-1)  # noqa: E731
    plain = inf.estimate(mean, inf.leave_one_out(np.arange(20)))
    one = inf.estimate(mean, inf.leave_one_out(np.arange(20), strata=np.zeros(20)))
    assert (one.value, one.error, one.freedom) == pytest.approx(
        (plain.value, plain.error, plain.freedom)
    )


# --- whole ladders


@pytest.mark.parametrize("quantile", [0.0, 1.0, 9.0])
def test_a_quantile_that_is_none_is_refused(quantile):
    with pytest.raises(CrystalError, match="no set of options"):
        claims.check_quantile(quantile)


def test_a_survey_gives_every_claim_on_every_task(tmp_path, monkeypatch):
    tasks = ("coin", "digit", "month")
    synthetic.write_ladder(tmp_path, "toy", synthetic.crystallizing(tasks, seed=1))
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    found = verdicts.survey(views.read_ladders(["toy"]), **HOW)
    assert list(found.verdicts) == [*tasks, chain.POOLED]
    every = {claim for claims_ in chain.CLAIMS.values() for claim in claims_}
    assert all(
        {v.claim for v in found.verdicts[task]} == every - set(chain.OVER_TASKS) for task in tasks
    )
    assert {v.claim for v in found.verdicts[chain.POOLED]} == every
    assert set(found.of("digit")) == every


def test_a_survey_is_kept_and_read_back_as_it_was(tmp_path, monkeypatch):
    synthetic.write_ladder(tmp_path, "toy", synthetic.crystallizing(PHASE_TASKS[:3], seed=1))
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    monkeypatch.setenv("CRYSTAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verdicts, "PHASE_TASKS", PHASE_TASKS[:3])
    first = verdicts.measured("toy", **HOW)
    (path,) = (tmp_path / "cache" / verdicts.KIND).iterdir()
    monkeypatch.setattr(verdicts.chain, "survey", None)  # nothing is computed again
    assert verdicts.as_json(verdicts.measured("toy", **HOW)) == verdicts.as_json(first)
    path.write_text("half")
    monkeypatch.undo()
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    monkeypatch.setenv("CRYSTAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verdicts, "PHASE_TASKS", PHASE_TASKS[:3])
    assert verdicts.as_json(verdicts.measured("toy", **HOW)) == verdicts.as_json(first)


def test_views_refuse_what_has_no_distributions():
    for ladders, task, words in (
        ([], "digit", "none, or one"),
        (["a", "a"], "digit", "named twice"),
        (["a"], "city", "is open"),
    ):
        with pytest.raises(CrystalError, match=words):
            views.read_ladders(ladders, tasks=[task])


def test_every_claim_belongs_to_a_phase_or_an_experiment():
    known = {
        "liquid",
        "nucleation",
        "settling",
        "organism",
        "control",
        "kinetics",
        "remelting",
        "format",
    }
    assert {threshold.phase for threshold in claims.THRESHOLDS.values()} == known


def test_numbers_in_words():
    assert show.slug("liquidity of SFT, bits") == "liquidity-of-sft-bits"
    assert show.interval(inf.Estimate(0.5, 0.25, 0.75)) == "0.50 [0.25, 0.75]"
    assert show.between(0.00204, 0.0, 0.00407) == "0.0020 [0, 0.0041]"
    assert show.between(1234.4, 1100.0, 1300.0) == "1,234 [1,100, 1,300]"
    assert show.between(2.0, 1.0, np.inf) == "2.00 [1.00, ∞]"
    assert show.interval(inf.exactly(2)) == "2.00"
    assert (
        show.interval(inf.NOTHING) == "–"
        and show.interval(inf.Estimate(2.0, np.nan, np.nan)) == "2.00"
    )
    assert show.number(np.nan) == "–" and show.number(np.inf) == "∞"
    assert [
        show.number(x) for x in (0.0, 0.0000741, 5.1e-7, 0.0001, 0.009999, 0.5, 99.96, 1234.5)
    ] == ["0.00", "7.41e-05", "5.10e-07", "0.000100", "0.0100", "0.500", "100", "1,234"]


def test_pages_and_claims_know_the_same_verdicts():
    assert (*chain.VERDICTS, "measured") == show.VERDICTS
