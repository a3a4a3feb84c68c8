"""The bound on tokens: against every set of nodes of small trees, and the read-out."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crystal.read.costs import PROMPT, Tree, fewest_nodes


@st.composite
def grown(draw) -> tuple[Tree, list[int], list[float]]:
    """A tree below one prompt; parents and masses of its nodes, the last few not computed."""
    parents, masses, kept = [], [], {PROMPT: 1.0}
    for node in range(draw(st.integers(1, 9))):
        parent = draw(st.sampled_from([*kept]))
        mass = kept[parent] * draw(st.floats(0.05, 0.9))
        kept[parent] -= mass
        kept[node] = mass
        parents.append(parent)
        masses.append(mass)
    last = draw(st.integers(0, 2))
    bare = [n for n in range(len(parents)) if n not in parents][-last:] if last else []
    inner = [n for n in range(len(parents)) if n not in bare]
    number = {PROMPT: PROMPT} | {n: i for i, n in enumerate(inner)}
    depth = {PROMPT: 0}
    for n, parent in enumerate(parents):
        depth[n] = depth[parent] + 1
    array = lambda of, nodes, kind=float: np.array([of[n] for n in nodes], kind)  # noqa: E731
    above = {n: number[p] for n, p in enumerate(parents)}
    tree = Tree(
        open=np.array([sum(m for m, p in zip(masses, parents) if p == PROMPT)]),
        owner=np.zeros(len(inner), int),
        parent=array(above, inner, int),
        depth=array(depth, inner, int),
        decided=array(kept, inner),
        leaf_owner=np.zeros(len(bare), int),
        leaf_parent=array(above, bare, int),
        leaf_mass=array(kept, bare),
    )
    return tree, parents, [kept[n] for n in range(len(parents))]


@given(grown(), st.floats(0.01, 0.6))
def test_no_set_of_nodes_is_smaller(made, tolerance):
    tree, parents, decided = made
    enough = [
        len(nodes)
        for size in range(len(parents) + 1)
        for nodes in itertools.combinations(range(len(parents)), size)
        if all(parents[n] in (PROMPT, *nodes) for n in nodes)
        and tree.open[0] - sum(decided[n] for n in nodes) <= tolerance
    ]
    assert fewest_nodes(tree, tolerance)[0] <= min(enough)


def test_what_decides_nothing_need_not_be_computed():
    """A is more probable and decides nothing; B is enough: the bound is one, the queue two."""
    tree = Tree(
        open=np.array([0.9]),
        owner=np.zeros(2, int),
        parent=np.full(2, PROMPT),
        depth=np.ones(2, int),
        decided=np.array([0.0, 0.4]),
        leaf_owner=np.zeros(1, int),
        leaf_parent=np.zeros(1, int),
        leaf_mass=np.array([0.5]),
    )
    assert fewest_nodes(tree, 0.55)[0] == 1
    assert fewest_nodes(tree, 0.95)[0] == 0
