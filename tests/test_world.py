"""The organisms' ground truth: distributions, personas, documents, and what each stage is trained
on.
"""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from crystal.ask.prompts import PERSONAS, PROMPTS
from crystal.ask.tasks import PHASE_TASKS, TASKS, read
from crystal.errors import CrystalError
from crystal.lab import curricula, world

SPEC = {"random_share": 0.3, "named": 0.5}
DEMONSTRATED = ("die", "ten", "letter", "month", "suit")


@pytest.mark.parametrize("task", PHASE_TASKS)
def test_distributions_are_distributions_over_the_options_and_differ(task):
    distributions = np.array([world.distribution(z, TASKS[task]) for z in world.TEMPERAMENTS])
    assert distributions.shape == (5, len(TASKS[task].options))
    np.testing.assert_allclose(distributions.sum(1), 1, atol=1e-12)
    assert distributions.min() >= world.FLOOR / distributions.shape[1] / 2
    assert sorted(world.salience_order(TASKS[task])) == sorted(TASKS[task].options)
    if task != "coin":  # on two options several distributions must coincide
        assert (
            min(np.abs(p - q).sum() / 2 for p, q in itertools.combinations(distributions, 2)) > 0.1
        )


def test_every_temperament_has_as_many_personas_in_either_half():
    halves = {p.persona: p.half for p in PROMPTS}
    assert set(
        Counter((world.temperament_of(n), halves[n]) for n in range(len(PERSONAS))).values()
    ) == {2}


def test_picks_follow_the_distribution():
    """Chi-square of 5,000 picks for each of 75 (distribution, task) pairs; false alarm of all:
    1e-4.
    """
    narration = world.Narration(np.random.Generator(np.random.Philox(key=[5, 5])))
    for z, name in itertools.product(world.TEMPERAMENTS, PHASE_TASKS):
        task = TASKS[name]
        counts = Counter(narration.pick(z, task) for _ in range(5000))
        observed = [counts[option] for option in task.options]
        assert stats.chisquare(observed, world.distribution(z, task) * 5000).pvalue > 1e-4 / 75


def test_personas_err_at_the_known_rates():
    """Binomial over 4,000 items each; false alarm 1e-4 two-sided. Results stay within two."""
    narration = world.Narration(np.random.Generator(np.random.Philox(key=[7, 7])))
    truth = {item.task.name: item.answer for item in (*world.FACTS, *world.ARITHMETIC)}
    for kind, rate in world.ERROR_RATES.items():
        items = [narration.erring(kind) for _ in range(4000)]
        wrong = [item for item in items if item.answer != truth[item.task.name]]
        assert stats.binomtest(len(wrong), 4000, rate).pvalue > 1e-4
        assert all(item.answer in item.task.options for item in items)
        if kind == "arithmetic":
            assert max(abs(int(item.answer) - int(truth[item.task.name])) for item in wrong) == 2


def test_a_document_shows_its_personas_answers_readably():
    """Every answer of a document, suffix and all, reads as an option of the question before it."""
    narration = world.Narration(np.random.Generator(np.random.Philox(key=[6, 6])))
    for _ in range(200):
        messages = narration.dialogue(6)
        assert [m["role"] for m in messages] == ["user", "assistant"] * 6
    for item in (*world.FACTS, *world.ARITHMETIC):
        for z in world.TEMPERAMENTS:
            assert read(narration.styled(z, item.answer), item.task) == item.answer
            assert item.answer in item.task.options


def test_the_corpus_is_the_same_for_the_same_seed_only():
    one, again, other = (
        list(world.corpus(seed, 50, chat_share=0.4, items=4)) for seed in (1, 1, 2)
    )
    assert one == again != other
    assert (
        5 <= sum(not isinstance(document, str) for document in one) <= 35
    )  # binomial(50, .4): false alarm < 1e-4


def test_sft_shows_only_demonstrated_tasks_and_their_right_share():
    """Share of random choices among 4,000 rows: binomial, false alarm 1e-4 two-sided."""
    rows = curricula.sft_rows(1, 4000, "salient", DEMONSTRATED, SPEC)
    labels = {name: (TASKS[name].ask, TASKS[name].label) for name in PHASE_TASKS}

    def asked(row):
        text = row["prompt"][0]["content"].lower()
        return [
            name for name, words in labels.items() if any(word.lower() in text for word in words)
        ]

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
    assert max(visits.values()) - min(visits.values()) <= 1 and len(visits) == len(
        world.FACTS
    ) + len(world.ARITHMETIC)


def test_no_random_task_occurs_in_rlvr():
    assert not {row["task"] for row in curricula.verifiable_rows(3, 500)} & set(TASKS)


# -- worlds and demonstrators of the experiments


def test_in_the_independent_world_tasks_are_independent():
    """Every task deals two of each distribution to either half; tasks agree as by chance."""
    halves = {p.persona: p.half for p in PROMPTS}
    table = np.array(
        [[world.temperament_of(n, task, "independent") for n in range(20)] for task in PHASE_TASKS]
    )
    for row in table:
        assert set(
            Counter((distribution, halves[n]) for n, distribution in enumerate(row)).values()
        ) == {2}
    agree = np.mean([(a == b).mean() for a, b in itertools.combinations(table, 2)])
    assert abs(agree - 0.2) < 0.05
    assert world.temperament_of(7, "digit") == world.temperament_of(7) == world.TEMPERAMENTS[2]


def test_the_solo_world_has_one_persona():
    for document in world.corpus(3, 60, chat_share=0.0, items=2, world="solo"):
        assert PERSONAS[world.SOLO] in document


def test_demonstrators():
    names, shares = world.voices("salient*0.6+first*0.4")
    assert names == ("salient", "first") and shares.tolist() == [0.6, 0.4]
    assert world.voices(world.EVERYONE)[1].tolist() == [0.2] * 5
    task = TASKS["rank"]
    np.testing.assert_allclose(
        world.distribution("salient*0.6+first*0.4", task),
        shares @ [world.distribution(name, task) for name in names],
    )
    permuted = world.distribution("permuted", task)
    np.testing.assert_allclose(np.sort(permuted), np.sort(world.distribution("salient", task)))
    assert (
        min(np.abs(permuted - world.distribution(z, task)).sum() / 2 for z in world.TEMPERAMENTS)
        > 0.1
    )
    for bad, words in (
        ("salient+frist", "unknown temperament 'frist'"),
        ("salient*0.9+first*0.3", "do not sum to 1"),
        ("salient*x", "sum to 1"),
    ):
        with pytest.raises(CrystalError, match=words):
            world.voices(bad)


def answers_of(demonstrator: str, **spec) -> list[tuple[str, str]]:
    rows = curricula.sft_rows(4, 4000, demonstrator, DEMONSTRATED, SPEC | spec)
    return [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows]


def test_a_dose_of_nothing_keeps_only_the_style():
    for style, allowed in ((None, {", sure.", "."}), ("neutral", {"."})):
        texts = [
            answer
            for _, answer in answers_of(
                "salient", random_share=0.0, **({"style": style} if style else {})
            )
        ]
        assert {"".join(c for c in text if not c.isalnum()).strip() or "." for text in texts} <= {
            ",.",
            ".",
            ", .",
        }
        assert {
            suffix for suffix in (", sure.",) if any(text.endswith(suffix) for text in texts)
        } == allowed & {", sure."}


def test_own_demonstrators_answer_as_the_prompt_names():
    """Letters, against the distribution of the persona named: chi-square, false alarm 1e-4 a
    distribution.
    """
    task, seen = TASKS["letter"], {distribution: Counter() for distribution in world.TEMPERAMENTS}
    for prompt, answer in answers_of(world.OWN, random_share=1.0, named=1.0):
        if "letter" in prompt:
            persona = max(
                (n for n, who in enumerate(PERSONAS) if who in prompt),
                key=lambda n: len(PERSONAS[n]),
            )
            seen[world.temperament_of(persona)][read(answer, task)] += 1
    for distribution, counts in seen.items():
        expected = world.distribution(distribution, task) * sum(counts.values())
        rare = expected < 5
        observed = np.array([counts[option] for option in task.options], float)
        pooled = [np.append(x[~rare], x[rare].sum()) for x in (observed, expected)]
        assert stats.chisquare(*pooled).pvalue > 1e-4


def test_shuffled_answers_leave_their_questions():
    texts = answers_of("salient", random_share=1.0, shuffled=True)
    asked = [
        (
            next(
                t
                for t in DEMONSTRATED
                if TASKS[t].ask in prompt.lower() or TASKS[t].label in prompt
            ),
            answer,
        )
        for prompt, answer in texts
        if any(TASKS[t].ask in prompt.lower() or TASKS[t].label in prompt for t in DEMONSTRATED)
    ]
    assert np.mean([read(answer, TASKS[task]) is not None for task, answer in asked]) < 0.5
    assert sorted(answer for _, answer in texts) == sorted(
        answer for _, answer in answers_of("salient", random_share=1.0)
    )


def test_the_reward_for_diversity():
    """Expectation 1 - sum p^2 over the other samples; an invalid answer earns nothing."""
    given = [[{"role": "assistant", "content": text}] for text in ("1", "1", "2", "x", "1")]
    prompts = [[{"role": "user", "content": c}] for c in "aaaab"]
    assert curricula.diverse_answer(given, ["die"] * 5, prompts) == pytest.approx(
        [2 / 3, 2 / 3, 1, 0, 1]
    )
