"""Remelting: methods whose effect is known are told apart; nothing is said of few parents."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import synthetic_remelting as made
from synthetic_branches import drawn

from crystal.ask.prompts import CHAT, COMPLETION
from crystal.errors import CrystalError
from crystal.measure import quantities
from crystal.present import show
from crystal.studies import experiment_figures, kinetics, remelting, runs
from crystal.studies.runs import ALL, APART, DEMONSTRATED, HELD_OUT

BACK, FLAT, REWARD = "back to pretraining", "SFT on uniform answers", "reward for diversity"


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory):
    where = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTAL_ROOT", str(where))
        for module in (runs, remelting):
            patch.setattr(module, "PHASE_TASKS", made.SHOWN)
        made.write(where)
        yield where


@pytest.fixture(scope="module")
def methods(root):
    return remelting.load_methods("remelting", made.PARENTS)


@pytest.fixture(scope="module")
def shares(methods):
    return remelting.load_kept("remelting", remelting.load_shares(methods))


@pytest.fixture(scope="module")
def ends(shares):
    return remelting.at_end(shares)


def test_every_recorded_method_is_measured_and_no_run_being_read(methods):
    assert set(methods["method"]) == {
        *remelting.REFERENCES,
        *(method.name for method in remelting.METHODS),
    }
    of_run = methods[methods["method"] == REWARD]
    assert set(of_run["parent"]) == {
        "tiny"
    }  # `tiny-2` never had that run, that of `other` is not recorded
    assert methods.groupby(["parent", "start", "method", "step", "task"]).size().max() == 1
    assert set(methods.loc[~methods["held_out"], "task"]) == set(made.DEMONSTRATED)
    assert methods["method"].eq("temperature 3").sum() == 2 * 3 * 3  # of crystal and base
    hottest = methods["method"].eq("temperature 3")
    left = methods[["invalid", "residual"]].to_numpy()
    assert left[hottest] == pytest.approx(np.tile([made.OFF, made.LEFT], (18, 1))) and left[
        ~hottest
    ] == pytest.approx(0)


def test_a_method_that_gives_back_the_base_regains_all_of_it(ends):
    for group in (*APART, ALL):
        assert remelting.pick(ends, BACK, "regained", group).to_numpy() == pytest.approx(
            np.ones(3), abs=1e-6
        )
        assert remelting.pick(ends, BACK, "distance", group).to_numpy() == pytest.approx(
            np.zeros(3), abs=1e-6
        )


def test_what_only_flattens_gains_entropy_and_no_liquidity(ends, methods):
    crystal = methods[methods["method"] == "crystal"].groupby("parent")["entropy"].mean()
    gained = {way: remelting.pick(ends, way, "entropy") - crystal for way in set(ends["method"])}
    assert np.abs(remelting.pick(ends, FLAT, "regained")).max() < 0.02
    assert gained[FLAT].min() > 0.2 and gained["temperature 3"].min() > 0.2
    assert gained["temperature 0.5"].max() < -0.2


def test_regained_and_distance_are_ratios_of_means_over_tasks(ends):
    distribution, crystal = (
        {task: made.toward("tiny", task, weight) for task in made.SHOWN}
        for weight in (0, made.CRYSTAL)
    )

    def liquid(distributions):
        return np.mean([quantities.liquidity_bits(distributions[task]) for task in made.SHOWN])

    def far(distributions):
        return np.mean(
            [
                quantities.jsd_bits(distributions[task], distribution[task]).mean()
                for task in made.SHOWN
            ]
        )

    half = {task: made.hot(crystal[task], 1.5) for task in made.SHOWN}
    found = (liquid(half) - liquid(crystal)) / (liquid(distribution) - liquid(crystal))
    assert remelting.pick(ends, "temperature 1.5", "regained")["tiny"] == pytest.approx(
        found, abs=1e-5
    )
    assert remelting.pick(ends, "temperature 1.5", "distance")["tiny"] == pytest.approx(
        far(half) / far(crystal), rel=1e-5
    )


def test_raw_text_is_compared_with_the_base_in_either_form(ends):
    against = {
        form: remelting.pick(ends, "raw text", "distance", against=form)
        for form in (CHAT, COMPLETION)
    }
    assert against[COMPLETION].to_numpy() == pytest.approx(np.zeros(3), abs=1e-6)
    assert against[CHAT].min() > 0.02
    regained = remelting.pick(ends, "raw text", "regained", against=COMPLETION)
    assert regained.to_numpy() == pytest.approx(np.ones(3), abs=1e-6)
    assert remelting.pick(ends, "raw text", "regained").max() < 0.9


def test_facts_are_relative_to_the_crystal(ends):
    def kept(name):
        return remelting.pick(ends, name, "kept").to_numpy()

    assert (
        kept(BACK) == pytest.approx(0.5)
        and kept(FLAT) == pytest.approx(1.0)
        and kept("raw text") == pytest.approx(0.5)
    )
    for name in ("temperature 3", "temperature 0.5", "asked to choose at random"):
        assert np.isnan(kept(name)).all()


def test_the_verdicts_show_base_crystal_and_another_liquid_apart(methods, ends):
    found = remelting.judge(ends)
    read = {name: [v.verdict for v in pair] for name, pair in found.items()}
    assert read[BACK] == ["holds"] and read[FLAT] == ["fails"]
    assert "(3 bases)" in found[BACK][0].sentence()


def test_one_parent_is_undecided_with_the_reason(ends):
    for verdict in remelting.judge(ends)[REWARD]:
        assert verdict.verdict == "undecided" and "the only base read" in verdict.sentence()
        assert verdict.fields()["number"] is None


@pytest.mark.parametrize(
    ("values", "text"),
    [([0.5, 0.5], "0.500"), ([0.5], "0.500"), ([], "–"), ([0.5, np.nan], "0.500")],
)
def test_numbers_over_parents_say_what_they_can(values, text):
    assert runs.formatted(pd.Series(values, dtype=float)) == text


def test_intervals_keep_within_what_a_quantity_can_be():
    few = pd.Series([0.1, 0.9])
    assert (
        runs.estimate(few.rename("probmass")).high == 1
        and runs.estimate(few.rename("distance")).low == 0
    )
    assert runs.estimate(few.rename("regained")).low < 0


def test_nothing_recorded_is_a_sentence(root):
    with pytest.raises(
        CrystalError, match="nothing is recorded for other-2.*Hint: make ladder LADDER=remelting"
    ):
        remelting.load_methods("remelting", ["other-2"])


def test_bases_of_one_family_are_a_yardstick(root):
    bases = remelting.load_bases(made.PARENTS)
    assert set(bases["parent"]) == {"tiny, tiny-2"} and set(bases["group"]) == {*APART, ALL}
    assert bases["to_base"].between(0, 0.01).all()
    assert remelting.load_bases(["tiny", "other"]).empty


# --- hysteresis


def test_a_way_back_along_the_way_down_has_no_gap(root):
    paths = kinetics.load_paths("remelting", made.PARENTS)
    down = paths[
        (paths["parent"] == "tiny") & (paths["group"] == HELD_OUT) & (paths["way"] == kinetics.DOWN)
    ]
    assert down["label"].tolist() == ["base", "sft-1", "sft-4", "sft", "dpo", "rlvr"]
    back = paths[
        (paths["parent"] == "tiny") & (paths["group"] == HELD_OUT) & (paths["way"] == kinetics.BACK)
    ]
    assert back["step"].tolist() == [0, 2, 16, 256]
    gaps = kinetics.load_gaps(paths)
    assert len(gaps) == 3 * 3 and gaps["shared"].to_numpy() == pytest.approx(1)
    assert (
        np.abs(gaps["gap"]).max() < 0.04
    )  # both ways are straight between other points of one curve
    assert drawn(experiment_figures.plot_hysteresis(kinetics.load_mean(paths)))
    one_way = paths[(paths["parent"] != "other") | (paths["way"] == kinetics.DOWN)]
    assert set(kinetics.load_mean(one_way)["parent"]) == {runs.MEAN, "tiny", "tiny-2"}


def test_a_gap_is_liquidity_at_equal_distance():
    def way(name, distance, liquidity):
        return pd.DataFrame(
            {
                "parent": "p",
                "group": ALL,
                "way": name,
                "to_distribution": distance,
                "liquidity": liquidity,
            }
        )

    down = way("down", [1.0, 0.0], [1.0, 0.0])

    def gap(back):
        return kinetics.load_gaps(pd.concat([down, back])).iloc[0]

    assert gap(way("back", [0.0, 0.0, 0.5], [0.0, 0.2, 0.7]))["shared"] == pytest.approx(0.5)
    assert gap(way("back", [0.1, 0.5], [0.3, 0.7]))[
        ["down", "back", "gap"]
    ].tolist() == pytest.approx([0.3, 0.5, 0.2])
    assert np.isnan(gap(way("back", [1.5, 2.0], [0.0, 0.1]))["gap"])


# --- figures and tables


def test_figures_draw_what_was_measured(methods, shares, ends):
    frame = experiment_figures.load_overview(ends, methods)
    mean = frame[frame["parent"] == runs.MEAN]
    row = mean[(mean["method"] == BACK) & (mean["group"] == DEMONSTRATED)].set_index("quantity")
    assert row["value"]["regained"] == pytest.approx(1)
    assert row["value"]["entropy"] == pytest.approx(row["base"]["entropy"], abs=1e-5)
    assert drawn(experiment_figures.plot_overview(frame))
    goals = experiment_figures.load_goals(ends)
    back = goals[
        (goals["method"] == BACK) & (goals["group"] == HELD_OUT) & (goals["parent"] == "tiny")
    ]
    back = back.set_index("goal")["value"]
    assert (
        back["base's mean answer"] == pytest.approx(0, abs=1e-6)
        and back.idxmin() == "base's mean answer"
    )
    assert drawn(experiment_figures.plot_goals(goals))
    heat = experiment_figures.load_temperatures(methods)
    assert set(heat["temperature"]) == {0.5, 0.7, 1.0, 1.5, 2.0, 3.0} and set(heat["start"]) == {
        "base",
        "rlvr",
    }
    hottest = heat[(heat["quantity"] == "invalid") & (heat["temperature"] == 3)]
    assert hottest["value"].to_numpy() == pytest.approx(made.OFF)
    assert drawn(experiment_figures.plot_temperatures(heat))
    steps = experiment_figures.load_steps(shares)
    assert steps.loc[steps["method"] == BACK, "step"].unique().tolist() == [0, 2, 16, 256]
    assert drawn(experiment_figures.plot_steps(steps))


def test_tables_have_every_method_once_and_raw_text_twice(methods, ends):
    judged, others = (
        t.splitlines() for t in remelting.tables(ends, methods, remelting.judge(ends)).split("\n\n")
    )
    assert (
        len(judged) == 2 + len(remelting.METHODS) + 1
        and len(others) == 2 + len(remelting.METHODS) + 3
    )
    assert all(len({line.count("|") for line in table}) == 1 for table in (judged, others))
    assert sum(line.startswith("| raw text, against") for line in judged) == 2
    assert sum(line.startswith("| raw text ") for line in others) == 1
    assert len(remelting.by_parent(ends, methods).splitlines()) == 2 + 3 + 2 * len(
        remelting.METHODS
    )
    assert len(remelting.asked(methods).splitlines()) == 2 + 7


def test_tables_count_the_bases_that_have_a_number(methods, ends):
    """One base whose answers lack a task: neither counted nor meant, in either table."""
    name, lost = "temperature 2", methods["parent"].iloc[0]
    mine = (methods["method"] == name) & (methods["parent"] == lost)
    gone = methods.copy()
    gone.loc[gone.index[mine][0], ["liquidity", "entropy"]] = np.nan
    short = ends.copy()
    short.loc[(ends["method"] == name) & (ends["parent"] == lost), "distance"] = np.nan
    judged = remelting.tables(short, gone, remelting.judge(short)).split("\n\n")[0]
    (row,) = (line for line in judged.splitlines() if line.startswith(f"| {name} |"))
    assert row.split("|")[2].strip() == str(len(made.PARENTS) - 1)
    (row,) = (line for line in remelting.asked(gone).splitlines() if line.startswith(f"| {name}"))
    others = methods[(methods["method"] == name) & (methods["parent"] != lost)]
    start = methods.loc[methods.index[mine][0], "start"]
    kept = others[others["start"] == start].groupby("parent")["liquidity"].mean().mean()
    assert show.fmt(kept) in row


def test_what_is_not_frozen_is_left_out_and_named(root, monkeypatch):
    assert remelting.liquid("remelting", made.PARENTS) == []
    monkeypatch.setattr(remelting, "frozen", lambda ladder: ladder != "tiny-2")
    assert remelting.liquid("remelting", made.PARENTS) == ["tiny-2"]
    assert {checkpoint.parent for checkpoint in remelting.recorded("remelting", made.PARENTS)} == {
        "tiny",
        "other",
    }


def test_frozen_is_at_most_half_of_the_liquidity_of_the_base(root, monkeypatch):
    assert all(map(remelting.frozen, made.PARENTS))
    monkeypatch.setattr(remelting, "CRYSTAL", "sft-1")  # a third of the way
    assert not any(map(remelting.frozen, made.PARENTS))
