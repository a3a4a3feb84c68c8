"""Answered or not is said first: which prompts count, what is compared on which, and what is not
measurable.
"""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crystal import cli
from crystal.ask.prompts import PROMPTS
from crystal.errors import CrystalError
from crystal.keep import store
from crystal.measure import chain, claims, evidence
from crystal.measure.chain import NOT_MEASURABLE
from crystal.present import figures, show, verdicts, views
from crystal.studies import phase, phase_figures, remelting
from crystal.tables import survey
from crystal.tables.table import read_table

HOW = {"permutations": 99}
CHECKPOINTS = ("base", "sft", "dpo", "rlvr")
MASSES = arrays(float, st.integers(1, 120), elements=st.floats(0, 1))


# --- the rule -------------------------------------------------------------------------------------


@given(MASSES)
def test_a_prompt_is_answered_from_the_least_mass_on(mass):
    assert (evidence.answers(mass) == (mass >= evidence.LEAST)).all()
    found = evidence.count(mass)
    assert (found.answered, found.asked) == ((mass >= 0.2).sum(), len(mass))
    assert found.measurable == (found.answered >= evidence.needed(len(mass)))


@given(
    st.integers(1, 100).flatmap(
        lambda n: st.tuples(*[arrays(float, n, elements=st.floats(0, 1))] * 2)
    )
)
def test_two_compared_count_what_both_answer(pair):
    first, second = pair
    both = evidence.both(first, second)
    assert (both == (evidence.answers(first) & evidence.answers(second))).all()
    assert evidence.count(first, second).answered == both.sum() <= evidence.count(first).answered


@pytest.mark.parametrize(
    ("asked", "needed"), [(100, 50), (60, 50), (51, 50), (50, 25), (20, 10), (5, 3), (1, 1)]
)
def test_fifty_must_answer_or_half_of_fewer(asked, needed):
    assert evidence.needed(asked) == needed
    enough = np.repeat([1.0, 0.0], [needed, asked - needed])
    assert evidence.count(enough).measurable
    assert not evidence.count(np.append(enough[1:], 0.0)).measurable


def test_a_count_is_said_in_words():
    found = evidence.count(np.repeat([0.9, 0.1], [60, 40]))
    assert found.said == "60 of 100 prompts answered (median mass .90)"
    assert evidence.count(np.ones(100)).said.endswith("(median mass 1.00)")
    assert show.fmt(float("nan")) == show.fmt(None) == "–"
    (verdict,) = chain.no_verdicts(["collapse"], evidence.count(np.full(100, 0.01)))
    assert (
        verdict.verdict == NOT_MEASURABLE
        and verdict.reason == "not measurable: 0 of 100 prompts answered"
    )
    assert verdict.fields()["number"] is None and "not measurable: 0 of 100" in verdict.sentence()


def test_what_cannot_be_measured_is_no_member_of_the_family(readouts):
    """Holm's factor is the number of tasks judged: a hundred tasks without a number change no
    p-value.
    """
    alone = {"digit": verdicts.parts(readouts, "digit")}
    few = {f"t{i}": dict.fromkeys(chain.CLAIMS, evidence.count(np.zeros(100))) for i in range(100)}
    found = chain.survey(alone | few, **HOW).verdicts
    assert str(found["digit"]) == str(chain.survey(alone, **HOW).verdicts["digit"])
    assert {v.verdict for task in few for v in found[task]} == {NOT_MEASURABLE}


# --- read-outs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def readouts(tmp_path_factory):
    """One ladder of three tasks: of die, sft answers 70 prompts and base 80, ten of which sft does
    not; of coin, base 20.
    """
    folder = tmp_path_factory.mktemp("answered")
    synthetic.write_ladder(
        folder,
        "made",
        synthetic.crystallizing(("coin", "die", "digit"), checkpoints=CHECKPOINTS, seed=1),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTAL_ROOT", str(folder))
        frame = store.load_readouts("made")
        ids = [prompt.id for prompt in PROMPTS]
        low = {("sft", "die"): ids[:30], ("base", "die"): ids[20:40], ("base", "coin"): ids[:80]}
        for (checkpoint, task), prompts in low.items():
            mine = (
                (frame["checkpoint"] == checkpoint)
                & (frame["task"] == task)
                & frame["prompt"].isin(prompts)
            )
            frame.loc[mine, "probability"] = frame.loc[mine, "probability"].map(
                lambda distribution: distribution * 1e-3
            )
            frame.loc[mine, "invalid"] = 0.999
        yield frame


def test_the_mass_answered_is_in_the_record(readouts, monkeypatch):
    monkeypatch.delenv("CRYSTAL_ROOT", raising=False)
    whole = store.load_readouts("nano-llama", tasks=["coin"], checkpoints=["base"])
    assert np.allclose(
        whole["answered"], [distribution.sum() for distribution in whole["probability"]]
    )
    assert np.allclose(whole["answered"] + whole["invalid"] + whole["residual"], 1, atol=1e-5)


def test_distributions_of_unanswered_prompts_are_refused(readouts):
    with pytest.raises(
        CrystalError,
        match="30 of 100 prompts are not answered, .*0.001 of the mass.*checkpoint sft, task die",
    ):
        views.answers(readouts, "sft", "die")
    assert views.answers(readouts, "sft", "die", prompts=PROMPTS[30:]).shape == (70, 6)


def test_checkpoints_are_compared_on_what_both_answer(readouts):
    pair = views.compared(readouts, "die", "base", "sft")
    assert pair.prompts == PROMPTS[40:] and pair.count.said.startswith("60 of 100")
    assert {place: one.answered for place, one in pair.counts.items()} == {"base": 80, "sft": 70}
    assert pair.distributions("base").shape == (60, 6) and np.allclose(
        pair.distributions("sft").sum(1), 1
    )
    assert len(pair.weights) == 1 + 12  # personas that are left
    with pytest.raises(KeyError):  # what was not compared has no distribution here
        pair.distributions("rlvr")


def test_where_every_prompt_is_answered_nothing_changes(readouts):
    pair = views.compared(readouts, "digit", "base", "sft")
    distributions = [views.answers(readouts, checkpoint, "digit") for checkpoint in ("base", "sft")]
    cast = [
        dataclasses.replace(
            evidence.asked(distribution, pair.clusters, block=pair.evidence("base").block),
            strata=pair.strata,
        )
        for distribution in distributions
    ]
    as_before = claims.collapse(*cast, **HOW)
    assert claims.collapse(pair.evidence("base"), pair.evidence("sft"), **HOW) == as_before


def test_unanswered_prompts_move_no_verdict(readouts):
    """Whatever distribution stands where nothing is answered."""
    other = readouts.copy()
    low = other["probability"].map(np.sum) < 0.2
    other.loc[low, "probability"] = other.loc[low, "probability"].map(
        lambda distribution: distribution[::-1].copy()
    )
    first, second = (verdicts.survey(frame, **HOW).verdicts["die"] for frame in (readouts, other))
    assert str(first) == str(second) and NOT_MEASURABLE not in {v.verdict for v in first}


def test_a_task_that_too_few_answer_is_not_measurable(readouts):
    every = verdicts.survey(readouts, **HOW)
    found = {v.claim: v for v in every.verdicts["coin"]}
    wanted = {claim for claims_ in chain.CLAIMS.values() for claim in claims_}
    assert set(found) == wanted - set(chain.OVER_TASKS)
    assert {v.verdict for v in found.values()} == {NOT_MEASURABLE}
    assert found["many-distributions"].reason == "not measurable: 20 of 100 prompts answered"
    assert "coin" not in every.seeds


def test_the_overview_counts_and_shows_it(readouts):
    found = {"made": verdicts.survey(readouts, **HOW).verdicts}
    counts = verdicts.load_counts(found).set_index("claim")
    assert (counts["not_measurable"] == 1).all() and (counts["tasks"] == 3).all()
    assert verdicts.sentence(counts.loc["collapse"]).endswith(", not measurable on 1")
    (
        verdicts.plot_matrix(verdicts.load_verdicts(found)),
        verdicts.plot_forest(verdicts.load_verdicts(found)),
    )
    left = verdicts.load_leftover(readouts).set_index("checkpoint")
    assert left.loc["base", ["answered", "asked", "few"]].tolist() == [200, 300, 1]
    assert "base, 200 of 300 prompts answered (median mass 1.00), 1 tasks not measurable" in re.sub(
        r"\\(?=\W)", "", verdicts.answered_text(left.reset_index())
    )


def test_figures_leave_unanswered_prompts_out(readouts):
    (one,) = phase.models("nucleation", readouts, ["die"])
    base = one.at("die", "base")
    seed = figures.seed_of(base, str(base.clusters[0]))
    made = [dataclasses.replace(one, answers=base, who=str(base.clusters[0]), seed=seed)]
    data = phase.Data("liquid", "die", HOW, ["base"], None, made, [])
    path = figures.load_path(made, "die")
    for frame in (phase_figures.load_pairs(data), path, figures.load_probmass(made, "die")):
        assert np.isfinite(frame.select_dtypes(float)).all().all()
    assert set(path["checkpoint"]) == {"base", "sft"}


class _Page:
    def __init__(self, monkeypatch):
        self.told, self.claims, self.stopped = [], {}, []
        monkeypatch.setattr(show, "prose", self.told.append)
        monkeypatch.setattr(show, "stop", self.stopped.append)
        monkeypatch.setattr(
            show, "claim", lambda name, **fields: self.claims.update({name: fields})
        )


def test_what_was_answered_is_counted_and_recorded(readouts, monkeypatch):
    page = _Page(monkeypatch)
    found = views.count_answered(readouts, "die", "base", "sft")
    assert found.able == ["made"] and not found.whole and not found.why
    assert (
        "base, 80 of 100 prompts answered (median mass 1.00), "
        "not answered: invalid-answer mass 0.200, residual mass 0" in found.told[0]
    )
    assert "60 by all of these" in found.told[0] and page.claims["answered-sft"]["number"] == 0.7


def test_a_ladder_that_cannot_be_measured_has_the_reason(readouts, monkeypatch):
    page = _Page(monkeypatch)
    found = views.count_answered(readouts, "coin", "base", claims=["many-distributions"])
    assert found.able == [] and found.why == ["made: not measurable: 20 of 100 prompts answered."]
    assert page.claims["many-distributions"]["verdict"] == NOT_MEASURABLE
    assert page.claims["many-distributions"]["number"] is None


def test_remelting_by_heat_has_no_number_where_nothing_is_answered(monkeypatch):
    monkeypatch.delenv("CRYSTAL_ROOT", raising=False)
    methods = remelting.load_methods("remelting", ["nano-llama"])
    hot = methods[methods["method"] == "temperature 3"]
    few = hot[hot["measurable"] == 0]
    assert len(few) > 0 and few["liquidity"].isna().all() and (few["invalid"] > 0.5).all()
    assert hot[hot["measurable"] == 1]["liquidity"].notna().all()
    judged = remelting.judge(remelting.at_end(remelting.load_shares(methods)))
    assert {v.verdict for v in judged["temperature 3"]} == {NOT_MEASURABLE}
    assert all("of 15 tasks" in v.sentence() for v in judged["temperature 3"])


# --- tables ---------------------------------------------------------------------------------------


def table(path, low=(), prompts=60, given="divided", **more):
    """A ladder that freezes. low: (task, stage) -> how many of its first prompts are not answered,
    .001 where .9 is.
    """
    rng, rows, low = np.random.default_rng(1), [], dict(low)
    for task in ("one", "two", "three"):
        voices = rng.dirichlet(np.full(6, 0.5), 5)
        base = voices[np.arange(prompts) % 5]
        sft = 0.05 * base + 0.95 * voices[2]
        for stage, distributions in (("base", base), ("sft", sft), ("rlvr", sft)):
            for i, distribution in enumerate(distributions):
                mass = 0.001 if i < low.get((task, stage), 0) else 0.9
                value = distribution * mass if given == "as they are" else distribution
                rows += [
                    {
                        "stage": stage,
                        "task": task,
                        "prompt": f"p{i}",
                        "option": f"o{k}",
                        "probability": p,
                        "answered": mass,
                    }
                    | more
                    for k, p in enumerate(value)
                ]
    frame = pd.DataFrame(rows)
    frame.drop(columns=[] if given != "silent" else "answered").pipe(_save, path)
    return path


def _save(frame: pd.DataFrame, path) -> None:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")


def judged(path, capsys):
    assert cli.main(["phases", str(path), "--json", "--permutations", "99"]) == 0
    said = json.loads(capsys.readouterr().out)
    return said, {(row["task"], row["claim"]): row for row in said["ladders"]["t"]["verdicts"]}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("given", ["divided", "as they are"])
def test_a_table_says_what_was_answered(tmp_path, capsys, suffix, given):
    low = {("one", "sft"): 5, ("two", "base"): 20, ("three", "base"): 4, ("three", "sft"): 9}
    said, found = judged(table(tmp_path / f"t{suffix}", low.items(), given=given), capsys)
    assert said["notes"][0].startswith(
        "t: base 156 of 180 prompts answered (median mass .90), sft 166 of 180"
    )
    assert (
        found["one", "collapse"]["verdict"] == "holds" and "reason" not in found["one", "collapse"]
    )
    assert {row["verdict"] for (task, _), row in found.items() if task == "two"} == {NOT_MEASURABLE}
    assert (
        found["two", "many-distributions"]["reason"] == "not measurable: 40 of 60 prompts answered"
    )
    assert "(2 tasks)" in found[chain.POOLED, "collapse"]["sentence"]
    numbers = {(row["task"], row["stage"]): row for row in said["ladders"]["t"]["numbers"]}
    assert ("two", "base") not in numbers and numbers["two", "sft"]["from base"] is None
    assert (numbers["three", "sft"]["answered"], numbers["three", "sft"]["asked"]) == (51, 60)


def test_stages_of_a_table_are_compared_on_what_both_answer(tmp_path):
    read = read_table(table(tmp_path / "t.csv", {("one", "sft"): 5, ("one", "rlvr"): 9}.items()))
    parts = survey.phases_of(read, "t", "one", survey.roles(read.stages))
    assert {
        phase: {len(given.distribution) for given in part} for phase, part in parts.items()
    } == {
        "liquid": {60},
        "nucleation": {55},
        "settling": {51},
    }


def test_both_may_answer_too_few_where_each_answers_enough(tmp_path):
    path = table(tmp_path / "t.csv", {("one", "base"): 9}.items())
    frame = pd.read_csv(path)
    last = frame["prompt"].isin([f"p{i}" for i in range(50, 60)])
    frame.loc[last & (frame["stage"] == "sft") & (frame["task"] == "one"), "answered"] = 0.1
    frame.to_csv(path, index=False)
    found = {v.claim: v for v in survey.survey(read_table(path), "t", **HOW)["one"]}
    assert found["many-distributions"].verdict == "not-testable"
    assert found["collapse"].reason == "not measurable: 41 of 60 prompts answered"


def test_a_table_that_nobody_answers_is_not_measurable_in_text(tmp_path, capsys):
    low = {
        (task, stage): 60 for task in ("one", "two", "three") for stage in ("base", "sft", "rlvr")
    }
    assert (
        cli.main(["phases", str(table(tmp_path / "t.csv", low.items())), "--permutations", "99"])
        == 0
    )
    text = capsys.readouterr().out
    assert (
        text.count("(not measurable: 0 of 60 prompts answered)") == 3
        and "Not measurable, for too few" in text
    )
    assert survey.numbers(read_table(tmp_path / "t.csv")).empty


def test_without_the_column_nothing_changes(tmp_path):
    """All prompts answered: the column adds its note, and no number or verdict is another."""
    with_, without = (
        read_table(table(tmp_path / f"{given}.csv", given=given), ladder="t")
        for given in ("divided", "silent")
    )
    assert len(with_.asked) and without.asked.empty
    for one, two in zip(
        survey.survey(with_, "t", **HOW).values(),
        survey.survey(without, "t", **HOW).values(),
        strict=True,
    ):
        assert one == two
    shared = survey.numbers(without).columns.drop("mass")
    pd.testing.assert_frame_equal(survey.numbers(with_)[shared], survey.numbers(without)[shared])
    assert list(without.frame) == list(with_.frame)


def test_counts_take_the_column_and_an_empty_cell_means_what_else_is_known(tmp_path):
    rows = [
        f"{stage},t,p{i},{option},{n},{'0.1' if i == 0 else ''}"
        for stage in ("base", "sft")
        for i in range(4)
        for option, n in (("a", 3 + i), ("b", 5), ("", 90 if i == 1 else 2))
    ]
    (tmp_path / "t.csv").write_text(
        "\n".join(["stage,task,prompt,option,count,answered", *rows]) + "\n"
    )
    read = read_table(tmp_path / "t.csv")
    assert set(read.frame["prompt"]) == {"p2", "p3"} and len(read.asked) == 8
    assert survey.compared(read, "t", "t", ["base", "sft"])[0].answered == 2


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("1.2", "the answered 1.2 is above 1"),
        ("-0.1", "is negative"),
        ("often", "is not a number"),
        ("inf", "is infinite"),
        ("0.5", "sum to 1.*neither|rows . and . give one prompt two values of answered"),
    ],
)
def test_an_answered_that_is_none_is_a_sentence(tmp_path, capsys, cell, said):
    text = table(tmp_path / "t.csv", prompts=3).read_text().splitlines()
    text[1] = text[1].rpartition(",")[0] + f",{cell}"
    (tmp_path / "t.csv").write_text("\n".join(text) + "\n")
    assert cli.main(["phases", str(tmp_path / "t.csv")]) == 2
    assert re.search(f"{said}.*(row|column answered)", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("mass", "total", "said"),
    [
        (0.5, 1, "the columns mass and answered say the same"),
        (None, 0.5, "neither to their mass nor to 1"),
    ],
)
def test_an_answered_that_contradicts_the_table_is_a_sentence(tmp_path, capsys, mass, total, said):
    path = table(tmp_path / "t.csv", prompts=3, **({"mass": mass} if mass else {}))
    frame = pd.read_csv(path)
    frame["probability"] *= total
    frame.to_csv(path, index=False)
    assert cli.main(["phases", str(path)]) == 2 and said in capsys.readouterr().err
