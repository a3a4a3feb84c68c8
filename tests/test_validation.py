"""The simulation itself: ladders are what they are said to be, trials can be made again, what is kept is of today's claims."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from crystal.errors import CrystalError
from crystal.measure import evidence as ev
from crystal.measure import phases as ph
from crystal.measure import readings, simulation, synthetic, validation
from crystal.measure.marks import MARKS
from crystal.measure.synthetic import SCENARIOS, Design
from crystal.present import validation_figures

SMALL = Design(6, 12, 2)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("options", [2, 10])
def test_scenarios_are_what_their_names_say(scenario, options):
    stages = synthetic.population(scenario, options)
    for laws in stages.values():
        assert laws.shape == (synthetic.POPULATION, 5, options)
        assert laws.sum(-1) == pytest.approx(1) and (laws >= 0).all()
    whole = synthetic.whole(stages)
    kept = float(ph.compression(whole["sft"].law, whole["base"].law))
    if scenario in ("liquid kept", "sharpened"):
        assert kept > 0.9
    else:
        assert kept < 0.5
    nearest = ph.distances(whole["base"].law, whole["sft"].law.mean(0)).min() * options
    if scenario == "frozen onto a base law":
        assert nearest < 0.01
    if scenario == "frozen onto a law the base lacks" and options == 10:
        assert nearest > 0.05
    back = float(ph.compression(whole["final"].law, whole["base"].law))
    assert (back > 0.9) == (scenario in ("re-melted", "liquid kept", "sharpened"))


def test_a_sample_is_of_whole_units_the_same_at_every_stage_and_drawn_as_asked():
    stages = synthetic.population("frozen with leak", 6, frames=2)
    read = synthetic.sample(stages, SMALL, np.random.default_rng(1))
    assert all(len(found.law) == 24 and found.exact for found in read.values())
    assert (np.bincount(read["base"].units) == 2).all() and read["base"].half[0] == ev.SELECTION
    drawn = synthetic.sample(stages, dataclasses.replace(SMALL, draws=50), np.random.default_rng(1))
    assert drawn["base"].law * 50 == pytest.approx(np.round(drawn["base"].law * 50))
    assert (drawn["base truth"].law == read["base"].law).all()


def test_a_trial_is_the_same_whatever_their_number():
    stages = synthetic.population("frozen onto a base law", 6, frames=2)
    two, one = (simulation.trials(stages, SMALL, n, permutations=19) for n in (2, 1))
    for claim in simulation.JUDGED:
        assert two[claim][0] == one[claim][0] or np.isnan(two[claim][0][0].estimate.value)


@pytest.mark.parametrize("claim", simulation.JUDGED)
def test_ladders_at_the_mark_are_there(claim):
    for trial in range(3):
        made = simulation.at_mark(claim, Design(10, 12, 2), 0, trial)
        if made:
            stages, found = made
            truth = simulation.TRUE[claim](synthetic.whole(stages), found, trial)
            assert truth == pytest.approx(MARKS[claim].mark, rel=simulation.NEAR)
            break
    else:
        pytest.fail("none of three trials reached the mark")


def test_counts_of_trials_add_up():
    pairs = simulation.trials(synthetic.population("liquid kept", 6, frames=2), SMALL, 6, permutations=19)["collapse"]
    counts = simulation.summarised(pairs)
    assert counts["n"] == 6 == counts["interval"] and counts["covered"] + counts["below"] + counts["above"] == 6
    assert counts["not_true"] == 6 and counts["not_false"] == 0 and counts["false_fails"] == 0
    assert simulation.summarised([])["n"] == 0


def test_half_the_noise_goes_by_hand():
    """At its mark a verdict is wrong either way, and one wrong verdict is counted as such."""
    found = simulation.row("mark", "little-promoted", SMALL, 16, permutations=19)
    assert len(found) == 1 and found[0]["n"] <= 16
    assert found[0]["not_true"] == found[0]["not_false"] == found[0]["n"]
    assert found[0]["false_holds"] == found[0]["holds"] and found[0]["false_fails"] == found[0]["fails"]


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_rows_are_made_once_and_again_when_the_claims_change(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    monkeypatch.setattr(validation, "plan", lambda: [("scenario", "sharpened", SMALL, 8), ("mark", "collapse", SMALL, 8)])
    with pytest.raises(CrystalError, match="nothing was simulated yet"):
        validation.load_trials()
    assert validation.validate(1, lambda line: None) == 2
    assert validation.validate(1, lambda line: None) == 0
    frame = validation.load_trials()
    assert len(frame) == 7 and frame["current"].all() and (frame["draws"] == np.inf).all()
    path = tmp_path / validation.FILE
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | ({"source": "other"} if row["kind"] == "mark" else {})) + "\n" for row in rows))
    assert not validation.load_trials()["current"].all()
    assert validation.validate(1, lambda line: None) == 1
    assert validation.load_trials()["current"].all()


def test_the_source_is_code_and_marks_without_words(monkeypatch):
    before = validation.source_sha256()
    monkeypatch.setitem(MARKS, "collapse", dataclasses.replace(MARKS["collapse"], why="another reason"))
    assert validation.source_sha256() == before
    monkeypatch.setitem(MARKS, "collapse", dataclasses.replace(MARKS["collapse"], mark=0.4))
    assert validation.source_sha256() != before


def test_the_shipped_trials_are_of_todays_claims_and_whole():
    frame = validation.load_trials()
    assert frame["current"].all(), "the claims changed after they were tried: make validate"
    have = set(frame[["kind", "name", "options", "units", "frames", "draws"]].itertuples(index=False, name=None))
    wanted = {(kind, name, d.options, d.units, d.frames, d.draws) for kind, name, d, _ in validation.plan()}
    assert wanted <= have


def test_shipped_rates_are_found_again_by_fresh_trials():
    """Sixteen fresh trials of one shipped row: the power of collapse on a frozen ladder.

    False alarm: at least 12 of 16 hold if 95 % do: 0.9998; none may hold on a ladder that stayed liquid.
    """
    design = Design(10, 20)
    frozen = simulation.row("scenario", "frozen onto a base law", design, 16, permutations=99)
    assert next(row for row in frozen if row["claim"] == "collapse")["holds"] >= 12
    liquid = simulation.row("scenario", "liquid kept", design, 16, permutations=99)
    assert next(row for row in liquid if row["claim"] == "collapse")["holds"] == 0
    trials = validation.load_trials()
    kept = validation_figures.ours(trials, "scenario").set_index(["name", "options", "claim"])["power"]
    assert kept["frozen onto a base law", 10, "collapse"] > 0.9 and kept["liquid kept", 10, "collapse"] < 0.01


# --- readings and figures --------------------------------------------------------------------------------------------


def test_readings_by_hand():
    base, sft = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    found = readings.of_laws(base, sft, np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert all(found["compression", name] == 0 for name in (*readings.DISTANCES, readings.INFORMATION))
    assert found["seed", "MSE"] == found["seed", "TV"] == found["seed", "JSD"] == 0
    assert found["stage", "MSE"] == pytest.approx(4) and found["stage", "TV"] == pytest.approx(2)


def test_figures_draw_what_is_shipped(tmp_path):
    trials = validation.load_trials()
    power = validation_figures.load_power(trials)
    for number, fig in enumerate((
            validation_figures.plot_coverage(validation_figures.load_coverage(trials)),
            validation_figures.plot_alarms(validation_figures.load_alarms(trials)),
            validation_figures.plot_smallest(validation_figures.smallest(power)),
            validation_figures.plot_readings(readings.load_readings((2,), tries=1)))):
        fig.savefig(tmp_path / f"{number}.svg")
    fewest = validation_figures.smallest(power).set_index(["claim", "options", "draws"])["prompts"]
    assert fewest["little-promoted", 10, np.inf] <= 20
