"""The book's numbers by other hands: a few lines of numpy, from the stored read-outs alone."""

from __future__ import annotations

import numpy as np
import pytest

from crystal.keep import store
from crystal.measure import claims, joint
from crystal.measure import evidence as ev
from crystal.measure import quantities as ph
from crystal.present.views import answers

TASKS = ("die", "digit", "month")
PERSONA = np.repeat(np.arange(20), 5)  # of every prompt: twenty, in five frames each


@pytest.fixture(scope="module")
def distributions():
    """Task -> base and SFT, (100, options)."""
    frame = store.load_readouts("nano-llama", tasks=TASKS, checkpoints=["base", "sft"])
    return {
        task: tuple(answers(frame, checkpoint, task) for checkpoint in ("base", "sft"))
        for task in TASKS
    }


def cast(distribution):
    return ev.asked(distribution, PERSONA)


def entropy(p):
    return -np.sum(p * np.log2(np.where(p > 0, p, 1)), axis=-1)


def spread(p):
    """Mean squared distance of two different prompts, a number for each option."""
    pairs = [(p[i] - p[j]) ** 2 for i in range(len(p)) for j in range(i)]
    return np.mean(pairs)


def by_hand(distributions):
    """Cosines (tasks, contexts), then inner products and squares in units of a task's scatter."""
    cosine, inner, square = [], [], []
    for base, sft in distributions.values():
        own = np.array([base[n == PERSONA].mean(0) for n in range(20)]) - base.mean(0)
        move = sft.mean(0) - base.mean(0)
        scale = (own**2).sum(1).mean()
        cosine.append(own @ move / np.linalg.norm(own, axis=1) / np.linalg.norm(move))
        inner.append(own @ move / scale)
        square.append((own**2).sum(1) / scale)
    return map(np.array, (cosine, inner, square))


@pytest.mark.parametrize("task", TASKS)
def test_liquidity_and_spread(distributions, task):
    for distribution in distributions[task]:
        bits = entropy(distribution.mean(0)) - entropy(distribution).mean()
        assert float(ph.liquidity_bits(distribution)) == pytest.approx(bits, abs=1e-9)
    base, sft = distributions[task]
    found = claims.collapse(cast(base), cast(sft), permutations=19).estimate.here
    assert found == pytest.approx(spread(sft) / spread(base), abs=1e-9)


def test_joint_statistic_progress_and_probmass(distributions):
    found = joint.moves({t: tuple(map(cast, pair)) for t, pair in distributions.items()})
    cosine, inner, square = by_hand(distributions)
    null = joint.joint_null(found, permutations=19)
    assert null.observed == pytest.approx(cosine.mean(0).max(), abs=1e-9)
    chosen = [np.delete(cosine, t, axis=0).mean(0).argmax() for t in range(3)]
    above, below = (part[range(3), chosen] for part in (inner, square))
    progress = joint.progress(found)
    assert progress.here == pytest.approx(above.sum() / below.sum(), abs=1e-9)
    without = [np.delete(above, t).sum() / np.delete(below, t).sum() for t in range(3)]
    assert progress.value == pytest.approx(3 * progress.here - 2 * np.mean(without), abs=1e-9)
    assert list(joint.account(found).seeds.values()) == [str(n) for n in chosen]
    for (base, sft), persona in zip(distributions.values(), chosen, strict=True):
        seed, options, held = base[persona == PERSONA].mean(0), [], 0.0
        for option in np.argsort(-seed):
            if held < 0.9:
                options.append(option)
                held += seed[option]
        mass = claims.kept_mass(cast(sft), claims.seed_of(cast(base), persona))(np.ones(100))
        assert float(mass) == pytest.approx(sft.mean(0)[options].sum(), abs=1e-9)
