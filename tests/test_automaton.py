"""The reading rule over bytes is that over text, however the bytes are cut into tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystal.ask.tasks import DIGIT_JOINERS, JOINERS, LEAD, TASKS, Task, read
from crystal.errors import CrystalError
from crystal.read.automaton import OFF, START, Automaton, Table, Vocabulary, arrays_of, option_code
from crystal.read.vocabulary import END, VOID

NESTED = Task(
    name="nested",
    ask="",
    label="",
    options=("A", "A B", "A B C", "1", "12", "1,2", "1.5.2", "ten", "ten-two"),
)
WIDE = Task(
    name="wide",
    ask="",
    label="",
    options=("é", "éa", "中", "中文", "♥", "naïve", "a’b", "b\ufffd!", "x_"),
    aliases={"É": "é", "Straße": "naïve"},
)
CLOSED = tuple(t for t in TASKS.values() if t.closed) + (NESTED, WIDE)
AUTOMATA = {task.name: Automaton(task) for task in CLOSED}

HALVES = [
    b"\xc3",
    b"\xa9",
    b"\xe2",
    b"\xe2\x80",
    b"\x99",
    b"\x9c",
    b"\xe4\xb8",
    b"\xad",
    b"\xf0\x9f",
    b"\x98\x80",
    b"\xff",
    b"\xed\xa0\x80",
]
OTHERS = [c.encode() for c in LEAD + JOINERS + DIGIT_JOINERS + "x0Zé中—_\u0301²"]


def pieces_of(task: Task) -> st.SearchStrategy[list[bytes]]:
    """Spellings whole, cut anywhere, in other case; what may stand around them; noise."""
    whole = sorted(task.spellings)
    cut = st.sampled_from(whole).flatmap(
        lambda s: st.integers(1, len(s.encode())).map(lambda n: s.encode()[:n])
    )
    upper = st.sampled_from(whole).map(lambda s: s.upper().encode())
    tail = st.sampled_from(whole).flatmap(
        lambda s: st.integers(0, len(s.encode()) - 1).map(lambda n: s.encode()[n:])
    )
    noise = st.binary(min_size=1, max_size=3)
    return st.lists(
        st.one_of(cut, cut, upper, tail, st.sampled_from(HALVES), st.sampled_from(OTHERS), noise),
        max_size=6,
    )


def after(automaton: Automaton, text: bytes, state: int = START) -> int:
    """The code behind these bytes: a state, or what they decide."""
    for byte in text:
        if state < 0:
            break
        state = int(automaton.step(np.array([state]), np.array([byte]))[0])
    return state


def run(automaton: Automaton, text: bytes) -> int:
    state = after(automaton, text)
    return state if state < 0 else automaton.end(state)


def code_of(text: bytes, task: Task) -> int:
    option = read(text.decode("utf-8", "replace"), task)
    return OFF if option is None else option_code(task.options.index(option))


@pytest.mark.parametrize("task", CLOSED, ids=lambda t: t.name)
def test_bytes_read_as_text(task: Task) -> None:
    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        text = b"".join(data.draw(pieces_of(task)))
        assert run(AUTOMATA[task.name], text) == code_of(text, task)

    check()


@pytest.mark.parametrize("task", CLOSED, ids=lambda t: t.name)
def test_tokens_read_as_text(task: Task) -> None:
    """Any cut into tokens of a vocabulary, through the table a read-out uses, gives the same."""

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.lists(pieces_of(task), min_size=1, max_size=8), st.data())
    def check(groups: list[list[bytes]], data: st.DataObject) -> None:
        texts = [b"".join(group) for group in groups]
        vocabulary = Vocabulary(arrays_of([*texts, END, VOID]))
        table = Table(vocabulary, AUTOMATA[task.name])
        ids = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=5)) + [len(texts)]
        state = START
        for i in ids:
            state = int(table.follow(np.array([state]), vocabulary.rank[[i]])[0])
            if state < 0:
                break
        assert state == code_of(b"".join(texts[i] for i in ids[:-1]), task)

    check()


@pytest.mark.parametrize(
    "task", [TASKS["hundred"], TASKS["suit"], NESTED, WIDE], ids=lambda t: t.name
)
def test_a_row_holds_every_token_once_with_its_own_code(task: Task) -> None:
    rng = np.random.default_rng(5)
    parts = [s.encode() for s in task.spellings] + HALVES + OTHERS
    texts = [b"".join(rng.choice(parts, rng.integers(0, 4))) for _ in range(400)] + [
        bytes([b]) for b in range(256)
    ]
    vocabulary = Vocabulary(arrays_of([END, *texts, VOID, END]))
    table, automaton = Table(vocabulary, AUTOMATA[task.name]), AUTOMATA[task.name]
    states, of_states = sorted({START, *table.row(START).to.tolist()}), []
    for state in states:
        row = table.row(state)
        codes = np.full(len(vocabulary.order), 10**6)
        for low, high, code in zip(row.low, row.high, row.code, strict=True):
            assert (codes[low:high] == 10**6).all()
            codes[low:high] = code
        assert (codes[row.live] == 10**6).all()
        codes[row.live] = row.to
        of_states.append(codes)
        by_id = codes[vocabulary.rank]
        for i, text in enumerate(texts, 1):
            assert by_id[i] == after(automaton, text, state)
        assert by_id[0] == by_id[-1] == automaton.end(state)
        assert by_id[-2] == OFF
    which, rank = rng.permutation(np.indices((len(states), len(codes))).reshape(2, -1), axis=1)
    assert (table.follow(np.array(states)[which], rank) == np.array(of_states)[which, rank]).all()


def test_undecided_only_while_it_matters() -> None:
    """Half a character after `1` may be a letter; after `tw` it cannot be anything but off."""
    automaton = AUTOMATA["hundred"]
    assert after(automaton, b"1\xe4") >= 0
    assert after(automaton, b"tw\xe4") == after(automaton, b" \xe4") == OFF
    assert after(automaton, b" \xe2") >= 0  # may become a quotation mark


def test_tasks_that_cannot_be_read_say_so() -> None:
    with pytest.raises(CrystalError, match="crystal sample"):
        Automaton(TASKS["city"])
    with pytest.raises(CrystalError, match="quote"):
        Automaton(Task(name="x", ask="", label="", options=('"a',)))
