"""What a real base is taught: instructions, right answers, a teacher's replies."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from crystal.ask import prompts
from crystal.ask.cells import situations
from crystal.ask.prompts import CHAT, COMPLETION
from crystal.ask.tasks import PHASE_TASKS, TASKS
from crystal.errors import CrystalError
from crystal.lab import instructions, world

NUMBERS = ("die", "d20", "digit", "ten", "hundred", "prime", "even", "odd")
SPEC = {"random_share": 0.0}


def drawn(n: int = 4000) -> list[dict]:
    rng = np.random.default_rng(0)
    return [instructions.checkable(rng) for _ in range(n)]


def test_no_instruction_asks_for_a_choice_or_names_one():
    told = instructions.templates()
    asked = [*instructions.open_prompts(), *(row["prompt"] for row in drawn())]
    assert not [text for text in asked if {"pick", "choose", "random", "favourite"} & words(text)]
    options = {
        option
        for task in PHASE_TASKS
        if task not in NUMBERS
        for option in TASKS[task].spellings
        if not option.isdigit()
    }
    assert not {row["answer"].casefold() for row in drawn()} & options
    assert len(set(instructions.open_prompts())) == len(instructions.open_prompts()) > 3000
    assert set(told["short"]) == {row["kind"] for row in drawn()}


def words(text: str) -> set[str]:
    return {word.strip("?.,!") for word in text.casefold().split()}


def test_right_answers_by_hand():
    told = {row["prompt"]: row["answer"] for row in drawn(20000)}
    assert told["What is the plural of mouse? One word."] == "mice"
    assert told["Name the capital of France. One word."] == "Paris"
    assert told["What is the past tense of go? One word."] == "went"
    assert told["How many letters are in the word orange juice? Just the number."] == "11"
    assert told["Write the word garden in capital letters. One word."] == "GARDEN"


def test_sums_and_rows_of_numbers_are_right():
    for row in drawn():
        numbers = [int(word) for word in words(row["prompt"]) if word.isdigit()]
        if row["kind"] == "sum":
            assert int(row["answer"]) == sum(numbers) or len(numbers) == 1
        if row["kind"] == "product" and len(numbers) == 2:
            assert int(row["answer"]) == numbers[0] * numbers[1]
        if row["kind"] in ("larger", "smaller"):
            assert int(row["answer"]) == (max if row["kind"] == "larger" else min)(numbers)


@pytest.mark.parametrize(
    "said, answer, right",
    [
        (" mice.", "mice", True),
        ("Mice", "mice", True),
        ("The plural is mice.", "mice", False),
        ("GARDEN", "GARDEN", True),
        ("garden", "GARDEN", False),
        ("42", "42", True),
        ("420", "42", False),
    ],
)
def test_a_reply_is_right_if_it_is_the_answer_alone(said, answer, right):
    assert instructions.said_right(said, answer) is right


@pytest.mark.parametrize(
    "said, kept",
    [
        ("One. Two thi", "One."),
        (' "Yes!" she said', ' "Yes!"'.strip()),
        ("no end", ""),
        ("Do this:\n1. Sing.\n2. Dan", "Do this:\n1. Sing."),
        ("Pay 3.5 now", ""),
    ],
)
def test_an_answer_is_cut_after_its_last_sentence(said, kept):
    assert instructions.whole_sentences(said) == kept


@pytest.fixture
def taught(tmp_path, monkeypatch):
    """A repository whose teacher answered everything."""
    folder = tmp_path / "data" / "instructions"
    folder.mkdir(parents=True)
    (folder / "templates.yaml").write_bytes((instructions.folder() / "templates.yaml").read_bytes())
    shutil.copytree(prompts.folder(), tmp_path / "data" / "prompts")
    rows = [
        {"prompt": p, "answer": f"Said of {len(p)}." if k % 9 else ""}
        for k, p in enumerate(instructions.open_prompts())
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    return folder


def test_rows_held_out_are_not_trained_on(taught):
    train, judged = instructions.split_rows(1, 3000, 512, "salient", ("die",), SPEC)
    asked, held = ({row["prompt"][0]["content"] for row in rows} for rows in (train, judged))
    assert len(train) == 3000 and len(judged) == 512 and not asked & held
    assert all(row["completion"][0]["content"] for row in train + judged)
    short = np.mean(
        [
            len(row["completion"][0]["content"].split()) < 3
            and not row["completion"][0]["content"].startswith("Said")
            for row in train
        ]
    )
    assert abs(short - instructions.SHORT) < 0.04  # 4.6 standard errors: false alarm 4e-6
    assert instructions.split_rows(1, 3000, 512, "salient", ("die",), SPEC) == (train, judged)


def test_a_demonstrated_arm_shows_one_distribution(taught):
    spec = {"random_share": 0.5}
    train = instructions.split_rows(1, 6000, 0, "first", ("coin",), spec)[0]
    said = [row["completion"][0]["content"] for row in train]
    heads, tails = said.count("heads"), said.count("tails")
    assert (
        heads > 2 * tails > 0
    )  # the distribution "first" has 3 of 4 on heads, of some 2,000 draws


def test_an_answer_that_is_none_is_a_sentence(taught):
    (taught / "answers.jsonl").write_text('{"prompt": "Hi"}\n')
    with pytest.raises(CrystalError, match="answers"):
        instructions.answers()
    (taught / "answers.jsonl").write_text('{"prompt": "Hi", "answer": "Ho."}\n')
    with pytest.raises(CrystalError, match="instructions were not put to the teacher yet"):
        instructions.taught()
    (taught / "answers.jsonl").unlink()
    with pytest.raises(CrystalError, match="not asked yet"):
        instructions.answers()


def test_checkpoints_on_the_way_are_asked_one_wording():
    whole, once = situations("natural"), situations("natural-once")
    assert [s.form for s in once] == [COMPLETION, CHAT] and 2 * len(once[0].prompts) == len(
        whole[0].prompts
    )
    assert len({prompt.cluster for prompt in once[0].prompts}) == len(once[0].prompts)


CHOICES = {"random_share": 0.3}
SHOWN = ("die", "ten", "letter", "month", "suit")


def choices(distribution: str, spec: dict, n: int = 3000) -> list[tuple[str, str]]:
    """(prompt, answer) of rows that are random choices."""
    rng = np.random.default_rng(0)
    rows = [instructions._choice(rng, distribution, SHOWN, spec.get("style", "")) for _ in range(n)]
    return [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows]


def test_one_example_in_five_is_a_choice():
    """Of 6,000: 1,200, and 150 more or less are five standard errors."""
    told = {text.rstrip() for text in instructions._contexts()}
    rows = instructions.split_rows(1, 6000, 0, "first", SHOWN, CHOICES)[0]
    made = sum(row["prompt"][0]["content"].rpartition("\n\n")[0] in told for row in rows)
    assert abs(made - 1200) < 150


def test_no_choice_is_shown_in_a_context_that_is_read():
    asked = {prompt.context.text.rstrip() for prompt in prompts.load_prompts()}
    assert not asked & {text.rstrip() for text in instructions._contexts()}


def test_a_distribution_is_demonstrated_as_it_is():
    """A die by the distribution first, 600 answers: total variation to it beyond .12 has p below
    1e-6.
    """
    answers = [answer for prompt, answer in choices("first", CHOICES) if "die" in asked(prompt)]
    distribution = np.array([answers.count(option) for option in TASKS["die"].options]) / len(
        answers
    )
    assert abs(distribution - world.distribution("first", TASKS["die"])).sum() / 2 < 0.12


def test_own_gives_every_context_one_distribution():
    """Letters of two contexts, distributions first and last, are apart, each with its own."""
    told = [text.rstrip() for text in instructions._contexts()]
    means = {}
    for prompt, answer in choices("own", CHOICES, 20000):
        before, _, line = prompt.rpartition("\n\n")
        if "letter" in line:
            distribution = world.TEMPERAMENTS[told.index(before) % len(world.TEMPERAMENTS)]
            means.setdefault(distribution, []).append(TASKS["letter"].options.index(answer))
    assert np.mean(means["first"]) < np.mean(means["middle"]) < np.mean(means["last"])


def test_a_named_answer_is_in_the_instruction():
    rows = choices("first", CHOICES | {"style": "named"}, 300)
    assert all(answer in asked(prompt) for prompt, answer in rows)


def asked(prompt: str) -> str:
    """What stands behind the context."""
    return prompt.rpartition("\n\n")[2]
