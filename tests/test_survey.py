"""What was built into a table is found, by read-outs and draws; published tables are judged."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from crystal import cli
from crystal.errors import CrystalError
from crystal.measure import chain
from crystal.present import verdicts
from crystal.tables import survey
from crystal.tables.table import read_table

PUBLISHED = "data/published"
HOW = {"permutations": 199}


def distribution_rows(
    stage: str, task: str, distributions: np.ndarray, n: int, rng: np.random.Generator
) -> list[dict]:
    """Rows of one stage and task; n: draws, 0 for probabilities."""
    rows = []
    for prompt, distribution in enumerate(distributions):
        values = rng.multinomial(n, distribution) if n else distribution
        rows += [
            {
                "stage": stage,
                "task": task,
                "prompt": f"p{prompt}",
                "option": f"o{k}",
                "count" if n else "probability": value,
            }
            for k, value in enumerate(values)
        ]
    return rows


def write(path, frozen: bool, n: int = 0, prompts: int = 40, tasks: int = 3, options: int = 6):
    """A ladder of five voices; SFT freezes it onto one of them for good, or changes nothing."""
    rng, rows = np.random.default_rng(1), []
    for task in range(tasks):
        voices = rng.dirichlet(np.full(options, 0.5), 5)
        base = voices[np.arange(prompts) % 5]
        sft = 0.05 * base + 0.95 * voices[2] if frozen else base
        for stage, distributions in (("base", base), ("sft", sft), ("rl", sft)):
            rows += distribution_rows(
                stage, f"task{task}", 0.999 * distributions + 0.001 / options, n, rng
            )
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def verdicts_of(path, **how):
    table = read_table(path)
    return survey.survey(table, next(iter(table.ladders)), **{**HOW, **how})


@pytest.mark.parametrize("n", [0, 400])
def test_a_ladder_that_froze_and_stayed_is_found_out(tmp_path, n):
    found = verdicts_of(write(tmp_path / "frozen.csv", True, n))
    assert list(found) == ["task0", "task1", "task2", survey.POOLED]
    for task in ("task0", "task1", "task2"):
        said = {v.claim: v.verdict for v in found[task]}
        assert said["many-distributions"] == "not-testable"  # one wording of each context
        for claim in ("collapse", "stays-frozen", "little-promoted"):
            assert said[claim] == "holds", (task, claim)
    pooled = {v.claim: v for v in found[survey.POOLED]}
    assert (
        pooled["little-promoted"].verdict == "holds"
        and "(3 tasks)" in pooled["little-promoted"].reason
    )


@pytest.mark.parametrize("n", [0, 400])
def test_a_liquid_ladder_neither_collapses_nor_has_a_seed(tmp_path, n):
    found = verdicts_of(write(tmp_path / "liquid.csv", False, n))
    for task in ("task0", "task1", "task2"):
        by = {v.claim: v.verdict for v in found[task]}
        assert by["collapse"] == "fails" and by["stays-frozen"] == "not-reached"
    assert {v.claim: v.verdict for v in found[survey.POOLED]}["one-seed"] == "not-reached"


def test_draws_and_read_out_of_one_ladder_agree(tmp_path):
    """The noise of 4,000 draws a prompt is .01 of the interval's width; .1 is allowed."""
    exact, drawn = (verdicts_of(write(tmp_path / f"{n}.csv", True, n))["task0"] for n in (0, 4000))
    for one, two in zip(exact, drawn, strict=True):
        if one.claim in ("collapse", "little-promoted"):
            width = one.estimate.high - one.estimate.low
            assert two.estimate.value == pytest.approx(one.estimate.value, abs=0.1 * width + 2e-3)


def test_a_single_prompt_gives_numbers_and_no_verdict(tmp_path):
    path = write(tmp_path / "one.csv", True, prompts=1)
    found = verdicts_of(path)
    said = {v.verdict for verdicts in found.values() for v in verdicts}
    assert said == {"not-testable", "not-reached"}
    numbers = survey.numbers(read_table(path))
    assert (numbers["entropy"] > 0).all() and numbers["liquidity"].isna().all()


def test_prompts_with_too_few_draws_are_left_out_of_every_stage(tmp_path):
    frame = pd.read_csv(write(tmp_path / "draws.csv", True, 50))
    scarce = (frame["prompt"] == "p3") & (frame["stage"] == "sft")
    frame.loc[scarce, "count"] = (frame.loc[scarce, "option"] == "o1").astype(int)
    frame.to_csv(tmp_path / "scarce.csv", index=False)
    table = read_table(tmp_path / "scarce.csv")
    assert all(
        len(given.distribution) == 39
        for given in survey.evidence(table, "scarce", "task0").values()
    )


def test_units_of_several_prompts_count_once(tmp_path):
    """Every prompt twice, of one unit: the interval stays, where more units would shrink it."""
    frame = pd.read_csv(write(tmp_path / "once.csv", True))
    twice = pd.concat(
        [
            frame.assign(cluster=frame["prompt"]),
            frame.assign(cluster=frame["prompt"], prompt=frame["prompt"] + "b"),
        ]
    )
    twice.to_csv(tmp_path / "twice.csv", index=False)
    once, again = (
        verdicts_of(tmp_path / f"{name}.csv")["task0"][1].estimate for name in ("once", "twice")
    )
    assert (again.low, again.high) == pytest.approx((once.low, once.high), rel=1e-6)


def test_wordings_that_differ_are_not_taken_for_chance(tmp_path):
    """The wording moves the answer far more than the context; only within it is chance judged."""
    rng, rows = np.random.default_rng(0), []
    leans = {"1": [2.0, 0, 0, 0], "2": [0, 0, 0, 2.0]}
    for context in range(50):
        own = rng.normal(0, 0.5, 4)
        for wording, lean in leans.items():
            p = np.exp(lean + own)
            place = ("m", "base", "season", f"{context}-{wording}", context, wording)
            rows += [(*place, option, x) for option, x in zip("abcd", p / p.sum(), strict=True)]
    columns = "ladder stage task prompt cluster wording option probability".split()
    table = pd.DataFrame(rows, columns=columns)
    path, found = tmp_path / "t.csv", {}
    for part in (table, table.drop(columns="wording")):
        part.to_csv(path, index=False)
        first = verdicts_of(path)["season"][0]
        found[len(part.columns)] = (first.verdict, "within each wording" in first.sentence())
    assert found == {8: ("holds", True), 7: ("undecided", False)}
    table.loc[0, "wording"] = "3"
    table.to_csv(path, index=False)
    with pytest.raises(CrystalError, match="give one prompt two values of wording"):
        verdicts_of(path)


@pytest.mark.parametrize("n", [0, 60])
def test_the_order_of_rows_changes_no_number(tmp_path, n):
    """Nor do columns; near the thresholds, where halves and ties would show. No chance in it."""
    rng, rows = np.random.default_rng(5), []
    for task in range(3):
        voices = rng.dirichlet(np.full(4, 1.0), 12)
        for stage, share in (("base", 0.0), ("sft", 0.55), ("rl", 0.5)):
            mixed = share * voices[:1] + (1 - share) * voices
            rows += distribution_rows(stage, f"w{9 - task}", mixed, n, rng)
    frame = pd.DataFrame(rows)
    found = []
    for seed in (None, 1, 2):
        mine = (
            frame if seed is None else frame.sample(frac=1, random_state=seed)[frame.columns[::-1]]
        )
        mine.to_csv(tmp_path / "t.csv", index=False)
        found.append(verdicts_of(tmp_path / "t.csv", permutations=99))
    for other in found[1:]:
        assert set(other) == set(found[0])
        for task, those in found[0].items():
            assert [v.fields() for v in those] == [v.fields() for v in other[task]], task


def test_own_tasks_that_share_options_are_one_kind(tmp_path):
    """As the book's are: a drift to one option in all of them is no context that they share."""
    rng, rows = np.random.default_rng(3), []
    for task in range(5):
        base = rng.dirichlet(np.ones(10), 40)
        sft = np.tile(rng.dirichlet(np.ones(10)), (40, 1)) * 0.97 + 0.03 * base
        rows += [
            x
            for s, p in (("base", base), ("sft", sft))
            for x in distribution_rows(s, f"q{task}", p, 0, rng)
        ]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    found = {v.claim: v.verdict for v in verdicts_of(tmp_path / "t.csv")[survey.POOLED]}
    assert found["collapse"] == "holds" and found["one-seed"] == "not-testable"


def test_one_option_decides_nothing(tmp_path, recwarn):
    rows = [f"{s},t{t},p{p},a,1" for s in ("base", "sft") for t in "12" for p in range(4)]
    (tmp_path / "t.csv").write_text(
        "\n".join(["stage,task,prompt,option,probability", *rows]) + "\n"
    )
    found = [v for those in verdicts_of(tmp_path / "t.csv").values() for v in those]
    assert {v.verdict for v in found} <= {"not-testable", "not-reached"} and not recwarn.list


def test_too_few_draws_are_refused_beside_what_is_unanswered(tmp_path):
    rows = [f"{s},t,p{p},{o},{n}" for s in ("base", "sft") for p in range(7)
            for o, n in (("a", 2 - (p == 6)), ("b", p < 6), ("", 7 + 2 * (p == 6)))]  # fmt: skip
    text = "\n".join(["stage,task,prompt,option,count", *rows]).replace("True", "1")
    (tmp_path / "t.csv").write_text(text.replace("False", "0") + "\n")
    with pytest.raises(CrystalError, match="4 or more draws"):
        verdicts_of(tmp_path / "t.csv")


def test_ladders_stand_as_in_the_file(tmp_path):
    """Also where only one of them has prompts that are not answered."""
    rows = [f"{x},{s},t,p{p},{o},{m}" for x in "CAB" for s in ("base", "sft") for p in range(4)
            for o, m in (("a", 0.05 if (x, p) == ("B", 0) else 0.6), ("b", 0.05))]  # fmt: skip
    text = "\n".join(["ladder,stage,task,prompt,option,probability", *rows])
    (tmp_path / "t.csv").write_text(text + "\n")
    assert list(read_table(tmp_path / "t.csv").ladders) == ["C", "A", "B"]


def test_where_nothing_is_answered_nothing_is_measurable(tmp_path):
    rows = [f"{s},t{t},p{p},{o},{x}" for s in ("base", "sft") for t in "12" for p in range(4)
            for o, x in (("a", 0.01), ("b", 0.01), ("", 0.98))]  # fmt: skip
    (tmp_path / "t.csv").write_text(
        "\n".join(["stage,task,prompt,option,probability", *rows]) + "\n"
    )
    found = [v.verdict for those in verdicts_of(tmp_path / "t.csv").values() for v in those]
    assert set(found) == {"not-measurable"}


def test_a_mean_without_an_interval_is_drawn():
    """Of one task there is none; names on the lines must not need it."""
    rows = [("L", stage, x, np.nan, np.nan, 1) for stage, x in (("base", 0.5), ("sft", 0.1))]
    frame = pd.DataFrame(rows, columns=["ladder", "stage", "value", "low", "high", "tasks"])
    for ladders in (["L"], ["L", "M"]):
        mine = pd.concat([frame.assign(ladder=ladder) for ladder in ladders])
        assert survey.plot_stages(mine, ["base", "sft"], "liquidity").axes


def test_what_stands_in_the_place_of_sft_is_said():
    assert survey.roles(("base", "sft", "dpo", "rlvr")) == ("base", "sft", "rlvr")
    assert survey.roles(("base", "sft")).told == "no later stage, so settling is not judged"
    alone = "; no later stage, so settling is not judged"
    assert survey.roles(("base", "instruct")).told == "instruct stands in the place of SFT" + alone
    assert survey.roles(("base", "dpo", "rlvr")) == ("base", "dpo", "rlvr")


def test_a_quantile_that_is_none_is_refused(tmp_path):
    with pytest.raises(CrystalError, match="no set of options"):
        verdicts_of(write(tmp_path / "frozen.csv", True), quantile=1.0)


# -- the published tables


def test_published_ladders_are_judged_over_their_tasks(capsys):
    assert cli.main(["phases", f"{PUBLISHED}/one_word_choice.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["ladders"]) == {"Tulu-3-8B", "Olmo-3-7B", "Olmo-3.1-32B"}
    for ladder in found["ladders"].values():
        pooled = {row["claim"]: row for row in ladder["verdicts"] if row["task"] == survey.POOLED}
        assert list(pooled) == [claim for claims in chain.CLAIMS.values() for claim in claims]
        assert pooled["many-distributions"]["verdict"] == "not-testable"  # two near paraphrases
        assert pooled["one-seed"]["verdict"] in ("not-testable", "not-reached")
        assert len(ladder["numbers"]) == 40
    tulu = found["ladders"]["Tulu-3-8B"]["numbers"]
    entropy = {
        stage: np.mean([row["entropy"] for row in tulu if row["stage"] == stage])
        for stage in ("base", "sft")
    }
    assert entropy["base"] > entropy["sft"] > 1.5


def test_base_against_instruct_gives_the_numbers_of_the_source(capsys):
    """Number 1 to 10, bits, as the source's authors' table gives them (to two digits)."""
    table = read_table(f"{PUBLISHED}/base_and_instruct.csv")
    numbers = survey.numbers(table).set_index(["ladder", "task", "stage"])["entropy"]
    stated = {
        "Llama-3.1-8B": (3.21, 1.05),
        "gemma-2-2b": (3.25, 1.42),
        "OLMoE-1B-7B-0924": (3.24, 1.84),
        "Mistral-7B-v0.3": (3.27, 1.91),
    }
    for ladder, (base, instruct) in stated.items():
        assert numbers[ladder, "ten", "base"] == pytest.approx(base, abs=0.006)
        assert numbers[ladder, "ten", "instruct"] == pytest.approx(instruct, abs=0.006)
    assert cli.main(["phases", f"{PUBLISHED}/base_and_instruct.csv"]) == 0
    told = capsys.readouterr().out
    assert "instruct stands in the place of SFT" in told and "One prompt" in told


def test_a_table_that_cannot_be_judged_is_a_sentence(tmp_path, capsys):
    (tmp_path / "bad.csv").write_text("stage,task,prompt,option,probability\nbase,t,p,a,-0.5\n")
    assert cli.main(["phases", str(tmp_path / "bad.csv")]) == 2
    assert "row 2" in capsys.readouterr().err


def test_figures_draw_what_was_judged(tmp_path):
    table = read_table(f"{PUBLISHED}/one_word_choice.csv")
    found = {ladder: survey.survey(table, ladder, **HOW) for ladder in list(table.ladders)[:2]}
    pooled = survey.load_pooled(found)
    assert len(pooled) == 14 and set(pooled["task"]) == set(found)
    numbers = survey.numbers(table)
    sharp = survey.over_tasks(numbers, "normalised")
    assert len(sharp) == 12 and (sharp["low"] <= sharp["value"]).all()
    for fig in (
        verdicts.plot_matrix(verdicts.load_verdicts(found)),
        verdicts.plot_forest(pooled),
        survey.plot_stages(sharp, table.stages, "entropy"),
    ):
        fig.savefig(tmp_path / "figure.svg")
    assert survey.load_pooled({"x": {}}).empty
