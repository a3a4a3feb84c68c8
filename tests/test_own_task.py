"""A task of one's own: a file, put to checkpoints by `crystal ask`, judged as any table."""

from __future__ import annotations

import pandas as pd
import pytest

from crystal.ask.prompts import CONTEXTS, load_prompts, load_task, natural
from crystal.ask.tasks import TASKS, names_option
from crystal.cli import main
from crystal.errors import CrystalError

COMPASS = """
options: [north, east, south, west]
aliases: {N: north}
cues:
- The wind came from the
- We lost our way and walked
"""


@pytest.fixture
def compass(tmp_path):
    path = tmp_path / "compass.yaml"
    path.write_text(COMPASS)
    return path


def test_a_task_of_ones_own_is_a_file(compass):
    task, cues = load_task(str(compass))
    assert (task.name, task.options) == ("compass", ("north", "east", "south", "west"))
    assert task.spellings["n"] == "north" and "compass" not in TASKS
    prompts = natural(task, cues)
    assert len(prompts) == 2 * CONTEXTS and {p.reply(task) for p in prompts} == {*cues}
    assert [p.cluster for p in prompts] == [p.cluster for p in load_prompts()]
    assert len(natural(task, cues, 3)) == 6


def test_a_task_file_may_end_in_yml(compass):
    found = load_task(str(compass))
    assert load_task(str(compass.rename(compass.with_suffix(".yml")))) == found


def test_a_task_of_ours_needs_no_file():
    assert load_task("coin") == (TASKS["coin"], ()) and natural(TASKS["coin"]) == load_prompts()


def test_contexts_that_name_an_option_are_left_out(tmp_path):
    path = tmp_path / "wind.yaml"
    path.write_text("options: [goat, sheep]\ncues: [I saw a]\n")
    task, cues = load_task(str(path))
    left = {p.cluster for p in load_prompts()} - {p.cluster for p in natural(task, cues)}
    assert (
        left == {p.cluster for p in load_prompts() if names_option(p.context.text, task)} != set()
    )


WRONG = {
    "compass": ("", "unknown task 'compass'.*--task compass.yaml.*book/reading.md"),
    "lost.yaml": ("", "cannot be read.*Hint: write it"),
    "a.yaml": ("options: [x, y]\n", "the task lacks 'cues'"),
    "b.yaml": ("options: [yes, no]\ncues: [It is]\n", r"options\[0\] must be.*bool.*in quotes"),
    "c.yaml": (
        "options: [x, y]\ncues: [It is]\ncue: z\n",
        "unknown field 'cue', did you mean 'cues",
    ),
    "coin.yaml": ("options: [x, y]\ncues: [It is]\n", "coin is a task of ours"),
    "all tasks.yaml": ("options: [x, y]\ncues: [It is]\n", "is no word"),
    "d.yaml": ("options: [x, X]\ncues: [It is]\n", "two or more different options"),
    "e.yaml": ("options: [y, (y]\ncues: [It is]\n", "would not be read as itself"),
    "f.yaml": ("options: [x, y]\naliases: {z: w}\ncues: [It is]\n", "unknown option 'w'.*x, y"),
    "f2.yaml": ("options: [x, y]\naliases: {'1_000': x}\ncues: [It is]\n", "the alias '1_000'"),
    "g.yaml": ("options: [x, y]\ncues: ['It is ']\n", "begins or ends in a space"),
    "h.yaml": ("options: [x, y]\ncues: [Not X but]\n", "names an option.*{options}"),
    "h1.yaml": ("options: [x, y]\ncues: ['One of {option} is']\n", "nothing is put for.*{options}"),
    "deep.yaml": ("options: " + "[" * 100_000, "nested more than"),
    "i.yaml": ("options: [x, y]\ncues: [It is, It is]\n", "write two different cues"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_task_says_what_to_do(tmp_path, monkeypatch, capsys, name):
    text, said = WRONG[name]
    monkeypatch.chdir(tmp_path)
    if text:
        (tmp_path / name).write_text(text)
    with pytest.raises(CrystalError, match=said) as caught:
        load_task(name)
    assert caught.value.hint and "\n" not in str(caught.value)
    asked = ["--model", "none", "--ladder", "l", "--stage", "base", "--out", "t.csv"]
    assert main(["ask", "--task", name, *asked]) == 2
    assert capsys.readouterr().err.startswith("crystal ask: ")


def test_numbers_are_options_and_all_may_be_named(tmp_path):
    path = tmp_path / "dose.yaml"
    path.write_text("options: [1, 2]\ncues: ['Of {options} I took', I took]\n")
    task, cues = load_task(str(path))
    assert task.options == ("1", "2")
    assert natural(task, cues)[0].reply(task) in ("Of 1, 2 I took", "Of 2, 1 I took")


def test_a_task_of_ones_own_becomes_verdicts(compass, tmp_path, monkeypatch, capsys):
    """The documented way: ask the base, then a later stage, then judge; a base alone, too."""
    tiny = pytest.importorskip("tiny", reason="needs torch")
    monkeypatch.chdir(tmp_path)
    asked = ["ask", "--task", "compass.yaml", "--ladder", "mine", "--out", "compass.csv"]
    for seed, stage in enumerate(("base", "sft")):
        folder = str(tiny.save(tmp_path / stage, seed=seed, context=512))
        how = ["--stage", stage, "--model", folder, "--contexts", "4"]
        assert main([*asked, *how, *(["--append"] if seed else [])]) == 0
        assert "cue-2, 'We lost our way and walked': " in (said := capsys.readouterr().out)
        assert said.count("of 4 prompts answered") == 2
        assert "crystal page phases --data compass.csv" in said
        assert main(["phases", "compass.csv", "--permutations", "19"]) == 0
        said = capsys.readouterr().out
        assert ("only the base is judged" in said) == (stage == "base")
    table = pd.read_csv("compass.csv")
    assert set(table["wording"]) == {"cue-1", "cue-2"}
    assert len(table) == 2 * 8 * 4 and set(table["option"]) == set(
        load_task("compass.yaml")[0].options
    )
    mass = table.groupby(["stage", "prompt"])["probability"].sum()
    assert mass.to_numpy() == pytest.approx(table.groupby(["stage", "prompt"])["answered"].first())
    assert main([*asked, *how, "--append"]) == 2  # before the model is loaded
    assert "8 prompts are in the table already" in capsys.readouterr().err


def test_a_cue_can_be_tried_as_it_will_be_asked(compass, tmp_path, monkeypatch, capsys):
    tiny = pytest.importorskip("tiny", reason="needs torch")
    monkeypatch.chdir(tmp_path)
    folder = str(tiny.save(tmp_path / "base", context=512))
    asked = ["readout", "--task", "compass.yaml", "--model", folder, "--json", "--prompt"]
    said = []
    for cue in ("Of {options} we chose", "Of north, east, south, west we chose"):
        assert main([*asked, cue]) == 0
        said.append(capsys.readouterr())
    assert said[0].out == said[1].out
    assert "for {options} the prompt says north, east, south, west" in said[0].err
