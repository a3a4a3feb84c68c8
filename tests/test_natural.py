"""The natural prompts: no option named, contexts and wordings crossed, the choice reproduced."""

from __future__ import annotations

import re
import shutil
from collections import Counter

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crystal.ask import prompts
from crystal.ask.cells import prompt_of, situations
from crystal.ask.prompts import (
    ALL_FORMS,
    CHAT,
    COMPLETION,
    INSTRUCTION,
    PROMPTS,
    Context,
    Pool,
    joined,
    load_pool,
    load_prompts,
)
from crystal.ask.tasks import PHASE_TASKS, TASKS
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.files import root
from crystal.studies import answerable
from crystal.studies.answerable import Asked, Candidate

POOL = load_pool()
WORDS = ("a", "A", "I")  # letters that are words, too: only these may stand alone


def named(text: str, task: str) -> list[str]:
    """Options of a task that a text names: any spelling as a whole word, in any case.

    A word is a run of letters and digits, less what an apostrophe adds; of twenty-one, both halves
    count. A single letter names an option of `letter` unless it is one of WORDS.
    """
    plain = re.sub(r"(?<=[A-Za-z])['’][A-Za-z]+\b", "", text)
    words = re.findall(r"[^\W_]+|[♥♦♣♠]", plain)
    return [word for word in words if word not in WORDS and word.lower() in TASKS[task].spellings]


@pytest.mark.parametrize(
    "text, task",
    [
        ("It was heads.", "coin"),
        ("On MONDAY", "weekday"),
        ("17th, no: 17", "d20"),
        ("row B", "letter"),
        ("twenty-one of them", "hundred"),
        ("the 7♥", "suit"),
        ("Monday's child", "weekday"),
    ],
)
def test_a_text_that_names_an_option_is_seen(text, task):
    assert named(text, task)


def test_words_are_no_letters():
    assert not named("I'm at home, a guest of Ben's", "letter") and not named("headstrong", "coin")


@pytest.mark.parametrize("context", POOL.contexts, ids=lambda context: context.id)
def test_contexts_name_no_option_of_any_task(context):
    assert [found for task in PHASE_TASKS for found in named(context.text, task)] == []


@pytest.mark.parametrize("task", PHASE_TASKS)
def test_cues_name_no_option_of_their_task(task):
    """Those of other tasks they may: the ace tells nothing of the suit. Who names one names all."""
    for cue in POOL.cues[task]:
        assert named(cue.replace(prompts.OPTIONS, ""), task) == []
        assert cue.count(prompts.OPTIONS) <= 1 and "{" not in cue.replace(prompts.OPTIONS, "")


@pytest.mark.parametrize("task", PHASE_TASKS)
def test_named_options_are_all_there_in_an_own_order(task):
    """Under a fair shuffle one option of K is first in over a third of 137 contexts with
    probability below 1e-6 where K is 10 or more, in over half of them below 1e-5 where K is 4."""
    options = TASKS[task].options
    for cue in (cue for cue in POOL.cues[task] if prompts.OPTIONS in cue):
        lists = [order(cue, task, context) for context in POOL.contexts]
        assert all(sorted(found) == sorted(options) for found in lists)
        most = Counter(found[0] for found in lists).most_common(1)[0][1]
        assert most < len(lists) / (2 if len(options) < 10 else 3)


def order(cue: str, task: str, context: Context) -> list[str]:
    """The options as a prompt lists them."""
    before, after = cue.split(prompts.OPTIONS)
    whole = prompts.begun(cue, TASKS[task], context)
    return whole.removeprefix(before).removesuffix(after).split(", ")


def test_the_pool_is_several_times_what_is_chosen():
    ids, genres = [context.id for context in POOL.contexts], {c.genre for c in POOL.contexts}
    assert len({*ids}) == len(ids) >= 120 and len(genres) >= 100
    assert len({context.text for context in POOL.contexts}) == len(ids)
    for cues in POOL.cues.values():
        assert len({*cues}) == len(cues) >= 6
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in ids)


def test_texts_leave_the_space_to_the_answer():
    for context in POOL.contexts:
        assert context.text == context.text.strip(" ") and context.text.strip()
    for cue in (cue for cues in POOL.cues.values() for cue in cues):
        assert cue == cue.strip()


# -- the hundred


def test_fifty_contexts_in_two_wordings_are_a_hundred_prompts():
    prompts = load_prompts()
    assert len({prompt.id for prompt in prompts}) == len(prompts) == 100
    assert Counter(Counter(p.context.id for p in prompts).values()) == {2: 50}
    assert Counter(prompt.half for prompt in prompts) == {"selection": 50, "evaluation": 50}
    assert all(len({p.half for p in prompts if p.persona == n}) == 1 for n in range(50))
    assert not {prompt.id for prompt in prompts} & {prompt.id for prompt in PROMPTS}
    assert prompt_of(prompts[7].id) == prompts[7] and prompt_of(PROMPTS[7].id) == PROMPTS[7]


@pytest.mark.parametrize("task", PHASE_TASKS)
def test_every_prompt_ends_in_its_cue_in_every_form(task):
    for prompt in load_prompts():
        reply = prompt.reply(TASKS[task])
        whole = joined(prompt.text(TASKS[task], COMPLETION), reply)
        assert whole.endswith(reply) and whole == whole.rstrip() and reply[-1].isalnum()
        assert whole[-len(reply) - 1] in " \n"
        assert not any(prompt.text(TASKS[task], form).endswith(reply) for form in ALL_FORMS)
        assert prompt.text(TASKS[task], "instructed").startswith(INSTRUCTION)


def test_wordings_of_a_task_are_two_and_the_same_in_all_contexts():
    for task in PHASE_TASKS:
        wordings = {(p.wording, p.cues[task]) for p in load_prompts()}
        assert len(wordings) == len({cue for _, cue in wordings}) == 2


def test_a_task_without_cues_is_refused():
    with pytest.raises(CrystalError, match="no natural prompt puts the task 'city'"):
        load_prompts()[0].reply(TASKS["city"])


def test_the_grids_put_them_in_their_forms():
    assert [s.form for s in situations("natural")] == [COMPLETION, CHAT]
    assert [s.form for s in situations("natural-raw")] == [COMPLETION]
    assert all(s.prompts == load_prompts() for s in situations("natural"))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The prompts' files under a root of their own."""
    (tmp_path / "data" / "ladders").mkdir(parents=True)
    shutil.copytree(prompts.folder(), tmp_path / "data" / "prompts")
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    return tmp_path / "data" / "prompts"


@pytest.mark.parametrize(
    "name, text, sentence",
    [
        ("natural.yaml", "contexts: 3\n", "misshapen"),
        ("natural-chosen.yaml", "contexts: [nowhere]\ncues: {}\n", "misshapen"),
        ("natural-answered.csv", "task,context\ncoin,diary\n", "line 2 is no measurement"),
    ],
)
def test_damaged_files_are_refused_in_a_sentence(elsewhere, name, text, sentence):
    (elsewhere / name).write_text(text)
    with pytest.raises(CrystalError, match=sentence):
        load_pool()
        load_prompts()
        answerable.load_measured()


def test_a_context_that_the_pool_lacks_is_named(elsewhere):
    path = elsewhere / "natural-chosen.yaml"
    raw = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**raw, "contexts": ["nowhere", *raw["contexts"][1:]]}))
    with pytest.raises(CrystalError, match="no context 'nowhere'"):
        load_prompts()


# -- the choice


def test_the_choice_follows_from_the_committed_measurement():
    measured = answerable.load_measured()
    assert {asked.form for asked in measured} == {COMPLETION, CHAT}
    cues = answerable.choose_cues(POOL, measured)
    contexts = answerable.choose_contexts(POOL, measured, cues)
    said = yaml.safe_load((prompts.folder() / prompts.CHOSEN).read_text())
    assert contexts == said["contexts"]
    assert {t: [POOL.cues[t][i - 1] for i in mine] for t, mine in cues.items()} == said["cues"]


def test_what_was_chosen_is_answered_as_the_book_says():
    """At least .5 of the mass on ten tasks and .3 on all, at most ten of a hundred under .2."""
    measured = answerable.load_measured()
    cues = answerable.choose_cues(POOL, measured)
    contexts = answerable.choose_contexts(POOL, measured, cues)
    for mine in measured.values():
        mass = {
            task: [mine[Candidate(task, of, cue)] for of in contexts for cue in chosen]
            for task, chosen in cues.items()
        }
        medians = pd.Series({task: pd.Series(found).median() for task, found in mass.items()})
        assert (medians >= 0.3).all() and (medians >= 0.5).sum() >= 10
        assert all(sum(m < 0.2 for m in found) <= 10 for found in mass.values())


CONTEXTS = tuple(Context(f"c{i}", "none", f"Number {i}.") for i in range(60))
SMALL = Pool(CONTEXTS, dict.fromkeys(("coin", "die"), ("Left", "Right", "Up")))


def measurement(worth) -> dict[Asked, dict[Candidate, float]]:
    every = answerable.candidates(SMALL)
    return {Asked(name, COMPLETION): {one: worth(name, one) for one in every} for name in "xy"}


def test_cues_are_chosen_where_they_are_answered_least():
    """`Up` is best on one checkpoint and not answered on the other."""
    worth = {("x", 3): 0.59, ("y", 3): 0.0}
    measured = measurement(lambda name, one: worth.get((name, one.cue), 0.2 + 0.1 * one.cue))
    assert answerable.choose_cues(SMALL, measured) == {"coin": [2, 1], "die": [2, 1]}


def test_contexts_are_tried_by_cues_that_do_not_name_the_options():
    """A task whose best cue lists the options needs no measurement in all contexts."""
    mixed = Pool(CONTEXTS, {"coin": ("Left",), "die": (f"Of {prompts.OPTIONS}", "Up")})
    cues = {"coin": [1], "die": [1, 2]}
    assert answerable.best_bare(mixed, cues) == {"coin": [1]}
    measured = {Asked("x", CHAT): {Candidate("coin", f"c{i}", 1): 0.1 * (i > 9) for i in range(60)}}
    assert answerable.choose_contexts(mixed, measured, cues) == [f"c{i}" for i in range(10, 60)]
    with pytest.raises(CrystalError, match="every best cue names the options"):
        answerable.best_bare(mixed, {"die": [1, 2]})


def test_contexts_are_chosen_for_all_tasks_at_once():
    poor = ("c3", "c9")
    measured = measurement(lambda _, one: 0.1 if one.context in poor and one.task == "die" else 0.3)
    found = answerable.choose_contexts(SMALL, measured, {"coin": [1, 2], "die": [1, 2]})
    assert len(found) == 50 and "c3" not in found and "c9" not in found and found[0] == "c0"


def test_what_was_not_measured_is_not_chosen_from():
    with pytest.raises(CrystalError, match="60 candidates of task coin were not measured"):
        measured = measurement(lambda name, one: 0.3)
        measured[Asked("z", CHAT)] = {}
        answerable.choose_contexts(SMALL, measured, {"coin": [1, 2, 3]})


@given(st.floats(0.6, 1), st.floats(0.6, 1))
def test_more_than_enough_is_not_preferred(more, less):
    measured = measurement(lambda name, one: more if one.cue == 3 else less)
    assert answerable.choose_cues(SMALL, measured)["coin"] == [1, 2]


def test_the_table_reads_back_as_it_was_written(elsewhere):
    measured = answerable.load_measured()
    before = (elsewhere / prompts.ANSWERED).read_bytes()
    answerable.save_measured(measured, POOL)
    assert (elsewhere / prompts.ANSWERED).read_bytes() == before


def test_the_command_chooses_again_what_was_chosen(elsewhere, capsys):
    before = (elsewhere / prompts.CHOSEN).read_bytes()
    (elsewhere / prompts.CHOSEN).unlink()
    assert main(["screen"]) == 0 and "50 of" in capsys.readouterr().out
    assert (elsewhere / prompts.CHOSEN).read_bytes() == before


def test_a_checkpoint_without_a_name_is_refused(capsys):
    assert main(["screen", "--chat", "/tmp"]) == 2
    assert "NAME=DIR_OR_ID" in capsys.readouterr().err


def test_a_screen_that_was_stopped_goes_on(elsewhere, tmp_path, monkeypatch, capsys):
    """A tiny model, 12 contexts, two tasks: the second run measures only what is missing."""
    tiny = pytest.importorskip("tiny", reason="needs torch")
    from crystal.studies import answerable

    few = Pool(POOL.contexts[:12], {task: POOL.cues[task][:3] for task in ("coin", "prime")})
    folder = str(tiny.save(tmp_path / "tiny"))
    (elsewhere / prompts.ANSWERED).unlink(missing_ok=True)
    monkeypatch.setattr(answerable, "BATCH", 16)
    said = []

    def stop(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            raise KeyboardInterrupt

    subjects = [(Asked("tiny", COMPLETION), folder), (Asked("tiny", CHAT), folder)]
    with pytest.raises(KeyboardInterrupt):
        answerable.screen(few, subjects, dtype="float32", say=stop)
    kept = answerable.load_measured()
    assert sum(map(len, kept.values())) == 18  # of coin; a batch is of one task: 16, then 2
    found = answerable.screen(few, subjects, dtype="float32", say=said.append)
    assert [len(mine) for mine in found.values()] == [2 * 6 * 3 + 6 + (6 + 12)] * 2
    assert all(0 <= mass <= 1 for mine in found.values() for mass in mine.values())


def test_the_prompts_can_be_put_by_other_frameworks(tmp_path, capsys):
    assert main(["screen", "--out", str(tmp_path / "prompts.csv")]) == 0
    frame = pd.read_csv(tmp_path / "prompts.csv", keep_default_na=False)
    assert len(frame) == 15 * 2 * 100 and (frame["reply"] != "").all()
    assert frame.groupby("cluster")["half"].nunique().max() == 1
    assert main(["screen", "--out", str(tmp_path / "prompts.xls")]) == 2
    assert ".csv" in capsys.readouterr().err


def test_files_lie_in_the_repository():
    assert prompts.folder() == root() / "data" / "prompts"
