"""Open and large tasks: numbers against known distributions, figures against their frames."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from crystal.ask.cells import Decoding
from crystal.ask.ladders import STAGES
from crystal.ask.prompts import PROBE
from crystal.ask.tasks import TASKS
from crystal.book import pages, runs
from crystal.keep import drawn, store
from crystal.keep.drawn import DRAWN, TASKS_DRAWN, TRUTH
from crystal.measure import inference as inf
from crystal.measure import quantities
from crystal.present import open_tasks, show, views

REPOSITORY = Path(__file__).parent.parent
WORDS = tuple(f"zz{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(200))
SHARED = {
    "base": 0.2,
    "sft": 0.9,
    "dpo": 0.95,
    "rlvr": 0.99,
}  # how much of every persona's distribution is the same


def distributions(checkpoint: str, size: int, seed: int) -> np.ndarray:
    """(20, size): part shared, part a persona's own."""
    rng = np.random.default_rng(seed)
    own, common = rng.dirichlet(np.full(size, 0.2), size=20), rng.dirichlet(np.full(size, 0.2))
    return SHARED[checkpoint] * common + (1 - SHARED[checkpoint]) * own


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two ladders, draws of known distributions; 200 words for open tasks, 1-1000 with its exact
    distribution.
    """
    root = tmp_path_factory.mktemp("open")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTAL_ROOT", str(root))
        for seed, ladder in enumerate(("alpha", "beta")):
            synthetic.write_ladder(
                root,
                ladder,
                synthetic.crystallizing(("coin", "digit", "hundred"), STAGES, seed=seed),
            )
            rng = np.random.default_rng(seed)
            for checkpoint in STAGES:
                rows = [
                    row
                    for task in TASKS_DRAWN
                    for row in drawn_rows(ladder, checkpoint, task, rng, seed)
                ]
                drawn.append(ladder, rows, synthetic.PROVENANCE)
        yield root


def drawn_rows(
    ladder: str, checkpoint: str, task: str, rng: np.random.Generator, seed: int
) -> list[store.Row]:
    options = TASKS[task].options or WORDS
    table, form = (
        distributions(checkpoint, len(options), seed),
        "completion" if checkpoint == "base" else "chat",
    )
    source = {
        "source": f"data/weights/{ladder}/{checkpoint}",
        "revision": hashlib.sha256(f"{ladder}/{checkpoint}".encode()).hexdigest(),
    }
    rows = []
    for prompt, distribution in zip(PROBE, table, strict=True):
        cell = dataclasses.replace(
            synthetic.cell(source, form, prompt, TASKS[task]), decoding=DRAWN
        )
        counts = rng.multinomial(DRAWN.n, distribution)
        texts = {f" {options[k]}, sure.\n": int(counts[k]) for k in np.flatnonzero(counts)}
        rows.append(store.Row(cell, form, prompt.id, texts))
        if task == "thousand":
            rows.append(
                store.Row(
                    dataclasses.replace(cell, decoding=TRUTH),
                    form,
                    prompt.id,
                    {},
                    distribution.tolist(),
                )
            )
    return rows


@pytest.fixture
def draws(site, monkeypatch) -> pd.DataFrame:
    monkeypatch.setenv("CRYSTAL_ROOT", str(site))
    return pd.concat([drawn.load_draws(name) for name in ("alpha", "beta")], ignore_index=True)


@pytest.fixture
def truth(draws) -> pd.DataFrame:
    both = [
        drawn.load_draws(name, tasks=["thousand"], decoding=TRUTH) for name in ("alpha", "beta")
    ]
    return pd.concat(both, ignore_index=True)


def one(frame: pd.DataFrame, **place: str) -> pd.Series:
    return open_tasks.where(frame, **place).squeeze()


def test_numbers_are_those_of_the_distributions(draws):
    numbers = open_tasks.load_numbers(draws)
    assert len(numbers) == 2 * 5 * 4 * len(open_tasks.QUANTITIES)
    assert (numbers["low"] <= numbers["value"] + 1e-9).all() and (
        numbers["value"] <= numbers["high"] + 1e-9
    ).all()
    for checkpoint in STAGES:
        table = distributions(checkpoint, 200, seed=1)
        row = one(
            numbers, ladder="beta", task="word", checkpoint=checkpoint, quantity="liquidity, bits"
        )
        exact = inf.estimate(partial(quantities.liquidity_bits, table), open_tasks.EACH)
        assert row["value"] == pytest.approx(exact.value, abs=0.01)
        floor = one(
            numbers, ladder="beta", task="word", checkpoint=checkpoint, quantity=open_tasks.FLOOR
        )
        assert abs(floor["value"]) < 0.01
        agreed = one(
            numbers, ladder="beta", task="word", checkpoint=checkpoint, quantity="agreement"
        )["value"]
        between = (table @ table.T)[~np.eye(20, dtype=bool)].mean()
        assert agreed == pytest.approx(between / (table**2).sum(1).mean(), abs=0.01)


def test_moves_have_the_sign_of_what_was_built_in(draws):
    moves = open_tasks.load_moves(draws)
    assert (moves.loc[moves["quantity"] == "agreement", "low"] > 0).all()
    assert (moves.loc[moves["quantity"] == "liquidity, bits", "high"] < 0).all()


def test_draws_meet_the_exact_distributions_beside_them(draws, truth):
    check = open_tasks.load_check(draws, truth)
    assert len(check) == 2 * 4 * 3
    assert (check["exact"] - check["draws"]).abs().max() < 0.02
    told = open_tasks.check_table(check)
    assert told.count("\n") == 1 + 2 * 4 and "entropy, bits, exact | entropy, bits, draws" in told


def test_thinning_keeps_shares_and_evens_out():
    counts = np.array([[500, 300, 0], [90, 0, 10]])
    thin = open_tasks.thinned(counts, np.random.default_rng(0))
    assert (
        thin.sum(1).tolist() == [100, 100]
        and (thin <= counts).all()
        and thin[1].tolist() == [90, 0, 10]
    )


def test_numbers_in_words():
    said = open_tasks.quantity("liquidity, bits", 0.5, 0.25, 0.75)
    assert said == "liquidity 0.50 [0.25, 0.75] bit"
    assert open_tasks.quantity("agreement", 0.5) == "agreement 0.500"
    frame = pd.DataFrame(
        {
            "ladder": "a",
            "task": ["x", "x"],
            "quantity": ["m", "n"],
            "value": [1.0, 2.0],
            "low": [1.0, 1.5],
            "high": [1.0, 2.5],
        }
    )
    assert open_tasks.table(frame).splitlines()[-1] == "| x | 1.00 | 2.0 [1.5, 2.5] |"
    several = pd.concat([frame, frame.assign(ladder="b", value=3.0)])
    assert open_tasks.table(several).splitlines()[-2:] == [
        "| a | x | 1.00 | 2.0 [1.5, 2.5] |",
        "| b | x | 3.00 | 3.0 [1.5, 2.5] |",
    ]


def test_a_measured_number_becomes_a_claim(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYSTAL_ROOT", str(REPOSITORY))
    show.begin("open")
    row = pd.Series({"ladder": "a", "task": "city", "value": 1.0, "low": 0.5, "high": 1.5})
    assert open_tasks.measured("rises", "it rises", row) == "- it rises"
    claim = show._current.claims["rises@a"]
    assert (claim["number"], claim["low"], claim["task"], claim["verdict"]) == (
        1.0,
        0.5,
        "city",
        "measured",
    )


# -- figures


def test_every_figure_draws_its_frame(draws, truth):
    readouts = views.read_ladders(["alpha", "beta"], checkpoints=["base"])
    frames = {
        "ranks": open_tasks.load_ranks(draws),
        "supports": open_tasks.load_supports(readouts, truth),
        "agreement": open_tasks.load_numbers(draws),
    }
    for name, frame in frames.items():
        assert not frame.isna().any().any(), name
        fig = getattr(open_tasks, f"plot_{name}")(frame)
        fig.canvas.draw()
        assert any(ax.get_title() or ax.get_title(loc="left") for ax in fig.axes), name


def test_ranks_add_up(draws):
    shares = open_tasks.load_ranks(draws).groupby(["ladder", "task", "checkpoint"])["share"]
    np.testing.assert_allclose(shares.sum(), 1)
    assert shares.apply(lambda share: share.is_monotonic_decreasing).all()


def test_mse_falls_with_the_list_and_the_others_do_not(draws, truth):
    """Flat distributions over K options, half alike: MSE falls like 1/K squared, other distances
    stay.
    """
    rows = []
    for task, k in (("coin", 2), ("digit", 10), ("hundred", 100)):
        p = np.full(k, 1 / k)
        q = np.where(np.arange(k) < k // 2, 2 / k, 0)
        rows += [
            {"task": task, "options": k, "distance": name, "value": float(distance(p, q))}
            for name, distance in open_tasks.DISTANCES.items()
        ]
    frame = pd.DataFrame(rows)
    assert open_tasks.slope(frame, "MSE") == pytest.approx(-2)
    for name in ("total variation", "Jensen-Shannon, bits", "1 - overlap"):
        assert open_tasks.slope(frame, name) == pytest.approx(0, abs=1e-9)


# -- freshness


def test_pages_that_read_draws_go_stale_with_them(monkeypatch):
    monkeypatch.setenv("CRYSTAL_ROOT", str(REPOSITORY))
    reading = [
        page
        for page in pages.page_list().values()
        if "drawn" in {path.stem for path in runs.imported(page.notebook)}
    ]
    assert "open" in {page.id for page in reading}
    assert all("data/draws/*/manifest.jsonl" in page.reads for page in reading)


def test_the_digest_of_a_page_sees_new_draws(site, monkeypatch):
    monkeypatch.setenv("CRYSTAL_ROOT", str(site))
    page = pages.Page(id="x", template="x", title="X", reads=("data/draws/*/manifest.jsonl",))
    (before,) = [sorted(pages.root().glob(glob)) for glob in page.reads]
    digests = [pages.sha(path) for path in before]
    checkpoint = {
        "source": "data/weights/alpha/sft",
        "revision": hashlib.sha256(b"alpha/sft").hexdigest(),
    }
    cell = dataclasses.replace(
        synthetic.cell(checkpoint, "chat", PROBE[0], TASKS["word"]),
        decoding=Decoding(kind="draws", n=2, max_tokens=12, seed=9),
    )
    drawn.append("alpha", [store.Row(cell, "chat", PROBE[0].id, {"a": 2})], synthetic.PROVENANCE)
    assert [pages.sha(path) for path in before] != digests
    assert len(drawn.load_draws("alpha")) == 400  # the draws of another seed are no part of it
