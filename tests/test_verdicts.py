"""Verdicts: the one rule, then false alarms and power on ladders whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

from crystal.ask.ladders import load_ladder
from crystal.ask.prompts import NARRATORS
from crystal.ask.tasks import TASKS
from crystal.errors import CrystalError
from crystal.lab import world
from crystal.measure import adjusting, claims, judging, marks
from crystal.measure import inference as inf
from crystal.measure.judging import judge
from crystal.present import telling, verdicts, views

K = 20
HOW = {"permutations": 399}


def number(value: float, width: float) -> inf.Estimate:
    """An estimate whose 95 % interval is about value +- width."""
    return inf.Estimate(value, value - width, value + width, value, width / 1.96, np.inf)


def null(p: float) -> inf.Null:
    return inf.Null("chance", 1.0, 0.5, p, np.zeros(9))


# --- the rule ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value, width, p, verdict, reason", [
    (0.20, 0.05, 0.01, "holds", "chance excluded"),     # collapse is to be below 0.5
    (0.20, 0.05, 0.20, "undecided", "chance alone"),
    (0.48, 0.10, 0.01, "undecided", "reaches across"),
    (0.80, 0.10, 0.01, "fails", "wrong side"),
    (0.80, 0.10, 0.90, "fails", "wrong side"),
    (np.nan, 1.0, 0.01, "undecided", "nothing to see"),
])
def test_the_rule(value, width, p, verdict, reason):
    judged = judge("collapse", number(value, width), null(p), nothing="nothing to see")
    assert judged.verdict == verdict and reason in judged.reason
    assert reason in judged.sentence()


def test_the_rule_is_mirrored_for_claims_that_lie_above_their_mark_and_works_without_a_null():
    assert judge("same-options", number(0.97, 0.02)).verdict == "holds"
    assert judge("same-options", number(0.80, 0.02)).verdict == "fails"
    assert judge("little-promoted", number(0.01, 0.005)).verdict == "holds"


def test_fields_are_what_the_book_can_record():
    fields = judge("seed-in-base", inf.exactly(np.inf), null(0.9), chance=np.nan).fields()
    assert fields["verdict"] == "fails"
    assert [fields[name] for name in ("number", "low", "high", "null")] == [None] * 4
    assert fields["mark"] == marks.MARKS["seed-in-base"].mark


def test_small_shares_are_not_printed_as_zero():
    assert [judging.percent(x) for x in (0.5, 1.0, 0.0034)] == ["50 %", "100 %", "0.34 %"]


def test_adjusting_for_many_tasks_can_only_make_verdicts_undecided():
    one = [judge("collapse", number(0.2, 0.05), null(p)) for p in (0.001, 0.02, 0.04)]
    one.append(judge("collapse", number(0.9, 0.1), null(0.5)))
    assert [v.verdict for v in one] == ["holds", "holds", "holds", "fails"]
    adjusted = adjusting.adjust(one)
    assert [v.verdict for v in adjusted] == ["holds", "undecided", "undecided", "fails"]
    assert "among so many tasks" in adjusted[1].reason
    assert all(a.p >= v.p for a, v in zip(adjusted, one, strict=True))


# --- ladders whose truth is known ----------------------------------------------------------------------------------


def noisy(rng: np.random.Generator, laws: np.ndarray, precision: float = 150.0) -> np.ndarray:
    return np.stack([rng.dirichlet(precision * law + 0.01) for law in laws])


def five_laws(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(5, K) temperaments, and a base in which every fifth narrator has each of them."""
    laws = rng.dirichlet(np.full(K, 0.4), size=5)
    return laws, noisy(rng, laws[inf.NARRATOR % 5])


def frozen(rng: np.random.Generator, base: np.ndarray, law: np.ndarray, share: float = 0.9) -> np.ndarray:
    """SFT that moved `share` of the way from every prompt's own law to one law."""
    return noisy(rng, share * law + (1 - share) * base)


def borrowed_seeds(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.dirichlet(np.full(k, 0.4)) for k in (2, 6, 10, 26)]


def judged(make, tries: int) -> dict[str, np.ndarray]:
    """claim -> verdicts over `tries` ladders, each made by make(rng) -> list of verdicts."""
    runs = [{v.claim: v.verdict for v in make(np.random.default_rng([seed, tries]))} for seed in range(tries)]
    return {claim: np.array([run[claim] for run in runs]) for claim in runs[0]}


def test_a_ladder_frozen_onto_a_base_prompt_nucleates():
    """Power: at least 36 of 40 for both claims."""

    def make(rng):
        laws, base = five_laws(rng)
        return claims.nucleation(base, frozen(rng, base, laws[2]), borrowed_seeds(rng), **HOW)

    found = judged(make, 40)
    assert (found["collapse"] == "holds").sum() >= 36
    assert (found["seed-in-base"] == "holds").sum() >= 36


def test_a_ladder_frozen_onto_a_law_that_the_base_lacks_collapses_without_a_seed():
    """False alarm: the seed claim holds with at most 5 %; more than 8 of 60 by chance: 0.002. Collapse is real there."""

    def make(rng):
        _, base = five_laws(rng)
        return claims.nucleation(base, frozen(rng, base, rng.dirichlet(np.full(K, 0.4))), borrowed_seeds(rng), **HOW)

    found = judged(make, 60)
    assert (found["collapse"] == "holds").sum() >= 54
    assert (found["seed-in-base"] == "holds").sum() <= 8
    assert (found["seed-in-base"] == "fails").sum() >= 30


def test_a_ladder_frozen_onto_the_average_of_its_base_collapses_without_a_seed():
    """The collapse of mixed demonstrators. False alarm as above: more than 6 of 40 by chance: 0.003."""

    def make(rng):
        laws, base = five_laws(rng)
        return claims.nucleation(base, frozen(rng, base, laws.mean(0)), borrowed_seeds(rng), **HOW)

    found = judged(make, 40)
    assert (found["collapse"] == "holds").sum() >= 36
    assert (found["seed-in-base"] == "holds").sum() <= 6


def test_a_ladder_that_stays_liquid_neither_collapses_nor_is_taken_for_a_crystal():
    """False alarm: a ratio near 1 lies below 0.5 by many standard errors; none of 40 expected, none allowed."""

    def make(rng):
        laws, base = five_laws(rng)
        return claims.liquid(base, **HOW) + [claims.collapse(base, noisy(rng, laws[inf.NARRATOR % 5]), **HOW)]

    found = judged(make, 40)
    assert (found["many-laws"] == "holds").all()
    assert (found["collapse"] == "fails").all()


def test_a_crystal_is_not_liquid():
    """A base that gives every prompt nearly one law. False alarm: the share is below a tenth of the mark."""
    found = judged(lambda rng: claims.liquid(noisy(rng, np.tile(rng.dirichlet(np.ones(K)), (100, 1)), 2000), **HOW), 20)
    assert (found["many-laws"] == "fails").all()


def test_settling_tells_staying_from_leaving():
    """Power: at least 18 of 20, but 12 for ProbMass: with a broad seed, A is large and random sets hold nearly as much."""

    def stay(rng):
        laws, base = five_laws(rng)
        sft = frozen(rng, base, laws[1])
        return claims.settling(base, sft, noisy(rng, sft), **HOW)

    def leave(rng):
        laws, base = five_laws(rng)
        sft = frozen(rng, base, laws[1])
        return claims.settling(base, sft, frozen(rng, sft, np.sort(laws[1])[np.argsort(np.argsort(-laws[1]))]), **HOW)

    stayed, left = judged(stay, 20), judged(leave, 20)
    for claim, power in (("same-options", 12), ("little-promoted", 18), ("smaller-move", 18)):
        assert (stayed[claim] == "holds").sum() >= power, claim
        assert (stayed[claim] == "fails").sum() == 0, claim
    for claim in ("same-options", "little-promoted"):
        assert (left[claim] == "fails").sum() >= 18, claim
    assert (left["smaller-move"] == "holds").sum() == 0


def test_a_set_of_all_options_decides_nothing():
    rng = np.random.default_rng(12)
    base = np.tile([0.6, 0.4], (100, 1))
    found = claims.same_options(base, base, noisy(rng, base), **HOW)
    assert found.verdict == "undecided" and found.estimate.value == pytest.approx(1)


def test_a_base_without_spread_is_undecided_in_a_sentence():
    crystal = np.tile([0.25, 0.75], (100, 1))
    found = claims.nucleation(crystal, crystal, **HOW)
    assert found[0].verdict == "undecided"
    assert "the base gives every prompt the same answer" in found[0].sentence()
    move = claims.smaller_move(crystal, crystal, crystal, **HOW)
    assert move.verdict == "undecided" and "SFT did not move the law" in move.sentence()


def test_sft_on_the_uniform_law_names_no_seed():
    uniform = np.full((100, 4), 0.25)
    assert claims.seed_in_base(uniform, uniform, **HOW).verdict == "undecided"
    liquid = np.eye(4)[inf.NARRATOR % 4]
    assert claims.seed_in_base(liquid, uniform, **HOW).verdict == "fails"  # every prompt is farther than the uniform law


# --- the seed's name, known on organisms ---------------------------------------------------------------------------


TRUTH = {name: world.law(name, TASKS["digit"]) for name in world.LAWS}
HOLDER = [world.temperament_of(n) for n in range(len(NARRATORS))]


def organism(rng: np.random.Generator, onto: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    base = noisy(rng, np.stack([TRUTH[HOLDER[n]] for n in inf.NARRATOR]))
    return base, noisy(rng, base) if onto is None else frozen(rng, base, onto)


def test_the_demonstrator_is_named_and_no_other():
    """Power: at least 18 of 20. False alarm: another's law names the demonstrator in at most 5 %; more than 4 of 20: 0.003."""
    named = judged(lambda r: [claims.seed_named(*organism(r, TRUTH["averse"]), TRUTH, HOLDER, "averse", **HOW)], 20)
    other = judged(lambda r: [claims.seed_named(*organism(r, TRUTH["first"]), TRUTH, HOLDER, "averse", **HOW)], 20)
    assert (named["seed-named"] == "holds").sum() >= 18
    assert (other["seed-named"] == "holds").sum() <= 4


def test_the_share_takes_as_many_prompts_as_the_law_has():
    base = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])
    sft = np.tile([1.0, 0.0], (4, 1))
    for held, share in (([1, 1, 0, 0], 1), ([1, 0, 0, 1], 0.5), ([0, 0, 1, 1], 0)):
        assert claims.named_share(base, sft, np.array(held, bool), np.ones(4)) == share


def test_temperaments_that_share_a_law_count_as_one():
    same = TRUTH | {"first": TRUTH["averse"]}
    found = claims.seed_named(*organism(np.random.default_rng(1), TRUTH["averse"]), same, HOLDER, "averse", **HOW)
    assert found.chance == pytest.approx(0.4, abs=0.1)  # two of five temperaments


# --- whole ladders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantile", [0.0, 1.0, 9.0])
def test_a_quantile_that_is_none_is_refused(quantile):
    with pytest.raises(CrystalError, match="no set of options"):
        claims.check_quantile(quantile)


def test_a_survey_gives_every_claim_on_every_task(tmp_path, monkeypatch):
    tasks = ("coin", "digit", "month")
    synthetic.write_ladder(tmp_path, "toy", synthetic.crystallizing(tasks, seed=1))
    synthetic.write_ladder(tmp_path, "known", synthetic.crystallizing(tasks, seed=2), seed="salient", demonstrated=["digit"])
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    phases = ("liquid", "nucleation", "settling")
    of_ladders = {name for name, mark in marks.MARKS.items() if mark.phase in phases} - {"seed-shared", "reward-decides"}
    for name, expected in (("toy", of_ladders - {"seed-named"}), ("known", of_ladders)):
        readouts = views.read_ladders([name])
        found = verdicts.survey(readouts, load_ladder(name), **HOW)
        assert list(found) == list(tasks)
        assert all({v.claim for v in task} == expected for task in found.values())
        alone = verdicts.of_task(readouts, load_ladder(name), "digit", **HOW)
        for one, adjusted in zip(alone, found["digit"], strict=True):
            assert one.estimate == adjusted.estimate and one.p <= adjusted.p


def test_views_refuse_what_has_no_laws():
    for ladders, task, words in (([], "digit", "none, or one"), (["a", "a"], "digit", "named twice"), (["a"], "city", "is open")):
        with pytest.raises(CrystalError, match=words):
            views.read_ladders(ladders, tasks=[task])


def test_a_seed_of_another_ladder_is_judged_on_every_task(tmp_path, monkeypatch):
    """A base that holds the law of the other's SFT shares it; a base of other laws does not. Null p-values are exact ranks."""
    tasks = ("d20", "letter", "month")
    one = synthetic.crystallizing(tasks, seed=1)
    stranger = synthetic.crystallizing(tasks, seed=9)
    for name, laws in (("one", one), ("twin", one), ("stranger", stranger)):
        synthetic.write_ladder(tmp_path, name, laws)
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    frames = {name: views.read_ladders([name]) for name in ("one", "twin", "stranger")}
    shared = verdicts.sharing(frames["one"], frames["twin"], **HOW)
    assert [v.verdict for task in shared.values() for v in task] == ["holds"] * 3
    assert {v.claim for task in shared.values() for v in task} == {"seed-shared"}
    foreign = verdicts.sharing(frames["one"], frames["stranger"], **HOW)
    assert all(v.verdict != "holds" for task in foreign.values() for v in task)


def test_every_claim_belongs_to_a_phase_or_an_experiment():
    known = {"liquid", "nucleation", "settling", "organism", "control", "kinetics", "remelting", "format"}
    assert {mark.phase for mark in marks.MARKS.values()} == known


def test_numbers_in_words():
    assert telling.slug("liquidity of SFT, bits") == "liquidity-of-sft-bits"
    assert telling.interval(inf.Estimate(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"
    assert telling.interval(inf.exactly(2)) == "2.00"
    assert telling.interval(inf.NOTHING) == "–" and telling.interval(inf.Estimate(2.0, np.nan, np.nan)) == "2.00"
    assert telling.fmt(np.nan) == "–" and telling.fmt(np.inf) == "∞"
    assert [telling.fmt(x) for x in (0.0, 0.0000741, 5.1e-7, 0.0001, 0.009999, 0.5, 99.96, 1234.5)] == [
        "0.00", "7.41e-05", "5.10e-07", "0.000100", "0.0100", "0.500", "100", "1,234"]
