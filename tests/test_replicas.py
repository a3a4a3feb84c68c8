"""Claims over training runs: intervals that cover both kinds of chance, and agreement that counts decisions only."""

from __future__ import annotations

import numpy as np
import pytest

from crystal.measure.inference import Estimate, exactly
from crystal.measure.judging import Verdict
from crystal.studies import replicas


def verdict(number: float, said: str = "undecided", error: float = 0.0, scale: str = "linear") -> Verdict:
    centre = np.log(number) if scale == "log" else number
    estimate = Estimate(number, number, number, centre, error, 1e6, scale) if error else exactly(number)
    return Verdict("collapse", said, "so", estimate, None, None, 1.0, 1.0)


def one(*numbers: float, **how) -> dict:
    """The row of a family whose runs have one task and these numbers."""
    found = {f"nano-llama{'' if not n else f'-{n + 1}'}": {"coin": [verdict(number, **how)]} for n, number in enumerate(numbers)}
    return replicas.load_families(found).iloc[0].to_dict()


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_both_kinds_of_chance_are_wider_than_either(scale):
    row = one(0.1, 0.5, 0.6, error=0.1, scale=scale)
    assert row["both_low"] < row["run_low"] < row["prompt_low"] < row["prompt_high"] < row["run_high"] < row["both_high"]
    assert (row["run_low"] > 0) == (scale == "log")


def test_an_interval_over_runs_and_narrators_covers():
    """Run effects and one narrator error that all runs share, each of standard deviation 1: 200 trials of three runs.

    At 95 % coverage, fewer than 87 % has probability 1e-5.
    """
    rng, covered = np.random.default_rng(5), 0
    for _ in range(200):
        row = one(*(10 + rng.normal() + rng.normal(size=3)), error=1.0)
        covered += row["both_low"] <= 10 <= row["both_high"]
    assert covered >= 174


def test_what_nobody_decides_is_no_agreement():
    said = {"coin": "undecided", "die": "holds", "suit": "holds", "rank": "undecided"}
    found = {"nano-llama": {task: [verdict(0.1, v)] for task, v in said.items()},
             "nano-llama-2": {task: [verdict(0.1, v)] for task, v in (said | {"suit": "undecided"}).items()}}
    row, = replicas.load_families(found).itertuples()
    assert (row.decided, row.agree, row.holds) == (2, 0.5, [2, 1]) and replicas.anew(row) == "1 of 4"
    table = replicas.table(replicas.load_families(found), replicas.load_replicas(found), str)
    assert table.splitlines()[2].endswith("| 2 of 4, 1 of 4 | 50 % of 2 |")
    alone, = replicas.load_families({"nano-llama": {"coin": [verdict(0.1)]}}).itertuples()
    assert alone.decided == 0 and np.isnan([alone.agree, alone.both_low]).all() and replicas.anew(alone) == "\u2013"
