"""Tasks, prompts, and the reading rule, against a second reading written without a pattern."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystal.ask.prompts import (
    FORMS,
    INSTRUCTED,
    INSTRUCTION,
    NARRATORS,
    PROBE,
    PROMPTS,
    template_of,
)
from crystal.ask.tasks import (
    DIGIT_JOINERS,
    JOINERS,
    LEAD,
    OPEN_TASKS,
    PHASE_TASKS,
    TASKS,
    Task,
    number_word,
    read,
)

CLOSED = [t for t in TASKS.values() if t.closed]
OVERLAPPING = Task(
    name="overlapping", ask="", label="", options=("A", "A B", "1", "12", "é"), aliases={"Éa": "é"}
)


def spelled_out(text: str, task: Task) -> str | None:
    """Strip LEAD; of the spellings that begin the text, the longest that ends at a boundary."""
    text = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text).lstrip(LEAD)
    for spelling in sorted(task.spellings, key=len, reverse=True):
        if text.startswith(spelling):
            rest, digits = text[len(spelling) :] + "  ", "0123456789"
            number_goes_on = (
                spelling[-1] in digits and rest[0] in DIGIT_JOINERS and rest[1] in digits
            )
            if (
                not rest[0].isalnum()
                and not (rest[0] in JOINERS and rest[1].isalnum())
                and not number_goes_on
            ):
                return task.spellings[spelling]
    return None


@pytest.mark.parametrize("task", [*CLOSED, OVERLAPPING], ids=lambda t: t.name)
def test_rule_against_the_words(task: Task) -> None:
    around = [
        st.sampled_from(LEAD + JOINERS + DIGIT_JOINERS),
        st.sampled_from("x0_Zé中²—\n"),
        st.text(max_size=2),
    ]
    part = st.one_of(st.sampled_from(sorted(task.spellings)), *around)

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(st.lists(part, max_size=5).map("".join))
    def check(text: str) -> None:
        assert read(text, task) == spelled_out(text, task)

    check()


@pytest.mark.parametrize("task", CLOSED, ids=lambda t: t.name)
def test_options_and_aliases_are_read_in_any_dress(task: Task) -> None:
    for spelling, option in task.spellings.items():
        assert option in task.options
        for dress in (
            "{}",
            " {}",
            '"{}"',
            "**{}**",
            "{}.",
            "{}!",
            "{}, sure.",
            "{} :)",
            "{}\n1",
            "`{}`",
            "“{}”",
            "{}\ufffd",
        ):
            assert read(dress.format(spelling), task) == option
            assert read(dress.format(spelling.upper()), task) == option


@pytest.mark.parametrize(
    ("text", "name", "option"),
    [
        ("17", "digit", None),
        ("1", "digit", "1"),
        ("1.5", "digit", None),
        ("1. Five", "digit", "1"),
        ("1,000", "ten", None),
        ("3:30", "ten", None),
        ("1/2", "die", None),
        ("hearts.The", "suit", "hearts"),
        ("three,four", "rank", "three"),
        ("3,four", "rank", "three"),
        ("1.x", "digit", "1"),
        ("1-2", "digit", None),
        ("1st", "ten", None),
        ("tenth", "ten", None),
        ("ten", "ten", "10"),
        ("twenty-one", "d20", None),
        ("twenty - one", "d20", "20"),
        ("twenty-one", "hundred", "21"),
        ("Monday's", "weekday", None),
        ("Monday’s", "weekday", None),
        ("Mon.", "weekday", "Monday"),
        ("Septembers", "month", None),
        ("Sept", "month", "September"),
        ("♥", "suit", "hearts"),
        ("a", "letter", "A"),
        ("Apple", "letter", None),
        ("1中", "digit", None),
        ("1—2", "digit", "1"),
        ("I pick 7", "digit", None),
        ("", "coin", None),
        ("Paris", "city", None),
    ],
)
def test_boundaries(text: str, name: str, option: str | None) -> None:
    assert read(text, TASKS[name]) == option


def test_tasks_as_designed() -> None:
    assert (
        len(PHASE_TASKS) == 15
        and len(OPEN_TASKS) >= 5
        and {*PHASE_TASKS, *OPEN_TASKS} == set(TASKS)
    )
    assert not any(TASKS[name].closed for name in OPEN_TASKS if name != "thousand")
    for task in CLOSED:
        assert len(set(task.options)) == len(task.options) >= 2
    assert [number_word(n) for n in (0, 13, 20, 42, 100, 342, 1000)] == [
        "zero",
        "thirteen",
        "twenty",
        "forty-two",
        "one hundred",
        "three hundred forty-two",
        "one thousand",
    ]


def test_one_hundred_prompts_in_even_halves() -> None:
    assert len({p.id for p in PROMPTS}) == len(PROMPTS) == 100 and len(set(NARRATORS)) == 20
    assert Counter(p.half for p in PROMPTS) == {"selection": 50, "evaluation": 50}
    assert len({(p.narrator, p.half) for p in PROMPTS}) == 20, "a narrator is in one half only"
    for task in TASKS.values():
        for form in FORMS:
            texts = [p.text(task, form) for p in PROMPTS]
            assert len(set(texts)) == 100
            assert not any("{" in t or t != t.rstrip() for t in texts)


def test_the_probe_is_one_prompt_a_narrator():
    """The four narrators of a temperament (every fifth) speak in four frames."""
    assert [p.narrator for p in PROBE] == list(range(len(NARRATORS)))
    for temperament in range(5):
        assert len({p.frame.name for p in PROBE if p.narrator % 5 == temperament}) == 4
    instructed = PROBE[3].text(TASKS["coin"], INSTRUCTED)
    assert instructed == f"{INSTRUCTION} {PROBE[3].text(TASKS['coin'], 'chat')}"
    assert [template_of(form) for form in ("completion", "chat", INSTRUCTED)] == [
        "completion",
        "chat",
        "chat",
    ]
