"""The pages on remelting and on format, on what is known, whole and with a single parent."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import synthetic_remelting as made
import templates

from crystal.book import pages
from crystal.book import runs as book_runs
from crystal.keep import store
from crystal.studies import formats, remelting, runs

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A repository with the real templates and the made-up parents."""
    where = tmp_path_factory.mktemp("root")
    for folder in ("notebooks", "requirements"):
        shutil.copytree(REPOSITORY / folder, where / folder)
    (where / "book").mkdir()
    for name in (pages.SPINE, pages.STYLE):
        shutil.copy(REPOSITORY / name, where / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTAL_ROOT", str(where))
        for module in (runs, remelting, formats):
            patch.setattr(module, "PHASE_TASKS", made.SHOWN)
        made.write(where)
        yield where


def test_importing_the_chapters_loads_nothing_heavy():
    code = (
        "import sys; from crystal.studies import formats, kinetics, remelting, runs;"
        "from crystal.studies import experiment_figures, figures;"
        "print([m for m in ('torch', 'transformers', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_remelting_tells_the_ways_apart(root, tmp_path, monkeypatch):
    told, claims, *_ = templates.run("remelting", tmp_path, monkeypatch, ladders=list(made.PARENTS))
    assert claims["remelts@back-to-pretraining"]["verdict"] == "holds"
    assert claims["regained@back-to-pretraining"]["number"] == pytest.approx(1)
    assert claims["remelts@temperature-3"]["verdict"] == "fails"
    assert claims["kept@temperature-3"]["number"] is None and claims["kept@raw-text"][
        "number"
    ] == pytest.approx(0.5)
    assert (
        claims["remelts@reward-for-diversity"]["verdict"] == "undecided"
        and "the only base read" in told
    )
    assert "neither more nor less liquid" in claims["hysteresis-all-tasks"]["sentence"]
    assert told.count("```{figure}") == 5 and not re.search(r"\bnan\b", told)


def test_remelting_with_one_parent_says_that_it_has_one(root, tmp_path, monkeypatch):
    told, claims, *_ = templates.run("remelting", tmp_path, monkeypatch, ladders=["tiny-2"])
    assert {claim["verdict"] for claim in claims.values()} == {"measured", "undecided"}
    assert "Not recorded yet: reward for diversity." in told and "one base cannot tell" in told
    assert not re.search(r"\bnan\b", told)


@pytest.mark.parametrize("ladders", [list(made.PARENTS), ["other"]])
def test_format_has_intervals_over_parents_where_it_can(root, tmp_path, monkeypatch, ladders):
    told, claims, *_ = templates.run("format", tmp_path, monkeypatch, ladders=ladders)
    assert claims[f"raw-text-stays-liquid@{ladders[0]}"]["verdict"] == "holds"
    over = claims["raw-text-stays-liquid@over-parents"]
    assert (
        over["verdict"] == ("holds" if len(ladders) > 1 else "undecided")
        and f"{len(ladders)} base" in told
    )
    assert told.count("```{figure}") == 3 and not re.search(r"\bnan\b", told)


def test_the_page_watches_experiment_parents_and_records(root):
    page = pages.get("remelting")
    chosen = {"ladders": list(made.PARENTS)}
    before = book_runs.fingerprint(page, chosen)
    assert before["ladders"].keys() == {"remelting", *made.PARENTS}
    assert {"data/training/remelting.json", "data/experiments/remelting.yaml"} <= before[
        "files"
    ].keys()
    records = root / "data" / "training" / "remelting.json"
    text = records.read_text()
    records.write_text(text + " ")
    assert book_runs.fingerprint(page, chosen)["files"] != before["files"]
    records.write_text(text)
    assert book_runs.fingerprint(page, chosen) == before
    assert book_runs.fingerprint(pages.get("format"), chosen)["ladders"].keys() == set(made.PARENTS)
    assert store.manifest_digest("remelting") == before["ladders"]["remelting"]
