"""The page list, parameters, freshness; runs that leave the old page or the new one."""

from __future__ import annotations

import copy
import errno
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from synthetic import PROVENANCE, crystallizing, rows, write_ladder

from crystal import files
from crystal.ask.ladders import load_ladder
from crystal.book import pages, runs
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.keep import store

PARAMETERS = """task: str = "digit"  # which random choice
ladders: list[str] = ["alpha"]  # read-outs shown
quantile: float = 0.9  # share of the seed's mass
many: bool = False  # all of it
"""
PART = 'part: str = "all"  # which\n'
BODY = """import pandas as pd
from matplotlib.figure import Figure
from crystal.measure import quantities
from crystal.present import show
show.begin("a", task=task, ladders=ladders, quantile=quantile, many=many)
frame = pd.DataFrame({"x": [0, 1], "y": [0, quantile]})
fig = Figure(); fig.subplots().plot(frame.x, frame.y)
show.emit(fig, "line", alt="A line that rises.", caption="A line.", data=frame)
said = f"it rises to {show.fmt(quantile)}"
show.claim("rises", ladder="alpha", task=task, verdict="holds", number=quantile, sentence=said)
"""
SPINE = {
    "root": {"id": "index", "template": "b", "title": "Index", "reads": ["data/training/*.json"]},
    "parts": [
        {
            "title": "Part",
            "chapters": [
                {"id": "a-coin", "template": "a", "title": "A: coin", "params": {"task": "coin"}},
                {
                    "file": "prose",
                    "pages": [
                        {
                            "id": "a-digit",
                            "template": "a",
                            "title": "A: digit",
                            "params": {"task": "digit"},
                        }
                    ],
                },
                {"id": "other", "template": "a", "title": "Other", "params": {"ladders": ["beta"]}},
            ],
        }
    ],
}
EVERY, OF_A, OF_ALPHA = (
    {"index", "a-coin", "a-digit", "other"},
    {"a-coin", "a-digit", "other"},
    {"a-coin", "a-digit"},
)


def template(path: Path, parameters: str, *code: str) -> None:
    cells = [
        {"cell_type": "markdown", "id": "cell-00", "metadata": {}, "source": "# Title\n\nText."}
    ]
    cells += [
        {
            "cell_type": "code",
            "id": f"cell-{i:02d}",
            "execution_count": None,
            "outputs": [],
            "source": text,
            "metadata": {"tags": ["parameters"]} if i == 1 else {},
        }
        for i, text in enumerate((parameters, *code), 1)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(
        json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
    )


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A repository of four pages, two templates, two ladders, and a copy of the package."""
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    for folder in ("book", "notebooks", "requirements", "data/training"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / pages.SPINE).write_text(yaml.safe_dump(SPINE))
    (tmp_path / pages.STYLE).write_text("font.size: 9\n")
    (tmp_path / pages.LOCK).write_text("numpy==1\n")
    (tmp_path / "data/training/log.json").write_text("{}")
    template(tmp_path / "notebooks/a.ipynb", PARAMETERS, BODY)
    template(
        tmp_path / "notebooks/b.ipynb",
        PART,
        'from crystal.present import show\nshow.begin("b", part=part)\nshow.prose("hello")',
    )
    for seed, ladder in enumerate(("alpha", "beta")):
        write_ladder(tmp_path, ladder, crystallizing(tasks=("coin",), seed=seed))
    shutil.copytree(
        files.PACKAGE, tmp_path / "crystal", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(runs, "PACKAGE", tmp_path / "crystal")
    return tmp_path


@pytest.fixture
def stamped(site, monkeypatch) -> Path:
    """The same, every page fresh without papermill having run."""
    with monkeypatch.context() as patch:
        patch.setattr(
            runs, "alone", lambda run, *task: run(*task)
        )  # here, so that the next line counts
        patch.setattr(
            runs, "_execute", lambda page, work, inputs: (work / "page.ipynb").write_text("{}")
        )
        for page in pages.page_list().values():
            runs.run(page)
    assert stale() == set()
    return site


def stale() -> set[str]:
    return {page.id for page in pages.page_list().values() if runs.why(page)}


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def more_readouts(ladder: str) -> None:
    checkpoint = load_ladder(ladder).checkpoint("base")
    fields = {
        "name": checkpoint.name,
        "stage": checkpoint.stage,
        "step": checkpoint.step,
        "source": checkpoint.source,
        "revision": checkpoint.revision,
    }
    store.append(
        ladder,
        rows(fields, "completion", crystallizing(tasks=("die",), seed=7)["base"]),
        PROVENANCE,
    )


def list_with(site: Path, id: str, **params) -> None:
    spine = yaml.safe_load((site / pages.SPINE).read_text())
    next(row for row in pages.rows(spine["parts"][0]["chapters"]) if row.get("id") == id)[
        "params"
    ] |= params
    (site / pages.SPINE).write_text(yaml.safe_dump(spine))


# -- freshness


@pytest.mark.parametrize(
    ("change", "hit", "reason"),
    [
        (
            lambda site: append(site / "notebooks/a.ipynb", "\n"),
            OF_A,
            "template notebooks/a.ipynb changed",
        ),
        (
            lambda site: list_with(site, "a-digit", quantile=0.8),
            {"a-digit"},
            "parameter quantile: 0.9 -> 0.8",
        ),
        (
            lambda site: append(site / "crystal/measure/quantities.py", "# x\n"),
            OF_A,
            "source crystal/measure/quantities.py changed",
        ),
        (
            lambda site: append(site / "crystal/present/show.py", "# x\n"),
            EVERY,
            "source crystal/present/show.py changed",
        ),
        (
            lambda site: append(site / "crystal/files.py", "# x\n"),
            EVERY,
            "source crystal/files.py changed",
        ),  # by show
        (
            lambda site: append(site / "crystal/measure/__init__.py", "# x\n"),
            OF_A,
            "source crystal/measure/__init__.py changed",
        ),
        (lambda site: append(site / "crystal/measure/claims.py", "# x\n"), set(), None),
        (lambda site: append(site / "crystal/cli.py", "# x\n"), set(), None),
        (lambda site: append(site / "crystal/book/binding.py", "# x\n"), set(), None),
        (lambda site: append(site / pages.STYLE, "# x\n"), EVERY, f"style {pages.STYLE} changed"),
        (
            lambda site: append(site / pages.LOCK, "pandas==2\n"),
            EVERY,
            f"lock {pages.LOCK} changed",
        ),
        (lambda site: more_readouts("alpha"), OF_ALPHA, "ladder alpha changed"),
        (lambda site: more_readouts("beta"), {"other"}, "ladder beta changed"),
        (
            lambda site: append(site / "data/ladders/alpha.yaml", "seed: first\n"),
            OF_ALPHA,
            "ladder alpha changed",
        ),
        (
            lambda site: append(site / "data/training/log.json", " "),
            {"index"},
            "file data/training/log.json changed",
        ),
        (
            lambda site: (site / "data/training/new.json").write_text("{}"),
            {"index"},
            "file data/training/new.json changed",
        ),
        (
            lambda site: (site / "_build/pages/other/page.ipynb").unlink(),
            {"other"},
            "output page.ipynb is missing or was changed",
        ),
        (
            lambda site: append(site / "_build/pages/other/page.ipynb", " "),
            {"other"},
            "output page.ipynb is missing or was changed",
        ),
        (
            lambda site: shutil.rmtree(site / "_build/pages/other"),
            {"other"},
            "it has not been run yet",
        ),
    ],
)
def test_a_change_makes_stale_what_depends_on_it(stamped, change, hit, reason):
    change(stamped)
    assert stale() == hit
    for id in hit:
        assert runs.why(pages.get(id)) == [reason]


def test_a_page_run_with_other_values_is_stale(stamped, monkeypatch):
    monkeypatch.setattr(
        runs, "alone", lambda run, *task: run(*task)
    )  # here, so that the next line counts
    monkeypatch.setattr(
        runs, "_execute", lambda page, work, inputs: (work / "page.ipynb").write_text("{}")
    )
    page = pages.get("a-digit")
    runs.run(page, {"quantile": 0.8})
    assert runs.why(page) == ["parameter quantile: 0.8 -> 0.9"] and stale() == {"a-digit"}
    runs.run(page)
    assert stale() == set()


def test_pages_no_longer_listed_are_removed(stamped):
    spine = yaml.safe_load((stamped / pages.SPINE).read_text())
    spine["parts"][0]["chapters"].pop()
    (stamped / pages.SPINE).write_text(yaml.safe_dump(spine))
    assert runs.run_all() == []
    assert not (stamped / "_build/pages/other").exists()


# -- runs, through papermill


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "stamp.json"}


def test_runs_are_byte_stable_and_only_stale_pages_run(site):
    ran = runs.run_all(2, say=lambda line: None)
    assert set(ran) == EVERY and stale() == set()
    page = pages.get("a-digit")
    first = contents(page.folder)
    assert set(first) == {
        "page.ipynb",
        "line.svg",
        "line.dark.svg",
        "line.csv",
        "line.json",
        "claims.json",
    }
    assert runs.run_all(say=lambda line: None) == []
    claim = json.loads(first["claims.json"])["rises@alpha"]
    assert (claim["verdict"], claim["number"], claim["task"]) == ("holds", 0.9, "digit")
    assert first["line.csv"] == b"x,y\n0,0\n1,0.9\n"
    assert page.folder.joinpath("stamp.json").exists() and not list(
        (site / "_build/running").iterdir()
    )

    runs.run(page, {"quantile": 0.8})
    assert contents(page.folder)["line.csv"] == b"x,y\n0,0\n1,0.8\n"
    assert b"Other parameters than in the book" in contents(page.folder)["page.ipynb"]
    assert json.loads(contents(page.folder)["claims.json"])["rises@alpha"]["number"] == 0.8
    assert runs.run_all(say=lambda line: None) == ["a-digit"]
    assert contents(page.folder) == first


def test_a_failed_run_leaves_the_old_page(site):
    page = pages.get("a-digit")
    runs.run(page)
    before = {path.name: path.read_bytes() for path in page.folder.iterdir()}
    template(site / "notebooks/a.ipynb", PARAMETERS, BODY, "raise ValueError('no such thing')")
    with pytest.raises(
        CrystalError,
        match=r"page a-digit failed in cell 3 of notebooks/a\.ipynb: ValueError: no such thing",
    ):
        runs.run(page)
    assert {path.name: path.read_bytes() for path in page.folder.iterdir()} == before
    assert not list((site / "_build/running").iterdir())
    assert "ValueError" in (site / "_build/failed/a-digit.ipynb").read_text()
    assert runs.why(page)
    with pytest.raises(CrystalError, match="page other failed"):
        runs.run(pages.get("other"))
    assert not pages.get("other").folder.exists()


def test_one_failing_page_does_not_stop_the_others(site):
    wet = "import crystal.errors\nraise crystal.errors.CrystalError('it is wet', hint='dry it')"
    template(site / "notebooks/b.ipynb", PART, wet)
    with pytest.raises(CrystalError, match="page index was not made: it is wet. Hint: dry it"):
        runs.run_all(say=lambda line: None)
    assert stale() == {"index"}


def test_a_full_disk_leaves_the_old_page(stamped, monkeypatch):
    page = pages.get("a-digit")
    before = (page.folder / "stamp.json").read_bytes()

    def full(page, work, inputs):
        (work / "page.ipynb").write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        runs, "alone", lambda run, *task: run(*task)
    )  # here, so that the next line counts
    monkeypatch.setattr(runs, "_execute", full)
    with pytest.raises(
        CrystalError, match="a-digit could not be written.*No space left.*Hint: free disk space"
    ):
        runs.run(page, {"quantile": 0.8})
    assert (page.folder / "stamp.json").read_bytes() == before and not runs.why(page)
    assert not list((stamped / "_build/running").iterdir())


# -- parameters and names


def test_parameters_are_read_without_running_the_notebook(site):
    declared = pages.parameters(site / "notebooks/a.ipynb")
    assert [(p.name, p.type, p.default, p.help) for p in declared.values()] == [
        ("task", "str", "digit", "which random choice"),
        ("ladders", "list[str]", ["alpha"], "read-outs shown"),
        ("quantile", "float", 0.9, "share of the seed's mass"),
        ("many", "bool", False, "all of it"),
    ]
    assert pages.parse(
        pages.get("a-coin"), ["quantile=1", "ladders=alpha,beta", "many=true", "task=die"]
    ) == {"quantile": 1.0, "ladders": ["alpha", "beta"], "many": True, "task": "die"}


@pytest.mark.parametrize(
    "text",
    [
        "quantile = 0.9  # no type",
        "quantile: float = 0.9",
        "quantile: float = 1 / 3  # derived",
        "import os",
        "quantile: float = 'x'  # of another type",
        "quantile: complex = 1  # not flat",
    ],
)
def test_a_parameters_cell_holds_only_typed_literals_with_help(site, text):
    template(site / "notebooks/a.ipynb", text, BODY)
    with pytest.raises(CrystalError):
        pages.parameters(site / "notebooks/a.ipynb")


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("quantil=0.8", r"unknown parameter of a-digit 'quantil', did you mean 'quantile'\?"),
        ("quantile=high", "parameter quantile wants float, got 'high'.*quantile=0.9"),
        ("many=perhaps", "parameter many wants bool, got 'perhaps'"),
        ("task=dgit", r"unknown task 'dgit', did you mean 'digit'\?"),
        ("ladders=alfa", r"unknown ladder 'alfa', did you mean 'alpha'\?"),
        ("quantile", "'quantile' is not of the form name=value"),
        ("quantile=0.8 quantile=0.7", "parameter quantile is given twice"),
        ("ladders=alpha,beta,alpha", "parameter ladders names 'alpha' twice"),
    ],
)
def test_bad_parameters_are_a_sentence(site, capsys, assignment, said):
    assert main(["page", "a-digit", *assignment.split()]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (site / "_build/pages").exists()


@pytest.mark.parametrize("more", [[], ["--why"]])
def test_an_unknown_page_is_a_sentence_and_exit_2(site, capsys, more):
    assert main(["page", "a-digits", *more]) == 2
    assert "unknown page 'a-digits', did you mean 'a-digit'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "a-coin", "template": "a", "title": "T"}, "listed twice"),
        ({"id": "x", "template": "none", "title": "T"}, "no template notebooks/none.ipynb"),
        (
            {"id": "x", "template": "a", "title": "T", "params": {"quantil": 1}},
            "unknown parameter of x 'quantil'",
        ),
        ({"id": "x", "template": "a", "title": "T", "params": {"quantile": "much"}}, "wants float"),
        ({"id": "x", "template": "a", "title": "T", "params": {"many": 1}}, "wants bool"),
        ({"id": "x", "template": "a"}, "lacks.*title"),
    ],
)
def test_a_bad_row_of_the_page_list_is_a_sentence(site, row, said):
    spine = yaml.safe_load((site / pages.SPINE).read_text())
    spine["parts"][0]["chapters"].append(row)
    (site / pages.SPINE).write_text(yaml.safe_dump(spine))
    with pytest.raises(CrystalError, match=said):
        pages.page_list()


def test_why_and_params_say_it_in_words(stamped, capsys):
    assert main(["page", "a-digit", "--why"]) == 0
    assert "a-digit is fresh" in capsys.readouterr().out
    list_with(stamped, "a-digit", quantile=0.7)
    assert main(["page", "a-digit", "--why"]) == 0
    assert capsys.readouterr().out == "a-digit: parameter quantile: 0.9 -> 0.7\n"
    assert main(["page"]) == 0
    assert "quantile: float = 0.9\n      share of the seed's mass" in capsys.readouterr().out


# -- lists and templates, damaged in any byte or of any other type

REPOSITORY = Path(__file__).parent.parent
ODD = (
    None,
    7,
    -1.5,
    True,
    "",
    "x",
    "../x",
    "a\0b",
    [],
    {},
    ["x"],
    {"id": 3},
    [[]],
    {"x": {"y": []}},
    "2026-01-01",
)


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """The book's list and templates, to be damaged."""
    root = tmp_path_factory.mktemp("house")
    for folder in ("book", "notebooks", "requirements", "data/ladders"):
        shutil.copytree(
            REPOSITORY / folder,
            root / folder,
            ignore=shutil.ignore_patterns("_*", "*.md", "own.yml"),
        )
    return root


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One byte flipped, set, put in or taken out, or the end cut off."""
    place = rng.randrange(len(content))
    head, byte, tail = content[:place], content[place], content[place + 1 :]
    return rng.choice(
        [
            head + bytes([byte ^ 1 << rng.randrange(8)]) + tail,
            head + bytes([rng.randrange(256)]) + tail,
            head + tail,
            head + bytes([rng.randrange(256), byte]) + tail,
            head,
        ]
    )


def swapped(value: object, rng: random.Random) -> object:
    """The same with one node, at any depth, replaced by something odd."""
    nodes: list[tuple[object, object]] = []

    def walk(node: object) -> None:
        for key, inner in list(
            node.items()
            if isinstance(node, dict)
            else enumerate(node)
            if isinstance(node, list)
            else ()
        ):
            nodes.append((node, key))
            walk(inner)

    walk(value := copy.deepcopy(value))
    node, key = rng.choice(nodes)
    node[key] = rng.choice(ODD)
    return value


def reads_or_says(file: str, read: Callable[[], object]) -> None:
    """It is read, or a sentence names the file."""
    try:
        read()
    except CrystalError as error:
        assert error.hint and "Traceback" not in str(error)
        assert file in str(error) or error.where or "page" in str(error), str(error)


@pytest.mark.parametrize("file", ["book/pages.yml", "book/own.yml"])
def test_any_damage_to_a_page_list_is_a_sentence(house, monkeypatch, file):
    """Seed 3; 25 damaged files and 25 with a node of another type."""
    monkeypatch.setenv("CRYSTAL_ROOT", str(house))
    rng, path = random.Random(3), house / file
    row = {
        "id": "mine",
        "template": "phases",
        "title": "Mine",
        "params": {"data": "x.csv", "only": ["a"]},
        "reads": ["data/*"],
    }
    whole = path.read_bytes() if path.exists() else yaml.safe_dump([row]).encode()
    listed = yaml.safe_load(whole)
    for _ in range(25):
        for content in (damaged(whole, rng), yaml.safe_dump(swapped(listed, rng)).encode()):
            path.write_bytes(content)
            reads_or_says(path.name, pages.page_list)
    path.write_bytes(whole)
    reads_or_says(path.name, pages.page_list)
    path.unlink() if file.endswith("own.yml") else None


def test_any_damage_to_a_template_is_a_sentence(house, monkeypatch):
    """Seed 4; 40 damaged notebooks, each of one page."""
    monkeypatch.setenv("CRYSTAL_ROOT", str(house))
    rng, of = random.Random(4), {page.notebook: page for page in pages.page_list().values()}
    for path in rng.choices(sorted((house / "notebooks").glob("*.ipynb")), k=40):
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, rng))
        reads_or_says(path.name, lambda page=of[path]: pages.values(page))
        reads_or_says(path.name, lambda page=of[path]: runs.imported(page.notebook))
        path.write_bytes(whole)
