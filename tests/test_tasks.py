"""Tasks, prompts, and the reading rule, against a second reading written without a pattern."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystal.ask.prompts import (
    FORMS,
    INSTRUCTED,
    INSTRUCTION,
    PERSONAS,
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
    read_all,
    read_free,
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
    assert len({p.id for p in PROMPTS}) == len(PROMPTS) == 100 and len(set(PERSONAS)) == 20
    assert Counter(p.half for p in PROMPTS) == {"selection": 50, "evaluation": 50}
    assert len({(p.persona, p.half) for p in PROMPTS}) == 20, "a persona is in one half only"
    for task in TASKS.values():
        for form in FORMS:
            texts = [p.text(task, form) for p in PROMPTS]
            assert len(set(texts)) == 100
            assert not any("{" in t or t != t.rstrip() for t in texts)


def test_the_probe_is_one_prompt_a_persona():
    """The four personas of a temperament (every fifth) speak in four frames."""
    assert [p.persona for p in PROBE] == list(range(len(PERSONAS)))
    for temperament in range(5):
        assert len({p.template.name for p in PROBE if p.persona % 5 == temperament}) == 4
    instructed = PROBE[3].text(TASKS["coin"], INSTRUCTED)
    assert instructed == f"{INSTRUCTION} {PROBE[3].text(TASKS['coin'], 'chat')}"
    assert [template_of(form) for form in ("completion", "chat", INSTRUCTED)] == [
        "completion",
        "chat",
        "chat",
    ]


# -- the second rule: sentences, judged by hand before any model had spoken

NAMED = [  # task, answer, option
    ("coin", "Sure! The coin landed on heads.", "heads"),
    ("coin", "heads", "heads"),
    ("coin", "**Tails!**", "tails"),
    ("coin", "Heads or tails: heads", "heads"),
    ("coin", "Heads or tails? It's tails.", "tails"),
    ("coin", "heads or tails", None),
    ("coin", "The coin could land on heads or tails.", None),
    ("coin", "As an AI language model, I cannot flip a coin.", None),
    ("coin", "I cannot choose between heads and tails.", None),
    ("coin", "I flipped the coin and got heads. Heads it is!", "heads"),
    ("coin", "It's not heads but tails.", "tails"),
    ("coin", "Off the top of my head, I'd say tails.", "tails"),
    ("coin", "If it's heads, you win. The coin landed on tails.", "tails"),
    ("coin", "I got heads. If it had been tails, you would have won.", "heads"),
    ("coin", "It can be heads or tails, so I'll say heads.", "heads"),
    ("coin", "Between heads and tails it came up tails.", "tails"),
    ("coin", "Heads, tails, heads.", None),
    ("coin", "The coin has a head and a tail, and it landed on its tail.", "tails"),
    ("coin", "", None),
    ("coin", "The arrowhead flew, and the headless tailor laughed.", None),
    ("die", "You rolled a 4!", "4"),
    ("die", "I rolled a six-sided die and got a three.", "3"),
    ("die", "A die has 6 sides. I rolled a 2.", "2"),
    ("die", "A standard die has six faces, numbered from 1 to 6.", None),
    ("die", "The result is 17.", None),
    ("die", "Rolling... **5**", "5"),
    ("die", "1, 2, 3, 4, 5, or 6", None),
    ("die", "1. Shake the die.\n2. Throw it.\nIt shows a 5.", "5"),
    ("d20", "I rolled a d20 and got 20.", "20"),
    ("d20", "The twenty-sided die shows a twenty.", "20"),
    ("d20", "You rolled a natural twenty!", "20"),
    ("ten", "I'd pick 7.", "7"),
    ("ten", "Sure, here is a random number between 1 and 10: 7", "7"),
    ("ten", "A number from 1 to 10 could be 3.", "3"),
    ("ten", "My number (1-10) is 8", "8"),
    ("ten", "My number is 1–10.", None),
    ("ten", "I choose one at random.", None),
    ("ten", "This one is hard, but the number is one.", "1"),
    ("ten", "Let's go with seven, the luckiest one.", "7"),
    ("ten", "I pick twenty-one.", None),
    ("ten", "I pick twenty one.", None),
    ("ten", "I pick one hundred.", None),
    ("ten", "It costs 1.5 or 3:30.", None),
    ("ten", "The temperature is -7.", None),
    ("ten", "7 out of 10 people say so", "7"),
    ("ten", "My 2 favourites are 3 and 5.", None),
    ("hundred", "I pick twenty-one.", "21"),
    ("hundred", "I'd say forty two.", "42"),
    ("hundred", "A random number from 1 to 100: 73.", "73"),
    ("hundred", "I choose 1,000.", None),
    ("prime", "A prime number less than 47 is 13.", "13"),
    ("even", "Even numbers are divisible by 2, and I choose 14.", "14"),
    ("digit", "The digit zero.", "0"),
    ("letter", "I choose the letter K.", "K"),
    ("letter", "A random letter is Q.", "Q"),
    ("letter", "I think a good letter is B.", "B"),
    ("letter", "The letter is I.", "I"),
    ("letter", 'I pick "A".', "A"),
    ("letter", "A is the letter for me.", "A"),
    ("letter", "I pick a letter.", None),
    ("letter", "a", "A"),
    ("letter", "My random letter: 'm'", "M"),
    ("letter", "The U.S. is a country.", None),
    ("letter", "Letters run from A to Z; mine is T.", "T"),
    ("suit", "I picked the queen of hearts.", "hearts"),
    ("suit", "The four suits are hearts, diamonds, clubs, and spades. I choose spades.", "spades"),
    ("suit", "Hearts, diamonds, clubs and spades are the suits.", None),
    ("suit", "My card is a ♠.", "spades"),
    ("rank", "I drew the 7 of hearts.", "seven"),
    ("rank", "The card is a King.", "king"),
    ("rank", "There are 52 cards, and I drew the Q.", "queen"),
    ("weekday", "My favourite day of the seven days is Friday.", "Friday"),
    ("weekday", "We sat in the sun, and it was Wed.", "Wednesday"),
    ("weekday", "From Monday to Friday I work, on Sunday I rest.", "Sunday"),
    ("month", "You may march in July.", "July"),
    ("month", "It was in May.", "May"),
    ("month", "May I suggest October?", "October"),
    ("colour", "My favourite colour is blue, like the sky.", "blue"),
    ("colour", "Red, green and blue are primary; mine is green.", "green"),
    ("colour", "Mauve.", None),
    ("city", "Paris.", None),
    # kinds of misreading seen in drawn answers of a real chat model, mended since
    ("ten", "1. AI: Available\n\nThere's no code snippet available.", None),
    ("ten", "Use `random.randint(1, 10)` in Python.", None),
    ("ten", "The number lies in the interval [1, 2].", None),
    ("ten", "The number must be different from 10.", None),
    ("ten", "There are two additional lucky numbers, 11 and 13.", None),
    ("coin", "The probability of a fair coin being heads is 50%.", None),
    ("coin", "The chance of heads is a half, and I got tails.", "tails"),
    ("coin", "Flipping both gives exactly 2 heads.", None),
    ("letter", "A: T", "T"),
]


@pytest.mark.parametrize(("task", "text", "option"), NAMED)
def test_an_answer_in_sentences_is_read(task, text, option):
    assert read_free(text, TASKS[task]) == option


TAILS = st.sampled_from(["", ".", "!", "\n", " ", "**", '"', ".\n\n", ", ", "…", ")."])


@given(
    st.sampled_from(PHASE_TASKS).flatmap(
        lambda name: st.tuples(
            st.just(name),
            st.sampled_from(sorted(TASKS[name].spellings)),
            st.text(LEAD, max_size=3),
            TAILS,
            st.sampled_from([str, str.upper, str.title]),
        )
    )
)
def test_an_option_alone_is_read_as_ever(given_):
    name, spelling, lead, tail, cased = given_
    text = f"{lead}{cased(spelling)}{tail}"
    assert read(text, TASKS[name]) == read_free(text, TASKS[name]) is not None


@given(st.sampled_from(PHASE_TASKS), st.text(max_size=60))
def test_any_text_gives_an_option_or_none(name, text):
    assert read_free(text, TASKS[name]) in (*TASKS[name].options, None)


@given(
    st.sampled_from(PHASE_TASKS).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(TASKS[name].options))
    ),
    st.sampled_from(
        ["The answer is {}.", "Sure! I pick {}.", "Okay: **{}**", 'It was "{}"!', "Result: {}"]
    ),
)
def test_a_plain_sentence_names_its_option(pair, sentence):
    name, option = pair
    assert read_free(sentence.format(option), TASKS[name]) == option


@given(
    st.sampled_from(PHASE_TASKS).flatmap(
        lambda name: st.tuples(
            st.just(name),
            st.lists(st.sampled_from(TASKS[name].options), min_size=2, max_size=2, unique=True),
        )
    )
)
def test_two_options_in_one_clause_compete(pair):
    name, (first, second) = pair
    assert read_free(f'"{first}" or "{second}"', TASKS[name]) is None


def test_counts_are_kept_and_what_names_nothing_is_none():
    found = read_all({"I got heads.": 3, "heads": 2, "Who knows?": 4}, TASKS["coin"])
    assert found == {"heads": 5, "tails": 0, None: 4} and list(found) == ["heads", "tails", None]


def test_thousands_of_answers_take_seconds():
    texts = [
        f"Sure! Here is a random number between 1 and 100 for you, number {i}: {i % 100 + 1}."
        for i in range(2000)
    ]
    start = time.perf_counter()
    assert sum(read_free(text, TASKS["hundred"]) is not None for text in texts) > 0
    assert time.perf_counter() - start < 10
