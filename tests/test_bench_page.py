"""The page on cost: bars that can fail, and a template that runs on the recorded benchmark."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from crystal.ask.ladders import hub_names
from crystal.book import pages
from crystal.errors import CrystalError
from crystal.present import bench, show
from crystal.present import training_figures as costs

REPOSITORY = Path(__file__).parent.parent
TASKS = ("hundred", "month", "rank")


def row(contestant: str, seconds: float, prompts: int = 10, **more) -> dict:
    return {
        "model": "nano-olmo2",
        "checkpoint": "base",
        "form": "completion",
        "contestant": contestant,
        "prompts": prompts,
        "seconds": seconds,
        "low": 0.9 * seconds,
        "high": 1.1 * seconds,
        "runs": 5,
        "tokens": 100,
        **more,
    }


def parts(
    gain: float, harness: float | None, million: float, open_gain: float
) -> dict[str, list[dict]]:
    """Part -> rows of a run in which the read-out takes one second for ten prompts."""

    def own(task):
        return [row(bench.READ, 1.0, task=task), row(bench.QUICK, 0.5, task=task)]

    def theirs(task):
        return [] if harness is None else [row(bench.HARNESS, harness, task=task)]

    return {
        "generate": [
            r
            for task in TASKS
            for r in (
                *own(task),
                row(bench.SAMPLES, gain * bench.FASTER[task] / 5, 2, task=task),
                row("tree sampler, 1e3 draws", 1.0, task=task),
                row("tree sampler, 1e6 draws", million, task=task),
            )
        ],
        "peers": [r for task in TASKS for r in (*own(task), *theirs(task))],
        "open": [
            row("tree sampler", 1.0, task="word"),
            row("generate", open_gain, task="word"),
            row("generate, prompt once", open_gain / 2, task="word"),
        ],
    }


def judged(monkeypatch: pytest.MonkeyPatch, **how) -> dict:
    made = parts(**how)
    monkeypatch.setattr(bench, "whole", lambda part: {"rows": made[part]})
    return {bar.claim: bar for bar in bench.bars().itertuples()}


def test_bars_that_are_cleared_hold(monkeypatch):
    bars = judged(monkeypatch, gain=1.01, harness=1.2, million=3.4, open_gain=11.0)
    assert len(bars) == 3 * 2 + 2 * 2 + 3 + 1 and all(bar.holds for bar in bars.values())
    rank = bars["samples-rank-fine"]
    assert rank.number == pytest.approx(
        1.01 * 350
    )  # a prompt's time, though ten were read and two were sampled
    assert rank.low == pytest.approx(rank.number * 0.9 / 1.1) and rank.high == pytest.approx(
        rank.number * 1.1 / 0.9
    )
    assert bars["samples-rank-coarse"].number == pytest.approx(2 * rank.number)


def test_bars_that_are_missed_fail(monkeypatch):
    bars = judged(monkeypatch, gain=0.99, harness=0.9, million=3.6, open_gain=9.0)
    failed = {name for name, bar in bars.items() if not bar.holds}
    assert failed == {
        "samples-hundred-fine",
        "samples-month-fine",
        "samples-rank-fine",
        "harness-none-slower-fine",
        "harness-most-faster-fine",
        "million-hundred",
        "million-month",
        "million-rank",
        "open-word",
    }
    assert bars["harness-none-slower-fine"].number == pytest.approx(0.9)
    assert bars["harness-none-slower-coarse"].number == pytest.approx(1.8)


def test_the_table_has_a_row_a_bar_and_a_column_a_checkpoint(monkeypatch):
    made = parts(gain=1.01, harness=1.2, million=3.6, open_gain=11.0)
    made["generate"] += [
        r | {"checkpoint": "rlvr", "seconds": r["seconds"] / 2}
        if r["contestant"] == bench.SAMPLES
        else r | {"checkpoint": "rlvr"}
        for r in made["generate"]
    ]
    monkeypatch.setattr(bench, "whole", lambda part: {"rows": made[part]})
    found = bench.bars()
    head, rule, *rows = bench.bars_table(found).splitlines()
    assert (
        head == "| measured | threshold | nano-olmo2/base | nano-olmo2/rlvr |"
        and len(rows) == 3 * 2 + 2 + 2 + 3 + 1
    )
    assert {row.count("|") for row in rows} == {5} and sum(
        "not measured" in row for row in rows
    ) == 2 + 2 + 1
    rank = next(row for row in rows if "÷ read-out at 0.0001, card rank" in row)
    assert (
        "| ≥\u00a0350 | **holds** 354 (in tokens 5.00) | **fails** 177 (in tokens 5.00) |" in rank
    )
    assert "| ≤\u00a03.5 | **fails** 3.60" in next(
        row for row in rows if "a million draws ÷ a thousand" in row
    )
    assert bench.tally(found) == "11 of 14 hold on nano-olmo2/base, 3 of 9 hold on nano-olmo2/rlvr"


def test_without_the_harness_nothing_is_claimed_of_it(monkeypatch):
    bars = judged(monkeypatch, gain=1.01, harness=None, million=3.4, open_gain=11.0)
    assert not [name for name in bars if name.startswith("harness")]
    assert not len(bench.against_harness())


def test_a_checkpoint_that_was_not_measured_is_named():
    with pytest.raises(
        CrystalError,
        match="unknown checkpoint of the benchmark 'nano-olmo2/bass', .*mean 'nano-olmo2/base'",
    ):
        bench.of(bench.load("peers"), "nano-olmo2/bass")


def test_a_part_that_was_not_measured_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    with pytest.raises(CrystalError, match="git checkout -- data/bench"):
        bench.load("peers")


def told_by(template: str, folder: Path, patch: pytest.MonkeyPatch) -> tuple[str, dict]:
    """Everything the template tells, and the claims it records."""
    told: list[str] = []
    patch.chdir(folder)
    patch.setattr(show, "_display", lambda myst, html: told.append(myst))
    space: dict = {}
    for cell in json.loads(
        (REPOSITORY / "notebooks" / f"{template}.ipynb").read_text(encoding="utf-8")
    )["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), space)
    claims = folder / "_build" / "interactive" / template / "claims.json"
    return "\n".join(text for text in told if "Source of" not in text), json.loads(
        claims.read_text(encoding="utf-8")
    )


@pytest.fixture
def recorded(tmp_path, monkeypatch) -> Path:
    """A copy of what the page reads."""
    for name in ("data/bench", "data/ladders"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    (tmp_path / "book").mkdir()
    shutil.copy(REPOSITORY / pages.STYLE, tmp_path / pages.STYLE)
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    return tmp_path


def test_the_page_runs_on_the_recorded_benchmark(recorded, monkeypatch):
    told, claims = told_by("bench", recorded, monkeypatch)
    assert told.count("```{figure}") == 2 and not re.search(r"\bnan\b", told)
    for task in TASKS:
        for checkpoint in ("base", "rlvr"):
            assert (
                claims[f"samples-{task}-fine-{checkpoint}@nano-olmo2"]["threshold"]
                == bench.FASTER[task]
            )


def test_the_page_runs_without_the_harness(recorded, monkeypatch):
    for path in (recorded / "data" / "bench").glob("*.json"):
        file = json.loads(path.read_text())
        file["rows"] = [
            r | ({"difference": None} if "difference" in r and path.stem == "scores" else {})
            for r in file["rows"]
            if r.get("contestant") != bench.HARNESS
        ]
        file["left_out"]["lm-eval"] = "not installed, left out"
        path.write_text(json.dumps(file))
    told, claims = told_by("bench", recorded, monkeypatch)
    assert "`lm-eval`: not installed, left out." in told
    assert not [name for name in claims if name.startswith("harness")]


def test_vllm_is_held_against_the_read_out(recorded, monkeypatch):
    path = recorded / "data" / "bench" / "vllm.json"
    rows = []
    for task, gain in (("month", 30.0), ("rank", 90.0)):
        rows += [row(bench.READ, 1.0, task=task), row(bench.SAMPLES, 9.0, 3, task=task)]
        rows.append(row(bench.VLLM, 0.3 * gain, 3, task=task, version="1"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rows": rows}))
    assert bench.vllm_gain() == pytest.approx((30.0, 90.0))
    told, claims = told_by("bench", recorded, monkeypatch)
    assert claims["vllm@both"]["high"] == pytest.approx(90.0)
    assert "samples of vLLM 1 take 30.0 to 90.0 times as long" in told


# -- the whole grid, and what a ladder costs


def test_the_recorded_grid_is_whole():
    whole = costs.whole_grid()
    assert list(whole["cells"]) == [4 * 2 * 15 * 100] * 2
    assert (whole["residual_largest"] <= 1e-4).all()
    assert (whole["prompt_tokens"] < whole["tokens"]).all()


def test_a_ladders_cost_is_its_cells_times_what_was_measured(monkeypatch):
    made = [{"cells": 100, "tokens": 8000}, {"cells": 100, "tokens": 12000}]
    monkeypatch.setattr(bench, "whole", lambda part: {"rows": made})
    found = costs.load_reading()
    assert len(found) == len(hub_names())
    row = found.set_index("ladder").loc["Tülu 3 8B"]
    assert row["cells"] == 15 * 100 * (1 + 2 * 3)  # the base in raw text only
    assert row["gigabytes"] == 16
    for end, tokens in (("low", 80), ("high", 120)):
        assert row[f"tokens_{end}"] == tokens * row["cells"]
        assert row[f"operations_{end}"] == pytest.approx(2 * 8e9 * tokens * row["cells"])
    line = "Tülu 3 8B | 4 | 10,500 | 8.00 | 16.0 (bfloat16) | 0.840 to 1.26 | 13.4 to 20.2 |"
    assert line in costs.reading_table(found)
