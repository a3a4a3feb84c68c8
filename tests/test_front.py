"""The first page: what it draws, and the verdicts that it quotes."""

from __future__ import annotations

import numpy as np
import pytest

from crystal.ask.prompts import PROMPTS
from crystal.measure import chain
from crystal.present import show, views
from crystal.studies import phase_figures, phase_words

LIQUID = np.random.default_rng(0).dirichlet(np.ones(10), len(PROMPTS))
CRYSTAL = np.tile(LIQUID.mean(0), (len(PROMPTS), 1))


@pytest.fixture
def frame():
    stages = {"base": LIQUID, "sft": CRYSTAL}
    return phase_figures.load_models({"a model": views.of_tables(stages)}, "digit")


def test_a_crystal_has_no_bits_and_its_base_has(frame):
    bits = frame.groupby("stage")["bits"].first()
    assert bits["base"] > 0.3
    assert bits["sft"] == pytest.approx(0, abs=1e-9)


def test_rows_of_one_answer_stand_together(frame):
    base = frame[frame["stage"] == "base"]
    likeliest = base[[str(n) for n in range(10)]].to_numpy().argmax(1)
    assert (np.diff(likeliest) >= 0).all()
    assert list(base["prompt"]) == list(frame[frame["stage"] == "sft"]["prompt"])


def test_a_stage_that_was_not_read_is_said(frame):
    figure = phase_figures.plot_models(frame)
    said = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert said == ["not read"]
    assert len(figure.axes) == len(phase_figures.FRONT) + 1  # and the colour scale


def test_every_claim_has_a_row_and_every_series_a_cell():
    lines = phase_words.matrix(["nano-llama", "nano-olmo2"]).splitlines()
    claims = [claim for names in chain.CLAIMS.values() for claim in names]
    assert len(lines) == 2 + len(claims)
    for line, claim in zip(lines[2:], claims, strict=True):
        assert line.count(f"real-base/{claim}-") == 1
        assert line.count(f"/all-{claim}@") == line.count(f"/runs-{claim}@") == 2


def test_a_number_and_its_interval_share_their_decimals():
    assert show.between(0.5512, 0.2984, 1.0021) == "0.55 [0.30, 1.00]"
    assert show.between(-0.0004, -0.12, 0.12) == "0.00 [-0.12, 0.12]"
    assert show.between(np.nan, np.nan, np.nan) == "–"
