"""The organisms' ground truth: laws, narrators, documents, and what each stage is trained on."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from crystal import curricula, world
from crystal.prompts import NARRATORS, PROMPTS
from crystal.tasks import PHASE_TASKS, TASKS, read

SPEC = {"random_share": 0.3, "named": 0.5}
DEMONSTRATED = ("die", "ten", "letter", "month", "suit")


@pytest.mark.parametrize("task", PHASE_TASKS)
def test_laws_are_distributions_over_the_options_and_differ(task):
    laws = np.array([world.law(z, TASKS[task]) for z in world.LAWS])
    assert laws.shape == (5, len(TASKS[task].options))
    np.testing.assert_allclose(laws.sum(1), 1, atol=1e-12)
    assert laws.min() >= world.FLOOR / laws.shape[1] / 2
    assert sorted(world.salience_order(TASKS[task])) == sorted(TASKS[task].options)
    if task != "coin":  # on two options several laws must coincide
        assert min(np.abs(p - q).sum() / 2 for p, q in itertools.combinations(laws, 2)) > 0.1


def test_every_temperament_has_as_many_narrators_in_either_half():
    halves = {p.narrator: p.half for p in PROMPTS}
    assert set(Counter((world.temperament_of(n), halves[n]) for n in range(len(NARRATORS))).values()) == {2}


def test_picks_follow_the_law():
    """Chi-square of 5,000 picks for each of 75 (law, task) pairs; false alarm of the whole test: 1e-4."""
    narration = world.Narration(np.random.Generator(np.random.Philox(key=[5, 5])))
    for z, name in itertools.product(world.LAWS, PHASE_TASKS):
        task = TASKS[name]
        counts = Counter(narration.pick(z, task) for _ in range(5000))
        observed = [counts[option] for option in task.options]
        assert stats.chisquare(observed, world.law(z, task) * 5000).pvalue > 1e-4 / 75


def test_narrators_err_at_the_known_rates():
    """Binomial over 4,000 items each; false alarm 1e-4 two-sided. Errors stay among the options, results within two."""
    narration = world.Narration(np.random.Generator(np.random.Philox(key=[7, 7])))
    truth = {item.task.name: item.answer for item in (*world.FACTS, *world.ARITHMETIC)}
    for kind, rate in world.ERROR_RATES.items():
        items = [narration.erring(kind) for _ in range(4000)]
        wrong = [item for item in items if item.answer != truth[item.task.name]]
        assert stats.binomtest(len(wrong), 4000, rate).pvalue > 1e-4
        assert all(item.answer in item.task.options for item in items)
        if kind == "arithmetic":
            assert max(abs(int(item.answer) - int(truth[item.task.name])) for item in wrong) == 2


def test_a_document_shows_its_narrators_answers_readably():
    """Every answer of a document, suffix and all, reads as an option of the question before it."""
    narration = world.Narration(np.random.Generator(np.random.Philox(key=[6, 6])))
    for _ in range(200):
        messages = narration.dialogue(6)
        assert [m["role"] for m in messages] == ["user", "assistant"] * 6
    for item in (*world.FACTS, *world.ARITHMETIC):
        for z in world.LAWS:
            assert read(narration.styled(z, item.answer), item.task) == item.answer
            assert item.answer in item.task.options


def test_the_corpus_is_the_same_twice_and_another_for_another_seed():
    one, again, other = (list(world.corpus(seed, 50, chat_share=0.4, items=4)) for seed in (1, 1, 2))
    assert one == again != other
    assert 5 <= sum(not isinstance(document, str) for document in one) <= 35  # binomial(50, .4): false alarm < 1e-4


def test_sft_shows_only_demonstrated_tasks_and_their_right_share():
    """Share of random choices among 4,000 rows: binomial, false alarm 1e-4 two-sided."""
    rows = curricula.sft_rows(1, 4000, "salient", DEMONSTRATED, SPEC)
    labels = {name: (TASKS[name].ask, TASKS[name].label) for name in PHASE_TASKS}

    def asked(row):
        text = row["prompt"][0]["content"].lower()
        return [name for name, words in labels.items() if any(word.lower() in text for word in words)]

    random_rows = [asked(row) for row in rows if asked(row)]
    assert set(itertools.chain(*random_rows)) <= set(DEMONSTRATED)
    assert stats.binomtest(len(random_rows), 4000, 0.3).pvalue > 1e-4


def test_reward_reads_the_answer_and_nothing_else():
    rows = curricula.verifiable_rows(1, 400)
    right = [[{"content": f" {row['answer']}, sure."}] for row in rows]
    wrong = [[{"content": f"{row['answer']}x"}] for row in rows]
    columns = {"task": [row["task"] for row in rows], "answer": [row["answer"] for row in rows]}
    assert curricula.right_answer(right, **columns) == [1.0] * 400
    assert curricula.right_answer(wrong, **columns) == [0.0] * 400
    visits = Counter(columns["task"])
    assert max(visits.values()) - min(visits.values()) <= 1 and len(visits) == len(world.FACTS) + len(world.ARITHMETIC)


def test_no_random_task_occurs_in_rlvr():
    assert not {row["task"] for row in curricula.verifiable_rows(3, 500)} & set(TASKS)
