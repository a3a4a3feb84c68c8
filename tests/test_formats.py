"""Format against weights where both are known; contexts against wordings: who counts."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import synthetic
from synthetic_branches import drawn

from crystal.ask.prompts import CHAT, COMPLETION, PERSONAS, PROMPTS
from crystal.lab import world
from crystal.measure import claims, quantities
from crystal.measure import inference as inf
from crystal.studies import figures, formats
from crystal.studies.runs import ALL, APART, DEMONSTRATED, HELD_OUT, MEAN, judge_over

SHOWN = ("die", "digit", "month")
LADDERS = ("weights", "form", "elsewhere", "frozen")


def distributions(weight: float, toward: str = "salient") -> dict[str, np.ndarray]:
    """Task -> (100, options): every persona's distribution, `weight` of the way to one
    distribution.
    """
    holders = [world.temperament_of(n) for n in range(len(PERSONAS))]
    own = {
        task: np.stack([synthetic.distribution(name, task) for name in holders]).repeat(5, axis=0)
        for task in SHOWN
    }
    return {
        task: (1 - weight) * own[task] + weight * synthetic.distribution(toward, task)
        for task in SHOWN
    }


def ladder(root, name: str, base_chat: dict, sft_text: dict) -> None:
    """Base as raw text: liquid; SFT in chat form: nine tenths of the way to the salient
    distribution.
    """
    crystal, text = distributions(0.9), distributions(0.0)
    chat = {
        "base": base_chat,
        "sft-4": distributions(0.5),
        "sft": crystal,
        "dpo": crystal,
        "rlvr": distributions(0.95),
    }
    raw = {"base": text, "sft": sft_text, "dpo": sft_text, "rlvr": sft_text}
    synthetic.write_ladder(
        root,
        name,
        {**chat, "base": text},
        other={**raw, "base": base_chat},
        invalid=0.1,
        seed="salient",
        demonstrated=["die"],
    )


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory):
    """What the form does. weights: nothing; form: all; elsewhere: it goes to another distribution.

    frozen: raw text freezes, too.
    """
    where = tmp_path_factory.mktemp("root")
    ladder(where, "weights", distributions(0.0), distributions(0.1))
    ladder(where, "form", distributions(0.9), distributions(0.0))
    ladder(where, "elsewhere", distributions(0.9, "averse"), distributions(0.0))
    ladder(where, "frozen", distributions(0.0), distributions(0.8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTAL_ROOT", str(where))
        patch.setattr(formats, "PHASE_TASKS", SHOWN)
        yield where


@pytest.fixture(scope="module")
def readings(root):
    return formats.load_readings(LADDERS)


@pytest.fixture(scope="module")
def numbers(readings):
    return formats.load_numbers(readings)


def test_the_forms_share_is_none_or_all_where_that_is_the_truth(numbers):
    for group in (*APART, ALL):
        share, toward = (
            formats.over_ladders(numbers, group, name) for name in (formats.SHARE, formats.TOWARD)
        )
        assert share["weights"] == pytest.approx(0, abs=1e-6) and toward[
            "weights"
        ] == pytest.approx(0, abs=1e-6)
        assert share["form"] == pytest.approx(1, abs=1e-6) and toward["form"] == pytest.approx(
            1, abs=1e-6
        )
        assert share["elsewhere"] > 0.5 and toward["elsewhere"] < 0  # a long way, and the wrong one


def test_liquidity_left_is_a_ratio_of_means_over_tasks(readings, numbers):
    def bits(weight, tasks):
        return sum(quantities.liquidity_bits(distributions(weight)[task][::5]) for task in tasks)

    held_out = [task for task in SHOWN if task != "die"]
    assert readings[0].tasks(HELD_OUT) == held_out and readings[0].tasks(DEMONSTRATED) == ["die"]
    found = numbers["frozen", HELD_OUT, formats.CLAIMED]
    assert found.value == pytest.approx(
        bits(0.8, held_out) / bits(0.0, held_out), rel=0.01
    )  # less the bias of twenty personas
    assert found.low < found.value < found.high
    assert numbers["form", ALL, formats.CLAIMED].value == pytest.approx(1, abs=1e-6)


def test_the_claim_holds_where_raw_text_stays_liquid(numbers):
    judged = {
        name: claims.judge("raw-text-stays-liquid", numbers[name, ALL, formats.CLAIMED]).verdict
        for name in LADDERS
    }
    assert judged == {"weights": "holds", "form": "holds", "elsewhere": "holds", "frozen": "fails"}
    over = formats.over_ladders(numbers, ALL, formats.CLAIMED)
    assert judge_over("raw-text-stays-liquid", over.drop("frozen")).verdict == "holds"
    assert judge_over("raw-text-stays-liquid", over).verdict == "undecided"
    assert "only base read" in judge_over("raw-text-stays-liquid", over[["form"]]).sentence()


def test_all_prompts_of_a_persona_are_left_out_together(root):
    (reading,) = formats.load_readings(["weights"], PROMPTS)
    weights = inf.leave_one_out(reading.personas)
    assert weights.shape == (21, 100) and (weights.reshape(21, 20, 5).std(2) == 0).all()
    (few,) = formats.load_readings(["weights"])
    fewer = inf.leave_one_out(few.personas)
    value = inf.estimate(partial(formats.kept, few, ALL), fewer).value
    found = inf.estimate(partial(formats.kept, reading, ALL), weights)
    assert found.value == pytest.approx(value)  # the frames of a persona agree here


def test_checkpoints_read_in_one_form_only_are_left_out_of_the_other(readings):
    frame = formats.load_checkpoints(readings)
    assert set(frame.loc[frame["checkpoint"] == "sft-4", "form"]) == {CHAT}
    assert set(frame.loc[frame["checkpoint"] == "dpo", "form"]) == {CHAT, COMPLETION}
    place = frame.drop_duplicates("checkpoint").set_index("checkpoint")["place"]
    assert place[["base", "sft", "dpo", "rlvr"]].tolist() == [0, 1, 2, 3] and 0 < place["sft-4"] < 1
    assert frame["common"].all() and drawn(figures.plot_checkpoints(frame))


def test_moves_and_forest_are_drawn_for_one_ladder_and_more(readings, numbers):
    frame = formats.load_moves(readings)
    mean = frame[frame["parent"] == MEAN]
    assert (
        len(mean) == len(SHOWN) * len(figures.PARTS)
        and mean["low"].notna().all()
        and len(frame) == len(mean) * 5
    )
    assert drawn(figures.plot_moves(frame))
    alone = formats.load_moves(readings[:1])
    assert alone["low"].isna().all()
    assert alone.set_index(["parent", "task", "part"])["value"][
        MEAN, "die", "form"
    ] == pytest.approx(0, abs=1e-6)
    assert drawn(figures.plot_moves(alone))
    forest = formats.load_forest(numbers)
    assert len(forest) == len(LADDERS) * 3 * 3
    assert drawn(figures.plot_forest(forest, 0.5))


def test_leftover_mass_is_reported_as_stored(readings):
    left = formats.load_left(readings)
    assert len(left) == 4 * 2 and left[["off", "off_most"]].to_numpy() == pytest.approx(0.1)


# --- contexts against wordings


def natural(mass: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """One checkpoint's rows on a task of three options, so much answered: contexts x wordings."""
    distributions = np.random.default_rng(seed).dirichlet(np.ones(3), mass.shape)
    rows = [
        {"persona": c, "template": f"cue-{w + 1}", "probability": distributions[c, w] * mass[c, w]}
        for c, w in np.ndindex(mass.shape)
    ]
    place = {"ladder": "toy", "checkpoint": "base", "form": "completion", "task": "coin"}
    return pd.DataFrame(rows).assign(residual=0.0, **place)


def test_distributions_are_conditional_on_an_option_and_in_order():
    rows = natural(np.full((4, 2), 0.4))
    found = formats.crossed(rows.sample(frac=1, random_state=1))
    assert found.shape == (4, 2, 3) and np.allclose(found.sum(-1), 1)
    assert np.allclose(found[2, 1], rows["probability"].iloc[5] / 0.4)


def test_a_context_counts_only_if_both_wordings_are_answered():
    mass = np.full((20, 2), 0.4)
    mass[3, 0] = mass[8] = 0.1
    found = formats.load_contexts(natural(mass)).iloc[0]
    assert (found["contexts"], found["prompts"], found["answered"]) == (18, 37, pytest.approx(0.4))
    assert found["context_low"] <= found["context"] <= found["context_high"]


@pytest.mark.parametrize("mass", [0.0, 0.1])
def test_a_task_that_is_not_answered_has_no_number(mass):
    found = formats.load_contexts(natural(np.full((20, 2), mass))).iloc[0]
    assert found["contexts"] == found["prompts"] == 0 and np.isnan(found["lead"])


def test_a_task_that_too_few_prompts_answer_has_no_number():
    mass = np.full((50, 2), 0.4)
    mass[24:] = 0.1
    found = formats.load_contexts(natural(mass)).iloc[0]
    assert (found["contexts"], found["prompts"]) == (24, 48) and np.isnan(found["lead"])
