"""A real base, post-trained: what the page says of its runs, from the stored read-outs."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from crystal.ask import ladders
from crystal.ask.prompts import CHAT, load_prompts
from crystal.keep import store
from crystal.lab import recipes
from crystal.measure import claims
from crystal.studies import later, real


@pytest.fixture(scope="module")
def readouts() -> real.Distributions:
    return real.read()


def test_every_planned_run_was_read_to_its_last_checkpoint():
    planned = [run.name for run in recipes.load_experiment(real.EXPERIMENT).runs]
    assert planned == [*real.PLAIN, later.RUN, later.AGAIN, later.GENTLE, *real.SHOWN_BY]
    assert [*real.ends()] == [*real.PLAIN, later.RUN, *real.SHOWN_BY]
    assert [*later.dpo()] == [later.RUN, later.AGAIN, later.GENTLE]
    assert real.ends()["plain"].step == 192 and real.ends()["plain-again"].step == 256


def test_shown_tasks_are_those_of_the_recipe():
    assert recipes.load_recipe(real.PARENT).demonstrated == real.SHOWN


def test_a_spread_is_that_of_the_rows_by_hand(readouts):
    """Mean squared difference of two contexts' distributions, SFT over base, from the rows as
    stored.
    """
    found = real.surveys(readouts, permutations=99)
    row = real.load_tasks(readouts, found).set_index(["run", "task"]).loc["first", "letter"]
    once = [p.id for p in load_prompts() if p.wording == "cue-1"]

    def distributions(ladder: str, checkpoint: str, form: str) -> np.ndarray:
        mine = store.load_readouts(ladder, tasks=["letter"], forms=[form], checkpoints=[checkpoint])
        table = np.stack(mine.set_index("prompt").loc[once, "probability"].to_list())
        return table / table.sum(1, keepdims=True)

    def spread(distribution: np.ndarray) -> float:
        apart = ((distribution[:, None] - distribution[None]) ** 2).mean(-1)
        return apart[~np.eye(len(distribution), dtype=bool)].mean()

    base = distributions(real.PARENT, "base", "completion")
    sft = distributions(real.EXPERIMENT, "gemma3-270m/first/sft", CHAT)
    assert row["prompts"] == 50
    assert row["low"] < spread(sft) / spread(base) < row["high"]
    assert row["spread"] == pytest.approx(spread(sft) / spread(base), rel=0.2)  # jackknifed


def test_a_mean_over_tasks_leaves_out_whole_kinds():
    """Tasks of numbers are one kind, so three units stand behind ten tasks: a wide interval."""
    numbers = ("die", "d20", "digit", "ten", "hundred", "prime", "even", "odd")
    values = {task: float(task in numbers) for task in (*numbers, "coin", "suit")}
    found = real.over_tasks(values)
    assert found.value == pytest.approx(0.8) and found.low < -0.5 and found.high > 2
    same = real.over_tasks(dict.fromkeys(values, 0.3))
    assert (same.value, same.low, same.high) == pytest.approx((0.3, 0.3, 0.3))


def test_a_rise_is_measured_from_the_larger_end():
    """Exactly .3 above the larger end in every task."""
    bits = {0: 0.1, 1: 0.5, 2: 0.2}
    steps = pd.DataFrame(
        [
            {"run": "plain", "step": step, "task": task, "bits": value + 0.01 * n}
            for step, value in bits.items()
            for n, task in enumerate(("coin", "die", "suit", "letter"))
        ]
    )
    step, above = real.rise(steps, "plain")
    assert step == 1 and above.value == pytest.approx(0.3)
    assert claims.judge("rises-first", above).verdict == "holds"


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.1, 0.5])
def test_a_mean_over_tasks_is_judged_by_its_interval(shift):
    """What `judge` says of it is which side of the mark the interval shown lies on."""
    values = {"coin": 0.1, "die": 0.2, "d20": 0.25, "ten": 0.1, "suit": 0.0, "letter": -0.1}
    found = real.over_tasks({task: value + shift for task, value in values.items()})
    said = claims.judge("rises-first", found).verdict
    assert (said == "holds") == (found.low > 0) and (said == "fails") == (found.high < 0)


def test_steps_are_compared_on_one_fixed_set(readouts):
    steps = real.load_steps(readouts)
    assert (steps.groupby(["run", "task"])["contexts"].nunique() == 1).all()
    assert (steps["contexts"] >= 25).all()
    assert set(steps.loc[steps["run"] == "plain", "step"]) >= {0, 1, 2, 4, 8, 192}


def test_runs_are_compared_on_the_same_contexts(readouts):
    """Over itself a run leaves exactly its own spread; over another, the inverse the other way."""
    assert real.beside(readouts, "plain").value == pytest.approx(1)
    there, back = real.beside(readouts, "style"), real.beside(readouts, "plain", "style")
    assert there.value * back.value == pytest.approx(1)
    assert there.low * back.high == pytest.approx(1)


def test_only_whole_read_outs_are_judged_on_both_wordings(readouts):
    assert list(real.surveys(readouts, whole=True, permutations=99)) == ["plain"]


def test_the_first_page_says_what_was_found(readouts):
    """Its sentences are prose: liquid undecided, no collapse, harsh DPO lifts liquidity."""
    (whole,) = real.surveys(readouts, whole=True).values()
    assert {v.claim: v.verdict for v in whole.verdicts["all tasks"]}[
        "many-distributions"
    ] == "undecided"
    once = real.surveys(readouts, permutations=99)
    pooled = [v for run in real.PLAIN for v in once[run].verdicts["all tasks"]]
    assert "holds" not in {v.verdict for v in pooled if v.claim == "collapse"}
    after = later.asked(later.load_stages(readouts), "dpo")["stays-frozen"]
    assert after.verdict == "fails" and after.estimate.low > 0
    right = recipes.load_records(real.EXPERIMENT)[f"{real.PARENT}/{later.RUN}"]["accuracy"]
    assert right["dpo"]["instructions"] < right["sft"]["instructions"] / 2
    more = later.load_stages(readouts, later.dpo())
    verdicts = [later.asked(more, run)["stays-frozen"].verdict for run in later.dpo()]
    assert verdicts == ["fails", "fails", "undecided"]
    gentle = recipes.load_records(real.EXPERIMENT)[f"{real.PARENT}/{later.GENTLE}"]["accuracy"]
    assert gentle["dpo"]["instructions"] > right["sft"]["instructions"] * 0.7


def test_counts_say_what_holds_first():
    assert real.counted(["fails", "holds", "fails"]) == "holds on 1 of 3 tasks, fails on 2"
    assert real.counted(["undecided"]) == "holds on 0 of 1 tasks, undecided on 1"


def test_stages_stand_in_the_order_they_were_trained():
    """Not by step: SFT took more of them than DPO and RL."""
    assert list(later.checkpoints()) == ["sft", "dpo", "rlvr"] and later.read()


def test_later_stages_move_as_far_as_by_hand(readouts):
    """Total variation of mean answers over the contexts that base, SFT and DPO all answer."""
    row = later.load_stages(readouts).set_index(["stage", "task"]).loc["dpo", "coin"]
    once = [p.id for p in load_prompts() if p.wording == "cue-1"]
    names = ("base", "gemma3-270m/whole/sft", "gemma3-270m/whole/dpo")
    tables = [np.stack([readouts[name, CHAT, "coin"][one] for one in once]) for name in names]
    rows = np.all([table.sum(1) >= 0.2 for table in tables], axis=0)
    means = [(t[rows] / t[rows].sum(1, keepdims=True)).mean(0) for t in tables]
    assert row["contexts"] == rows.sum()
    assert row["before"] == pytest.approx(abs(means[0] - means[1]).sum() / 2)
    assert row["after"] == pytest.approx(abs(means[1] - means[2]).sum() / 2)


def test_a_stage_that_moves_half_as_far_moves_less():
    """By about half in every task, nothing given back, nothing promoted: all three claims hold."""
    tasks = {"coin": 0.4, "die": 0.5, "suit": 0.6, "letter": 0.5}
    rows = [
        {"stage": "dpo", "task": task, "before": 0.2, "after": 0.2 * part, "promoted": 0.0}
        | {"base": 1.0, "sft": 0.5, "bits": 0.5}
        for task, part in tasks.items()
    ]
    found = later.asked(pd.DataFrame(rows), "dpo")
    assert found["moves-less"].estimate.value == pytest.approx((0.4 * 0.5 * 0.6 * 0.5) ** 0.25)
    assert {verdict.verdict for verdict in found.values()} == {"holds"}


@pytest.mark.parametrize(
    ("again", "gentle", "right", "said"),
    [
        ("fails", "fails", 0.23, "replicates; .* kept, and liquidity comes back"),
        ("holds", "undecided", 0.3, "does not replicate; .* undecided, so it comes with damage"),
        ("undecided", "holds", 0.46, "does not replicate; .* refuted, so it comes with damage"),
        ("fails", "fails", 0.22, "replicates; .* is lost, too, so it may be damage"),
    ],
)
def test_three_runs_of_dpo_are_told_by_the_rule(again, gentle, right, said):
    frozen = {later.RUN: "fails", later.AGAIN: again, later.GENTLE: gentle}
    assert re.search(said, later.concluded(frozen, {later.GENTLE: right}, 0.46))


def test_the_section_on_later_stages_tells_what_was_asked(readouts, monkeypatch):
    """On steps of SFT in the place of stages: sentences, a figure, and a verdict a claim."""
    mine = {
        checkpoint.name: checkpoint
        for checkpoint in ladders.load_ladder(real.EXPERIMENT).checkpoints
    }
    names = {"sft": "sft-64", "dpo": "sft-128", "rlvr": "sft"}
    stand_in = {stage: mine[f"gemma3-270m/plain/{name}"] for stage, name in names.items()}
    monkeypatch.setattr(later, "checkpoints", lambda: stand_in)
    said, found, drawn = [], {}, []
    monkeypatch.setattr(later.show, "prose", said.append)
    monkeypatch.setattr(later.show, "claim", lambda name, **fields: found.update({name: fields}))
    monkeypatch.setattr(later.show, "emit", lambda *_, **how: drawn.append(how["caption"]))
    record = {"reward": {"rlvr": {"first": 0.4, "last": 0.5, "error": 0.01}}}
    record["accuracy"] = {name: {"instructions": 0.5} for name in ("base", "sft", "dpo", "rlvr")}
    later.report(readouts, record, permutations=99)
    assert {f"{claim}-{s}" for claim in later.ASKED for s in later.STAGES} < found.keys()
    assert found["moves-less-rlvr"]["number"] > 0 and found["reward-whole"]["verdict"] == "holds"
    assert 0 <= found["same-mode-sft-rlvr"]["number"] <= 1 and len(drawn) == 1
    assert "nan" not in "".join(said) and "not reached" in "".join(said)
