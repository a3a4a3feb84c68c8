"""Claims over training runs: the run is the unit."""

from __future__ import annotations

import numpy as np
import pytest

from crystal.measure.chain import POOLED
from crystal.measure.claims import Verdict
from crystal.measure.inference import Estimate
from crystal.studies import figures, judged
from crystal.texts import plain


def verdict(number: float, said: str, claim: str = "collapse") -> Verdict:
    estimate = Estimate(number, number - 0.1, number + 0.1)
    return Verdict(claim, said, "so", estimate, None, None, 1.0, 1.0)


def runs(*found: tuple[float, str], name: str = "nano-llama") -> dict:
    """Runs of one family, each with a verdict over all tasks and one on a task."""
    return {
        f"{name}{'' if not n else f'-{n + 1}'}": {
            "coin": [verdict(*each)],
            POOLED: [verdict(*each)],
        }
        for n, each in enumerate(found)
    }


def test_a_family_says_in_how_many_of_its_runs_a_claim_holds():
    frame = judged.load_runs(runs((0.1, "holds"), (0.3, "holds"), (0.9, "fails")))
    (row,) = judged.load_families(frame).itertuples()
    assert judged.formatted(row) == "holds in 2 of 3 training runs, fails in 1"
    assert row.number == pytest.approx(1.3 / 3) and row.low < row.number < row.high
    table = judged.table(judged.load_families(frame), frame).splitlines()
    assert "holds, holds, fails" in table[2] and table[2].endswith("| 1 of 1, 1 of 1, 0 of 1 |")
    assert figures.plot_runs(frame)


def test_a_run_without_a_number_is_said_and_drawn():
    frame = judged.load_runs(runs((0.1, "holds"), (np.nan, "not-reached")))
    (row,) = judged.load_families(frame).itertuples()
    assert judged.formatted(row) == "holds in 1 of 2 training runs, not reached in 1"
    assert row.number == pytest.approx(0.1) and np.isnan(row.low)
    assert "(1 of 2)" in judged.table(judged.load_families(frame), frame)
    assert figures.plot_runs(frame)


def test_settling_is_read_where_there_is_a_seed(monkeypatch):
    """Shipped runs: of one that has no seed it is said that it is not in the numbers."""
    parents = ["nano-llama", "nano-olmo2"]
    monkeypatch.setattr(judged, "has_seed", lambda parent, quantile: parent == parents[0])
    frame = judged.load_settled(parents)
    assert set(frame["parent"]) == {"nano-llama"}
    assert "nano-olmo2: not in these numbers" in plain(judged.answered_text(frame, parents))


def test_families_are_apart():
    frame = judged.load_runs(runs((0.1, "holds")) | runs((0.9, "fails"), name="nano-olmo2"))
    assert [row.family for row in judged.load_families(frame).itertuples()] == [
        "nano-llama",
        "nano-olmo2",
    ]
