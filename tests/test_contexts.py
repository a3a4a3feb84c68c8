"""The table of liquidity between contexts and wordings: who counts, and from how many on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crystal.studies import contexts


def frame(mass: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """One checkpoint's rows on a task of three options, so much answered: contexts x wordings."""
    laws = np.random.default_rng(seed).dirichlet(np.ones(3), mass.shape)
    rows = [{"narrator": c, "frame": f"cue-{w + 1}", "probability": laws[c, w] * mass[c, w]}
            for c, w in np.ndindex(mass.shape)]
    place = {"ladder": "toy", "rung": "base", "form": "completion", "task": "coin"}
    return pd.DataFrame(rows).assign(unresolved=0.0, **place)


def test_laws_are_conditional_on_an_option_and_in_order():
    rows = frame(np.full((4, 2), 0.4))
    found = contexts.crossed(rows.sample(frac=1, random_state=1))
    assert found.shape == (4, 2, 3) and np.allclose(found.sum(-1), 1)
    assert np.allclose(found[2, 1], rows["probability"].iloc[5] / 0.4)


def test_a_context_counts_only_if_both_wordings_are_answered():
    mass = np.full((20, 2), 0.4)
    mass[3, 0] = mass[8] = 0.1
    found = contexts.table(frame(mass)).iloc[0]
    assert (found["contexts"], found["prompts"], found["answered"]) == (18, 37, pytest.approx(0.4))
    assert found["context_low"] <= found["context"] <= found["context_high"]


@pytest.mark.parametrize("mass", [0.0, 0.1])
def test_a_task_that_is_not_answered_has_no_number(mass):
    found = contexts.table(frame(np.full((20, 2), mass))).iloc[0]
    assert found["contexts"] == found["prompts"] == 0 and np.isnan(found["lead"])


def test_a_task_that_too_few_prompts_answer_has_no_number():
    mass = np.full((50, 2), 0.4)
    mass[24:] = 0.1
    found = contexts.table(frame(mass)).iloc[0]
    assert (found["contexts"], found["prompts"]) == (24, 48) and np.isnan(found["lead"])
