"""Phase pages and overview on ladders of the hub: four checkpoints, no truth known, no checkpoints
on the way, no second training run.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import synthetic
import templates
import yaml

from crystal.ask.tasks import PHASE_TASKS
from crystal.book import binding, pages, runs
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.present import views

REPOSITORY = Path(__file__).parent.parent
FOUR = ("base", "sft", "dpo", "rlvr")
QUICK = {"ladders": ["alpha"]}
SPINE = {
    "root": {"id": "index", "template": "idea", "title": "Index", "params": QUICK},
    "parts": [
        {
            "title": "Part",
            "chapters": [
                {"file": "reading"},
                {"file": "quantities"},
                {"file": "past"},  # what the pages refer to
                {
                    "id": "nucleation-digit",
                    "template": "nucleation",
                    "title": "Nucleation",
                    "params": QUICK | {"task": "digit"},
                },
                {
                    "id": "overview",
                    "template": "overview",
                    "title": "Overview",
                    "params": QUICK | {"parents": ["alpha", "alpha-2"]},
                },
                {"id": "tasks", "template": "tasks", "title": "Tasks"},
                {"file": "bibliography"},
            ],
        }
    ],
}
PROSE = {
    "reading": "# Reading\n\nWhat was found. {claim}`overview/many-distributions@alpha.sentence`. "
    "Of others {claim}`overview/many-distributions@nobody.sentence?`.\n",
    "past": "# Past\n",
    "quantities": "# Quantities\n\n(liquidity)=\n(seed)=\n(probmass)=\n## All\n",
    "bibliography": None,
}
SHOWN = {"index", "nucleation-digit", "overview"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A book of few pages, on an organism; two ladders of the hub beside it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(REPOSITORY / "book", folder / "book", ignore=shutil.ignore_patterns("*.md"))
    for name in ("notebooks", "requirements"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / pages.SPINE).write_text(yaml.safe_dump(SPINE))
    for name, text in PROSE.items():
        (folder / f"book/{name}.md").write_text(
            text or (REPOSITORY / f"book/{name}.md").read_text()
        )
    for seed, name in enumerate(("alpha", "alpha-2")):
        distributions = synthetic.crystallizing(
            PHASE_TASKS, checkpoints=("base", "sft-1", "sft", "dpo", "rlvr"), seed=seed
        )
        synthetic.write_ladder(folder, name, distributions, seed="salient", demonstrated=["digit"])
    for seed, name in enumerate(("tulip", "elm"), 2):
        distributions = synthetic.crystallizing(PHASE_TASKS, checkpoints=FOUR, seed=seed)
        others = {
            checkpoint: {"digit": distributions[checkpoint]["digit"]} for checkpoint in FOUR[1:]
        }  # a base of the hub is read as raw text only
        synthetic.write_ladder(folder, name, distributions, other=others, hub=True, invalid=0.1)
    mute = {
        ("base", "digit"): 30,
        ("sft", "digit"): 10,
        ("rlvr", "digit"): 40,
        ("base", "coin"): 51,
        ("dpo", "die"): 100,
    }
    synthetic.write_ladder(folder, "mute", distributions, hub=True, invalid=mute)
    dumb = {(checkpoint, task): 100 for checkpoint in FOUR for task in PHASE_TASKS}
    synthetic.write_ladder(folder, "dumb", distributions, hub=True, invalid=dumb)
    few = {
        checkpoint: {
            task: distribution
            for task, distribution in distributions[checkpoint].items()
            if task != "month"
        }
        for checkpoint in FOUR
    }
    synthetic.write_ladder(folder, "few", few, hub=True)
    synthetic.write_ladder(folder, "unread", {checkpoint: {} for checkpoint in FOUR}, hub=True)
    synthetic.write_ladder(folder, "loose", {checkpoint: {} for checkpoint in FOUR}, hub=True)
    loose = folder / "data/ladders/hub/loose.yaml"
    loose.write_text(re.sub("revision: .*", 'revision: ""', loose.read_text()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTAL_ROOT", str(folder))
        yield folder


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("tulip,elf", "unknown ladder 'elf', did you mean 'elm'"),
        ("unread", "no read-outs of unread.*make resample LADDER=unread"),
        (
            "few",
            "400 of the 6000 read-outs that the pages need are missing.*make resample LADDER=few",
        ),
        ("loose", "not pinned.*crystal fetch loose"),
        ("elm,elm", "one named twice"),
    ],
)
def test_a_ladder_that_cannot_be_shown_is_a_sentence_before_anything_runs(
    site, capsys, names: str, said: str
):
    assert main(["reproduce", "--ladders", names]) == 2
    assert re.search(said, capsys.readouterr().err) and not (site / "_build/pages").exists()


def test_an_experiment_is_no_ladder(site):
    described = site / "data/ladders/grown.yaml"
    raw = yaml.safe_load((site / "data/ladders/alpha.yaml").read_text()) | {
        "name": "grown",
        "kind": "branches",
    }
    described.write_text(yaml.safe_dump(raw))
    with pytest.raises(CrystalError, match="grown is an experiment.*choose from: .*tulip"):
        views.check_read(["grown"])
    described.unlink()


def test_pages_on_ladders_of_the_hub_and_back(site, capsys):
    assert main(["reproduce"]) == 0
    assert (
        re.search(r"holds on\s+\d+ of 15", reading := text_of(site, "reading"))
        and "not in this run" not in reading
    )
    assert re.search("Of others +– *\\.", reading)
    before = (pages.get("nucleation-digit").folder / "page.ipynb").read_bytes()
    capsys.readouterr()

    assert main(["reproduce", "--ladders", "tulip,elm"]) == 0
    assert f"{len(SHOWN)} pages executed" in capsys.readouterr().out
    for id in SHOWN:
        page = pages.get(id)
        stamp = json.loads((page.folder / "stamp.json").read_text())
        assert stamp["fingerprint"]["parameters"]["ladders"] == ["tulip", "elm"]
        assert "Other parameters than in the book" in (page.folder / "page.ipynb").read_text()
    claims = json.loads((pages.get("overview").folder / "claims.json").read_text())
    assert {
        "many-distributions@tulip",
        "many-distributions@elm",
        "little-promoted@elm",
    } <= claims.keys()
    assert not [key for key in claims if "alpha" in key or key.startswith("runs-")]
    nucleation = json.loads((pages.get("nucleation-digit").folder / "claims.json").read_text())
    assert {"collapse@tulip", "one-seed@tulip", "unmixed@elm"} <= nucleation.keys()
    assert "(not in this run, with ladders=tulip,elm" in text_of(site, "reading")
    chips = (site / "_build/html/index.html").read_text().count('class="chip"')
    assert chips >= 2 * 5  # two ladders, a claim a row
    assert (
        main(["reproduce", "--ladders", "tulip,elm"]) == 0
        and "0 pages executed" in capsys.readouterr().out
    )

    stale = {
        page.id: runs.why(page) for page in pages.page_list().values() if runs.why(page)
    }  # without LADDERS
    assert stale.keys() == SHOWN and all(
        "parameter ladders: ['tulip', 'elm'] -> ['alpha']" in why for why in stale.values()
    )
    runs.run(page := pages.get("nucleation-digit"))
    quoted = json.loads(source(site, f"claims/{page.id}.json"))
    assert (page.folder / "page.ipynb").read_bytes() == before and not quoted["elsewhere"]


PHASES = ("liquid", "nucleation", "settling")
FEW = dict.fromkeys(PHASES, {"permutations": 99})
FEW |= {"overview": {"permutations": 99, "parents": []}, "idea": {}}


def made(name: str, folder: Path, patch: pytest.MonkeyPatch, *ladders: str, **how):
    """The template on these ladders, with few permutations, in no kernel."""
    return templates.run(name, folder, patch, ladders=list(ladders), **FEW[name], **how)


def judged(claims: dict) -> list[str]:
    return [claim["verdict"] for claim in claims.values() if claim["verdict"] != "measured"]


def test_one_ladder_alone(site, tmp_path, monkeypatch):
    """Panels of one row."""
    page = made("nucleation", tmp_path, monkeypatch, "elm")
    assert {key.partition("@")[2] for key in page.claims} == {"elm"}


@pytest.mark.parametrize("name", [*PHASES, "idea", "overview"])
def test_pages_say_first_what_was_answered(site, tmp_path, monkeypatch, name):
    """And leave out what was not."""
    page = made(name, tmp_path, monkeypatch, "mute")
    told, found = page.told, page.claims
    judgement = {"idea": "{claim}", "overview": "holds"}.get(name, "verdict-chips")
    assert told.index("prompts answered") < told.index(judgement)
    if name == "overview":
        assert ", not measurable on 1" in found["many-distributions@mute"]["sentence"]
        said = "base: 1419 of 1500 prompts answered, 1 tasks not measurable"
        assert found["answered-base@mute"]["sentence"] == said
    else:
        said = found["answered-base@mute"]["sentence"]
        assert said.startswith("base: 70 of 100 prompts answered")
    assert "not-measurable" not in judged(found)


@pytest.mark.parametrize("name", [*PHASES, "idea"])
def test_a_page_stops_where_nothing_can_be_measured(site, tmp_path, monkeypatch, name):
    page = made(name, tmp_path, monkeypatch, "dumb", stops=True)
    assert "not measurable" in page.told and "not measurable" in page.ended
    assert set(judged(page.claims)) == {"not-measurable"} and not list(page.folder.glob("*.svg"))


def test_a_page_that_stopped_ends_in_a_sentence(site):
    page = pages.get("index")
    assert runs.run(page, pages.on_ladders(page, ["dumb"])) > 0
    told = (page.folder / "page.ipynb").read_text()
    assert "Nothing is shown below" in told and not list(page.folder.glob("*.svg"))
    claims = json.loads((page.folder / "claims.json").read_text())
    assert set(judged(claims)) == {"not-measurable"}


def test_a_ladder_that_cannot_be_measured_leaves_the_other(site, tmp_path, monkeypatch):
    found = made("nucleation", tmp_path, monkeypatch, "dumb", "elm").claims
    assert found["collapse@dumb"]["verdict"] == "not-measurable" != found["collapse@elm"]["verdict"]


def test_an_overview_without_a_measurable_task_is_made(site, tmp_path, monkeypatch):
    page = made("overview", tmp_path, monkeypatch, "dumb")
    assert "not measurable on 15" in page.claims["collapse@dumb"]["sentence"]


def test_other_templates_keep_their_ladders(site):
    assert (
        pages.on_ladders(pages.get("tasks"), ["elm"]) == {}
        and pages.on_ladders(pages.get("overview"), []) == {}
    )
    there = (REPOSITORY / f"notebooks/{name}.ipynb" for name in pages.ON_ANY_LADDER)
    assert all(path.is_file() for path in there)


def source(site: Path, name: str) -> str:
    return (binding.assemble() / name).read_text()


def text_of(site: Path, name: str) -> str:
    return re.sub(r"<[^>]+>|\s+", " ", (site / f"_build/html/{name}.html").read_text())
